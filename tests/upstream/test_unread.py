"""Received bytes that the event loop has not read yet."""

from __future__ import annotations

import asyncio
import socket

from proxy.upstream.unread import has_unread, unread_poll


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
