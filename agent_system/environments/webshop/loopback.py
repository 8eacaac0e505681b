# SPDX-License-Identifier: Apache-2.0
"""A small HTTP server for pages and forms that one person uses on their own machine.

It listens on 127.0.0.1 only. A page of another site must neither read it nor press its buttons in the name of the
person: the Host header has to name this machine (a foreign name that was made to point here does not), a form has to
come from a page of this server, and no page may run scripts or be framed.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import Protocol
from urllib.parse import parse_qs

ADDRESS = "127.0.0.1"
HTML = "text/html; charset=utf-8"
_HOSTS = (ADDRESS, "localhost")
_FORM = "application/x-www-form-urlencoded"
_LONGEST_BODY = 64 * 1024
_MOST_DISCARDED = 8 * 1024 * 1024
"""Of a body that is too long so much is read, so that the browser comes to read the answer."""
_MOST_FIELDS = 16
_POLICY = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # "no-referrer" would make browsers send "Origin: null" with our own forms.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Request:
    """A request that passed all checks. Of a field that is given twice the last value counts."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Response:
    """An answer."""

    body: str = ""
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = HTML
    headers: Mapping[str, str] = field(default_factory=lambda: {"Cache-Control": "no-store"})

    @classmethod
    def redirect(cls, to: str) -> Response:
        """Sends the browser to another page of this server, after a form."""
        return cls(status=HTTPStatus.SEE_OTHER, headers={"Location": to, "Cache-Control": "no-store"})


class Refused(Exception):
    """A request that is answered with an error page."""

    def __init__(self, status: HTTPStatus, title: str, text: str) -> None:
        super().__init__(title, text)
        self.status = status
        self.title = title
        self.text = text


class Application(Protocol):
    """What is served. One request at a time."""

    def answer(self, request: Request) -> Response:
        """The answer to GET and POST requests.

        Raises:
            Refused: there is none.
        """

    def error_page(self, title: str, text: str) -> str:
        """HTML that says what went wrong."""


class LoopbackServer(ThreadingHTTPServer):
    """Serves an application. A thread for each connection: browsers keep some open that they do not use.

    Raises:
        OSError: the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, application: Application, port: int) -> None:
        self.application = application
        self.lock = Lock()
        super().__init__((ADDRESS, port), _Handler)

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://{ADDRESS}:{self.server_port}/"

    def handle_error(self, request, client_address) -> None:
        """A browser that does not wait for an answer is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "hiper-webshop", ""
    disable_nagle_algorithm = True
    timeout = 60

    def do_GET(self) -> None:
        self._respond()

    def do_HEAD(self) -> None:
        self._respond()

    def do_POST(self) -> None:
        self._respond()

    def _respond(self) -> None:
        self._unread = 0
        try:
            request = self._request()
            with self.server.lock:
                response = self.server.application.answer(request)
        except Refused as refused:
            response = self._error(refused.status, refused.title, refused.text)
        except Exception:  # reported in the terminal and on the page; the server continues
            traceback.print_exc()
            response = self._error(
                HTTPStatus.INTERNAL_SERVER_ERROR, "Something broke", "What happened stands in the server's terminal."
            )
        self._send(response)

    def _request(self) -> Request:
        """Read and check the request; the body is read in any case, or the connection given up."""
        length = self._body_length()
        self._unread = length
        host = self._checked_host()
        path, _, query = self.path.partition("?")
        method = "GET" if self.command == "HEAD" else self.command
        if method == "GET":
            return Request(method, path, _fields(query))
        self._check_origin(host)
        if length > _LONGEST_BODY:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "That is too long", "The text sent is far too long.")
        if self.headers.get_content_type() != _FORM:
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Not a form", f"Only {_FORM} is taken.")
        body = self.rfile.read(length)
        self._unread = 0
        try:
            form = body.decode("ascii")
        except UnicodeDecodeError:
            raise Refused(HTTPStatus.BAD_REQUEST, "Not a form", "The form is not encoded as forms are.") from None
        return Request(method, path, _fields(query), _fields(form))

    def _body_length(self) -> int:
        given = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or len(given) > 1 or (self.command == "POST" and not given):
            self.close_connection = True
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "No length", "The request does not say how long it is.")
        if not given:
            return 0
        if not (given[0].isascii() and given[0].isdecimal()) or len(given[0]) > 18:
            self.close_connection = True
            raise Refused(HTTPStatus.BAD_REQUEST, "No length", "The length of the request is not a number.")
        return int(given[0])

    def _checked_host(self) -> str:
        hosts = self.headers.get_all("Host", [])
        name, _, port = hosts[0].partition(":") if len(hosts) == 1 else ("", "", "")
        if name.lower() not in _HOSTS or not (port == "" or port.isdecimal()):
            raise Refused(
                HTTPStatus.MISDIRECTED_REQUEST,
                "Another address",
                f"This shop answers under {self.server.address} only (or localhost).",
            )
        return hosts[0]

    def _check_origin(self, host: str) -> None:
        origins = self.headers.get_all("Origin", [])
        site = self.headers.get("Sec-Fetch-Site", "same-origin")
        if any(origin.lower() != f"http://{host.lower()}" for origin in origins) or site not in ("same-origin", "none"):
            raise Refused(
                HTTPStatus.FORBIDDEN, "Not from here", "This came from a page of another site and was not carried out."
            )

    def _error(self, status: HTTPStatus, title: str, text: str) -> Response:
        return Response(self.server.application.error_page(title, text), status)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class finds wrong with a request looks like every other page."""
        self._unread = 0
        self.close_connection = True
        self.request_version = self.protocol_version  # it may not have been found out
        status = HTTPStatus(code)
        self._send(self._error(status, message or status.phrase, explain or status.description))

    def _send(self, response: Response) -> None:
        if self._unread:
            self.close_connection = True
        # Texts of a catalogue may hold halves of surrogate pairs, which cannot be encoded.
        body = response.body.encode("utf-8", "replace")
        self.send_response(response.status)
        headers = {"Content-Type": response.content_type, "Content-Length": str(len(body))}
        for name, value in {**headers, **_POLICY, **response.headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()
        left = min(self._unread, _MOST_DISCARDED)
        while left > 0 and (chunk := self.rfile.read(min(left, 65_536))):
            left -= len(chunk)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged; what broke is printed where it is caught."""


def _fields(encoded: str) -> dict[str, str]:
    try:
        values = parse_qs(encoded, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST, "Not a form", "The fields are not encoded as forms are.") from None
    return {name: given[-1] for name, given in values.items()}
