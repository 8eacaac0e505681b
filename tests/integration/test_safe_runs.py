# SPDX-License-Identifier: Apache-2.0
"""Accidents of a real run, and whether the same command resumes it as if nothing had happened.

benchmarks/chaos.py does the same at random moments, many times.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from trainer_runs import Run

from recipe.hiper.run_dir.manifest import damage

pytestmark = pytest.mark.engine

OF_THE_MACHINE = ("timing", "perf/", "actor/perf/", "critic/perf/")


def reproducible(metrics: dict) -> dict:
    """The metrics that a repetition of the same step has as well."""
    return {name: value for name, value in metrics.items() if not name.startswith(OF_THE_MACHINE)}


def stage_is(folder: Path, start: str) -> Callable[[], bool]:
    """Whether the status of a run begins with these words."""

    def reached() -> bool:
        try:
            return json.loads((folder / "status.json").read_text(encoding="utf-8"))["stage"].startswith(start)
        except (OSError, ValueError):
            return False

    return reached


RARELY_SAVED = {"trainer.total_training_steps": 3, "trainer.save_freq": 100}


def terminate(process: subprocess.Popen) -> None:
    """What a scheduler does."""
    process.send_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def stopped_run(script_run, start_script) -> Run:
    """The run of the script, stopped by SIGTERM while it plays the episodes of step 2."""
    folder = script_run.folder.parent / "stopped"
    when = stage_is(folder, "step 2/")
    return start_script("stopped", RARELY_SAVED, interrupt_when=when, accident=terminate, exit_code=143)


def test_sigterm_saves_the_latest_finished_step(stopped_run):
    assert "SIGTERM: the run saves its latest finished step and ends" in stopped_run.printed
    assert "stopped by SIGTERM. The same command resumes from the latest checkpoint (step 1)." in stopped_run.printed
    assert stopped_run.status["stage"] == "stopped"
    assert sorted(stopped_run.checkpoints) == [1]  # it was not due
    assert sorted(stopped_run.metrics) == [0, 1]


def test_after_sigterm_the_run_resumes_exactly(script_run, stopped_run, start_script):
    resumed = start_script("stopped", RARELY_SAVED)
    assert "resuming from the checkpoint of step 1" in resumed.printed
    assert sorted(resumed.metrics) == [0, 1, 2, 3]
    for step in (1, 2, 3):
        assert reproducible(resumed.metrics[step]) == reproducible(script_run.metrics[step])


def test_checkpoints_have_manifests_with_the_evaluation(script_run):
    checkpoint = script_run.folder / "checkpoints" / "global_step_3"
    assert damage(checkpoint, digests=True) is None
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    assert manifest["success"] == script_run.metrics[3]["val/success_rate"]
    assert "random_states.pt" in manifest["files"] and "data.pt" in manifest["files"]
