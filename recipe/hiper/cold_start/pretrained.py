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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, TypeVar

from agent_system.environments.tasks import TaskPanel, epoch_order
from agent_system.environments.webshop.shop import open_shop
from agent_system.errors import ConfigError, TaskError
from agent_system.locks import locked_file
from recipe.hiper.cold_start.demonstrations import DemonstrationSpec, Example, collect
from recipe.hiper.cold_start.fine_tune import FineTuneSpec, fine_tune
from recipe.hiper.cold_start.held_out import measure_held_out
from recipe.hiper.cold_start.messages import write_messages
from recipe.hiper.cold_start.own_demonstrations import OwnDemonstrationSpec, collect_with_player
from recipe.hiper.cold_start.shop_demonstrations import ShopDemonstrationSpec, collect_in_shop
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
        values = {name: value for name, value in asdict(self).items() if value is not None}
        kind = type(self.demonstrations).__name__  # what the model reads depends on it
        content = json.dumps({"code": CODE_VERSION, "demonstrations_kind": kind, **values}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def make_fine_tuned(
    folder: Path,
    spec: PretrainedSpec,
    collect: Callable[[str, Any], Sequence[Example]],
    splits: tuple[str, str],
    data_digest: str,
    *,
    base_folder: str,
    gpus: int,
    progress: bool,
) -> None:
    """Play demonstrations, fine-tune, and leave a Hugging Face folder; or reuse the finished one.

    What is finished stays in `<folder>.work` until the whole is: an interrupted start resumes there.

    Args:
        folder: appears under its name only when it is complete.
        collect: returns the turns of a split, played as a spec of demonstrations says.
        splits: the splits that are trained and measured on.
        data_digest: of the data of the tasks.
        base_folder: folder or hub name of `spec.base`.
        gpus: GPUs of this machine; 0 for the CPU.
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
        files = {"train": (splits[0], spec.demonstrations), "held_out": (splits[1], held_out)}
        for name, (split, demonstrations) in files.items():
            path = work / f"{name}.parquet"
            if not path.exists():
                partial = path.with_suffix(f".partial-{os.getpid()}")
                write_messages(partial, collect(split, demonstrations), spec.system_prompt)
                partial.rename(path)
        model = fine_tune(
            base_folder,
            work / "train.parquet",
            work / "held_out.parquet",
            work / "sft",
            spec.fine_tune,
            template_kwargs=spec.template_kwargs,
            gpus=gpus,
            progress=progress,
        )
        content = {
            "digest": spec.digest,
            "data_digest": data_digest,
            "spec": asdict(spec),
            "made_with": {name: version(name) for name in ("torch", "transformers", "verl")},
        }
        measured = measure_held_out(model, work / "held_out.parquet", progress=progress)
        (model / DEMONSTRATIONS).mkdir(exist_ok=True)
        for name in files:
            (work / f"{name}.parquet").rename(model / DEMONSTRATIONS / f"{name}.parquet")
        content["held_out"] = asdict(measured)
        (model / MANIFEST).write_text(json.dumps(content, indent=2, default=str) + "\n", "utf-8")
        model.rename(folder)
        shutil.rmtree(work)


def make_fine_tuned_on_games(
    folder: Path,
    spec: PretrainedSpec[DemonstrationSpec],
    train: TaskPanel,
    held_out: TaskPanel,
    *,
    workers: int,
    progress: bool,
) -> None:
    """`make_fine_tuned` with demonstrations on ALFWorld's games, generated or published.

    Args:
        train, held_out: the games that are trained and measured on.
        workers: processes that play; the result does not depend on their number.
    """
    panels = {"train": train, "held out": held_out}

    def play(split: str, demonstrations: DemonstrationSpec) -> list[Example]:
        tasks = epoch_order(panels[split], demonstrations.seed, epoch=0)
        files = [Path(task.options["game_file"]) for task in tasks]
        played = collect(files, demonstrations, workers=workers, progress=progress)
        return [example for demonstration in played for example in demonstration.examples]

    make_fine_tuned(
        folder,
        spec,
        play,
        ("train", "held out"),
        train.digest,
        base_folder=base_folder(spec.base, folder.parent, progress=progress),
        gpus=usable_gpus(),
        progress=progress,
    )


def make_fine_tuned_in_shop(
    folder: Path, spec: PretrainedSpec[ShopDemonstrationSpec], shop: Path, *, workers: int, progress: bool
) -> None:
    """`make_fine_tuned` with demonstrations in a prepared shop.

    Args:
        shop: a prepared shop, published or generated.
        workers: processes that play; the result does not depend on their number.
    """

    def play(part: str, demonstrations: ShopDemonstrationSpec) -> list[Example]:
        played = collect_in_shop(shop, part, demonstrations, workers=workers, progress=progress)
        return [example for demonstration in played for example in demonstration.examples]

    make_fine_tuned(
        folder,
        spec,
        play,
        ("train", "eval"),
        str(open_shop(shop).manifest.sources),
        base_folder=base_folder(spec.base, folder.parent, progress=progress),
        gpus=usable_gpus(),
        progress=progress,
    )


def make_fine_tuned_in_own(
    folder: Path,
    spec: PretrainedSpec[OwnDemonstrationSpec],
    env_name: str,
    env_kwargs: Mapping[str, Any],
    train: TaskPanel,
    held_out: TaskPanel,
    *,
    workers: int,
    progress: bool,
) -> None:
    """`make_fine_tuned` with demonstrations in an environment of the user's own.

    Args:
        env_name: `module:NAME` of an `EnvironmentSpec` with a player.
        env_kwargs: passed to `gymnasium.make` besides the step limit.
        train, held_out: the tasks that are trained and measured on.
        workers: processes that play; the result does not depend on their number.
    """
    panels = {"train": train, "held out": held_out}

    def play(split: str, demonstrations: OwnDemonstrationSpec) -> list[Example]:
        tasks = epoch_order(panels[split], demonstrations.seed, epoch=0)
        played = collect_with_player(env_name, tasks, demonstrations, env_kwargs, workers=workers, progress=progress)
        return [example for demonstration in played for example in demonstration.examples]

    make_fine_tuned(
        folder,
        spec,
        play,
        ("train", "held out"),
        train.digest,
        base_folder=base_folder(spec.base, folder.parent, progress=progress),
        gpus=usable_gpus(),
        progress=progress,
    )


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
