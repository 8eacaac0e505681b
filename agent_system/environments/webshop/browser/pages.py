# SPDX-License-Identifier: Apache-2.0
"""HTML of the shop for people. What a page says is in `templates`; here is what the templates are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from agent_system.environments.webshop.browser.episodes import Entry, Episode, Replay, site_action
from agent_system.environments.webshop.browser.sessions import MOST_ACTIONS, ShopSetting, Visit
from agent_system.environments.webshop.goals import NO_BOUND, Goal
from agent_system.environments.webshop.site import HITS_PER_PAGE, Page, Site, parse_action
from agent_system.plan_execute.protocol import parse_flat, parse_reply

TEMPLATES = Path(__file__).parent / "templates"
PER_PAGE = 25
"""Goals or episodes on one page of a list."""
LONGEST_ACTION = 4096
"""Characters of an action that the environment takes."""


@dataclass(frozen=True)
class Choice:
    """A value of an option group.

    Attributes:
        link: place of its text among the page's clickables.
        anchor: whether it is the first element of the page with that place, which can then be its name.
    """

    value: str
    link: int
    chosen: bool
    anchor: bool


@dataclass(frozen=True)
class Pager:
    """One page of a long list.

    Attributes:
        number, last: this page and the last one, from 1.
        items: what stands on it.
    """

    number: int
    last: int
    items: Sequence[Any]

    @classmethod
    def of(cls, everything: Sequence[Any], number: int) -> Pager:
        """Page `number`, or the nearest there is."""
        last = max(1, -(-len(everything) // PER_PAGE))
        number = min(max(1, number), last)
        return cls(number, last, everything[(number - 1) * PER_PAGE : number * PER_PAGE])


@dataclass(frozen=True)
class Mark:
    """A piece of a reply; `block` is the tag it is written in, or "" outside of all blocks."""

    block: str
    text: str


class Pages:
    """Renders every page.

    Args:
        setting: what is shopped for.
        episodes: whether there are recorded ones to watch.
    """

    def __init__(self, setting: ShopSetting, episodes: bool) -> None:
        self._setting = setting
        environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.globals.update(
            has_episodes=episodes,
            longest_action=LONGEST_ACTION,
            most_actions=MOST_ACTIONS,
            style_version=sha256((TEMPLATES / "style.css").read_bytes()).hexdigest()[:12],
        )
        self._environment = environment

    def start(self, ranges: Mapping[str, range], part: str, number: int, no_parts: str) -> str:
        """Where a goal is chosen.

        Args:
            ranges: indices of the goals of each part, and of "all".
            part, number: which of them are listed, and which page of the list.
            no_parts: why the goals are not split; "" if they are.
        """
        setting = self._setting
        shop = setting.shop
        pager = Pager.of(ranges[part], number)
        goals = [shop.goal(setting.goals, setting.split, setting.seed, index) for index in pager.items]
        return self._page(
            "start", setting=setting, products=len(shop), ranges=ranges, part=part, pager=pager, goals=goals,
            no_parts=no_parts,
        )  # fmt: skip

    def visit(self, visit: Visit, stale: bool) -> str:
        """The page a person is on.

        Args:
            stale: whether the person's last click came from a page of before and was not carried out.
        """
        return self._page("visit", stale=stale, live=not visit.over, clicked=None, typed=None, **_shown(visit))

    def episodes(self, entries: Sequence[Entry], number: int) -> str:
        """The list of recorded episodes."""
        return self._page("episodes", pager=Pager.of(list(enumerate(entries)), number), total=len(entries))

    def episode(self, number: int, entry: Entry, episode: Episode, at: int, played: Replay) -> str:
        """One turn of a recorded episode; `at` one beyond the last turn, how it ended."""
        turn = episode.turns[at] if at < len(episode.turns) else None
        action = site_action(turn, played.visit) if turn and played.visit else turn.action if turn else ""
        verb, argument = parse_action(action) or (None, None)
        return self._page(
            "episode", number=number, entry=entry, episode=episode, at=at, turn=turn, problem=played.problem,
            shown_here=played.shown, marks=marked(turn.reply, turn.switch != "") if turn else [], live=False,
            clicked=argument if verb == "click" else None, typed=argument if verb == "search" else None,
            **(_shown(played.visit) if played.visit else {"visit": None}),
        )  # fmt: skip

    def message(self, title: str, text: str, again: str | None = None) -> str:
        """Says that something is not possible.

        Args:
            again: index of a goal that can be started again.
        """
        return self._page("message", title=title, text=text, again=again)

    def _page(self, template: str, **values: Any) -> str:
        return self._environment.get_template(f"{template}.html.jinja").render(**values)


def _shown(visit: Visit) -> dict[str, Any]:
    """What the templates of the shop's pages are given."""
    site = visit.site
    links = site.clickables
    catalogue = visit.setting.shop
    return {
        "visit": visit,
        "site": site,
        "state": site.state,
        "goal": visit.goal,
        "links": links,
        "hits": [catalogue.product(n) for n in site.hits_shown()] if site.state.page is Page.RESULTS else [],
        "first_hit": (site.state.results_page - 1) * HITS_PER_PAGE + 1,
        "choices": _choices(site, links) if site.state.page is Page.ITEM else {},
        "observed": site.text(),
        "receipt": visit.receipt(),
        "bound": _bound(visit.goal),
    }


def _choices(site: Site, links: list[str]) -> dict[str, list[Choice]]:
    named: set[int] = set(range(links.index("buy now") + 1))
    groups = {}
    for name, values in site.item.options.items():
        groups[name] = []
        for value in values:
            link = links.index(value)
            groups[name].append(Choice(value, link, site.state.options.get(name) == value, link not in named))
            named.add(link)
    return groups


def _bound(goal: Goal) -> float | None:
    return None if goal.price_upper == NO_BOUND else goal.price_upper


def marked(reply: str, has_subgoal: bool) -> list[Mark]:
    """A reply in pieces, so that each of its blocks can be told from the others.

    Args:
        has_subgoal: whether it is a plan-execute reply; a flat one has thoughts and an action.
    """
    blocks = (parse_reply(reply) if has_subgoal else parse_flat(reply, require_think=True)).blocks
    spans = {name: getattr(blocks, name) for name in ("switch", "subgoal", "think", "action")}
    pieces, position = [], 0
    for name, span in sorted(((n, s) for n, s in spans.items() if s is not None), key=lambda item: item[1]):
        pieces += [Mark("", reply[position : span.start]), Mark(name, reply[span.start : span.end])]
        position = span.end
    pieces.append(Mark("", reply[position:]))
    return [piece for piece in pieces if piece.text]
