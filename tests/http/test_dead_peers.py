"""The options by which dead peers are found, on real sockets of both loops."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy.http import dead_peers
from tests.support.keyrelay import both_loops

pytestmark = both_loops


@asynccontextmanager
async def connected() -> AsyncIterator[asyncio.Transport]:
    """A connection within loopback."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname())
        sock.setblocking(False)
        peer, _ = server.accept()
    with peer:
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
        yield transport
        await ended(transport)


async def ended(transport: asyncio.Transport) -> None:
    """Abort a transport, and let the loop close its socket."""
    transport.abort()
    for _ in range(3):
        await asyncio.sleep(0)


def options(transport: asyncio.Transport) -> dict[str, int]:
    sock = transport.get_extra_info("socket")
    found = {"on": sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)}
    for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT"):
        found[name] = sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
    return found


async def test_a_peer_on_this_machine_is_probed() -> None:
    """A third of the second half passes between probes; it may read as late as it likes."""
    async with connected() as transport:
        dead_peers.detect_dead_peer(transport, 60)
        assert options(transport) == {
            "on": 1,
            "TCP_KEEPIDLE": 30,
            "TCP_KEEPINTVL": 10,
            "TCP_KEEPCNT": 3,
            "TCP_USER_TIMEOUT": 0,
        }


@pytest.mark.parametrize(("may_pause", "expected"), [(False, 60_000), (True, 300_000)])
async def test_a_peer_elsewhere_must_acknowledge(may_pause: bool, expected: int) -> None:
    """In time, or in five times as long if it may pause; in milliseconds for the system."""

    class Elsewhere(asyncio.Transport):
        def get_extra_info(self, name: str, default: object = None) -> object:
            return ("192.0.2.1", 443) if name == "peername" else inner.get_extra_info(name)

    async with connected() as inner:
        dead_peers.detect_dead_peer(Elsewhere(), 60, may_pause=may_pause)
        assert options(inner)["TCP_USER_TIMEOUT"] == expected


@pytest.mark.parametrize("seconds", [0.01, 1])
async def test_a_short_time_is_a_valid_one(seconds: float) -> None:
    """The system counts probes in whole seconds, of which none may be 0."""
    async with connected() as transport:
        dead_peers.detect_dead_peer(transport, seconds)
        found = options(transport)
        assert (found["TCP_KEEPIDLE"], found["TCP_KEEPINTVL"]) == (1, 1)


async def test_0_leaves_it_to_the_system() -> None:
    """Nothing is set."""
    async with connected() as transport:
        before = options(transport)
        dead_peers.detect_dead_peer(transport, 0)
        assert options(transport) == before


async def test_a_unix_socket_has_no_options() -> None:
    """Its peer cannot vanish."""
    sock, peer = socket.socketpair()
    sock.setblocking(False)
    with peer:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_unix_connection(asyncio.Protocol, sock=sock)
        dead_peers.detect_dead_peer(transport, 60)
        assert not dead_peers.unacknowledged(transport)
        await ended(transport)


async def test_what_a_peer_has_is_acknowledged() -> None:
    """The system of a peer on this machine acknowledges at once, whether it reads or not."""
    async with connected() as transport:
        transport.write(b"dummy")
        async with asyncio.timeout(30):
            while dead_peers.unacknowledged(transport):  # noqa: ASYNC110  there is no event for it
                await asyncio.sleep(0.001)


async def test_which_errors_mean_that_a_peer_is_gone() -> None:
    """Those of an unreachable one; neither a reset nor a clean end."""
    assert all(
        dead_peers.is_gone(OSError(code, "dummy"))
        for code in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)
    )
    assert not any(
        map(dead_peers.is_gone, (None, ConnectionResetError(errno.ECONNRESET, ""), OSError()))
    )
