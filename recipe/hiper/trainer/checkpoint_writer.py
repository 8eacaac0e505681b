# SPDX-License-Identifier: Apache-2.0
"""Writes checkpoints so that an accident at any moment leaves the latest complete one, and deletes old ones."""

from __future__ import annotations

import errno
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from recipe.hiper.configuration.settings import CheckpointSettings
from recipe.hiper.run_dir.checkpoints import (
    best_checkpoint,
    checkpoint_path,
    complete_steps,
    delete_checkpoint,
    delete_old_checkpoints,
)
from recipe.hiper.run_dir.manifest import read_manifest, write_manifest
from recipe.hiper.run_dir.recorder import NoSpaceLeft, RunRecorder

RANDOM_STATES = "random_states.pt"
"""Random states of the trainer's process, in a checkpoint. Those of the other processes are in verl's files."""

FULL = (errno.ENOSPC, errno.EDQUOT)

NEARLY_NOTHING = 0.01
"""A disk with less free space than this share of a checkpoint is full: torch does not say why a write failed."""


class CheckpointWriter:
    """Decides after each step whether to save, and saves.

    Args:
        checkpoints: their folder.
        settings: which are written and kept.
        recorder: tells the user, and knows the estimated size.
        write: writes the files of a step into its folder, and verl's pointer file after them.
        processes: that write a part of a checkpoint each. After a failed write of one of several, the others wait for
            it forever, so the run ends.
        first_step: the step that the run starts from.
    """

    def __init__(
        self,
        checkpoints: Path,
        settings: CheckpointSettings,
        recorder: RunRecorder,
        write: Callable[[int], None],
        processes: int,
        first_step: int,
    ):
        self._checkpoints = checkpoints
        self._settings = settings
        self._recorder = recorder
        self._write = write
        self._processes = processes
        self._saved = first_step
        self._done: tuple[int, float | None] = (first_step, None)

    def after_step(self, step: int, success: float | None, *, is_due: bool) -> None:
        """Save a finished step if it is due, or the best so far.

        Args:
            step: its metrics are on the disk already: a run that is killed has either both or neither.
            success: on the held-out tasks after this step; None where it was not evaluated.
            is_due: by `trainer.save_freq`, or because it is the last.
        """
        self._done = (step, success)
        if is_due or self._is_best(success):
            self.save()

    def _is_best(self, success: float | None) -> bool:
        if not self._settings.save_best or success is None:
            return False
        best = best_checkpoint(self._checkpoints)
        return best is None or success > best[0]

    def save(self) -> None:
        """Save the latest finished step, unless that was done.

        Raises:
            NoSpaceLeft: the disk is full, and `trainer.on_full_disk=stop`.
        """
        step, success = self._done
        if step == self._saved:
            return
        self._recorder.stage(f"saving step {step}")
        checkpoint = checkpoint_path(self._checkpoints, step)
        try:
            delete_checkpoint(checkpoint)  # what an interrupted save left
            self._recorder.require_disk_space(str(self._checkpoints), self._latest_bytes())
            self._write(step)
            write_manifest(checkpoint, step, success)
        except Exception as error:
            if not self._is_full(error):
                raise
            broken_off = not isinstance(error, NoSpaceLeft)
            delete_checkpoint(checkpoint)
            text = self._no_space(step, error)
            if self._settings.stop_when_full or (broken_off and self._processes > 1):
                raise NoSpaceLeft(text) from error
            self._recorder.disk_alarm(text)
            return
        self._recorder.disk_alarm(None)
        self._saved = step
        delete_old_checkpoints(self._checkpoints, self._settings.keep, keep_best=self._settings.save_best)

    def _latest_bytes(self) -> int:
        steps = complete_steps(self._checkpoints)
        manifest = read_manifest(checkpoint_path(self._checkpoints, steps[-1])) if steps else None
        return sum(size for size, _ in manifest.files.values()) if manifest else 0

    def _is_full(self, error: BaseException) -> bool:
        if any(isinstance(cause, NoSpaceLeft) or getattr(cause, "errno", None) in FULL for cause in _causes(error)):
            return True
        expected = max(self._latest_bytes(), self._recorder.checkpoint_bytes)
        return shutil.disk_usage(self._checkpoints).free < NEARLY_NOTHING * expected

    def _no_space(self, step: int, error: BaseException) -> str:
        steps = complete_steps(self._checkpoints)
        left = f"the latest complete checkpoint is that of step {steps[-1]}" if steps else "there is no checkpoint"
        reason = f"The disk of {self._checkpoints} is full. Try: free space and repeat the command"
        return f"step {step} is not saved; {left}. {error if isinstance(error, NoSpaceLeft) else reason}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it; Ray keeps the error of another process in `cause`."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = getattr(current, "cause", None) or current.__cause__


def random_states() -> dict[str, Any]:
    """The states of the global generators of this process, in types that `torch.load` reads with `weights_only`."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = cast("tuple[Any, ...]", np.random.get_state())
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [name, keys.tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Restore what `random_states` returned."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
