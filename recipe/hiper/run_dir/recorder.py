# SPDX-License-Identifier: Apache-2.0
"""What a run leaves in its folder, written while it runs.

config.yaml          the resolved configuration
metrics.jsonl        one line per step, {"step": n, ...metrics}
curve.png            success, lengths, the health of the hierarchy and of the values over steps
episodes/            one file per step and split, one JSON line per episode
failures.jsonl       one line per episode that could not be played
status.json          what the run is doing now, and whether its hierarchy is lost; the progress bar reads it
tensorboard/  checkpoints/  logs/
evaluations/         evaluations of this run's checkpoints by later commands (earlier_runs.py)
earlier/             results that this run replaced (earlier_runs.py)
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from agent_system.errors import HiPERError
from agent_system.rollout.failures import FailureLog
from recipe.hiper.run_dir.hierarchy_monitor import SWITCH_RATE, HierarchyAlarm, hierarchy_alarm
from recipe.hiper.run_dir.plots import draw_curve

STATUS_FILE = "status.json"
METRICS_FILE = "metrics.jsonl"
CURVE_FILE = "curve.png"
FAILURES_FILE = "failures.jsonl"


class NoSpaceLeft(HiPERError):
    """A checkpoint would not fit on the disk. Nothing was written."""


def json_value(value: Any) -> Any:
    """A JSON value; numbers that JSON does not know (NaN, infinity) become null."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _note(what: str) -> None:
    """Into the log, beside what the libraries say."""
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


def unused_folder(run_dir: Path) -> Path:
    """A folder in `run_dir/earlier`, named after the time, that does not exist yet."""
    now = time.strftime("%Y%m%d-%H%M%S")
    names = chain([now], (f"{now}-{number}" for number in count(2)))
    return next(path for name in names if not (path := run_dir / "earlier" / name).exists())


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


class RunRecorder:
    """One backend of verl's Tracking, and the writer of everything else in the run's folder.

    Args:
        folder: the run's folder.
        total_steps: for the progress bar; known to the trainer later, see `log`.
        checkpoint_bytes: estimated size of one checkpoint.
        episodes_every: write the episodes of every n-th training step; 0 writes none. Validation is always written.
    """

    def __init__(self, folder: str | Path, *, total_steps: int, checkpoint_bytes: int, episodes_every: int):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "episodes").mkdir(exist_ok=True)
        self._total_steps = total_steps
        self._checkpoint_bytes = checkpoint_bytes
        self._episodes_every = episodes_every
        self._failures = FailureLog(self.folder / FAILURES_FILE)
        self._failures.clear()
        self._step = 0
        self._stage = "starting"
        self._latest: dict[str, Any] = {}
        self._history: list[dict[str, Any]] = []
        self._alarm: HierarchyAlarm | None = None
        self._write_status()

    # ---------------------------------------------------------------- progress

    def stage(self, what: str) -> None:
        """Say what the run is doing now."""
        self._stage = what
        _note(what)
        self._write_status()

    def resumed_from(self, step: int) -> None:
        """Continue the metrics from `step`; results of later steps are moved to `earlier/<time>`.

        Later steps are those after the checkpoint of an interrupted run, or the branch that a run leaves when it goes
        back to an earlier checkpoint. TensorBoard would draw both branches as one, so its events are written again.
        """
        path = self.folder / METRICS_FILE
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("}")]  # a killed run may leave half a line
        self._history = [row for row in rows if row["step"] <= step]
        later = [row for row in rows if row["step"] > step]
        later_episodes = [
            file for file in (self.folder / "episodes").glob("*_*.jsonl") if int(file.stem.rsplit("_", 1)[1]) > step
        ]
        if later or later_episodes:
            self._set_branch_aside(later, later_episodes)
        self._rewrite_metrics()
        self._step = step
        self._watch_hierarchy()
        self.stage(f"resuming from the checkpoint of step {step}" if step else "starting from step 0")

    def _set_branch_aside(self, rows: list[dict[str, Any]], episodes: list[Path]) -> None:
        aside = unused_folder(self.folder)
        (aside / "episodes").mkdir(parents=True)
        (aside / METRICS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for file in episodes:
            file.rename(aside / "episodes" / file.name)
        events = self.folder / "tensorboard"
        if events.exists():
            events.rename(aside / "tensorboard")
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and rarely needed

            with SummaryWriter(str(events)) as writer:
                for row in self._history:
                    for name, value in row.items():
                        if name != "step" and isinstance(value, int | float):
                            writer.add_scalar(name, value, row["step"])
        _note(f"results of later steps are now in {aside}")

    def _rewrite_metrics(self) -> None:
        _write_atomically(self.folder / METRICS_FILE, "".join(json.dumps(row) + "\n" for row in self._history))

    def _write_status(self) -> None:
        status = {
            "stage": self._stage,
            "step": self._step,
            "total_steps": self._total_steps,
            "metrics": self._latest,
            "alarm": self._alarm.text if self._alarm else None,
            "time": time.time(),
        }
        _write_atomically(self.folder / STATUS_FILE, json.dumps(status))

    def _watch_hierarchy(self) -> None:
        """Renew the alarm after a change of the history; the log is told when it begins and when it is over."""
        before, self._alarm = self._alarm, hierarchy_alarm(self._history)
        text, text_before = (alarm and alarm.text for alarm in (self._alarm, before))
        if text != text_before:
            _note(text or "Hierarchy alarm is over")

    # ---------------------------------------------------------------- Tracking backend

    def log(self, data: Mapping[str, Any], step: int) -> None:
        """Append the metrics of a step, look whether the hierarchy lives and redraw the curve.

        Where there is a switch rate, `hierarchy/alarm` joins the metrics: 1 while the alarm holds, else 0.
        """
        row = {"step": step, **{name: json_value(value) for name, value in data.items()}}
        # A resumed run validates once more at the step it resumed from.
        again = bool(self._history) and self._history[-1]["step"] == step
        if again:
            row = self._history.pop() | row
        self._history.append(row)
        self._watch_hierarchy()
        if row.get(SWITCH_RATE) is not None:
            row["hierarchy/alarm"] = float(self._alarm is not None)
        if again:
            self._rewrite_metrics()
        else:
            with open(self.folder / METRICS_FILE, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        self._step = step
        self._latest.update({name: value for name, value in row.items() if isinstance(value, int | float)})
        self._write_status()
        draw_curve(self._history, self.folder / CURVE_FILE)

    def finish(self, exit_code: int = 0) -> None:
        """The run has ended."""
        self.stage("finished" if exit_code == 0 else "failed")

    # ---------------------------------------------------------------- episodes and failures

    def writes_episodes(self, split: str, step: int) -> bool:
        """Whether the episodes of this step are written (`trainer.episodes_every`); those of validation always are."""
        return split == "val" or (self._episodes_every > 0 and step % self._episodes_every == 0)

    def write_episodes(self, split: str, step: int, episodes: Iterable[Mapping[str, Any]]) -> None:
        """Write one JSON line per episode, where `writes_episodes`."""
        if self.writes_episodes(split, step):
            lines = [json.dumps(episode, ensure_ascii=False) + "\n" for episode in episodes]
            _write_atomically(self.folder / "episodes" / f"{split}_{step:06d}.jsonl", "".join(lines))

    def first_failure(self) -> str:
        """The first error an episode ended with in this run, in words."""
        return self._failures.first()

    def require_disk_space(self, checkpoint_folder: str) -> None:
        """Refuse to save where a checkpoint would not fit. See `require_disk_space`."""
        require_disk_space(checkpoint_folder, self._checkpoint_bytes)


def require_disk_space(checkpoint_folder: str, needed: int) -> None:
    """Refuse to save where `needed` bytes would not fit.

    Raises:
        NoSpaceLeft: with what is needed, what is free and the overrides that mend it.
    """
    folder = Path(checkpoint_folder).absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise NoSpaceLeft(
            f"A checkpoint needs about {needed / 1e6:,.0f} MB but {existing} has {free / 1e6:,.0f} MB free. Make room, "
            "choose another disk (run_dir=<folder>), or save less often (trainer.save_freq=...)."
        )
