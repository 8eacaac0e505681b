# SPDX-License-Identifier: Apache-2.0
"""Dress rehearsal in the shop: catalogue, warm start, training and evaluation by the script a newcomer types."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from agent_system.environments.webshop.browser.episodes import EpisodeList, read_episode, replay
from agent_system.environments.webshop.goals import Goals, Split
from agent_system.environments.webshop.tasks import parse_task_id

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "example_scripts" / "HiPER_trainer" / "run_webshop.sh"
TINY = [
    "profile=cpu",
    "env.webshop.generated.products=300",
    "env.val_tasks=12",
    "env.max_steps=6",
    "warm_start.episodes=100",
    "warm_start.steps=60",
    "data.train_batch_size=8",
    "algorithm.updates_per_step=2",
    "trainer.critic_warmup=0",
    "actor_rollout_ref.actor.optim.lr_warmup_steps=0",
    "trainer.total_training_steps=2",
    "trainer.test_freq=2",
    "trainer.save_freq=-1",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder of a run of two steps."""
    home = tmp_path_factory.mktemp("rehearsal")
    environment = {
        **os.environ,
        "HIPER_CACHE": str(home / "cache"),
        "HIPER_VENV": str(home / "venv"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = ["bash", str(SCRIPT), *TINY, f"run_dir={home / 'run'}"]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert "[2/2]" in done.stdout + done.stderr and not (home / "venv").exists()
    return home / "run"


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_it_trains_and_evaluates(folder):
    metrics = rows(folder / "metrics.jsonl")
    assert [row["step"] for row in metrics] == [0, 1, 2]
    for row in (metrics[0], metrics[2]):
        assert row["val/episodes"] == 12 and 0.0 <= row["val/success_rate"] <= row["val/score"] <= 1.0
    for row in metrics[1:]:
        for name in ("critic/vf_loss_high", "critic/vf_loss_low", "critic/vf_loss_term", "actor/grad_norm"):
            assert row[name] is not None and math.isfinite(row[name]), name
        assert row["training/rollout_probs_diff_max"] < 1e-5 and row["training/rollout_probs_diff_valid"] == 1.0
        assert row["rollout/episodes"] == 8
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_episodes_are_the_shops_and_can_be_watched(folder):
    shop = Path(OmegaConf.load(folder / "config.yaml").env.kwargs.data_dir)
    files = [folder / "episodes" / "val_000002.jsonl", folder / "episodes" / "train_000001.jsonl"]
    assert len(EpisodeList(files)) == 20
    for line in (line for file in files for line in file.read_bytes().splitlines()):
        episode = read_episode(line)
        assert parse_task_id(episode.task_id)[:2] == (Goals.SYNTHETIC, Split.FIXED)
        assert episode.turns[0].observation == "search page"
        assert "actions: search[<your query>]" in episode.turns[0].prompt
        assert replay(episode, shop, len(episode.turns)).problem == ""
