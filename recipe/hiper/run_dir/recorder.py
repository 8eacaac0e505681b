# SPDX-License-Identifier: Apache-2.0
"""What a run writes to its folder, while it runs.

config.yaml          the resolved configuration
metrics.jsonl        one line per step, {"step": n, ...metrics}
curve.png            success, lengths, the health of the hierarchy and of the values over steps
episodes/            one file per step and split, one JSON line per episode
failures.jsonl       one line per episode that could not be played
status.json          what the run is doing now, and alarms; the progress bar reads it
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
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from agent_system.errors import HiPERError
from agent_system.rollout.failures import FailureLog
from recipe.hiper.run_dir.hierarchy_monitor import SWITCH_RATE, hierarchy_alarm_text
from recipe.hiper.run_dir.plots import draw_curve
from recipe.hiper.run_dir.policy_monitor import policy_alarm
from recipe.hiper.run_dir.reply_monitor import reply_alarm

STATUS_FILE = "status.json"
METRICS_FILE = "metrics.jsonl"
CURVE_FILE = "curve.png"
FAILURES_FILE = "failures.jsonl"


ALARMS: Mapping[str, tuple[str, Callable[[Sequence[Mapping[str, Any]]], str | None]]] = {
    "alarm": ("Hierarchy alarm", hierarchy_alarm_text),
    "reply_alarm": ("Reply alarm", reply_alarm),
    "policy_alarm": ("Policy alarm", policy_alarm),
}
"""Names in status.json, and functions of the rows of metrics.jsonl: one line as long as the alarm lasts, else None."""

DISK_ALARM = "disk_alarm"
"""Name in status.json of the line about checkpoints that are not saved (`trainer.on_full_disk=continue`)."""


class NoSpaceLeft(HiPERError):
    """A checkpoint does not fit on the disk. Nothing was written."""


def json_value(value: Any) -> Any:
    """A JSON value; numbers that JSON does not know (NaN, infinity) become null."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _log_line(text: str) -> None:
    """Print to standard output, which is the log file of the run."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def can_stop(folder: Path) -> bool:
    """Whether the run in `folder` has something to save and to finish when it is asked to stop."""
    try:
        return bool(json.loads((folder / STATUS_FILE).read_text(encoding="utf-8"))["can_stop"])
    except (OSError, ValueError, KeyError):
        return False


def mark_ended(folder: Path, outcome: str) -> None:
    """Record the end of a run whose own process cannot do it any more."""
    path = folder / STATUS_FILE
    if path.exists():
        status = json.loads(path.read_text(encoding="utf-8"))
        _write_atomically(path, json.dumps(status | {"stage": outcome, "can_stop": False, "time": time.time()}))


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
    """A backend of verl's Tracking that also writes all other files in the run's folder.

    Args:
        folder: the run's folder.
        total_steps: training steps, for the progress bar.
        checkpoint_bytes: estimated size of one checkpoint.
        episodes_every: write the episodes of every n-th training step; 0 writes none. Validation is always written.
    """

    def __init__(self, folder: str | Path, *, total_steps: int, checkpoint_bytes: int, episodes_every: int):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "episodes").mkdir(exist_ok=True)
        self._total_steps = total_steps
        self.checkpoint_bytes = checkpoint_bytes
        self._episodes_every = episodes_every
        self._failures = FailureLog(self.folder / FAILURES_FILE)
        self._failures.clear()
        self._step = 0
        self._stage = "starting"
        self._latest: dict[str, Any] = {}
        self._history: list[dict[str, Any]] = []
        self._alarms: dict[str, str | None] = dict.fromkeys((*ALARMS, DISK_ALARM))
        self._can_stop = False
        self._write_status()

    # ---------------------------------------------------------------- progress

    def stage(self, name: str) -> None:
        """Record what the run is doing now."""
        self._stage = name
        _log_line(name)
        self._write_status()

    def can_stop(self) -> None:
        """Record that the run has something to save and to finish when it is asked to stop."""
        self._can_stop = True
        self._write_status()

    def disk_alarm(self, text: str | None) -> None:
        """Show a line about a checkpoint that was not saved until the next one is (None)."""
        if text != self._alarms[DISK_ALARM]:
            self._alarms[DISK_ALARM] = text
            _log_line(text or "checkpoints are saved again")
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
            self._move_later_results(later, later_episodes)
        self._rewrite_metrics()
        self._step = step
        self._watch()
        self.stage(f"resuming from the checkpoint of step {step}" if step else "starting from step 0")

    def lacks_evaluation(self, test_freq: int) -> bool:
        """Whether the checkpoint that the run starts from should have been evaluated and was not.

        Args:
            test_freq: `trainer.test_freq`.
        """
        due = self._step == 0 or (test_freq > 0 and self._step % test_freq == 0)
        done = any(row["step"] == self._step and "val/success_rate" in row for row in self._history)
        return due and not done

    def _move_later_results(self, rows: list[dict[str, Any]], episodes: list[Path]) -> None:
        target = unused_folder(self.folder)
        (target / "episodes").mkdir(parents=True)
        (target / METRICS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for file in episodes:
            file.rename(target / "episodes" / file.name)
        events = self.folder / "tensorboard"
        if events.exists():
            events.rename(target / "tensorboard")
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and rarely needed

            with SummaryWriter(str(events)) as writer:
                for row in self._history:
                    for name, value in row.items():
                        if name != "step" and isinstance(value, int | float):
                            writer.add_scalar(name, value, row["step"])
        _log_line(f"results of later steps are now in {target}")

    def _rewrite_metrics(self) -> None:
        _write_atomically(self.folder / METRICS_FILE, "".join(json.dumps(row) + "\n" for row in self._history))

    def _write_status(self) -> None:
        status = {
            "stage": self._stage,
            "step": self._step,
            "total_steps": self._total_steps,
            "metrics": self._latest,
            "can_stop": self._can_stop,
            **self._alarms,
            "time": time.time(),
        }
        _write_atomically(self.folder / STATUS_FILE, json.dumps(status))

    def _watch(self) -> None:
        """Update the alarms after a change of the history, and log the start and the end of each."""
        for name, (title, alarm) in ALARMS.items():
            before, self._alarms[name] = self._alarms[name], alarm(self._history)
            if self._alarms[name] != before:
                _log_line(self._alarms[name] or f"{title} is over")

    # ---------------------------------------------------------------- Tracking backend

    def log(self, data: Mapping[str, Any], step: int) -> None:
        """Append the metrics of a step, update the alarm about the hierarchy and draw the curve.

        If there is a switch rate, `hierarchy/alarm` is added to the metrics: 1 during an alarm, else 0.
        """
        row = {"step": step, **{name: json_value(value) for name, value in data.items()}}
        # A resumed run validates once more at the step it resumed from.
        again = bool(self._history) and self._history[-1]["step"] == step
        if again:
            row = self._history.pop() | row
        self._history.append(row)
        self._watch()
        if row.get(SWITCH_RATE) is not None:
            row["hierarchy/alarm"] = float(self._alarms["alarm"] is not None)
        if again:
            self._rewrite_metrics()
        else:
            with open(self.folder / METRICS_FILE, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        self._step = step
        self._latest.update({name: value for name, value in row.items() if isinstance(value, int | float)})
        self._write_status()
        draw_curve(self._history, self.folder / CURVE_FILE)

    def finish(self, outcome: str) -> None:
        """Record the end of the run: "finished", "stopped" or "failed"."""
        self._can_stop = False
        self.stage(outcome)

    # ---------------------------------------------------------------- episodes and failures

    def writes_episodes(self, split: str, step: int) -> bool:
        """Whether the episodes of this step are written (`trainer.episodes_every`); those of validation always are."""
        return split == "val" or (self._episodes_every > 0 and step % self._episodes_every == 0)

    def write_episodes(self, split: str, step: int, episodes: Iterable[Mapping[str, Any]]) -> None:
        """Write one JSON line per episode if `writes_episodes`."""
        if self.writes_episodes(split, step):
            lines = [json.dumps(episode, ensure_ascii=False) + "\n" for episode in episodes]
            _write_atomically(self.folder / "episodes" / f"{split}_{step:06d}.jsonl", "".join(lines))

    def first_failure(self) -> str:
        """Description of the first error that ended an episode in this run."""
        return self._failures.first()

    def require_disk_space(self, checkpoint_folder: str, latest: int = 0) -> None:
        """Raise NoSpaceLeft if a checkpoint does not fit on the disk. See the function of this name.

        Args:
            checkpoint_folder: where it is written.
            latest: bytes of the latest one, which is more exact than the estimate; 0 where there is none.
        """
        require_disk_space(checkpoint_folder, latest or self.checkpoint_bytes)


def require_disk_space(checkpoint_folder: str, needed: int) -> None:
    """Check that `needed` bytes fit on the disk of `checkpoint_folder`, which may not exist yet.

    Raises:
        NoSpaceLeft: they do not; the message has needed and free space and what to try.
    """
    folder = Path(checkpoint_folder).absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise NoSpaceLeft(
            f"A checkpoint needs about {needed / 1e6:,.0f} MB but {existing} has {free / 1e6:,.0f} MB free. "
            "Try: run_dir=<folder on another disk>, or trainer.save_freq=<a larger number>"
        )
