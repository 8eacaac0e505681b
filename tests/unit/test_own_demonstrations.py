# SPDX-License-Identifier: Apache-2.0
"""Demonstrations in an environment of the user's own that brings a scripted player."""

from __future__ import annotations

import sys

import pytest
from made_config import composed, settings_of

from agent_system.errors import ConfigError
from agent_system.plan_execute.prompts import PromptStyle
from agent_system.rollout.environment_registry import environment_spec
from agent_system.rollout.tokens import PromptEncoder
from recipe.hiper.cold_start.evaluate import PlaySpec, _RunningEpisode
from recipe.hiper.cold_start.own_demonstrations import OwnDemonstrationSpec, collect_with_player
from recipe.hiper.tasks.families import family_of

MODULE = """
import gymnasium

from agent_system.environments.base import TaskSpec
from agent_system.environments.tasks import TaskPanel
from agent_system.plan_execute.advice import Advice
from agent_system.plan_execute.prompts import PromptStyle
from agent_system.rollout.environment_registry import EnvironmentSpec

class Corridor(gymnasium.Env):
    def __init__(self, max_steps, length=3):
        self.action_space = self.observation_space = gymnasium.spaces.Text(99)
        self.max_steps, self.length = max_steps, length

    def info(self):
        won = self.place == self.length
        return {"task": "leave", "admissible_actions": ["left", "right"], "won": won, "score": float(won)}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.place = 0, options["start"]
        return f"place {self.place}", self.info()

    def step(self, action):
        self.steps += 1
        self.place = max(0, self.place + (1 if action == "right" else -1))
        won = self.place == self.length
        return f"place {self.place}", float(won), won, not won and self.steps == self.max_steps, self.info()

gymnasium.register("Corridor-v0", Corridor)

def tasks(split):
    starts = {"train": (0, 1), "val": (2,)}[split]
    names = [f"{split}-{start}" for start in starts]
    specs = (TaskSpec("corridor:Corridor-v0", n, "any", 0, {"start": s}) for n, s in zip(names, starts, strict=True))
    return TaskPanel(tuple(specs), tuple(names))

class Player:
    def __init__(self, task, rng):
        assert task == "leave"

    def advise(self, observation, admissible, subgoal):
        return Advice.towards("the door", "right", subgoal)

STYLES = PromptStyle.PLAN_EXECUTE, PromptStyle.PLAN_EXECUTE_COMPACT
CORRIDOR = EnvironmentSpec("a corridor", *STYLES, tasks, player=Player)
DUMB = EnvironmentSpec("a corridor", *STYLES, tasks)
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    """The user's module `corridor`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "corridor.py").write_text(MODULE, encoding="utf-8")
    yield
    sys.modules.pop("corridor", None)


def play(**changes):
    panels = {"train": environment_spec("corridor:CORRIDOR").tasks("train")}
    spec = OwnDemonstrationSpec(**{"episodes": 4, "max_turns": 9, "slips": 0.0} | changes)
    return collect_with_player("corridor:CORRIDOR", {"length": 3}, panels, "train", spec, workers=1, progress=False)


def test_tasks_are_played_in_turn_and_the_first_reply_sets_the_subgoal():
    demonstrations = play()
    assert sorted(len(d.examples) for d in demonstrations) == [2, 2, 3, 3] and all(d.won for d in demonstrations)
    first, second, _ = next(d.examples for d in demonstrations if len(d.examples) == 3)
    blocks = "<subgoal>the door</subgoal><action>right</action>"
    assert (first.reply, second.reply) == (f"<switch>SWITCH</switch>{blocks}", f"<switch>KEEP</switch>{blocks}")
    assert "place 0" in first.prompt and "the door" not in first.prompt
    assert "place 1" in second.prompt and "the door" in second.prompt


def test_full_prompts_name_the_environment():
    assert "You act in a corridor" in play(style=PromptStyle.PLAN_EXECUTE)[0].examples[0].prompt


def test_the_report_names_the_environment_too(qwen3_tokenizer):
    task = environment_spec("corridor:CORRIDOR").tasks("train")[0]
    spec = PlaySpec(style=PromptStyle.PLAN_EXECUTE, environment="a corridor", max_prompt=2000)
    assert "You act in a corridor" in _RunningEpisode(task, spec, PromptEncoder(qwen3_tokenizer)).prompt()


def test_slips_are_played_and_not_taught():
    """A slip to the left makes an episode longer; every written reply is still the player's."""
    demonstrations = play(episodes=12, slips=0.5, max_turns=30)
    assert max(len(d.examples) for d in demonstrations) > 3
    assert all(e.reply.endswith("<action>right</action>") for d in demonstrations for e in d.examples)
    assert demonstrations == play(episodes=12, slips=0.5, max_turns=30)
    assert demonstrations != play(episodes=12, slips=0.5, max_turns=30, seed=1)


def own_family(name, *overrides):
    config = composed(
        f"env.env_name=corridor:{name}", "env.name=corridor", "env.val_tasks=1", "env.max_steps=7", *overrides
    )
    settings = settings_of(config)
    return family_of(settings), settings.warm_start


def test_the_model_of_a_run_follows_its_settings():
    family, settings = own_family("CORRIDOR", "warm_start.base=base", "warm_start.episodes=5", "env.kwargs.length=3")
    plan = family.cold_start_spec(None, settings)
    demonstrations = plan.spec.demonstrations
    assert (demonstrations.episodes, demonstrations.max_turns, plan.spec.base) == (5, 7, "base")
    other, other_settings = own_family("CORRIDOR", "warm_start.base=base", "warm_start.episodes=6")
    assert other.cold_start_spec(None, other_settings).digest != plan.digest


def test_an_environment_without_a_player_is_refused():
    family, settings = own_family("DUMB", "warm_start.base=base")
    with pytest.raises(ConfigError, match="corridor:DUMB has no scripted player .*Try: warm_start.enable=false"):
        family.cold_start_spec(None, settings)
