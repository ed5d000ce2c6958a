"""The provider's Keep-Alive field limits the use of its connection."""

from __future__ import annotations

import asyncio

import pytest

from proxy.http.keep_alive import UNLIMITED, limits
from proxy.http.response import ResponseHead
from tests.support.keyrelay import answering, exchange, proxied

REQUEST = b"GET /api HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"", (UNLIMITED, UNLIMITED)),
        (b"Keep-Alive: timeout=5\r\n", (4, UNLIMITED)),
        (b"keep-alive:timeout=60 , max=100\r\n", (59, 100)),
        (b'Keep-Alive: Max="7", Timeout="2"\r\n', (1, 7)),
        (b"Keep-Alive: timeout=1\r\n", (0.5, UNLIMITED)),
        (b"Keep-Alive: timeout=0, max=0\r\n", (0, 0)),
        (b"Keep-Alive: timeout=9\r\nKeep-Alive: timeout=5\r\n", (4, UNLIMITED)),
        (b"Keep-Alive: timeout=-1, max=x, 300\r\n", (UNLIMITED, UNLIMITED)),
        (b"X: keep-alive: timeout=5\r\n", (UNLIMITED, UNLIMITED)),
    ],
)
def test_limits(lines: bytes, expected: tuple[float, float]) -> None:
    """Both parameters in every spelling; what is invalid limits nothing."""
    assert limits(ResponseHead(200, b"OK", b"\n" + lines, 2, closing=False)) == expected


@pytest.mark.parametrize(
    ("field", "pause", "connections"),
    [
        (b"timeout=1", 0.6, 3),
        (b"timeout=5", 0.6, 1),
        (b"timeout=0", 0.0, 3),
        (b"max=1", 0.0, 2),
        (b"max=0", 0.0, 3),
        (b"timeout=5, max=100", 0.0, 1),
    ],
)
async def test_a_connection_is_used_within_the_limits_only(
    dummy_key: bytes, field: bytes, pause: float, connections: int
) -> None:
    """Three requests, with pauses: a new connection where the last may be closing."""
    ok = b"HTTP/1.1 200 OK\r\nKeep-Alive: %b\r\nContent-Length: 2\r\n\r\nok" % field
    async with proxied(answering(ok)) as (provider, running):
        for _ in range(3):
            assert (await exchange(running.port, REQUEST)).endswith(b"ok")
            await asyncio.sleep(pause)
        assert provider.connections == connections
