"""What becomes of each request: answered here, refused before anything is dialled, or forwarded."""

from __future__ import annotations

import json

import pytest

from tests.support.keyrelay import (
    Running,
    answering,
    exchange,
    keyrelay,
    proxied,
    raw_provider,
    static_route,
)

HEAD = b" HTTP/1.1\r\nHost: localhost\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ORIGIN = "http://localhost:5173"
HANDSHAKE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: ZHVtbXktbm9uY2UtMTIzNA==\r\n"
)
CLOSE = b"Connection: close\r\n\r\n"


async def ask(running: Running, request: bytes) -> tuple[int, bytes, bytes]:
    """Status, head and body of the answer to a request that asks to close."""
    said = await exchange(running.port, request, until_close=True)
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head[9:12]), head + b"\r\n", body


# -- answered here -----------------------------------------------------------------------------


@pytest.mark.parametrize("page", [b"/-/health", b"/-/ready"])
async def test_health(page: bytes) -> None:
    """The pages for health checks say ok and nothing else; HEAD gets the same without the body."""
    async with keyrelay({}) as running:
        status, head, body = await ask(running, b"GET " + page + HEAD + CLOSE)
        assert (status, body) == (200, b"ok\n")
        assert b"\r\nContent-Type: text/plain; charset=utf-8\r\n" in head
        assert b"\r\nCache-Control: no-store\r\n" in head
        assert b"\r\nConnection: close\r\n" in head
        status, head_only, body = await ask(running, b"HEAD " + page + HEAD + CLOSE)
        assert (status, head_only, body) == (200, head, b"")
        assert not running.app.exchange_log.recent


async def test_health_keeps_the_connection() -> None:
    """A health check does not end its connection unless it asks to."""
    async with keyrelay({}) as running:
        request = b"GET /-/health" + HEAD + b"\r\n"
        said = await exchange(running.port, request + request)
        assert b"Connection" not in said


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"POST /-/health", 405),
        (b"DELETE /-/ready", 405),
        (b"GET /-/", 404),
        (b"GET /-/health/", 404),
        (b"GET /-/metrics", 404),
        (b"GET /-/%68ealth", 404),
    ],
)
async def test_there_are_no_other_pages(line: bytes, status: int) -> None:
    """Nothing else of ours answers on a listener that serves routes."""
    async with keyrelay({}) as running:
        answered, head, body = await ask(running, line + HEAD + CLOSE)
        assert answered == json.loads(body)["status"] == status
        assert (b"\r\nAllow: GET, HEAD\r\n" in head) is (status == 405)


async def test_options_for_the_server_as_a_whole(dummy_key: bytes) -> None:
    """``OPTIONS *`` is about keyrelay and is answered by it, bodies and connection included."""
    async with proxied(answering(OK)) as (provider, running):
        status, head, body = await ask(running, b"OPTIONS *" + HEAD + CLOSE)
        assert (status, body) == (204, b"")
        assert b"\r\nConnection: close\r\n" in head
        assert b"Content-Length" not in head
        assert (await ask(running, b"GET *" + HEAD + CLOSE))[0] == 400
        assert provider.connections == 0


async def test_a_preflight_is_not_forwarded(dummy_key: bytes) -> None:
    """A preflight of an allowed page needs no provider, even for a path without a route."""
    async with proxied(answering(OK), origins=(ORIGIN,)) as (provider, running):
        for path in (b"/api/x", b"/none"):
            request = (
                b"OPTIONS " + path + HEAD + b"Origin: " + ORIGIN.encode() + b"\r\n"
                b"Access-Control-Request-Method: DELETE\r\n"
                b"Access-Control-Request-Headers: authorization, x-mine\r\n"
                b"Access-Control-Request-Private-Network: true\r\n"
            )
            status, head, body = await ask(running, request + CLOSE)
            assert (status, body) == (204, b"")
            for field in (
                f"Access-Control-Allow-Origin: {ORIGIN}",
                "Vary: Origin",
                "Access-Control-Allow-Headers: authorization, x-mine",
                "Access-Control-Allow-Private-Network: true",
            ):
                assert f"\r\n{field}\r\n".encode() in head
            assert b"DELETE" in head
            assert b"Allow-Credentials" not in head
        assert provider.connections == 0


async def test_a_preflight_of_a_foreign_page_is_refused(dummy_key: bytes) -> None:
    """A page that is not listed learns nothing that its browser would take for permission."""
    async with proxied(answering(OK), origins=(ORIGIN,)) as (provider, running):
        request = b"OPTIONS /api" + HEAD + b"Origin: https://evil.example\r\n"
        request += b"Access-Control-Request-Method: GET\r\n" + CLOSE
        status, head, _ = await ask(running, request)
        assert status == 403
        assert b"Access-Control-Allow" not in head
        assert provider.connections == 0


async def test_other_options_are_forwarded(dummy_key: bytes) -> None:
    """OPTIONS without the marks of a preflight is the provider's to answer."""
    async with proxied(answering(OK)) as (provider, running):
        assert await exchange(running.port, b"OPTIONS /api" + HEAD + b"\r\n") == OK
        assert provider.connections == 1


# -- refused -----------------------------------------------------------------------------------


async def test_no_route(dummy_key: bytes) -> None:
    """Where no route is, the answer names those there are, and nothing of the request."""
    async with keyrelay({"api": static_route("http://127.0.0.1:9")}) as running:
        for path in (b"/", b"/canary", b"/apix", b"/API", b"/x/api"):
            status, _, body = await ask(running, b"GET " + path + HEAD + CLOSE)
            assert status == 404
            assert "/api" in json.loads(body)["advice"]
            assert b"canary" not in body
        assert {one.outcome for one in running.app.exchange_log.recent} == {"no-route"}


async def test_a_route_without_its_secret(dummy_key: bytes) -> None:
    """It answers 503 and says which variable to set, for WebSockets as well; others serve."""
    async with raw_provider(answering(OK)) as provider:
        missing = static_route(provider.url, secrets={"key": "env:DUMMY_MISSING"})
        routes = {"missing": missing, "api": static_route(provider.url)}
        async with keyrelay(routes) as running:
            for more in (CLOSE, HANDSHAKE + b"\r\n"):
                status, head, body = await ask(running, b"GET /missing" + HEAD + more)
                assert status == 503
                assert "DUMMY_MISSING" in json.loads(body)["advice"]
                assert b"error=proxy_configuration_error;" in head
            assert provider.connections == 0
            assert await exchange(running.port, b"GET /api" + HEAD + b"\r\n") == OK


REFUSED = {
    "foreign host": (b"GET /api HTTP/1.1\r\nHost: evil.example:8080\r\n", 421),
    "any address": (b"GET /api HTTP/1.1\r\nHost: 0.0.0.0:8080\r\n", 421),
    "host with a dot": (b"GET /api HTTP/1.1\r\nHost: localhost.\r\n", 421),
    "empty host": (b"GET /api HTTP/1.1\r\nHost:\r\n", 400),
    "user in host": (b"GET /api HTTP/1.1\r\nHost: localhost@evil.example\r\n", 400),
    "route that is none": (b"GET /api HTTP/1.1\r\nHost: none.localhost\r\n", 421),
    "absolute, foreign": (b"GET http://evil.example/api" + HEAD, 421),
    "foreign page": (b"GET /api" + HEAD + b"Origin: https://evil.example\r\n", 403),
    "page of a file": (b"GET /api" + HEAD + b"Origin: null\r\n", 403),
    "same-site page": (b"GET /api" + HEAD + b"Sec-Fetch-Site: same-origin\r\n", 403),
    "image": (b"GET /api" + HEAD + b"Sec-Fetch-Site: cross-site\r\n", 403),
    "navigation": (b"GET /api" + HEAD + b"Sec-Fetch-Mode: navigate\r\n", 403),
    "old browser": (b"GET /api" + HEAD + b"User-Agent: Mozilla/5.0\r\n", 403),
    "dot segments": (b"GET /api/../x" + HEAD, 400),
    "encoded dot segments": (b"GET /api/%252e%252e/x" + HEAD, 400),
    "fragment": (b"GET /api/x#y" + HEAD, 400),
    "two slashes": (b"GET //evil.example/x" + HEAD, 400),
    "denied": (b"GET /api/admin/keys" + HEAD, 403),
    "method": (b"DELETE /api/x" + HEAD, 405),
}


@pytest.mark.parametrize("websocket", [False, True], ids=["HTTP", "WebSocket"])
@pytest.mark.parametrize(("request_head", "status"), REFUSED.values(), ids=REFUSED.keys())
async def test_refused_before_anything_is_dialled(
    dummy_key: bytes, request_head: bytes, status: int, websocket: bool
) -> None:
    """One gate for HTTP and WebSocket: a problem with its status, one line in the journal, and the
    provider saw no connection.
    """
    async with raw_provider(answering(OK)) as provider:
        route = static_route(provider.url, deny=["/admin/**"], methods=["GET", "POST"])
        async with keyrelay({"api": route}) as running:
            more = HANDSHAKE + b"\r\n" if websocket else CLOSE
            answered, head, body = await ask(running, request_head + more)
            # A handshake that is no GET is refused as such, whatever the route says.
            if not (websocket and request_head.startswith(b"DELETE")):
                assert answered == status
            assert json.loads(body)["status"] == answered >= 400
            assert b"\r\nProxy-Status: keyrelay; error=" in head
            assert b"evil" not in head + body
            assert provider.connections == 0
            (noted,) = running.app.exchange_log.recent
            assert (noted.status, noted.websocket) == (answered, websocket)
            assert noted.outcome


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /api" + HEAD + HANDSHAKE + b"\r\n", 400),
        (b"GET /api" + HEAD + HANDSHAKE + b"Content-Length: 2\r\n\r\nhi", 400),
        (b"GET /api" + HEAD + HANDSHAKE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /api" + HEAD + HANDSHAKE.replace(b"13", b"8") + b"\r\n", 426),
        (b"GET /api" + HEAD + HANDSHAKE.replace(b"Key: Z", b"Key: ") + b"\r\n", 400),
        (b"GET /api HTTP/1.0\r\nHost: localhost\r\n" + HANDSHAKE + b"\r\n", 400),
    ],
)
async def test_bad_handshakes(dummy_key: bytes, request_bytes: bytes, status: int) -> None:
    """A handshake that RFC 6455 does not allow is refused here, and ends its connection."""
    async with proxied(answering(OK)) as (provider, running):
        answered, head, _ = await ask(running, request_bytes)
        assert answered == status
        assert (b"\r\nSec-WebSocket-Version: 13\r\n" in head) is (status == 426)
        assert provider.connections == 0


async def test_a_websocket_of_an_allowed_page(dummy_key: bytes) -> None:
    """A listed page gets through to the provider, which here refuses."""
    async with proxied(answering(OK), origins=(ORIGIN,)) as (provider, running):
        request = b"GET /api" + HEAD + HANDSHAKE + b"Origin: " + ORIGIN.encode() + b"\r\n\r\n"
        assert (await ask(running, request))[0] == 200
        assert provider.connections == 1


# -- forwarded ---------------------------------------------------------------------------------


async def test_absolute_targets(dummy_key: bytes) -> None:
    """An absolute target that agrees with Host is served as its path."""
    async with proxied(answering(OK)) as (_, running):
        assert await exchange(running.port, b"GET http://localhost/api/x" + HEAD + b"\r\n") == OK
        (noted,) = running.app.exchange_log.recent
        assert noted.path == "/x"


async def test_what_the_journal_notes(dummy_key: bytes) -> None:
    """Route, strategy, method, raw path without query, status and the bytes of both bodies."""
    async with proxied(answering(OK)) as (_, running):
        request = b"GET /api/a%20b?token=dummy-canary" + HEAD + b"X: dummy-canary\r\n\r\n"
        await exchange(running.port, request)
        (noted,) = running.app.exchange_log.recent
        assert (noted.route, noted.strategy, noted.method) == ("api", "key", "GET")
        assert (noted.path, noted.status, noted.outcome) == ("/a%20b", 200, "")
        assert (noted.sent, noted.received) == (0, 2)
        assert 0 <= noted.first_byte <= noted.duration
        running.app.exchange_log.flush()
        assert "dummy" not in "".join(running.lines)
