# SPDX-License-Identifier: Apache-2.0
"""The alarm about the difference between vLLM's policy and the trainer's, on histories written by hand."""

from __future__ import annotations

import io
import json

import pytest

from recipe.hiper.run_dir.policy_monitor import PROBABILITY_DIFFERENCE, policy_alarm
from recipe.hiper.run_dir.progress import ProgressBar
from recipe.hiper.run_dir.recorder import RunRecorder


def history(*differences: float | None) -> list[dict]:
    return [{"step": step, PROBABILITY_DIFFERENCE: value} for step, value in enumerate(differences, start=1)]


@pytest.mark.parametrize(
    ("differences", "since"),
    [
        ((8e-4,) * 9, None),  # bf16 as it is
        ((8e-4, 2e-2), 2),  # larger than rounding explains: at once
        ((8e-4, 2e-2, 9e-4), None),  # and over
        ((8e-4, 7e-4, 9e-4, 2.5e-3, 2.6e-3), None),  # more than threefold, in two steps only
        ((8e-4, 7e-4, 9e-4, 2.5e-3, 2.6e-3, 2.5e-3), 4),
        ((8e-4, 7e-4, 9e-4, 1e-3, 2.6e-3, 2.5e-3, 3e-3, 3e-3), 5),
        ((8e-4, 7e-4, 9e-4, 2.6e-3, 2.6e-3, 2e-3, 2.6e-3), None),  # with a gap
        ((8e-4, 7e-4, 9e-4, 2.3e-3, 2.3e-3, 2.3e-3), None),  # less than threefold
        ((1e-8, 1e-8, 1e-8, 9e-7, 9e-7, 9e-7), None),  # the last bits of float32
        ((1e-8, 1e-8, 1e-8, 2e-5, 2e-5, 2e-5), 4),  # no longer
        ((1e-8, None, 1e-8, 1e-8, 2e-5, None, 2e-5, 2e-5), 5),  # a step without the metric, as one that only evaluates
        ((), None),
    ],
)
def test_large_or_growing_differences(differences, since):
    alarm = policy_alarm(history(*differences))
    assert (alarm is None) if since is None else (f"since step {since}," in str(alarm))
    if alarm:
        assert "\n" not in alarm and "Try: algorithm.rollout_correction.rollout_is=token" in alarm


def test_the_line_stays_the_same_while_the_alarm_lasts():
    growing = (8e-4, 7e-4, 9e-4, 2.5e-3, 3e-3, 4e-3)
    lines = {policy_alarm(history(*growing, *more)) for more in ((), (5e-3,), (5e-3, 6e-3))}
    assert len(lines) == 1 and None not in lines


def test_the_run_prints_it_once_beside_an_alarm_about_the_hierarchy(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("recipe.hiper.run_dir.progress.POLL_S", 60.0)  # nobody else looks meanwhile
    output = io.StringIO()
    with ProgressBar(tmp_path, output) as bar:
        recorder = RunRecorder(tmp_path, total_steps=6, checkpoint_bytes=1, episodes_every=0)
        for step, difference in enumerate((8e-4, 8e-4, 2e-2, 3e-2, 8e-4), start=1):
            recorder.log({PROBABILITY_DIFFERENCE: difference, "rollout/switch_rate": 1.0}, step=step)
            status = json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))
            assert (status["policy_alarm"] is not None) is (step in (3, 4))
            bar._show()
    assert output.getvalue().count("Policy alarm: since step 3") == 1
    assert output.getvalue().count("Hierarchy alarm") == 1
    log = capsys.readouterr().out
    assert log.count("Policy alarm: since step 3") == 1 and log.count("Policy alarm is over") == 1
