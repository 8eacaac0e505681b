# SPDX-License-Identifier: Apache-2.0
"""What a user sees during a run."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from recipe.hiper.run_dir.progress import ProgressBar, quiet_terminal, step_summary, time_left
from recipe.hiper.run_dir.recorder import RunRecorder

STEP = {
    "rollout/success_rate": 0.25,
    "rollout/episode_length": 12.34,
    "rollout/switch_rate": 0.5,
    "timing_s/gen": 3.21,
    "timing_s/update_actor": 1.0,
    "timing_s/something_else": 9.0,
}


def test_a_step_in_one_line():
    assert step_summary(STEP) == "train 25.0% | 12.3 turns | switch 50% | s: rollout 3.2 actor 1.0"
    assert step_summary({"val/success_rate": 0.333} | STEP).startswith("held-out 33.3% | train 25.0%")
    assert step_summary({"val/success_rate": 0.333}) == "held-out 33.3%"
    assert step_summary({}) == ""
    lasts = step_summary(STEP | {"hierarchy/segment_length": 3.21})
    assert lasts == "train 25.0% | 12.3 turns | switch 50% (3.2 turns) | s: rollout 3.2 actor 1.0"


def test_without_a_terminal_a_line_per_step(tmp_path):
    """A pipe, a CI log: nothing is overwritten, and nothing is printed twice."""
    output = io.StringIO()
    recorder_of = {"total_steps": 2, "checkpoint_bytes": 1, "episodes_every": 0}
    with ProgressBar(tmp_path, output) as bar:
        recorder = RunRecorder(tmp_path, **recorder_of)
        bar._show()
        recorder.stage("step 1/2")
        for _ in range(3):
            bar._show()
        recorder.log(STEP, step=1)
        bar._show()
        recorder.log(STEP, step=2)
        recorder.finish("finished")
    lines = output.getvalue().splitlines()
    steps = [f"[{step}/2] {step_summary(STEP)}" for step in (1, 2)]  # and no empty line for step 0
    assert [line for line in lines if line.startswith("[")] == steps
    assert [line.strip() for line in lines if line.startswith("  ")] == ["starting", "step 1/2", "finished"]
    assert "\r" not in output.getvalue()


def test_an_evaluation_alone_shows_its_result(tmp_path):
    """`trainer.val_only=True`: no step is done, and the result is what the user waits for."""
    output = io.StringIO()
    with ProgressBar(tmp_path, output) as bar:
        recorder = RunRecorder(tmp_path, total_steps=3, checkpoint_bytes=1, episodes_every=0)
        recorder.resumed_from(3)
        bar._show()
        recorder.log({"val/success_rate": 0.375}, step=3)
        recorder.finish("finished")
    assert output.getvalue().splitlines()[-2:] == ["[3/3] held-out 37.5%", "  finished"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_bar(tmp_path):
    output = Terminal()
    with ProgressBar(tmp_path, output):
        recorder = RunRecorder(tmp_path, total_steps=4, checkpoint_bytes=1, episodes_every=0)
        recorder.log(STEP, step=3)
        recorder.stage("step 4/4")
    drawn = output.getvalue()
    assert "3/4" in drawn and "step 4/4" in drawn and "train 25.0%" in drawn
    assert "step/s" not in drawn  # of the time since the bar was drawn last


def test_the_time_left_counts_steps_and_not_the_start():
    assert time_left([], 3) == ""
    assert time_left([50.0, 58.0], 100) == "54 s/step, 1:30:00 left"
    assert time_left([2.04], 1) == "2.0 s/step, 0:00:02 left"
    assert time_left([99.0] + [5.0] * 10, 2) == "5.0 s/step, 0:00:10 left"  # the latest ten
    assert time_left([54.0], 0) == "54 s/step"


def test_the_bar_shows_the_time_left(tmp_path):
    output = Terminal()
    with ProgressBar(tmp_path, output) as bar:
        recorder = RunRecorder(tmp_path, total_steps=4, checkpoint_bytes=1, episodes_every=0)
        bar._show()
        recorder.log(STEP | {"timing_s/step": 20.0}, step=1)
        for _ in range(2):
            bar._show()
        recorder.log(STEP | {"timing_s/step": 40.0}, step=2)
    assert "20 s/step, 0:01:00 left" in output.getvalue() and "30 s/step, 0:01:00 left" in output.getvalue()


def run_with_an_alarm(folder, output, monkeypatch) -> None:
    """Healthy, lost in one way, healthy, lost in the other, and looked at more often than anything changes."""
    monkeypatch.setattr("recipe.hiper.run_dir.progress.POLL_S", 60.0)  # nobody else looks meanwhile
    rates = (0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0, 0.0)
    with ProgressBar(folder, output) as bar:
        recorder = RunRecorder(folder, total_steps=len(rates), checkpoint_bytes=1, episodes_every=0)
        for step, rate in enumerate(rates, start=1):
            recorder.log(STEP | {"rollout/switch_rate": rate}, step=step)
            for _ in range(3):
                bar._show()
        recorder.finish("finished")


def test_an_alarm_is_printed_once_when_it_begins(tmp_path, monkeypatch):
    output = io.StringIO()
    run_with_an_alarm(tmp_path, output, monkeypatch)
    lines = output.getvalue().splitlines()
    first, second = [number for number, line in enumerate(lines) if line.startswith("Hierarchy alarm")]
    assert "since step 2" in lines[first] and lines[first - 1].startswith("[4/9]")
    assert "since step 7" in lines[second] and lines[second - 1].startswith("[9/9]")


def test_an_alarm_about_replies_is_printed_too(tmp_path, monkeypatch):
    monkeypatch.setattr("recipe.hiper.run_dir.progress.POLL_S", 60.0)
    output = io.StringIO()
    with ProgressBar(tmp_path, output) as bar:
        recorder = RunRecorder(tmp_path, total_steps=2, checkpoint_bytes=1, episodes_every=0)
        for step in (1, 2):
            recorder.log(STEP | {"rollout/cut_fraction": 0.3}, step=step)
            bar._show()
    assert [line for line in output.getvalue().splitlines() if "alarm" in line] == [reply_alarm_of(tmp_path)]


def reply_alarm_of(folder) -> str:
    return json.loads((folder / "status.json").read_text(encoding="utf-8"))["reply_alarm"]


def test_an_alarm_stands_above_the_bar(tmp_path, monkeypatch):
    """On a line of its own: the bar is wiped, the line written, the bar drawn again below it."""
    output = Terminal()
    run_with_an_alarm(tmp_path, output, monkeypatch)
    lines = output.getvalue().split("\n")
    assert output.getvalue().count("Hierarchy alarm") == 2
    shown = [line.rsplit("\r", 1)[-1] for line in lines if "Hierarchy alarm" in line]
    assert [line[: len("Hierarchy alarm")] for line in shown] == ["Hierarchy alarm"] * 2
    assert "9/9" in lines[-2] and "switch 0%" in lines[-2]


def test_what_an_earlier_run_left_is_not_shown(tmp_path):
    RunRecorder(tmp_path, total_steps=9, checkpoint_bytes=1, episodes_every=0).log(STEP, step=9)
    output = io.StringIO()
    with ProgressBar(tmp_path, output):
        pass
    assert output.getvalue() == ""


QUIET = """
import os, subprocess, sys
from pathlib import Path
from recipe.hiper.run_dir.progress import quiet_terminal
print("before")
with quiet_terminal(Path(sys.argv[1])) as terminal:
    print("noise of this process")
    print("more noise", file=sys.stderr)
    subprocess.run([sys.executable, "-c", "print('noise of a child')"], check=True)
    print("for the user", file=terminal)
print("after")
"""


def test_everything_else_goes_to_the_log(tmp_path):
    log = tmp_path / "logs" / "run.log"
    done = subprocess.run([sys.executable, "-c", QUIET, str(log)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["before", "after"]
    assert "for the user" in done.stderr and "noise" not in done.stderr
    for noise in ("noise of this process", "more noise", "noise of a child"):
        assert noise in log.read_text()


def test_the_terminal_comes_back_after_an_error(tmp_path, capfd):
    with pytest.raises(RuntimeError, match="broke"), quiet_terminal(tmp_path / "run.log"):
        raise RuntimeError("broke")
    os.write(1, b"seen again\n")
    assert "seen again" in capfd.readouterr().out
