"""How much a route may do at a time, and in a span of time.

So that a front end whose code runs in a loop does not burn the account. Counted per process and
route, before anything is dialled.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy.errors import Refusal

# `limits` is loaded with the first route that has a rate: 3 MB that most do without.
if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.strategies import MovingWindowRateLimiter

# When another request has a chance once the bound of parallel ones is reached (seconds): nobody
# knows, but SDKs wait at least this long before they try again.
_SOON = 1


@dataclass(frozen=True, slots=True)
class ExchangeLimits:
    """What a route lets one exchange do.

    leave           called when the exchange has ended
    max_body_bytes  largest body of a request; None for no bound
    mask_bodies     whether the credential is blotted out in every body of the answer
    """

    leave: Callable[[], None] | None
    max_body_bytes: int | None
    mask_bodies: bool


class RouteLimiter:
    """One route's. ``concurrency`` and ``rate`` (``60/minute``) are None for no bound."""

    def __init__(self, route: str, *, concurrency: int | None, rate: str | None) -> None:
        self._route = route
        self._concurrency = concurrency
        self._under_way = 0
        self._rate: RateLimitItem | None = None
        self._window: MovingWindowRateLimiter | None = None
        if rate is not None:
            from limits import parse
            from limits.storage import MemoryStorage
            from limits.strategies import MovingWindowRateLimiter

            self._rate = parse(rate)
            self._window = MovingWindowRateLimiter(MemoryStorage())

    def enter(self) -> None:
        """A request begins; ``leave`` must follow. Raises Refusal if it may not."""
        if self._concurrency is not None and self._under_way >= self._concurrency:
            raise Refusal(
                503,
                "too-many-at-once",
                f"The route {self._route} serves {self._concurrency} requests at a time.",
                "Try again, or raise concurrency in the routes file.",
                proxy_error="connection_limit_reached",
                headers=(("Retry-After", str(_SOON)),),
            )
        if (
            self._rate is not None
            and self._window is not None
            and not self._window.hit(self._rate, self._route)
        ):
            free_at = self._window.get_window_stats(self._rate, self._route).reset_time
            wait = max(1, math.ceil(free_at - time.time()))
            raise Refusal(
                429,
                "rate-exceeded",
                f"The route {self._route} serves {self._rate}.",
                f"Come back in {wait} s, or raise rate in the routes file.",
                headers=(("Retry-After", str(wait)),),
            )
        self._under_way += 1

    def leave(self) -> None:
        """A request that had entered has ended."""
        self._under_way -= 1
