"""When spare connections are dialled, renewed and given up. Knows time, and no connection.

A spare is connected, through its TLS handshake and never used, so that a request after a pause pays
one round trip. Providers close such connections after a time of their own, some after seconds: the
first that is closed early tells how long the next may stand. What cannot be had is tried again ever
more rarely.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Coroutine
from typing import Any

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


class Sparing:
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
        "spares",
        "spawn",
        "used",
    )

    def __init__(
        self,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        *,
        spares: int,
        in_use_seconds: float,
        idle_seconds: float,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.spawn = spawn
        self.spares = spares if _renewable(idle_seconds) else 0
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
        return (self.used or self._in_use) and self.spares > 0

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
        most = 1 if self._failures else self.spares
        return max(0, min(self.spares - ready, most) - dialling)

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
