# SPDX-License-Identifier: Apache-2.0
"""Check an environment of your own before training in it: `python -m agent_system.environments.check_env module:NAME`.

`NAME` is the EnvironmentSpec (docs/extending.md), or a function of the split that returns its tasks. Episodes are
played with random admissible actions. Every finding is one line that ends with what to try; the exit code is 1 if there
are findings. Neither torch nor a model is loaded.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import isfunction
from typing import Any

import gymnasium

from agent_system.environments.base import TaskSpec
from agent_system.environments.contract import (
    NO_ACTIONS,
    SPLITS,
    Findings,
    checked_reset,
    checked_step,
    class_name,
    opened,
    overlap_findings,
    panel_findings,
)
from agent_system.environments.env_worker import StepResult
from agent_system.environments.tasks import TaskPanel
from agent_system.plan_execute.prompts import BLANK

Start = tuple[str, Mapping[str, Any]]
"""Observation and info of a reset."""


def environment_findings(
    panel: TaskPanel, *, max_steps: int, episodes: int, seed: int, env_kwargs: Mapping[str, Any]
) -> list[str]:
    """What is wrong with the environment of a panel, from episodes with random admissible actions.

    Args:
        max_steps: step limit of the episodes.
        episodes: number of tasks that are played, from the first one on.
        seed: of the choice of actions.
        env_kwargs: further arguments of `gymnasium.make`.
    """
    findings, rng = Findings(), random.Random(seed)
    for number in range(episodes):
        _check_task(panel[number % len(panel)], max_steps, env_kwargs, rng, findings)
    return findings.lines


def _check_task(
    task: TaskSpec, max_steps: int, env_kwargs: Mapping[str, Any], rng: random.Random, findings: Findings
) -> None:
    """Play the task; reset it again; try actions that are none; play again with a lower step limit."""
    steps: list[tuple[str, StepResult]] = []
    with opened(task, max_steps, env_kwargs, findings) as env:
        start = checked_reset(env, task, findings) if env is not None else None
        if env is None or start is None:
            return
        steps = _play(env, start[1]["admissible_actions"], max_steps, rng, findings)
        again = checked_reset(env, task, findings)
        _check_start(env, task, start, again, findings)
        for action in NO_ACTIONS:
            checked_step(env, action, findings)
            checked_reset(env, task, findings)
    if len(steps) > 1:
        _check_limit(task, start, steps, env_kwargs, findings)


def _play(
    env: gymnasium.Env, actions: list[str], max_steps: int, rng: random.Random, findings: Findings
) -> list[tuple[str, StepResult]]:
    """Random admissible actions up to the end of the episode. Empty if a step could not be read."""
    steps: list[tuple[str, StepResult]] = []
    while len(steps) < max_steps:
        action = BLANK.sub("something", rng.choice(actions))
        result = checked_step(env, action, findings)
        if result is None:
            return []
        steps.append((action, result))
        if result.terminated or result.truncated:
            break
        actions = result.info["admissible_actions"]
    last = steps[-1][1]
    if not last.terminated and not last.truncated:
        findings.add(
            "limit",
            f"{class_name(env)} made with max_steps={max_steps} does not end after {max_steps} steps",
            "truncated=True once max_steps actions were played",
        )
        return []
    if last.truncated and not last.terminated and len(steps) < max_steps:
        findings.add(
            "early",
            f"{class_name(env)} made with max_steps={max_steps} is truncated after {len(steps)} steps, but only the "
            "step limit truncates",
            "terminated=True where the task itself ends",
        )
    return steps


def _check_start(env: gymnasium.Env, task: TaskSpec, start: Start, again: Start | None, findings: Findings) -> None:
    if again is not None and _seen(*again) != _seen(*start):
        findings.add(
            "seed",
            f"{class_name(env)}.reset(seed={task.seed}) of task {task.task_id} returned another observation or info "
            "the second time, so that episodes of one task cannot be compared",
            "super().reset(seed=seed), take every random number from self.np_random, and reset all state",
        )


def _check_limit(
    task: TaskSpec,
    start: Start,
    steps: list[tuple[str, StepResult]],
    env_kwargs: Mapping[str, Any],
    findings: Findings,
) -> None:
    """The same actions in a new environment with a step limit within the episode: the same outcomes, then truncated."""
    limit = len(steps) // 2
    with opened(task, limit, env_kwargs, findings) as env:
        again = checked_reset(env, task, findings) if env is not None else None
        if env is None or again is None:
            return
        _check_start(env, task, start, again, findings)
        result = None
        for number, (action, expected) in enumerate(steps[:limit], 1):
            result = checked_step(env, action, findings)
            if result is None:
                return
            if number < limit and _outcome(result) != _outcome(expected):
                findings.add(
                    "determinism",
                    f"{class_name(env)}: the same seed and actions return something else at step {number} of task "
                    f"{task.task_id}, so that an episode cannot be played again",
                    "take every random number from self.np_random",
                )
                return
        assert result is not None  # the limit is 1 at least
        if result.terminated or not result.truncated:
            findings.add(
                "honesty",
                f"{class_name(env)} made with max_steps={limit} returns terminated={result.terminated}, "
                f"truncated={result.truncated} at step {limit}, although with a higher limit the same actions do not "
                "end the episode",
                "terminated=False, truncated=True where the step limit cuts a running episode",
            )


def _seen(observation: str, info: Mapping[str, Any]) -> tuple[Any, ...]:
    """What the agent sees."""
    return observation, info["task"], info["admissible_actions"]


def _outcome(result: StepResult) -> tuple[Any, ...]:
    """What the agent sees and learns from."""
    return *_seen(result.observation, result.info), result.reward, result.terminated, result.truncated


def load_tasks(name: str) -> Callable[[str], TaskPanel]:
    """The function `tasks` of the EnvironmentSpec `module:NAME`, or that function itself.

    Raises:
        SystemExit: there is no such module, or nothing of the kind in it.
    """
    module_name, _, attribute = name.partition(":")
    try:
        module = import_module(module_name) if module_name else None
    except ImportError as error:
        sys.exit(f"{name}: {module_name} cannot be imported ({error}). Try: PYTHONPATH=<folder of the module>")
    # Not checked by class: EnvironmentSpec belongs to the rollout, which is built on the environments.
    named = getattr(module, attribute, None)
    tasks = named if isfunction(named) else getattr(named, "tasks", None)
    if not callable(tasks):
        sys.exit(f"{name}: there is no EnvironmentSpec with tasks of that name. Try: <module>:<NAME>")
    return tasks


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="module:NAME", help="an EnvironmentSpec, as in env.env_name, or a function")
    parser.add_argument("--max-steps", type=int, default=20, help="step limit of the episodes (default: 20)")
    parser.add_argument("--episodes", type=int, default=8, help="tasks of each split that are played (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the actions (default: 0)")
    parser.add_argument("--kwargs", type=json.loads, default={}, help="env.kwargs as JSON (default: {})")
    options = parser.parse_args(arguments)
    lines: list[str] = []
    tasks = load_tasks(options.name)
    panels: list[TaskPanel] = []
    for split in SPLITS:
        panel, findings = panel_findings(tasks, split)
        lines += findings
        panels += [panel] if panel is not None else []
        if panel is not None:
            lines += environment_findings(
                panel,
                max_steps=options.max_steps,
                episodes=options.episodes,
                seed=options.seed,
                env_kwargs=options.kwargs,
            )
    if len(panels) == len(SPLITS):
        lines += overlap_findings(*panels)
    if "torch" in sys.modules:
        module = options.name.partition(":")[0]
        lines.append(f"{module} imports torch, which every environment process would load. Try: import it elsewhere")
    for line in dict.fromkeys(lines):
        print(line)
    if lines:
        sys.exit(1)
    print(f"{options.name}: no findings in {options.episodes} episodes of each split")


if __name__ == "__main__":
    main()
