"""Who may do what on the server: without the token nothing, from another site nothing, outside the book nothing."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import urlsplit

import pytest
from helpers_book import Served

pytestmark = pytest.mark.book

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def ask(served: Served, path: str, method: str = "GET", body: str | None = None, **headers: str) -> HTTPResponse:
    """One request, its path sent as it is written (a client library would tidy `..` away)."""
    connection = HTTPConnection(urlsplit(served.base).netloc, timeout=20)
    connection.putrequest(method, path, skip_host="Host" in headers)
    payload = (body or "").encode()
    for name, value in {**headers, "Content-Length": str(len(payload))}.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders(payload)
    return connection.getresponse()


def cookies(served: Served) -> str:
    """The cookies of a browser that opened the printed address."""
    answer = ask(served, f"/course/?token={served.token}")
    assert answer.status == 302
    assert served.token not in (answer.getheader("Location") or "")
    return "; ".join(value.partition(";")[0] for name, value in answer.getheaders() if name == "Set-Cookie")


@pytest.mark.parametrize("path", ["/api/kernels", "/api/sessions", "/api/contents", "/course/live.json"])
@pytest.mark.parametrize("token", ["", "wrong"])
def test_without_the_token_the_api_is_closed(served: Served, path: str, token: str) -> None:
    query = f"?token={token}" if token else ""
    assert ask(served, path + query).status == 403


@pytest.mark.parametrize("query", ["", "?token=wrong"])
def test_without_the_token_the_book_asks_for_a_login(served: Served, query: str) -> None:
    answer = ask(served, f"/course/book/intro.html{query}")
    assert answer.status == 302
    assert "/login" in (answer.getheader("Location") or "")


def test_without_the_token_a_kernel_cannot_be_started(served: Served) -> None:
    assert ask(served, "/api/kernels", "POST", "{}").status == 403


def test_without_the_token_a_websocket_is_refused(served: Served) -> None:
    assert ask(served, "/api/kernels/00000000-0000-0000-0000-000000000000/channels", **UPGRADE).status == 403


def test_the_token_opens_everything(served: Served) -> None:
    answer = ask(served, "/course/live.json", Authorization=f"token {served.token}")
    assert answer.status == 200
    assert json.loads(answer.read()) == {"baseUrl": "/", "kernelName": "python3"}
    assert ask(served, "/api/kernels", Authorization=f"token {served.token}").status == 200


def test_a_cookie_alone_starts_nothing(served: Served) -> None:
    """Another site can make a browser send its cookies, but cannot read the one to be repeated in a header."""
    cookie = cookies(served)
    assert ask(served, "/course/book/intro.html", Cookie=cookie).status == 200
    assert ask(served, "/api/kernels", "POST", "{}", Cookie=cookie).status == 403


def test_a_foreign_host_is_refused(served: Served) -> None:
    """DNS rebinding: another site's name that leads to this machine."""
    assert ask(served, "/api/kernels", Host="evil.example", Authorization=f"token {served.token}").status == 403
    assert ask(served, "/course/book/intro.html", Host="evil.example", Cookie=cookies(served)).status == 403


def test_a_foreign_origin_gets_no_websocket(served: Served) -> None:
    made = ask(served, "/api/kernels", "POST", "{}", Authorization=f"token {served.token}")
    kernel = json.loads(made.read())["id"]
    path, cookie = f"/api/kernels/{kernel}/channels", cookies(served)
    try:
        assert ask(served, path, Origin="http://evil.example", Cookie=cookie, **UPGRADE).status == 403
        assert ask(served, path, Origin=served.base.rstrip("/"), Cookie=cookie, **UPGRADE).status == 101
    finally:
        ask(served, f"/api/kernels/{kernel}", "DELETE", Authorization=f"token {served.token}")


@pytest.mark.parametrize(
    "path",
    [
        "/course/../_config.yml",
        "/course/_static/../../../_config.yml",
        "/course/%2e%2e/%2e%2e/_config.yml",
        "/course//etc/passwd",
    ],
)
def test_nothing_outside_the_book_is_shown(served: Served, path: str) -> None:
    for headers in ({}, {"Authorization": f"token {served.token}"}):
        answer = ask(served, path, **headers)
        assert answer.status in (302, 403, 404)
        assert b"exclude_patterns" not in answer.read()


def test_scripts_and_fonts_need_no_login(served: Served) -> None:
    """A JupyterHub does not accept its cookie for fonts; there is nothing private among them."""
    assert ask(served, "/course/_static/base.js").status == 200
