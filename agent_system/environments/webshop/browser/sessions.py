# SPDX-License-Identifier: Apache-2.0
"""One person's, or one recorded agent's, visit to the shop: an episode of the environment and what was done in it."""

from __future__ import annotations

import copy
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agent_system.environments.base import is_admissible
from agent_system.environments.webshop.env import WebShopEnv
from agent_system.environments.webshop.goals import Goal, Goals, Split
from agent_system.environments.webshop.products import Product
from agent_system.environments.webshop.reward import Score
from agent_system.environments.webshop.shop import Shop, open_shop
from agent_system.environments.webshop.site import Page, Site
from agent_system.errors import HiPERError

MOST_ACTIONS = 1000
"""Actions of one visit. An agent has far fewer; a person should not run into a limit, and a visit not grow for ever."""


class UnknownVisit(HiPERError):
    """There is no visit of that name, or it had to make room."""


@dataclass(frozen=True)
class ShopSetting:
    """Which goals of which shop.

    Attributes:
        folder: of the prepared shop.
        seed: of the worker that is imitated; counts under `legacy` only.
        show_attributes: whether items have the page "Attributes".
    """

    folder: Path
    goals: Goals = Goals.SYNTHETIC
    split: Split = Split.FIXED
    seed: int = 0
    show_attributes: bool = False

    @property
    def shop(self) -> Shop:
        """The opened shop, one per process.

        Raises:
            ConfigError: there is no complete shop of this version in the folder.
        """
        return open_shop(self.folder.expanduser().absolute())


@dataclass(frozen=True)
class Played:
    """One action of a visit.

    Attributes:
        action: as written.
        admissible: whether it was one of the admissible actions of its page.
        changed: whether it changed anything. A search is carried out even where it is not listed as admissible.
    """

    action: str
    admissible: bool
    changed: bool


@dataclass(frozen=True)
class Check:
    """Something the goal asked for, and whether the purchase has it."""

    wanted: str
    met: bool


@dataclass(frozen=True)
class Receipt:
    """A purchase beside what the goal asked for.

    Attributes:
        bought, chosen, price: the product, the value chosen in each option group, what was paid in dollars.
        attributes, options: the parts of the goal, each judged by the rules of the score.
    """

    goal: Goal
    bought: Product
    chosen: Mapping[str, str]
    price: float
    score: Score
    attributes: tuple[Check, ...]
    options: tuple[Check, ...]


class Visit:
    """An episode, played one action at a time.

    Raises:
        TaskError: there is no goal of that index.
        ConfigError: the shop cannot be opened.
    """

    def __init__(self, setting: ShopSetting, index: int) -> None:
        self.setting = setting
        self._env = WebShopEnv(
            setting.folder,
            goals=setting.goals.value,
            split=setting.split.value,
            seed=setting.seed,
            max_steps=MOST_ACTIONS,
            show_attributes=setting.show_attributes,
        )
        self._env.reset(options={"goal_index": index})
        self.goal = setting.shop.goal(setting.goals, setting.split, setting.seed, index)
        self.played: list[Played] = []
        self.score: Score | None = None

    @property
    def site(self) -> Site:
        """The pages."""
        return self._env.site

    @property
    def admissible(self) -> list[str]:
        """What an agent is told it can do here."""
        return self._env.admissible_actions()

    @property
    def over(self) -> bool:
        """Whether nothing more can be done."""
        return self.site.state.page is Page.DONE or len(self.played) >= MOST_ACTIONS

    def act(self, action: str) -> None:
        """Play an action; `played[-1]` says what came of it.

        Raises:
            ResetNeeded: the visit is over.
        """
        admissible = is_admissible(action, self.admissible)
        before = copy.deepcopy(self.site.state)
        info = self._env.step(action)[-1]
        self.played.append(Played(action, admissible, changed=self.site.state != before))
        if "reward_details" in info:
            self.score = Score(**info["reward_details"])

    def receipt(self) -> Receipt | None:
        """What was bought and how it is scored; None before the purchase."""
        if self.score is None:
            return None
        bought = self.site.state.item
        setting, goal = self.setting, self.goal
        table = setting.shop.goals(setting.goals, setting.split, setting.seed)
        pairs = goal.options.items() if isinstance(goal.options, Mapping) else [("", value) for value in goal.options]
        return Receipt(
            goal=goal,
            bought=self.site.item,
            chosen=dict(self.site.state.options),
            price=float(table.price[bought]),
            score=self.score,
            attributes=tuple(
                Check(wanted, self._score_of(replace(goal, attributes=(wanted,), options={})).attributes == 1.0)
                for wanted in goal.attributes
            ),
            options=tuple(
                Check(
                    f"{name}: {value}" if name else value,
                    self._score_of(
                        replace(goal, attributes=(), options={name: value} if name else (value,))
                    ).options == 1.0,
                )
                for name, value in pairs
            ),
        )  # fmt: skip

    def _score_of(self, goal: Goal) -> Score:
        # A goal with one part only: how the score's own rules judge that part.
        setting, state = self.setting, self.site.state
        return setting.shop.score(setting.goals, setting.split, setting.seed, goal, state.item, state.options)


class Visits:
    """The visits that are going on, by name. Only the `most` last used ones are kept."""

    def __init__(self, setting: ShopSetting, most: int) -> None:
        self._setting = setting
        self._most = most
        self._visits: OrderedDict[str, Visit] = OrderedDict()

    def begin(self, index: int) -> str:
        """Start a visit for a goal; returns its name, which nobody can guess.

        Raises:
            TaskError: there is no goal of that index.
        """
        visit = Visit(self._setting, index)
        name = f"{index}-{secrets.token_urlsafe(12)}"
        self._visits[name] = visit
        while len(self._visits) > self._most:
            self._visits.popitem(last=False)
        return name

    def get(self, name: str) -> Visit:
        """A visit, which thereby becomes the one used last.

        Raises:
            UnknownVisit: it is not kept.
        """
        if name not in self._visits:
            raise UnknownVisit(
                f"This visit is not kept any more: the server was started again, or more than {self._most} visits were "
                "begun after it was last used."
            )
        self._visits.move_to_end(name)
        return self._visits[name]
