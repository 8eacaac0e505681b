# SPDX-License-Identifier: Apache-2.0
"""Which requests the local web server accepts, and the security headers of its responses.

The server is for one person on one machine. A page of another site must neither read it nor submit its forms:

- The `Host` header must name this machine, so that a foreign name that resolves to it (DNS rebinding) is refused.
- A form must come from a page of this server, by `Origin` and `Sec-Fetch-Site` (cross-site request forgery).
- No page may run scripts or be shown in a frame (`Content-Security-Policy`).

Starlette's own `TrustedHostMiddleware` and body limit respond in plain text, the former with status 400. Here every
refusal is a page with the matching status.
"""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_ADDRESS = "127.0.0.1"
_HOST_NAMES = (LOOPBACK_ADDRESS, "localhost")
_METHODS = ("GET", "HEAD", "POST")
_FORM_TYPE = "application/x-www-form-urlencoded"
_MAX_TARGET_BYTES = 64 * 1024
_MAX_BODY_BYTES = 64 * 1024
_MAX_FIELDS = 16
SECURITY_HEADERS = {
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


class RequestError(HTTPException):
    """A request that is answered with an error page."""

    def __init__(self, status: HTTPStatus, title: str, text: str) -> None:
        super().__init__(status, detail=text)
        self.title = title


class SecurityHeaders:
    """ASGI middleware that adds `SECURITY_HEADERS` to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class RequestChecks:
    """ASGI middleware that lets only acceptable requests through.

    Raises:
        RequestError: for any other request, before its body is read. An exception middleware outside makes it a page.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if scope["method"] not in _METHODS:
            raise RequestError(
                HTTPStatus.NOT_IMPLEMENTED, "Unsupported method", f"The methods are {', '.join(_METHODS)}."
            )
        if len(scope["raw_path"]) + len(scope["query_string"]) > _MAX_TARGET_BYTES:
            raise RequestError(HTTPStatus.REQUEST_URI_TOO_LONG, "Address too long", "The address is too long.")
        has_length = "content-length" in headers
        if "transfer-encoding" in headers or (scope["method"] == "POST" and not has_length):
            raise RequestError(HTTPStatus.LENGTH_REQUIRED, "Length required", "The request has no Content-Length.")
        host = _checked_host(scope, headers)
        if scope["method"] == "POST":
            _check_form(headers, host)
        await self._app(scope, receive, send)


def _checked_host(scope: Scope, headers: Headers) -> str:
    hosts = headers.getlist("host")
    name, _, port = hosts[0].partition(":") if len(hosts) == 1 else ("", "", "")
    # Any port: it may be forwarded from another one.
    if name.lower() not in _HOST_NAMES or not (port == "" or port.isdecimal()):
        address, own_port = scope["server"]
        raise RequestError(
            HTTPStatus.MISDIRECTED_REQUEST,
            "Wrong address",
            f"This shop answers only at http://{address}:{own_port}/ (or localhost).",
        )
    return hosts[0]


def _check_form(headers: Headers, host: str) -> None:
    origins = headers.getlist("origin")
    site = headers.get("sec-fetch-site", "same-origin")
    if any(origin.lower() != f"http://{host.lower()}" for origin in origins) or site not in ("same-origin", "none"):
        raise RequestError(
            HTTPStatus.FORBIDDEN,
            "Request from another site",
            "A page of another site submitted this form. It was not carried out.",
        )
    # The HTTP parser made sure that the length is a number and the body has it.
    if int(headers["content-length"]) > _MAX_BODY_BYTES:
        raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Form too long", "The submitted text is too long.")
    if headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM_TYPE:
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Not a form", f"Only {_FORM_TYPE} is accepted.")


def parse_fields(encoded: bytes) -> dict[str, str]:
    """The fields of a query string or a submitted form; of a repeated field the last value counts.

    Strict where Starlette's parsers replace what cannot be decoded: an altered value must not be carried out.

    Raises:
        RequestError: they are not encoded as the fields of a form, or there are too many.
    """
    try:
        values = parse_qs(encoded.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise RequestError(
            HTTPStatus.BAD_REQUEST, "Not a form", "The fields are not encoded as those of a form, or are too many."
        ) from None
    return {name: repeated[-1] for name, repeated in values.items()}
