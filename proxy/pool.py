"""The connections of one route to its provider.

A pool belongs to one route and so to one credential: no connection is ever shared between two.
Idle connections are handed out last in, first out, so that a quiet pool shrinks.
"""

from __future__ import annotations

import asyncio

from .dialling import Dialler
from .upstream import UpstreamConnection

_NEVER = float("inf")


class Pool:
    """The connections of one route.

    idle_seconds      how long an unused connection is kept; below the idle limits that providers'
                      front ends have (60 s is the shortest common one), so that a request does not
                      meet a connection that is just being closed
    silence_seconds   how long a provider that owes an answer may send nothing
    """

    def __init__(
        self,
        dialler: Dialler,
        loop: asyncio.AbstractEventLoop,
        *,
        idle_seconds: float,
        silence_seconds: float,
    ) -> None:
        self._dialler = dialler
        self._loop = loop
        self._idle_seconds = idle_seconds
        self._silence_seconds = silence_seconds
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()

    def take(self) -> UpstreamConnection | None:
        """An idle connection, the one used last, or None."""
        while self._idle:
            connection = self._idle.pop()
            if connection.closed or connection.transport.is_closing():
                continue
            if connection.has_unread():
                connection.abort()
                continue
            connection.deadline = _NEVER
            return connection
        return None

    async def dial(self) -> UpstreamConnection:
        """A new connection, TLS included. Raises UpstreamFailure. Cancelling leaves nothing."""
        connection = await self._dialler.dial(
            lambda: UpstreamConnection(self, self._loop, self._silence_seconds)
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

    def expire(self, now: float) -> None:
        """Close what has been idle or silent for too long. To be called about once a second."""
        for connection in list(self._open):
            connection.expire(now)

    def close(self) -> None:
        """Drop every connection."""
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return len(self._idle)
