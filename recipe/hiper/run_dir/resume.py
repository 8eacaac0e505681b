# SPDX-License-Identifier: Apache-2.0
"""A folder that already holds a run: may this one go on from its checkpoints, and what happens to its files?"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from agent_system.errors import ConfigError
from agent_system.processes import LOCK
from recipe.hiper.configuration.keys import flat_items
from recipe.hiper.configuration.settings import number_of_heads
from recipe.hiper.run_dir.recorder import unused_folder

WHAT_ITS_WEIGHTS_ARE = (
    "env.name",
    "env.env_name",
    "env.prompt_style",
    "env.short_keep",
    "actor_rollout_ref.model.path",
    "algorithm.adv_estimator",
)
"""Weights learned under one of these are of no use under another; a different model is another KL reference."""

WHAT_IT_LEARNS = ("algorithm.hae.switch_advantage", "algorithm.hae.penalty_credit", "env.seed")
"""Values learned under one of these mean something else under another, and another seed is another run."""

MODES = ("auto", "disable", "resume_path")
"""What verl knows for `trainer.resume_mode`."""

TRACKER = "latest_checkpointed_iteration.txt"
"""verl's file beside the checkpoints with the step of the latest one."""

MADE_BY = "run.yaml"
"""Our file beside them: the configuration of the run that they belong to."""

RESULTS = (
    *("config.yaml", "metrics.jsonl", "curve.png", "episodes", "tensorboard", "wandb"),
    *("failures.jsonl", "status.json", "logs"),
)
"""What a run leaves in its folder besides checkpoints and evaluations."""

SAID_ANEW = (
    *("run_dir", "trainer.default_local_dir", "data.train_files", "data.val_files"),
    *("env.pool_name", "env.kwargs", "ray_kwargs"),
    *("trainer.val_only", "trainer.resume_mode", "trainer.resume_from_path"),
)
"""Keys and sections that may differ between two starts of the same run."""


def separate_evaluation(config: DictConfig) -> None:
    """With `trainer.val_only`, give the evaluation a folder of its own in the run's, and leave the run's files alone.

    Checkpoints are still those of the run. Changes `config` in place.
    """
    if not config.trainer.val_only:
        return
    folder = Path(config.run_dir).absolute()
    with open_dict(config):
        config.trainer.val_before_train = True  # without it verl never comes to ask for val_only, and trains
        config.trainer.default_local_dir = str(Path(config.trainer.default_local_dir).absolute())
        config.run_dir = str(folder / "evaluations" / time.strftime("%Y%m%d-%H%M%S"))


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other runs out of `folder` until this one ends, however it ends.

    Raises:
        ConfigError: another run is there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another run is writing to {folder}. {_elsewhere(folder)}") from None
        yield


def _elsewhere(folder: Path) -> str:
    return f"run_dir={folder.with_name(folder.name + '-2')}"


def chosen_checkpoint(config: DictConfig) -> Path | None:
    """The checkpoint of `trainer.resume_mode=resume_path`, absolute; None where none was chosen."""
    trainer = config.trainer
    if trainer.resume_mode != "resume_path" or not trainer.resume_from_path:
        return None
    return Path(os.path.abspath(Path(str(trainer.resume_from_path)).expanduser()))


def _is_of_this_run(checkpoint: Path, config: DictConfig) -> bool:
    return checkpoint.parent.resolve() == Path(config.trainer.default_local_dir).resolve()


def _is_checkpoint(path: Path) -> bool:
    # verl takes the weights of old checkpoints away and leaves the folder
    return re.fullmatch(r"global_step_\d+", path.name) is not None and (path / "actor").is_dir()


def resume_problems(config: DictConfig) -> Iterator[str]:
    """A message for what is wrong with `trainer.resume_mode` and `trainer.resume_from_path`."""
    trainer = config.trainer
    if trainer.resume_mode not in MODES:
        yield (
            f"trainer.resume_mode={trainer.resume_mode} is not one of {', '.join(MODES)}. trainer.resume_mode=auto "
            "goes on with the run in run_dir, trainer.resume_mode=disable starts over"
        )
    elif trainer.resume_mode == "resume_path" and not trainer.resume_from_path:
        yield (
            "trainer.resume_mode=resume_path needs trainer.resume_from_path=<.../global_step_N>; "
            "or trainer.resume_mode=auto"
        )
    chosen = chosen_checkpoint(config)
    if chosen is None:
        return
    if not _is_checkpoint(chosen):
        near = [path for folder in (chosen.parent, chosen) for path in folder.glob("global_step_*")]
        near = sorted(filter(_is_checkpoint, near), key=lambda path: int(path.name.removeprefix("global_step_")))
        there = f"There is none in {chosen.parent}. trainer.resume_mode=auto"
        if near:
            there = f"There are {', '.join(path.name for path in near)}. trainer.resume_from_path={near[-1]}"
        yield (
            f"trainer.resume_from_path={trainer.resume_from_path} is no checkpoint, which is a folder "
            f"global_step_<number> with actor/ in it. {there}"
        )
    elif not trainer.val_only and not _is_of_this_run(chosen, config):
        yield from _mixed(config, chosen)


def _mixed(config: DictConfig, chosen: Path) -> Iterator[str]:
    """A message where a run that begins at another's checkpoint would write into the files of a third.

    Until it has saved a checkpoint itself, the same command may begin again there.
    """
    folder = Path(config.run_dir).absolute()
    problem = (
        f"{folder} holds a run already, and trainer.resume_from_path={chosen} is another's. {_elsewhere(folder)} keeps "
        "them apart"
    )
    if saved_steps(Path(config.trainer.default_local_dir)):
        yield f"{problem}; to go on with the one in {folder}, trainer.resume_mode=auto"
    elif (folder / "metrics.jsonl").exists():
        before = folder / "config.yaml"
        if not before.exists() or chosen_checkpoint(OmegaConf.load(before)) != chosen:
            yield problem


def saved_steps(checkpoints: Path) -> list[int]:
    """Steps of the checkpoints that are really in the folder, in order."""
    return sorted(
        int(path.name.removeprefix("global_step_"))
        for path in checkpoints.glob("global_step_*")
        if _is_checkpoint(path)
    )


def _pointer(checkpoints: Path) -> int | None:
    """The step that verl would resume from; None where the pointer file is missing or unreadable."""
    try:
        return int((checkpoints / TRACKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def checkpoint_to_resume(config: DictConfig) -> Path | None:
    """The checkpoint that this run starts from; None where it starts from step 0.

    With `trainer.resume_mode=auto` it is the one that verl's pointer file names. If that one is gone, it is the latest
    earlier one; a later one may be half written, or belong to a branch that was left.
    """
    trainer = config.trainer
    if chosen := chosen_checkpoint(config):
        return chosen
    if trainer.resume_mode != "auto":
        return None
    checkpoints = Path(trainer.default_local_dir).absolute()
    if not (checkpoints / TRACKER).exists():
        return None
    pointer = _pointer(checkpoints)
    steps = [step for step in saved_steps(checkpoints) if pointer is None or step <= pointer]
    return checkpoints / f"global_step_{steps[-1]}" if steps else None


def correct_pointer(config: DictConfig) -> str | None:
    """Make verl load the checkpoint of `checkpoint_to_resume` where its pointer file names one that is gone.

    verl would start from step 0 without a word. An evaluation leaves the pointer file alone and names the checkpoint
    in `config` instead.

    Returns:
        A line for the user; None where the pointer file is right.
    """
    trainer = config.trainer
    checkpoint = checkpoint_to_resume(config)
    if trainer.resume_mode != "auto" or checkpoint is None:
        return None
    pointer = _pointer(checkpoint.parent)
    if checkpoint.name == f"global_step_{pointer}":
        return None
    if trainer.val_only:
        trainer.resume_mode, trainer.resume_from_path = "resume_path", str(checkpoint)
    else:
        _write_pointer(checkpoint)
    return f"the checkpoint of step {pointer} is gone: resuming from {checkpoint}, the latest one that is there"


def _write_pointer(checkpoint: Path) -> None:
    (checkpoint.parent / TRACKER).write_text(checkpoint.name.removeprefix("global_step_"), encoding="utf-8")


def earlier_run(config: DictConfig) -> DictConfig | None:
    """Configuration of the run whose checkpoint would be loaded; None where none would, or it is not known."""
    checkpoint = checkpoint_to_resume(config)
    if checkpoint is None:
        return None
    path = checkpoint.parent / MADE_BY
    return OmegaConf.load(path) if path.exists() else None


def has_results(folder: Path) -> bool:
    """Whether a run's folder holds something that the next run would overwrite."""
    metrics = folder / "metrics.jsonl"
    return (metrics.exists() and metrics.stat().st_size > 0) or any((folder / "episodes").glob("*.jsonl"))


def set_aside(config: DictConfig) -> Path | None:
    """Move the results of an earlier run out of the way of one that does not resume from its checkpoints.

    Nothing of them is deleted or overwritten. Checkpoints are moved as well: the next start would resume from them.

    Returns:
        Where they are now; None where there were none, or where this run resumes.
    """
    folder, checkpoints = Path(config.run_dir).absolute(), Path(config.trainer.default_local_dir).absolute()
    if config.trainer.val_only:
        return None
    checkpoint = checkpoint_to_resume(config)
    if checkpoint is not None and _is_of_this_run(checkpoint, config):
        return None
    has_checkpoints = (checkpoints / TRACKER).exists() or bool(saved_steps(checkpoints))
    if not has_checkpoints and not has_results(folder):
        return None
    aside = unused_folder(folder)
    aside.mkdir(parents=True)
    for name in RESULTS:
        if (folder / name).exists():
            (folder / name).rename(aside / name)
    if has_checkpoints:  # beside themselves where they are kept elsewhere: perhaps another disk
        inside = checkpoints.is_relative_to(folder)
        checkpoints.rename(aside / checkpoints.name if inside else f"{checkpoints}-{aside.name}")
    return aside


def begin(config: DictConfig) -> None:
    """Write down whose the checkpoints will be, and from which one the next start goes on: this run's, not a later one
    that it went back behind (`trainer.resume_mode=resume_path`).

    The path of a chosen checkpoint is changed in `config` to one that verl can read the step from.
    """
    trainer = config.trainer
    chosen = chosen_checkpoint(config)
    if chosen:
        trainer.resume_from_path = str(chosen)
    checkpoints = Path(trainer.default_local_dir)
    if trainer.val_only or trainer.save_freq <= 0:
        return
    checkpoints.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, checkpoints / MADE_BY)
    if chosen and _is_of_this_run(chosen, config):
        _write_pointer(chosen)


def how_to_go_on(config: DictConfig) -> str:
    """Which command an interrupted run goes on with."""
    trainer = config.trainer
    checkpoints = Path(trainer.default_local_dir)
    if trainer.val_only or not ((checkpoints / TRACKER).exists() and saved_steps(checkpoints)):
        return "There is nothing to go on from yet: the same command begins again."
    same = "same command" if trainer.resume_mode == "auto" else "command without trainer.resume_mode"
    return f"The {same} goes on from the latest checkpoint."


def refuse_another_run(config: DictConfig, earlier: DictConfig) -> None:
    """Check that this run is the same one as that whose checkpoints would be loaded.

    Keys that are not filled in yet (null) are not compared, and of the model's path only the last part is: the cache
    may have moved. Numbers may change: see `changes`.

    Raises:
        ConfigError: with what differs, and how to keep both runs or to start over.
    """

    def value(one: DictConfig, key: str) -> Any:
        found = OmegaConf.select(one, key)
        return Path(found).name if key.endswith(".path") and found else found

    only_evaluates = config.trainer.val_only
    found = []
    for key in (*WHAT_ITS_WEIGHTS_ARE, *(() if only_evaluates else WHAT_IT_LEARNS)):
        now, then = value(config, key), value(earlier, key)
        if now is not None and then is not None and now != then:
            found.append(f"{key}={now}, there {then}")
    if config.algorithm.adv_estimator == earlier.algorithm.adv_estimator:
        heads = [number_of_heads(one) for one in (config, earlier)]
        if heads[0] != heads[1]:
            found.append(f"a critic with {heads[0]} value heads, there {heads[1]}")
    if not found:
        return
    listed = "\n".join(f"  - {line}" for line in found)
    remedy = (
        f"{_elsewhere(Path(config.run_dir))} keeps both apart; trainer.resume_mode=disable starts over and sets that "
        "run aside. To go on with it"
    )
    raise ConfigError(
        f"{earlier.run_dir} holds another run, and its checkpoints would be loaded:\n{listed}\n"
        f"{'To evaluate that run' if only_evaluates else remedy}, set these as they are there."
    )


def changes(config: DictConfig, earlier: DictConfig) -> Iterator[str]:
    """What is set differently than in the run that is gone on with: "key: then -> now"."""

    def known(one: DictConfig) -> dict[str, Any]:
        return dict(flat_items(OmegaConf.to_container(one, resolve=True)))

    then = known(earlier)
    for key, value in known(config).items():
        is_said_anew = any(key == name or key.startswith(name + ".") for name in SAID_ANEW)
        if key in then and then[key] != value and not is_said_anew:
            yield f"{key}: {then[key]} -> {value}"
