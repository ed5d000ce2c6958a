"""The connections of one route to its provider.

A pool belongs to one route and so to one credential: no connection is ever shared between two.
Idle connections are handed out last in, first out, so that a quiet pool shrinks; a *spare*, which
was dialled ahead of need, only when none is idle. One is as fast as the other, and a spare that is
kept serves the WebSocket that will take its connection away for good.
"""

from __future__ import annotations

import asyncio

from proxy.errors import UpstreamFailure
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.dialer import Dialler
from proxy.upstream.prewarm import PoolStats, PrewarmedConnections, PrewarmPolicy

_NEVER = float("inf")


class Pool:
    """The connections of one route.

    idle_seconds      how long an unused connection is kept; below the idle limits that providers'
                      front ends have (60 s is the shortest common one), so that a request does not
                      meet a connection that is just being closed
    silence_seconds   how long a provider that owes an answer may send nothing
    sparing           when spares are dialled; None for no spares

    ``counts`` only ever grow.
    """

    def __init__(
        self,
        dialler: Dialler,
        loop: asyncio.AbstractEventLoop,
        *,
        idle_seconds: float,
        silence_seconds: float,
        prewarm_policy: PrewarmPolicy | None = None,
    ) -> None:
        self._dialler = dialler
        self._loop = loop
        self._idle_seconds = idle_seconds
        self._silence_seconds = silence_seconds
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()
        self.counts = PoolStats()
        self._spares: PrewarmedConnections | None = None
        if prewarm_policy is not None:
            self._spares = PrewarmedConnections(
                self._connect, loop, prewarm_policy, self._idle, self.counts
            )

    # -- for requests --------------------------------------------------------------------------

    def take(self) -> UpstreamConnection | None:
        """A connection that is ready: the idle one used last, else the newest spare, else None."""
        prewarmed = self._spares
        if prewarmed is not None:
            prewarmed.prewarm_policy.used = True
        while self._idle:
            connection = self._idle.pop()
            if connection.closed or connection.transport.is_closing():
                continue
            if connection.has_unread():
                connection.abort()
                continue
            connection.deadline = _NEVER
            self.counts.reused += 1
            return connection
        return None if prewarmed is None else prewarmed.take()

    async def dial(self) -> UpstreamConnection:
        """A new connection, TLS included. Raises UpstreamFailure. Cancelling leaves nothing."""
        self.counts.dialled += 1
        return await self._connect()

    async def _connect(self) -> UpstreamConnection:
        connection = await self._dialler.dial(
            lambda: UpstreamConnection(self, self._loop, self._silence_seconds)
        )
        if connection.closed:
            raise UpstreamFailure(
                "connection_terminated", "The provider closed the connection at once."
            )
        self._open.add(connection)
        return connection

    def give_back(self, connection: UpstreamConnection) -> None:
        """Take a connection whose answer has ended cleanly."""
        if not self._idle_seconds:
            connection.abort()
            return
        connection.deadline = self._loop.time() + self._idle_seconds
        self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """The connection is closed, or no longer ours."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._spares is not None:
            self._spares.forget(connection)

    # -- for the owner -------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Close what has been idle or silent for too long, and see to the spares.

        To be called about once a second with the loop's time.
        """
        for connection in list(self._open):
            connection.expire(now)
        if self._spares is not None:
            self._spares.expire(now)

    def retire(self) -> None:
        """Serve what is under way and nothing more: a reload has put another pool in place.

        What waits for requests is closed now, what serves one when its answer ends. A request that
        found this pool earlier may still dial.
        """
        self._idle_seconds = 0
        for connection in list(self._idle):
            connection.abort()
        self._idle.clear()
        if self._spares is not None:
            self._spares.retire()

    def close(self) -> None:
        """Drop every connection."""
        self.retire()
        for connection in list(self._open):
            connection.abort()

    @property
    def idle(self) -> int:
        """How many connections have served and wait for another request."""
        return len(self._idle)

    @property
    def prewarmed(self) -> int:
        """How many connections wait for their first request."""
        return 0 if self._spares is None else len(self._spares)

    @property
    def open(self) -> int:
        """How many connections there are, those in use among them; a WebSocket's is not ours."""
        return len(self._open)
