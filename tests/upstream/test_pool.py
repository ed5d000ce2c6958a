"""A pool's spares: a request or a WebSocket after a pause finds a connection that stands.

Time passes as the test says: a pool is given a loop whose time the test moves, and is told of each
second as the app does.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from proxy.errors import UpstreamFailure
from proxy.http.address import Origin
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.dialer import Dialer
from proxy.upstream.pool import Pool
from proxy.upstream.prewarm import PoolStats, PrewarmPolicy
from proxy.upstream.tls import tls_context
from tests.support.certificates import Authority
from tests.support.keyrelay import both_loops, raw_provider, read_head, until
from tests.support.upstream_connection import OK, REQUEST, Answer, send

pytestmark = both_loops

UPGRADE = b"GET / HTTP/1.1\r\nHost: dummy\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHED = UPGRADE.replace(b"GET / HTTP/1.1", b"HTTP/1.1 101 Switching Protocols")


class Ahead:
    """The running loop, ``seconds`` ahead of itself."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.seconds = 0.0

    def time(self) -> float:
        return self._loop.time() + self.seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class Provider:
    """Answers requests, and notes which connection served each and how long the others stood.

    hangs_up_after  seconds after which a connection without a request is closed; 0: at once
    served          the number of each request's connection
    standing        connections open now; ``least`` is the lowest there was
    ages            how long those stood that were closed without a request
    may_answer      cleared to keep clients waiting
    """

    def __init__(self, loop: Ahead) -> None:
        self._loop = loop
        self._unasked: dict[int, tuple[float, asyncio.StreamWriter]] = {}
        self.hangs_up_after = float("inf")
        self.hung_up = 0
        self.accepted = 0
        self.served: list[int] = []
        self.standing = 0
        self.least = 99
        self.ages: list[float] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        number = self.accepted
        began = self._loop.time()
        self._unasked[number] = (began, writer)
        self.standing += 1
        if not self.hangs_up_after:
            writer.close()
        try:
            while head := await next_head(reader):
                self._unasked.pop(number, None)
                self.served.append(number)
                await self.may_answer.wait()
                writer.write(SWITCHED if b"Upgrade" in head else OK)
        finally:
            writer.close()
            self.standing -= 1
            self.least = min(self.least, self.standing)
            if self._unasked.pop(number, None):
                self.ages.append(self._loop.time() - began)

    def say(self, data: bytes) -> None:
        """Send something on every connection without a request, at once and past the loop."""
        for _, writer in self._unasked.values():
            os.write(writer.get_extra_info("socket").fileno(), data)

    async def hang_up(self) -> None:
        """Close what has stood without a request for too long."""
        late = [
            (number, writer)
            for number, (began, writer) in self._unasked.items()
            if self._loop.time() - began >= self.hangs_up_after
        ]
        for _, writer in late:
            self.hung_up += 1
            writer.close()
        await until(lambda: not any(number in self._unasked for number, _ in late))


def has_news(connection: UpstreamConnection) -> bool:
    """Whether the loop is still to tell of something, such as the tickets behind a handshake."""
    return connection.transport.is_closing() or connection.has_unread()


async def next_head(reader: asyncio.StreamReader) -> bytes:
    """The next request's head; nothing at the end of the connection."""
    try:
        return await read_head(reader)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


class Bench:
    """A pool, its provider, and the time of both."""

    def __init__(
        self,
        port: int,
        provider: Provider,
        loop: Ahead,
        *,
        https: bool,
        prewarmed: int,
        idle_seconds: float,
        spare_seconds: float,
    ) -> None:
        self.provider = provider
        self.loop = loop
        self._websockets: list[asyncio.Transport] = []
        self.dials: set[asyncio.Task[None]] = set()
        self.pool = Pool(
            Dialer(
                Origin("https" if https else "http", "localhost", port),
                connect_seconds=5,
                tls=tls_context() if https else None,
            ),
            cast(asyncio.AbstractEventLoop, loop),
            idle_seconds=idle_seconds,
            silence_seconds=600,
            prewarm_policy=PrewarmPolicy(
                self._spawn,
                prewarmed=prewarmed,
                in_use_seconds=spare_seconds,
                idle_seconds=idle_seconds,
                jitter=lambda: 1.0,
            ),
        )

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.dials.add(task)
        task.add_done_callback(self.dials.discard)
        return task

    async def begin(self, data: bytes = REQUEST) -> tuple[Answer, UpstreamConnection]:
        """Send a request as ``forward`` does."""
        connection = self.pool.take() or await self.pool.dial()
        return send(connection, data, upgrading=data == UPGRADE), connection

    async def get(self) -> int:
        """The number of the connection that served."""
        answer, _ = await self.begin()
        assert (await answer.until_over()).status == 200
        return self.provider.served[-1]

    async def websocket(self) -> int:
        """Open a WebSocket that stays; the number of its connection."""
        answer, connection = await self.begin(UPGRADE)
        await until(lambda: answer.status == 101)
        self._websockets.append(connection.detach())
        return self.provider.served[-1]

    def close(self) -> None:
        self.pool.close()
        for transport in self._websockets:
            transport.abort()

    async def settled(self) -> None:
        """Wait until dials have ended, the loop has told all, and both sides count the same."""
        await until(
            lambda: (
                not self.dials
                and self.pool.open + len(self._websockets) == self.provider.standing
                and not any(map(has_news, self.pool._open))
            )
        )

    async def passes(self, seconds: float) -> None:
        """Let time pass; everything is looked at once a second."""
        await self.settled()
        for _ in range(int(seconds)):
            self.loop.seconds += 1
            await self.provider.hang_up()
            await self.settled()
            self.pool.expire(self.loop.time())
            await self.settled()


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority that this machine trusts."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


@asynccontextmanager
async def bench(
    tls: Authority | None = None,
    *,
    prewarmed: int = 1,
    idle_seconds: float = 50,
    spare_seconds: float = 300,
) -> AsyncIterator[Bench]:
    """A pool with a provider; at the end nothing is left open."""
    loop = Ahead()
    provider = Provider(loop)
    served = tls.server("localhost") if tls else None
    async with raw_provider(provider.serve, served) as server:
        one = Bench(
            server.port,
            provider,
            loop,
            https=bool(tls),
            prewarmed=prewarmed,
            idle_seconds=idle_seconds,
            spare_seconds=spare_seconds,
        )
        try:
            yield one
        finally:
            one.close()
            await until(lambda: not (one.dials or one.pool.open or provider.standing))
            assert (one.pool.idle, one.pool.prewarmed) == (0, 0)


# -- after a pause -----------------------------------------------------------------------------


@pytest.mark.parametrize("pause", [5, 30, 120])
async def test_a_request_after_a_pause_dials_nothing(tls: Authority, pause: float) -> None:
    """A GET goes out at once on a connection that has its TLS handshake behind it."""
    async with bench(tls) as one:
        await one.get()
        await one.passes(pause)
        stood = one.provider.accepted
        assert await one.get() <= stood
        assert one.pool.counts.dialled == 1


@pytest.mark.parametrize("pause", [5, 30, 120])
@pytest.mark.parametrize("after_websocket", [False, True])
async def test_a_websocket_after_a_pause_dials_nothing(
    tls: Authority, after_websocket: bool, pause: float
) -> None:
    """So does the opening of a WebSocket, also behind others, which keep their connections."""
    async with bench(tls) as one:
        await (one.websocket() if after_websocket else one.get())
        for _ in range(2):
            await one.passes(pause)
            stood = one.provider.accepted
            assert await one.websocket() <= stood
        assert one.pool.counts.dialled == 1


async def test_a_websocket_is_followed_by_a_prewarmed_connection_at_once(tls: Authority) -> None:
    """It takes its connection away for good, so the next one stands before time is looked at."""
    async with bench(tls) as one:
        for count in range(3):
            await one.websocket()
            await one.settled()
            assert (one.pool.idle, one.pool.prewarmed, one.pool.open) == (0, 1, 1)
            assert one.provider.accepted == count + 2
            assert one.pool.counts.spared == count


async def test_a_prewarmed_connection_that_is_taken_is_replaced_at_once() -> None:
    """The next one does not wait for the answer: that may be a WebSocket's, and far away."""
    async with bench() as one:
        await one.websocket()
        await one.settled()
        one.provider.may_answer.clear()
        answer, _ = await one.begin()
        await one.settled()
        assert (one.pool.prewarmed, one.pool.counts.spared) == (1, 1)
        one.provider.may_answer.set()
        await answer.until_over()


async def test_there_is_never_a_gap(tls: Authority) -> None:
    """Fresh spares stand before old ones are closed; none stands for longer than it may, nor is it
    closed much sooner.
    """
    async with bench(tls) as one:
        await one.get()
        for _ in range(250):
            await one.passes(1)
            assert one.pool.idle + one.pool.prewarmed >= 1
        assert one.provider.least >= 1
        assert one.provider.ages
        assert all(44 <= age <= 50 for age in one.provider.ages)
        assert one.pool.counts.spare_failures == 0


async def test_idle_connections_count_as_prewarmed_connections() -> None:
    """While a connection waits after its request, no spare is dialled beside it."""
    async with bench() as one:
        for _ in range(10):
            await one.get()
            await one.passes(30)
        assert one.provider.accepted == 1
        counts = one.pool.counts
        assert (counts.reused, counts.dialled, counts.spare_dials) == (9, 1, 0)


async def test_a_long_response_leaves_prewarmed_connections() -> None:
    """While every connection is busy, the next requests find some too."""
    async with bench(prewarmed=2) as one:
        one.provider.may_answer.clear()
        busy, _ = await one.begin()
        await one.passes(2)
        assert (one.pool.prewarmed, one.pool.open) == (2, 3)
        one.provider.may_answer.set()
        await busy.until_over()


async def test_idle_connections_come_before_prewarmed_connections() -> None:
    """A spare is kept for when nothing is idle."""
    async with bench(prewarmed=2) as one:
        answer, used = await one.begin()
        await answer.until_over()
        await one.passes(1)
        assert (one.pool.idle, one.pool.prewarmed) == (1, 1)
        assert one.pool.take() is used
        spare = one.pool.take()
        assert spare not in {None, used}
        assert one.pool.take() is None
        assert one.pool.counts == PoolStats(reused=1, spared=1, dialled=1, spare_dials=1)


async def test_a_prewarmed_connection_is_treated_as_a_kept_connection() -> None:
    """If the provider closes it just as a request leaves, that request may go out once more."""
    async with bench() as one:
        await one.websocket()
        await one.settled()
        spare = one.pool.take()
        assert spare is not None
        assert not spare.fresh


# -- none --------------------------------------------------------------------------------------


async def test_nothing_is_dialled_before_the_first_request() -> None:
    """No request has needed the provider."""
    async with bench() as one:
        await one.passes(100)
        assert one.provider.accepted == 0


@pytest.mark.parametrize("options", [{"prewarmed": 0}, {"idle_seconds": 0}, {"idle_seconds": 3.5}])
async def test_no_prewarmed_connections_if_none_are_wanted(options: dict[str, Any]) -> None:
    """None if the route says so, or where connections may hardly stand unused."""
    async with bench(**options) as one:
        await one.get()
        await one.passes(60)
        await one.websocket()
        await one.passes(10)
        assert one.provider.accepted == 2
        assert one.pool.counts.spare_dials == 0


async def test_a_quiet_route_has_none(tls: Authority) -> None:
    """Some time after the last request the last spare is closed and nothing is dialled, until the
    next request comes.
    """
    async with bench(tls, spare_seconds=100) as one:
        await one.get()
        await one.passes(99)
        assert one.pool.prewarmed == 1
        await one.passes(3)
        assert one.pool.open == 0
        before = one.provider.accepted
        await one.passes(200)
        assert one.provider.accepted == before
        await one.get()
        await one.passes(46)
        assert (one.pool.idle, one.pool.prewarmed) == (1, 1)
        assert one.pool.counts.dialled == 2


# -- providers that close, or fail -------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "renewals"), [(5, 20), (8, 10), (20, 4)])
async def test_providers_that_hang_up_on_prewarmed_connections(
    tls: Authority, seconds: float, renewals: int
) -> None:
    """One spare that is closed early is replaced and tells how long they may stand: from then on
    there is no gap, and in a minute not many more renewals than that takes.
    """
    async with bench(tls) as one:
        await one.websocket()
        one.provider.hangs_up_after = seconds
        await one.passes(seconds + 1)
        assert one.pool.prewarmed == 1
        assert (one.provider.hung_up, one.pool.counts.spare_failures) == (1, 1)
        before = one.provider.accepted
        one.provider.least = 99
        await one.passes(60)
        assert one.provider.least >= 2, "the WebSocket and a spare"
        assert (one.provider.hung_up, one.pool.counts.spare_failures) == (1, 1)
        assert one.provider.accepted - before <= renewals


@pytest.mark.parametrize("seconds", [0, 1, 3])
async def test_providers_that_want_no_prewarmed_connections(seconds: float) -> None:
    """One that closes every spare within moments is asked ever more rarely."""
    async with bench(spare_seconds=600) as one:
        await one.websocket()
        one.provider.hangs_up_after = seconds
        await one.passes(500)
        counts = one.pool.counts
        assert 10 <= counts.spare_dials <= 16
        assert counts.spare_dials - counts.spare_failures <= 1


async def test_a_prewarmed_connection_that_served_ends_the_spacing() -> None:
    """The failure after it is a first one again, and tried again soon."""
    async with bench() as one:
        await one.websocket()
        await one.settled()
        for _ in range(3):
            one.provider.hangs_up_after = 0
            await one.websocket()
            await one.settled()
            assert one.pool.prewarmed == 0
            one.provider.hangs_up_after = float("inf")
            await one.passes(2)
            assert one.pool.prewarmed == 1


async def test_a_provider_that_is_down() -> None:
    """Failing dials of spares are spaced and hurt no request; later, spares stand again."""
    loop = Ahead()
    provider = Provider(loop)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        one = Bench(
            taken.getsockname()[1],
            provider,
            loop,
            https=False,
            prewarmed=4,
            idle_seconds=50,
            spare_seconds=1000,
        )
        with pytest.raises(UpstreamFailure, match="refused"):
            await one.begin()
        await one.passes(300)
        counts = one.pool.counts
        assert (counts.dialled, counts.spared) == (1, 0)
        assert counts.spare_dials == counts.spare_failures
        assert 10 <= counts.spare_failures <= 4 + 10
        server = await asyncio.start_server(provider.serve, sock=taken)
        await one.passes(70)
        assert one.pool.prewarmed == 4
        stood = provider.accepted
        assert await one.get() <= stood
        one.close()
        await until(lambda: not provider.standing)
        server.close()


async def test_no_more_dials_than_prewarmed_connections(tls: Authority) -> None:
    """However long a dial takes, no more than the missing spares are under way, and closing the
    pool ends them.
    """
    ended = 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal ended
        await reader.read()
        ended += 1

    async with raw_provider(hang) as silent:
        loop = Ahead()
        one = Bench(
            silent.port,
            Provider(loop),
            loop,
            https=True,
            prewarmed=3,
            idle_seconds=50,
            spare_seconds=300,
        )
        assert one.pool.take() is None
        for _ in range(5):
            loop.seconds += 1
            one.pool.expire(loop.time())
            await until(lambda: silent.connections == 3)
        assert one.pool.counts.spare_dials == len(one.dials) == 3
        one.close()
        await until(lambda: ended == 3)
        assert not one.dials
        assert (one.pool.open, one.pool.prewarmed) == (0, 0)


@pytest.mark.parametrize("told", [False, True])
async def test_bytes_on_a_prewarmed_connection_close_it(told: bool) -> None:
    """What a provider says on a spare is no answer to the request that comes next, whether the loop
    has told of it or not; another spare takes its place.
    """
    async with bench() as one:
        await one.websocket()
        await one.passes(10)
        one.provider.say(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        if told:
            await until(lambda: one.pool.counts.spare_failures)
        else:
            assert one.pool.take() is None
        await one.settled()
        assert one.pool.counts.spare_failures == 1
        assert one.pool.prewarmed == 1
        assert await one.get() == 3


async def test_unused_connections_are_replaced(tls: Authority) -> None:
    """What waits for a request is closed, and a new connection is prewarmed in its place."""
    async with bench(tls, prewarmed=2) as one:
        await one.get()
        await one.passes(1)
        assert (one.pool.idle, one.pool.prewarmed, one.provider.accepted) == (1, 1, 2)
        one.pool.drop_unused()
        assert (one.pool.idle, one.pool.prewarmed) == (0, 0)
        await one.passes(1)
        assert (one.pool.idle, one.pool.prewarmed, one.provider.accepted) == (0, 2, 4)


# -- the end -----------------------------------------------------------------------------------


async def test_a_retired_pool_serves_what_is_under_way(tls: Authority) -> None:
    """What waits is closed at once, what serves when its answer has ended, and nothing is dialled
    but by a request that found the pool before.
    """
    async with bench(tls, prewarmed=2) as one:
        one.provider.may_answer.clear()
        busy, _ = await one.begin()
        await one.passes(1)
        assert (one.pool.prewarmed, one.pool.open) == (2, 3)
        one.pool.retire()
        assert (one.pool.idle, one.pool.prewarmed) == (0, 0)
        assert one.pool.take() is None
        await one.passes(100)
        assert (one.pool.open, one.pool.counts.spare_dials) == (1, 2)
        one.provider.may_answer.set()
        assert (await busy.until_over()).status == 200
        await one.settled()
        assert one.pool.open == 0
        assert one.pool.take() is None
        assert await one.get() == 4
        await one.settled()
        assert one.pool.open == 0


async def test_retiring_ends_dials_and_idle_connections() -> None:
    """Nothing that was begun for later requests is left."""
    async with bench() as one:
        await one.get()
        await one.websocket()
        assert len(one.dials) == 1
        one.pool.retire()
        await one.settled()
        assert (one.pool.open, one.pool.prewarmed, one.pool.idle) == (0, 0, 0)
