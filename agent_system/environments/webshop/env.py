# SPDX-License-Identifier: Apache-2.0
"""WebShop as a Gymnasium environment: `gymnasium.make("hiper/WebShop-v0", data_dir=..., split="fixed", max_steps=15)`.

Observations in the modes "text" and "text_rich" equal the original's character by character. (Under "fixed",
"text_rich" marks a value of several option groups in the group in which it is chosen; the original marks it in all of
them.) The reward is 10 for a purchase of score 1.0, else 0; the score itself is in `info["score"]` at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.error import ResetNeeded

from agent_system.environments.webshop.compact import compact_links, compact_text, to_site_action
from agent_system.environments.webshop.goals import Goal, Goals, Split, legacy_weighted_index
from agent_system.environments.webshop.reward import Score
from agent_system.environments.webshop.shop import open_shop
from agent_system.environments.webshop.site import SEARCH_TEMPLATE, Page, Site
from agent_system.errors import ConfigError

WIN_REWARD = 10.0
OBSERVATION_MODES: dict[str, Callable[[Site], str]] = {
    "text": Site.text,
    "text_rich": Site.rich_text,
    "page": Site.page_text,
    "compact": compact_text,
}
"""The first two are those of the original."""
_MAX_OBSERVATION_CHARACTERS = 1 << 20
MAX_ACTION_CHARACTERS = 4096


class AnyText(gymnasium.spaces.Text):
    """Text of any characters: product names use every script. Samples are drawn from ASCII."""

    def contains(self, x: Any) -> bool:
        """Whether `x` is text of an allowed length."""
        return isinstance(x, str) and self.min_length <= len(x) <= self.max_length


class WebShopEnv(gymnasium.Env[str, str]):
    """One shopping task at a time.

    Args:
        data_dir: a folder that `agent_system.environments.webshop.prepare` wrote.
        goals: "synthetic" or "human" instructions.
        split: "fixed" or "legacy" (`goals.Split`): order of the goals, the reward's rule for options, and which
            option a click chooses where texts are equal (`options`).
        seed: under "legacy" the seed of the imitated environment worker; not used under "fixed".
        max_steps: actions after which an unfinished episode is truncated.
        observation_mode: "text"; "text_rich" with a line for each text; "page", which is "text" without the task, for a
            prompt that shows the task itself; "compact", short texts for a small model.
        show_attributes: whether items have a page "Attributes".
        early_terminate_penalty: reward of a purchase whose score is below 1.0.

    Raises:
        ConfigError: a value is unknown, or there is no prepared shop of this version in `data_dir`.

    `reset(options={"goal_index": i})` selects a goal; `options={"seed": s}` also changes the seed of "legacy". Without
    an index a goal is drawn: uniformly under "fixed", by the original's weights under "legacy".

    `info` holds ``task``, ``admissible_actions`` ("search[<your query>]" represents every search), ``task_kind`` (the
    category of the product), ``goal_index``, ``won`` and ``score``; after the purchase also ``reward_details``
    (`reward.Score`). A purchase terminates the episode; the step limit truncates it.

    An action is stripped and lower-cased, as in verl-agent's manager (the original accepts "search" and "click" in
    lower case only). An invalid action, or a click on a missing element, has no effect and uses a step.
    """

    def __init__(
        self,
        data_dir: str | Path,
        goals: str = "synthetic",
        split: str = "fixed",
        seed: int = 0,
        max_steps: int = 15,
        observation_mode: str = "text",
        show_attributes: bool = False,
        early_terminate_penalty: float = 0.0,
    ) -> None:
        if not isinstance(max_steps, int) or isinstance(max_steps, bool) or max_steps < 1:
            raise ConfigError(f"env.max_steps={max_steps!r}: an episode needs at least one step. Try: env.max_steps=15")
        if observation_mode not in OBSERVATION_MODES:
            raise ConfigError(
                f"observation_mode={observation_mode!r} is not one of {', '.join(OBSERVATION_MODES)}. "
                "Try: observation_mode='text'"
            )
        self._goals = _parse(Goals, goals, "goals")
        self._split = _parse(Split, split, "env.webshop.split")
        self._shop = open_shop(Path(data_dir).expanduser().absolute())
        self._seed = seed
        self.max_steps = max_steps
        self.observation_mode = observation_mode
        self._observe = OBSERVATION_MODES[observation_mode]
        self._is_compact = observation_mode == "compact"
        self._show_attributes = show_attributes
        self._penalty = early_terminate_penalty
        self.observation_space = AnyText(_MAX_OBSERVATION_CHARACTERS, min_length=0)
        self.action_space = AnyText(MAX_ACTION_CHARACTERS, min_length=0)
        self._goal: Goal | None = None
        self._site: Site | None = None
        self._score: Score | None = None
        self._steps = 0
        self._running = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode.

        Raises:
            TaskError: there is no goal of the requested index.
        """
        super().reset(seed=seed)
        options = options or {}
        self._seed = options.get("seed", self._seed)
        index = options["goal_index"] if "goal_index" in options else self._draw_index()
        self._goal = self._shop.goal(self._goals, self._split, self._seed, index)
        self._site = Site(self._shop, self._goal.instruction, self._checkout, self._show_attributes, self._split)
        self._score = None
        self._steps, self._running = 0, True
        return self._observation(), self._info()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Play one action.

        Raises:
            TypeError: the action is not a string.
            ResetNeeded: the episode has not started, or is over.
        """
        if not isinstance(action, str):
            raise TypeError(f"an action must be a str, not {type(action).__name__}")
        if not self._running:
            raise ResetNeeded("the episode has not started or is over. Try: reset()")
        action = action.strip().lower()
        self.site.act(to_site_action(self.site, action) if self._is_compact else action)
        self._steps += 1
        terminated = self.site.state.page is Page.DONE
        truncated = not terminated and self._steps >= self.max_steps
        self._running = not (terminated or truncated)
        info = self._info()
        reward = WIN_REWARD if info["won"] else self._penalty if terminated else 0.0
        return self._observation(), reward, terminated, truncated, info

    @property
    def site(self) -> Site:
        """The pages of the current episode, for programs that show them."""
        if self._site is None:
            raise ResetNeeded("no episode has started. Try: reset()")
        return self._site

    def _draw_index(self) -> int:
        table = self._shop.goals(self._goals, self._split, self._seed)
        if not len(table):
            other, key = (Goals.SYNTHETIC, "false") if self._goals is Goals.HUMAN else (Goals.HUMAN, "true")
            raise ConfigError(
                f"{self._shop.folder} has no {self._goals.value} goals. "
                f"Try: goals={other.value} (env.webshop.human_goals={key})"
            )
        if self._split is Split.FIXED or self._goals is Goals.HUMAN:
            return int(self.np_random.integers(len(table)))
        return legacy_weighted_index(self._shop.legacy_weights(self._seed), self.np_random.uniform)

    def _checkout(self, bought: int, chosen: dict[str, str]) -> float:
        assert self._goal is not None  # set by `reset`, which makes the site that calls this
        self._score = self._shop.score(self._goals, self._split, self._seed, self._goal, bought, chosen)
        return self._score.total

    def _observation(self) -> str:
        return self._observe(self.site)

    def _info(self) -> dict[str, Any]:
        total = self._score.total if self._score else 0.0
        assert self._goal is not None  # set by `reset`
        info = {
            "task": self._goal.instruction,
            "task_kind": self._goal.product.category,
            "goal_index": self._goal.index,
            "admissible_actions": self.admissible_actions(),
            "won": total == 1.0,
            "score": total,
        }
        if self._score:
            info["reward_details"] = self._score.as_dict()
        return info

    def admissible_actions(self) -> list[str]:
        """The actions that have an effect on the page.

        As in the original, "legacy" also lists the search button, which has no effect, and after a purchase the actions
        of the first page.
        """
        site = self.site
        if self._split is Split.LEGACY and site.state.page in (Page.SEARCH, Page.DONE):
            return [SEARCH_TEMPLATE, "click[search]"]
        searches = [SEARCH_TEMPLATE] if site.has_search_bar else []
        links = compact_links(site) if self._is_compact else site.clickables
        return searches + [f"click[{text}]" for text in links if text != "search"]


def _parse(kind: type[Goals] | type[Split], value: str, key: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        names = [member.value for member in kind]
        raise ConfigError(f"{key}={value} is not one of {', '.join(names)}. Try: {key}={names[0]}") from None
