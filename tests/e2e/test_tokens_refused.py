"""Tokens that the provider does not take: replaced once, and the request sent once more."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from websockets.exceptions import InvalidStatus

from tests.emulators import Answer, Denial, Gate, HumeEmulator, Recorded, carriers, json_answer
from tests.emulators.hume import TOKEN_PATH
from tests.support.clock import ManualClock
from tests.support.keyrelay import (
    RawClient,
    Running,
    both_loops,
    client,
    exchange,
    keyrelay,
    preset_keyrelay,
    raw_provider,
    read_head,
    until,
)
from tests.support.reloading import token_route

pytestmark = both_loops

GET = b"GET /hume/v0/evi/configs HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHAT = "/hume/v0/evi/chat"
LIMIT = 64 * 1024
REFUSAL = b'{"fault":{"faultstring":"Invalid ApiKey"}}'


class Hume(HumeEmulator):
    """Judges a request when it has read its body, as most providers do; counts by kind.

    refusals  the gate at which refusals of a POST stand
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.refusals = Gate("refusals", self.changes)

    async def refuse(
        self, request: web.BaseRequest, recorded: Recorded, denial: Denial
    ) -> web.StreamResponse:
        if recorded.method == "POST":
            await self.refusals.stand()
        return await super().refuse(request, recorded, denial)

    def judge(self, recorded: Recorded, found: list[carriers.Carrier]) -> Denial | None:
        return super().judge(recorded, found) if recorded.websocket else None

    def judge_body(self, recorded: Recorded) -> Denial | None:
        found = carriers.find(recorded.target, recorded.headers, self.harmless_query)
        return super().judge(recorded, found)


@pytest.fixture
async def hume(hume_keys: None, clock: ManualClock) -> AsyncIterator[Hume]:
    async with Hume(strategy="token", clock=clock.wall) as emulator:
        yield emulator


@asynccontextmanager
async def with_token(hume: HumeEmulator, clock: ManualClock) -> AsyncIterator[Running]:
    """A keyrelay that has its first token."""
    routes = {"hume": {"provider": "hume", "upstream": hume.origin}}
    async with preset_keyrelay(routes, clock=clock) as running:
        await until(lambda: has_token(running))
        yield running


@pytest.fixture
async def running(hume: Hume, clock: ManualClock) -> AsyncIterator[Running]:
    """With its first token, which the provider has already revoked."""
    async with with_token(hume, clock) as running:
        hume.revoke()
        yield running


def has_token(running: Running) -> bool:
    return running.app.routes[0].strategies[0].credential.describe().startswith("token ")


def post(body: bytes, framing: bytes) -> bytes:
    """A POST's head, and the body if it fits behind it."""
    return (
        b"POST /hume/v0/tts/voices?x=%20 HTTP/1.1\r\nHost: localhost\r\nX-Trace: 7\r\n"
        b"Content-Type: application/octet-stream\r\n" + framing + b"\r\n\r\n" + body
    )


POST = post(b"hello", b"Content-Length: 5")


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in (*pieces, b""))


def bytes_of(size: int) -> bytes:
    return (bytes(range(256)) * (size // 256 + 1))[:size]


async def post_in(running: Running, pieces: list[bytes]) -> tuple[int, bytes, bytes]:
    """Send pieces so that each is read by itself; status, head and body of the answer."""
    async with await RawClient.to(running.port) as one:
        for piece in pieces:
            one.send(piece)
            await asyncio.sleep(0.005)
        return await one.answer()


def same_request(first: Recorded, second: Recorded) -> None:
    """The same bytes, but for the token."""
    assert (first.method, first.target) == (second.method, second.target)
    assert (first.body_length, first.body_sha256) == (second.body_length, second.body_sha256)
    old = [(name, value) for name, value in first.headers if name != b"Authorization"]
    new = [(name, value) for name, value in second.headers if name != b"Authorization"]
    assert old == new
    assert first.values("Authorization") != second.values("Authorization")


# --- sent once more ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "PATCH"])
async def test_a_request_without_a_body(hume: Hume, running: Running, method: str) -> None:
    """One call for a token, one further request, and the client knows nothing of it."""
    url = f"{running.url}/hume/v0/evi/x?y=%20"
    async with client() as http, http.request(method, url) as answer:
        assert answer.status == 200
        await answer.read()
    assert [one.status for one in hume.asked] == [401, 200]
    same_request(*hume.asked)
    assert hume.calls == 2


async def test_a_websocket_handshake(hume: Hume, running: Running) -> None:
    """The same handshake once more; the client sees one 101, and frames that it sent at once."""
    async with running.websocket(f"{CHAT}?x=1", [("X-Trace", "7")], ["a", "b"]) as socket:
        assert socket.subprotocol == "a"
        assert json.loads(await socket.recv())["type"] == "chat_metadata"
        await socket.send("hello")
        assert await socket.recv() == "hello"
    assert [one.status for one in hume.asked] == [401, 101]
    first, second = hume.asked
    assert first.headers == second.headers
    assert (first.query, second.query) == (
        "x=1&access_token=dummy-token-1",
        "x=1&access_token=dummy-token-2",
    )
    assert hume.calls == 2


@pytest.mark.parametrize("size", [0, 1, 5000, LIMIT - 1, LIMIT])
async def test_a_body_of_known_length(hume: Hume, running: Running, size: int) -> None:
    """Up to 64 KiB, in as many reads as it takes."""
    body = bytes_of(size)
    status, _, _ = await post_in(running, [post(body, b"Content-Length: %d" % size)])
    assert status == 200
    assert [one.status for one in hume.asked] == [401, 200]
    same_request(*hume.asked)
    assert hume.asked[1].body_sha256 == hashlib.sha256(body).hexdigest()
    assert hume.asked[1].values("Content-Length") == [str(size)]
    assert hume.calls == 2


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"hello"],
        [b"hello ", b"wor", b"ld"],
        [bytes_of(1000)] * 60,
        pytest.param(
            [bytes_of(LIMIT)],
        ),
    ],
    ids=["empty", "one", "three", "sixty", "64 KiB"],
)
async def test_a_body_in_chunks(hume: Hume, running: Running, pieces: list[bytes]) -> None:
    """The same with chunks, whose boundaries have no meaning."""
    status, _, _ = await post_in(running, [post(chunked(*pieces), b"Transfer-Encoding: chunked")])
    assert status == 200
    assert [one.status for one in hume.asked] == [401, 200]
    same_request(*hume.asked)
    assert hume.asked[1].body_sha256 == hashlib.sha256(b"".join(pieces)).hexdigest()
    assert hume.calls == 2


@pytest.mark.parametrize("chunks", [False, True])
async def test_a_body_in_several_reads(hume: Hume, running: Running, chunks: bool) -> None:
    """Head and body apart, and the body in pieces, as most HTTP libraries send them."""
    parts = [bytes_of(700), b"x", bytes_of(3000)]
    if chunks:
        pieces = [post(b"", b"Transfer-Encoding: chunked")]
        pieces += [b"%x\r\n%b\r\n" % (len(one), one) for one in parts]
        pieces += [b"0\r\n", b"\r\n"]
    else:
        pieces = [post(b"", b"Content-Length: 3701"), *parts]
    status, _, _ = await post_in(running, pieces)
    assert status == 200
    assert [one.status for one in hume.asked] == [401, 200]
    same_request(*hume.asked)
    assert hume.asked[1].body_sha256 == hashlib.sha256(b"".join(parts)).hexdigest()
    assert hume.calls == 2


async def test_expecting_clients(hume: Hume, running: Running) -> None:
    """A client that waits for 100 Continue gets it once, and the answer to the second try."""
    async with await RawClient.to(running.port) as one:
        one.send(post(b"", b"Content-Length: 5\r\nExpect: 100-continue"))
        assert await one.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        one.send(b"hello")
        status, _, body = await one.answer()
    assert (status, json.loads(body)["body_length"]) == (200, 5)
    assert [one.status for one in hume.asked] == [401, 200]


async def test_the_connection_goes_on(hume: Hume, running: Running) -> None:
    """A second try leaves the client's connection as it was: the next request is served on it."""
    async with await RawClient.to(running.port) as one:
        one.send(post(b"hello", b"Content-Length: 5") + GET + GET)
        for _ in range(3):
            status, head, _ = await one.answer()
            assert status == 200
            assert b"Connection: close" not in head
    assert [one.status for one in hume.asked] == [401, 200, 200, 200]


async def test_many_refused_at_once(hume: Hume, running: Running) -> None:
    """Fifty requests that left with the old token: one call, and each once more."""
    hume.uploads.hold()
    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(exchange(running.port, POST)) for _ in range(50)]
        await hume.uploads.reached(50)
        hume.uploads.open()
    assert {(await one)[:13] for one in asking} == {b"HTTP/1.1 200 "}
    assert [one.status for one in hume.asked] == [401] * 50 + [200] * 50
    assert hume.calls == 2


async def test_those_who_leave_while_the_token_is_replaced(hume: Hume, running: Running) -> None:
    """Are not asked for once more; the others are."""
    hume.minting.hold()
    hume.uploads.hold()
    clients = [await RawClient.to(running.port) for _ in range(6)]
    for one in clients:
        one.send(POST)
    await hume.uploads.reached(6)
    hume.uploads.open()
    await until(lambda: len(hume.faults) == 6)
    await hume.minting.reached()
    for one in clients[::2]:
        one.reset()
    await until(lambda: len(running.app._clients) == 3)
    hume.minting.open()
    for one in clients[1::2]:
        assert (await one.answer())[0] == 200
        one.close()
    assert [one.status for one in hume.asked] == [401] * 6 + [200] * 3
    assert hume.calls == 2


async def test_no_token_after_a_refusal(hume: Hume, running: Running) -> None:
    """If the token endpoint refuses as well: 503 and the reason, and no second request. Waiting
    does not help, so no time to come back is given.
    """
    hume.answer_next(json_answer(403, {"error": "unauthorized_client"}), path=TOKEN_PATH)
    said = await exchange(running.port, GET)
    assert said.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: " not in said
    assert b"answered 403, unauthorized_client" in said
    assert [one.status for one in hume.asked] == [401]


# --- not sent once more -----------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [False, True])
async def test_a_larger_body(hume: Hume, running: Running, chunks: bool) -> None:
    """Above 64 KiB nothing is kept: the provider's 401 as it is. The next request is served."""
    body = bytes_of(LIMIT + 1)
    framing = b"Transfer-Encoding: chunked" if chunks else b"Content-Length: %d" % len(body)
    async with await RawClient.to(running.port) as one:
        one.send(post(chunked(body) if chunks else body, framing))
        status, head, said = await one.answer()
        assert (status, said) == (401, REFUSAL)
        assert b"Proxy-Status" not in head
        assert b"problem" not in head
    said = await exchange(running.port, post(b"hello", b"Content-Length: 5"))
    assert said.startswith(b"HTTP/1.1 200 ")
    assert [one.status for one in hume.asked] == [401, 200]
    assert hume.calls == 2


async def test_a_body_that_is_still_coming(hume_keys: None, clock: ManualClock) -> None:
    """A provider that refuses at once: its 401 goes to the client, which may still be sending."""
    async with (
        HumeEmulator(strategy="token", clock=clock.wall) as hume,
        with_token(hume, clock) as running,
    ):
        hume.revoke()
        async with await RawClient.to(running.port) as one:
            one.send(post(b"hello", b"Content-Length: 6"))
            status, head, said = await one.answer()
            assert (status, said) == (401, REFUSAL)
            assert b"\r\nConnection: close\r\n" in head
        assert (await exchange(running.port, GET)).startswith(b"HTTP/1.1 200 ")
    assert [one.status for one in hume.asked] == [401, 200]
    assert len(hume.fetched) == 2


@pytest.mark.parametrize("status", [400, 402, 403, 404, 429, 500, 503])
async def test_other_answers_are_the_provider_s(hume: Hume, running: Running, status: int) -> None:
    """Only what says that the token is not taken causes a call."""
    assert (await exchange(running.port, GET)).startswith(b"HTTP/1.1 200 ")
    hume.answer_next(json_answer(status, {"n": 1}, ("Retry-After", "7")), path="/v0/")
    said = await exchange(running.port, GET)
    assert said.startswith(b"HTTP/1.1 %d " % status)
    assert said.endswith(b'{"n":1}')
    assert b"\r\nRetry-After: 7\r\n" in said
    assert [one.status for one in hume.asked] == [401, 200, status]
    assert hume.calls == 2


async def test_a_refusal_within_a_good_answer(hume: Hume, running: Running) -> None:
    """A stream that says 401 in an event, with status 200, passes byte for byte."""
    assert (await exchange(running.port, GET)).startswith(b"HTTP/1.1 200 ")
    events = b'event: error\ndata: {"status": 401, "message": "Unauthorized"}\n\n'
    fields = (("Content-Type", "text/event-stream"),)
    hume.answer_next(Answer(200, events, fields), path="/v0/")
    async with client() as http, http.post(f"{running.url}/hume/v0/tts/x", json={}) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        assert await answer.read() == events
    assert len(hume.asked) == 3
    assert hume.calls == 2


# --- no storms --------------------------------------------------------------------------------


@pytest.fixture
async def never(hume_keys: None, clock: ManualClock) -> AsyncIterator[tuple[Hume, Running]]:
    """A provider that gives tokens and takes none of them."""
    async with (
        Hume(strategy="key", clock=clock.wall) as hume,
        with_token(hume, clock) as running,
    ):
        yield hume, running


@pytest.mark.parametrize("together", [1, 10, 100])
async def test_a_provider_that_refuses_everything(
    never: tuple[Hume, Running], clock: ManualClock, together: int
) -> None:
    """A hundred requests, two calls, no request more than twice, and the provider's answers."""
    hume, running = never
    for _ in range(100 // together):
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(exchange(running.port, GET)) for _ in range(together)]
        for one in asking:
            head, _, body = (await one).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 401 ")
            assert b"Proxy-Status" not in head
            assert body == REFUSAL
    assert hume.calls == 2
    assert 100 < len(hume.asked) <= 100 + together
    # Half a minute later it is worth one more try.
    asked = len(hume.asked)
    await clock.advance(31)
    for _ in range(10):
        assert (await exchange(running.port, GET)).startswith(b"HTTP/1.1 401 ")
    assert (hume.calls, len(hume.asked)) == (3, asked + 11)


async def test_a_second_refusal_is_the_last(
    never: tuple[Hume, Running], clock: ManualClock
) -> None:
    """Sent twice and no more, also if there has been another token since."""
    hume, running = never
    hume.refusals.hold()
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(exchange(running.port, POST))
        await hume.refusals.reached()
        hume.refusals.release()
        await until(lambda: len(hume.asked) == 2)
        await hume.refusals.reached()
        # Its second try waits while its token is renewed, and the new one used.
        await clock.advance(1501)
        await until(lambda: hume.calls == 3)
        assert (await exchange(running.port, GET)).startswith(b"HTTP/1.1 401 ")
        hume.refusals.open()
    assert asking.result().startswith(b"HTTP/1.1 401 ")
    assert [one.status for one in hume.asked if one.method == "POST"] == [401, 401]


async def test_sockets_that_are_always_refused(never: tuple[Hume, Running]) -> None:
    """The handshake gets the provider's 401 as it is, and there is no storm either."""
    hume, running = never
    for _ in range(20):
        with pytest.raises(InvalidStatus) as refused:
            await running.websocket(CHAT).__aenter__()
        assert refused.value.response.status_code == 401
        assert refused.value.response.body == REFUSAL
    assert (hume.calls, len(hume.asked)) == (2, 21)


# --- however the refusal comes ----------------------------------------------------------------

FORMS = {
    "length": [b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno"],
    "bodiless": [b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"],
    "closing": [b"HTTP/1.1 401 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"],
    "until close": [b"HTTP/1.1 401 No\r\nConnection: close\r\n\r\nno"],
    "chunked": [b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n", b"0\r\n\r\n"],
    "endless": [b"HTTP/1.1 401 No\r\nContent-Length: 1000000\r\n\r\nno"],
    "interim": [
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n",
    ],
    "torn": [b"HTTP/1.1 4", b"01 No\r\nContent-Le", b"ngth: 2\r\n\r\nn", b"o"],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("body", [b"", b"hello"])
async def test_forms_of_refusals(dummy_key: bytes, form: str, body: bytes) -> None:
    """Nothing of it reaches the client, nothing is left for the next answer."""
    fetched = 0
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal fetched
        while True:
            try:
                head = await read_head(reader)
            except (asyncio.IncompleteReadError, ConnectionResetError):
                return
            if head.startswith(b"POST /token "):
                await reader.readexactly(len(b"grant_type=client_credentials"))
                fetched += 1
                said = b'{"access_token": "dummy-%d", "expires_in": 60}' % fetched
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (len(said), said)
                )
                continue
            seen.append(head + await reader.readexactly(len(body)))
            if b"\r\nAuthorization: Bearer dummy-1\r\n" not in head:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes")
                continue
            for piece in FORMS[form]:
                writer.write(piece)
                await asyncio.sleep(0.002)
            if b"Connection: close" in FORMS[form][0]:
                return

    async with raw_provider(serve) as provider:
        route = token_route(provider.url, "env:DUMMY_KEY", client_id="env:DUMMY_KEY")
        async with keyrelay({"api": route}) as running:
            request = b"PUT /api/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
            async with await RawClient.to(running.port) as one:
                for _ in range(3):
                    one.send(request % (len(body), body))
                    status, _, said = await one.answer()
                    assert (status, said) == (200, b"yes")
                await one.nothing()
    assert fetched == 2
    assert len(seen) == 4
    assert seen[0].replace(b"dummy-1", b"dummy-2") == seen[1]
