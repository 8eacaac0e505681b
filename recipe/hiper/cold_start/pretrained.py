# SPDX-License-Identifier: Apache-2.0
"""A pretrained language model that is fine-tuned on demonstrations: the start of reinforcement learning.

Without it a model of this size gives no valid reply (0 of 16 tasks with SmolLM2-135M-Instruct, zero-shot), and
reinforcement learning has nothing to reinforce.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, TypeVar

from agent_system.errors import ConfigError, TaskError
from agent_system.locks import locked_file
from recipe.hiper.cold_start.demonstrations import Demonstration, DemonstrationSpec, settings_of
from recipe.hiper.cold_start.fine_tune import FineTuneSpec, fine_tune
from recipe.hiper.cold_start.held_out import measure_held_out
from recipe.hiper.cold_start.messages import write_messages
from recipe.hiper.cold_start.own_demonstrations import OwnDemonstrationSpec
from recipe.hiper.cold_start.shop_demonstrations import ShopDemonstrationSpec
from recipe.hiper.cold_start.smollm2 import make_smollm2

CODE_VERSION = 1
"""Raise it whenever the same spec would give another model."""

MANIFEST = "cold_start.json"
"""Written last: a folder with this file is complete."""

DEMONSTRATIONS = "demonstrations"
"""Folder in a model's with the turns that it was trained and measured on: parquet files of chat messages."""

HELD_OUT_SEED_SHIFT = 1_000_003
"""Held-out demonstrations are drawn with another seed than those that are trained on."""

D = TypeVar("D", DemonstrationSpec, ShopDemonstrationSpec, OwnDemonstrationSpec)


@dataclass(frozen=True)
class PretrainedSpec(Generic[D]):
    """What a fine-tuned model depends on besides the data of its tasks.

    Attributes:
        base: name of the pretrained model (`smollm2`, a hub name, or a folder).
        demonstrations: how the scripted player plays.
        fine_tune: how the model is trained on that.
        held_out_episodes: demonstrations that are only measured on.
        system_prompt, template_kwargs: how prompts are rendered, see `PromptEncoder`; None as there.
    """

    base: str
    demonstrations: D
    fine_tune: FineTuneSpec = field(default_factory=FineTuneSpec)
    held_out_episodes: int = 32
    system_prompt: str | None = None
    template_kwargs: dict[str, Any] | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over this spec and the version of the code."""
        # Without what is not set: a model that was made before a setting existed is still the model of its spec.
        values = {name: value for name, value in settings_of(self).items() if value is not None}
        kind = type(self.demonstrations).__name__  # what the model reads depends on it
        content = json.dumps({"code": CODE_VERSION, "demonstrations_kind": kind, **values}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def make_fine_tuned(
    folder: Path,
    spec: PretrainedSpec,
    play: Callable[..., list[Demonstration]],
    data_digest: str,
    *,
    workers: int,
    progress: bool,
) -> None:
    """Play demonstrations, fine-tune, and leave a Hugging Face folder; or reuse the finished one.

    What is finished stays in `<folder>.work` until the whole is: an interrupted start resumes there.

    Args:
        folder: appears under its name only when it is complete.
        play: called as `play(split, demonstrations, workers=..., progress=...)` with the split "train" or "held_out"
            and a specification of demonstrations.
        data_digest: of the data of the tasks.
        workers: processes that play; the result does not depend on their number.
        progress: whether progress bars are drawn on standard error.

    Raises:
        ConfigError: `folder` holds something else.
        FineTuneFailed: the training ended with an error.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked_file(folder.with_name(f".{folder.name}.lock")):
        if folder.exists():
            _check_folder(folder, spec, data_digest)
            return
        work = folder.with_name(f"{folder.name}.work")
        work.mkdir(exist_ok=True)
        held_out = replace(
            spec.demonstrations, episodes=spec.held_out_episodes, seed=spec.demonstrations.seed + HELD_OUT_SEED_SHIFT
        )
        files = {}
        for split, demonstrations in (("train", spec.demonstrations), ("held_out", held_out)):
            path = files[split] = work / f"{split}.parquet"
            if not path.exists():
                played = play(split, demonstrations, workers=workers, progress=progress)
                partial = path.with_suffix(f".partial-{os.getpid()}")
                write_messages(partial, [turn for episode in played for turn in episode.examples], spec.system_prompt)
                partial.rename(path)
        model = fine_tune(
            base_folder(spec.base, folder.parent, progress=progress),
            files["train"],
            files["held_out"],
            work / "sft",
            spec.fine_tune,
            template_kwargs=spec.template_kwargs,
            gpus=usable_gpus(),
            progress=progress,
        )
        content = {
            "digest": spec.digest,
            "data_digest": data_digest,
            "spec": asdict(spec),
            "held_out": asdict(measure_held_out(model, files["held_out"], progress=progress)),
            "made_with": {name: version(name) for name in ("torch", "transformers", "verl")},
        }
        (model / DEMONSTRATIONS).mkdir()
        for path in files.values():
            shutil.copy(path, model / DEMONSTRATIONS)
        (model / MANIFEST).write_text(json.dumps(content, indent=2, default=str) + "\n", "utf-8")
        model.rename(folder)
        shutil.rmtree(work)


def base_folder(base: str, models: Path, *, progress: bool) -> str:
    """The folder or hub name of a pretrained model; `smollm2` is made in the folder `models` where it is missing."""
    if base != "smollm2":
        return base
    make_smollm2(models / base, progress=progress)
    return str(models / base)


def usable_gpus() -> int:
    """GPUs that the fine-tuning uses: all of this machine, none under `profile=cpu`."""
    if os.environ.get("VERL_PLATFORM") == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


def _check_folder(folder: Path, spec: PretrainedSpec, data_digest: str) -> None:
    path = folder / MANIFEST
    if not path.exists():
        raise ConfigError(f"{folder} exists and holds no {MANIFEST}: it is not a cold start. Try: delete it")
    try:
        content = json.loads(path.read_text("utf-8"))
        digests = content["digest"], content["data_digest"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise TaskError(f"{path} cannot be read ({error!r}). Try: delete {folder} and run again") from error
    if digests != (spec.digest, data_digest):
        raise ConfigError(f"{folder} holds a model made from other settings or other data. Try: delete it")
