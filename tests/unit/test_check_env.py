# SPDX-License-Identifier: Apache-2.0
"""`check_env` on environments that are wrong in one way each, on sound ones, and as a command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

from agent_system.environments.base import TaskSpec
from agent_system.environments.check_env import environment_findings, main
from agent_system.environments.contract import overlap_findings, panel_findings, reset_findings
from agent_system.environments.tasks import TaskPanel

THIS = Path(__file__).read_text("utf-8")
REPOSITORY = Path(__file__).resolve().parents[2]
WON_AT = 30


class Corridor(gymnasium.Env[str, str]):
    """Walk `WON_AT` steps east. Sound; the classes below break one rule each."""

    def __init__(self, max_steps: int) -> None:
        self.observation_space = self.action_space = gymnasium.spaces.Text(99)
        self.max_steps = max_steps
        self.place = self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = int(self.np_random.integers(3)), 0
        return self.view(), self.info()

    def step(self, action):
        self.steps += 1
        self.place += {"east": 1, "west": -1}.get(action, 0)
        terminated = self.place >= WON_AT
        return self.view(), float(terminated), terminated, not terminated and self.steps >= self.max_steps, self.info()

    def view(self):
        return f"place {self.place}"

    def info(self):
        won = self.place >= WON_AT
        return {"task": "walk", "admissible_actions": ["east", "west"], "won": won, "score": float(won)}


class NoTask(Corridor):
    def info(self):
        return {key: value for key, value in super().info().items() if key != "task"}


class NumberAsTask(Corridor):
    def info(self):
        return super().info() | {"task": 3}


class NoActions(Corridor):
    def info(self):
        return super().info() | {"admissible_actions": []}


class ActionsAsTuple(Corridor):
    def info(self):
        return super().info() | {"admissible_actions": ("east", "west")}


class NoWon(Corridor):
    def info(self):
        return {key: value for key, value in super().info().items() if key != "won"}


class NumberAsWon(Corridor):
    def info(self):
        return super().info() | {"won": 1}


class TextAsScore(Corridor):
    def info(self):
        return super().info() | {"score": "high"}


class WonAndTruncated(Corridor):
    def step(self, action):
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, False, truncated, info | {"won": truncated}


class NoInfo(Corridor):
    def info(self):
        return None


class NoObservation(Corridor):
    def view(self):
        return None if self.steps else "start"


class NoFirstObservation(Corridor):
    def view(self):
        return None


class ResetWithoutInfo(Corridor):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class OldStep(Corridor):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, info


class StepIsADict(Corridor):
    def step(self, action):
        return {"observation": self.view()}


class TextAsReward(Corridor):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, "1", *rest


class InfiniteReward(Corridor):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, float("inf"), *rest


class NumberAsTerminated(Corridor):
    def step(self, action):
        observation, reward, terminated, *rest = super().step(action)
        return observation, reward, int(terminated), *rest


class NothingAsTruncated(Corridor):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated or None, info


class LimitAsTermination(Corridor):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, False, info


class BothAtTheLimit(Corridor):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, truncated, info


class NoLimit(Corridor):
    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, False, info


class EarlyTruncation(Corridor):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated or self.steps >= 5, info


class UnseededStart(Corridor):
    starts = 0

    def reset(self, *, seed=None, options=None):
        type(self).starts += 1
        super().reset(seed=seed)
        self.place = type(self).starts % 7
        return self.view(), self.info()


class StartOfTheEpisodeBefore(Corridor):
    def reset(self, *, seed=None, options=None):
        before = self.place
        super().reset(seed=seed)
        self.place = before % 29
        return self.view(), self.info()


class UnseededSteps(Corridor):
    steps_ever = 0

    def step(self, action):
        type(self).steps_ever += 1
        _, *rest = super().step(action)
        return f"{self.view()} at {type(self).steps_ever}", *rest


class RaisesOnUnknownActions(Corridor):
    def step(self, action):
        {"east": 1, "west": -1}[action]
        return super().step(action)


class RaisesOnAdmissibleActions(Corridor):
    def step(self, action):
        if action == "west":
            raise ConnectionError("no service")
        return super().step(action)


class NoStepLimit(Corridor):
    def __init__(self) -> None:
        super().__init__(9)


class OldReset(Corridor):
    def reset(self):
        return super().reset()


class RaisesInReset(Corridor):
    def reset(self, *, seed=None, options=None):
        return {"start": 1}[options.get("name")]


class WrongCallInReset(Corridor):
    def reset(self, *, seed=None, options=None):
        return super().reset(name="start")


class RaisesInAnotherModule(Corridor):
    def reset(self, *, seed=None, options=None):
        return json.loads("no JSON")


class RaisesInInit(Corridor):
    def __init__(self, max_steps: int) -> None:
        super().__init__(max_steps // 0)


class StepWithoutAction(Corridor):
    def step(self):
        return super().step("east")


class RaisesInClose(Corridor):
    def close(self):
        raise OSError("closed twice")


REPORTED = {
    NoTask: "reset: info has no 'task'. Try: info['task'] = <str, the task in words>",
    NumberAsTask: "reset: info['task'] is 3 (int). Try: info['task'] = <str",
    NoActions: "info['admissible_actions'] is [] (list). Try: info['admissible_actions'] = <non-empty list of str>",
    ActionsAsTuple: "reset: info['admissible_actions'] is ('east', 'west') (tuple). Try: ",
    NoWon: "step: info has no 'won' at the end of an episode. Try: info['won'] = <bool>",
    NumberAsWon: "step: info['won'] is 1 (int) at the end of an episode. Try: info['won'] = <bool>",
    TextAsScore: "step: info['score'] is 'high' (str) at the end of an episode. Try: info['score'] = <float>",
    WonAndTruncated: "step: info['won'] is True, but terminated is False. Try: terminated=True",
    NoInfo: "reset returned the info None (NoneType), not a dict. Try: ",
    NoObservation: "step returned the observation None (NoneType), not str. Try: return text",
    NoFirstObservation: "reset returned the observation None (NoneType), not str. Try: return text",
    ResetWithoutInfo: "(str), not a pair. Try: return observation, info",
    OldStep: "step returned 4 values instead of five. Try: return observation, reward, terminated, truncated, info",
    StepIsADict: "(dict) instead of five. Try: return observation, reward, terminated, truncated, info",
    TextAsReward: "step returned the reward '1' (str). Try: reward=<finite float>",
    InfiniteReward: "step returned the reward inf (float). Try: reward=<finite float>",
    NumberAsTerminated: "step returned terminated=0 (int), not a bool. Try: terminated=bool(terminated)",
    NothingAsTruncated: "step returned truncated=None (NoneType), not a bool. Try: truncated=bool(truncated)",
    LimitAsTermination: "made with max_steps=10 returns terminated=True, truncated=False at step 10, although",
    BothAtTheLimit: "made with max_steps=10 returns terminated=True, truncated=True at step 10, although with a higher",
    NoLimit: "made with max_steps=20 does not end after 20 steps. Try: truncated=True once max_steps",
    EarlyTruncation: "made with max_steps=20 is truncated after 5 steps, but only the step limit truncates. Try: ",
    UnseededStart: "returned another observation or info the second time",
    StartOfTheEpisodeBefore: "returned another observation or info the second time",
    UnseededSteps: "the same seed and actions return something else at step 1 of task",
    RaisesOnUnknownActions: "step('this is no action') raised KeyError: 'this is no action' (",
    RaisesOnAdmissibleActions: "step('west') raised ConnectionError: no service (",
    NoStepLimit: "__init__() got an unexpected keyword argument 'max_steps'",
    OldReset: "got an unexpected keyword argument 'seed'. Try: def reset(self, *, seed=None, options=None)",
    RaisesInReset: "reset(seed=0, options={}) of task task-0 raised KeyError: None (",
    WrongCallInReset: "Corridor.reset() got an unexpected keyword argument 'name' (",
    RaisesInAnotherModule: "raised JSONDecodeError: Expecting value: line 1 column 1 (char 0) (",
    RaisesInInit: "of task task-0 raised ZeroDivisionError: integer division or modulo by zero (",
    StepWithoutAction: "which counts as a fault of the environment. Try: def step(self, action), with the action as",
    RaisesInClose: "RaisesInClose.close raised OSError: closed twice (",
}

for kind in (Corridor, *REPORTED):
    gymnasium.register(f"{kind.__name__}-v0", kind)


def panel(kind: type[gymnasium.Env], seeds: int = 3, name: str = "task") -> TaskPanel:
    names = [f"{name}-{seed}" for seed in range(seeds)]
    tasks = tuple(TaskSpec(f"{kind.__name__}-v0", name, "walk", seed) for seed, name in enumerate(names))
    return TaskPanel(tasks, tuple(names))


def findings(kind: type[gymnasium.Env], episodes: int = 6) -> list[str]:
    return environment_findings(panel(kind), max_steps=20, episodes=episodes, seed=0, env_kwargs={})


def test_a_sound_environment_has_no_findings():
    assert findings(Corridor) == []
    assert reset_findings(panel(Corridor), 20, {}) == []


@pytest.mark.parametrize("kind", REPORTED, ids=lambda kind: kind.__name__)
def test_each_fault_is_one_line_with_what_to_try(kind):
    """No other finding follows from it, except where one mistake breaks two promises."""
    lines = findings(kind)
    (line,) = [line for line in lines if REPORTED[kind] in line]
    assert f"{kind.__name__}" in line and "\n" not in line and line.count(". Try: ") == 1
    follows = {WonAndTruncated: 1, UnseededStart: 1}
    assert len(lines) <= 1 + follows.get(kind, 0), lines


def test_the_reset_alone_reports_what_a_reset_shows():
    shown = [kind for kind in REPORTED if reset_findings(panel(kind, seeds=1), 20, {})]
    assert shown == [
        NoTask,
        NumberAsTask,
        NoActions,
        ActionsAsTuple,
        NoInfo,
        NoFirstObservation,
        ResetWithoutInfo,
        NoStepLimit,
        OldReset,
        RaisesInReset,
        WrongCallInReset,
        RaisesInAnotherModule,
        RaisesInInit,
        RaisesInClose,
    ]


@pytest.mark.parametrize(
    ("kind", "source", "remedy"),
    [
        (RaisesInReset, 'return {"start": 1}', "correct {place}, so that reset(seed=0, options={{}}) returns"),
        (WrongCallInReset, 'super().reset(name="start")', "correct {place}, so that reset(seed=0"),
        (RaisesInAnotherModule, 'json.loads("no JSON")', "correct {place}, so that reset(seed=0"),
        (RaisesInInit, "max_steps // 0", "correct {place}, so that gymnasium.make('RaisesInInit-v0', max_steps=20)"),
        (RaisesOnAdmissibleActions, 'raise ConnectionError("no service")', "correct {place}, so that step('west')"),
        (RaisesOnUnknownActions, '{"east": 1, "west": -1}[action]', "answer what is not understood with an"),
        (RaisesInClose, 'raise OSError("closed twice")', "close() without an error"),
    ],
)
def test_an_exception_is_reported_with_its_line_and_a_remedy_that_fits(kind, source, remedy):
    number = next(number for number, line in enumerate(THIS.splitlines(), 1) if source in line)
    place = f"{__file__}:{number}"
    (line,) = findings(kind)
    assert f"({place})" in line
    assert f". Try: {remedy.format(place=place)}" in line


def test_tasks_that_raise_are_reported_with_their_line():
    def tasks(split):
        return {}[split]

    (line,) = panel_findings(tasks, "train")[1]
    assert f"raised KeyError: 'train' ({__file__}:" in line


def split_panel(names, hashes) -> TaskPanel:
    return TaskPanel(tuple(TaskSpec("Corridor-v0", name, "walk", 0) for name in names), tuple(hashes))


def test_tasks_that_are_in_both_splits():
    train = split_panel(["a", "b", "c"], ["1", "2", "3"])
    assert overlap_findings(train, split_panel(["d", "e"], ["4", "5"])) == []
    (same,) = overlap_findings(train, split_panel(["c", "e"], ["3", "5"]))
    assert same.startswith("1 of 2 held-out tasks have a task_id of a training task, for example 'c'")
    (renamed,) = overlap_findings(train, split_panel(["d", "e"], ["2", "3"]))
    assert renamed.startswith("2 of 2 held-out tasks have the content hash of a training task, for example '2'")
    assert same.count(". Try: ") == renamed.count(". Try: ") == 1


def test_tasks_that_are_no_panel():
    for tasks, reason in (
        (lambda split: [1], "is [1] (list), not a TaskPanel"),
        (lambda split: TaskPanel((), ()), "has no tasks"),
        (lambda split: {}[split], "raised KeyError: 'train'"),
    ):
        unusable, (line,) = panel_findings(tasks, "train")
        assert unusable is None and reason in line and ". Try: " in line


COMMAND = [sys.executable, "-m", "agent_system.environments.check_env"]
MODULE = """
import test_check_env as environments
from agent_system.plan_execute.prompts import PromptStyle
from agent_system.rollout.environment_registry import EnvironmentSpec

def spec(kind):
    tasks = lambda split: environments.panel(kind, name=split)
    return EnvironmentSpec("a corridor", PromptStyle.FLAT, PromptStyle.FLAT_COMPACT, tasks)

SOUND, WRONG = spec(environments.Corridor), spec(environments.OldStep)
SHARED = EnvironmentSpec(
    "a corridor", PromptStyle.FLAT, PromptStyle.FLAT_COMPACT, lambda split: environments.panel(environments.Corridor)
)
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "corridors.py").write_text(MODULE)
    paths = os.pathsep.join([str(folder), str(Path(__file__).parent), str(REPOSITORY)])
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, env=environment, cwd=folder)


def test_the_command(tmp_path):
    sound = run(tmp_path, "corridors:SOUND", "--episodes", "2")
    assert (sound.returncode, sound.stdout, sound.stderr) == (
        0,
        "corridors:SOUND: no findings in 2 episodes of each split\n",
        "",
    )
    wrong = run(tmp_path, "corridors:WRONG")
    assert wrong.returncode == 1 and wrong.stderr == ""
    (line,) = wrong.stdout.splitlines()
    assert line == f"test_check_env.OldStep.{REPORTED[OldStep]}"
    shared = run(tmp_path, "corridors:SHARED", "--episodes", "2")
    assert shared.returncode == 1
    assert shared.stdout.startswith("3 of 3 held-out tasks have a task_id of a training task") and shared.stderr == ""


def test_the_command_on_the_treasure_house(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(REPOSITORY / "tests" / "integration"))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with pytest.raises(SystemExit):
        main(["treasure_house:TREASURE_HOUSE", "--max-steps", "5", "--episodes", "16"])
    (line,) = capsys.readouterr().out.splitlines()  # it has few games, and validates on those that it trains on
    assert line.startswith("64 of 128 held-out tasks have a task_id of a training task, for example 'key-attic-0'")


def test_a_module_that_imports_torch(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(REPOSITORY / "tests" / "integration"))
    monkeypatch.setitem(sys.modules, "torch", object())
    with pytest.raises(SystemExit) as end:
        main(["treasure_house:TREASURE_HOUSE", "--max-steps", "5", "--episodes", "1"])
    assert end.value.code == 1 and "treasure_house imports torch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:GAME", "no_such_module cannot be imported"),
        ("json:GAME", "there is no EnvironmentSpec with tasks of that name"),
        ("game", "game cannot be imported"),
        (":GAME", "there is no EnvironmentSpec"),
    ],
)
def test_a_name_that_leads_nowhere(name, message):
    with pytest.raises(SystemExit, match=f"{message}.*Try: "):
        main([name])
