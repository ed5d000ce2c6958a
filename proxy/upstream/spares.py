"""The spare connections of a pool: standing, never used, through their TLS handshake.

Nothing here delays or fails a request: dials run in tasks of their own, and what goes wrong is
counted and tried again later. ``sparing`` decides on times.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ..errors import UpstreamFailure
from .connection import UpstreamConnection
from .sparing import Sparing


@dataclass(slots=True)
class PoolCounts:
    """What a pool has done so far.

    reused          times that an idle connection served
    spared          times that a spare served
    dialled         dials that a request waited for
    spare_dials     dials of spares
    spare_failures  of those, how many failed, or gave what the provider closed before its time
    """

    reused: int = 0
    spared: int = 0
    dialled: int = 0
    spare_dials: int = 0
    spare_failures: int = 0


class Spares:
    """The spares of one pool.

    connect  opens a connection of the pool; raises UpstreamFailure
    idle     the pool's idle connections, those given back last at the end; they count as spares
    counts   the pool's, three of which are kept here
    """

    __slots__ = ("_connect", "_counts", "_dials", "_idle", "_loop", "_retired", "_since", "sparing")

    def __init__(
        self,
        connect: Callable[[], Awaitable[UpstreamConnection]],
        loop: asyncio.AbstractEventLoop,
        sparing: Sparing,
        idle: Sequence[UpstreamConnection],
        counts: PoolCounts,
    ) -> None:
        self._connect = connect
        self._loop = loop
        self._idle = idle
        self._counts = counts
        # When each began to stand; the oldest first.
        self._since: dict[UpstreamConnection, float] = {}
        self._dials: set[asyncio.Task[None]] = set()
        self._retired = False
        self.sparing = sparing

    def __len__(self) -> int:
        return len(self._since)

    def take(self) -> UpstreamConnection | None:
        """The newest spare, or None. Another is dialled at once: a WebSocket never gives back."""
        for connection in reversed(self._since):
            # Where the loop has something to tell, it may be TLS, which sends tickets behind its
            # handshake; data or an end close the connection when the loop has told of it.
            if not (connection.closed or connection.transport.is_closing()) and (
                not connection.has_unread()
            ):
                del self._since[connection]
                self._counts.spared += 1
                self.sparing.served()
                self._tend(self._loop.time())
                return connection
        return None

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection of the pool is gone; if it was no spare, a spare may have to replace it."""
        now = self._loop.time()
        since = self._since.pop(connection, None)
        if since is not None:
            self._lost(now - since, now)
        self._tend(now)

    def expire(self, now: float) -> None:
        """Renew, replace and give up what time has come for. To be called about once a second."""
        self.sparing.tick(now)
        self._tend(now)

    def retire(self) -> None:
        """Close all there are; there will be no more."""
        self._retired = True
        for task in self._dials:
            task.cancel()
        self._close(math.inf)

    def _tend(self, now: float) -> None:
        """Dial the spares that are missing, close those that are not needed any more.

        An old one is closed when as many young ones stand as there shall be, or its time is over.
        """
        sparing = self.sparing
        if self._retired:
            return
        if not sparing.wanted:
            self._close(math.inf)
            return
        lead = sparing.lead_seconds
        old = now - sparing.limit_seconds + lead
        ready = sum(one.deadline - now > lead for one in self._idle[-sparing.spares :])
        for since in self._since.values():
            sparing.stood(now - since)
            ready += since > old
        for _ in range(sparing.missing(ready, len(self._dials), now)):
            task = sparing.spawn(self._dial())
            self._dials.add(task)
            task.add_done_callback(self._dials.discard)
        self._close(old if ready >= sparing.spares else old - lead)

    def _close(self, until: float) -> None:
        """Close those that have been standing since ``until`` or longer."""
        for connection in [one for one, since in self._since.items() if since <= until]:
            # First out of here, so that it does not count as closed by the provider.
            del self._since[connection]
            connection.abort()

    async def _dial(self) -> None:
        self._counts.spare_dials += 1
        try:
            connection = await self._connect()
        except UpstreamFailure:
            self._counts.spare_failures += 1
            self.sparing.failed(self._loop.time())
            return
        # As after an answer: if it ends just as a request leaves, nobody has read that request.
        connection.fresh = False
        now = self._loop.time()
        self._since[connection] = now
        self._tend(now)

    def _lost(self, seconds: float, now: float) -> None:
        """The provider closed a spare, or sent something that nobody had asked for."""
        self._counts.spare_failures += 1
        self.sparing.lost(seconds, now)
