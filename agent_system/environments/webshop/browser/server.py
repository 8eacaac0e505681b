# SPDX-License-Identifier: Apache-2.0
"""A web server for pages and forms that one person uses on one machine: uvicorn on 127.0.0.1, Starlette for routes."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from agent_system.environments.webshop.browser.security import (
    LOOPBACK_ADDRESS,
    SECURITY_HEADERS,
    RequestChecks,
    RequestError,
    SecurityHeaders,
)
from agent_system.errors import ConfigError

_MAX_HEAD_BYTES = 128 * 1024
"""Request line and headers; above the limit of `RequestChecks` for the address, so that this one is answered first."""
_KEEP_ALIVE_SECONDS = 60
_SHUTDOWN_SECONDS = 5
_STATUS_PAGES = {
    HTTPStatus.NOT_FOUND: ("No such page", "There is nothing at this address."),
    HTTPStatus.METHOD_NOT_ALLOWED: ("Method not allowed", "This address accepts no form."),
}
"""Title and text of the router's own refusals."""


class PageResponse(HTMLResponse):
    """A page that is not cached. Texts of a catalogue may hold halves of surrogate pairs, which cannot be encoded."""

    def __init__(self, content: str, status_code: int = HTTPStatus.OK) -> None:
        super().__init__(content, status_code, {"Cache-Control": "no-store"})

    def render(self, content: str) -> bytes:
        return content.encode("utf-8", "replace")


class WebApplication:
    """A Starlette application whose every response has the security headers and whose every error is a page.

    Endpoints must be coroutines without a wait between reading and changing state: the event loop then carries out one
    request at a time, and the state needs no lock.

    Args:
        routes: the endpoints.
        error_page: HTML from a title and a text.
    """

    def __init__(self, routes: Sequence[Route], error_page: Callable[[str, str], str]) -> None:
        self._error_page = error_page
        application = Starlette(
            routes=routes,
            middleware=[
                Middleware(ExceptionMiddleware, handlers={HTTPException: self._refusal}),
                Middleware(RequestChecks),
            ],
            exception_handlers={
                HTTPException: self._refusal,
                ClientDisconnect: self._disconnect,
                Exception: self._defect,
            },
        )
        application.router.redirect_slashes = False
        # Around the whole application: Starlette answers defects outside of its own middleware.
        self._application = SecurityHeaders(application)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._application(scope, receive, send)

    def error(self, status: int, title: str, text: str) -> Response:
        """The response to a request that cannot be answered."""
        return PageResponse(self._error_page(title, text), status)

    async def _refusal(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # registered for this class
        if isinstance(error, RequestError):
            return self.error(error.status_code, error.title, error.detail)
        title, text = _STATUS_PAGES[HTTPStatus(error.status_code)]
        return self.error(error.status_code, title, text)

    async def _disconnect(self, request: Request, error: Exception) -> Response:
        # A browser that closes the connection before its form is complete is not a defect; the response is not read.
        return Response(status_code=HTTPStatus.BAD_REQUEST)

    async def _defect(self, request: Request, error: Exception) -> Response:
        # uvicorn prints the traceback, and the server continues.
        return self.error(
            HTTPStatus.INTERNAL_SERVER_ERROR, "Internal error", "The error is printed in the server's terminal."
        )


class LocalServer:
    """Serves an application on 127.0.0.1.

    Args:
        application: what is served.
        port: 0 for any free one.

    Attributes:
        socket: listens from the start; requests wait until `run`. Closed at the end of `run`.
        port: the port it listens on.

    Raises:
        ConfigError: the port is not available.
    """

    def __init__(self, application: WebApplication, port: int) -> None:
        try:
            self.socket = socket.create_server((LOOPBACK_ADDRESS, port))
        except (OSError, OverflowError) as error:
            in_use = getattr(error, "errno", None) == errno.EADDRINUSE
            why = "is in use" if in_use else f"is not available ({error})"
            raise ConfigError(
                f"port {port} of this machine {why}. Try: --port 8081 (or --port 0 for any free port)"
            ) from error
        self.port: int = self.socket.getsockname()[1]
        bad_request = application.error(HTTPStatus.BAD_REQUEST, "Bad request", "The request is not valid HTTP.")
        self._server = uvicorn.Server(
            uvicorn.Config(
                application,
                http=partial(_HttpProtocol, bad_request=bad_request),  # type: ignore[arg-type]  # typed as a class
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
                h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
            )
        )

    @property
    def address(self) -> str:
        """Where a browser reaches it."""
        return f"http://{LOOPBACK_ADDRESS}:{self.port}/"

    def run(self) -> None:
        """Serve until `stop` is called in another thread.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed; open requests were answered before.
        """
        self._server.run(sockets=[self.socket])

    def stop(self) -> None:
        """Let `run` return, in this or another thread."""
        self._server.should_exit = True


class _HttpProtocol(H11Protocol):
    """Answers what is not valid HTTP with a page; uvicorn's own answer is plain text without the security headers."""

    def __init__(self, *args: Any, bad_request: Response, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bad_request = bad_request

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None:
            self.cycle.disconnected = True  # The request whose body is invalid gets no second answer.
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            security = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
            headers = [*self._bad_request.raw_headers, *security, (b"connection", b"close")]
            response = h11.Response(status_code=self._bad_request.status_code, headers=headers)
            for event in (response, h11.Data(data=bytes(self._bad_request.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
        self.transport.close()
