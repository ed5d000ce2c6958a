"""The connection pool of one route.

A pool belongs to one route and so to one credential: credentials never share a connection. Idle
connections are taken last in, first out, so that an unused pool shrinks; a prewarmed one only if
none is idle. Both are equally fast, and a WebSocket that takes a prewarmed connection leaves the
idle ones, since it never returns its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.errors import UpstreamFailure
from proxy.upstream.connection import CLOSED, UpstreamConnection
from proxy.upstream.dialer import Dialer
from proxy.upstream.interfaces import DialClock
from proxy.upstream.prewarm import PoolStats, PrewarmedConnections, PrewarmPolicy

_NEVER = float("inf")


class Pool:
    """The connections of one route.

    idle_seconds     how long an unused connection is kept; below the idle timeouts of providers'
                     front ends (60 s is the shortest common one), so that a request does not meet a
                     connection that is just being closed
    silence_seconds  how long a provider may send nothing during a response
    dead_peer_seconds  how long the peer of a connection may be gone; see ``http.dead_peers``
    prewarm_policy   when connections are prewarmed; None for never

    ``counts`` increase monotonically.
    """

    def __init__(
        self,
        dialer: Dialer,
        loop: asyncio.AbstractEventLoop,
        *,
        idle_seconds: float,
        silence_seconds: float,
        dead_peer_seconds: Callable[[], float] = lambda: 0,
        prewarm_policy: PrewarmPolicy | None = None,
    ) -> None:
        self._dialer = dialer
        self._loop = loop
        self._idle_seconds = idle_seconds
        self._silence_seconds = silence_seconds
        self._dead_peer_seconds = dead_peer_seconds
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()
        self.counts = PoolStats()
        self._prewarmed: PrewarmedConnections | None = None
        if prewarm_policy is not None:
            self._prewarmed = PrewarmedConnections(
                self._connect, loop, prewarm_policy, self._idle, self.counts
            )

    # -- for requests --------------------------------------------------------------------------

    def take(self) -> UpstreamConnection | None:
        """A ready connection: the most recently used idle one, else a prewarmed one, else None."""
        prewarmed = self._prewarmed
        if prewarmed is not None:
            prewarmed.prewarm_policy.used = True
        while self._idle:
            connection = self._idle.pop()
            if connection.state is CLOSED or connection.transport.is_closing():
                continue
            # Deadlines are enforced once a second; the provider's may be between two of these.
            if connection.deadline <= self._loop.time() or connection.has_unread():
                connection.abort()
                continue
            connection.deadline = _NEVER
            self.counts.reused += 1
            return connection
        return None if prewarmed is None else prewarmed.take()

    async def dial(self, clock: DialClock | None = None) -> UpstreamConnection:
        """Open a new connection, TLS included. Raises UpstreamFailure. Cancellation closes it.

        ``clock`` receives its parts.
        """
        self.counts.dialled += 1
        return await self._connect(clock)

    async def _connect(self, clock: DialClock | None = None) -> UpstreamConnection:
        connection = await self._dialer.dial(
            lambda: UpstreamConnection(
                self, self._loop, self._silence_seconds, self._dead_peer_seconds()
            ),
            clock,
        )
        if connection.state is CLOSED:
            raise UpstreamFailure(
                "connection_terminated", "The provider closed the connection immediately."
            )
        self._open.add(connection)
        return connection

    def give_back(self, connection: UpstreamConnection) -> None:
        """Take back a connection after the clean end of a response."""
        if not self._idle_seconds:
            connection.abort()
            return
        seconds = min(self._idle_seconds, connection.reusable_seconds)
        connection.deadline = self._loop.time() + seconds
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """Drop a connection that is closed or has another owner."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._prewarmed is not None:
            self._prewarmed.forget(connection)

    # -- for the owner -------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Close connections past their deadline, and maintain the prewarmed ones.

        To be called about once a second with the loop's time.
        """
        for connection in list(self._open):
            connection.expire(now)
        if self._prewarmed is not None:
            self._prewarmed.expire(now)

    def drop_unused(self) -> None:
        """Close idle and prewarmed connections: the machine slept, so they may be dead."""
        for connection in list(self._idle):
            connection.abort()
        self._idle.clear()
        if self._prewarmed is not None:
            self._prewarmed.renew()

    def retire(self) -> None:
        """Serve requests in progress only: a reload has replaced this pool.

        Idle connections are closed now, busy ones after their response. A request that got this
        pool before may still dial.
        """
        self._idle_seconds = 0
        if self._prewarmed is not None:
            self._prewarmed.retire()
        self.drop_unused()

    def close(self) -> None:
        """Abort every connection."""
        self.retire()
        for connection in list(self._open):
            connection.abort()

    @property
    def idle(self) -> int:
        """Number of connections that wait for another request."""
        return len(self._idle)

    @property
    def prewarmed(self) -> int:
        """Number of connections that wait for their first request."""
        return 0 if self._prewarmed is None else len(self._prewarmed)

    @property
    def open(self) -> int:
        """Number of all connections, including busy ones, excluding those of WebSockets."""
        return len(self._open)
