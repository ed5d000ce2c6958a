"""Bodies, written as fast as they are taken and read slowly: the two sides of a measurement."""

from __future__ import annotations

import asyncio

BLOCK_BYTES = 256 * 1024
BURSTS = 32
PAUSE_SECONDS = 0.15
STALL_SECONDS = 4.0

_BLOCK = bytes(BLOCK_BYTES)
_CHUNK = b"%x\r\n%b\r\n" % (BLOCK_BYTES, _BLOCK)
_LAST_CHUNK = b"0\r\n\r\n"


class Pace:
    """Counts bytes and pauses ``bursts`` times on the way to ``size``; never, if that is 0.

    The pause in the middle is a stall: for STALL_SECONDS nothing is read at all.
    """

    def __init__(self, size: int, bursts: int) -> None:
        self._burst = size // bursts if bursts else 0
        self._middle = bursts // 2
        self._pauses = 0
        self._since = 0

    async def moved(self, count: int) -> None:
        """Account for ``count`` bytes; sleeps if that completes a burst."""
        self._since += count
        if self._burst and self._since >= self._burst:
            self._since -= self._burst
            self._pauses += 1
            await asyncio.sleep(STALL_SECONDS if self._pauses == self._middle else PAUSE_SECONDS)


def framing(size: int, *, chunked: bool) -> bytes:
    """The header field that announces a body."""
    return b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size


async def write_body(writer: asyncio.StreamWriter, size: int, *, chunked: bool) -> None:
    """Send ``size`` bytes, as fast as they are taken. Chunked: in whole blocks."""
    for offset in range(0, size, BLOCK_BYTES):
        writer.write(_CHUNK if chunked else _BLOCK[: size - offset])
        await writer.drain()
    if chunked:
        writer.write(_LAST_CHUNK)
        await writer.drain()


async def read_body(reader: asyncio.StreamReader, size: int, bursts: int, *, chunked: bool) -> None:
    """Read ``size`` bytes at the pace of ``bursts``. IncompleteReadError if there are fewer."""
    pace = Pace(size, bursts)
    left = size
    while left:
        count = int(await reader.readline(), 16) if chunked else left
        await _read_exactly(reader, count, pace)
        left -= count
        if chunked:
            await reader.readexactly(2)
    if chunked:
        await reader.readexactly(len(_LAST_CHUNK))


async def _read_exactly(reader: asyncio.StreamReader, count: int, pace: Pace) -> None:
    while count:
        block = await reader.read(min(count, BLOCK_BYTES))
        if not block:
            raise asyncio.IncompleteReadError(b"", count)
        count -= len(block)
        await pace.moved(len(block))
