"""Tokens through keyrelay, kept fresh on Hume's emulator: fetched once, renewed, out of order.

Beside this: ``_hume`` and ``_inworld`` for what goes where, ``_refused`` for tokens that a provider
does not take, ``_mints`` for token endpoints that misbehave, ``_time`` for real time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress

import pytest
from aiohttp import web
from websockets.exceptions import InvalidStatus

from tests.emulators import Answer, HumeEmulator, Recorded, json_answer
from tests.emulators.hume import TOKEN_PATH
from tests.support.clock import ManualClock
from tests.support.keyrelay import (
    RawClient,
    Running,
    both_loops,
    client,
    exchange,
    preset_keyrelay,
    until,
)

pytestmark = both_loops

GET = (
    b"GET /hume/v0/evi/configs?api_key=client-dummy HTTP/1.1\r\nHost: localhost\r\n"
    b"X-Hume-Api-Key: client-dummy-key\r\nAuthorization: Bearer client-dummy-token\r\n\r\n"
)
CHAT = "/hume/v0/evi/chat?access_token=client-dummy-token"
LIFETIME = 1800


class FailingHume(HumeEmulator):
    """Its token endpoint gives ``instead`` of a token, as long as there is that."""

    instead: Answer | None = None

    async def serve(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        if recorded.path == TOKEN_PATH and self.instead is not None:
            return await self.send(request, recorded, self.instead)
        return await super().serve(request, recorded)


@pytest.fixture
async def hume(hume_keys: None, clock: ManualClock) -> AsyncIterator[FailingHume]:
    async with FailingHume(strategy="token", lifetime_seconds=LIFETIME, clock=clock.wall) as hume:
        yield hume


@pytest.fixture
async def running(hume: FailingHume, clock: ManualClock) -> AsyncIterator[Running]:
    """With its first token."""
    async with keyrelay_to(hume, clock) as running:
        await until(lambda: has_token(running))
        yield running


def keyrelay_to(hume: HumeEmulator, clock: ManualClock) -> AbstractAsyncContextManager[Running]:
    routes = {"hume": {"provider": "hume", "upstream": hume.origin}}
    return preset_keyrelay(routes, clock=clock)


def state(running: Running) -> str:
    """What keyrelay says of the route's token."""
    return running.app.routes[0].strategies[0].credential.describe()


def has_token(running: Running) -> bool:
    return state(running).startswith("token ")


def has_new_token(running: Running) -> bool:
    """One that is younger than a minute and a half; the one before is told of in minutes."""
    return has_token(running) and " s old" in state(running)


def tokens_in(recorded: list[Recorded]) -> list[str]:
    """Which token came with each request, header or query alike."""
    return [
        one.value("Authorization").removeprefix("Bearer ") or one.query.rpartition("=")[2]
        for one in recorded
    ]


# --- the first token --------------------------------------------------------------------------


async def test_the_token_is_there_before_anybody_asks(hume: FailingHume, running: Running) -> None:
    """It is fetched when keyrelay starts; requests of either kind then use it, and it alone."""
    assert (hume.calls, hume.asked) == (1, [])
    assert (await exchange(running.port, GET)).startswith(b"HTTP/1.1 200 ")
    async with running.websocket(CHAT) as socket:
        assert json.loads(await socket.recv())["type"] == "chat_metadata"
    assert tokens_in(hume.asked) == ["dummy-token-1", "dummy-token-1"]
    assert (hume.calls, hume.faults) == (1, [])


async def test_two_hundred_first_requests_cause_one_call(
    hume: FailingHume, clock: ManualClock
) -> None:
    """However many wait for the first token, sockets among them: asked for once, good for all."""
    hume.minting.hold()
    async with keyrelay_to(hume, clock) as running:
        await hume.minting.reached()

        async def chat() -> bytes:
            async with running.websocket(CHAT) as socket:
                assert json.loads(await socket.recv())["type"] == "chat_metadata"
            return b"HTTP/1.1 200 "

        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(exchange(running.port, GET)) for _ in range(160)]
            asking += [tasks.create_task(chat()) for _ in range(40)]
            await until(lambda: waiting(running) == 200)
            assert (hume.minting.waiting, hume.calls, hume.asked) == (1, 1, [])
            hume.minting.release()
        assert {(await one)[:13] for one in asking} == {b"HTTP/1.1 200 "}
    assert (hume.calls, len(hume.asked), hume.faults) == (1, 200, [])


def waiting(running: Running) -> int:
    """Connections of clients with a request under way."""
    return sum(not one.idle for one in running.app._clients)


@pytest.mark.parametrize("left", [1, 10, 20])
async def test_clients_that_leave_harm_no_other(
    hume: FailingHume, clock: ManualClock, left: int
) -> None:
    """Remaining requests are served by the fetch under way; cancelled ones cost nothing more."""
    hume.minting.hold()
    async with keyrelay_to(hume, clock) as running:
        clients = [await RawClient.to(running.port) for _ in range(20)]
        for one in clients:
            one.send(GET)
        await until(lambda: waiting(running) == 20)
        for number, one in enumerate(clients[:left]):
            one.reset() if number % 2 else one.close()
        await until(lambda: len(running.app._clients) == 20 - left)
        hume.minting.release()
        for one in clients[left:]:
            assert (await one.answer())[0] == 200
            one.close()
        # Also when all have left: the next one finds the token.
        assert (await exchange(running.port, GET)).startswith(b"HTTP/1.1 200 ")
    assert (hume.calls, len(hume.asked), hume.faults) == (1, 20 - left + 1, [])


async def test_what_a_client_sends_while_it_waits_is_not_lost(
    hume: FailingHume, clock: ManualClock
) -> None:
    """An upload that begins before the token is there arrives whole."""
    hume.minting.hold()
    body = bytes(range(256)) * 4096
    async with keyrelay_to(hume, clock) as running, client() as http:
        await hume.minting.reached()
        async with asyncio.TaskGroup() as tasks:
            url = f"{running.url}/hume/v0/tts/voices"
            posting = tasks.create_task(http.post(url, data=body))
            await until(lambda: waiting(running) == 1)
            hume.minting.release()
        async with await posting as answer:
            assert (await answer.json())["body_length"] == len(body)
    assert hume.faults == []


# --- renewal ----------------------------------------------------------------------------------


async def test_tokens_are_renewed_before_they_end(
    hume: FailingHume, running: Running, clock: ManualClock
) -> None:
    """With no request waiting: the next one finds the new token, and none ever meets the end."""
    await clock.advance(LIFETIME - 361)
    assert hume.calls == 1
    await clock.advance(62)
    await hume.minting.sent(2)
    await until(lambda: has_new_token(running))
    assert (hume.calls, hume.asked) == (2, [])
    await clock.advance(400)  # the first is over
    assert (await exchange(running.port, GET)).startswith(b"HTTP/1.1 200 ")
    assert tokens_in(hume.asked) == ["dummy-token-2"]
    assert hume.faults == []


async def test_requests_use_the_old_token_during_renewal(
    hume: FailingHume, running: Running, clock: ManualClock
) -> None:
    """No request waits for a renewal, or starts another."""
    hume.minting.hold()
    await clock.advance(LIFETIME - 299)
    await hume.minting.reached()
    for _ in range(10):
        assert (await exchange(running.port, GET)).startswith(b"HTTP/1.1 200 ")
    async with running.websocket(CHAT) as socket:
        await socket.recv()
    assert set(tokens_in(hume.asked)) == {"dummy-token-1"}
    hume.minting.release()
    await until(lambda: has_new_token(running))
    assert (await exchange(running.port, GET)).startswith(b"HTTP/1.1 200 ")
    assert tokens_in(hume.asked)[-1] == "dummy-token-2"
    assert (hume.calls, hume.faults) == (2, [])


async def test_streams_and_sockets_outlive_their_token(
    hume: FailingHume, running: Running, clock: ManualClock
) -> None:
    """A token opens; what is open is not touched when it is renewed or ends."""
    hume.pieces.hold()
    async with (
        running.websocket(CHAT) as socket,
        client() as http,
        http.post(f"{running.url}/hume/v0/tts/stream/file", json={}) as answer,
    ):
        await socket.recv()
        for piece in hume.chunks:
            await clock.advance(LIFETIME // 2)
            hume.pieces.release()
            assert await answer.content.readexactly(len(piece)) == piece
            await socket.send("still there?")
            assert await socket.recv() == "still there?"
    assert hume.faults == []


# --- the token endpoint is out of order -------------------------------------------------------


async def test_a_valid_token_outlasts_its_endpoint(
    hume: FailingHume, running: Running, clock: ManualClock
) -> None:
    """Served while the old token is valid; then 503 and the reason; then again, by itself."""
    words = {"error": "out_of_order", "secret": "CANARY"}
    hume.instead = json_answer(500, words, ("X-Canary", "CANARY"))
    await clock.advance(LIFETIME - 299)
    await until(lambda: hume.calls >= 2)
    for _ in range(8):
        assert (await exchange(running.port, GET)).startswith(b"HTTP/1.1 200 ")
        await clock.advance(30)
    assert hume.faults == []
    await until(lambda: hume.calls > 2)  # by itself
    assert hume.calls < 30  # spaced out, and none for the sake of a request
    served = len(hume.asked)

    await clock.advance(60)
    for _ in range(10):
        said = await exchange(running.port, GET)
        head, _, body = said.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nContent-Type: application/problem+json\r\n" in head
        assert b"\r\nProxy-Status: keyrelay; error=proxy_internal_response" in head
        problem = json.loads(body)
        assert problem["status"] == 503
        assert problem["type"] == "urn:keyrelay:problem:no-token"
        assert "the token endpoint answered 500" in problem["detail"]
        (wait,) = (
            int(line.partition(b":")[2])
            for line in head.split(b"\r\n")
            if line.startswith(b"Retry-After:")
        )
        assert 1 <= wait <= 60
        assert f"come back in {wait} s" in problem["advice"]
        assert b"CANARY" not in said
        assert b"out_of_order" not in said
    with pytest.raises(InvalidStatus) as refused:
        await running.websocket(CHAT).__aenter__()
    assert refused.value.response.status_code == 503
    assert "Retry-After" in refused.value.response.headers
    assert len(hume.asked) == served

    hume.instead = None
    calls = hume.calls
    await clock.advance(61)
    await until(lambda: has_token(running))
    assert hume.calls == calls + 1
    assert (await exchange(running.port, GET)).startswith(b"HTTP/1.1 200 ")
    running.app.exchange_log.flush()
    written = "".join(running.lines)
    assert "CANARY" not in written
    assert "out_of_order" in written  # the endpoint's own code is the operator's
    assert hume.faults == []


async def test_an_endpoint_that_nobody_reaches(hume: FailingHume, clock: ManualClock) -> None:
    """The connection breaks without an answer: 503 and the reason, until it is back."""
    hume.minting.hold()
    async with keyrelay_to(hume, clock) as running:
        async with await RawClient.to(running.port) as one:
            one.send(GET)
            await until(lambda: waiting(running) == 1)
            await hume.minting.reached()
            hume.drop_connections()
            status, _, body = await one.answer()
        assert status == 503
        assert "cannot be reached" in json.loads(body)["detail"]
        hume.minting.open()
        await clock.advance(2)
        await until(lambda: has_token(running))
        assert (await exchange(running.port, GET)).startswith(b"HTTP/1.1 200 ")
    assert hume.faults == []


async def test_other_paths_go_on_without_a_token(hume: FailingHume, clock: ManualClock) -> None:
    """What the key serves does not wait for a token that is not to be had."""
    hume.instead = json_answer(503, {})
    async with keyrelay_to(hume, clock) as running:
        await until(lambda: state(running).startswith("no token: "))
        assert (await exchange(running.port, GET)).startswith(b"HTTP/1.1 503 ")
        jobs = GET.replace(b"/v0/evi/configs", b"/v0/batch/jobs")
        assert (await exchange(running.port, jobs)).startswith(b"HTTP/1.1 200 ")
        async with running.websocket("/hume/v0/stream/models") as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
    assert hume.faults == []


async def test_keyrelay_stops_while_clients_wait_for_a_token(
    hume: FailingHume, clock: ManualClock
) -> None:
    """It does not wait for the token endpoint; the clients hear why, or that it is gone."""
    hume.minting.hold()
    async with keyrelay_to(hume, clock) as running, await RawClient.to(running.port) as one:
        one.send(GET)
        await until(lambda: waiting(running) == 1)
        async with asyncio.timeout(2):
            await running.app.close()
        said = b""
        with suppress(ConnectionResetError):
            said = await one.rest()
        assert said[:13] in {b"", b"HTTP/1.1 503 "}
    await hume.connected(0)
