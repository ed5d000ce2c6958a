"""Limits of a route: concurrent requests, requests per time, body size.

They protect the account from a front end whose code runs in a loop. Counted per process and route,
before any connection is dialled.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy.errors import Refusal

# `limits` is imported for the first route with a rate: 3 MB that most configurations do not need.
if TYPE_CHECKING:
    from limits import RateLimitItem

# Retry-After when the concurrency limit is reached (seconds). The actual time is unknown; SDKs wait
# at least this long before a retry.
_RETRY_SECONDS = 1


@dataclass(frozen=True, slots=True)
class ExchangeLimits:
    """Limits of a route for one exchange.

    leave           called at the end of the exchange; None without a limiter
    max_body_bytes  maximum size of a request body; None for no limit
    mask_bodies     whether the credential is redacted in every response body
    """

    leave: Callable[[], None] | None
    max_body_bytes: int | None
    mask_bodies: bool


class _Window:
    """A moving window: so many requests within any span of ``rate``.

    ``limits`` parses the rate but counts by the wall clock, which may be set back.
    """

    def __init__(self, rate: RateLimitItem, monotonic: Callable[[], float]) -> None:
        self.rate = rate
        self._seconds = rate.get_expiry()
        self._monotonic = monotonic
        self._entered: deque[float] = deque(maxlen=rate.amount)

    def enter(self) -> float:
        """Count a request; 0 if it is within the rate, else the seconds until one is."""
        now = self._monotonic()
        if len(self._entered) == self._entered.maxlen:
            wait = self._entered[0] + self._seconds - now
            if wait > 0:
                return wait
        self._entered.append(now)
        return 0


class RouteLimiter:
    """Limiter of one route. ``concurrency`` and ``rate`` (``60/minute``) are None for no limit.

    monotonic  the clock of the rate, in seconds
    """

    def __init__(
        self,
        route: str,
        *,
        concurrency: int | None,
        rate: str | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._route = route
        self._concurrency = concurrency
        self._in_progress = 0
        self._window: _Window | None = None
        if rate is not None:
            from limits import parse

            self._window = _Window(parse(rate), monotonic)

    def enter(self) -> None:
        """Count a request that begins; ``leave`` must follow. Raises Refusal over a limit."""
        if self._concurrency is not None and self._in_progress >= self._concurrency:
            raise Refusal(
                503,
                "too-many-at-once",
                f"The route {self._route} serves {self._concurrency} requests at a time.",
                "Try again, or raise concurrency in the routes file.",
                proxy_error="connection_limit_reached",
                headers=(("Retry-After", str(_RETRY_SECONDS)),),
            )
        if self._window is not None and (seconds := self._window.enter()):
            wait = max(1, math.ceil(seconds))
            raise Refusal(
                429,
                "rate-exceeded",
                f"The route {self._route} serves {self._window.rate}.",
                f"Try again in {wait} s, or raise rate in the routes file.",
                headers=(("Retry-After", str(wait)),),
            )
        self._in_progress += 1

    def leave(self) -> None:
        """Count the end of a request that has entered."""
        self._in_progress -= 1
