# SPDX-License-Identifier: Apache-2.0
"""The shop for people: do an agent's task in a browser, or watch recorded episodes turn by turn.

    python -m agent_system.environments.webshop.browse --data-dir shop
    python -m agent_system.environments.webshop.browse --data-dir shop --episodes runs/mine/episodes/*.jsonl

Listens on 127.0.0.1 only and needs no JavaScript. Every click and every search is an action of the environment that
agents play in, so a person can do what an agent can, and nothing else. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import errno
import random
import re
import sys
from http import HTTPStatus
from pathlib import Path

from agent_system.environments.webshop.browser.episodes import EpisodeList, replay
from agent_system.environments.webshop.browser.pages import LONGEST_ACTION, TEMPLATES, Pages
from agent_system.environments.webshop.browser.server import LoopbackServer, Refused, Request, Response
from agent_system.environments.webshop.browser.sessions import ShopSetting, UnknownVisit, Visit, Visits
from agent_system.environments.webshop.goals import Goals, Split
from agent_system.environments.webshop.site import Page
from agent_system.environments.webshop.tasks import PARTS
from agent_system.errors import ConfigError, HiPERError, TaskError

MOST_VISITS = 64
"""Visits that are kept at a time."""
ALL = "all"
"""The goals of all parts."""
_VISIT = re.compile(r"/visits/(\d{1,12})-[\w-]{1,64}", re.ASCII)
_TURN = re.compile(r"/episodes/(\d{1,9})/(\d{1,9})", re.ASCII)
_NUMBER = re.compile(r"\d{1,12}", re.ASCII)
_FILES = {"/style.css": "text/css; charset=utf-8", "/icon.svg": "image/svg+xml"}


class ShopForPeople:
    """Answers the requests of a browser.

    Args:
        setting: the goals to shop for.
        episodes: recorded episodes to watch.
        most_visits: how many visits are kept; the one not used for longest makes room.

    Raises:
        ConfigError: the shop cannot be opened, or has no such goals.
    """

    def __init__(self, setting: ShopSetting, episodes: EpisodeList, most_visits: int = MOST_VISITS) -> None:
        self._setting = setting
        self._episodes = episodes
        self._visits = Visits(setting, most_visits)
        self._pages = Pages(setting, episodes=len(episodes) > 0)
        count = len(setting.shop.goals(setting.goals, setting.split, setting.seed))
        if not count:
            other = next(goals for goals in Goals if goals is not setting.goals)
            raise ConfigError(f"{setting.folder} has no {setting.goals.value} goals. --goals {other.value}")
        self._no_parts = ""
        self._ranges = {ALL: range(count)}
        try:
            self._ranges |= setting.shop.ranges(setting.goals, setting.split)
        except ConfigError as error:
            self._no_parts = f"These goals are not split: {error}"
        if setting.split is Split.LEGACY:
            self._ranges.pop("eval", None)  # it is "test" there
        self._ranges = {part: self._ranges[part] for part in (*PARTS, ALL) if part in self._ranges}

    def answer(self, request: Request) -> Response:
        """The page, or what the form does.

        Raises:
            Refused: there is no such page, or the form makes no sense.
        """
        path = request.path
        if visit := _VISIT.fullmatch(path):
            return self._visit(path.removeprefix("/visits/"), visit[1], request)
        if path == "/visits":
            if request.method != "POST":
                return Response.redirect("/")
            return self._begin(request)
        if request.method != "GET":
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, "Not here", "There is no form to send to this address.")
        if path == "/":
            part = request.query.get("part", ALL)
            if part not in self._ranges:
                raise Refused(HTTPStatus.NOT_FOUND, "No such goals", f"Goals are: {', '.join(self._ranges)}.")
            return Response(self._pages.start(self._ranges, part, _page_number(request), self._no_parts))
        if path == "/episodes":
            return Response(self._pages.episodes(self._episodes.entries, _page_number(request)))
        if turn := _TURN.fullmatch(path):
            return self._turn(int(turn[1]), int(turn[2]))
        if path in _FILES:
            text = (TEMPLATES / path[1:]).read_text(encoding="utf-8")
            return Response(text, content_type=_FILES[path], headers={"Cache-Control": "max-age=3600"})
        raise Refused(HTTPStatus.NOT_FOUND, "No such page", "There is nothing at this address.")

    def error_page(self, title: str, text: str) -> str:
        """HTML that says what went wrong."""
        return self._pages.message(title, text)

    # ------------------------------------------------------------------ shopping

    def _begin(self, request: Request) -> Response:
        asked = request.form.get("goal")
        if asked is None:
            part = request.form.get("part", ALL)
            if part not in self._ranges:
                raise Refused(HTTPStatus.BAD_REQUEST, "No such goals", f"Goals are: {', '.join(self._ranges)}.")
            index = random.choice(self._ranges[part])
        else:
            count = len(self._ranges[ALL])
            if not _NUMBER.fullmatch(asked) or int(asked) >= count:
                raise Refused(HTTPStatus.BAD_REQUEST, "No such goal", f"Goals have the numbers 0 to {count - 1}.")
            index = int(asked)
        return Response.redirect(f"/visits/{self._visits.begin(index)}")

    def _visit(self, name: str, goal: str, request: Request) -> Response:
        try:
            visit = self._visits.get(name)
        except UnknownVisit as error:
            again = goal if int(goal) < len(self._ranges[ALL]) else None
            return Response(self._pages.message("This visit is over", str(error), again), HTTPStatus.GONE)
        here = f"/visits/{name}"
        if request.method == "GET":
            return Response(self._pages.visit(visit, stale="stale" in request.query))
        # A form of a page of before, from another tab or the browser's history, would do something else than it says.
        if request.form.get("turn") != str(len(visit.played)) or visit.over:
            return Response.redirect(f"{here}?stale=1")
        was = (visit.site.state.page, visit.site.state.item)
        visit.act(_action(request, visit))
        state = visit.site.state
        if state.page is Page.ITEM and was == (state.page, state.item) and "link" in request.form:
            return Response.redirect(f"{here}#link-{int(request.form['link'])}")  # the focus stays on the option
        return Response.redirect(here)

    # ------------------------------------------------------------------ watching

    def _turn(self, number: int, at: int) -> Response:
        if number >= len(self._episodes):
            raise Refused(HTTPStatus.NOT_FOUND, "No such episode", f"There are {len(self._episodes)}, counted from 0.")
        try:
            episode = self._episodes.read(number)
        except TaskError as error:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "This episode cannot be watched", str(error)) from error
        if at > len(episode.turns):
            raise Refused(HTTPStatus.NOT_FOUND, "No such turn", f"Episode {number} has {len(episode.turns)} turns.")
        played = replay(episode, self._setting.folder, at)
        return Response(self._pages.episode(number, self._episodes.entries[number], episode, at, played))


def _page_number(request: Request) -> int:
    asked = request.query.get("page", "1")
    if not _NUMBER.fullmatch(asked):
        raise Refused(HTTPStatus.NOT_FOUND, "No such page", "Pages of a list have numbers.")
    return int(asked)


def _action(request: Request, visit: Visit) -> str:
    """The action that a form of a shop's page stands for: a button, a search, or an action in the agent's words."""
    form = request.form
    if "link" in form:
        # By its place and not by its text, which a browser may change on the way (line breaks).
        links = visit.site.clickables
        if not _NUMBER.fullmatch(form["link"]) or int(form["link"]) >= len(links):
            raise Refused(HTTPStatus.BAD_REQUEST, "No such button", "The page has no button of that number.")
        return f"click[{links[int(form['link'])]}]"
    action = f"search[{form['query']}]" if "query" in form else form.get("action")
    if action is None:
        raise Refused(HTTPStatus.BAD_REQUEST, "Nothing to do", "The form names no action.")
    if len(action) > LONGEST_ACTION:
        raise Refused(HTTPStatus.BAD_REQUEST, "That is too long", f"An action has at most {LONGEST_ACTION} characters.")
    return action


def serve(application: ShopForPeople, port: int) -> LoopbackServer:
    """A server that is bound to its port and waits for `serve_forever`.

    Raises:
        ConfigError: the port cannot be had.
    """
    try:
        return LoopbackServer(application, port)
    except (OSError, OverflowError) as error:
        why = "is in use" if getattr(error, "errno", None) == errno.EADDRINUSE else f"cannot be had ({error})"
        raise ConfigError(
            f"port {port} of this machine {why}. Choose another (--port 8081), or any that is free (--port 0)"
        ) from error


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the prepared shop")
    parser.add_argument("--goals", choices=[goals.value for goals in Goals], default=Goals.SYNTHETIC.value)
    parser.add_argument("--split", choices=[split.value for split in Split], default=Split.FIXED.value)
    parser.add_argument("--seed", type=int, default=0, help="seed of the worker that is imitated under legacy")
    parser.add_argument("--show-attributes", action="store_true", help="items have the page Attributes")
    parser.add_argument("--port", type=int, default=8080, help="0 for any free one")
    parser.add_argument("--episodes", type=Path, nargs="+", default=[], metavar="FILE.jsonl", help="episodes to watch")
    given = parser.parse_args()
    setting = ShopSetting(given.data_dir, Goals(given.goals), Split(given.split), given.seed, given.show_attributes)
    try:
        episodes = EpisodeList(given.episodes)
        server = serve(ShopForPeople(setting, episodes), given.port)
    except HiPERError as error:
        sys.exit(f"error: {error}")
    watched = f", {len(episodes)} episodes to watch" if given.episodes else ""
    print(f"{len(setting.shop):,} products{watched}: {server.address} (Ctrl-C ends it)", flush=True)
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nended")


if __name__ == "__main__":
    main()
