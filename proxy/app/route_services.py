"""The services of all routes: how one configuration follows another while requests go on.

Where nothing is different about a route its service stays, with its connections, its token and its
counts. What is replaced takes no new work and is closed when its last request has ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus

from proxy.auth.strategy import AuthContext, Strategy
from proxy.config.route import RouteSettings
from proxy.config.settings import Settings
from proxy.errors import KeyrelayError
from proxy.observability.exchange_log import ExchangeRecord
from proxy.routing.builder import compile_route
from proxy.routing.route_secrets import ResolvedSecrets, hidden_from, variables_in
from proxy.routing.route_service import RouteService, limiter_for, limits_for
from proxy.secrets.redaction import Redactor
from proxy.upstream.dialer import Dialler
from proxy.upstream.pool import Pool
from proxy.upstream.prewarm import PrewarmPolicy


@dataclass(frozen=True, slots=True)
class _Retired:
    """A service that has been replaced, and when (``perf_counter``)."""

    route_service: RouteService
    at: float = field(default_factory=time.perf_counter)


class RouteServices:
    """Those in force, and those that are ending.

    means  for strategies and for the dials of spares
    own    where keyrelay itself listens, so that no route leads there

    ``withheld`` are lower-case names of fields that no client's request takes to a provider.
    """

    def __init__(
        self,
        means: AuthContext,
        loop: asyncio.AbstractEventLoop,
        own: Callable[[], Collection[tuple[str, int]]],
        withheld: frozenset[bytes] = frozenset(),
    ) -> None:
        self._means = means
        self._loop = loop
        self._own = own
        self._withheld = withheld
        self._retired: list[_Retired] = []
        # Only added to: what a configuration does not name any more stays in the environment.
        self._variables: frozenset[str] = frozenset()
        self.in_force: Mapping[str, RouteService] = {}

    def prepare(
        self, settings: Settings, found: Mapping[str, ResolvedSecrets], demo: tuple[str, int] | None
    ) -> dict[str, RouteService]:
        """A service for each route, the one in force where nothing is different.

        ``demo`` is where the built-in provider listens. Close those of the others that are not
        ``put_in_force``: see ``discard``.
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
        means = replace(self._means, hidden=partial(self._hidden_from, settings))
        route = compile_route(name, settings, found, means, self._withheld)
        dialler = Dialler(
            route.origin,
            connect_seconds=settings.connect_timeout_seconds,
            allow_private=settings.allow_private,
            tls=self._means.tls,
            address=demo if route.origin.builtin else None,
            own=self._own,
        )
        pool = Pool(
            dialler,
            self._loop,
            idle_seconds=settings.idle_seconds,
            silence_seconds=settings.answer_timeout_seconds,
            prewarm_policy=PrewarmPolicy(
                self._means.spawn,
                prewarmed=settings.spares,
                in_use_seconds=settings.spare_seconds,
                idle_seconds=settings.idle_seconds,
            ),
        )
        limiter = limiter_for(name, settings, last)
        return RouteService(route, settings, found, pool, limiter, limits_for(settings, limiter))

    def _hidden_from(self, settings: RouteSettings) -> frozenset[str]:
        """As ``hidden_from``, asked when a command is started: a reload may have named more."""
        return hidden_from(settings, self._variables)

    def put_in_force(self, route_services: Mapping[str, RouteService]) -> None:
        """Replace those in force. New strategies begin to obtain their credentials."""
        old, self.in_force = self.in_force, route_services
        for name, route_service in old.items():
            if route_services.get(name) is not route_service:
                route_service.retire()
                self._retired.append(_Retired(route_service))
        for name, route_service in route_services.items():
            if old.get(name) is not route_service:
                for strategy in route_service.route.strategies:
                    strategy.start()

    def discard(self, route_services: Mapping[str, RouteService]) -> None:
        """Close those of ``services`` that never came into force."""
        for name, route_service in route_services.items():
            if self.in_force.get(name) is not route_service:
                route_service.close()

    def differences(self, route_services: Mapping[str, RouteService]) -> Iterator[str]:
        """What is different about ``services``, for a person."""
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
        """Raises KeyrelayError if a route that serves would not any more, or, if ``strict``, any.

        A line for each such route says what it lacks.
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
        """To be called once a second with the loop's time and the exchanges that are open."""
        for route_service in self.in_force.values():
            route_service.pool.expire(now)
        for retired in list(self._retired):
            retired.route_service.pool.expire(now)
            if not _has_work(retired, exchanges):
                self._retired.remove(retired)
                retired.route_service.close()

    def redactors(self, name: str) -> Iterator[Redactor]:
        """What finds the credentials of a route, none if there is no such route any more."""
        if name in self.in_force:
            for strategy in self.in_force[name].route.strategies:
                for injection in strategy.active_injections():
                    yield injection.redactor

    def strategies(self) -> Iterator[Strategy]:
        for route_service in self.in_force.values():
            yield from route_service.route.strategies

    def retire(self) -> None:
        """Serve what is under way and nothing more; dial no spares."""
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
    """Whether a request that it began has not ended. An open WebSocket needs it no more."""
    route_service = retired.route_service
    return any(
        one.route == route_service.route.name
        and route_service.created <= one.began < retired.at
        and one.status != HTTPStatus.SWITCHING_PROTOCOLS
        for one in exchanges
    )


def keep_last(
    found: Mapping[str, ResolvedSecrets],
    settings: Settings,
    last: Mapping[str, RouteService],
    warn: Callable[[str], object],
) -> dict[str, ResolvedSecrets]:
    """``found``, where a value that cannot be read any more stays what it was, with a warning.

    Only if the configuration still says the same about it, for a file may be away while it is
    replaced, and about where it goes: nobody has looked whether it may go anywhere else.
    """
    kept = {}
    for name, one in found.items():
        old, new = last.get(name), settings.routes[name]
        secrets, lacking = dict(one.secrets), dict(one.lacking)
        for secret, remedy in one.lacking.items():
            if old is None or secret not in old.found.secrets or not old.has_same_destinations(new):
                continue
            if old.settings.secrets.get(secret) == new.secrets[secret]:
                secrets[secret] = old.found.secrets[secret]
                del lacking[secret]
                warn(f"{name}: the last good value of {secret} goes on serving; {remedy}")
        kept[name] = ResolvedSecrets(secrets, lacking)
    return kept
