# SPDX-License-Identifier: Apache-2.0
"""Dress rehearsal: the script a newcomer types, with tiny sizes. Games, warm start, training, resume, evaluation."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "example_scripts" / "HiPER_trainer" / "run_alfworld.sh"
TINY = [
    "profile=cpu",
    "env.alfworld.generated.train=24",
    "env.alfworld.generated.valid_seen=6",
    "env.alfworld.generated.valid_unseen=12",
    "env.val_tasks=12",
    "env.max_steps=8",
    "warm_start.episodes=60",
    "warm_start.steps=60",
    "data.train_batch_size=8",
    "algorithm.updates_per_step=2",
    "trainer.critic_warmup=0",
    "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
    "trainer.test_freq=1",
    "trainer.save_freq=2",
]


def start(folder: Path, *overrides: str) -> subprocess.Popen:
    """The script in a shell whose environment is activated: it is suitable, so none is made."""
    environment = {
        **os.environ,
        "HIPER_CACHE": str(folder.parent / "cache"),
        "HIPER_VENV": str(folder.parent / "venv"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = ["bash", str(SCRIPT), *TINY, f"run_dir={folder}", *overrides]
    return subprocess.Popen(
        command,
        env=environment,
        cwd=folder.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # What a shell starts in the background ignores Ctrl-C, and so would everything below it; a terminal's does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process: subprocess.Popen) -> str:
    try:
        output, _ = process.communicate(timeout=600)
    finally:
        process.kill()  # nothing, where it has ended
    assert process.returncode == 0, output[-4000:]
    return output


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def left_behind(folder: Path) -> dict[int, str]:
    """Processes that are alive and have the run's folder or Ray in their command line, as all has that a run starts."""
    found = {}
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if process.info["status"] != psutil.STATUS_ZOMBIE and (str(folder) in line or re.search(r"raylet|ray::", line)):
            found[process.info["pid"]] = line[:200]
    return found


OTHERS = left_behind(ROOT / "no run yet")
"""Ray's processes that were there before: another run's on the same machine."""


def assert_nothing_is_left(folder: Path) -> None:
    """Ray's workers notice the end of a run by themselves; on a busy machine that takes a moment."""

    def left() -> list[str]:
        return [line for pid, line in left_behind(folder).items() if pid not in OTHERS]

    deadline = time.monotonic() + 20
    while left() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left() == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("rehearsal") / "run"


@pytest.fixture(scope="module")
def first_run(folder) -> str:
    return finish(start(folder, "trainer.total_training_steps=2"))


@pytest.fixture(scope="module")
def resumed_run(folder, first_run) -> str:
    return finish(start(folder, "trainer.total_training_steps=3", "trainer.val_before_train=False"))


def test_first_run_trains_evaluates_and_saves(folder, first_run):
    rows = metrics(folder)
    assert [row["step"] for row in rows] == [0, 1, 2]
    for row in rows:
        assert 0.0 <= row["val/success_rate"] <= 1.0
        assert row["val/episodes"] == 12
    for row in rows[1:]:
        for name in (
            "critic/vf_loss_high",
            "critic/vf_loss_low",
            "critic/vf_loss_term",
            "actor/loss",
            "actor/grad_norm",
        ):
            assert row[name] is not None and math.isfinite(row[name]), name
        assert row["training/rollout_probs_diff_max"] < 1e-5
        assert row["rollout/generations_after_end_fraction"] == 0.0
    assert (folder / "checkpoints" / "global_step_2" / "actor").is_dir()
    assert (folder / "checkpoints" / "latest_checkpointed_iteration.txt").read_text() == "2"
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "config.yaml").stat().st_size > 1000
    assert list((folder / "tensorboard").iterdir())
    assert "[2/2]" in first_run


def test_episode_files_hold_whole_episodes(folder, first_run):
    lines = (folder / "episodes" / "train_000001.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 8
    for line in lines:
        episode = json.loads(line)
        assert episode["turns"] == len(episode["trajectory"]) <= 8
        assert episode["stop"] in ("won", "step_limit")
        assert [turn["turn"] for turn in episode["trajectory"]] == list(range(episode["turns"]))
        for turn in episode["trajectory"]:
            assert set(turn["advantages"]) == {"switch", "subgoal", "action"}
            assert set(turn["values"]) == {"high", "low", "term"}
            assert turn["prompt"].startswith("task: ")
    assert len((folder / "episodes" / "val_000000.jsonl").read_text(encoding="utf-8").splitlines()) == 12


def test_resume_goes_on_and_says_from_where(folder, resumed_run):
    assert "resuming from the checkpoint of step 2" in resumed_run
    assert [row["step"] for row in metrics(folder)] == [0, 1, 2, 3]
    assert "[3/3]" in resumed_run


@pytest.fixture(scope="module")
def evaluation(folder, resumed_run) -> str:
    before = (folder / "metrics.jsonl").read_bytes(), (folder / "config.yaml").read_bytes()
    output = finish(start(folder, "trainer.total_training_steps=3", "trainer.val_only=True"))
    assert ((folder / "metrics.jsonl").read_bytes(), (folder / "config.yaml").read_bytes()) == before
    return output


def test_a_checkpoint_can_be_evaluated(folder, evaluation):
    """On the same tasks as in training, with nothing trained and nothing lost."""
    assert "resuming from the checkpoint of step 3" in evaluation
    (made,) = (folder / "evaluations").iterdir()
    (row,) = metrics(made)
    assert row["step"] == 3 and row["val/episodes"] == 12
    assert f"held-out {row['val/success_rate']:.1%}" in evaluation and str(made) in evaluation
    assert not (made / "checkpoints").exists()
    files = [folder / "episodes" / "val_000000.jsonl", made / "episodes" / "val_000003.jsonl"]
    lines = [file.read_text().splitlines() for file in files]
    panels = [{json.loads(line)["task_id"] for line in of_one_step} for of_one_step in lines]
    assert panels[0] == panels[1]


def test_an_active_environment_is_used(folder, first_run):
    assert not (folder.parent / "venv").exists()


def test_nothing_is_left_running(folder, evaluation):
    assert_nothing_is_left(folder)


def test_interrupt_ends_everything(folder, resumed_run):
    """Ctrl-C while the engines run."""
    process = start(folder.parent / "interrupted", "trainer.total_training_steps=50", "trainer.resume_mode=disable")
    status = folder.parent / "interrupted" / "status.json"
    deadline = time.time() + 240
    while time.time() < deadline:
        if status.exists() and "evaluating" in json.loads(status.read_text())["stage"]:
            break
        time.sleep(0.5)
    else:
        process.kill()
        pytest.fail("the run never got to its first evaluation")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert_nothing_is_left(folder.parent / "interrupted")
