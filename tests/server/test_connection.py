"""Connections from clients: what they may send, in which order answers come, when they end."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy.app.supply import Timeouts
from proxy.errors import Refusal
from proxy.http.problem import plain
from proxy.http.request import Request
from proxy.server.connection import ClientConnection
from proxy.server.connection_limit import ConnectionLimit
from tests.support.keyrelay import (
    RawClient,
    answering,
    both_loops,
    exchange,
    keyrelay,
    proxied,
    read_head,
    until,
)

pytestmark = both_loops

HEAD = b" HTTP/1.1\r\nHost: localhost\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD_SECONDS, KEEPALIVE_SECONDS = 15.0, 75.0
DEMO = {
    "upstream": "builtin:demo",
    "secrets": {"key": "builtin:demo"},
    "auth": [
        {
            "http": {"header": "X-Demo-Key", "value": "{key}"},
            "websocket": {"query": "demo_key", "value": "{key}"},
        }
    ],
}


class Taken:
    """An exchange under way, and what the door has told it."""

    def __init__(
        self, request: Request, client: ClientConnection, body: bytes, ended: bool
    ) -> None:
        self.request = request
        self.client = client
        self.content = body
        self.ended = ended
        self.lost = False
        self.full = False

    def on_request_body(self, data: bytes, *, ended: bool) -> None:
        self.content += data
        self.ended = ended

    def on_client_disconnect(self) -> None:
        self.lost = True

    async def until_lost(self) -> None:
        await until(lambda: self.lost)

    def on_client_blocked(self) -> None:
        self.full = True

    def on_client_writable(self) -> None:
        self.full = False

    def answer(self, data: bytes = OK) -> None:
        self.client.write(data)
        self.client.done()


class Door:
    """What a listener's requests meet here: those for /no… are refused and those for /local… are
    answered at once; all others wait in ``queue``.
    """

    def __init__(self) -> None:
        self.port = 0
        self.connections: set[ClientConnection] = set()
        self.paths: list[bytes] = []
        self.queue: asyncio.Queue[Taken] = asyncio.Queue()

    def handle(
        self, request: Request, client: ClientConnection, body: bytes, ended: bool
    ) -> Taken | None:
        self.paths.append(request.path)
        if request.path.startswith(b"/no"):
            client.refuse(Refusal(403, "dummy-refusal", "No."))
            return None
        if request.path.startswith(b"/local"):
            client.write(plain(200, request.path, close=client.must_close))
            client.done()
            return None
        taken = Taken(request, client, body, ended)
        self.queue.put_nowait(taken)
        return taken

    async def taken(self) -> Taken:
        async with asyncio.timeout(5):
            return await self.queue.get()

    @property
    def connection(self) -> ClientConnection:
        (one,) = self.connections
        return one

    def expire(self, seconds: float) -> None:
        """What the listener's ticker does, ``seconds`` from now."""
        now = asyncio.get_running_loop().time() + seconds
        for connection in list(self.connections):
            connection.expire(now)


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Door, RawClient]]:
    """A door, and a client that has come to it."""
    door = Door()
    loop = asyncio.get_running_loop()
    times = Timeouts(HEAD_SECONDS, KEEPALIVE_SECONDS)
    server = await loop.create_server(
        lambda: ClientConnection(door.handle, door.connections, times, loop), "127.0.0.1", 0
    )
    door.port = server.sockets[0].getsockname()[1]
    client = await RawClient.to(door.port)
    try:
        yield door, client
    finally:
        client.reset()
        server.close()
        for connection in door.connections:
            connection.transport.abort()
        await until(lambda: not door.connections)


# -- one request after another -----------------------------------------------------------------


async def test_a_connection_serves_many_requests() -> None:
    """After an answer the connection takes the next request."""
    async with opened() as (door, client):
        for number in range(3):
            client.send(b"GET /%d" % number + HEAD + b"\r\n")
            taken = await door.taken()
            assert (taken.request.path, taken.ended) == (b"/%d" % number, True)
            taken.answer()
            assert (await client.answer())[2] == b"ok"
        assert len(door.connections) == 1


async def test_pipelined_requests_wait_for_their_turn() -> None:
    """Requests sent at once are begun one by one and answered in their order, whether they are
    answered at once, refused or forwarded.
    """
    async with opened() as (door, client):
        paths = [b"/a", b"/no/1", b"/local/1", b"/b", b"/local/2", b"/no/2", b"/c"]
        client.send(b"".join(b"GET " + path + HEAD + b"\r\n" for path in paths))
        first = await door.taken()
        await client.nothing()
        assert door.paths == [b"/a"]
        first.answer()
        assert (await client.answer())[2] == b"ok"
        assert (await client.answer())[0] == 403
        assert (await client.answer())[2] == b"/local/1"
        second = await door.taken()
        assert second.request.path == b"/b"
        second.answer()
        statuses = [(await client.answer())[0] for _ in range(3)]
        assert statuses == [200, 200, 403]
        (await door.taken()).answer()
        assert (await client.answer())[0] == 200
        assert door.paths == paths


async def test_a_request_that_comes_later_waits_as_well() -> None:
    """What arrives while a request is under way is kept, in pieces or whole."""
    async with opened() as (door, client):
        client.send(b"GET /a" + HEAD + b"\r\n")
        taken = await door.taken()
        client.send(b"GET /b HTTP/1.1\r\nHo")
        await client.nothing()
        client.send(b"st: localhost\r\n\r\nGET /local/c" + HEAD + b"\r\n")
        await client.nothing()
        taken.answer()
        assert (await client.answer())[0] == 200
        (await door.taken()).answer()
        await client.answer()
        assert (await client.answer())[2] == b"/local/c"


@pytest.mark.parametrize("cut", range(1, 5))
async def test_a_request_behind_a_blank_line_that_was_cut(cut: int) -> None:
    """Where a read ends within the line that ends a head, what follows in the next is served."""
    one, two = (b"GET /" + name + HEAD + b"\r\n" for name in (b"one", b"two"))
    async with opened() as (door, client):
        client.send(one[:-cut])
        await client.nothing()
        client.send(one[-cut:] + two)
        for path in (b"/one", b"/two"):
            taken = await door.taken()
            assert taken.request.path == path
            taken.answer()
            assert (await client.answer())[0] == 200


async def test_pipelined_bodies_stay_with_their_requests() -> None:
    """A body that looks like a request is a body, and what follows it is the next request."""
    async with opened() as (door, client):
        inner = b"GET /smuggled" + HEAD + b"\r\n"
        request = b"POST /a" + HEAD + b"Content-Length: %d\r\n\r\n" % len(inner) + inner
        client.send(request + request)
        for _ in range(2):
            taken = await door.taken()
            assert (taken.content, taken.ended) == (inner, True)
            taken.answer()
            await client.answer()
        assert door.paths == [b"/a", b"/a"]


async def test_a_body_streams_in() -> None:
    """A body is passed on as it comes, its chunks decoded. Nothing is served behind it, because
    the parser would mix its trailers into what follows.
    """
    async with opened() as (door, client):
        client.send(b"POST /a" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        taken = await door.taken()
        assert (taken.content, taken.ended) == (b"", False)
        client.send(b"3\r\nabc\r\n")
        await until(lambda: taken.content == b"abc")
        assert not taken.ended
        client.send(b"2\r\nde\r\n0\r\n\r\nGET /local" + HEAD + b"\r\n")
        await until(lambda: taken.ended)
        assert taken.content == b"abcde"
        taken.answer()
        assert (await client.answer())[2] == b"ok"
        assert await client.rest() == b""


async def test_a_flood_behind_a_request_is_not_read() -> None:
    """While a request is under way, only so much is read of what comes behind it."""
    async with opened() as (door, client):
        client.send(b"GET /a" + HEAD + b"\r\n")
        taken = await door.taken()
        count = 200_000
        client.send(b"GET /local" + HEAD + b"\r\n")
        client.send((b"GET /no" + HEAD + b"\r\n") * count)
        await client.nothing()
        assert not door.connection.transport.is_reading()
        taken.answer()
        await client.answer()
        assert (await client.answer())[2] == b"/local"
        assert (await client.answer())[0] == 403


async def test_a_client_that_reads_nothing_is_not_served_on() -> None:
    """Who asks and asks and takes no answer is not asked for more before he has: what waits for
    him stays bounded, and all of it comes once he reads.
    """
    async with opened() as (door, client):
        count = 60_000
        client.send((b"GET /local" + HEAD + b"\r\n") * count)
        served = -1
        while served != len(door.paths) or not served:
            served = len(door.paths)
            await client_pause()
        assert served < count
        assert door.connection.transport.get_write_buffer_size() < 1 << 20
        door.expire(KEEPALIVE_SECONDS + 1)  # slow, not silent
        for _ in range(count):
            assert (await client.answer())[2] == b"/local"
        client.send(b"GET /a" + HEAD + b"\r\n")
        (await door.taken()).answer()
        assert (await client.answer())[2] == b"ok"


async def client_pause() -> None:
    """Time for the other side to do what it should not: the shorter side of a proof."""
    await asyncio.sleep(0.02)


async def test_the_next_request_waits_for_a_slow_reader() -> None:
    """A request behind a large answer begins when the client has taken most of that answer."""
    async with opened() as (door, client):
        client.send(b"GET /a" + HEAD + b"\r\nGET /b" + HEAD + b"\r\n")
        taken = await door.taken()
        size = 32 << 20
        taken.client.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        taken.answer(bytes(size))
        assert taken.full
        await client_pause()
        assert door.paths == [b"/a"]
        assert len((await client.answer())[2]) == size
        (await door.taken()).answer()
        assert (await client.answer())[2] == b"ok"


async def test_a_connection_that_closes_when_idle_begins_no_request() -> None:
    """An idle connection ends at once; one with a request, when it has its answer; and what came
    behind a large answer that is still being taken is not begun.
    """
    async with opened() as (door, client):
        client.send(b"GET /local" + HEAD + b"\r\n")
        await client.answer()
        door.connection.close_when_idle()
        assert await client.rest() == b""
    async with opened() as (door, client):
        client.send(b"GET /a" + HEAD + b"\r\nGET /b" + HEAD + b"\r\n")
        taken = await door.taken()
        taken.client.close_when_idle()
        taken.answer()
        assert (await client.answer())[2] == b"ok"
        assert await client.rest() == b""
        assert door.paths == [b"/a"]
    async with opened() as (door, client):
        client.send(b"GET /a" + HEAD + b"\r\nGET /b" + HEAD + b"\r\n")
        taken = await door.taken()
        size = 32 << 20
        taken.client.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        taken.answer(bytes(size))
        taken.client.close_when_idle()
        assert len((await client.answer())[2]) == size
        assert await client.rest() == b""
        assert door.paths == [b"/a"]


# -- what is refused ---------------------------------------------------------------------------

MALFORMED = {
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET /" + HEAD + b"Host: dummy-canary\r\n\r\n", 400),
    "NUL": (b"GET /" + HEAD + b"X: dummy-canary\0\r\n\r\n", 400),
    "bare CR": (b"GET /" + HEAD + b"X: dummy\r-canary\r\n\r\n", 400),
    "bare LF": (b"GET /dummy-canary HTTP/1.1\nHost: localhost\n\n", 400),
    "folded": (b"GET /" + HEAD + b"X: a\r\n dummy-canary\r\n\r\n", 400),
    "space before colon": (b"GET /" + HEAD + b"X-dummy-canary : a\r\n\r\n", 400),
    "lower-case method": (b"get /dummy-canary" + HEAD + b"\r\n", 400),
    "unknown method": (b"DUMMY /dummy-canary" + HEAD + b"\r\n", 400),
    "raw bytes in target": (b"GET /dummy-canary\xff" + HEAD + b"\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "CL and TE": (
        b"POST /" + HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "two CL": (b"POST /" + HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
    "two same CL": (b"POST /" + HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400),
    "TE unknown": (b"POST /" + HEAD + b"Transfer-Encoding: xchunked\r\n\r\n", 400),
    "TE not last": (b"POST /" + HEAD + b"Transfer-Encoding: chunked, x\r\n\r\n", 400),
    "bad chunk": (b"POST /" + HEAD + b"Transfer-Encoding: chunked\r\n\r\ndummy-canary\r\n", 400),
    "long target": (b"GET /dummy-canary" + b"a" * 16_384 + HEAD + b"\r\n", 431),
    "long field": (b"GET /" + HEAD + b"X: dummy-canary" + b"a" * 16_384 + b"\r\n\r\n", 431),
    "many fields": (b"GET /" + HEAD + b"X: dummy-canary\r\n" * 128 + b"\r\n", 431),
}


@pytest.mark.parametrize(("request_bytes", "status"), MALFORMED.values(), ids=MALFORMED.keys())
async def test_malformed_requests(request_bytes: bytes, status: int) -> None:
    """What is no proper HTTP/1.1 reaches nobody: one answer with its status and without a word of
    the request, then the end of the connection.
    """
    async with opened() as (door, client):
        client.send(request_bytes)
        answered, head, body = await client.answer()
        assert answered == status
        assert b"Connection: close\r\n" in head
        assert b"canary" not in head + body
        assert json.loads(body)["status"] == status
        assert await client.rest() == b""
        assert not door.paths


async def test_a_malformed_request_behind_good_ones() -> None:
    """Good requests in front of a malformed one are served before it is refused."""
    async with opened() as (door, client):
        client.send(b"GET /a" + HEAD + b"\r\nGET /local" + HEAD + b"\r\n" + b"GET / dummy\r\n\r\n")
        (await door.taken()).answer()
        assert [(await client.answer())[0] for _ in range(3)] == [200, 200, 400]
        assert await client.rest() == b""


async def test_a_body_that_goes_wrong_ends_everything() -> None:
    """Malformed chunks under way: the exchange is told, and the connection breaks off."""
    async with opened() as (door, client):
        client.send(b"POST /a" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        taken = await door.taken()
        client.send(b"dummy\r\n")
        await taken.until_lost()
        with pytest.raises(ConnectionResetError):
            await client.rest()


# -- when a connection ends --------------------------------------------------------------------


async def test_an_idle_connection_is_closed_after_its_time() -> None:
    """An unused connection lives for the keep-alive time, counted from its last answer."""
    async with opened() as (door, client):
        door.expire(KEEPALIVE_SECONDS - 1)
        client.send(b"GET /local" + HEAD + b"\r\n")
        await client.answer()
        door.expire(KEEPALIVE_SECONDS - 1)
        await client.nothing()
        door.expire(KEEPALIVE_SECONDS + 1)
        assert await client.rest() == b""


async def test_half_a_head_is_closed_after_its_time() -> None:
    """A head must be complete in time, and bytes that trickle in do not prolong that."""
    async with opened() as (door, client):
        client.send(b"GET / HT")
        await until(lambda: door.connection.deadline < asyncio.get_running_loop().time() + 16)
        deadline = door.connection.deadline
        client.send(b"TP/1.1\r\n")
        await client.nothing()
        assert door.connection.deadline == deadline
        door.expire(HEAD_SECONDS - 1)
        await client.nothing()
        door.expire(HEAD_SECONDS + 1)
        assert await client.rest() == b""
        assert not door.paths


async def test_a_request_under_way_has_no_deadline() -> None:
    """However long the answer takes, the client's connection is not what gives up."""
    async with opened() as (door, client):
        client.send(b"GET /a" + HEAD + b"\r\n")
        taken = await door.taken()
        door.expire(1e9)
        taken.answer()
        assert (await client.answer())[2] == b"ok"


async def test_a_silent_body_is_given_up() -> None:
    """A body may pause for minutes, not forever; while reading is paused by us, no time runs."""
    async with opened() as (door, client):
        client.send(b"POST /a" + HEAD + b"Content-Length: 5\r\n\r\nab")
        taken = await door.taken()
        door.expire(299)
        assert not taken.lost
        taken.client.pause_reading()
        door.expire(1e9)
        assert not taken.lost
        taken.client.resume_reading()
        door.expire(301)
        await taken.until_lost()
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_a_client_that_leaves_is_noticed() -> None:
    """An exchange under way is told when its client closes or resets the connection."""
    for leave in (RawClient.close, RawClient.reset):
        async with opened() as (door, client):
            client.send(b"GET /a" + HEAD + b"\r\n")
            taken = await door.taken()
            leave(client)
            await taken.until_lost()
            assert door.connections == set()


@pytest.mark.parametrize("fields", [b"Connection: close\r\n", b"Connection: x, close\r\n"])
async def test_the_client_may_ask_to_close(fields: bytes) -> None:
    """``Connection: close`` is obeyed, and a request behind it is not served."""
    async with opened() as (door, client):
        client.send(b"GET /local" + HEAD + fields + b"\r\nGET /local/2" + HEAD + b"\r\n")
        assert b"Connection: close\r\n" in (await client.answer())[1]
        assert await client.rest() == b""
        assert door.paths == [b"/local"]


async def test_http_1_0_gets_one_response() -> None:
    """A client of HTTP/1.0 gets its answer and the end of the connection, keep-alive or not."""
    async with opened() as (_, client):
        client.send(b"GET /local HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (await client.answer())[0] == 200
        assert await client.rest() == b""


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /local" + HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
        b"CONNECT localhost:80" + HEAD + b"\r\n",
    ],
)
async def test_after_an_offer_to_upgrade_nothing_is_read(request_head: bytes) -> None:
    """The parser cannot be trusted behind such a request, so its answer ends the connection; what
    was sent behind it is neither served nor lost without a word.
    """
    async with opened() as (door, client):
        client.send(request_head + b"GET /local/smuggled" + HEAD + b"\r\n")
        if request_head.startswith(b"CONNECT"):
            (await door.taken()).client.refuse(Refusal(405, "dummy", "No."))
        assert b"Connection: close\r\n" in (await client.answer())[1]
        assert await client.rest() == b""
        assert b"/local/smuggled" not in door.paths


# -- answers before the request's end ----------------------------------------------------------


@pytest.mark.parametrize("path", [b"/no", b"/local"])
async def test_an_early_response_can_be_read(path: bytes) -> None:
    """A client still sending when it is refused gets the whole answer and a clean end, however much
    it sends on; after a while it is cut off.
    """
    async with opened() as (door, client):
        client.send(b"POST " + path + HEAD + b"Content-Length: 100000000\r\n\r\n" + bytes(1 << 20))
        _, head, _ = await client.answer()
        assert b"Connection: close\r\n" in head
        client.send(bytes(1 << 20))
        assert await client.rest() == b""
        client.send(bytes(1 << 20))
        await client_pause()
        door.expire(4)
        assert door.connections
        door.expire(6)
        await until(lambda: not door.connections)


async def test_a_slow_upload_is_read_to_its_end() -> None:
    """A refused client that still sends is not reset between two pieces of its body."""
    async with opened() as (door, client):
        client.send(b"POST /no" + HEAD + b"Content-Length: 100000000\r\n\r\n" + bytes(1 << 16))
        await client.answer()
        first = door.connection.deadline
        await client_pause()
        client.send(bytes(1 << 16))
        await until(lambda: door.connection.deadline > first)
        assert door.connections


async def test_an_early_response_of_a_provider() -> None:
    """An exchange that is done before the request's body ends: the same, and it hears no more."""
    async with opened() as (door, client):
        client.send(b"POST /a" + HEAD + b"Content-Length: 10\r\n\r\nab")
        taken = await door.taken()
        assert taken.client.must_close
        taken.client.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        taken.client.done(close=True)
        client.send(b"cdefghij")
        assert (await client.answer())[0] == 413
        assert await client.rest() == b""
        assert taken.content == b"ab"
        assert not taken.lost


async def test_a_broken_response_is_seen_as_broken() -> None:
    """``abort`` resets the connection, because a plain end would look like the end of an answer
    without length; ``close_after_flush`` still delivers what was written.
    """
    async with opened() as (door, client):
        client.send(b"GET /a HTTP/1.0\r\n\r\n")
        taken = await door.taken()
        taken.client.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await client.answer()
        taken.client.abort()
        with pytest.raises(ConnectionResetError):
            await client.rest()
    async with opened() as (door, client):
        client.send(b"GET /a" + HEAD + b"\r\n")
        taken = await door.taken()
        size = 8 << 20
        taken.client.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + bytes(size))
        taken.client.close_after_flush()
        assert (await client.answer())[0] == 200
        assert len(await client.rest()) == size


# -- through the whole of keyrelay -------------------------------------------------------------


async def test_mixed_requests_through_keyrelay(dummy_key: bytes) -> None:
    """Pages of our own, refusals and forwarded requests in one packet are answered in order."""
    async with proxied(answering(OK)) as (provider, running):
        lines = [b"GET /api/1", b"GET /none", b"GET /-/health", b"GET /api/2", b"TRACE /api"]
        data = b"".join(line + HEAD + b"\r\n" for line in lines)
        data += b"GET /api/3" + HEAD + b"Connection: close\r\n\r\n"
        said = await exchange(running.port, data, until_close=True)
        statuses = [int(part[:3]) for part in said.split(b"HTTP/1.1 ")[1:]]
        assert statuses == [200, 404, 200, 200, 405, 200]
        assert provider.connections == 1


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"chunked\r\nTransfer-Encoding: chunked"])
async def test_transfer_codings_are_refused(dummy_key: bytes, coding: bytes) -> None:
    """Of transfer codings only chunked passes; for any other nothing is dialled, and the connection
    ends, because a server before or behind us may see another end of the request.
    """
    async with proxied(answering(OK)) as (provider, running):
        request = b"POST /api" + HEAD + b"Transfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n"
        said = await exchange(running.port, request, until_close=True)
        assert said[9:12] in {b"400", b"501"}
        assert b"Connection: close\r\n" in said
        assert provider.connections == 0


async def test_other_expectations_are_refused(dummy_key: bytes) -> None:
    """Of expectations only 100-continue is known; for any other nothing is dialled."""
    async with proxied(answering(OK)) as (provider, running):
        said = await exchange(running.port, b"GET /api" + HEAD + b"Expect: 200-ok\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 417 ")
        assert provider.connections == 0


@pytest.mark.parametrize("line", [b"GET /api\r\n", b"GET /api HTTP/2.0\r\nHost: localhost\r\n"])
async def test_other_versions_are_refused(dummy_key: bytes, line: bytes) -> None:
    """HTTP/0.9 and HTTP/2 in the clear get 505 in HTTP/1.1 and the end of the connection."""
    async with proxied(answering(OK)) as (provider, running):
        said = await exchange(running.port, line + b"\r\n", until_close=True)
        assert said.startswith(b"HTTP/1.1 505 ")
        assert provider.connections == 0


async def test_transfer_coding_in_http_1_0_is_refused(dummy_key: bytes) -> None:
    """RFC 9112 section 6.1: chunks in HTTP/1.0 are faulty framing, and end the connection."""
    async with proxied(answering(OK)) as (provider, running):
        request = b"POST /api HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        said = await exchange(running.port, request + b"0\r\n\r\n", until_close=True)
        assert said.startswith(b"HTTP/1.1 400 ")
        assert provider.connections == 0


async def test_expect_100_continue(dummy_key: bytes) -> None:
    """A client that expects 100 gets it once the request is admitted, and the provider sees no
    expectation.
    """
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_head(reader))
        seen.append(await reader.readexactly(2))
        writer.write(OK)

    async with proxied(serve) as (_, running):
        client = await RawClient.to(running.port)
        client.send(b"POST /api" + HEAD + b"Content-Length: 2\r\nExpect: 100-Continue\r\n\r\n")
        assert (await client.answer())[1] == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hi")
        assert (await client.answer())[0] == 200
        assert b"expect" not in seen[0].lower()
        assert seen[1] == b"hi"
        client.close()


async def test_no_100_continue_before_a_refusal(dummy_key: bytes) -> None:
    """A refused request gets its refusal at once, never a 100, and nothing is dialled."""
    async with proxied(answering(OK)) as (provider, running):
        request = b"POST /none" + HEAD + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        said = await exchange(running.port, request, until_close=True)
        assert said.startswith(b"HTTP/1.1 404 ")
        assert provider.connections == 0


async def test_http_1_0_gets_no_interim_response(dummy_key: bytes) -> None:
    """An expectation in HTTP/1.0 is ignored (RFC 9110 section 10.1.1)."""
    async with proxied(answering(OK)) as (provider, running):
        client = await RawClient.to(running.port)
        client.send(
            b"POST /api HTTP/1.0\r\nHost: localhost\r\nContent-Length: 2\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        await until(lambda: provider.connections)
        client.send(b"hi")
        assert (await client.rest()).startswith(b"HTTP/1.1 200 OK\r\n")
        client.close()


async def test_h2c_is_ignored(dummy_key: bytes) -> None:
    """An offer of HTTP/2 is answered in HTTP/1.1, and the provider sees no trace of it."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_head(reader))
        writer.write(OK)

    async with proxied(serve) as (_, running):
        said = await exchange(
            running.port,
            b"GET /api" + HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        )
        assert said.startswith(b"HTTP/1.1 200 OK\r\n")
        assert not {b"upgrade", b"http2-settings"} & set(
            seen[0].lower().replace(b":", b" ").split()
        )


async def test_unix_sockets_serve_as_well() -> None:
    """The door works on a unix socket, its lingering and its breaking off included."""
    door = Door()
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    await loop.connect_accepted_socket(
        lambda: ClientConnection(
            door.handle, door.connections, Timeouts(HEAD_SECONDS, KEEPALIVE_SECONDS), loop
        ),
        far,
    )
    client = RawClient(*await asyncio.open_unix_connection(sock=near))
    client.send(b"POST /no" + HEAD + b"Content-Length: 9\r\n\r\n")
    assert (await client.answer())[0] == 403
    door.connection.abort()
    await until(lambda: not door.connections)
    client.close()


# -- which connections may stay ----------------------------------------------------------------


async def test_one_connection_too_many_is_refused(dummy_key: bytes) -> None:
    """It gets a 503 with Retry-After before it has said anything, and the end; the others go on.
    When one of them leaves, the next may come.
    """
    async with keyrelay({"demo": DEMO}, max_connections=2) as running:
        first = await RawClient.to(running.port)
        second = await RawClient.to(running.port)
        for one in (first, second):
            one.send(b"GET /-/health" + HEAD + b"\r\n")
            assert (await one.answer())[0] == 200
        async with await RawClient.to(running.port) as third:
            status, head, body = await third.answer()
            assert status == 503
            assert b"\r\nRetry-After: 1\r\n" in head
            assert b"\r\nConnection: close\r\n" in head
            assert json.loads(body)["type"] == "urn:keyrelay:problem:too-many-connections"
            assert await third.rest() == b""
        second.send(b"GET /-/health" + HEAD + b"\r\n")
        assert (await second.answer())[0] == 200
        first.reset()
        await until(lambda: len(running.app._clients) == 1)
        first = await RawClient.to(running.port)
        first.send(b"GET /-/health" + HEAD + b"\r\n")
        assert (await first.answer())[0] == 200
        first.reset()
        second.reset()


async def test_open_websockets_do_not_count(dummy_key: bytes) -> None:
    """They stay for hours: only what waits for requests has to make room."""
    async with (
        keyrelay({"demo": DEMO}, max_connections=1) as running,
        running.websocket("/demo/ws"),
    ):
        await until(lambda: not running.app._clients)
        said = await exchange(running.port, b"GET /-/health" + HEAD + b"\r\n")
        assert said.startswith(b"HTTP/1.1 200 ")


@asynccontextmanager
async def closed(limit: ConnectionLimit) -> AsyncIterator[Door]:
    """An open connection with a client."""
    door = Door()
    loop = asyncio.get_running_loop()
    times = Timeouts(HEAD_SECONDS, KEEPALIVE_SECONDS)
    server = await loop.create_server(
        lambda: ClientConnection(door.handle, door.connections, times, loop, limit),
        "127.0.0.1",
        0,
    )
    door.port = server.sockets[0].getsockname()[1]
    try:
        yield door
    finally:
        server.close()
        for connection in [*door.connections, *limit.refused]:
            connection.transport.abort()
        await until(lambda: not door.connections and not limit.refused)


def never(_transport: asyncio.BaseTransport) -> Refusal:
    return Refusal(403, "dummy-refusal", "No.")


async def test_a_refused_connection_is_not_read() -> None:
    """Whatever it sends, no request begins, and it can take its answer before the end."""
    limit = ConnectionLimit(9, never)
    async with closed(limit) as door, await RawClient.to(door.port) as client:
        client.send(b"POST /x" + HEAD + b"Content-Length: 200000\r\n\r\n" + b"x" * 100_000)
        assert (await client.answer())[0] == 403
        assert await client.rest() == b""
        client.send(b"x" * 100_000)
        assert (door.paths, door.connections) == ([], set())
        assert len(limit.refused) == 1


async def test_a_refused_connection_is_closed() -> None:
    """A client that does not close is closed after some seconds."""
    limit = ConnectionLimit(9, never)
    async with closed(limit) as door, await RawClient.to(door.port) as client:
        await client.answer()
        (one,) = limit.refused
        now = asyncio.get_running_loop().time()
        one.expire(now + 1)
        assert limit.refused
        one.expire(now + 6)
        await until(lambda: not limit.refused)


async def test_a_flood_gets_no_response() -> None:
    """Of those turned away some may linger; the rest is reset, and nothing is left behind."""
    limit = ConnectionLimit(9, never)
    async with closed(limit) as door:
        clients = [await RawClient.to(door.port) for _ in range(80)]
        answers = await asyncio.gather(*(one.rest() for one in clients), return_exceptions=True)
        assert sum(isinstance(one, bytes) and b" 403 " in one for one in answers) == 64
        assert len(limit.refused) <= 64
        for one in clients:
            one.reset()
        await until(lambda: not limit.refused)
