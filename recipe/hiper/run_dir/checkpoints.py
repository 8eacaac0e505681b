# SPDX-License-Identifier: Apache-2.0
"""Which checkpoint a run starts from: what `trainer.resume_mode` selects, and what is really on the disk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from agent_system.errors import ConfigError
from recipe.hiper.configuration.schema import RunSettings

RESUME_AUTO = "trainer.resume_mode=auto trainer.resume_from_path=null"
"""Takes back `trainer.resume_mode=resume_path` with its path, for messages."""

POINTER_FILE = "latest_checkpointed_iteration.txt"
"""verl's file beside the checkpoints, with the step of the latest one."""


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


def selected_checkpoint(config: RunSettings | DictConfig) -> Path | None:
    """The absolute path of `trainer.resume_from_path`; None unless `trainer.resume_mode=resume_path` and it is set."""
    trainer = config.trainer
    if trainer.resume_mode != "resume_path" or not trainer.resume_from_path:
        return None
    return Path(os.path.abspath(Path(str(trainer.resume_from_path)).expanduser()))


def belongs_to_run(checkpoint: Path, config: RunSettings | DictConfig) -> bool:
    """Whether a checkpoint is in the checkpoint folder of this run."""
    return checkpoint.parent.resolve() == Path(config.trainer.default_local_dir).resolve()


def _is_checkpoint(path: Path) -> bool:
    # verl deletes the weights of old checkpoints and leaves the folder
    return re.fullmatch(r"global_step_\d+", path.name) is not None and (path / "actor").is_dir()


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("global_step_"))


def resume_problems(settings: RunSettings) -> Iterator[str]:
    """A message for each problem with `trainer.resume_mode` and `trainer.resume_from_path`."""
    trainer = settings.trainer
    if trainer.resume_mode == "resume_path" and not trainer.resume_from_path:
        yield (
            "trainer.resume_mode=resume_path needs a checkpoint, but trainer.resume_from_path is not set. "
            "Try: trainer.resume_from_path=<.../global_step_N>, or trainer.resume_mode=auto"
        )
    selected = selected_checkpoint(settings)
    if selected is None:
        return
    if not _is_checkpoint(selected):
        nearby = {path for folder in (selected.parent, selected) for path in folder.glob("global_step_*")}
        available = sorted(filter(_is_checkpoint, nearby), key=_step)
        remedy = f"There is no checkpoint in {selected.parent}. Try: {RESUME_AUTO}"
        if available:
            names = ", ".join(path.name for path in available)
            remedy = f"Checkpoints there: {names}. Try: trainer.resume_from_path={available[-1]}"
        yield (
            f"trainer.resume_from_path={trainer.resume_from_path} is not a checkpoint: a checkpoint is a folder "
            f"global_step_<number> that contains actor/. {remedy}"
        )
    elif not trainer.val_only and not belongs_to_run(selected, settings):
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
    if saved_steps(Path(settings.trainer.default_local_dir)):
        yield f"{problem}, or {RESUME_AUTO} to resume the run in {folder}"
    elif (folder / "metrics.jsonl").exists():
        earlier_config = folder / "config.yaml"
        if not earlier_config.exists() or selected_checkpoint(load_config(earlier_config)) != selected:
            yield problem


def saved_steps(checkpoints: Path) -> list[int]:
    """Steps of the checkpoints that exist in a folder, in ascending order."""
    return sorted(_step(path) for path in checkpoints.glob("global_step_*") if _is_checkpoint(path))


def _pointer(checkpoints: Path) -> int | None:
    """The step that verl would resume from; None where the pointer file is missing or unreadable."""
    try:
        return int((checkpoints / POINTER_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write_pointer(checkpoint: Path) -> None:
    """Make `checkpoint` the one that the next start of its run resumes from."""
    (checkpoint.parent / POINTER_FILE).write_text(str(_step(checkpoint)), encoding="utf-8")


def checkpoint_to_resume(config: DictConfig) -> Path | None:
    """The checkpoint that this run starts from; None where it starts from step 0.

    With `trainer.resume_mode=auto` it is the one that verl's pointer file names. If that one does not exist, it is the
    latest earlier one: a later one may be incomplete, or belong to a branch that the run left.
    """
    trainer = config.trainer
    if selected := selected_checkpoint(config):
        return selected
    if trainer.resume_mode != "auto":
        return None
    checkpoints = Path(trainer.default_local_dir).absolute()
    if not (checkpoints / POINTER_FILE).exists():
        return None
    pointer = _pointer(checkpoints)
    steps = [step for step in saved_steps(checkpoints) if pointer is None or step <= pointer]
    return checkpoints / f"global_step_{steps[-1]}" if steps else None


def is_finished(config: DictConfig) -> bool:
    """Whether a training would resume from its own checkpoint of the last step, or of a later one."""
    checkpoint = checkpoint_to_resume(config)
    if config.trainer.val_only or checkpoint is None or not belongs_to_run(checkpoint, config):
        return False
    return _step(checkpoint) >= config.trainer.total_training_steps


def correct_pointer(config: DictConfig) -> str | None:
    """Make verl load the checkpoint of `checkpoint_to_resume` where its pointer file names one that does not exist.

    verl would start from step 0 without a message. An evaluation does not change the pointer file: it selects the
    checkpoint in `config`, in place.

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
        write_pointer(checkpoint)
    return f"the checkpoint of step {pointer} does not exist: resuming from {checkpoint}, the latest one that does"


def how_to_resume(config: DictConfig) -> str:
    """A sentence for the user of an interrupted run: which command resumes it."""
    trainer = config.trainer
    checkpoints = Path(trainer.default_local_dir)
    if trainer.val_only or not ((checkpoints / POINTER_FILE).exists() and saved_steps(checkpoints)):
        return "There is no checkpoint to resume from: the same command restarts from step 0."
    command = "same command" if trainer.resume_mode == "auto" else "command without trainer.resume_mode"
    return f"The {command} resumes from the latest checkpoint."
