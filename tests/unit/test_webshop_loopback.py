# SPDX-License-Identifier: Apache-2.0
"""The local web server: which requests it accepts, and how it answers the others."""

from __future__ import annotations

import http.client
import socket
import threading

import pytest
from shop_browser import FORM, Browser, serving
from starlette.routing import Route

from agent_system.environments.webshop.browser.app import create_app
from agent_system.environments.webshop.browser.episodes import EpisodeList
from agent_system.environments.webshop.browser.server import LocalServer, WebApplication
from agent_system.environments.webshop.browser.sessions import ShopSetting


@pytest.fixture(scope="module")
def folder(small_shop):
    """A generated shop."""
    return small_shop


@pytest.fixture(scope="module")
def browser(folder):
    with serving(ShopSetting(folder)) as one:
        yield one


def test_only_the_loopback_address_listens(folder):
    server = LocalServer(create_app(ShopSetting(folder), EpisodeList([])), port=0)
    assert server.socket.getsockname() == ("127.0.0.1", server.port)
    server.socket.close()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "[::1]", "", "localhost:x"]
)
def test_foreign_host_names_are_refused(browser, host):
    answer = browser.raw("GET", "/", headers={"Host": host.format(port=browser.port)})
    assert answer.status == 421 and "Choose a goal" in answer.page.text and "Find me" not in answer.page.text


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST", "localhost:9999"])
def test_names_of_this_machine_are_taken(browser, host):
    """Any port: it may be forwarded from another one."""
    host = host.format(port=browser.port)
    assert browser.raw("GET", "/", headers={"Host": host}).status == 200
    form = {"Content-Type": FORM, "Host": host, "Origin": f"http://{host}"}
    assert browser.raw("POST", "/sessions", b"goal=1", form).status == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost:{port}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_forms_of_other_sites_are_not_carried_out(browser, headers):
    browser.post("/sessions", goal=0)
    headers = {name: value.format(port=browser.port) for name, value in headers.items()}
    headers["Content-Type"] = FORM
    answer = browser.raw("POST", browser.place, b"turn=0&query=mug", headers)
    assert answer.status == 403 and "not carried out" in answer.page.text
    assert "Your actions: 0" in browser.get(browser.place).page.text


def test_every_answer_forbids_scripts_and_frames(browser):
    for path in ("/", "/style.css", "/icon.svg", "/nowhere", "/sessions/1-gone", "/episodes/9/9"):
        headers = browser.get(path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "script" not in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
    assert browser.get("/").headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/nowhere", "/style.css", "/sessions", "/episodes"])
def test_head_is_get_without_a_body(browser, path):
    get, head = browser.raw("GET", path), browser.raw("HEAD", path)
    assert (head.status, head.body) == (get.status, b"")
    assert head.headers["Content-Length"] == get.headers["Content-Length"]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/nowhere", None, {}, 404),
        ("GET", "/../../etc/passwd", None, {}, 404),
        ("GET", "/style.css.jinja", None, {}, 404),
        ("GET", "/sessions/", None, {}, 404),
        ("GET", "/" + "x" * 70_000, None, {}, 414),
        ("GET", "/?part=%ff", None, {}, 400),
        ("GET", "/?" + "&".join(f"f{i}=1" for i in range(40)), None, {}, 400),
        ("POST", "/", b"", {"Content-Type": FORM}, 405),
        ("POST", "/episodes", b"", {"Content-Type": FORM}, 405),
        ("POST", "/sessions", b"goal=1", {"Content-Type": "text/plain"}, 415),
        ("POST", "/sessions", b"goal=%ff", {"Content-Type": FORM}, 400),
        ("POST", "/sessions", b"goal=\xff", {"Content-Type": FORM}, 400),
        ("POST", "/sessions", b"query=" + b"x" * 200_000, {"Content-Type": FORM}, 413),
        ("POST", "/sessions", b"goal=1", {"Content-Type": FORM, "Content-Length": "-1"}, 400),
        ("POST", "/sessions", b"goal=1", {"Content-Type": FORM, "Transfer-Encoding": "chunked"}, 411),
        ("PUT", "/", b"x", {}, 501),
        ("DELETE", "/sessions", None, {}, 501),
    ],
)
def test_what_cannot_be_answered_is_refused_with_a_page(browser, method, path, body, headers, status):
    answer = browser.raw(method, path, body, headers)
    assert answer.status == status
    assert answer.page.elements_of("h1") and "Choose a goal" in answer.page.text


def test_a_body_without_length_is_refused(browser):
    with socket.create_connection(("127.0.0.1", browser.port), timeout=30) as raw:
        raw.sendall(b"POST /sessions HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert raw.makefile("rb").readline().startswith(b"HTTP/1.1 411 ")


def test_what_is_not_http_is_refused_with_a_page(browser):
    with socket.create_connection(("127.0.0.1", browser.port), timeout=30) as raw:
        raw.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        response = raw.makefile("rb").read()
        assert b"400" in response.splitlines()[0]
        assert b"default-src 'none'" in response and b"Choose a goal" in response


def test_a_connection_is_used_again(browser):
    connection = http.client.HTTPConnection("127.0.0.1", browser.port, timeout=30)
    for path in ("/", "/nowhere", "/style.css"):
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.read() and not response.will_close
    connection.close()


async def broken(request):
    """An endpoint with a defect."""
    raise ZeroDivisionError("a defect")


def test_a_defect_is_reported_and_the_server_continues(capfd):
    application = WebApplication([Route("/", broken)], lambda title, text: f"<h1>{title}</h1><p>{text}</p>")
    server = LocalServer(application, 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    for _ in range(2):
        answer = Browser(server.port).raw("GET", "/")
        assert answer.status == 500 and b"Internal error" in answer.body and b"defect" not in answer.body
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    server.stop()
    thread.join()
    assert "ZeroDivisionError: a defect" in capfd.readouterr().err


def test_a_form_that_is_cut_off_is_no_defect(folder, capfd):
    """A browser that closes the connection in the middle of a form, or breaks the encoding of its body."""
    head = b"POST /sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    with serving(ShopSetting(folder)) as browser:
        with socket.create_connection(("127.0.0.1", browser.port), timeout=30) as raw:
            raw.sendall(head + b"Content-Length: 6\r\n\r\ngoa")
        with socket.create_connection(("127.0.0.1", browser.port), timeout=30) as raw:
            raw.sendall(head + b"Transfer-Encoding: chunked\r\n\r\nno chunk\r\n")
            assert raw.makefile("rb").readline().startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 411 "))
        assert browser.get("/").status == 200
    assert capfd.readouterr().err == ""
