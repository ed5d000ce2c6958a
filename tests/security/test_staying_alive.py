"""Rows T70 and on: what readers, clients and providers that stop, stall or break off may cost."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tests.support.command import running
from tests.support.keyrelay import RawClient

GET = b"GET /demo/echo/x HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.timeout(180)
async def test_t70_a_reader_of_the_log_that_stops_stops_nothing(workers: str) -> None:
    """Standard output is a pipe that nothing reads: requests are served beyond what it holds, and
    SIGTERM ends the process.
    """
    reading, writing = os.pipe()
    try:
        async with running(
            "run", "demo", "--listen", "127.0.0.1:0", "--workers", workers, stdout=writing
        ) as process:
            async with await RawClient.to(process.port) as client:
                # A line has some 250 bytes, a pipe 64 KiB.
                for _ in range(600):
                    client.send(GET)
                    async with asyncio.timeout(60):
                        status, _, _ = await client.answer()
                    assert status == 200
            process.signal(signal.SIGTERM)
            assert await process.ended(60) == 0
    finally:
        os.close(reading)
        os.close(writing)
