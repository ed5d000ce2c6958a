"""Unread bytes are detected, and stay readable after the event loop has closed the connection.

With TLS, and against providers that reset: tests.e2e.test_early_responses.
"""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from proxy.upstream.unread import Leftover, has_unread, unread_poll
from tests.support.keyrelay import both_loops, raw_provider

SENT = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nlong"


class Silent(asyncio.Protocol):
    """Reads nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).pause_reading()


async def test_unread_bytes_and_the_end_are_detected() -> None:
    """Nothing, then bytes, then the end of the connection: without reading any of it."""
    ours, theirs = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    with theirs:
        transport.pause_reading()
        poll = unread_poll(transport)
        assert not has_unread(transport)
        assert not poll.poll(0)
        theirs.send(b"x")
        assert has_unread(transport)
        assert poll.poll(0)
    assert has_unread(transport)
    transport.abort()


@both_loops
async def test_what_arrived_is_read_after_the_end() -> None:
    """All of it, from a connection that the event loop has aborted; and it ends."""
    sent = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SENT)
        await writer.drain()
        sent.set()
        await reader.read()

    async with raw_provider(serve) as provider:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(Silent, "127.0.0.1", provider.port)
        leftover = Leftover(transport)
        try:
            await sent.wait()
            transport.abort()
            await asyncio.sleep(0.05)
            assert b"".join(leftover.read()) == SENT
            assert list(leftover.read()) == []
        finally:
            leftover.close()
