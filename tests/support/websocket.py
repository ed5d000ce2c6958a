"""A WebSocket server behind keyrelay, and the bytes of handshakes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from ssl import SSLContext

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.support.keyrelay import RawClient, Running, keyrelay, static_route, until

KEY = b"ZHVtbXktbm9uY2UtMTIzNA=="
HANDSHAKE = (
    b"GET /api/chat HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n"
)
MEBIBYTE = 1 << 20


def accept(key: bytes = KEY) -> bytes:
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return base64.b64encode(digest)


def switching(*fields: bytes) -> bytes:
    fields = fields or (
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + accept(),
    )
    return (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        + b"".join(one + b"\r\n" for one in fields)
        + b"\r\n"
    )


class Provider:
    """A WebSocket server, and the handshakes that reached it."""

    def __init__(self) -> None:
        self.port = 0
        self.handshakes: list[Request] = []
        self.sessions: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def session(self) -> ServerConnection:
        async with asyncio.timeout(5):
            return await self.sessions.get()


@asynccontextmanager
async def relaying(
    handler: Callable[[ServerConnection], Awaitable[None]] | None = None,
    *,
    subprotocols: Sequence[str] = (),
    compression: str | None = "deflate",
    refuse: HTTPStatus | None = None,
    tls: SSLContext | None = None,
) -> AsyncIterator[tuple[Running, Provider]]:
    """Keyrelay before a WebSocket server. Without a ``handler`` its sessions wait in the provider
    for the test to talk.
    """
    provider = Provider()

    async def wait(session: ServerConnection) -> None:
        provider.sessions.put_nowait(session)
        await session.wait_closed()

    def process_request(session: ServerConnection, request: Request) -> Response | None:
        provider.handshakes.append(request)
        return session.respond(refuse, "dummy refusal") if refuse else None

    async with serve(
        handler or wait,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol(one) for one in subprotocols] or None,
        compression=compression,
        process_request=process_request,
        max_size=None,
        ping_interval=None,
        close_timeout=2,
        ssl=tls,
    ) as server:
        (listening,) = server.sockets
        provider.port = listening.getsockname()[1]
        scheme = "https" if tls else "http"
        route = static_route(f"{scheme}://127.0.0.1:{provider.port}/v1")
        async with keyrelay({"api": route}) as running:
            yield running, provider


async def ended(running: Running) -> None:
    """Both connections are gone, and the session is noted."""
    await until(
        lambda: not running.app._context.relays and running.app.exchange_log.recent, seconds=2
    )


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[asyncio.Transport, RawClient]]:
    """A transport, as of a connection that a relay takes over, and its peer."""
    near, far = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
    async with RawClient(*await asyncio.open_connection(sock=far)) as peer:
        yield transport, peer
    transport.abort()
