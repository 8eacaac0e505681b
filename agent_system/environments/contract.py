# SPDX-License-Identifier: Apache-2.0
"""Does an environment keep to the interface in `base`? Checks of one panel, one reset and one step.

Every finding is one line with the class, what is wrong, and what to try. `check_env` plays whole episodes with these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from traceback import walk_tb
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
    module = getattr(tasks, "__module__", "")
    name = f"{module}.{getattr(tasks, '__qualname__', tasks)}({split!r})"
    try:
        panel = tasks(split)
    except Exception as error:
        problem = f"{name} raised {described(error, module)}"
        findings.add("tasks", problem, "return a TaskPanel for 'train' and for 'val'")
        return None, findings.lines
    if not isinstance(panel, TaskPanel):
        findings.add("tasks", f"{name} is {shown(panel)}, not a TaskPanel", "return TaskPanel(tasks, content_hashes)")
    elif not len(panel) or not all(isinstance(task, TaskSpec) for task in panel.tasks):
        findings.add("tasks", f"{name} has no tasks, or tasks that are no TaskSpec", "add at least one TaskSpec")
    return (None if findings.lines else panel), findings.lines


def overlap_findings(train: TaskPanel, held_out: TaskPanel) -> list[str]:
    """What the panels of training and held-out tasks share: then the held-out result is not about new tasks."""
    findings = Findings()
    train_ids = {task.task_id for task in train.tasks}
    ids = [task.task_id for task in held_out.tasks if task.task_id in train_ids]
    if ids:
        findings.add(
            "ids",
            f"{len(ids)} of {len(held_out)} held-out tasks have a task_id of a training task, for example {ids[0]!r}, "
            "so that validation does not play new tasks",
            "other tasks for 'val' than for 'train', with ids of their own",
        )
    train_hashes = set(train.content_hashes)
    hashes = [content for content in held_out.content_hashes if content in train_hashes]
    if hashes and not ids:  # the same tasks usually share both
        findings.add(
            "hashes",
            f"{len(hashes)} of {len(held_out)} held-out tasks have the content hash of a training task, for example "
            f"{hashes[0]!r}, so that validation does not play new tasks",
            "other tasks for 'val' than for 'train', or content hashes of all that a task consists of",
        )
    return findings.lines


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
        call, module = f"gymnasium.make({task.env_id!r}, max_steps={max_steps})", _module_of(task.env_id)
        remedy = (
            "gymnasium.register(...) in your module, env_id='<module>:<id>', and max_steps among the arguments of "
            "__init__"
        )
        if raised_at(error, module):
            remedy = _corrected(error, module, call)
        findings.add("make", f"{call} of task {task.task_id} raised {described(error, module)}", remedy)
        yield None
        return
    yield env
    try:
        env.close()
    except Exception as error:
        problem = f"{class_name(env)}.close raised {described(error, type(env.unwrapped).__module__)}"
        findings.add("close", problem, "close() without an error")


def checked_reset(env: gymnasium.Env, task: TaskSpec, findings: Findings) -> tuple[str, Mapping[str, Any]] | None:
    where = f"{class_name(env)}.reset"
    try:
        started = env.reset(seed=task.seed, options=dict(task.options))
    except Exception as error:
        module = type(env.unwrapped).__module__
        remedy = "def reset(self, *, seed=None, options=None), which accepts the options of every TaskSpec"
        if not _is_about_arguments(error, "reset", module):
            remedy = _corrected(error, module, f"reset(seed={task.seed}, options={dict(task.options)})")
        findings.add(
            "reset",
            f"{where}(seed={task.seed}, options={dict(task.options)}) of task {task.task_id} raised "
            f"{described(error, module)}",
            remedy,
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
        is_admissible, module = action not in NO_ACTIONS, type(env.unwrapped).__module__
        kind = f"step {is_admissible}"
        if _is_about_arguments(error, "step", module):
            kind, remedy = "step arguments", "def step(self, action), with the action as text"
        elif is_admissible:
            remedy = _corrected(error, module, f"step({action!r})")
        else:
            remedy = "answer what is not understood with an observation"
        findings.add(
            kind,
            f"{where}({action!r}) raised {described(error, module)}, which counts as a fault of the environment",
            remedy,
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


def described(error: Exception, module: str) -> str:
    """The exception, with the innermost line of the module that led to it, where there is one."""
    place = raised_at(error, module)
    return f"{type(error).__name__}: {error}" + (f" ({place})" if place else "")


def raised_at(error: Exception, module: str) -> str | None:
    """ "file:line" of the innermost frame of an exception in `module` or a module of the same package.

    None where the exception never passed through one: for example a call with arguments that do not fit.
    """
    package = module.partition(".")[0]
    cause: BaseException | None = error
    while cause is not None:  # gymnasium.make raises another exception from the one of the environment
        places = [
            f"{frame.f_code.co_filename}:{line}"
            for frame, line in walk_tb(cause.__traceback__)
            if frame.f_globals.get("__name__", "").partition(".")[0] == package and frame.f_globals is not globals()
        ]
        if places:
            return places[-1]
        cause = cause.__cause__ or cause.__context__
    return None


def _is_about_arguments(error: Exception, method: str, module: str) -> bool:
    """Whether a call of the method failed because its parameters are others: Python raises that in the caller."""
    return isinstance(error, TypeError) and f"{method}() " in str(error) and raised_at(error, module) is None


def _corrected(error: Exception, module: str, call: str) -> str:
    place = raised_at(error, module)
    return f"correct {place}, so that {call} returns" if place else f"{call} without an error"


def _module_of(env_id: str) -> str:
    """The module that an id `module:Name-v0` names; that of the registered class for a plain `Name-v0`."""
    name, colon, _ = env_id.partition(":")
    if colon:
        return name
    spec = gymnasium.registry.get(env_id)
    entry = spec.entry_point if spec else None
    return entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
