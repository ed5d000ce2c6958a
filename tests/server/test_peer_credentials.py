"""Peer credentials of real connections, from other users too where the tests may be one."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from proxy.errors import KeyrelayError, Refusal
from proxy.server.peer_credentials import Peers, find_uid, lookup_supported
from tests.support.keyrelay import (
    RawClient,
    both_loops,
    raw_provider,
    read_head,
    static_route,
    until,
)
from tests.support.reloading import changing

pytestmark = [
    both_loops,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peers are told on Linux only"),
]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")

ME = os.geteuid()
OTHER = 65534


class Server:
    """Accepts, and keeps what connected."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[asyncio.BaseTransport] = asyncio.Queue()
        self.address: tuple[str, int] = ("", 0)

    def protocol(self) -> asyncio.Protocol:
        server = self

        class Accepting(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                server.accepted.put_nowait(transport)

        return Accepting()

    async def next(self) -> asyncio.BaseTransport:
        async with asyncio.timeout(5):
            return await self.accepted.get()

    async def uid(self) -> int | None:
        """The user of the next client, whose connection is closed."""
        transport = await self.next()
        try:
            return find_uid(transport)
        finally:
            transport.close()


@asynccontextmanager
async def serving(where: str | Path = "127.0.0.1") -> AsyncIterator[Server]:
    server = Server()
    loop = asyncio.get_running_loop()
    if isinstance(where, Path):
        opened = await loop.create_unix_server(server.protocol, str(where))
    else:
        opened = await loop.create_server(server.protocol, where, 0)
        server.address = opened.sockets[0].getsockname()[:2]
    try:
        yield server
    finally:
        opened.close()


@contextmanager
def another_user() -> Iterator[None]:
    """What this process opens meanwhile belongs to another user."""
    os.seteuid(OTHER)
    try:
        yield
    finally:
        os.seteuid(ME)


# -- finding out -------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_client_over_tcp_is_identified(host: str) -> None:
    """The user that opened the socket at the other end, for both versions of IP."""
    async with serving(host) as server:
        with socket.create_connection(server.address):
            assert await server.uid() == ME


async def test_ipv4_through_ipv6_is_identified() -> None:
    """Java's and Go's clients do that; the kernel keeps such sockets among those of IPv6."""
    async with serving() as server:
        with socket.socket(socket.AF_INET6) as client:
            client.connect((f"::ffff:{server.address[0]}", server.address[1]))
            assert await server.uid() == ME


async def test_a_client_of_a_unix_socket_is_identified(tmp_path: Path) -> None:
    """As the kernel noted it when the client connected."""
    async with serving(tmp_path / "s") as server:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))
            assert await server.uid() == ME


async def test_a_half_closed_client_is_still_identified() -> None:
    """A client that has sent everything is still there."""
    async with serving() as server:
        with socket.create_connection(server.address) as client:
            client.shutdown(socket.SHUT_WR)
            assert await server.uid() == ME


async def test_a_closed_client_is_not_identified() -> None:
    """The kernel calls a socket without an owner root's: that must admit no client."""
    async with serving() as server:
        client = socket.create_connection(server.address)
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        client.close()
        transport = await server.next()
        assert find_uid(transport) is None
        transport.close()


@as_root
async def test_another_user_over_tcp_is_identified() -> None:
    """His uid and not ours."""
    async with serving() as server:
        with another_user():
            client = socket.create_connection(server.address)
        with client:
            transport = await server.next()
            assert find_uid(transport) == OTHER
            transport.close()


@as_root
async def test_another_user_of_a_unix_socket_is_identified() -> None:
    """The same where the socket's directory and mode let him in."""
    with TemporaryDirectory() as name:
        os.chmod(name, 0o711)  # noqa: PTH101
        path = Path(name) / "s"
        async with serving(path) as server:
            path.chmod(0o666)
            with socket.socket(socket.AF_UNIX) as client:
                with another_user():
                    client.connect(str(path))
                transport = await server.next()
                assert find_uid(transport) == OTHER
                transport.close()


async def test_it_is_cheap() -> None:
    """Asked for each connection, so it must not hold the loop: far below a millisecond."""
    async with serving() as server:
        with socket.create_connection(server.address):
            transport = await server.next()
            spent = []
            for _ in range(50):
                begun = time.perf_counter()
                find_uid(transport)
                spent.append(time.perf_counter() - begun)
            assert min(spent) < 0.001
            transport.close()


# -- what is done about it ---------------------------------------------------------------------


async def asked(peers: Peers, times: int = 1) -> list[Refusal | None]:
    """What is said to so many connections of ours."""
    said = []
    async with serving() as server:
        for _ in range(times):
            with socket.create_connection(server.address):
                transport = await server.next()
                said.append(peers.refusal(transport))
                transport.close()
    return said


async def test_the_own_user_is_allowed() -> None:
    """No refusal, no word."""
    lines: list[str] = []
    for enforce in (False, True):
        assert await asked(Peers(enforce=enforce, warn=lines.append)) == [None]
    assert lines == []


async def test_others_are_mentioned_once() -> None:
    """One line for a user with its name, however often it connects, and what can be done."""
    lines: list[str] = []
    peers = Peers(enforce=False, warn=lines.append, allowed=frozenset({ME + 1}))
    assert await asked(peers, 3) == [None] * 3
    (line,) = lines
    assert f"uid {ME} ({pwd.getpwuid(ME).pw_name})" in line
    assert "peer_uid: enforce" in line


async def test_others_are_refused_if_asked_for() -> None:
    """A 403 each time, and one line."""
    lines: list[str] = []
    peers = Peers(enforce=True, warn=lines.append, allowed=frozenset({ME + 1}))
    for refused in await asked(peers, 2):
        assert refused is not None
        assert (refused.status, refused.kind) == (403, "peer-not-allowed")
    assert len(lines) == 1
    assert "refused" in lines[0]


async def test_enforce_needs_the_lookup() -> None:
    """A client that cannot be identified: refused, or admitted without a warning."""
    for enforce in (True, False):
        lines: list[str] = []
        peers = Peers(enforce=enforce, warn=lines.append)
        async with serving() as server:
            client = socket.create_connection(server.address)
            client.close()
            transport = await server.next()
            assert (peers.refusal(transport) is not None) is enforce
            transport.close()
        assert lines == []


async def test_this_system_supports_the_lookup() -> None:
    """On Linux with sock_diag; elsewhere ``enforce`` cannot start."""
    make: Callable[[], Peers] = lambda: Peers(enforce=True, warn=print)  # noqa: E731
    if lookup_supported():
        make()
    else:
        with pytest.raises(KeyrelayError, match="peer_uid"):
            make()


# -- with a keyrelay that runs -------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def as_another_user(port: int) -> RawClient:
    with another_user():
        sock = socket.create_connection(("127.0.0.1", port))
    return RawClient(*await asyncio.open_connection(sock=sock))


@as_root
async def test_a_reload_to_enforce_holds_for_open_connections(
    tmp_path: Path, dummy_key: bytes
) -> None:
    """An idle connection of another user ends, one with a request gets its answer and ends, nothing
    more of either reaches the provider, and a new one is refused. Those of one's own go on.
    """
    answers = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            if b"GET /slow " in (head := await read_head(reader)):
                await answers.wait()
            heads.append(head)
            writer.write(OK)

    heads: list[bytes] = []
    async with (
        raw_provider(serve) as provider,
        changing(tmp_path, {"api": static_route(provider.url)}, peer_uid="warn") as proxy,
        await as_another_user(proxy.port) as idle,
        await as_another_user(proxy.port) as busy,
        await RawClient.to(proxy.port) as own,
    ):
        for one in (idle, busy, own):
            one.send(GET)
            assert (await one.answer())[0] == 200
        busy.send(GET.replace(b"/x", b"/slow") + GET)
        await until(lambda: len(proxy.app.exchange_log.open) == 1)
        proxy.document["peer_uid"] = "enforce"
        assert not (await proxy.reload_document()).findings
        idle.send(GET)
        with suppress(ConnectionResetError):
            assert await idle.rest() == b""
        answers.set()
        assert (await busy.answer())[0] == 200
        assert await busy.rest() == b""
        own.send(GET)
        assert (await own.answer())[0] == 200
        async with await as_another_user(proxy.port) as new:
            assert (await new.answer())[0] == 403
        assert len(heads) == 5
        (warned,) = [line for line in proxy.said if "was refused" in line]
        assert f"uid {OTHER}" in warned
        # The same policy says nothing twice.
        proxy.document["keepalive_seconds"] = 7
        assert (await proxy.reload_document()).changed
        async with await as_another_user(proxy.port) as new:
            assert (await new.answer())[0] == 403
        assert [line for line in proxy.said if "was refused" in line] == [warned]
