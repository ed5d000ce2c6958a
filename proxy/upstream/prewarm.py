"""Prewarmed connections of a pool: unused, with their TLS handshake complete.

Prewarming neither delays nor fails a request: dials run in separate tasks, and failures are counted
and retried later. ``PrewarmPolicy`` decides on times.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from proxy import backoff
from proxy.errors import UpstreamFailure
from proxy.upstream.connection import CLOSED, UpstreamConnection


@dataclass(slots=True)
class PoolStats:
    """Monotonic counters of a pool.

    reused          requests served by an idle connection
    spared          requests served by a prewarmed connection
    dialled         dials that a request waited for
    spare_dials     dials of prewarmed connections
    spare_failures  such dials that failed, or whose connection the provider closed early
    """

    reused: int = 0
    spared: int = 0
    dialled: int = 0
    spare_dials: int = 0
    spare_failures: int = 0


class PrewarmedConnections:
    """The prewarmed connections of one pool.

    connect  opens a connection of the pool; raises UpstreamFailure
    idle     the pool's idle connections, the most recently used one last; they count as ready
    counts   the pool's counters; those of prewarmed connections are updated here
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
        # Time when each was opened; the oldest first.
        self._since: dict[UpstreamConnection, float] = {}
        self._dials: set[asyncio.Task[None]] = set()
        self._retired = False
        self.prewarm_policy = prewarm_policy

    def __len__(self) -> int:
        return len(self._since)

    def take(self) -> UpstreamConnection | None:
        """The newest connection, or None. Dials a replacement: a WebSocket never returns one."""
        for connection in reversed(self._since):
            # Unread bytes may be TLS session tickets behind the handshake, so the connection is
            # kept; if they are data or an end, the event loop closes it after reading them.
            if not (connection.state is CLOSED or connection.transport.is_closing()) and (
                not connection.has_unread()
            ):
                del self._since[connection]
                self._counts.spared += 1
                self.prewarm_policy.served()
                self._maintain(self._loop.time())
                return connection
        return None

    def forget(self, connection: UpstreamConnection) -> None:
        """Drop a closed connection; after the close of a pooled one, prewarming may be needed."""
        now = self._loop.time()
        since = self._since.pop(connection, None)
        if since is not None:
            self._closed_early(now - since, now)
        self._maintain(now)

    def expire(self, now: float) -> None:
        """Renew, replace and close connections by age. To be called about once a second."""
        self.prewarm_policy.tick(now)
        self._maintain(now)

    def renew(self) -> None:
        """Replace all prewarmed connections."""
        self._close(math.inf)
        self._maintain(self._loop.time())

    def retire(self) -> None:
        """Close all prewarmed connections and dial no more."""
        self._retired = True
        for task in self._dials:
            task.cancel()
        self._close(math.inf)

    def _maintain(self, now: float) -> None:
        """Dial missing connections, close surplus ones.

        An old one is closed when enough young ones are ready, or at its time limit.
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
            prewarm_policy.unused(now - since)
            ready += since > old
        for _ in range(prewarm_policy.missing(ready, len(self._dials), now)):
            task = prewarm_policy.spawn(self._dial())
            self._dials.add(task)
            task.add_done_callback(self._dials.discard)
        self._close(old if ready >= prewarm_policy.prewarmed else old - lead)

    def _close(self, until: float) -> None:
        """Close the connections that were opened at ``until`` or before."""
        for connection in [one for one, since in self._since.items() if since <= until]:
            # Removed first, so that it does not count as closed by the provider.
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
        # As after a response: if the connection ends while a request is being sent, the provider
        # has not read that request.
        connection.fresh = False
        now = self._loop.time()
        self._since[connection] = now
        self._maintain(now)

    def _closed_early(self, seconds: float, now: float) -> None:
        """Count a connection that the provider closed, or on which it sent unsolicited bytes."""
        self._counts.spare_failures += 1
        self.prewarm_policy.closed_early(seconds, now)


# A replacement is dialled this share of the time limit before it, within these bounds (seconds): it
# must be open before the old connection is closed, and times are checked once a second.
_LEAD_SHARE = 0.2
_LEAD_MIN = 2.0
_LEAD_MAX = 5.0
# Minimum interval of renewals (seconds): a provider that closes connections sooner does not accept
# unused ones.
_MIN_RENEWAL = 2.0
# Delay after failed attempts (seconds): full jitter below a doubling bound.
_BACKOFF_MIN = 0.1
_BACKOFF_FIRST = 1.0
_BACKOFF_MAX = 60.0


class PrewarmPolicy:
    """Decides when connections of one route are prewarmed and renewed.

    spawn           starts a task that the application owns, for each dial
    prewarmed       number of connections to keep ready while the route is in use
    in_use_seconds  how long after its last request a route counts as in use
    idle_seconds    how long a connection may stay unused. Below 4 s connections would be renewed
                    continuously, so none is prewarmed
    jitter          a number from 0 to 1, random by default

    The pool sets ``used`` for each request, which is the only cost per request. All times are the
    loop's, in seconds.
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
        # Maximum age of an unused connection; reduced when the provider closes one earlier.
        self._limit = idle_seconds
        self._jitter = jitter
        self._failures = 0
        self._not_before = -math.inf

    def tick(self, now: float) -> None:
        """Update whether the route is in use. To be called about once a second."""
        if self.used:
            self.used = False
            self._in_use_until = now + self._in_use_seconds
        in_use = now < self._in_use_until
        if self._in_use and not in_use:
            # The measured limit may have been accidental; it is measured again on the next use.
            self._limit = self._idle_seconds
            self._failures = 0
        self._in_use = in_use

    @property
    def wanted(self) -> bool:
        """Whether the route is in use and prewarms connections."""
        return (self.used or self._in_use) and self.prewarmed > 0

    @property
    def lead_seconds(self) -> float:
        """How long before its time limit a connection no longer counts as ready (seconds)."""
        return _lead(self._limit)

    @property
    def limit_seconds(self) -> float:
        """Maximum age of an unused connection (seconds)."""
        return self._limit

    def missing(self, ready: int, dialling: int, now: float) -> int:
        """Number of connections to dial now, in addition to the dials in progress.

        One at a time after a failure, as a probe.
        """
        if not self.wanted or now < self._not_before:
            return 0
        most = 1 if self._failures else self.prewarmed
        return max(0, min(self.prewarmed - ready, most) - dialling)

    def served(self) -> None:
        """Record that a prewarmed connection served a request."""
        self._failures = 0

    def unused(self, seconds: float) -> None:
        """Record that a connection has been open and unused this long (seconds)."""
        if _renewable(seconds):
            self._failures = 0

    def closed_early(self, seconds: float, now: float) -> None:
        """Record that the provider closed a connection that had been unused this long (seconds)."""
        if _renewable(seconds):
            self._limit = min(self._limit, seconds)
        else:
            self.failed(now)

    def failed(self, now: float) -> None:
        """Record a failed dial. Simultaneous failures count once."""
        if now < self._not_before:
            return
        bound = backoff.bound(self._failures, first=_BACKOFF_FIRST, most=_BACKOFF_MAX)
        self._failures += 1
        self._not_before = now + max(bound * self._jitter(), _BACKOFF_MIN)


def _lead(limit: float) -> float:
    return min(max(limit * _LEAD_SHARE, _LEAD_MIN), _LEAD_MAX)


def _renewable(limit: float) -> bool:
    """Whether a connection with this time limit can be replaced in time, and not too often."""
    return limit - _lead(limit) >= _MIN_RENEWAL
