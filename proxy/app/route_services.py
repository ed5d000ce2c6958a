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

from proxy.auth.strategy import Means, Strategy
from proxy.config.route import RouteSettings
from proxy.config.settings import Settings
from proxy.errors import KeyrelayError
from proxy.observability.exchange_log import Exchange
from proxy.routing.builder import compile_route
from proxy.routing.route_secrets import Found, hidden_from, variables_in
from proxy.routing.route_service import Service, allowance_of, bounds_of
from proxy.secrets.redaction import Masker
from proxy.upstream.dialer import Dialler
from proxy.upstream.pool import Pool
from proxy.upstream.prewarm import Sparing


@dataclass(frozen=True, slots=True)
class _Retired:
    """A service that has been replaced, and when (``perf_counter``)."""

    service: Service
    at: float = field(default_factory=time.perf_counter)


class Services:
    """Those in force, and those that are ending.

    means  for strategies and for the dials of spares
    own    where keyrelay itself listens, so that no route leads there

    ``withheld`` are lower-case names of fields that no client's request takes to a provider.
    """

    def __init__(
        self,
        means: Means,
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
        self.in_force: Mapping[str, Service] = {}

    def prepare(
        self, settings: Settings, found: Mapping[str, Found], demo: tuple[str, int] | None
    ) -> dict[str, Service]:
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
        self, name: str, settings: RouteSettings, found: Found, demo: tuple[str, int] | None
    ) -> Service:
        last = self.in_force.get(name)
        if last is not None and last.fits(settings, found):
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
            sparing=Sparing(
                self._means.spawn,
                spares=settings.spares,
                in_use_seconds=settings.spare_seconds,
                idle_seconds=settings.idle_seconds,
            ),
        )
        allowance = allowance_of(name, settings, last)
        return Service(route, settings, found, pool, allowance, bounds_of(settings, allowance))

    def _hidden_from(self, settings: RouteSettings) -> frozenset[str]:
        """As ``hidden_from``, asked when a command is started: a reload may have named more."""
        return hidden_from(settings, self._variables)

    def put_in_force(self, services: Mapping[str, Service]) -> None:
        """Replace those in force. New strategies begin to obtain their credentials."""
        old, self.in_force = self.in_force, services
        for name, service in old.items():
            if services.get(name) is not service:
                service.retire()
                self._retired.append(_Retired(service))
        for name, service in services.items():
            if old.get(name) is not service:
                for strategy in service.route.strategies:
                    strategy.start()

    def discard(self, services: Mapping[str, Service]) -> None:
        """Close those of ``services`` that never came into force."""
        for name, service in services.items():
            if self.in_force.get(name) is not service:
                service.close()

    def differences(self, services: Mapping[str, Service]) -> Iterator[str]:
        """What is different about ``services``, for a person."""
        for name, service in services.items():
            old = self.in_force.get(name)
            if old is None:
                yield f"route {name} is new"
            elif old is not service:
                what = "settings" if old.settings != service.settings else "secrets"
                yield f"route {name} has other {what}"
        for name in self.in_force:
            if name not in services:
                yield f"route {name} is gone"

    def check_ready(self, services: Mapping[str, Service], *, strict: bool) -> None:
        """Raises KeyrelayError if a route that serves would not any more, or, if ``strict``, any.

        A line for each such route says what it lacks.
        """
        lost = []
        for name, service in services.items():
            old = self.in_force.get(name)
            if service.route.unready and (strict or (old is not None and not old.route.unready)):
                lost.append(f"{name}: not ready: {service.route.unready}")
        if lost:
            raise KeyrelayError("\n".join(lost))

    def expire(self, now: float, exchanges: Collection[Exchange]) -> None:
        """To be called once a second with the loop's time and the exchanges that are open."""
        for service in self.in_force.values():
            service.pool.expire(now)
        for retired in list(self._retired):
            retired.service.pool.expire(now)
            if not _has_work(retired, exchanges):
                self._retired.remove(retired)
                retired.service.close()

    def maskers(self, name: str) -> Iterator[Masker]:
        """What finds the credentials of a route, none if there is no such route any more."""
        if name in self.in_force:
            for strategy in self.in_force[name].route.strategies:
                for injection in strategy.at_hand():
                    yield injection.masker

    def strategies(self) -> Iterator[Strategy]:
        for service in self.in_force.values():
            yield from service.route.strategies

    def retire(self) -> None:
        """Serve what is under way and nothing more; dial no spares."""
        for service in self.in_force.values():
            service.retire()

    def close(self) -> None:
        """Drop every connection and forget every credential."""
        for service in (*self.in_force.values(), *(one.service for one in self._retired)):
            service.close()


def _has_work(retired: _Retired, exchanges: Iterable[Exchange]) -> bool:
    """Whether a request that it began has not ended. An open WebSocket needs it no more."""
    service = retired.service
    return any(
        one.route == service.route.name
        and service.made <= one.began < retired.at
        and one.status != HTTPStatus.SWITCHING_PROTOCOLS
        for one in exchanges
    )


def keep_last(
    found: Mapping[str, Found],
    settings: Settings,
    last: Mapping[str, Service],
    warn: Callable[[str], object],
) -> dict[str, Found]:
    """``found``, where a value that cannot be read any more stays what it was, with a warning.

    Only if the configuration still says the same about it, for a file may be away while it is
    replaced, and about where it goes: nobody has looked whether it may go anywhere else.
    """
    kept = {}
    for name, one in found.items():
        old, new = last.get(name), settings.routes[name]
        secrets, lacking = dict(one.secrets), dict(one.lacking)
        for secret, remedy in one.lacking.items():
            if old is None or secret not in old.found.secrets or not old.sends_as(new):
                continue
            if old.settings.secrets.get(secret) == new.secrets[secret]:
                secrets[secret] = old.found.secrets[secret]
                del lacking[secret]
                warn(f"{name}: the last good value of {secret} goes on serving; {remedy}")
        kept[name] = Found(secrets, lacking)
    return kept
