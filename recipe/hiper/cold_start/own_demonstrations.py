# SPDX-License-Identifier: Apache-2.0
"""Demonstrations in an environment of the user's own, which brings a scripted player (`EnvironmentSpec.player`).

As in `demonstrations`, some executed actions are not the player's: the model also sees how to continue after a mistake,
and is not taught to make it. Workers import no torch.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium

from agent_system.environments.base import TaskSpec
from agent_system.environments.tasks import TaskPanel, epoch_order
from agent_system.plan_execute.prompts import PromptStyle
from agent_system.rollout.environment_registry import environment_spec
from recipe.hiper.cold_start.demonstrations import Demonstration, demonstrator, gather, play_episode, random_slips

_AT_ONCE = 8


@dataclass(frozen=True)
class OwnDemonstrationSpec:
    """How demonstrations are played.

    Args:
        episodes: number of episodes; tasks are played in turn, in a cycle.
        max_turns: turns after which an episode is cut.
        history_length, history_observations: earlier turns in a prompt, see `EpisodeMemory`.
        slips: share of turns on which a random admissible action is executed instead of the player's.
        style: of prompts and replies.
        seed: any integer.
    """

    episodes: int = 400
    max_turns: int = 20
    history_length: int = 1
    history_observations: int | None = None
    slips: float = 0.1
    style: PromptStyle = PromptStyle.PLAN_EXECUTE_COMPACT
    seed: int = 0


def collect_with_player(
    env_name: str,
    env_kwargs: Mapping[str, Any],
    panels: Mapping[str, TaskPanel],
    split: str,
    spec: OwnDemonstrationSpec,
    *,
    workers: int,
    progress: bool,
) -> list[Demonstration]:
    """Play `spec.episodes` episodes on the tasks of `panels[split]`. The result depends on these and the spec only.

    Args:
        env_name: `module:NAME` of an `EnvironmentSpec` with a player.
        env_kwargs: passed to `gymnasium.make` besides the step limit.
        workers: processes; they change the speed only.
        progress: whether a progress bar is drawn on standard error.
    """
    tasks = epoch_order(panels[split], spec.seed, epoch=0)
    numbers = range(spec.episodes)
    jobs = [
        (env_name, [tasks[number % len(tasks)] for number in some], some, spec, dict(env_kwargs))
        for some in (numbers[first : first + _AT_ONCE] for first in range(0, spec.episodes, _AT_ONCE))
    ]
    return gather(_demonstrate_some, jobs, spec.episodes, workers=workers, progress=progress)


def _demonstrate_some(job: tuple[str, list[TaskSpec], range, OwnDemonstrationSpec, dict]) -> list[Demonstration]:
    env_name, tasks, numbers, spec, kwargs = job
    played = zip(tasks, numbers, strict=True)
    return [_demonstrate(env_name, task, number, spec, kwargs) for task, number in played]


def _demonstrate(
    env_name: str, task: TaskSpec, number: int, spec: OwnDemonstrationSpec, kwargs: Mapping[str, Any]
) -> Demonstration:
    rng = random.Random(f"{spec.seed}/{number}")
    of_user = environment_spec(env_name)
    assert of_user.player is not None  # the caller checks it
    env = gymnasium.make(task.env_id, max_steps=spec.max_turns, disable_env_checker=True, **kwargs)
    start = env.reset(seed=task.seed, options=dict(task.options))
    player = of_user.player(start[1]["task"], rng)
    agent = demonstrator(spec, of_user.environment)
    demonstration = play_episode(env, start, agent, player.advise, act=random_slips(rng, spec.slips))
    env.close()
    return demonstration
