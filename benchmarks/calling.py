"""Clients that ask again as soon as they are answered, on connections that stay open."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Protocol, cast

_LENGTH = re.compile(rb"\r\n(?i:content-length): *(\d+)\r\n")
_ANSWER_SECONDS = 60.0


class LoadError(Exception):
    """A proxy did not do its job."""


class Reader(Protocol):
    """Knows when an answer is whole."""

    def feed(self, data: bytes) -> bool:
        """Whether the answer ends with these bytes. LoadError if it is not the right one."""
        ...


class AnswerReader:
    """Reads HTTP answers with a length, one after another."""

    def __init__(self, status: int = 200) -> None:
        self._begin = b"HTTP/1.1 %d " % status
        self._head = b""
        self._missing = 0

    def feed(self, data: bytes) -> bool:
        if self._missing:
            self._missing -= len(data)
        else:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return False
            length = _LENGTH.search(self._head, 0, end + 4)
            if not self._head.startswith(self._begin):
                raise LoadError(f"answered {self._head[:200].decode('latin-1')!r}")
            if length is None and self._begin[9:12] != b"101":
                raise LoadError("answered without Content-Length")
            size = int(length[1]) if length else 0
            self._missing = end + 4 + size - len(self._head)
            self._head = b""
        if self._missing < 0:
            raise LoadError("answered more than was announced")
        return not self._missing


class FrameReader:
    """Reads a WebSocket's messages that are all of one size on the wire."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._missing = size

    def feed(self, data: bytes) -> bool:
        if self._missing == self._size and data[0] != 0x82:
            raise LoadError("something else than a binary message came")
        self._missing -= len(data)
        if self._missing < 0:
            raise LoadError("a message came that was not asked for")
        if not self._missing:
            self._missing = self._size
            return True
        return False


@dataclass(slots=True)
class Tally:
    """What a run has cost: CPU seconds of the proxy, answers, seconds until each if wanted."""

    cpu: float = 0.0
    answers: int = 0
    waits: list[float] = field(default_factory=list)
    timed: bool = False
    stopping: bool = False

    @property
    def cpu_micros(self) -> float:
        """CPU microseconds for each answer."""
        return self.cpu / self.answers * 1e6


class Caller(asyncio.Protocol):
    """One connection of a client."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._reader: Reader = AnswerReader()
        self._message = b""
        self._asked = 0.0
        self._tally: Tally | None = None
        self._done: asyncio.Future[None] | None = None
        self._ended = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        # Closed with a reset, so that thousands of connections leave nothing in TIME_WAIT.
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def ask(self, message: bytes, reader: Reader) -> None:
        """Ask once. LoadError if the answer is not what it should be."""
        self._tally = None
        await self._ask(message, reader)

    async def repeat(self, message: bytes, reader: Reader, tally: Tally) -> None:
        """Ask again and again until the tally says stop; the last answer is awaited too."""
        self._tally = tally
        await self._ask(message, reader)

    async def _ask(self, message: bytes, reader: Reader) -> None:
        self._message, self._reader = message, reader
        self._done = asyncio.get_running_loop().create_future()
        self._asked = time.perf_counter()
        self.transport.write(message)
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._done
        except TimeoutError:
            raise LoadError(f"no answer within {_ANSWER_SECONDS:.0f} s") from None

    async def ended(self) -> None:
        """Returns when the connection is closed. LoadError if it stays open."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            raise LoadError("the connection stayed open") from None

    def data_received(self, data: bytes) -> None:
        if self._done is None or self._done.done():
            return  # a WebSocket's closing frame
        try:
            if not self._reader.feed(data):
                return
        except LoadError as error:
            self._fail(error)
            return
        tally = self._tally
        if tally is not None:
            tally.answers += 1
            if tally.timed:
                now = time.perf_counter()
                tally.waits.append(now - self._asked)
                self._asked = now
            if not tally.stopping:
                self.transport.write(self._message)
                return
        self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        self._ended.set()
        self._fail(LoadError("the connection was closed"))

    def _fail(self, error: LoadError) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def write(self, data: bytes) -> None:
        """Send more, once what was sent before has mostly been taken."""
        await self._writable.wait()
        self.transport.write(data)


@contextlib.asynccontextmanager
async def callers(port: int, count: int) -> AsyncIterator[list[Caller]]:
    """Open connections, one after another so that no backlog overflows."""
    loop = asyncio.get_running_loop()
    opened: list[Caller] = []
    try:
        for _ in range(count):
            _, caller = await loop.create_connection(Caller, "127.0.0.1", port)
            opened.append(caller)
        yield opened
    finally:
        for caller in opened:
            caller.transport.abort()


async def measured(
    callers: list[Caller],
    message: bytes,
    reader: Callable[[], Reader],
    seconds: float,
    cpu: Callable[[], float],
    *,
    timed: bool = False,
) -> Tally:
    """Have all of them ask for that long, after one exchange of each that does not count."""
    await asyncio.gather(*(caller.ask(message, reader()) for caller in callers))
    tally = Tally(timed=timed)
    loop = asyncio.get_running_loop()
    before = cpu()
    loop.call_later(seconds, setattr, tally, "stopping", True)
    await asyncio.gather(*(caller.repeat(message, reader(), tally) for caller in callers))
    tally.cpu = cpu() - before
    return tally
