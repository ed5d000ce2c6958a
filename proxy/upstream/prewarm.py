"""The spare connections of a pool: standing, never used, through their TLS handshake.

Nothing here delays or fails a request: dials run in tasks of their own, and what goes wrong is
counted and tried again later. ``sparing`` decides on times.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.errors import UpstreamFailure
from proxy.upstream.connection import UpstreamConnection


@dataclass(slots=True)
class PoolStats:
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


class PrewarmedConnections:
    """The spares of one pool.

    connect  opens a connection of the pool; raises UpstreamFailure
    idle     the pool's idle connections, those given back last at the end; they count as spares
    counts   the pool's, three of which are kept here
    """

    __slots__ = (
        "_connect",
        "_counts",
        "_dials",
        "_idle",
        "_loop",
        "_retired",
        "_since",
        "prewarm_policy",
    )

    def __init__(
        self,
        connect: Callable[[], Awaitable[UpstreamConnection]],
        loop: asyncio.AbstractEventLoop,
        prewarm_policy: PrewarmPolicy,
        idle: Sequence[UpstreamConnection],
        counts: PoolStats,
    ) -> None:
        self._connect = connect
        self._loop = loop
        self._idle = idle
        self._counts = counts
        # When each began to stand; the oldest first.
        self._since: dict[UpstreamConnection, float] = {}
        self._dials: set[asyncio.Task[None]] = set()
        self._retired = False
        self.prewarm_policy = prewarm_policy

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
                self.prewarm_policy.served()
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
        self.prewarm_policy.tick(now)
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
        prewarm_policy = self.prewarm_policy
        if self._retired:
            return
        if not prewarm_policy.wanted:
            self._close(math.inf)
            return
        lead = prewarm_policy.lead_seconds
        old = now - prewarm_policy.limit_seconds + lead
        ready = sum(one.deadline - now > lead for one in self._idle[-prewarm_policy.prewarmed :])
        for since in self._since.values():
            prewarm_policy.stood(now - since)
            ready += since > old
        for _ in range(prewarm_policy.missing(ready, len(self._dials), now)):
            task = prewarm_policy.spawn(self._dial())
            self._dials.add(task)
            task.add_done_callback(self._dials.discard)
        self._close(old if ready >= prewarm_policy.prewarmed else old - lead)

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
            self.prewarm_policy.failed(self._loop.time())
            return
        # As after an answer: if it ends just as a request leaves, nobody has read that request.
        connection.fresh = False
        now = self._loop.time()
        self._since[connection] = now
        self._tend(now)

    def _lost(self, seconds: float, now: float) -> None:
        """The provider closed a spare, or sent something that nobody had asked for."""
        self._counts.spare_failures += 1
        self.prewarm_policy.lost(seconds, now)


# A fresh spare is dialled this share of a spare's time before its end, within these bounds
# (seconds): it has to stand before the old one is closed, and time is looked at once a second.
_LEAD_SHARE = 0.2
_LEAD_LEAST = 2.0
_LEAD_MOST = 5.0
# Spares are not renewed more often than this (seconds): a provider that closes them sooner does not
# want them.
_RENEW_LEAST = 2.0
# Spacing of attempts that fail (seconds): full jitter below a doubling bound.
_BACKOFF_LEAST = 0.1
_BACKOFF_FIRST = 1.0
_BACKOFF_MOST = 60.0


class PrewarmPolicy:
    """The spares of one route, as far as time decides on them.

    spawn           starts a task that somebody owns; the dials of spares run in such tasks
    spares          how many connections shall be ready while the route is in use
    in_use_seconds  how long after its last request a route counts as in use
    idle_seconds    how long a connection may stand unused. Below 4 s spares would have to be
                    renewed all the time, so there are none
    jitter          a number from 0 to 1, random by default

    ``used`` is set by whoever serves a request: nothing else need be done for each of them.
    All times are the loop's.
    """

    __slots__ = (
        "_failures",
        "_idle_seconds",
        "_in_use",
        "_in_use_seconds",
        "_in_use_until",
        "_jitter",
        "_limit",
        "_not_before",
        "prewarmed",
        "spawn",
        "used",
    )

    def __init__(
        self,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        *,
        prewarmed: int,
        in_use_seconds: float,
        idle_seconds: float,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.spawn = spawn
        self.prewarmed = prewarmed if _renewable(idle_seconds) else 0
        self.used = False
        self._in_use = False
        self._in_use_seconds = in_use_seconds
        self._in_use_until = -math.inf
        self._idle_seconds = idle_seconds
        # How long a spare may stand: less than idle_seconds once the provider has shown it.
        self._limit = idle_seconds
        self._jitter = jitter
        self._failures = 0
        self._not_before = -math.inf

    def tick(self, now: float) -> None:
        """Notice whether the route is in use. To be called about once a second."""
        if self.used:
            self.used = False
            self._in_use_until = now + self._in_use_seconds
        in_use = now < self._in_use_until
        if self._in_use and not in_use:
            # What was learnt may have been an accident; the next requests find out anew.
            self._limit = self._idle_seconds
            self._failures = 0
        self._in_use = in_use

    @property
    def wanted(self) -> bool:
        """Whether the route is in use and so has spares."""
        return (self.used or self._in_use) and self.prewarmed > 0

    @property
    def lead_seconds(self) -> float:
        """How long before its end a connection no longer counts as ready."""
        return _lead(self._limit)

    @property
    def limit_seconds(self) -> float:
        """How long a spare may stand."""
        return self._limit

    def missing(self, ready: int, dialling: int, now: float) -> int:
        """How many spares are to be dialled now, beside those being dialled.

        After a failure one at a time: it shows whether more are worth it.
        """
        if not self.wanted or now < self._not_before:
            return 0
        most = 1 if self._failures else self.prewarmed
        return max(0, min(self.prewarmed - ready, most) - dialling)

    def served(self) -> None:
        """A spare was of use."""
        self._failures = 0

    def stood(self, seconds: float) -> None:
        """A spare has been standing for so long, and still is."""
        if _renewable(seconds):
            self._failures = 0

    def lost(self, seconds: float, now: float) -> None:
        """The provider closed a spare that had stood this long."""
        if _renewable(seconds):
            self._limit = min(self._limit, seconds)
        else:
            self.failed(now)

    def failed(self, now: float) -> None:
        """A spare could not be had. Several at the same time count once."""
        if now < self._not_before:
            return
        bound = min(_BACKOFF_FIRST * 2 ** min(self._failures, 30), _BACKOFF_MOST)
        self._failures += 1
        self._not_before = now + max(bound * self._jitter(), _BACKOFF_LEAST)


def _lead(limit: float) -> float:
    return min(max(limit * _LEAD_SHARE, _LEAD_LEAST), _LEAD_MOST)


def _renewable(limit: float) -> bool:
    """Whether a spare that may stand so long can be replaced in time, and not too often."""
    return limit - _lead(limit) >= _RENEW_LEAST
