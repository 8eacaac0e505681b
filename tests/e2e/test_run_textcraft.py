# SPDX-License-Identifier: Apache-2.0
"""The script in TextCraft: warm start, training and evaluation by the script a newcomer types."""

from __future__ import annotations

import gymnasium
import pytest
from trainer_runs import Run, assert_finite, assert_policies_agree, script_command, train

import agent_system.environments  # noqa: F401  (registers the ids)
from agent_system.environments.textcraft.tasks import textcraft_panel
from agent_system.plan_execute.admissible import is_admissible

pytestmark = pytest.mark.engine

DEPTHS = (1, 2)
SETTINGS = {
    "profile": "cpu",
    "env.textcraft.depths": "[1,2]",
    "env.textcraft.train_tasks": 100,
    "env.val_tasks": 8,
    "env.max_steps": 6,
    "warm_start.episodes": 200,
    "warm_start.steps": 60,
    "data.train_batch_size": 8,
    "algorithm.updates_per_step": 2,
    "trainer.critic_warmup": 0,
    "actor_rollout_ref.actor.optim.lr_warmup_steps": 0,
    "trainer.total_training_steps": 1,
    "trainer.val_before_train": False,
    "trainer.test_freq": 1,
    "trainer.save_freq": -1,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """One step, from nothing: the script makes the model. There are no tasks to make."""
    home = tmp_path_factory.mktemp("textcraft-script")
    run = train(
        script_command("HiPER_trainer/run_textcraft.sh"),
        home / "run",
        SETTINGS,
        environment={"HIPER_CACHE": str(home / "cache"), "HIPER_VENV": str(home / "venv")},
        cwd=home,
        timeout_s=800,
    )
    assert "[1/1]" in run.printed and not (home / "venv").exists()
    assert [path.name for path in (home / "cache").iterdir()] == ["models"]
    return run


def test_it_trains_and_evaluates(run):
    row = run.metrics[1]
    assert_finite(row, *(f"critic/vf_loss_{head}" for head in ("high", "low", "term")), "actor/grad_norm")
    assert_policies_agree(row)
    assert (row["rollout/episodes"], row["val/episodes"]) == (8, 8)
    assert all(0.0 <= row[f"val/success_rate/depth_{depth}"] <= 1.0 for depth in DEPTHS)
    assert (run.folder / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_its_episodes_are_played_again_by_their_actions(run):
    """The tasks are those of the panels, and the environment workers played them as this process does."""
    settings = {"train": ("train", 100), "val": ("eval", 64)}
    replayed = 0
    for split, (part, size) in settings.items():
        tasks = {t.task_id: t for t in textcraft_panel(part, depths=DEPTHS, tasks=size, distractors=3).tasks}
        for episode in run.episodes(split, 1):
            task = tasks[episode["task_id"]]
            env = gymnasium.make(task.env_id, max_steps=6, disable_env_checker=True)
            observation, info = env.reset(seed=task.seed, options=dict(task.options))
            assert f"task: {info['task']}\n" in episode["trajectory"][0]["prompt"]
            for turn in episode["trajectory"]:
                assert turn["observation"] == observation
                assert turn["admissible"] == is_admissible(turn["action"], info["admissible_actions"])
                observation, reward, terminated, truncated, info = env.step(turn["action"])
                assert (turn["reward"], turn["terminated"], turn["truncated"]) == (reward, terminated, truncated)
            assert terminated or truncated
            assert episode["won"] == info["won"]
            replayed += 1
    assert replayed == 16
