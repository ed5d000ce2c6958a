"""The services of all routes, replaced by a reload during operation.

The service of an unchanged route stays, with its connections, its token and its counts. A replaced
service takes no new requests and is closed when its last request has ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from ssl import SSLContext

from proxy.auth.strategy import AuthContext, Strategy
from proxy.config.route import RouteSettings
from proxy.config.settings import Settings
from proxy.errors import KeyrelayError
from proxy.observability.exchange_log import ExchangeRecord
from proxy.routing.builder import compile_route
from proxy.routing.route_secrets import ResolvedSecrets, hidden_from, variables_in
from proxy.routing.route_service import RouteService, dialer_for, limiter_for, limits_for
from proxy.secrets.redaction import Redactor
from proxy.upstream.pool import Pool
from proxy.upstream.prewarm import PrewarmPolicy
from proxy.upstream.tls import tls_context


@dataclass(frozen=True, slots=True)
class _Retired:
    """A replaced service, and the time of its replacement (``perf_counter``)."""

    route_service: RouteService
    at: float = field(default_factory=time.perf_counter)


class RouteServices:
    """The services in force, and the replaced ones with requests in flight.

    context   for strategies and for dialling prewarmed connections
    own       addresses of keyrelay itself, which are barred as upstreams
    withheld  lower-case names of fields that are removed from every client's request
    dead_peer_seconds  see ``Pool``
    """

    def __init__(
        self,
        context: AuthContext,
        loop: asyncio.AbstractEventLoop,
        own: Callable[[], Collection[tuple[str, int]]],
        withheld: frozenset[bytes] = frozenset(),
        dead_peer_seconds: Callable[[], float] = lambda: 0,
    ) -> None:
        self._auth_context = context
        self._loop = loop
        self._own = own
        self._withheld = withheld
        self._dead_peer_seconds = dead_peer_seconds
        self._retired: list[_Retired] = []
        self._contexts: dict[str, SSLContext] = {}
        # Only grows: a variable that a new configuration no longer names is still set.
        self._variables: frozenset[str] = frozenset()
        self.in_force: Mapping[str, RouteService] = {}

    def prepare(
        self, settings: Settings, found: Mapping[str, ResolvedSecrets], demo: tuple[str, int] | None
    ) -> dict[str, RouteService]:
        """Return a service for each route, the one in force if the route is unchanged.

        ``demo`` is the address of the built-in provider. New services that are not ``put_in_force``
        must be closed: see ``discard``.
        """
        self._variables |= variables_in(settings)
        return {
            name: self._service(name, route, found[name], demo)
            for name, route in settings.routes.items()
        }

    def _service(
        self,
        name: str,
        settings: RouteSettings,
        found: ResolvedSecrets,
        demo: tuple[str, int] | None,
    ) -> RouteService:
        last = self.in_force.get(name)
        if last is not None and last.matches(settings, found):
            return last
        context = replace(
            self._auth_context.over(found.egress, self._tls(found.egress.authorities)),
            hidden=partial(self._hidden_from, settings),
        )
        route = compile_route(name, settings, found, context, self._withheld)
        pool = Pool(
            dialer_for(route, settings, context, demo=demo, own=self._own),
            self._loop,
            idle_seconds=settings.idle_seconds,
            silence_seconds=settings.answer_timeout_seconds,
            dead_peer_seconds=self._dead_peer_seconds,
            prewarm_policy=PrewarmPolicy(
                self._auth_context.spawn,
                prewarmed=settings.spares,
                in_use_seconds=settings.spare_seconds,
                idle_seconds=settings.idle_seconds,
            ),
        )
        limiter = limiter_for(name, settings, last)
        return RouteService(route, settings, found, pool, limiter, limits_for(settings, limiter))

    def _tls(self, authorities: str) -> SSLContext:
        """Return the context for connections of a route: one for equal CAs, as each is large."""
        if not authorities:
            return self._auth_context.tls
        if authorities not in self._contexts:
            self._contexts[authorities] = tls_context(authorities)
        return self._contexts[authorities]

    def _hidden_from(self, settings: RouteSettings) -> frozenset[str]:
        """Return the variables hidden from a starting command: a reload may have added some."""
        return hidden_from(settings, self._variables)

    def put_in_force(self, route_services: Mapping[str, RouteService]) -> None:
        """Replace the services in force. New strategies start to obtain their credentials."""
        old, self.in_force = self.in_force, route_services
        for name, route_service in old.items():
            if route_services.get(name) is not route_service:
                route_service.retire()
                self._retired.append(_Retired(route_service))
        for name, route_service in route_services.items():
            if old.get(name) is not route_service:
                for strategy in route_service.route.strategies:
                    strategy.credential.start()

    def discard(self, route_services: Mapping[str, RouteService]) -> None:
        """Close those of ``route_services`` that are not in force."""
        for name, route_service in route_services.items():
            if self.in_force.get(name) is not route_service:
                route_service.close()

    def differences(self, route_services: Mapping[str, RouteService]) -> Iterator[str]:
        """Yield the differences of ``route_services`` from those in force, for the operator."""
        for name, route_service in route_services.items():
            old = self.in_force.get(name)
            if old is None:
                yield f"route {name} is new"
            elif old is not route_service:
                what = "settings" if old.settings != route_service.settings else "secrets"
                yield f"route {name} has other {what}"
        for name in self.in_force:
            if name not in route_services:
                yield f"route {name} is gone"

    def check_ready(self, route_services: Mapping[str, RouteService], *, strict: bool) -> None:
        """Raise KeyrelayError if a ready route would become unready.

        If ``strict``, also if any route is unready. The error has a line with the cause for each
        such route.
        """
        lost = []
        for name, route_service in route_services.items():
            old = self.in_force.get(name)
            if route_service.route.unready and (
                strict or (old is not None and not old.route.unready)
            ):
                lost.append(f"{name}: not ready: {route_service.route.unready}")
        if lost:
            raise KeyrelayError("\n".join(lost))

    def expire(self, now: float, exchanges: Collection[ExchangeRecord]) -> None:
        """Expire connections and close replaced services without work.

        To be called once a second with the loop's time (seconds) and the open exchanges.
        """
        for route_service in self.in_force.values():
            route_service.pool.expire(now)
        for retired in list(self._retired):
            retired.route_service.pool.expire(now)
            if not _has_work(retired, exchanges):
                self._retired.remove(retired)
                retired.route_service.close()

    def drop_unused(self) -> None:
        """Close connections without a request: the machine slept, so they may be dead."""
        for route_service in self.in_force.values():
            route_service.pool.drop_unused()

    def redactors(self, name: str) -> Iterator[Redactor]:
        """Yield the redactors of a route's credentials, none for a removed route."""
        if name in self.in_force:
            for strategy in self.in_force[name].route.strategies:
                for injection in strategy.credential.active_injections():
                    yield injection.redactor

    def strategies(self) -> Iterator[Strategy]:
        for route_service in self.in_force.values():
            yield from route_service.route.strategies

    def retire(self) -> None:
        """Finish requests in flight and take no new ones; prewarm no connections."""
        for route_service in self.in_force.values():
            route_service.retire()

    def close(self) -> None:
        """Drop every connection and forget every credential."""
        for route_service in (
            *self.in_force.values(),
            *(one.route_service for one in self._retired),
        ):
            route_service.close()


def _has_work(retired: _Retired, exchanges: Iterable[ExchangeRecord]) -> bool:
    """Whether a request of the service is in flight. An open WebSocket does not need it."""
    route_service = retired.route_service
    return any(
        one.route == route_service.route.name
        and route_service.created <= one.began < retired.at
        and one.status != HTTPStatus.SWITCHING_PROTOCOLS
        for one in exchanges
    )


def general_differences(old: Settings, new: Settings) -> Iterator[str]:
    """Yield the differences beside routes and listeners, for the operator."""
    if _general(old) != _general(new):
        yield "general settings are different"
    if _at_start(old) != _at_start(new):
        yield "admin, tokens, tracing and workers change at the next start"


def _general(settings: Settings) -> Settings:
    return settings.model_copy(update={"routes": {}, "listen": ()})


def _at_start(settings: Settings) -> tuple[object, ...]:
    """Return the settings that are read only at the start."""
    return settings.admin, settings.tokens, settings.tracing, settings.workers


def keep_last(
    found: Mapping[str, ResolvedSecrets],
    settings: Settings,
    last: Mapping[str, RouteService],
    warn: Callable[[str], object],
) -> dict[str, ResolvedSecrets]:
    """Return ``found``, with the last value of each secret that has become unreadable, and warn.

    A file may be missing while it is replaced. The last value is kept only if the configuration of
    the secret and of its destinations is unchanged: it was not checked for other destinations.
    """
    kept = {}
    for name, one in found.items():
        old, new = last.get(name), settings.routes[name]
        secrets, lacking = dict(one.secrets), dict(one.lacking)
        for secret, remedy in one.lacking.items():
            if old is None or secret not in old.found.secrets:
                continue
            if not old.has_same_destinations(new, one.egress):
                continue
            if old.settings.secrets.get(secret) == new.secrets.get(secret):
                secrets[secret] = old.found.secrets[secret]
                del lacking[secret]
                warn(f"{name}: the last good value of {secret} goes on serving; {remedy}")
        kept[name] = replace(one, secrets=secrets, lacking=lacking)
    return kept
