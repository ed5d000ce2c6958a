"""The end under load: SIGTERM while much is under way."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as serve_websockets
from websockets.exceptions import ConnectionClosed

from tests.support.command import Process, keyrelay, keys, running
from tests.support.keyrelay import RawClient, raw_provider, read_head, until

ANSWERS, STREAMS, SOCKETS = 20, 5, 20
SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


@dataclass
class Load:
    """Requests and WebSockets of a keyrelay that runs, all of which are under way.

    process   the keyrelay
    go        the provider ends its answers from then on
    answers   clients whose answer has not begun
    streams   clients that have had the first event
    sockets   end with the code of the Close frame of each WebSocket, None without one
    """

    process: Process
    go: asyncio.Event
    answers: list[RawClient] = field(default_factory=list)
    streams: list[RawClient] = field(default_factory=list)
    sockets: list[asyncio.Task[int | None]] = field(default_factory=list)


async def told(socket: ClientConnection) -> int | None:
    """With which code the session was ended; until then talk and listen."""
    try:
        while True:
            await socket.send(b"x" * 320)
            await socket.recv()
    except ConnectionClosed as closed:
        return None if closed.rcvd is None else closed.rcvd.code


@asynccontextmanager
async def load(directory: Path, drain_seconds: float) -> AsyncIterator[Load]:
    """Everything is under way when the block begins."""
    go = asyncio.Event()
    arrived = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        head = await read_head(reader)
        arrived += 1
        if b"/slow" in head.partition(b"\r\n")[0]:
            await go.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return
        writer.write(SSE_HEAD)
        for number in range(3):
            writer.write(b"9\r\ndata: %d\n\n\r\n" % number)
            await go.wait()
        writer.write(b"0\r\n\r\n")

    async def echo(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(raw_provider(serve))
        talker = await stack.enter_async_context(serve_websockets(echo, "127.0.0.1", 0))
        [listening] = talker.sockets
        file = directory / "routes.yaml"
        file.write_text(
            f"listen: 127.0.0.1:0\ndrain_seconds: {drain_seconds}\n"
            "routes:\n"
            f"  hume: {{provider: hume, spares: 0, upstream: '{provider.url}'}}\n"
            f"  talk: {{provider: hume, upstream: 'http://127.0.0.1:{listening.getsockname()[1]}'}}\n"
        )
        process = await stack.enter_async_context(running("run", "-c", str(file), variables=keys()))
        found = Load(process, go)
        for path, count, clients in (
            ("slow", ANSWERS, found.answers),
            ("sse", STREAMS, found.streams),
        ):
            for _ in range(count):
                one = await stack.enter_async_context(await RawClient.to(process.port))
                one.send(f"GET /hume/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                clients.append(one)
        for stream in found.streams:
            assert b"200 OK" in await stream.head()
            assert await stream.chunk() == b"data: 0\n\n"
        await until(lambda: arrived == ANSWERS + STREAMS)
        for _ in range(SOCKETS):
            socket = await stack.enter_async_context(
                connect(f"ws://127.0.0.1:{process.port}/talk/x", proxy=None, close_timeout=1)
            )
            found.sockets.append(asyncio.get_running_loop().create_task(told(socket)))
        try:
            yield found
        finally:
            for task in found.sockets:
                task.cancel()


async def test_everything_in_flight_ends_well(tmp_path: Path) -> None:
    """Whole answers that say that the connection ends, whole streams, 1001 for every WebSocket;
    no connection is accepted; exit 0 when the last has ended, not later."""
    async with load(tmp_path, 20) as found:
        process = found.process
        process.signal(signal.SIGTERM)
        await process.said("Stopping.")
        async with asyncio.timeout(15):
            assert await asyncio.gather(*found.sockets) == [1001] * SOCKETS
        assert keyrelay("health", process.urls[0]).code == 1
        found.go.set()
        for answer in found.answers:
            status, head, body = await answer.answer()
            assert (status, body) == (200, b"ok")
            assert b"\r\nconnection: close\r\n" in head.lower()
            assert await answer.rest() == b""
        for stream in found.streams:
            # What comes together may cross as one chunk.
            rest = await stream.rest()
            assert b"data: 1\n\n" in rest
            assert b"data: 2\n\n" in rest
            assert rest.endswith(b"\r\n0\r\n\r\n")
        assert await process.ended() == 0
        await process.logged(ANSWERS + STREAMS + SOCKETS)
        assert process.out.count('"status": 200, "outcome": ""') == ANSWERS + STREAMS


async def test_its_time_is_bounded(tmp_path: Path) -> None:
    """What does not end within drain_seconds is broken off, visibly; exit 0 all the same."""
    async with load(tmp_path, 1) as found:
        began = time.monotonic()
        found.process.signal(signal.SIGTERM)
        assert await found.process.ended() == 0
        assert 0.9 < time.monotonic() - began < 5
        assert await asyncio.gather(*found.sockets) == [1001] * SOCKETS
        for stream in found.streams:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await stream.chunk()


async def test_a_second_signal_waits_for_nobody(tmp_path: Path) -> None:
    """Gone at once under the same load, and no answer looks whole that is not."""
    async with load(tmp_path, 60) as found:
        process = found.process
        process.signal(signal.SIGTERM)
        await process.said("Stopping.")
        began = time.monotonic()
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
        assert time.monotonic() - began < 5
        async with asyncio.timeout(5):
            await asyncio.gather(*found.sockets)
        for client in found.answers:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await client.head()
        for stream in found.streams:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await stream.chunk()


async def test_sockets_that_are_talking_are_told_as_well() -> None:
    """1001 for each, also where the provider answers a Close frame with another code, as the demo
    provider does (1000)."""
    async with (
        AsyncExitStack() as stack,
        running("run", "demo", "--listen", "127.0.0.1:0") as process,
        asyncio.TaskGroup() as talking,
    ):
        url = f"ws://127.0.0.1:{process.port}/demo/ws"
        sockets = [
            await stack.enter_async_context(connect(url, proxy=None, close_timeout=1))
            for _ in range(SOCKETS)
        ]
        codes = [talking.create_task(told(socket)) for socket in sockets]
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
        assert [await code for code in codes] == [1001] * SOCKETS
