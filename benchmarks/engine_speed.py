# SPDX-License-Identifier: Apache-2.0
"""What the training engine costs on top of the model: tokens a second of both, in one process on CPU.

python benchmarks/engine_speed.py                       # SmolLM2's architecture with random weights
python benchmarks/engine_speed.py --model <folder> --rows 64
python benchmarks/engine_speed.py --attention sdpa pytorch --budgets 1024 --variants "kept over a batch"

`--attention pytorch` is `sdpa` with PyTorch's own backward pass (see `verl_plugins.cpu.attention`).

The rows have the lengths of ALFWorld's turns in the compact style. The engine is the trainer's own: verl's FSDP2 engine
with the plug-ins of this project.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("VERL_PLATFORM", "cpu")

import torch
from machine import describe
from precision import SMOLLM2, best_seconds
from tensordict import TensorDict
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig

from verl_plugins.cpu.engines import CPUFSDPEngineWithLMHead
from verl_plugins.cpu.processor import fastest_dtype

AttentionInterface.register("pytorch", sdpa_attention_forward)
AttentionMaskInterface.register("pytorch", sdpa_mask)

PROMPT, REPLY = (100, 220), (24, 44)
"""Shortest and longest prompts and replies, in tokens."""


def random_rows(count: int, vocabulary: int) -> TensorDict:
    """Rows as the trainer hands them to an engine."""
    generator = torch.Generator().manual_seed(0)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    sizes = [(draw(*PROMPT), draw(*REPLY)) for _ in range(count)]
    ids = [torch.randint(vocabulary, (prompt + reply,), generator=generator) for prompt, reply in sizes]

    def nested(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.nested.as_nested_tensor(parts, layout=torch.jagged)

    pairs = list(zip(ids, sizes, strict=True))
    return TensorDict(
        {
            "input_ids": nested(ids),
            "position_ids": nested([torch.arange(len(row)) for row in ids]),
            "loss_mask": nested([(torch.arange(len(row)) >= prompt).long() for row, (prompt, _) in pairs]),
            "prompts": nested([row[:prompt] for row, (prompt, _) in pairs]),
            "responses": nested([row[prompt:] for row, (prompt, _) in pairs]),
            "response_mask": nested([torch.ones(reply, dtype=torch.long) for _, reply in sizes]),
        },
        batch_size=count,
    )


def make_engine(folder: Path, attention: str, **settings: Any) -> CPUFSDPEngineWithLMHead:
    """The policy's engine of a CPU run."""
    precision = {"param_dtype": fastest_dtype(), "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    engine = CPUFSDPEngineWithLMHead(
        model_config=HFModelConfig(
            path=str(folder),
            load_tokenizer=False,
            enable_gradient_checkpointing=False,
            use_remove_padding=False,
            override_config={"attn_implementation": attention},
        ),
        engine_config=FSDPEngineConfig(
            strategy="fsdp2", use_torch_compile=False, mixed_precision=precision, **settings
        ),
        optimizer_config=FSDPOptimizerConfig(lr=1e-6, total_training_steps=10),
        checkpoint_config=CheckpointConfig(),
    )
    engine.initialize()
    return engine


def loss(model_output: dict, data: TensorDict, dp_group: Any = None) -> tuple[torch.Tensor, dict]:
    """Of the whole rows, as a policy loss reads them."""
    log_probs = model_output["log_probs"]
    return -log_probs.values().mean(), {}


def of_engine(
    folder: Path, data: TensorDict, tokens: int, budget: int, repeats: int, attention: str, **settings: Any
) -> list[float]:
    """Tokens a second, forward and both passes with the update."""
    tu.assign_non_tensor(
        data,
        use_remove_padding=False,
        use_dynamic_bsz=True,
        max_token_len_per_gpu=budget,
        temperature=1.0,
        pad_token_id=0,
        calculate_entropy=False,
    )
    engine = make_engine(folder, attention, **settings)

    def forward() -> None:
        with engine.eval_mode():
            engine.infer_batch(data)

    def update() -> None:
        with engine.train_mode():
            engine.train_batch(data, loss_function=loss)

    return [tokens / best_seconds(forward, repeats), tokens / best_seconds(update, repeats)]


def of_model(folder: Path, repeats: int, attention: str) -> list[float]:
    """Tokens a second of the model alone, 8 rows of equal length at a time."""
    dtype = torch.bfloat16 if fastest_dtype() == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention)
    length = (sum(PROMPT) + sum(REPLY)) // 2
    ids = torch.randint(model.config.vocab_size, (8, length))
    kept = sum(REPLY) // 2

    def forward() -> None:
        with torch.no_grad():
            model(input_ids=ids, logits_to_keep=kept, use_cache=False)

    def both() -> None:
        model(input_ids=ids, logits_to_keep=kept, use_cache=False).logits.float().logsumexp(-1).mean().backward()

    return [ids.numel() / best_seconds(run, repeats) for run in (forward, both)]


VARIANTS = {
    "copied in each micro-batch": dict(reshard_after_forward=True, use_no_sync_for_gradient_accumulation=False),
    "kept over a batch": dict(reshard_after_forward=False, use_no_sync_for_gradient_accumulation=True),
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="Hugging Face folder (default: random weights)")
    parser.add_argument("--rows", type=int, default=64, help="rows of a batch (default: %(default)s)")
    parser.add_argument("--budgets", type=int, nargs="+", default=[2048, 4096], help="tokens of a micro-batch")
    parser.add_argument("--repeats", type=int, default=2, help="the fastest counts (default: %(default)s)")
    parser.add_argument("--attention", nargs="+", default=["sdpa"], help="implementations of transformers")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="treatment of weights")
    options = parser.parse_args()
    print(describe("torch", "verl", "transformers"), f"- {fastest_dtype()}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.model
        if folder is None:
            folder = Path(scratch) / "model"
            LlamaForCausalLM(LlamaConfig(**SMOLLM2, pad_token_id=0)).save_pretrained(folder)
        address = f"file://{Path(scratch) / 'process_group'}"
        torch.distributed.init_process_group("gloo", init_method=address, rank=0, world_size=1)
        data = random_rows(options.rows, 40_000)
        tokens = int(data["input_ids"].offsets()[-1])
        for attention in options.attention:
            alone = of_model(folder, options.repeats, attention)
            print(f"{attention}, {'the model alone':44s} forward {alone[0]:6.0f} tokens/s, with update {alone[1]:6.0f}")
            for budget, name in product(options.budgets, options.variants):
                rates = of_engine(folder, data, tokens, budget, options.repeats, attention, **VARIANTS[name])
                ratios = " and ".join(f"{rate / base:.2f}" for rate, base in zip(rates, alone, strict=True))
                print(
                    f"{attention}, weights {name}, {budget:5d} tokens".ljust(50),
                    f"forward {rates[0]:6.0f} tokens/s, with update {rates[1]:6.0f}: {ratios} of the model's",
                    flush=True,
                )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"peak memory {peak:.1f} GiB")
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
