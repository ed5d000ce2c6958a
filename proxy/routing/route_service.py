"""An active route with its connection pool and its limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from proxy.auth.egress import ResolvedEgress
from proxy.auth.strategy import AuthContext
from proxy.config.route import RouteSettings
from proxy.http.problem import body_too_large
from proxy.http.request import Request
from proxy.routing.limits import ExchangeLimits, RouteLimiter
from proxy.routing.route import Route
from proxy.routing.route_secrets import ResolvedSecrets
from proxy.upstream.dialer import Dialer
from proxy.upstream.pool import Pool

# Settings without influence on where a route's secrets are sent, and how. All others determine
# destinations, so that a new setting does until it is listed here. Each secret is compared by its
# own settings.
_NOT_DESTINATION_SETTINGS = frozenset(
    {
        "provider", "title", "docs", "path", "listen", "secrets", "allow", "deny", "methods",
        "strip", "url_fields", "concurrency", "rate", "max_body_bytes", "mask_bodies",
        "pass_forwarded", "connect_timeout_seconds", "answer_timeout_seconds", "idle_seconds",
        "spares", "spare_seconds", "verify", "environment", "withhold",
    }
)  # fmt: skip
_DESTINATION_SETTINGS = tuple(
    one for one in RouteSettings.model_fields if one not in _NOT_DESTINATION_SETTINGS
)


@dataclass(frozen=True, slots=True, eq=False)
class RouteService:
    """Serves one route until a reload changes its settings or secrets.

    found    the secrets that the route was built with
    limiter  counts concurrent requests and their rate; None without such a limit
    limits   limits of each exchange
    created  time of creation (``perf_counter``, seconds); earlier exchanges are not its own
    """

    route: Route
    settings: RouteSettings
    found: ResolvedSecrets
    pool: Pool
    limiter: RouteLimiter | None
    limits: ExchangeLimits
    created: float = field(default_factory=time.perf_counter)

    def matches(self, settings: RouteSettings, found: ResolvedSecrets) -> bool:
        """Whether a service built from these settings and secrets would be the same."""
        return self.settings == settings and self.found.same(found)

    def has_same_destinations(self, settings: RouteSettings, egress: ResolvedEgress) -> bool:
        """Whether these settings send each secret to the same destination in the same way.

        ``egress`` is what was read of the egress proxy and the certificate authorities.
        """
        return self.found.egress.same(egress) and all(
            getattr(self.settings, one) == getattr(settings, one) for one in _DESTINATION_SETTINGS
        )

    def enter(self, request: Request, arrived: int) -> None:
        """Check the limits and count an exchange as begun. Raises Refusal.

        ``arrived`` is the number of body bytes that arrived with the head. ``limits.leave`` must
        be called at the end of the exchange.
        """
        limit = self.limits.max_body_bytes
        if limit is not None:
            announced = int(request.headers.get("Content-Length", "0"))
            if max(announced, arrived) > limit:
                raise body_too_large(self.route.name)
        if self.limiter is not None:
            self.limiter.enter()

    def retire(self) -> None:
        """Accept no new requests; those in progress continue until ``close``."""
        self.pool.retire()

    def close(self) -> None:
        """Abort the remaining connections and discard the credentials."""
        for strategy in self.route.strategies:
            strategy.credential.close()
        self.pool.close()


def dialer_for(
    route: Route,
    settings: RouteSettings,
    context: AuthContext,
    *,
    demo: tuple[str, int] | None,
    own: Callable[[], Collection[tuple[str, int]]] = tuple,
) -> Dialer:
    """The dialer of the route, by the way to its provider in ``context``.

    demo  address of the built-in provider
    own   addresses of keyrelay itself
    """
    return Dialer(
        route.origin,
        connect_seconds=settings.connect_timeout_seconds,
        allow_private=settings.allow_private,
        allow_plaintext=settings.allow_plaintext,
        tls=context.tls,
        address=demo if route.origin.builtin else None,
        own=own,
        egress_proxy=context.egress_proxy,
    )


def limiter_for(
    name: str, settings: RouteSettings, last: RouteService | None
) -> RouteLimiter | None:
    """The route's limiter; the previous one, with its counts, if its settings are unchanged."""
    if settings.concurrency is None and settings.rate is None:
        return None
    if last is not None and (last.settings.concurrency, last.settings.rate) == (
        settings.concurrency,
        settings.rate,
    ):
        return last.limiter
    return RouteLimiter(name, concurrency=settings.concurrency, rate=settings.rate)


def limits_for(settings: RouteSettings, limiter: RouteLimiter | None) -> ExchangeLimits:
    """The limits of each exchange of the route."""
    return ExchangeLimits(
        leave=None if limiter is None else limiter.leave,
        max_body_bytes=settings.max_body_bytes,
        mask_bodies=settings.mask_bodies,
    )
