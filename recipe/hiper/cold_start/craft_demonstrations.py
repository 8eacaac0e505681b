# SPDX-License-Identifier: Apache-2.0
"""Demonstrations in TextCraft: what players of mixed care reply, as `demonstrations` has it for ALFWorld.

The players know how every item is made. On some turns they look at the inventory, which the page shows already, and
before some sub-goals they make something that the goal does not need: habits that a model takes over together with the
skill, one in actions and one in sub-goals, and that reinforcement learning can remove. Slips are executed but are not
training targets. Workers import no torch.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gymnasium

from agent_system.environments.base import TaskSpec
from agent_system.environments.tasks import TaskPanel, epoch_order
from agent_system.environments.textcraft import SETTING
from agent_system.environments.textcraft.player import Crafter
from agent_system.environments.textcraft.recipes import recipe_book
from agent_system.plan_execute.advice import Advice
from agent_system.plan_execute.protocol import SWITCH
from recipe.hiper.cold_start.demonstrations import Demonstration, demonstrator, gather, play_episode, random_slips
from recipe.hiper.cold_start.own_demonstrations import OwnDemonstrationSpec

_AT_ONCE = 32


@dataclass(frozen=True)
class CraftDemonstrationSpec(OwnDemonstrationSpec):
    """How demonstrations are played. Further arguments as `OwnDemonstrationSpec`.

    Args:
        idle, distracted: see `Crafter`.
        renamed: share of episodes in which the names of items are exchanged among all items, in tasks, observations,
            actions and replies alike. Otherwise a small model learns the recipes of the training goals by heart instead
            of reading the commands. Materials and the items that they stand for keep their names.
        wrong_subgoals: share of turns after which a wrong sub-goal is in force.
    """

    episodes: int = 6000
    max_turns: int = 36
    history_length: int = 0
    idle: float = 0.15
    distracted: float = 0.3
    renamed: float = 0.5
    wrong_subgoals: float = 0.03


def pretrained_demonstrations() -> CraftDemonstrationSpec:
    """For a pretrained model, which reads already and learns from few episodes: fewer habits and no other names."""
    return CraftDemonstrationSpec(episodes=400, idle=0.05, distracted=0.15, renamed=0.0, slips=0.05)


def collect_crafting(
    panels: Mapping[str, TaskPanel],
    env_kwargs: Mapping[str, Any],
    split: str,
    spec: CraftDemonstrationSpec,
    *,
    workers: int,
    progress: bool,
) -> list[Demonstration]:
    """Play `spec.episodes` episodes on the tasks of `panels[split]`. The result depends on these and the spec only.

    Args:
        env_kwargs: passed to `gymnasium.make` besides the step limit.
        workers: processes; they change the speed only.
        progress: whether a progress bar is drawn on standard error.
    """
    numbers = range(spec.episodes)
    tasks: list[TaskSpec] = []
    while len(tasks) < spec.episodes:
        tasks += epoch_order(panels[split], spec.seed, epoch=len(tasks) // len(panels[split]))
    jobs = [
        (tasks[first : first + _AT_ONCE], numbers[first : first + _AT_ONCE], spec, dict(env_kwargs))
        for first in range(0, spec.episodes, _AT_ONCE)
    ]
    return gather(_demonstrate_some, jobs, spec.episodes, workers=workers, progress=progress)


def _demonstrate_some(job: tuple[list[TaskSpec], range, CraftDemonstrationSpec, dict[str, Any]]) -> list[Demonstration]:
    tasks, numbers, spec, kwargs = job
    return [demonstrate(task, number, spec, kwargs) for task, number in zip(tasks, numbers, strict=False)]


def demonstrate(task: TaskSpec, number: int, spec: CraftDemonstrationSpec, kwargs: Mapping[str, Any]) -> Demonstration:
    """Play one task. The episode depends on the task, the spec and its number among the demonstrations."""
    rng = random.Random(f"{spec.seed}/{number}")
    env = gymnasium.make(task.env_id, max_steps=spec.max_turns, disable_env_checker=True, **kwargs)
    start = env.reset(seed=task.seed, options=dict(task.options))
    player = Crafter(start[1]["task"], rng, idle=spec.idle, distracted=spec.distracted)

    def reply(advice: Advice) -> str:
        if rng.random() < spec.wrong_subgoals:
            return Advice(SWITCH, rng.choice(player.subgoals), advice.action).reply
        return advice.reply

    demonstration = play_episode(
        env,
        start,
        demonstrator(spec, SETTING),
        player.advise,
        act=random_slips(rng, spec.slips),
        reply=reply,
        written=_renaming(rng) if rng.random() < spec.renamed else str,
    )
    env.close()
    return demonstration


@lru_cache(maxsize=1)
def exchanged_names() -> tuple[str, ...]:
    """The names that are exchanged, sorted: all items but those that a material may be."""
    book = recipe_book()
    kept = {item for members in book.materials.values() for item in members}
    return tuple(sorted(book.items - kept))


def _renaming(rng: random.Random) -> Callable[[str], str]:
    """Exchanges names at random, the same way in every text."""
    names = exchanged_names()
    renamed = dict(zip(names, rng.sample(names, len(names)), strict=True))
    pattern = _names_pattern()
    return lambda text: pattern.sub(lambda match: renamed.get(match[0], match[0]), text)


@lru_cache(maxsize=1)
def _names_pattern() -> re.Pattern[str]:
    """Any name of an item, the longest first: those that are kept as well, so that no part of them is exchanged."""
    longest_first = sorted(recipe_book().items, key=lambda name: (-len(name), name))
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
