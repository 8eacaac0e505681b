# SPDX-License-Identifier: Apache-2.0
"""Sessions: an episode of the environment, played by a person or replayed from a record, and its history of actions."""

from __future__ import annotations

import copy
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from agent_system.environments.webshop.env import WebShopEnv
from agent_system.environments.webshop.goals import Goal, Goals, Split
from agent_system.environments.webshop.products import Product
from agent_system.environments.webshop.reward import Score
from agent_system.environments.webshop.shop import Shop, open_shop
from agent_system.environments.webshop.site import Page, Site
from agent_system.errors import HiPERError
from agent_system.plan_execute.admissible import is_admissible

MAX_ACTIONS = 1000
"""Actions of one session. An agent has far fewer; a person should not reach a limit, and a session must not grow
without bound."""


class SessionNotFound(HiPERError):
    """There is no session of that id; it may have been dropped to make room."""


@dataclass(frozen=True)
class ShopSetting:
    """Which goals of which shop.

    Attributes:
        folder: of the prepared shop.
        seed: of the imitated worker; counts under `legacy` only.
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
class PlayedAction:
    """One action of a session.

    Attributes:
        action: as written.
        admissible: whether it was one of the admissible actions of its page.
        changed: whether it changed the page. A search is carried out even where it is not listed as admissible.
    """

    action: str
    admissible: bool
    changed: bool


@dataclass(frozen=True)
class Requirement:
    """One attribute or option that the goal requires, and whether the purchase has it."""

    text: str
    met: bool


@dataclass(frozen=True)
class Receipt:
    """A purchase compared with the goal.

    Attributes:
        bought, chosen, price: the product, the value chosen in each option group, the price paid in dollars.
        attributes, options: the requirements of the goal, each judged by the rules of the score.
    """

    goal: Goal
    bought: Product
    chosen: Mapping[str, str]
    price: float
    score: Score
    attributes: tuple[Requirement, ...]
    options: tuple[Requirement, ...]


class ShopSession:
    """An episode, played one action at a time.

    Raises:
        TaskError: there is no goal of that index.
        ConfigError: the shop cannot be opened.
    """

    def __init__(self, setting: ShopSetting, goal_index: int) -> None:
        self.setting = setting
        self._env = WebShopEnv(
            setting.folder,
            goals=setting.goals.value,
            split=setting.split.value,
            seed=setting.seed,
            max_steps=MAX_ACTIONS,
            show_attributes=setting.show_attributes,
        )
        self._env.reset(options={"goal_index": goal_index})
        self.goal = setting.shop.goal(setting.goals, setting.split, setting.seed, goal_index)
        self.history: list[PlayedAction] = []
        self.score: Score | None = None

    @property
    def site(self) -> Site:
        """The pages."""
        return self._env.site

    @property
    def admissible(self) -> list[str]:
        """The admissible actions that an agent sees on this page."""
        return self._env.admissible_actions()

    @property
    def is_over(self) -> bool:
        """Whether no further action is possible."""
        return self.site.state.page is Page.DONE or len(self.history) >= MAX_ACTIONS

    def act(self, action: str) -> None:
        """Play an action and add it to the history.

        Raises:
            ResetNeeded: the session is over.
        """
        admissible = is_admissible(action, self.admissible)
        before = copy.deepcopy(self.site.state)
        info = self._env.step(action)[-1]
        self.history.append(PlayedAction(action, admissible, changed=self.site.state != before))
        if "reward_details" in info:
            self.score = Score(**info["reward_details"])

    def receipt(self) -> Receipt | None:
        """The purchase and its score; None before the purchase."""
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
                Requirement(name, self._score_of(replace(goal, attributes=(name,), options={})).attributes == 1.0)
                for name in goal.attributes
            ),
            options=tuple(
                Requirement(
                    f"{name}: {value}" if name else value,
                    self._score_of(
                        replace(goal, attributes=(), options={name: value} if name else (value,))
                    ).options == 1.0,
                )
                for name, value in pairs
            ),
        )  # fmt: skip

    def _score_of(self, goal: Goal) -> Score:
        # A goal with one requirement only: how the score's own rules judge that requirement.
        setting, state = self.setting, self.site.state
        assert state.item is not None  # there is a receipt after a purchase only
        return setting.shop.score(setting.goals, setting.split, setting.seed, goal, state.item, state.options)


class SessionStore:
    """The open sessions by id.

    Args:
        max_sessions: how many are kept; the least recently used one is dropped.
    """

    def __init__(self, setting: ShopSetting, max_sessions: int) -> None:
        self._setting = setting
        self._max_sessions = max_sessions
        self._sessions: OrderedDict[str, ShopSession] = OrderedDict()

    def start(self, goal_index: int) -> str:
        """Start a session for a goal; returns its id, which cannot be guessed.

        Raises:
            TaskError: there is no goal of that index.
        """
        session = ShopSession(self._setting, goal_index)
        session_id = f"{goal_index}-{secrets.token_urlsafe(12)}"
        self._sessions[session_id] = session
        while len(self._sessions) > self._max_sessions:
            self._sessions.popitem(last=False)
        return session_id

    def get(self, session_id: str) -> ShopSession:
        """A session, which becomes the most recently used one.

        Raises:
            SessionNotFound: it is not kept.
        """
        if session_id not in self._sessions:
            raise SessionNotFound(
                "This session is no longer kept: the server was restarted, or more than "
                f"{self._max_sessions} sessions were started after it was last used."
            )
        self._sessions.move_to_end(session_id)
        return self._sessions[session_id]
