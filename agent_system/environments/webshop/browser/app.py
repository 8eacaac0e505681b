# SPDX-License-Identifier: Apache-2.0
"""The web application: play an agent's task in a browser, or view recorded episodes turn by turn.

Every click and every search is an action of the environment that agents play in: a person can do what an agent can, and
nothing else. The pages need no JavaScript.
"""

from __future__ import annotations

import random
import re
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from agent_system.environments.webshop.browser.episodes import EpisodeList, replay
from agent_system.environments.webshop.browser.pages import TEMPLATES, PageRenderer
from agent_system.environments.webshop.browser.security import RequestError, parse_fields
from agent_system.environments.webshop.browser.server import PageResponse, WebApplication
from agent_system.environments.webshop.browser.sessions import SessionNotFound, SessionStore, ShopSession, ShopSetting
from agent_system.environments.webshop.env import MAX_ACTION_CHARACTERS
from agent_system.environments.webshop.goals import Goals, Split
from agent_system.environments.webshop.site import Page
from agent_system.environments.webshop.tasks import PARTS
from agent_system.errors import ConfigError, TaskError

MAX_SESSIONS = 64
ALL = "all"
"""The goals of all parts."""
_NUMBER = re.compile(r"\d{1,12}", re.ASCII)
_STATIC_FILES = {"/style.css": "text/css", "/icon.svg": "image/svg+xml"}


def create_app(setting: ShopSetting, episodes: EpisodeList, max_sessions: int = MAX_SESSIONS) -> WebApplication:
    """The application for one shop.

    Args:
        setting: the shop and its goals.
        episodes: recorded episodes to view.
        max_sessions: how many sessions are kept; the least recently used one is dropped.

    Raises:
        ConfigError: the shop cannot be opened, or has no such goals.
    """
    renderer = PageRenderer(setting, episodes=len(episodes) > 0)
    play, view = _SessionEndpoints(setting, renderer, max_sessions), _EpisodeEndpoints(setting, renderer, episodes)
    routes = [
        Route("/", play.goals, methods=["GET"]),
        Route("/sessions", play.start_session, methods=["POST"]),
        Route("/sessions", _redirect_to_goals, methods=["GET"]),
        Route("/sessions/{session_id}", play.session, methods=["GET"]),
        Route("/sessions/{session_id}", play.act, methods=["POST"]),
        Route("/episodes", view.episodes, methods=["GET"]),
        Route("/episodes/{number}/{turn}", view.turn, methods=["GET"]),
        *(Route(path, _static_file, methods=["GET"]) for path in _STATIC_FILES),
    ]
    return WebApplication(routes, renderer.message)


class _SessionEndpoints:
    """Choosing a goal, and shopping."""

    def __init__(self, setting: ShopSetting, renderer: PageRenderer, max_sessions: int) -> None:
        self._renderer = renderer
        self._sessions = SessionStore(setting, max_sessions)
        count = len(setting.shop.goals(setting.goals, setting.split, setting.seed))
        if not count:
            other = next(goals for goals in Goals if goals is not setting.goals)
            raise ConfigError(f"{setting.folder} has no {setting.goals.value} goals. Try: --goals {other.value}")
        self._split_problem = ""
        self._ranges = {ALL: range(count)}
        try:
            self._ranges |= setting.shop.ranges(setting.goals, setting.split)
        except ConfigError as error:
            self._split_problem = f"These goals are not split: {error}"
        if setting.split is Split.LEGACY:
            self._ranges.pop("eval", None)  # it is "test" there
        self._ranges = {part: self._ranges[part] for part in (*PARTS, ALL) if part in self._ranges}

    async def goals(self, request: Request) -> Response:
        """The start page with the goals of one part."""
        query = parse_fields(request.scope["query_string"])
        part = query.get("part", ALL)
        if part not in self._ranges:
            raise RequestError(HTTPStatus.NOT_FOUND, "No such goals", f"The parts are {', '.join(self._ranges)}.")
        return PageResponse(self._renderer.start(self._ranges, part, _page_number(query), self._split_problem))

    async def start_session(self, request: Request) -> Response:
        """Start a session for a goal of that number, or for a random one of a part."""
        form = parse_fields(await request.body())
        if "goal" in form:
            count = len(self._ranges[ALL])
            index = _number(form["goal"])
            if index is None or index >= count:
                raise RequestError(HTTPStatus.BAD_REQUEST, "No such goal", f"Goals are numbered 0 to {count - 1}.")
        else:
            part = form.get("part", ALL)
            if part not in self._ranges:
                raise RequestError(HTTPStatus.BAD_REQUEST, "No such goals", f"The parts are {', '.join(self._ranges)}.")
            index = random.choice(self._ranges[part])
        return _redirect(f"/sessions/{self._sessions.start(index)}")

    async def session(self, request: Request) -> Response:
        """The current page of a session."""
        query = parse_fields(request.scope["query_string"])
        session_id = request.path_params["session_id"]
        try:
            session = self._sessions.get(session_id)
        except SessionNotFound as error:
            return self._not_found_page(session_id, error)
        return PageResponse(self._renderer.session(session, stale="stale" in query))

    async def act(self, request: Request) -> Response:
        """Carry out the action of a form."""
        form = parse_fields(await request.body())
        session_id = request.path_params["session_id"]
        try:
            session = self._sessions.get(session_id)
        except SessionNotFound as error:
            return self._not_found_page(session_id, error)
        path = f"/sessions/{session_id}"
        # A form of an outdated page, from another tab or the browser's history, would not do what its button shows.
        if form.get("turn") != str(len(session.history)) or session.is_over:
            return _redirect(f"{path}?stale=1")
        before = (session.site.state.page, session.site.state.item)
        session.act(_action(form, session))
        state = session.site.state
        if state.page is Page.ITEM and before == (state.page, state.item) and "link" in form:
            return _redirect(f"{path}#link-{int(form['link'])}")  # the focus stays on the option
        return _redirect(path)

    def _not_found_page(self, session_id: str, error: SessionNotFound) -> Response:
        index = _number(session_id.partition("-")[0])
        if index is None:
            raise RequestError(HTTPStatus.NOT_FOUND, "No such session", "There is nothing at this address.")
        restart_goal = str(index) if index < len(self._ranges[ALL]) else None
        return PageResponse(self._renderer.message("This session is over", str(error), restart_goal), HTTPStatus.GONE)


class _EpisodeEndpoints:
    """Viewing recorded episodes."""

    def __init__(self, setting: ShopSetting, renderer: PageRenderer, episodes: EpisodeList) -> None:
        self._setting = setting
        self._renderer = renderer
        self._episodes = episodes

    async def episodes(self, request: Request) -> Response:
        """The list of episodes."""
        number = _page_number(parse_fields(request.scope["query_string"]))
        return PageResponse(self._renderer.episodes(self._episodes.entries, number))

    async def turn(self, request: Request) -> Response:
        """One turn of an episode."""
        number, at = _number(request.path_params["number"]), _number(request.path_params["turn"])
        if number is None or number >= len(self._episodes):
            count = len(self._episodes)
            raise RequestError(HTTPStatus.NOT_FOUND, "No such episode", f"There are {count} episodes, numbered from 0.")
        try:
            episode = self._episodes.read(number)
        except TaskError as error:
            raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, "This episode cannot be shown", str(error)) from error
        if at is None or at > len(episode.turns):
            raise RequestError(
                HTTPStatus.NOT_FOUND, "No such turn", f"Episode {number} has {len(episode.turns)} turns."
            )
        result = replay(episode, self._setting.folder, at)
        return PageResponse(self._renderer.episode(number, self._episodes.entries[number], episode, at, result))


async def _redirect_to_goals(request: Request) -> Response:
    return _redirect("/")


async def _static_file(request: Request) -> Response:
    path = request.scope["path"]
    content = (TEMPLATES / path[1:]).read_bytes()
    return Response(content, media_type=_STATIC_FILES[path], headers={"Cache-Control": "max-age=3600"})


def _redirect(path: str) -> Response:
    """Send the browser to another page of this server, after a form."""
    return RedirectResponse(path, HTTPStatus.SEE_OTHER, {"Cache-Control": "no-store"})


def _number(text: str) -> int | None:
    """A number of a form or an address; None for any other text, signs and very large numbers included."""
    return int(text) if _NUMBER.fullmatch(text) else None


def _page_number(query: dict[str, str]) -> int:
    number = _number(query.get("page", "1"))
    if number is None:
        raise RequestError(HTTPStatus.NOT_FOUND, "No such page", "The pages of a list are numbered.")
    return number


def _action(form: dict[str, str], session: ShopSession) -> str:
    """The action of a form of the shop's pages: a button, a search, or an action typed as an agent writes it."""
    if "link" in form:
        # By its index and not by its text, which a browser may change (line breaks).
        links = session.site.clickables
        index = _number(form["link"])
        if index is None or index >= len(links):
            raise RequestError(HTTPStatus.BAD_REQUEST, "No such button", "The page has no button of that number.")
        return f"click[{links[index]}]"
    action = f"search[{form['query']}]" if "query" in form else form.get("action")
    if action is None:
        raise RequestError(HTTPStatus.BAD_REQUEST, "No action", "The form names no action.")
    if len(action) > MAX_ACTION_CHARACTERS:
        raise RequestError(
            HTTPStatus.BAD_REQUEST, "Action too long", f"An action has at most {MAX_ACTION_CHARACTERS} characters."
        )
    return action
