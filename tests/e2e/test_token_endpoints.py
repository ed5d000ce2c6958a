"""Token endpoints that misbehave: requests are answered by us, and nothing of it gets anywhere."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.clock import ManualClock
from tests.support.keyrelay import (
    RawClient,
    Running,
    answering,
    both_loops,
    exchange,
    keyrelay,
    raw_provider,
    read_head,
    until,
)

pytestmark = both_loops

GET = b"GET /api/x HTTP/1.1\r\nHost: localhost\r\nX-Mine: dummy\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CANARY = "CANARY-token"


def route(upstream: str, url: str) -> dict[str, Any]:
    """Tokens for ``upstream`` from another place."""
    return {
        "upstream": upstream,
        "secrets": {"key": "env:DUMMY_KEY"},
        "auth": [
            {
                "name": "token",
                "token": {
                    "type": "oauth2_client_credentials",
                    "url": url,
                    "client_id": "dummy",
                    "client_secret": "{key}",
                },
                "http": {"header": "Authorization", "value": "Bearer {token}"},
                "websocket": {"query": "access_token", "value": "{token}"},
            }
        ],
    }


def said(document: object, fields: str = "", status: str = "200 OK") -> bytes:
    body = json.dumps(document)
    if "Content-Type" not in fields:
        fields += "Content-Type: application/json\r\n"
    return (
        f"HTTP/1.1 {status}\r\nX-Canary: {CANARY}\r\n{fields}"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


GOOD = {"access_token": "dummy-good", "token_type": "Bearer", "expires_in": 600}
REDIRECT = "Location: {elsewhere}/token?c=" + CANARY + "\r\n"
PAGE = f"<html>{CANARY}</html>"

ANSWERS = {
    "302": (said(GOOD, REDIRECT, "302 Found"), "redirects (302)"),
    "307": (said(GOOD, REDIRECT, "307 Temporary Redirect"), "redirects (307)"),
    "10 MiB": (said({**GOOD, "x": CANARY * 850_000}), "too large"),
    "html": (said(PAGE, "Content-Type: text/html\r\n"), "no usable token"),
    "no json": (said(GOOD).replace(b'{"acc', b"[[acc"), "not JSON"),
    "list": (said([GOOD, CANARY]), "no usable token"),
    "mac": (said({**GOOD, "token_type": "mac", "mac_key": CANARY}), "needs a proof"),
    "header": (said({**GOOD, "access_token": f"a\r\nX: {CANARY}"}), "no usable token"),
    "no token": (said({"error": "out_of_order", "x": CANARY}), "answered with an error"),
    "nothing": (said({"x": CANARY}), "no usable token"),
}

# RFC 6749 appendix A.12 permits spaces; a lifetime that is of no use is replaced by
# ``lifetime_seconds``.
UNUSUAL: dict[str, dict[str, object]] = {
    "blank": {"access_token": "a b"},
    "over": {"expires_in": -1},
    "lifetime": {"expires_in": CANARY},
}


def check_problem(answer: bytes, status: int, words: str, *, waits: bool = True) -> None:
    """One of ours: typed, with the reason, a time to come back if it ``waits``, and no canary."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nContent-Type: application/problem+json\r\n" in head
    assert b"\r\nProxy-Status: keyrelay; error=" in head
    assert (b"\r\nRetry-After: " in head) is waits
    problem = json.loads(body)
    assert (problem["status"], problem["type"]) == (status, "urn:keyrelay:problem:no-token")
    assert words in problem["detail"]
    assert b"CANARY" not in answer
    assert b"dummy-real-key" not in answer


async def refused_socket(running: Running) -> int:
    with pytest.raises(InvalidStatus) as refused:
        await running.websocket("/api/socket").__aenter__()
    response = refused.value.response
    assert "CANARY" not in f"{response.headers}{response.body!r}"
    return response.status_code


class Endpoint:
    """A token endpoint: what it says now, and how often it was asked."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.calls: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        self.calls.append(head + await reader.readexactly(len(b"grant_type=client_credentials")))
        writer.write(self.answer)
        with suppress(ConnectionError):  # too long for anybody to take it
            await writer.drain()


def describe(running: Running) -> str:
    return running.app.routes[0].strategies[0].credential.describe()


@pytest.mark.parametrize("kind", ANSWERS)
async def test_answers_that_cannot_be_used(
    dummy_key: bytes,
    kind: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """502 with the reason, for requests and sockets; one call however many ask; then it heals."""
    caplog.set_level(logging.DEBUG)
    answer, words = ANSWERS[kind]
    clock = ManualClock()
    async with raw_provider(answering(OK)) as provider, raw_provider(answering(OK)) as elsewhere:
        endpoint = Endpoint(answer.replace(b"{elsewhere}", elsewhere.url.encode()))
        async with (
            raw_provider(endpoint.serve) as server,
            keyrelay({"api": route(provider.url, f"{server.url}/token")}, clock=clock) as running,
        ):
            answers = await asyncio.gather(*(exchange(running.port, GET) for _ in range(20)))
            answers.append(await exchange(running.port, GET))
            for one in answers:
                check_problem(one, 502, words)
            assert await refused_socket(running) == 502
            assert words in describe(running)
            assert len(endpoint.calls) == 1
            assert provider.connections == 0

            endpoint.answer = said(GOOD)
            await clock.advance(1)
            await until(lambda: describe(running).startswith("token "))
            assert (await exchange(running.port, GET)).startswith(b"HTTP/1.1 200 ")
            assert len(endpoint.calls) == 2
            running.app.exchange_log.flush()
            logged = "".join(running.lines) + caplog.text + "".join(capfd.readouterr())
        assert elsewhere.connections == 0
    assert "CANARY" not in logged
    assert "dummy-real-key" not in logged
    assert "dummy-good" not in logged
    # All calls are the same, and nothing of the client's is in them.
    assert len(set(endpoint.calls)) == 1
    assert b"X-Mine" not in endpoint.calls[0]


@pytest.mark.parametrize("kind", UNUSUAL)
async def test_unusual_tokens_are_used(dummy_key: bytes, kind: str) -> None:
    """What no standard forbids serves, and an unreadable lifetime is repeated nowhere."""
    endpoint = Endpoint(said({**GOOD, **UNUSUAL[kind]}))
    async with (
        raw_provider(answering(OK)) as provider,
        raw_provider(endpoint.serve) as server,
        keyrelay({"api": route(provider.url, f"{server.url}/token")}) as running,
    ):
        assert (await exchange(running.port, GET)).startswith(b"HTTP/1.1 200 ")
        assert len(endpoint.calls) == 1
        running.app.exchange_log.flush()
        assert "CANARY" not in "".join(running.lines)


@pytest.mark.parametrize(
    ("answer", "words", "least"),
    [
        (
            said({"error": "invalid_client", "x": CANARY}, status="401 No"),
            "401, invalid_client",
            5,
        ),
        (said({"error": "invalid_grant"}, status="400 No"), "answered 400, invalid_grant", 5),
        (
            said({"error": "odd", "x": CANARY}, status="400 No"),
            "the token endpoint answered 400.",
            5,
        ),
        (said({}, status="429 Slow Down", fields="Retry-After: 120\r\n"), "answered 429", 120),
        (said(CANARY, status="500 Oops"), "the token endpoint answered 500", 1),
        (b"SSH-2.0-CANARY\r\n\r\n", "cannot be reached", 1),
        (b"", "cannot be reached", 1),
        (said(GOOD)[:-10], "cannot be reached", 1),
    ],
    ids=["client", "grant", "word", "slow", "500", "no http", "nothing", "half"],
)
async def test_endpoints_that_refuse_or_fail(
    dummy_key: bytes, answer: bytes, words: str, least: int, caplog: pytest.LogCaptureFixture
) -> None:
    """503 with the reason; what will not help soon is not tried soon, however many ask.

    What waiting does not repair has no time to come back.
    """
    waits = b"400 No" not in answer and b"401 No" not in answer
    caplog.set_level(logging.DEBUG)
    clock = ManualClock()
    endpoint = Endpoint(answer)
    async with (
        raw_provider(answering(OK)) as provider,
        raw_provider(endpoint.serve) as server,
        keyrelay({"api": route(provider.url, f"{server.url}/token")}, clock=clock) as running,
    ):
        for _ in range(10):
            one = await exchange(running.port, GET)
            check_problem(one, 503, words, waits=waits)
            if waits:
                assert int(one.partition(b"\r\nRetry-After: ")[2].partition(b"\r\n")[0]) == least
        assert await refused_socket(running) == 503
        assert len(endpoint.calls) == 1
        if least > 1:
            await clock.advance(least - 1)
            check_problem(await exchange(running.port, GET), 503, words, waits=waits)
            assert len(endpoint.calls) == 1
        endpoint.answer = said(GOOD)
        await clock.advance(1)
        assert (await exchange(running.port, GET)).startswith(b"HTTP/1.1 200 ")
        assert len(endpoint.calls) == 2
        running.app.exchange_log.flush()
        assert "CANARY" not in "".join(running.lines) + caplog.text


async def test_nobody_listens(dummy_key: bytes) -> None:
    """No token endpoint at all: 503 and why, and the provider is not asked without a token."""
    async with raw_provider(answering(OK)) as gone:
        url = f"{gone.url}/token"
    async with (
        raw_provider(answering(OK)) as provider,
        keyrelay({"api": route(provider.url, url)}, clock=ManualClock()) as running,
    ):
        check_problem(await exchange(running.port, GET), 503, "cannot be reached (no connection)")
        assert provider.connections == 0


async def test_a_head_request_hears_no_reason(dummy_key: bytes) -> None:
    """The head of the problem alone, and the connection goes on (RFC 9110 section 9.3.2)."""
    endpoint = Endpoint(said({}))
    async with (
        raw_provider(answering(OK)) as provider,
        raw_provider(endpoint.serve) as server,
        keyrelay(
            {"api": route(provider.url, f"{server.url}/token")}, clock=ManualClock()
        ) as running,
        await RawClient.to(running.port) as one,
    ):
        for _ in range(2):
            one.send(GET.replace(b"GET", b"HEAD"))
            head = await one.head()
            assert head.startswith(b"HTTP/1.1 502 ")
            assert b"Connection: close" not in head
        await one.nothing()


async def test_the_environment_s_proxy_is_not_used(
    dummy_key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for the call nor for the request: credentials go where the route says."""
    endpoint = Endpoint(said(GOOD))
    async with (
        raw_provider(answering(OK)) as spy,
        raw_provider(answering(OK)) as provider,
        raw_provider(endpoint.serve) as server,
    ):
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, spy.url)
        async with keyrelay({"api": route(provider.url, f"{server.url}/token")}) as running:
            assert (await exchange(running.port, GET)).startswith(b"HTTP/1.1 200 ")
        assert (spy.connections, provider.connections, len(endpoint.calls)) == (0, 1, 1)
