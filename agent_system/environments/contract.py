# SPDX-License-Identifier: Apache-2.0
"""Does an environment keep to the interface in `base`? Checks of one panel, one reset and one step.

Every finding is one line with the class, what is wrong, and what to try. `check_env` plays whole episodes with these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import Any

import gymnasium

import agent_system.environments  # noqa: F401  (registers the ids)
from agent_system.environments.base import TaskSpec
from agent_system.environments.env_worker import StepResult
from agent_system.environments.tasks import TaskPanel

SPLITS = ("train", "val")
"""What the function `tasks` of an EnvironmentSpec is called with."""
NO_ACTIONS = ("this is no action", "")
"""Replies of a model may hold such actions; an environment answers them with an observation."""


class Findings:
    """What is wrong, one line each; of several findings of one kind the first is kept."""

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}

    def add(self, kind: str, problem: str, remedy: str) -> None:
        """Record a finding.

        Args:
            kind: findings of the same kind are reported once.
            problem: what is wrong, where, and why it matters.
            remedy: what to change.
        """
        line = f"{problem}. Try: {remedy}"
        self._lines.setdefault(kind, " ".join(line.split()))

    @property
    def lines(self) -> list[str]:
        """The findings in the order in which they were made."""
        return list(self._lines.values())


def panel_findings(tasks: Callable[[str], TaskPanel], split: str) -> tuple[TaskPanel | None, list[str]]:
    """Ask a user's function for the tasks of a split.

    Returns:
        The panel, or None if it cannot be used, and the findings.
    """
    findings = Findings()
    name = f"{getattr(tasks, '__module__', '')}.{getattr(tasks, '__qualname__', tasks)}({split!r})"
    try:
        panel = tasks(split)
    except Exception as error:
        findings.add("tasks", f"{name} raised {described(error)}", "return a TaskPanel for 'train' and for 'val'")
        return None, findings.lines
    if not isinstance(panel, TaskPanel):
        findings.add("tasks", f"{name} is {shown(panel)}, not a TaskPanel", "return TaskPanel(tasks, content_hashes)")
    elif not len(panel) or not all(isinstance(task, TaskSpec) for task in panel.tasks):
        findings.add("tasks", f"{name} has no tasks, or tasks that are no TaskSpec", "add at least one TaskSpec")
    return (None if findings.lines else panel), findings.lines


def reset_findings(tasks: Iterable[TaskSpec], max_steps: int, env_kwargs: Mapping[str, Any]) -> list[str]:
    """What is wrong with the first reset of each task.

    Args:
        max_steps, env_kwargs: what the environments are made with in a run (`env.max_steps`, `env.kwargs`).
    """
    findings = Findings()
    for task in tasks:
        with opened(task, max_steps, env_kwargs, findings) as env:
            if env is not None:
                checked_reset(env, task, findings)
    return findings.lines


@contextmanager
def opened(
    task: TaskSpec, max_steps: int, env_kwargs: Mapping[str, Any], findings: Findings
) -> Iterator[gymnasium.Env[str, str] | None]:
    """The environment of a task, closed at the end; None if it cannot be made."""
    try:
        env = gymnasium.make(task.env_id, max_steps=max_steps, disable_env_checker=True, **env_kwargs)
    except Exception as error:
        findings.add(
            "make",
            f"gymnasium.make({task.env_id!r}, max_steps={max_steps}) of task {task.task_id} raised {described(error)}",
            "gymnasium.register(...) in your module, env_id='<module>:<id>', and max_steps among the arguments of "
            "__init__",
        )
        yield None
        return
    yield env
    try:
        env.close()
    except Exception as error:
        findings.add("close", f"{class_name(env)}.close raised {described(error)}", "close() without an error")


def checked_reset(env: gymnasium.Env, task: TaskSpec, findings: Findings) -> tuple[str, Mapping[str, Any]] | None:
    where = f"{class_name(env)}.reset"
    try:
        started = env.reset(seed=task.seed, options=dict(task.options))
    except Exception as error:
        findings.add(
            "reset",
            f"{where}(seed={task.seed}, options={dict(task.options)}) of task {task.task_id} raised {described(error)}",
            "def reset(self, *, seed=None, options=None), which accepts the options of every TaskSpec",
        )
        return None
    if not isinstance(started, tuple) or len(started) != 2:
        findings.add("reset", f"{where} returned {shown(started)}, not a pair", "return observation, info")
        return None
    sound = _check_observation(started[0], where, findings)
    return started if _check_info(started[1], where, findings) and sound else None


def checked_step(env: gymnasium.Env, action: str, findings: Findings) -> StepResult | None:
    """One step; None if what it returned cannot be used."""
    where = f"{class_name(env)}.step"
    try:
        returned = env.step(action)
    except Exception as error:
        is_admissible = action not in NO_ACTIONS
        findings.add(
            f"step {is_admissible}",
            f"{where}({action!r}) raised {described(error)}, which counts as a fault of the environment",
            "play every admissible action" if is_admissible else "answer what is not understood with an observation",
        )
        return None
    if not isinstance(returned, tuple) or len(returned) != 5:
        size = f"{len(returned)} values" if isinstance(returned, tuple) else shown(returned)
        findings.add(
            "tuple",
            f"{where} returned {size} instead of five",
            "return observation, reward, terminated, truncated, info",
        )
        return None
    observation, reward, terminated, truncated, info = returned
    result = StepResult(observation, reward, terminated, truncated, info)  # checked below
    sound = _check_observation(result.observation, where, findings)
    if isinstance(result.reward, bool) or not isinstance(result.reward, Real) or not math.isfinite(result.reward):
        findings.add("reward", f"{where} returned the reward {shown(result.reward)}", "reward=<finite float>")
        sound = False
    for name in ("terminated", "truncated"):
        if type(getattr(result, name)) is not bool:
            flag = shown(getattr(result, name))
            findings.add(name, f"{where} returned {name}={flag}, not a bool", f"{name}=bool({name})")
            sound = False
    sound = _check_info(result.info, where, findings, result) and sound
    return result if sound else None


def _check_observation(observation: Any, where: str, findings: Findings) -> bool:
    if not isinstance(observation, str):
        findings.add("observation", f"{where} returned the observation {shown(observation)}, not str", "return text")
    return isinstance(observation, str)


def _check_info(info: Any, where: str, findings: Findings, step: StepResult | None = None) -> bool:
    if not isinstance(info, Mapping):
        findings.add("info", f"{where} returned the info {shown(info)}, not a dict", "info={'task': ..., ...}")
        return False
    problems = list(_info_problems(info, step))
    for key, problem, remedy in problems:
        findings.add(f"info {key} {step is None}", f"{where}: {problem}", remedy)
    return not problems


def _info_problems(info: Mapping[str, Any], step: StepResult | None) -> Iterator[tuple[str, str, str]]:
    """Key, problem and remedy of every key of `info` that is missing or wrong."""
    terminated, ended = (step.terminated, step.terminated or step.truncated) if step else (False, False)

    def actions_fit(value: Any) -> bool:
        is_list = isinstance(value, list) and all(isinstance(action, str) for action in value)
        return is_list and bool(value or terminated)

    def is_number(value: Any) -> bool:
        return isinstance(value, Real) and not isinstance(value, bool)

    expected: dict[str, tuple[Callable[[Any], bool], str]] = {
        "task": (lambda value: isinstance(value, str), "str, the task in words"),
        "admissible_actions": (actions_fit, "non-empty list of str"),
    }
    if ended:
        expected["won"] = (lambda value: isinstance(value, bool), "bool")
        expected["score"] = (is_number, "float")
    for key, (fits, kind) in expected.items():
        when = " at the end of an episode" if key in ("won", "score") else ""
        if key not in info:
            yield key, f"info has no {key!r}{when}", f"info[{key!r}] = <{kind}>"
        elif not fits(info[key]):
            yield key, f"info[{key!r}] is {shown(info[key])}{when}", f"info[{key!r}] = <{kind}>"
    if ended and info.get("won") is True and not terminated:
        yield "won", "info['won'] is True, but terminated is False", "terminated=True where the task is accomplished"


def class_name(env: gymnasium.Env) -> str:
    kind = type(env.unwrapped)
    return f"{kind.__module__}.{kind.__qualname__}"


def shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:60] + '...'} ({type(value).__name__})"


def described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
