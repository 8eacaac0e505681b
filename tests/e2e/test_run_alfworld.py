# SPDX-License-Identifier: Apache-2.0
"""The script that a newcomer types, with tiny sizes. Games, warm start, training, resume, interrupt, evaluation.

tests/conftest.py starts the runs; tests/integration/test_training.py examines the same ones more closely.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import psutil
import pytest
from trainer_runs import REPOSITORY, Run, assert_finite, assert_policies_agree, read_json_lines

pytestmark = pytest.mark.engine


def left_behind(folder: Path) -> dict[int, str]:
    """Processes that are alive and have the run's folder or Ray in their command line, as all has that a run starts."""
    found = {}
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if process.info["status"] != psutil.STATUS_ZOMBIE and (str(folder) in line or re.search(r"raylet|ray::", line)):
            found[process.info["pid"]] = line[:200]
    return found


OTHERS = left_behind(REPOSITORY / "no run yet")
"""Ray's processes that were there before: another run's on the same machine."""


def assert_nothing_is_left(folder: Path) -> None:
    """Ray's workers notice the end of a run by themselves; on a busy machine that takes a moment."""

    def left() -> list[str]:
        return [line for pid, line in left_behind(folder).items() if pid not in OTHERS]

    deadline = time.monotonic() + 20
    while left() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left() == []


# Every fixture is requested where its run ends, so that these three tests look right after it. They come first.


def test_nothing_is_left_running(script_run):
    assert_nothing_is_left(script_run.folder)


def test_interrupt_ends_everything(interrupted_run):
    """Ctrl-C while the engines run."""
    assert_nothing_is_left(interrupted_run.folder)


def test_nothing_is_left_running_after_an_evaluation(script_evaluation):
    assert_nothing_is_left(script_evaluation.folder)


def test_first_run_trains_evaluates_and_saves(script_run):
    assert sorted(script_run.metrics) == [0, 1, 2, 3]
    for step in (0, 3):
        assert 0.0 <= script_run.metrics[step]["val/success_rate"] <= 1.0
        assert script_run.metrics[step]["val/episodes"] == 12
    for step in (1, 2, 3):
        metrics = script_run.metrics[step]
        losses = [f"critic/vf_loss_{head}" for head in ("high", "low", "term")]
        assert_finite(metrics, *losses, "actor/loss", "actor/grad_norm")
        assert_policies_agree(metrics)
        assert metrics["rollout/generations_after_end_fraction"] == 0.0
    assert "actor" in script_run.checkpoints[2]
    assert script_run.pointer == 3
    assert (script_run.folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (script_run.folder / "config.yaml").stat().st_size > 1000
    assert list((script_run.folder / "tensorboard").iterdir())
    assert "[3/3]" in script_run.printed


def test_the_script_makes_games_and_model(script_folder, script_run):
    made = [path for path in (script_folder / "cache").glob("*/*") if path.is_dir()]
    games, model = script_run.config.env.alfworld.data_dir, script_run.config.actor_rollout_ref.model.path
    assert {str(path) for path in made} == {games, model}


def test_episode_files_hold_whole_episodes(script_run):
    episodes = script_run.episodes("train", 1)
    assert len(episodes) == 8
    for episode in episodes:
        assert episode["turns"] == len(episode["trajectory"]) <= 8
        assert episode["stop"] in ("won", "step_limit")
        assert [turn["turn"] for turn in episode["trajectory"]] == list(range(episode["turns"]))
        for turn in episode["trajectory"]:
            assert set(turn["advantages"]) == {"switch", "subgoal", "action"}
            assert set(turn["values"]) == {"high", "low", "term"}
            assert turn["prompt"].startswith("task: ")
    assert len(script_run.episodes("val", 0)) == 12


def test_resume_says_from_where(interrupted_run):
    assert "resuming from the checkpoint of step 3" in interrupted_run.printed
    assert sorted(interrupted_run.metrics) == [0, 1, 2, 3, 4]
    assert "[4/6]" in interrupted_run.printed


def test_a_checkpoint_can_be_evaluated(interrupted_run, script_evaluation):
    """On the same tasks as in training, with nothing trained and nothing lost. The run was interrupted after it."""
    assert "resuming from the checkpoint of step 4" in script_evaluation.printed
    assert script_evaluation.metrics == interrupted_run.metrics
    assert script_evaluation.checkpoints == interrupted_run.checkpoints
    (made,) = (script_evaluation.folder / "evaluations").iterdir()
    (row,) = read_json_lines(made / "metrics.jsonl")
    assert row["step"] == 4 and row["val/episodes"] == 12
    assert f"held-out {row['val/success_rate']:.1%}" in script_evaluation.printed
    assert str(made) in script_evaluation.printed
    assert not (made / "checkpoints").exists()
    episodes = [script_evaluation.episodes("val", 0), read_json_lines(made / "episodes" / "val_000004.jsonl")]
    panels = [{episode["task_id"] for episode in of_one_step} for of_one_step in episodes]
    assert panels[0] == panels[1]


def test_an_evaluation_leaves_the_runs_files_alone(interrupted_run, script_evaluation):
    for name in ("metrics.jsonl", "config.yaml"):
        assert script_evaluation.files[name] == interrupted_run.files[name]


def test_an_active_environment_is_used(script_folder, script_run: Run):
    assert not (script_folder / "venv").exists()
