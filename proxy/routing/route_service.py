"""A route in force: compiled, with its connections to the provider and the bounds it keeps."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from proxy.config.route import RouteSettings
from proxy.http.problem import body_too_large
from proxy.http.request import Request
from proxy.routing.limits import ExchangeLimits, RouteLimiter
from proxy.routing.route import Route
from proxy.routing.route_secrets import ResolvedSecrets
from proxy.upstream.pool import Pool

# What decides where a route's secrets go; token endpoints and commands are within ``auth``.
_WHERE = ("upstream", "auth", "strategy", "allow_private", "allow_plaintext", "vend")


@dataclass(frozen=True, slots=True, eq=False)
class RouteService:
    """What serves one route, until a reload changes something about it.

    found      the secrets that the route was compiled with
    allowance  how much it may do, None without a bound
    bounds     what it lets each exchange do
    made       when (``perf_counter``): what began before is not its work
    """

    route: Route
    settings: RouteSettings
    found: ResolvedSecrets
    pool: Pool
    limiter: RouteLimiter | None
    bounds: ExchangeLimits
    made: float = field(default_factory=time.perf_counter)

    def fits(self, settings: RouteSettings, found: ResolvedSecrets) -> bool:
        """Whether nothing would be different with these."""
        return self.settings == settings and self.found.same(found)

    def sends_as(self, settings: RouteSettings) -> bool:
        """Whether with these, too, each secret would go where it goes now, and in the same way."""
        return all(getattr(self.settings, one) == getattr(settings, one) for one in _WHERE)

    def enter(self, request: Request, arrived: int) -> ExchangeLimits:
        """What the route lets this exchange do, counted as begun. Raises Refusal.

        ``arrived`` is how much of the body has come with the head.
        """
        bounds = self.bounds
        if bounds.max_body_bytes is not None:
            announced = int(request.headers.get("Content-Length", "0"))
            if max(announced, arrived) > bounds.max_body_bytes:
                raise body_too_large(self.route.name)
        if self.limiter is not None:
            self.limiter.enter()
        return bounds

    def retire(self) -> None:
        """Take no new work; what is under way goes on until ``close``."""
        self.pool.retire()

    def close(self) -> None:
        """Drop what is left, and forget the credentials."""
        for strategy in self.route.strategies:
            strategy.close()
        self.pool.close()


def allowance_of(
    name: str, settings: RouteSettings, last: RouteService | None
) -> RouteLimiter | None:
    """The route's allowance; the last one goes on counting where nothing changed about it."""
    if settings.concurrency is None and settings.rate is None:
        return None
    if last is not None and (last.settings.concurrency, last.settings.rate) == (
        settings.concurrency,
        settings.rate,
    ):
        return last.limiter
    return RouteLimiter(name, concurrency=settings.concurrency, rate=settings.rate)


def bounds_of(settings: RouteSettings, limiter: RouteLimiter | None) -> ExchangeLimits:
    """What the route lets each exchange do."""
    return ExchangeLimits(
        leave=None if limiter is None else limiter.leave,
        max_body_bytes=settings.max_body_bytes,
        mask_bodies=settings.mask_bodies,
    )
