# SPDX-License-Identifier: Apache-2.0
"""A small browser without a screen, for the tests of the web application: it reads pages and submits their forms."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import Headers

from agent_system.environments.webshop.browser.app import create_app
from agent_system.environments.webshop.browser.episodes import EpisodeList
from agent_system.environments.webshop.browser.server import LocalServer
from agent_system.environments.webshop.browser.sessions import ShopSetting

FORM = "application/x-www-form-urlencoded"
_VOID = {"meta", "link", "input", "br", "img", "hr"}


class Document(HTMLParser):
    """A page as far as the tests look at it; refuses markup that is not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.pressed: list[tuple[dict[str, str | None], str]] = []
        self._open: list[str] = []
        self._button: list[str] | None = None
        self.feed(text)
        self.close()
        assert not self._open
        ids = [values["id"] for _, values in self.elements if "id" in values]
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        assert len(values) == len(attrs)
        self.elements.append((tag, values))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "button":
            self._button = []

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "button":
            self.pressed.append((self.elements_of("button")[-1], " ".join("".join(self._button).split())))
            self._button = None

    def handle_data(self, data):
        self.texts.append(data)
        if self._button is not None:
            self._button.append(data)

    def elements_of(self, tag: str) -> list[dict[str, str | None]]:
        return [values for name, values in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def buttons(self) -> dict[int, set[str]]:
        """Labels of the buttons that click something, by the place in the page's clickables."""
        found: dict[int, set[str]] = {}
        for values, label in self.pressed:
            if values.get("name") == "link":
                found.setdefault(int(values["value"]), set()).add(label)
        return found


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Headers
    body: bytes

    @property
    def page(self) -> Document:
        return Document(self.body.decode("utf-8"))


@dataclass
class Browser:
    """A client that follows redirects, on one connection per request."""

    port: int
    place: str = "/"

    def raw(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, Headers(dict(response.headers)), response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        self.place = path
        return self.raw("GET", path)

    def post(self, path: str, **form: Any) -> Answer:
        origin = {"Origin": f"http://127.0.0.1:{self.port}", "Content-Type": FORM}
        answer = self.raw("POST", path, urlencode(form).encode(), origin)
        if answer.status != 303:
            return answer
        return self.get(answer.headers["Location"].partition("#")[0])

    def send(self, page: Answer, **form: Any) -> Answer:
        """Send a form of a shop's page."""
        (number,) = {v["value"] for v in page.page.elements_of("input") if v.get("name") == "turn"}
        return self.post(self.place, turn=number, **form)


@contextmanager
def serving(setting: ShopSetting, *files: Path, max_sessions: int = 64) -> Iterator[Browser]:
    server = LocalServer(create_app(setting, EpisodeList(files), max_sessions), port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield Browser(server.port)
    finally:
        server.stop()
        thread.join()
