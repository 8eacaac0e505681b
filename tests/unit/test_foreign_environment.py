# SPDX-License-Identifier: Apache-2.0
"""An environment that a user brings along: found by `module:NAME`, prepared without ALFWorld's games."""

from __future__ import annotations

import json

import pytest
from made_config import check, composed

from agent_system.errors import ConfigError
from agent_system.rollout.environment_registry import agent_kind
from recipe.hiper.tasks.preparation import prepare

MODULE = """
from agent_system.environments.base import TaskSpec
from agent_system.environments.tasks import TaskPanel
from agent_system.plan_execute.prompts import PromptStyle
from agent_system.rollout.environment_registry import AgentKind

def tasks(split):
    names = [f"{split}-{index}" for index in range({"train": 5, "val": 3}[split])]
    return TaskPanel(tuple(TaskSpec("brought:Game-v0", name, "any", 0) for name in names), tuple(names))

GAME = AgentKind("a game", PromptStyle.PLAN_EXECUTE, PromptStyle.PLAN_EXECUTE_COMPACT, tasks)
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "brought.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HIPER_CACHE", str(tmp_path / "cache"))


def configured(tmp_path, *overrides: str):
    run_dir = f"run_dir={tmp_path / 'run'}"
    config = composed(run_dir, "env.env_name=brought:GAME", "env.val_tasks=3", "data.train_batch_size=4", *overrides)
    check(config)
    return config


def test_its_tasks_are_played_and_no_game_is_generated(tmp_path):
    config = configured(tmp_path, "actor_rollout_ref.model.path=somewhere", "trainer.total_training_steps=3")
    prepare(config, progress=False)
    train, val = (json.loads((tmp_path / "run" / "tasks" / f"{split}.json").read_text()) for split in ("train", "val"))
    assert [task["task_id"] for task in train["tasks"]] == [f"train-{index}" for index in range(5)]
    assert [task["env_id"] for task in val["tasks"]] == ["brought:Game-v0"] * 3
    assert (train["rows"], val["rows"]) == (3 * 4, 3)
    assert agent_kind(config.env.env_name).environment == "a game"
    assert not (tmp_path / "cache").exists()


def test_the_warm_started_model_does_not_play_it(tmp_path):
    with pytest.raises(ConfigError, match=r"in the shop only.*actor_rollout_ref.model.path="):
        prepare(configured(tmp_path), progress=False)


def test_more_held_out_tasks_than_it_has(tmp_path):
    config = configured(tmp_path, "env.val_tasks=9", "actor_rollout_ref.model.path=somewhere")
    with pytest.raises(ConfigError, match=r"env.val_tasks=9, but .*brought:GAME has 3 games. env.val_tasks=3"):
        prepare(config, progress=False)
