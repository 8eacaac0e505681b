# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint a run starts from: what `trainer.resume_mode` selects, and what is complete on the disk."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from agent_system.errors import ConfigError
from recipe.hiper.configuration.schema import RunSettings
from recipe.hiper.run_dir.checkpoints import (
    POINTER_FILE,
    checkpoint_path,
    complete_steps,
    incomplete_checkpoints,
    is_checkpoint,
    read_pointer,
    saved_steps,
    step_of,
    write_pointer,
)
from recipe.hiper.run_dir.manifest import MANIFEST_FILE, damage

RESUME_AUTO = "trainer.resume_mode=auto trainer.resume_from_path=null"
"""Takes back `trainer.resume_mode=resume_path` with its path, for messages."""

RESTART = "trainer.resume_mode=disable to restart from step 0 (the earlier results are moved to earlier/)"


def other_run_dir(folder: Path) -> str:
    """An override that selects another run folder, for messages."""
    return f"run_dir={folder.with_name(folder.name + '-2')}"


def load_config(path: Path) -> DictConfig:
    """Read a configuration that a run wrote.

    Raises:
        ConfigError: the file holds something else.
    """
    config = OmegaConf.load(path)
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{path} is not the configuration of a run. Try: delete it")
    return config


def saves_checkpoints(config: RunSettings | DictConfig) -> bool:
    """Whether a run writes checkpoints."""
    trainer = config.trainer
    return not trainer.val_only and (trainer.save_freq > 0 or trainer.save_best)


def selected_checkpoint(config: RunSettings | DictConfig) -> Path | None:
    """The absolute path of `trainer.resume_from_path`; None unless `trainer.resume_mode=resume_path` and it is set."""
    trainer = config.trainer
    if trainer.resume_mode != "resume_path" or not trainer.resume_from_path:
        return None
    return Path(os.path.abspath(Path(str(trainer.resume_from_path)).expanduser()))


def belongs_to_run(checkpoint: Path, config: RunSettings | DictConfig) -> bool:
    """Whether a checkpoint is in the checkpoint folder of this run."""
    return checkpoint.parent.resolve() == Path(config.trainer.default_local_dir).resolve()


def resume_problems(settings: RunSettings) -> Iterator[str]:
    """A message for each problem with what the run starts from."""
    trainer = settings.trainer
    if trainer.resume_mode == "resume_path" and not trainer.resume_from_path:
        yield (
            "trainer.resume_mode=resume_path needs a checkpoint, but trainer.resume_from_path is not set. "
            "Try: trainer.resume_from_path=<.../global_step_N>, or trainer.resume_mode=auto"
        )
    selected = selected_checkpoint(settings)
    if selected is not None:
        yield from _selected_problems(settings, selected)
    elif trainer.resume_mode == "auto":
        yield from _undecided(settings)


def _selected_problems(settings: RunSettings, selected: Path) -> Iterator[str]:
    path = settings.trainer.resume_from_path
    if not is_checkpoint(selected):
        nearby = {path for folder in (selected.parent, selected) for path in folder.glob("global_step_*")}
        available = sorted(filter(is_checkpoint, nearby), key=step_of)
        remedy = f"There is no checkpoint in {selected.parent}. Try: {RESUME_AUTO}"
        if available:
            names = ", ".join(path.name for path in available)
            remedy = f"Checkpoints there: {names}. Try: trainer.resume_from_path={available[-1]}"
        yield (
            f"trainer.resume_from_path={path} is not a checkpoint: a checkpoint is a folder "
            f"global_step_<number> that contains actor/. {remedy}"
        )
        return
    # Without a manifest it may be one of verl's, or of an older version: the user names it, so it is taken.
    if (selected / MANIFEST_FILE).exists() and (problem := damage(selected)):
        steps = complete_steps(selected.parent)
        remedy = f"trainer.resume_from_path={checkpoint_path(selected.parent, steps[-1])}" if steps else RESUME_AUTO
        yield f"trainer.resume_from_path={path} {problem}. Try: {remedy}"
    if not settings.trainer.val_only and not belongs_to_run(selected, settings):
        yield from _mixed_runs(settings, selected)


def _mixed_runs(settings: RunSettings, selected: Path) -> Iterator[str]:
    """A message where a run that starts from the checkpoint of a second run would write to the files of a third.

    The same command may restart in its own folder until it has saved a checkpoint.
    """
    folder = Path(settings.run_dir).absolute()
    problem = (
        f"trainer.resume_from_path={selected} belongs to another run than the one in {folder}, which the new run would "
        f"overwrite. Try: {other_run_dir(folder)}"
    )
    if complete_steps(Path(settings.trainer.default_local_dir)):
        yield f"{problem}, or {RESUME_AUTO} to resume the run in {folder}"
    elif (folder / "metrics.jsonl").exists():
        earlier_config = folder / "config.yaml"
        if not earlier_config.exists() or selected_checkpoint(load_config(earlier_config)) != selected:
            yield problem


def _undecided(settings: RunSettings) -> Iterator[str]:
    """A message where only the user can know which checkpoint the run starts from, or whether from any."""
    trainer = settings.trainer
    checkpoints = Path(trainer.default_local_dir).absolute()
    pointer = read_pointer(checkpoints)
    complete = complete_steps(checkpoints)
    named = checkpoint_path(checkpoints, pointer or 0)
    if pointer is not None and complete and complete[0] > pointer:
        reason = damage(named) if is_checkpoint(named) else "does not exist"
        names = ", ".join(str(step) for step in complete)
        yield (
            f"{checkpoints / POINTER_FILE} names step {pointer}, whose checkpoint {reason}; the complete ones are of "
            f"later steps ({names}), which may belong to results that the run discarded. Try: "
            f"trainer.resume_mode=resume_path trainer.resume_from_path={checkpoint_path(checkpoints, complete[-1])}, "
            f"or {RESTART}"
        )
    elif not complete and pointer and is_checkpoint(named) and not (named / MANIFEST_FILE).exists():
        yield (
            f"{named} {damage(named)}, and no other checkpoint is complete. Try: trainer.resume_mode=resume_path "
            f"trainer.resume_from_path={named} to use it, or {RESTART}"
        )
    elif trainer.val_only and not complete:
        yield _nothing_to_evaluate(settings, checkpoints)


def _nothing_to_evaluate(settings: RunSettings, checkpoints: Path) -> str:
    folder = Path(settings.run_dir).absolute()
    runs = [path.parent for path in folder.parent.glob("*/checkpoints") if complete_steps(path)]
    latest = sorted(runs, key=lambda path: path.stat().st_mtime)[-3:]
    nearby = "".join(f"run_dir={path}, or " for path in reversed(latest))
    incomplete = incomplete_checkpoints(checkpoints)
    broken = "".join(f" ({checkpoint_path(checkpoints, step).name} {why})" for step, why in incomplete)
    return (
        f"trainer.val_only=True: there is no complete checkpoint in {checkpoints}{broken}, so the model would be "
        f"evaluated as it is before training. Try: {nearby}trainer.resume_mode=disable to evaluate the untrained model"
    )


def checkpoint_to_resume(config: DictConfig) -> Path | None:
    """The checkpoint that this run starts from; None where it starts from step 0.

    With `trainer.resume_mode=auto` it is the latest complete one, but none of a later step than the pointer file names:
    it would belong to a branch that the run left. A pointer file that is missing or unreadable is ignored.
    """
    trainer = config.trainer
    if selected := selected_checkpoint(config):
        return selected
    if trainer.resume_mode != "auto":
        return None
    checkpoints = Path(trainer.default_local_dir).absolute()
    pointer = read_pointer(checkpoints)
    steps = [step for step in complete_steps(checkpoints) if pointer is None or step <= pointer]
    return checkpoint_path(checkpoints, steps[-1]) if steps else None


def is_finished(config: DictConfig) -> bool:
    """Whether a training would resume from its own checkpoint of the last step, or of a later one."""
    checkpoint = checkpoint_to_resume(config)
    if config.trainer.val_only or checkpoint is None or not belongs_to_run(checkpoint, config):
        return False
    return step_of(checkpoint) >= config.trainer.total_training_steps


@dataclass(frozen=True)
class StartingPoint:
    """What a run starts from.

    Attributes:
        checkpoint: the checkpoint; None for step 0.
        notices: lines for the user: what was passed over, and why.
    """

    checkpoint: Path | None
    notices: tuple[str, ...]


def decide_start(config: DictConfig) -> StartingPoint:
    """Select the checkpoint that the run starts from, verify its digests, and make verl load that one.

    A checkpoint whose bytes have changed is renamed (`global_step_12.damaged-<time>`) and the one before it is taken.
    verl starts from step 0 without a message where its pointer file is wrong; so the file is corrected. An evaluation
    changes nothing on the disk: it selects the checkpoint in `config`, in place.

    Raises:
        ConfigError: a checkpoint is damaged that the user named, or that would be evaluated.
    """
    trainer = config.trainer
    notices = []
    while (checkpoint := checkpoint_to_resume(config)) is not None and (checkpoint / MANIFEST_FILE).exists():
        problem = damage(checkpoint, digests=True)
        if problem is None:
            break
        if trainer.val_only or selected_checkpoint(config):
            raise ConfigError(
                f"{checkpoint} {problem}. Try: trainer.resume_mode=resume_path trainer.resume_from_path=<another one>"
            )
        renamed = checkpoint.with_name(f"{checkpoint.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        checkpoint.rename(renamed)
        notices.append(f"{checkpoint} {problem}: it is now {renamed.name}")
    if trainer.resume_mode != "auto":
        return StartingPoint(checkpoint, tuple(notices))
    checkpoints = Path(trainer.default_local_dir).absolute()
    notices += _passed_over(checkpoints, checkpoint)
    if checkpoint is None:
        return StartingPoint(None, tuple(notices))
    if trainer.val_only:
        trainer.resume_mode, trainer.resume_from_path = "resume_path", str(checkpoint)
    elif checkpoint.name != f"global_step_{read_pointer(checkpoints)}":
        write_pointer(checkpoint)
    return StartingPoint(checkpoint, tuple(notices))


def _passed_over(checkpoints: Path, checkpoint: Path | None) -> Iterator[str]:
    """A line for each later checkpoint that the run does not start from, and for a wrong pointer."""
    start = "starting from step 0" if checkpoint is None else f"resuming from {checkpoint}"
    step = 0 if checkpoint is None else step_of(checkpoint)
    for number, problem in incomplete_checkpoints(checkpoints):
        if number > step:
            yield f"{checkpoint_path(checkpoints, number)} {problem}: {start}"
    pointer_file = checkpoints / POINTER_FILE
    pointer = read_pointer(checkpoints)
    if not pointer_file.exists():
        if checkpoint is not None:
            yield f"{pointer_file} is missing: {start}, the latest complete checkpoint"
    elif pointer is None:
        yield f"{pointer_file} does not hold a step: {start}"
    elif pointer != step and pointer not in saved_steps(checkpoints):
        yield f"the checkpoint of step {pointer}, which {POINTER_FILE} names, does not exist: {start}"


def how_to_resume(config: DictConfig) -> str:
    """A sentence for the user of an interrupted run: which command resumes it."""
    trainer = config.trainer
    steps = complete_steps(Path(trainer.default_local_dir))
    if trainer.val_only or not steps:
        return "There is no checkpoint to resume from: the same command restarts from step 0."
    command = "same command" if trainer.resume_mode == "auto" else "command without trainer.resume_mode"
    return f"The {command} resumes from the latest checkpoint (step {steps[-1]})."
