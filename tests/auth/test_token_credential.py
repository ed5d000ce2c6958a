"""Tests of auth/fresh.py: tokens in their placements, and what becomes of refused ones."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.auth.injection import Injection, Placements
from proxy.auth.token import FetchedToken, TokenError, TokenSource
from proxy.auth.token_cache import TokenCache
from proxy.auth.token_credential import TokenCredential
from proxy.auth.tokens.client import TokenClient
from proxy.auth.tokens.oauth2 import (
    EXPIRY,
    ClientAuthentication,
    RequestTokenSource,
    token_request,
)
from proxy.auth.tokens.response import TokenFields
from proxy.config.placement import CookiePlacement, HeaderPlacement, Placement, QueryPlacement
from proxy.errors import Refusal
from proxy.upstream.tls import tls_context
from tests.support.clock import ManualClock
from tests.support.keyrelay import RawProvider, answering, both_loops, raw_provider

HEADER = HeaderPlacement(header="Authorization", value="Bearer {token}")
QUERY = QueryPlacement(query="access_token", value="{token}")


class CountingTokenSource:
    """Gives ``dummy/1``, ``dummy/2`` …, or fails."""

    def __init__(self) -> None:
        self.calls = 0
        self.failing = False

    async def fetch(self) -> FetchedToken:
        self.calls += 1
        if self.failing:
            raise TokenError("the endpoint is down")
        return FetchedToken(f"dummy/{self.calls}".encode(), 1000)


class Built:
    """A strategy, its clock, and what its tokens are from unless a test has brought its own."""

    def __init__(
        self, credential: TokenCredential, mint: CountingTokenSource, clock: ManualClock
    ) -> None:
        self.credential = credential
        self.mint = mint
        self.clock = clock

    async def http(self) -> Injection:
        return await self.credential.obtain(websocket=False)


@asynccontextmanager
async def built(
    http: tuple[Placement, ...] | None = (HEADER,),
    websocket: tuple[Placement, ...] | None = (QUERY,),
    *,
    values: dict[str, bytes] | None = None,
    refused: tuple[int, ...] = (401,),
    mint: TokenSource | None = None,
) -> AsyncIterator[Built]:
    """A strategy whose tokens are made up; closed at the end, and then nothing is left."""
    tasks: set[asyncio.Task[None]] = set()

    def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    counting, clock = CountingTokenSource(), ManualClock()
    credential = TokenCredential(
        TokenCache(mint or counting, clock, spawn, lambda: 1.0),
        Placements(http, websocket),
        values=values or {},
        refused=frozenset(refused),
    )
    try:
        yield Built(credential, counting, clock)
    finally:
        credential.close()
        await clock.settle()
        assert not tasks


async def test_a_token_goes_into_its_placements() -> None:
    """One for HTTP, another for WebSocket; the same token in both, from one call."""
    async with built() as one:
        assert one.credential.ready(websocket=False) is None
        http = await one.http()
        socket = await one.credential.obtain(websocket=True)
        assert (http.headers, http.query) == (b"Authorization: Bearer dummy/1\r\n", b"")
        assert (socket.headers, socket.query) == (b"", b"access_token=dummy%2F1")
        assert one.mint.calls == 1


async def test_a_token_is_placed_once() -> None:
    """As long as the token is the same nothing is encoded again; a new one is placed anew."""
    async with built() as one:
        injection = await one.http()
        assert one.credential.ready(websocket=False) is injection
        assert await one.http() is injection
        await one.clock.advance(801)
        renewed = one.credential.ready(websocket=False)
        assert renewed is not None
        assert renewed.headers == b"Authorization: Bearer dummy/2\r\n"


async def test_secrets_may_stand_beside_the_token() -> None:
    """Placements name other secrets too."""
    other = HeaderPlacement(header="X-Workspace", value="{workspace}")
    async with built((HEADER, other), values={"workspace": b"dummy-w"}) as one:
        assert b"\r\nX-Workspace: dummy-w\r\n" in (await one.http()).headers


@pytest.mark.parametrize("websocket", [False, True])
async def test_secrets_that_cannot_be_placed_are_found_when_built(websocket: bool) -> None:
    """Not at the first request; and the value is not in the message."""
    placements = (HEADER, CookiePlacement(cookie="session", value="{session}"))
    both = {"http": (HEADER,), "websocket": (HEADER,)}
    both["websocket" if websocket else "http"] = placements  # type: ignore[assignment]
    with pytest.raises(ValueError, match="session") as caught:
        async with built(**both, values={"session": b"CANARY dummy;"}):  # type: ignore[arg-type]
            pass
    assert "CANARY" not in str(caught.value)


async def test_only_its_placements_are_rendered() -> None:
    """A kind of request without a placement gets no injection, and needs no valid token for it."""
    async with built(websocket=None) as one:
        assert (await one.http()).headers == b"Authorization: Bearer dummy/1\r\n"
        assert len(one.credential.active_injections()) == 1


@pytest.mark.parametrize("websocket", [False, True])
async def test_a_refused_token_is_replaced(websocket: bool) -> None:
    """For either kind of request: worth another try, and then with another token."""
    async with built() as one:
        old = await one.credential.obtain(websocket=websocket)
        assert one.credential.renewable
        assert one.credential.on_response(old, 401)
        assert one.credential.ready(websocket=websocket) is None
        new = await one.credential.obtain(websocket=websocket)
        assert b"2" in new.headers + new.query
        assert one.mint.calls == 2


async def test_other_answers_are_no_refusals() -> None:
    """Only the statuses of the settings say that the token is not taken."""
    async with built(refused=(401, 403)) as one:
        injection = await one.http()
        for status in (101, 200, 400, 402, 404, 429, 500, 503):
            assert not one.credential.on_response(injection, status)
        assert one.credential.ready(websocket=False) is injection
        assert one.credential.on_response(injection, 403)


async def test_late_refusals_leave_the_successor_alone() -> None:
    """Of requests that left with the old token: each may try again, the new token stays."""
    async with built() as one:
        old = await one.http()
        old_socket = await one.credential.obtain(websocket=True)
        assert one.credential.on_response(old, 401)
        assert one.credential.on_response(old_socket, 401)  # before anybody has seen the new one
        new = await one.http()
        for _ in range(20):
            assert one.credential.on_response(old, 401)
            assert one.credential.on_response(old_socket, 401)
        assert one.credential.ready(websocket=False) is new
        assert one.mint.calls == 2


async def test_a_provider_that_refuses_everything_causes_no_storm() -> None:
    """A hundred requests, each refused and perhaps sent once more: two calls."""
    async with built() as one:

        async def request() -> int:
            tries = 1
            injection = await one.http()
            await asyncio.sleep(0)
            if one.credential.on_response(injection, 401):
                tries += 1
                injection = await one.http()
                one.credential.on_response(injection, 401)
            return tries

        tries = await asyncio.gather(*(request() for _ in range(50)))
        tries += [await request() for _ in range(50)]
        assert one.mint.calls == 2
        assert max(tries) == 2
        assert tries[50:] == [1] * 50


async def test_a_token_can_be_handed_out() -> None:
    """With the seconds for which it can still be used; its repr does not show it."""
    async with built() as one:
        assert (await one.credential.vend()).seconds_left == 990
        await one.clock.advance(700)
        vended = await one.credential.vend()
        assert (vended.token, vended.seconds_left) == (b"dummy/1", 290)
        assert "dummy" not in f"{vended!r}{vended}"
        one.mint.failing = True
        await one.clock.advance(300)
        with pytest.raises(Refusal):
            await one.credential.vend()


async def test_no_token_is_a_refusal() -> None:
    """It says why; once there is a token again requests are served."""
    async with built() as one:
        one.mint.failing = True
        one.credential.start()
        with pytest.raises(Refusal, match="the endpoint is down"):
            await one.http()
        assert one.credential.describe() == "no token: the endpoint is down"
        one.mint.failing = False
        await one.clock.advance(2)
        assert one.credential.ready(websocket=False) is not None
        assert one.credential.describe().startswith("token ")


async def test_a_closed_strategy_has_nothing() -> None:
    """No token, no second try, no call; requests get a refusal."""
    async with built() as one:
        injection = await one.http()
        one.credential.close()
        assert one.credential.ready(websocket=False) is None
        assert not one.credential.on_response(injection, 401)
        with pytest.raises(Refusal):
            await one.http()
        assert one.mint.calls == 1


async def test_a_strategy_never_prints_its_token() -> None:
    """Nor the secrets beside it."""
    async with built(values={"other": b"CANARY-other"}) as one:
        injection = await one.http()
        text = f"{one.credential!r}{one.credential}{injection!r}{one.credential.describe()}"
        assert "dummy/1" not in text
        assert "CANARY" not in text


# -- the whole way, over connections --------------------------------------------------------------


def credentials(provider: RawProvider) -> RequestTokenSource:
    request = token_request(
        f"{provider.url}/token",
        (("grant_type", b"client_credentials"),),
        ClientAuthentication("basic", b"dummy-id", b"CANARY-secret"),
    )
    ask = TokenClient(tls_context(), lambda: 1_800_000_000.0, allow_private=False)
    return RequestTokenSource(ask, lambda: request, TokenFields("access_token", EXPIRY, 300))


def json_answer(document: object, status: str = "200 OK", fields: str = "") -> bytes:
    body = json.dumps(document)
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{fields}"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


GOOD = json_answer({"access_token": "CANARY-token", "token_type": "Bearer", "expires_in": "60"})


@both_loops
async def test_two_hundred_requests_make_one_connection() -> None:
    """To the token endpoint; all get what it gave."""
    async with (
        raw_provider(answering(GOOD)) as provider,
        built(mint=credentials(provider)) as one,
    ):
        injections = await asyncio.gather(*(one.http() for _ in range(200)))
        assert provider.connections == 1
        assert {id(injection) for injection in injections} == {id(injections[0])}
        assert injections[0].headers == b"Authorization: Bearer CANARY-token\r\n"
    gc.collect()


@pytest.mark.parametrize(
    "answer",
    [
        json_answer({}, "302 Found", "Location: http://127.0.0.1:9/CANARY\r\n"),
        json_answer({"access_token": "CANARY" * 1_800_000}),
        json_answer("").replace(b"application/json", b"text/html").replace(b'""', b"<>"),
        json_answer({"access_token": "CANARY", "token_type": "mac"}),
        json_answer({"access_token": "CANARY\r\nX: y"}),
    ],
    ids=["302", "10 MiB", "html", "mac", "header"],
)
async def test_answers_that_cannot_be_used(answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A 502 with a time to come back; one connection however many ask, and not a word of it."""
    caplog.set_level("DEBUG")
    async with (
        raw_provider(answering(answer)) as provider,
        built(mint=credentials(provider)) as one,
    ):
        refusals = await asyncio.gather(*(one.http() for _ in range(20)), return_exceptions=True)
        with pytest.raises(Refusal):
            await one.http()
        assert provider.connections == 1
        for refusal in refusals:
            assert isinstance(refusal, Refusal)
            assert refusal.status == 502
            assert refusal.headers == (("Retry-After", "1"),)
            assert "CANARY" not in f"{refusal!r}{vars(refusal)}"
        assert "CANARY" not in one.credential.describe() + caplog.text


async def test_wrong_credentials_are_tried_seldom() -> None:
    """A hundred requests in a minute cause few calls, ever further apart, and none without them."""
    document = {"error": "invalid_client", "error_description": "CANARY"}
    async with (
        raw_provider(answering(json_answer(document, "401 No"))) as provider,
        built(mint=credentials(provider)) as one,
    ):
        one.credential.start()
        calls = []
        for moment in range(100):
            with pytest.raises(Refusal, match="401, invalid_client") as caught:
                await one.http()
            assert caught.value.status == 503
            assert "CANARY" not in f"{caught.value}{caught.value.advice}{caught.value.headers}"
            calls.append(provider.connections)
            if moment % 2:
                await one.clock.advance(1)
        # At once, then after 5 s, 10 s and 20 s more.
        assert [calls.index(number) // 2 for number in range(1, 5)] == [0, 5, 15, 35]
        assert provider.connections == 4
        await one.clock.advance(24)
        assert provider.connections == 4


async def test_the_operator_gets_the_server_s_words() -> None:
    """In the log's part of the refusal and in the state, redacted; the client gets the code."""
    words = "Invalid client secret CANARY-secret provided."
    document = {"error": "invalid_client", "error_description": words}
    async with (
        raw_provider(answering(json_answer(document, "401 No"))) as provider,
        built(mint=credentials(provider)) as one,
    ):
        with pytest.raises(Refusal) as caught:
            await one.http()
        assert "Invalid client secret" in caught.value.log_detail
        assert "Invalid client secret" not in f"{caught.value}{caught.value.advice}"
        assert "Invalid client secret" in one.credential.describe()
        everything = f"{vars(caught.value)}{one.credential.describe()}{one.credential.state()}"
        assert "CANARY" not in everything


async def test_a_token_that_a_placement_cannot_hold() -> None:
    """A cookie holds less than a header: a refusal that names it, and not the token."""

    class Odd:
        async def fetch(self) -> FetchedToken:
            return FetchedToken(b'CANARY;"', 1000)

    cookie = CookiePlacement(cookie="session", value="{token}")
    async with built((cookie,), (HEADER,), mint=Odd()) as one:
        with pytest.raises(Refusal, match="cookie session") as caught:
            await one.http()
        assert one.credential.ready(websocket=False) is None
        assert "CANARY" not in f"{caught.value}{vars(caught.value)}"


async def test_the_predecessor_is_masked_as_well() -> None:
    """A provider may tell of the token that it has just refused; of older ones it hardly will."""
    async with built(values={"key": b"dummy-key"}) as one:
        for _ in range(2):
            await one.http()
            await one.clock.advance(801)
        injection = await one.http()
        assert injection.redactor.redact(b"dummy/1 dummy/2 dummy/3") == b"dummy/1 ******* *******"
