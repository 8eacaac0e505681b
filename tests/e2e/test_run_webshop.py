# SPDX-License-Identifier: Apache-2.0
"""The script in the shop: catalogue, warm start, training and evaluation by the script a newcomer types."""

from __future__ import annotations

from pathlib import Path

import pytest
from trainer_runs import Run, assert_finite, assert_policies_agree, script_command, train

from agent_system.environments.webshop.browser.episodes import EpisodeList, read_episode, replay
from agent_system.environments.webshop.goals import Goals, Split
from agent_system.environments.webshop.tasks import parse_task_id

pytestmark = pytest.mark.engine

SETTINGS = {
    "profile": "cpu",
    "env.webshop.generated.products": 300,
    "env.val_tasks": 12,
    "env.max_steps": 6,
    "warm_start.episodes": 100,
    "warm_start.steps": 60,
    "data.train_batch_size": 8,
    "algorithm.updates_per_step": 2,
    "trainer.critic_warmup": 0,
    "actor_rollout_ref.actor.optim.lr_warmup_steps": 0,
    "trainer.total_training_steps": 2,
    "trainer.test_freq": 2,
    "trainer.save_freq": -1,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """Two steps, from nothing: the script makes the shop and the model."""
    home = tmp_path_factory.mktemp("shop-script")
    run = train(
        script_command("HiPER_trainer/run_webshop.sh"),
        home / "run",
        SETTINGS,
        environment={"HIPER_CACHE": str(home / "cache"), "HIPER_VENV": str(home / "venv")},
        cwd=home,
        timeout_s=800,
    )
    assert "[2/2]" in run.printed and not (home / "venv").exists()
    return run


def test_it_trains_and_evaluates(run):
    metrics = run.metrics
    assert sorted(metrics) == [0, 1, 2]
    for row in (metrics[0], metrics[2]):
        assert row["val/episodes"] == 12 and 0.0 <= row["val/success_rate"] <= row["val/score"] <= 1.0
    for row in (metrics[1], metrics[2]):
        losses = [f"critic/vf_loss_{head}" for head in ("high", "low", "term")]
        assert_finite(row, *losses, "actor/grad_norm")
        assert_policies_agree(row)
        assert row["rollout/episodes"] == 8
    assert (run.folder / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_episodes_are_the_shops_and_can_be_watched(run):
    shop = Path(run.config.env.kwargs.data_dir)
    files = [run.folder / "episodes" / "val_000002.jsonl", run.folder / "episodes" / "train_000001.jsonl"]
    assert len(EpisodeList(files)) == 20
    for line in (line for file in files for line in file.read_bytes().splitlines()):
        episode = read_episode(line)
        assert parse_task_id(episode.task_id)[:2] == (Goals.SYNTHETIC, Split.FIXED)
        assert episode.turns[0].observation == "search page"
        assert "actions: search[<your query>]" in episode.turns[0].prompt
        assert replay(episode, shop, len(episode.turns)).problem == ""
