"""Graceful shutdown: what is on its way is served, and the rest ends in time."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tests.support.keyrelay import Running, answering, connection, exchange, proxied, read_head

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
LONG = 30.0


@pytest.fixture
async def running(dummy_key: bytes) -> AsyncIterator[Running]:
    async with proxied(answering(OK)) as (_, one):
        yield one


def closing(running: Running, seconds: float = LONG) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(running.app.close(seconds))


async def last_response(reader: asyncio.StreamReader) -> None:
    """One response that announces the connection's end, and then that end."""
    async with asyncio.timeout(30):
        head = await read_head(reader)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nConnection: close\r\n" in head
        assert await reader.read() == b"ok"


@pytest.mark.parametrize("begun", [b"", GET[:20]], ids=["nothing sent", "half a head"])
async def test_a_request_that_is_due_is_served(running: Running, begun: bytes) -> None:
    """A connection accepted before the end may still send its request, or the rest of it."""
    async with connection(running.port) as (reader, writer):
        writer.write(begun)
        await exchange(running.port, GET)
        close = closing(running)
        await asyncio.sleep(0.05)
        writer.write(GET[len(begun) :])
        await last_response(reader)
        await close


async def test_a_request_that_has_arrived_is_served(running: Running) -> None:
    """On a connection that was used before: it is unread in the system when the end begins."""
    async with connection(running.port) as (reader, writer):
        writer.write(GET)
        head = await read_head(reader)
        assert b"\r\nConnection: close" not in head
        await reader.readexactly(2)
        # No await between the two: the event loop has not read it.
        writer.write(GET)
        close = closing(running)
        await last_response(reader)
        await close


@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
async def test_a_connection_without_a_request_holds_nothing_up(
    running: Running, used: bool
) -> None:
    """It is closed long before the drain time is over."""
    async with connection(running.port) as (reader, writer):
        if used:
            writer.write(GET)
            await read_head(reader)
            await reader.readexactly(2)
        else:
            await exchange(running.port, GET)
        began = time.monotonic()
        await closing(running)
        assert time.monotonic() - began < LONG / 2
        assert await reader.read() == b""


async def test_without_a_drain_time_the_end_is_at_once(running: Running) -> None:
    """No time means that no request is waited for."""
    async with connection(running.port) as (reader, _):
        await exchange(running.port, GET)
        await closing(running, 0)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
