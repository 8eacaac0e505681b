# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning of a pretrained model on demonstrations, by verl's SFT trainer in a process of its own.

On a CPU it is `verl_plugins.cpu.main_sft`, on GPUs `torchrun -m verl.trainer.sft_trainer`: the same trainer, the same
FSDP2 engine that reinforcement learning uses afterwards. A run that was interrupted resumes from its last checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from agent_system.errors import HiPERError
from verl_plugins.cpu.processor import fastest_dtype
from verl_plugins.export import export

POINTER = "latest_checkpointed_iteration.txt"
"""verl's file beside the checkpoints, with the step of the latest one."""

POLL_S = 0.5

WITHOUT_FLASH_ATTN = {"model.use_remove_padding": False, "+model.override_config.attn_implementation": "sdpa"}
"""On GPUs verl's defaults need the package flash-attn, which is not installed. On a CPU `main_sft` sets the same."""


class FineTuneFailed(HiPERError):
    """verl's SFT trainer ended with an error."""


@dataclass(frozen=True)
class FineTuneSpec:
    """How a pretrained model is fine-tuned.

    Attributes:
        steps: optimizer steps.
        batch: turns in a step.
        lr: peak learning rate of AdamW; linear warm-up, then a cosine down to a tenth.
        warmup: steps of warm-up.
        micro_batch_tokens: tokens of a micro-batch at most; bounds memory and changes no result.
        param_dtype: precision of the forward and backward pass, "bf16" or "fp32"; None: bf16 on GPUs, and on a CPU what
            it computes fastest. The weights themselves are fp32.
        lora_rank: rank of the adapters; 0 trains all weights.
        lora_alpha: scale of the adapters is `lora_alpha / lora_rank`.
        gradient_checkpointing: compute activations twice instead of keeping them.
        save_every: steps between two checkpoints, from which an interrupted run resumes.
        seed: of the order of the turns.
    """

    steps: int = 110
    batch: int = 16
    lr: float = 3e-4
    warmup: int = 10
    micro_batch_tokens: int = 2048
    param_dtype: str | None = None
    lora_rank: int = 0
    lora_alpha: int = 32
    gradient_checkpointing: bool = False
    save_every: int = 50
    seed: int = 0


def fine_tune(
    base: str,
    train: Path,
    held_out: Path,
    folder: Path,
    spec: FineTuneSpec,
    *,
    template_kwargs: Mapping[str, Any] | None = None,
    gpus: int,
    progress: bool,
) -> Path:
    """Fine-tune `base` on the turns in `train`, or resume where an interrupted run stopped.

    Args:
        base: folder or hub name of the model.
        train, held_out: files of `messages.write_messages`.
        folder: checkpoints, `metrics.jsonl` and the log; may be deleted afterwards.
        template_kwargs: arguments of the chat template, as in the rollout (`data.apply_chat_template_kwargs`).
        gpus: GPUs of this machine; 0 for the CPU.
        progress: whether a progress bar is drawn on standard error.

    Returns:
        A Hugging Face folder inside `folder`.

    Raises:
        FineTuneFailed: with the last line of the log and its path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints, log_file = folder / "checkpoints", folder / "sft.log"
    metrics_file = folder / f"metrics-{time.strftime('%Y%m%d-%H%M%S')}.jsonl"
    param_dtype = spec.param_dtype or ("bf16" if gpus else fastest_dtype())
    overrides = sft_overrides(base, train, held_out, checkpoints, spec, param_dtype, template_kwargs)
    launcher = ["-m", "verl_plugins.cpu.main_sft"]
    environment = os.environ | {"VERL_FILE_LOGGER_PATH": str(metrics_file)}
    if gpus:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={gpus}"]
        launcher += ["-m", "verl.trainer.sft_trainer"]
        overrides |= WITHOUT_FLASH_ATTN
    command = [sys.executable, *launcher, *(f"{key}={value}" for key, value in overrides.items())]
    with log_file.open("a", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            _follow(process, metrics_file, _latest_step(checkpoints), spec.steps, progress)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()
    if process.returncode != 0:
        lines = [line for line in log_file.read_text("utf-8", errors="replace").splitlines() if line.strip()]
        reason = lines[-1] if lines else "no output"
        raise FineTuneFailed(f"the fine-tuning of {base} failed ({reason}). The whole output is in {log_file}")
    model = folder / "model"
    shutil.rmtree(model, ignore_errors=True)  # of a start that was interrupted while it wrote
    export(checkpoints / f"global_step_{_latest_step(checkpoints)}", model)
    return model


def sft_overrides(
    base: str,
    train: Path,
    held_out: Path,
    checkpoints: Path,
    spec: FineTuneSpec,
    param_dtype: str,
    template_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The overrides of verl's `sft_trainer_engine` configuration."""
    of_template = {f"+data.apply_chat_template_kwargs.{key}": value for key, value in (template_kwargs or {}).items()}
    precision = f"{{param_dtype:{param_dtype},reduce_dtype:fp32,buffer_dtype:fp32}}"
    return {
        **{key: json.dumps(value) for key, value in of_template.items()},
        "model.path": base,
        "model.enable_gradient_checkpointing": spec.gradient_checkpointing,
        "model.lora_rank": spec.lora_rank,
        "model.lora_alpha": spec.lora_alpha,
        "data.train_files": train,
        "data.val_files": held_out,
        "data.val_max_samples": 64,  # for the progress bar; `held_out.measure_held_out` measures the finished model
        "data.train_batch_size": spec.batch,
        "data.micro_batch_size_per_gpu": spec.batch,
        "data.max_token_len_per_gpu": spec.micro_batch_tokens,
        "data.custom_cls.path": "pkg://recipe.hiper.cold_start.messages",
        "data.custom_cls.name": "TurnDataset",
        "optim.lr": spec.lr,
        "optim.lr_warmup_steps": spec.warmup,
        "optim.lr_scheduler_type": "cosine",
        "optim.min_lr_ratio": 0.1,
        "engine.strategy": "fsdp2",
        "+engine.mixed_precision": precision,
        "engine.seed": spec.seed,
        "checkpoint.save_contents": "[model,optimizer,extra]",
        "checkpoint.load_contents": "[model,optimizer,extra]",
        "trainer.default_local_dir": checkpoints,
        "trainer.max_ckpt_to_keep": 1,
        "trainer.total_epochs": 1_000_000,  # it ends after total_training_steps
        "trainer.total_training_steps": spec.steps,
        "trainer.save_freq": spec.save_every,
        "trainer.test_freq": spec.save_every,
        "trainer.logger": "[file]",
        "trainer.seed": spec.seed,
    }


def _latest_step(checkpoints: Path) -> int:
    try:
        return int((checkpoints / POINTER).read_text("utf-8"))
    except (OSError, ValueError):
        return 0


def _follow(process: subprocess.Popen, metrics_file: Path, first: int, steps: int, progress: bool) -> None:
    """Draw a progress bar of a running training until it ends."""
    with tqdm(total=steps, initial=first, desc="fine-tuning", unit="step", disable=not progress) as bar:
        shown: dict[str, str] = {}
        position = 0
        running = True
        while running:
            running = process.poll() is None
            rows, position = _new_rows(metrics_file, position)
            for row in rows:
                for name, label in (("train/loss", "loss"), ("val/loss", "held-out loss")):
                    if name in row["data"]:
                        shown[label] = f"{row['data'][name]:.3f}"
                bar.set_postfix(shown, refresh=False)
                bar.update(row["step"] - bar.n)
            if running:
                time.sleep(POLL_S)


def _new_rows(path: Path, position: int) -> tuple[list[Mapping[str, Any]], int]:
    """The complete lines of a growing file behind a position, and the position behind them."""
    if not path.exists():
        return [], position
    with path.open("rb") as file:
        file.seek(position)
        whole = file.read().rpartition(b"\n")[0]
    lines = whole.splitlines()
    return [json.loads(line) for line in lines], position + (len(whole) + 1 if lines else 0)
