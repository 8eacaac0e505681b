# SPDX-License-Identifier: Apache-2.0
"""Demonstrations in a shop: what careless shoppers reply, as `demonstrations` has it for ALFWorld.

The shoppers know how a purchase is made. They often buy before every option is chosen, open any product instead of the
one that fits, and read pages that serve nothing: habits that a model takes over together with the skill, and that
reinforcement learning can remove. Slips are executed but are not training targets. Workers import no torch.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from agent_system.environments.webshop.compact import compact_links, compact_text, to_site_action
from agent_system.environments.webshop.env import WebShopEnv
from agent_system.environments.webshop.goals import Goals, Split
from agent_system.environments.webshop.shop import open_shop
from agent_system.environments.webshop.shopper import BUY, FIND, Shopper
from agent_system.plan_execute.advice import Advice
from agent_system.plan_execute.prompts import WEBSHOP, PromptStyle
from agent_system.plan_execute.protocol import SWITCH
from recipe.hiper.cold_start.demonstrations import Demonstration, demonstrator, gather, play_episode, random_slips

_AT_ONCE = 32


@dataclass(frozen=True)
class ShopDemonstrationSpec:
    """How demonstrations are played.

    Args:
        episodes: number of episodes, each on a goal that is drawn.
        max_turns: turns after which an episode is cut.
        history_length, history_observations: earlier turns in a prompt, see `EpisodeMemory`.
        hasty, blind, curious: see `Shopper`.
        renamed: share of episodes in which option values are exchanged among all values of the shop, in tasks, pages
            and replies alike. Otherwise a small model guesses the commonest value instead of reading the task.
        slips: share of turns on which a random admissible action is executed instead of the shopper's.
        wrong_subgoals: share of turns after which a wrong sub-goal is in force.
        style: of prompts and replies. The episodes do not depend on it.
        seed: any integer.
    """

    episodes: int = 6000
    max_turns: int = 10
    history_length: int = 0
    history_observations: int | None = None
    hasty: float = 0.4
    blind: float = 0.2
    curious: float = 0.1
    renamed: float = 0.5
    slips: float = 0.1
    wrong_subgoals: float = 0.03
    style: PromptStyle = PromptStyle.PLAN_EXECUTE_COMPACT
    seed: int = 0

    observation_mode: ClassVar[str] = "compact"
    """The text of a page that the model reads. The episodes do not depend on it."""


@dataclass(frozen=True)
class PageDemonstrationSpec(ShopDemonstrationSpec):
    """The same with the published text of the pages, for a pretrained model. It knows the words of options already.

    It learns from a tenth of the episodes, so fewer of their turns are spent on habits: docs/dev/learning.md, the shop.
    """

    episodes: int = 600
    hasty: float = 0.2
    blind: float = 0.05
    curious: float = 0.05
    renamed: float = 0.0
    slips: float = 0.05

    observation_mode: ClassVar[str] = "page"


def collect_in_shop(
    shop: Path, part: str, spec: ShopDemonstrationSpec, *, workers: int, progress: bool
) -> list[Demonstration]:
    """Plays `spec.episodes` episodes. The result depends on the shop, the part and the spec only.

    Args:
        shop: a prepared shop.
        part: the split whose synthetic goals are played, "train" or "eval".
        workers: processes; they change the speed only.
        progress: whether a progress bar is drawn on standard error.
    """
    numbers = range(spec.episodes)
    jobs = [(shop, part, numbers[first : first + _AT_ONCE], spec) for first in range(0, spec.episodes, _AT_ONCE)]
    return gather(_demonstrate_some, jobs, spec.episodes, workers=workers, progress=progress)


def collect_for_split(
    shop: Path, split: str, spec: ShopDemonstrationSpec, *, workers: int, progress: bool
) -> list[Demonstration]:
    """`collect_in_shop` for the split "train" or "held_out" of a cold start."""
    part = "train" if split == "train" else "eval"
    return collect_in_shop(shop, part, spec, workers=workers, progress=progress)


def _demonstrate_some(job: tuple[Path, str, range, ShopDemonstrationSpec]) -> list[Demonstration]:
    shop, part, numbers, spec = job
    return [_demonstrate(shop, part, number, spec) for number in numbers]


def _demonstrate(shop: Path, part: str, number: int, spec: ShopDemonstrationSpec) -> Demonstration:
    rng = random.Random(f"{spec.seed}/{number}")
    env = _environment(shop, spec.max_turns, spec.observation_mode)
    goal = rng.choice(open_shop(shop).ranges(Goals.SYNTHETIC, Split.FIXED)[part])
    start = env.reset(options={"goal_index": goal})
    shopper = Shopper(start[1]["task"], rng, hasty=spec.hasty, blind=spec.blind, curious=spec.curious)

    def advise(_observation: str, _admissible: Sequence[str], subgoal: str) -> Advice:
        """The shopper reads the short text of a page, whatever the model reads."""
        links = [f"click[{text}]" for text in compact_links(env.site)]
        advice = shopper.advise(compact_text(env.site), links, subgoal)
        if env.observation_mode == "compact":
            return advice
        return replace(advice, action=to_site_action(env.site, advice.action))

    def reply(advice: Advice) -> str:
        if rng.random() < spec.wrong_subgoals:
            return Advice(SWITCH, rng.choice((FIND, BUY)), advice.action).reply
        return advice.reply

    return play_episode(
        env,
        start,
        demonstrator(spec, WEBSHOP),
        advise,
        act=random_slips(rng, spec.slips),
        reply=reply,
        written=_renaming(shop, rng) if rng.random() < spec.renamed else str,
    )


@dataclass(frozen=True)
class ShopNames:
    """Names and values of the options of a shop, each sorted; of the values those that hold letters."""

    groups: tuple[str, ...]
    values: tuple[str, ...]


@lru_cache(maxsize=1)
def shop_names(shop: Path) -> ShopNames:
    """The names of a prepared shop."""
    catalogue = open_shop(shop)
    groups: set[str] = set()
    values: set[str] = set()
    for number in range(len(catalogue)):
        product = catalogue.product(number)
        groups.update(product.options)
        values.update(value for group in product.options.values() for value in group if re.search("[a-z]", value))
    return ShopNames(tuple(sorted(groups)), tuple(sorted(values)))


def _renaming(shop: Path, rng: random.Random) -> Callable[[str], str]:
    """Exchanges values at random, the same way in every text."""
    names = shop_names(shop)
    values = dict(zip(names.values, rng.sample(names.values, len(names.values)), strict=True))
    pattern = _values_pattern(shop)

    return lambda text: pattern.sub(lambda match: values[match[0]], text) if values else text


@lru_cache(maxsize=1)
def _values_pattern(shop: Path) -> re.Pattern[str]:
    longest_first = sorted(shop_names(shop).values, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")


@lru_cache(maxsize=1)
def _environment(shop: Path, max_turns: int, observation_mode: str) -> WebShopEnv:
    return WebShopEnv(shop, max_steps=max_turns, observation_mode=observation_mode)
