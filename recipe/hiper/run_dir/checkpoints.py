# SPDX-License-Identifier: Apache-2.0
"""The checkpoints that are really on the disk: which are complete, which one the pointer names, which are deleted."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from recipe.hiper.run_dir.manifest import MANIFEST_FILE, damage, read_manifest

POINTER_FILE = "latest_checkpointed_iteration.txt"
"""verl's file beside the checkpoints, with the step of the latest one."""


def checkpoint_path(checkpoints: Path, step: int) -> Path:
    """The folder of the checkpoint of a step."""
    return checkpoints / f"global_step_{step}"


def step_of(checkpoint: Path) -> int:
    """The step of a checkpoint."""
    return int(checkpoint.name.removeprefix("global_step_"))


def is_checkpoint(path: Path) -> bool:
    """Whether a folder is a checkpoint, complete or not."""
    # verl deletes the weights of old checkpoints and leaves the folder
    return re.fullmatch(r"global_step_\d+", path.name) is not None and (path / "actor").is_dir()


def saved_steps(checkpoints: Path) -> list[int]:
    """Steps of the checkpoints in a folder, complete or not, in ascending order."""
    return sorted(step_of(path) for path in checkpoints.glob("global_step_*") if is_checkpoint(path))


def complete_steps(checkpoints: Path) -> list[int]:
    """Steps of the complete checkpoints in a folder, in ascending order."""
    return [step for step in saved_steps(checkpoints) if damage(checkpoint_path(checkpoints, step)) is None]


def incomplete_checkpoints(checkpoints: Path) -> Iterator[tuple[int, str]]:
    """The steps of the incomplete checkpoints in a folder, each with what is wrong."""
    for step in saved_steps(checkpoints):
        problem = damage(checkpoint_path(checkpoints, step))
        if problem is not None:
            yield step, problem


def read_pointer(checkpoints: Path) -> int | None:
    """The step that the pointer file names; None where the file is missing or holds something else.

    A number with a line end is a number, whatever the line end is.
    """
    try:
        text = (checkpoints / POINTER_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if re.fullmatch(r"\s*[0-9]+\s*", text) else None


def write_pointer(checkpoint: Path) -> None:
    """Make `checkpoint` the one that the next start of its run resumes from."""
    temporary = checkpoint.parent / (POINTER_FILE + ".part")
    temporary.write_text(str(step_of(checkpoint)), encoding="utf-8")
    os.replace(temporary, checkpoint.parent / POINTER_FILE)


def best_checkpoint(checkpoints: Path) -> tuple[float, int] | None:
    """(success rate, step) of the complete checkpoint with the highest success on the held-out tasks, the earliest of
    several; None where none was evaluated."""
    manifests = [read_manifest(checkpoint_path(checkpoints, step)) for step in complete_steps(checkpoints)]
    scores = [(manifest.success, -manifest.step) for manifest in manifests if manifest and manifest.success is not None]
    if not scores:
        return None
    success, negative = max(scores)
    return success, -negative


def delete_checkpoint(checkpoint: Path) -> None:
    """Delete a checkpoint, if it exists. Interrupted, it leaves an incomplete one."""
    (checkpoint / MANIFEST_FILE).unlink(missing_ok=True)
    if checkpoint.exists():
        shutil.rmtree(checkpoint)


def delete_old_checkpoints(checkpoints: Path, keep: int | None, *, keep_best: bool) -> None:
    """Delete all complete checkpoints but the latest `keep` (None: all are kept) and, on request, the best one."""
    steps = complete_steps(checkpoints)
    kept = set(steps if keep is None else steps[-keep:])
    if keep_best and (best := best_checkpoint(checkpoints)):
        kept.add(best[1])
    for step in steps:
        if step not in kept:
            delete_checkpoint(checkpoint_path(checkpoints, step))


def move_later_checkpoints(checkpoint: Path, target: Path) -> list[int]:
    """Move the complete checkpoints of later steps than `checkpoint` to the folder `target`, made if there are any.

    They belong to results that the run discards, and would count as its latest ones.

    Returns:
        Their steps.
    """
    steps = [step for step in complete_steps(checkpoint.parent) if step > step_of(checkpoint)]
    for step in steps:
        target.mkdir(parents=True, exist_ok=True)
        shutil.move(checkpoint_path(checkpoint.parent, step), target)
    return steps
