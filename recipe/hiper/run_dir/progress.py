# SPDX-License-Identifier: Apache-2.0
"""What a user sees during a run: one progress bar. All other output goes to a log file."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from recipe.hiper.run_dir.recorder import ALARMS, DISK_ALARM, STATUS_FILE

PHASES = (
    ("gen", "rollout"),
    ("old_log_prob", "logp"),
    ("ref", "ref"),
    ("values", "values"),
    ("adv", "adv"),
    ("update_critic", "critic"),
    ("update_actor", "actor"),
    ("update_weights", "sync"),
)
"""verl's timers of a step and their short names."""

POLL_S = 0.5

BAR_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
"""Without tqdm's rate, which counts the start and the evaluations as part of a step."""


@contextlib.contextmanager
def quiet_terminal(log_file: Path) -> Iterator[TextIO]:
    """Send everything this process and its children print to a file.

    Ray forwards what every worker prints to the driver; verl, vLLM and Ray print a lot.

    Yields:
        A stream that still writes to the terminal (standard error).
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    terminal = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="replace")
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        yield terminal
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in (*saved, log):
            os.close(descriptor)
        terminal.close()


def step_summary(metrics: dict[str, Any]) -> str:
    """Success, length, switch rate (turns of a sub-goal) and seconds per phase of the latest step, in one line."""
    parts = []
    if (held_out := metrics.get("val/success_rate")) is not None:
        parts.append(f"held-out {held_out:.1%}")
    if (success := metrics.get("rollout/success_rate")) is not None:
        parts.append(f"train {success:.1%}")
        parts.append(f"{metrics['rollout/episode_length']:.1f} turns")
        if (switch := metrics.get("rollout/switch_rate")) is not None:
            lasts = metrics.get("hierarchy/segment_length")
            parts.append(f"switch {switch:.0%}" + ("" if lasts is None else f" ({lasts:.1f} turns)"))
    seconds = [f"{short} {metrics[name]:.1f}" for timer, short in PHASES if (name := f"timing_s/{timer}") in metrics]
    if seconds:
        parts.append("s: " + " ".join(seconds))
    return " | ".join(parts)


def time_left(seconds: list[float], steps: int) -> str:
    """The mean length of the latest steps and what the remaining ones take, "54 s/step, 0:54:00 left"; "" before them.

    Args:
        seconds: length of each finished step.
        steps: number of remaining steps.
    """
    if not seconds:
        return ""
    latest = seconds[-10:]
    mean = sum(latest) / len(latest)
    left = "" if steps <= 0 else f", {timedelta(seconds=round(mean * steps))} left"
    return f"{mean:.{0 if mean >= 10 else 1}f} s/step{left}"


class ProgressBar:
    """Follows `status.json` of a run in a thread.

    Args:
        folder: the run's folder.
        terminal: where to draw. If it is not a terminal (a pipe, a CI log), a line is printed for every stage, step
            and evaluation. In both cases an alarm (`hierarchy_monitor`, `reply_monitor`, `policy_monitor`) is printed
            once, on a separate line, when it starts.
    """

    def __init__(self, folder: Path, terminal: TextIO):
        self._status = folder / STATUS_FILE
        self._status.unlink(missing_ok=True)
        self._terminal = terminal
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._bar: tqdm | None = None
        self._seconds: list[float] = []
        self._shown: tuple[str, int, str] | None = None
        self._alarms: dict[str, str | None] = {}

    def __enter__(self) -> ProgressBar:
        self._thread.start()
        return self

    def __exit__(self, *_exception) -> None:
        self._stop.set()
        self._thread.join()
        self._show()
        if self._bar is not None:
            self._bar.close()

    def _follow(self) -> None:
        while not self._stop.wait(POLL_S):
            self._show()

    def _show(self) -> None:
        if not self._status.exists():
            return
        status = json.loads(self._status.read_text(encoding="utf-8"))
        stage, step, metrics = status["stage"], status["step"], status["metrics"]
        if self._terminal.isatty():
            if self._bar is None:
                self._bar = tqdm(
                    total=status["total_steps"],
                    initial=step,
                    file=self._terminal,
                    bar_format=BAR_FORMAT,
                    dynamic_ncols=True,
                )
            if step > self._bar.n and "timing_s/step" in metrics:
                self._seconds.append(metrics["timing_s/step"])
            self._bar.update(step - self._bar.n)
            self._bar.set_description_str(stage, refresh=False)
            parts = (time_left(self._seconds, status["total_steps"] - step), step_summary(metrics))
            self._bar.set_postfix_str(" | ".join(filter(None, parts)))
        elif (shown := (stage, step, step_summary(metrics))) != self._shown:
            before = self._shown or ("", 0, "")
            summary = shown[2]
            if summary and shown[1:] != before[1:]:  # before the first step there is nothing to report
                print(f"[{step}/{status['total_steps']}] {summary}", file=self._terminal)
            if stage != before[0]:
                print(f"  {stage}", file=self._terminal)
            self._shown = shown
        for kind in (*ALARMS, DISK_ALARM):
            text = status.get(kind)
            if text not in (None, self._alarms.get(kind)):
                tqdm.write(text, file=self._terminal)  # above the bar where there is one
            self._alarms[kind] = text
