"""How sessions end that keyrelay has to end: both sides are told, whatever they are doing.

The peers are real ones; a frame that was cut, or a Close frame amid another, would be a protocol
error to them, and its code is not 1001.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import cast

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from proxy.websocket.closing import GracefulClose
from proxy.websocket.relay import Relay
from tests.support.certificates import Authority
from tests.support.keyrelay import (
    RawClient,
    Running,
    both_loops,
    proxied,
    proxied_client,
    read_head,
    until,
)
from tests.support.websocket import HANDSHAKE, MEBIBYTE, accept, ended, pair, relaying, switching

pytestmark = both_loops

GOING_AWAY = b"\x88\x02\x03\xe9"
SESSIONS = 200
LARGE = bytes(range(251)) * 20_000
HALF = len(LARGE) // 2
SWITCHING = (b"Upgrade: websocket", b"Connection: Upgrade")

Peer = ClientConnection | ServerConnection


def relays(running: Running) -> set[Relay]:
    return running.app._context.relays


def close_gracefully(running: Running, seconds: float = 5) -> None:
    """As keyrelay does when it is told to stop."""
    assert relays(running)
    for relay in relays(running):
        relay.close_gracefully(seconds)


@asynccontextmanager
async def open_session(
    compression: str | None = None, authority: Authority | None = None
) -> AsyncIterator[tuple[Running, ClientConnection, ServerConnection]]:
    tls = authority.server("127.0.0.1") if authority else None
    async with (
        relaying(compression=compression, tls=tls) as (running, provider),
        running.websocket("/api/chat", compression=compression) as client,
    ):
        yield running, client, await provider.session()


async def both_see_1001(
    running: Running, client: ClientConnection, session: ServerConnection
) -> None:
    async with asyncio.timeout(10):
        await client.wait_closed()
        await session.wait_closed()
    assert (client.close_code, session.close_code) == (1001, 1001)
    await ended(running)


async def gone(running: Running, begun: float, at_most: float) -> None:
    """The session is over within so many seconds of its beginning to end."""
    await until(lambda: not relays(running), seconds=at_most)
    assert time.monotonic() - begun < at_most


# -- what the two are doing --------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("compression", ["deflate", None])
async def test_an_idle_session(
    dummy_key: bytes, trusted: Authority, compression: str | None, secure: bool
) -> None:
    """Client and provider see 1001, soon, though both would have had more time."""
    async with open_session(compression, trusted if secure else None) as (running, client, session):
        await client.send("hello")
        assert await session.recv() == "hello"
        await session.send("hello")
        assert await client.recv() == "hello"
        begun = time.monotonic()
        close_gracefully(running, 20)
        await both_see_1001(running, client, session)
        await gone(running, begun, 2)


async def stream(peer: Peer, size: int, pause: float) -> None:
    """Send audio until the session is over, each frame telling its place."""
    with suppress(ConnectionClosed):
        number = 0
        while True:
            await peer.send(number.to_bytes(4) * (size // 4))
            number += 1
            await asyncio.sleep(pause)


async def in_pieces(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write it with pauses, which are no border between frames."""
    for at in range(0, len(data), 300_001):
        writer.write(data[at : at + 300_001])
        await asyncio.sleep(0.005)


async def listen(peer: Peer) -> int:
    """Take audio until the session is over: whole, in order, nothing missing before the end."""
    number = 0
    with suppress(ConnectionClosed):
        while True:
            message = await peer.recv()
            assert isinstance(message, bytes)
            assert message == number.to_bytes(4) * (len(message) // 4)
            number += 1
    return number


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("compression", ["deflate", None])
@pytest.mark.parametrize(
    ("size", "pause"), [(640, 0.02), (3840, 0.005), (100_000, 0.02), (32, 0.0)]
)
async def test_audio_both_ways(
    dummy_key: bytes,
    trusted: Authority,
    compression: str | None,
    secure: bool,
    size: int,
    pause: float,
) -> None:
    """In the midst of audio both see 1001, and what they have got of it is whole."""
    async with open_session(compression, trusted if secure else None) as (running, client, session):
        async with asyncio.TaskGroup() as tasks:
            for peer in (client, session):
                tasks.create_task(stream(peer, size, pause))
            heard = [tasks.create_task(listen(peer)) for peer in (client, session)]
            await asyncio.sleep(0.1)
            close_gracefully(running)
        await both_see_1001(running, client, session)
        assert all(task.result() for task in heard)


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_amid_a_large_frame_to_the_client(
    dummy_key: bytes, trusted: Authority, secure: bool
) -> None:
    """A frame of 5 MB of which a part is under way, in reads of any size, arrives whole before the
    session ends.
    """
    frame = bytes(Frame(Opcode.BINARY, LARGE).serialize(mask=False))
    go_on = asyncio.Event()

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key = next(line for line in (await read_head(reader)).split(b"\r\n") if b"-Key:" in line)
        writer.write(switching(*SWITCHING, b"Sec-WebSocket-Accept: " + accept(key[19:])))
        writer.write(frame[:HALF])
        await go_on.wait()
        await in_pieces(writer, frame[HALF:])
        # The Close frame that keyrelay sent, and its echo.
        await reader.readexactly(8)
        writer.write(GOING_AWAY)

    tls = trusted.server("127.0.0.1") if secure else None
    async with (
        proxied(send, tls=tls) as (_, running),
        running.websocket("/api/chat", compression=None) as client,
    ):
        await until(lambda: [one for one in relays(running) if one._provider.moved])
        close_gracefully(running)
        go_on.set()
        assert await client.recv() == LARGE
        await client.wait_closed()
        assert client.close_code == 1001
        await ended(running)


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_amid_a_large_frame_to_the_provider(
    dummy_key: bytes, trusted: Authority, secure: bool
) -> None:
    """The same the other way."""
    frame = bytes(Frame(Opcode.BINARY, LARGE).serialize(mask=True))
    tls = trusted.server("127.0.0.1") if secure else None
    async with (
        relaying(compression=None, tls=tls) as (running, provider),
        await RawClient.to(running.port) as client,
    ):
        client.send(HANDSHAKE)
        await client.head()
        session = await provider.session()
        client.send(frame[:HALF])
        await until(lambda: [one for one in relays(running) if one._client.moved])
        close_gracefully(running)
        await in_pieces(client.writer, frame[HALF:])
        assert await session.recv() == LARGE
        assert await client.exactly(4) == GOING_AWAY
        client.send(b"\x88\x82\0\0\0\0\x03\xe9")
        assert await client.rest() == b""
        await session.wait_closed()
        assert session.close_code == 1001
        client.close()
        await ended(running)


async def test_a_peer_that_does_not_read(dummy_key: bytes) -> None:
    """Silence of a blocked connection is no silence: a frame that waits in the middle is ended when
    there is room, and the Close frame comes behind it.
    """
    size = 20 * MEBIBYTE
    head = b"\x82\x7f" + size.to_bytes(8)
    answered = asyncio.Event()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(switching() + head + bytes(size))
        await writer.drain()
        await reader.readexactly(8)
        answered.set()
        await reader.read()

    async with proxied_client(pour) as (_, running, client):
        client.send(HANDSHAKE)
        await client.head()
        close_gracefully(running)
        # Much longer than silence has to last.
        await asyncio.sleep(0.2)
        assert await client.exactly(len(head) + size) == head + bytes(size)
        assert await client.exactly(len(GOING_AWAY)) == GOING_AWAY
        await answered.wait()
        client.close()


async def test_one_that_never_pauses(dummy_key: bytes) -> None:
    """Where no border between frames can be found, the session still ends within its time, and not
    before half of it.
    """
    begun = 0.0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(switching())
        with suppress(ConnectionError):
            while True:
                # No WebSocket frames at all: reserved bits.
                writer.write(b"\xff" * 10_000)
                await writer.drain()

    async with proxied_client(pour) as (_, running, client):
        client.send(HANDSHAKE)
        await client.head()
        begun = time.monotonic()
        close_gracefully(running, 0.4)
        assert GOING_AWAY in await client.rest()
        await gone(running, begun, 2)
        assert time.monotonic() - begun > 0.2


# -- what they do about it ---------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
async def test_no_response(dummy_key: bytes, trusted: Authority, secure: bool) -> None:
    """Peers that never answer are told, waited for, and then left."""
    told = bytearray()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(switching())
        with suppress(ConnectionError):
            told.extend(await reader.readexactly(8))
            await reader.read()

    tls = trusted.server("127.0.0.1") if secure else None
    async with proxied_client(swallow, tls=tls) as (_, running, client):
        client.send(HANDSHAKE)
        await client.head()
        begun = time.monotonic()
        close_gracefully(running, 0.3)
        assert await client.rest() == GOING_AWAY
        assert time.monotonic() - begun > 0.29
        await gone(running, begun, 2)
        mask, masked = told[2:6], told[6:]
        assert told[:2] == b"\x88\x82"
        assert bytes(a ^ b for a, b in zip(mask, masked, strict=False)) == b"\x03\xe9"


async def test_a_provider_that_keeps_its_connection(dummy_key: bytes, trusted: Authority) -> None:
    """A provider that answers with a Close frame but never ends TLS is dropped in time."""
    tls = trusted.server("127.0.0.1")
    over = asyncio.Event()

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(switching())
        await reader.readexactly(8)
        cast(asyncio.Transport, writer.transport).pause_reading()
        writer.write(GOING_AWAY)
        await over.wait()
        writer.transport.abort()

    async with proxied_client(keep, tls=tls) as (_, running, client):
        client.send(HANDSHAKE)
        await client.head()
        begun = time.monotonic()
        close_gracefully(running, 0.3)
        assert await client.exactly(4) == GOING_AWAY
        client.send(b"\x88\x82\0\0\0\0\x03\xe9")
        await gone(running, begun, 10)
        over.set()


async def test_what_comes_after_does_not_cross(dummy_key: bytes) -> None:
    """Behind a Close frame nothing else is written to either side (RFC 6455 section 5.5.1)."""
    ping = b"\x89\x80\0\0\0\0"
    told = bytearray()
    both = asyncio.Event()

    async def talk_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(switching())
        with suppress(ConnectionError):
            told.extend(await reader.readexactly(8))
            both.set()
            writer.write(b"\x89\x00" * 3)
            told.extend(await reader.read())

    async with proxied_client(talk_on) as (_, running, client):
        client.send(HANDSHAKE)
        await client.head()
        close_gracefully(running, 0.3)
        assert await client.exactly(4) == GOING_AWAY
        await both.wait()
        client.send(ping * 3)
        assert await client.rest() == b""
        await until(lambda: not relays(running))
        assert len(told) == 8


@pytest.mark.parametrize("side", ["client", "provider"])
async def test_one_side_closes_meanwhile(dummy_key: bytes, side: str) -> None:
    """When one side vanishes the other gets its Close frame, and the session ends."""
    async with open_session() as (running, client, session):
        near: Peer = client if side == "client" else session
        far = session if side == "client" else client
        begun = time.monotonic()
        close_gracefully(running, 20)
        near.transport.abort()
        await far.wait_closed()
        assert far.close_code == 1001
        await gone(running, begun, 2)


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("side", ["client", "provider"])
async def test_one_closes_by_itself(
    dummy_key: bytes, trusted: Authority, side: str, secure: bool
) -> None:
    """A side that closes just then gets its own code back, from the other side."""
    async with open_session(None, trusted if secure else None) as (running, client, session):
        near: Peer = client if side == "client" else session
        far = session if side == "client" else client
        close_gracefully(running)
        await near.close(4321, "enough")
        await far.wait_closed()
        assert (near.close_code, far.close_code) == (4321, 4321)
        await ended(running)


async def test_a_session_that_has_ended_already(dummy_key: bytes) -> None:
    """Saying goodbye twice, or to a session that is just being lost, changes nothing."""
    async with open_session() as (running, client, session):
        (relay,) = relays(running)
        close_gracefully(running)
        close_gracefully(running)
        await both_see_1001(running, client, session)
        relay.close_gracefully(1)
        assert running.app.exchange_log.total == 1


async def test_no_time_at_all(dummy_key: bytes) -> None:
    """Without any time to wait both are still told."""
    async with open_session() as (running, client, session):
        close_gracefully(running, 0)
        await both_see_1001(running, client, session)


async def test_half_a_session(dummy_key: bytes) -> None:
    """A direction that has ended already has no room for a Close frame; the other one has."""
    told = bytearray()

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(switching())
        writer.write_eof()
        told.extend(await reader.read())

    async with proxied_client(half) as (_, running, client):
        client.send(HANDSHAKE)
        await client.head()
        assert await client.rest() == b""
        begun = time.monotonic()
        close_gracefully(running, 0.3)
        await until(lambda: len(told) == 8)
        await gone(running, begun, 2)


async def test_without_a_network() -> None:
    """Where a connection has no round trip, as on a unix socket, it is done all the same; the
    session is over once both have answered.
    """
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    async with pair() as (near, client), pair() as (far, provider):
        relay = Relay(near, far, loop, lambda *_: over.set())
        relay.start(from_client=b"", from_provider=b"")
        GracefulClose(relay._client, relay._provider, loop, 20)
        assert await client.exactly(4) == GOING_AWAY
        assert (await provider.exactly(8))[:2] == b"\x88\x82"
        provider.send(GOING_AWAY)
        assert await provider.rest() == b""
        provider.close()
        await client.nothing()
        client.send(b"\x88\x82\0\0\0\0\x03\xe9")
        assert await client.rest() == b""
        client.close()
        async with asyncio.timeout(2):
            await over.wait()


# -- many --------------------------------------------------------------------------------------


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_many_at_once(dummy_key: bytes, busy: bool) -> None:
    """Two hundred sessions, idle or all sending, are all told, in no more time than one."""
    async with relaying() as (running, provider), AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(running.websocket("/api/chat")) for _ in range(SESSIONS)
        ]
        sessions = [await provider.session() for _ in range(SESSIONS)]
        peers: list[Peer] = [*clients, *sessions]
        async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
            if busy:
                for peer in peers:
                    tasks.create_task(stream(peer, 640, 0.1))
                    tasks.create_task(listen(peer))
                await asyncio.sleep(0.3)
            close_gracefully(running, 10)
            for peer in peers:
                tasks.create_task(peer.wait_closed())
        assert {peer.close_code for peer in peers} == {1001}
        await until(lambda: not relays(running))
