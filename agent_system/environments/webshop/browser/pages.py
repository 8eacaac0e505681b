# SPDX-License-Identifier: Apache-2.0
"""The HTML pages: values for the templates in `templates/`, which hold the markup and the texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from agent_system.environments.webshop.browser.episodes import EpisodeEntry, RecordedEpisode, Replay, turn_action
from agent_system.environments.webshop.browser.sessions import MAX_ACTIONS, ShopSession, ShopSetting
from agent_system.environments.webshop.env import MAX_ACTION_CHARACTERS
from agent_system.environments.webshop.goals import NO_BOUND, Goal
from agent_system.environments.webshop.site import HITS_PER_PAGE, Page, Site, parse_action
from agent_system.plan_execute.protocol import parse_flat, parse_reply

TEMPLATES = Path(__file__).parent / "templates"
ITEMS_PER_PAGE = 25
"""Goals or episodes on one page of a list."""


@dataclass(frozen=True)
class Choice:
    """The button of one value of an option group.

    Attributes:
        text: its clickable text.
        link: index of that text in the page's clickables.
        elsewhere: the other group in which a click chooses this value now; "" if it is this one, or none.
        anchor: whether it is the first element of the page with that index, which then becomes its id.
    """

    value: str
    text: str
    link: int
    elsewhere: str
    chosen: bool
    anchor: bool


@dataclass(frozen=True)
class Pager:
    """One page of a long list.

    Attributes:
        number, last: this page and the last one, from 1.
        items: the items on this page.
    """

    number: int
    last: int
    items: Sequence[Any]

    @classmethod
    def of(cls, items: Sequence[Any], number: int) -> Pager:
        """Page `number` of all `items`, or the nearest page that exists."""
        last = max(1, -(-len(items) // ITEMS_PER_PAGE))
        number = min(max(1, number), last)
        return cls(number, last, items[(number - 1) * ITEMS_PER_PAGE : number * ITEMS_PER_PAGE])


@dataclass(frozen=True)
class ReplyPart:
    """A part of a reply; `block` is the tag that encloses it, or "" outside of all blocks."""

    block: str
    text: str


class PageRenderer:
    """Renders every page.

    Args:
        setting: the shop and its goals.
        episodes: whether there are recorded episodes to show.
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
            max_action_characters=MAX_ACTION_CHARACTERS,
            max_actions=MAX_ACTIONS,
            style_version=sha256((TEMPLATES / "style.css").read_bytes()).hexdigest()[:12],
        )
        self._environment = environment

    def start(self, ranges: Mapping[str, range], part: str, number: int, split_problem: str) -> str:
        """The start page, where a goal is chosen.

        Args:
            ranges: indices of the goals of each part, and of "all".
            part, number: the part that is listed, and the page of the list.
            split_problem: why the goals are not split; "" if they are.
        """
        setting = self._setting
        shop = setting.shop
        pager = Pager.of(ranges[part], number)
        goals = [shop.goal(setting.goals, setting.split, setting.seed, index) for index in pager.items]
        return self._page(
            "start", setting=setting, products=len(shop), ranges=ranges, part=part, pager=pager, goals=goals,
            split_problem=split_problem,
        )  # fmt: skip

    def session(self, session: ShopSession, stale: bool) -> str:
        """The current page of a session.

        Args:
            stale: whether the last form came from an outdated page and was not carried out.
        """
        return self._page(
            "session", stale=stale, live=not session.is_over, clicked=None, typed=None, **_session_values(session)
        )

    def episodes(self, entries: Sequence[EpisodeEntry], number: int) -> str:
        """The list of recorded episodes."""
        return self._page("episodes", pager=Pager.of(list(enumerate(entries)), number), total=len(entries))

    def episode(self, number: int, entry: EpisodeEntry, episode: RecordedEpisode, at: int, replay: Replay) -> str:
        """Turn `at` of a recorded episode, from 0; one beyond the last turn, the end of the episode."""
        turn = episode.turns[at] if at < len(episode.turns) else None
        action = turn_action(turn, replay.session) if turn and replay.session else turn.action if turn else ""
        verb, argument = parse_action(action) or (None, None)
        return self._page(
            "episode", number=number, entry=entry, episode=episode, at=at, turn=turn, problem=replay.problem,
            shop_observation=replay.observation, live=False,
            reply_parts=split_reply(turn.reply, turn.switch != "") if turn else [],
            clicked=argument if verb == "click" else None, typed=argument if verb == "search" else None,
            **(_session_values(replay.session) if replay.session else {"session": None}),
        )  # fmt: skip

    def message(self, title: str, text: str, restart_goal: str | None = None) -> str:
        """An error page.

        Args:
            restart_goal: index of a goal that can be started again.
        """
        return self._page("message", title=title, text=text, restart_goal=restart_goal)

    def _page(self, template: str, **values: Any) -> str:
        return self._environment.get_template(f"{template}.html.jinja").render(**values)


def _session_values(session: ShopSession) -> dict[str, Any]:
    """Values for the templates of the shop's pages."""
    site = session.site
    links = site.clickables
    catalogue = session.setting.shop
    return {
        "session": session,
        "site": site,
        "state": site.state,
        "goal": session.goal,
        "links": links,
        "hits": [catalogue.product(n) for n in site.hits_shown()] if site.state.page is Page.RESULTS else [],
        "first_hit": (site.state.results_page - 1) * HITS_PER_PAGE + 1,
        "choices": _choices(site, links) if site.state.page is Page.ITEM else {},
        "observation": site.text(),
        "receipt": session.receipt(),
        "bound": _bound(session.goal),
    }


def _choices(site: Site, links: list[str]) -> dict[str, list[Choice]]:
    anchored: set[int] = set(range(links.index("buy now") + 1))
    groups: dict[str, list[Choice]] = {}
    for name, values in site.item.options.items():
        groups[name] = []
        for value in values:
            text, target = site.link_of(value), site.group_set_by(value)
            link = links.index(text)
            groups[name].append(
                Choice(
                    value=value,
                    text=text,
                    link=link,
                    elsewhere=target if target is not None and target != name else "",
                    chosen=site.state.options.get(name) == value,
                    anchor=link not in anchored,
                )
            )
            anchored.add(link)
    return groups


def _bound(goal: Goal) -> float | None:
    return None if goal.price_upper == NO_BOUND else goal.price_upper


def split_reply(reply: str, has_subgoal: bool) -> list[ReplyPart]:
    """Split a reply into its blocks and the text between them.

    Args:
        has_subgoal: whether it is a plan-execute reply; a flat one has thoughts and an action.
    """
    blocks = (parse_reply(reply) if has_subgoal else parse_flat(reply, require_think=True)).blocks
    spans = {name: getattr(blocks, name) for name in ("switch", "subgoal", "think", "action")}
    parts, position = [], 0
    for name, span in sorted(((n, s) for n, s in spans.items() if s is not None), key=lambda item: item[1]):
        parts += [ReplyPart("", reply[position : span.start]), ReplyPart(name, reply[span.start : span.end])]
        position = span.end
    parts.append(ReplyPart("", reply[position:]))
    return [part for part in parts if part.text]
