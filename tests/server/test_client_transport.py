"""Clients that end their sending direction behind a request, and those that are gone."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.support.keyrelay import RawClient, Running, both_loops, proxied, read_head, until

pytestmark = both_loops

HEAD = b" HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /api/x" + HEAD + b"\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HANDSHAKE = (
    b"GET /api/x" + HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: BACScCJPNqyz+UBoqMH89VmURoA=\r\n\r\n"
)
CHUNKED = b"POST /api/x" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = b"POST /api/x" + HEAD + b"Content-Length: 5\r\n\r\n"

Connect = Callable[[], Awaitable[RawClient]]


class Provider:
    """Responds to each request after ``delay`` seconds. ``left`` is set when a connection ends."""

    def __init__(self) -> None:
        self.response = OK
        self.delay = 0.1
        self.bodies: list[bytes] = []
        self.requests = 0
        self.left = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await read_head(reader)).lower()
                if b"transfer-encoding: chunked" in head:
                    self.bodies.append(await reader.readuntil(b"0\r\n\r\n"))
                elif b"content-length: 5" in head:
                    self.bodies.append(await reader.readexactly(5))
                self.requests += 1
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.delay):
                        # Nothing follows before the response: this is the end.
                        await reader.read(1)
                        break
                writer.write(self.response)
        self.left.set()


@asynccontextmanager
async def stage(path: Path | None) -> AsyncIterator[tuple[Provider, Running, Connect]]:
    """Keyrelay on a port, or on a unix socket at ``path``."""
    provider = Provider()
    listen = ["127.0.0.1:0"] if path is None else [f"unix:{path}"]
    async with (
        proxied(provider.serve, listen=listen) as (_, relay),
    ):

        async def connect() -> RawClient:
            if path is None:
                return await RawClient.to(relay.port)
            return RawClient(*await asyncio.open_unix_connection(path))

        yield provider, relay, connect


@pytest.fixture(params=["tcp", "unix"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return None if request.param == "tcp" else tmp_path / "keyrelay"


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(
    ("request_bytes", "body"),
    [
        (GET, None),
        (LENGTH + b"hello", b"hello"),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
    ],
    ids=["GET", "length", "chunked"],
)
async def test_a_response_follows_the_end_of_the_request(
    dummy_key: bytes, path: Path | None, request_bytes: bytes, body: bytes | None, apart: bool
) -> None:
    """A client that has ended its sending direction gets the response, and then the end."""
    async with stage(path) as (provider, relay, connect):
        client = await connect()
        if apart:
            client.send(request_bytes[:-3])
            await asyncio.sleep(0.05)
            client.send(request_bytes[-3:])
            await until(lambda: provider.requests == 1)
        else:
            client.send(request_bytes)
        client.writer.write_eof()
        response = await client.rest()
        assert response.startswith(b"HTTP/1.1 200 ")
        assert response.endswith(b"\r\n\r\nok")
        assert provider.bodies == ([] if body is None else [body])
        await until(lambda: not relay.app._clients)
        client.writer.close()


@pytest.mark.parametrize("count", [2, 5])
async def test_every_pipelined_request_gets_its_response(
    dummy_key: bytes, path: Path | None, count: int
) -> None:
    """Those that wait behind the first one too; the end comes behind the last response."""
    async with stage(path) as (provider, _, connect):
        client = await connect()
        client.send(GET)
        await until(lambda: provider.requests == 1)
        client.send(GET * (count - 1))
        client.writer.write_eof()
        assert (await client.rest()).count(b"HTTP/1.1 200 ") == count
        client.writer.close()
        client = await connect()
        client.send(GET * count + GET[:20])
        client.writer.write_eof()
        assert (await client.rest()).count(b"HTTP/1.1 200 ") == count
        client.writer.close()


async def test_a_response_larger_than_the_buffers(dummy_key: bytes, path: Path | None) -> None:
    """A client that reads late gets all of it, and so do the requests behind it."""
    async with stage(path) as (provider, _, connect):
        body = os.urandom(4 << 20)
        provider.response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        client = await connect()
        client.send(GET * 2)
        client.writer.write_eof()
        await asyncio.sleep(0.5)
        response = await client.rest()
        assert response.count(body) == 2
        assert response.endswith(body)
        client.writer.close()


async def test_a_handshake_of_a_client_that_sends_no_frames(
    dummy_key: bytes, path: Path | None
) -> None:
    """It gets the response and what the provider sends; the provider sees the end of its sending
    direction.
    """
    async with stage(path) as (provider, relay, connect):
        provider.response = SWITCHING + b"\x81\x02hi"
        client = await connect()
        client.send(HANDSHAKE)
        await until(lambda: provider.requests == 1)
        client.writer.write_eof()
        response = await client.rest()
        assert response.startswith(b"HTTP/1.1 101 ")
        assert response.endswith(b"\r\n\r\n\x81\x02hi")
        async with asyncio.timeout(5):
            await provider.left.wait()
        client.writer.close()
        await until(lambda: not relay.app._context.relays)


@pytest.mark.parametrize("part", [GET[:20], LENGTH + b"hel", CHUNKED + b"5\r\nhel"])
async def test_an_incomplete_request_gets_none(
    dummy_key: bytes, path: Path | None, part: bytes
) -> None:
    """Nothing can complete it: the connection is closed, and the provider's with it."""
    async with stage(path) as (provider, relay, connect):
        client = await connect()
        client.send(part)
        await until(lambda: relay.app._clients)
        client.writer.write_eof()
        assert await client.rest() == b""
        client.writer.close()
        await until(lambda: not relay.app._clients)
        assert provider.requests == 0


@pytest.mark.parametrize("first", ["close", "end, then close", "end, then reset"])
async def test_a_client_that_is_gone_ends_the_exchange(
    dummy_key: bytes, path: Path | None, first: str
) -> None:
    """Within a second or two, before any byte of the response, though an end may also be that of a
    client that waits.
    """
    async with stage(path) as (provider, relay, connect):
        provider.delay = 20
        client = await connect()
        client.send(GET)
        await until(lambda: provider.requests == 1)
        if first != "close":
            client.writer.write_eof()
            await asyncio.sleep(1.5)
            assert not provider.left.is_set()
        if first == "end, then reset":
            sock: socket.socket = client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.close()
        async with asyncio.timeout(3):
            await provider.left.wait()
        await until(lambda: not relay.app._clients)
