# SPDX-License-Identifier: Apache-2.0
"""An environment of a user's own: looked up by `module:NAME`, checked at its first reset, prepared without ALFWorld."""

from __future__ import annotations

import json
import sys

import gymnasium
import pytest
from made_config import check, composed, settings_of

from agent_system.errors import ConfigError
from agent_system.rollout.environment_registry import environment_spec
from recipe.hiper.tasks.preparation import prepare

MODULE = """
import gymnasium

from agent_system.environments.base import TaskSpec
from agent_system.environments.tasks import TaskPanel
from agent_system.plan_execute.prompts import PromptStyle
from agent_system.rollout.environment_registry import EnvironmentSpec

class Game(gymnasium.Env):
    def __init__(self, max_steps, rooms=1):
        self.action_space = self.observation_space = gymnasium.spaces.Text(99)
        self.max_steps, self.rooms = max_steps, rooms

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return f"room 1 of {self.rooms}", {"task": "leave", "admissible_actions": ["go"]}

    def step(self, action):
        self.steps += 1
        truncated = self.steps == self.max_steps
        info = {"task": "leave", "admissible_actions": ["go"], "won": False, "score": 0.0}
        return "a room", 0.0, False, truncated, info

gymnasium.register("Game-v0", Game)

def tasks(split):
    names = [f"{split}-{index}" for index in range({"train": 5, "val": 3}[split])]
    return TaskPanel(tuple(TaskSpec("brought:Game-v0", name, "any", 0) for name in names), tuple(names))

GAME = EnvironmentSpec("a game", PromptStyle.PLAN_EXECUTE, PromptStyle.PLAN_EXECUTE_COMPACT, tasks)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes the user's module with replacements; it is imported again for every test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HIPER_CACHE", str(tmp_path / "cache"))

    def write(*replacements: tuple[str, str]) -> None:
        text = MODULE
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "brought.py").write_text(text)

    write()
    yield write
    sys.modules.pop("brought", None)
    gymnasium.registry.pop("Game-v0", None)


def configured(tmp_path, *overrides: str):
    run_dir = f"run_dir={tmp_path / 'run'}"
    config = composed(run_dir, "env.env_name=brought:GAME", "env.val_tasks=3", "data.train_batch_size=4", *overrides)
    check(config)
    return config


def test_its_tasks_are_played_and_no_game_is_generated(module, tmp_path):
    config = configured(tmp_path, "actor_rollout_ref.model.path=somewhere", "trainer.total_training_steps=3")
    prepare(config, settings_of(config), progress=False)
    train, val = (json.loads((tmp_path / "run" / "tasks" / f"{split}.json").read_text()) for split in ("train", "val"))
    assert [task["task_id"] for task in train["tasks"]] == [f"train-{index}" for index in range(5)]
    assert [task["env_id"] for task in val["tasks"]] == ["brought:Game-v0"] * 3
    assert (train["rows"], val["rows"]) == (3 * 4, 3)
    assert environment_spec(config.env.env_name).environment == "a game"
    assert not (tmp_path / "cache").exists()


def test_the_small_model_does_not_play_it(module, tmp_path):
    with pytest.raises(ConfigError, match=r"\(1 problem\)(.|\n)*this project only. Try: actor_rollout_ref.model.path="):
        configured(tmp_path)
    config = configured(tmp_path, "actor_rollout_ref.model.path=somewhere")
    config.actor_rollout_ref.model.path = None
    with pytest.raises(ConfigError, match=r"of this project only. Try: actor_rollout_ref.model.path="):
        prepare(config, settings_of(config), progress=False)


def test_more_held_out_tasks_than_it_has(module, tmp_path):
    config = configured(tmp_path, "env.val_tasks=9", "actor_rollout_ref.model.path=somewhere")
    with pytest.raises(ConfigError, match=r"env.val_tasks=9, but .*brought:GAME has 3 tasks. Try: env.val_tasks=3"):
        prepare(config, settings_of(config), progress=False)


WRONG = {
    "a missing key": (
        (
            'return f"room 1 of {self.rooms}", {"task": "leave", "admissible_actions": ["go"]}',
            'return "a", {"task": "b"}',
        ),
        "brought.Game.reset: info has no 'admissible_actions'. Try: info['admissible_actions'] = <non-empty list",
    ),
    "no observation": (
        ('return f"room 1 of {self.rooms}", ', "return None, "),
        "the observation None (NoneType), not str",
    ),
    "a reset that raises": (("self.steps = 0", "self.steps = self.nothing"), "AttributeError: 'Game' object has no"),
    "no step limit": (("max_steps, rooms=1):", "rooms=1):"), "got an unexpected keyword argument 'max_steps'"),
    "no tasks": (('"train": 5', '"train": 0'), "brought.tasks('train') has no tasks"),
    "no panel": (("    return TaskPanel(", "    return list("), "brought.tasks('train') raised TypeError"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_the_rollout_cannot_use_is_reported_before_a_model_is_loaded(name, module, tmp_path):
    """The model does not exist: an attempt to load it would fail with another error."""
    replacement, message = WRONG[name]
    module(replacement)
    config = configured(tmp_path, "actor_rollout_ref.model.path=somewhere")
    with pytest.raises(ConfigError) as refusal:
        prepare(config, settings_of(config), progress=False)
    (line, *more) = str(refusal.value).splitlines()
    assert message in line and ". Try: " in line
    if "tasks" not in message:
        command = "python -m agent_system.environments.check_env brought:GAME"
        assert more == [f"To check the whole interface, try: {command}"]
    assert not (tmp_path / "run").exists()


def test_it_is_made_with_the_users_arguments(module, tmp_path):
    path = "actor_rollout_ref.model.path=somewhere"
    config = configured(tmp_path, path, "+env.kwargs.rooms=3")
    prepare(config, settings_of(config), progress=False)
    assert config.env.kwargs == {"rooms": 3}
    config = configured(tmp_path, path, "+env.kwargs.doors=3")
    with pytest.raises(ConfigError, match="unexpected keyword argument 'doors'"):
        prepare(config, settings_of(config), progress=False)


def test_val_is_reset_as_well(module, tmp_path):
    module(("self.steps = 0", "self.steps = {'a': 0}[(options or {}).get('room', 'a')]"))
    text = (tmp_path / "brought.py").read_text()
    options = 'TaskSpec("brought:Game-v0", name, "any", 0, {"room": {"train": "a", "val": "b"}[split]})'
    (tmp_path / "brought.py").write_text(text.replace('TaskSpec("brought:Game-v0", name, "any", 0)', options))
    config = configured(tmp_path, "actor_rollout_ref.model.path=somewhere")
    with pytest.raises(ConfigError, match=r"options={'room': 'b'}\) of task val-\d raised KeyError: 'b'"):
        prepare(config, settings_of(config), progress=False)
