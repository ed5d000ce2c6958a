"""What clients send: requests, handshakes, messages, bodies; and listening to events."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import time
from typing import cast

from benchmarks.calling import AnswerReader, Caller, LoadError, callers
from benchmarks.configs import BODY
from benchmarks.provider import frame

_BLOCK = bytes(256 * 1024)
_STAMP = re.compile(rb"data: (\d+)\n")
_EVENT_SECONDS = 30.0
_CLOSE = b"\x88\x82" + bytes(4) + (1000).to_bytes(2, "big")  # masked, normal closure
AT_ONCE = 16  # handshakes under way at the same time


def get(port: int, target: str) -> bytes:
    return (
        f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "User-Agent: benchmark\r\nAccept: */*\r\n\r\n"
    ).encode()


def post(port: int, target: str, body: bytes | None = None, size: int = 0) -> bytes:
    """A request with this body, or the head of one with a body of ``size``."""
    sent = BODY if body is None and not size else body or b""
    return (
        f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "User-Agent: benchmark\r\nAccept: */*\r\nContent-Type: application/json\r\n"
        f"Content-Length: {size or len(sent)}\r\n\r\n"
    ).encode() + sent


def handshake(port: int, target: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\n"
        f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    ).encode()


def message(size: int) -> bytes:
    """A binary message as clients send it: masked (RFC 6455 section 5.3)."""
    plain = frame(size)
    head = bytearray(plain[: len(plain) - size])
    head[1] |= 0x80
    mask = os.urandom(4)
    # The payload is zeros, so masked it is the mask, over and over.
    return bytes(head) + mask + (mask * (size // 4 + 1))[:size]


async def open_sockets(port: int, target: str, opened: list[Caller], count: int) -> None:
    """Open WebSockets and append them; the caller ends their connections. LoadError."""
    loop = asyncio.get_running_loop()
    left = iter(range(count))

    async def some() -> None:
        for _ in left:
            _, caller = await loop.create_connection(Caller, "127.0.0.1", port)
            opened.append(caller)
            await caller.ask(handshake(port, target), AnswerReader(101))

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def close_socket(caller: Caller) -> None:
    """Close as clients do; returns when the connection has ended."""
    caller.transport.write(_CLOSE)
    await caller.ended()


async def download(port: int, target: str) -> None:
    async with callers(port, 1) as (caller,):
        await caller.ask(get(port, target), AnswerReader())


async def upload(port: int, target: str, size: int) -> None:
    """``size`` in bytes, a multiple of 256 KiB."""
    async with callers(port, 1) as (caller,):
        loop = asyncio.get_running_loop()
        answered = loop.create_task(caller.ask(post(port, target, size=size), AnswerReader()))
        await asyncio.sleep(0)  # lets the head go first
        for _ in range(size // len(_BLOCK)):
            await caller.write(_BLOCK)
            await asyncio.sleep(0)
        await answered


class _Listener(asyncio.Protocol):
    def __init__(self, request: bytes, count: int) -> None:
        self._request = request
        self._count = count
        self._rest = b""
        self.waits: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        data = self._rest + data
        end = 0
        for found in _STAMP.finditer(data):
            self.waits.append((now - int(found[1])) / 1e9)
            end = found.end()
        self._rest = data[end:]
        if len(self.waits) >= self._count and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(LoadError("the stream of events broke off"))


async def events(port: int, target: str, count: int) -> list[float]:
    """Seconds from the provider's sending of each event to its arrival here."""
    loop = asyncio.get_running_loop()
    transport, listener = await loop.create_connection(
        lambda: _Listener(get(port, target), count), "127.0.0.1", port
    )
    try:
        async with asyncio.timeout(_EVENT_SECONDS):
            await listener.done
    except TimeoutError:
        raise LoadError("events did not arrive") from None
    finally:
        transport.abort()
    return listener.waits[:count]
