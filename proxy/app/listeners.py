"""The listeners of a configuration, and the request handler of each."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from proxy.config.settings import Settings
from proxy.config.validation import check_exposure, listen_places, served_hosts
from proxy.errors import KeyrelayError
from proxy.forwarding.handler import ActiveConfig, RequestHandler
from proxy.http.address import LOOPBACK_NAMES, parse_listen
from proxy.routing.route_service import RouteService
from proxy.routing.router import Router
from proxy.server.connection import ClientConnection
from proxy.server.guard import Guard
from proxy.server.inbound_token import InboundToken
from proxy.server.listener import Accept, Listener, ServeSocket, listen
from proxy.server.socket_activation import check_all_served

Key = tuple[str, str | None, int]
"""An address as configured, the route it belongs to, and its number among equal ones.

The last two matter only with port 0, where equal texts are different addresses.
"""


@dataclass(frozen=True, slots=True)
class ListenerEntry:
    """A listener, and the handler of its requests."""

    listener: Listener
    handler: RequestHandler


ServeTls = Callable[[RequestHandler, socket.socket], None]
"""Serves a connection that a TLS listener has accepted, and owns its socket."""


def without_tls(_handler: RequestHandler, connection: socket.socket) -> None:
    """For a ``ListenerSet`` of listeners without TLS."""
    connection.close()


class ListenerSet:
    """The listeners of the configuration in force.

    make_handler  makes the handler of a new listener
    accept        makes the protocol of its connections
    serve_tls     serves a connection of a TLS listener
    """

    def __init__(
        self,
        make_handler: Callable[[ActiveConfig], RequestHandler],
        accept: Callable[[RequestHandler], ClientConnection],
        serve_tls: ServeTls = without_tls,
    ) -> None:
        self._make_handler = make_handler
        self._accept = accept
        self._serve_tls = serve_tls
        self._in_force: Mapping[Key, ListenerEntry] = {}

    @property
    def listeners(self) -> tuple[Listener, ...]:
        return tuple(place.listener for place in self._in_force.values())

    async def prepare(
        self, settings: Settings, unready: Collection[str] = ()
    ) -> dict[Key, ListenerEntry]:
        """Open a listener for each new address. Returns all listeners, those in force included.

        A route in ``unready`` gets no listener of its own: nothing could be served there, and
        another program may use the port. Raises KeyrelayError, with nothing left open, if an
        address is unavailable.
        """
        places: dict[Key, ListenerEntry] = {}
        try:
            for key, owner in _keys(settings, unready):
                place = self._in_force.get(key)
                if place is None:
                    place = await self._open(key[0], owner)
                elif place.listener.route != owner:
                    place = replace(place, listener=replace(place.listener, route=owner))
                places[key] = place
        except BaseException:
            self.discard(places)
            raise
        return places

    async def _open(self, text: str, owner: str | None) -> ListenerEntry:
        handler = self._make_handler(_nothing_in_force())
        accept: Accept = lambda: self._accept(handler)  # noqa: E731
        if parse_listen(text).tls:
            accept = ServeSocket(lambda connection: self._serve_tls(handler, connection))
        return ListenerEntry(await self._listen(text, accept, owner), handler)

    async def _listen(self, text: str, accept: Accept, owner: str | None) -> Listener:
        """Open a listener at the address. Raises KeyrelayError."""
        return await listen(text, accept, owner)

    def discard(self, places: Mapping[Key, ListenerEntry]) -> None:
        """Close those of ``places`` that never came into force."""
        for key, place in places.items():
            if key not in self._in_force:
                place.listener.close()

    def put_in_force(
        self,
        places: Mapping[Key, ListenerEntry],
        settings: Settings,
        route_services: Mapping[str, RouteService],
        token: InboundToken | None,
    ) -> None:
        """Serve these settings at these listeners, and close the others."""
        old, self._in_force = self._in_force, places
        for key, place in old.items():
            if key not in places:
                place.listener.close()
                place.handler.active = _nothing_in_force()
        routes = tuple(route_service.route for route_service in route_services.values())
        hosts = served_hosts(settings)
        origins = frozenset(settings.browsers.origins)
        for place in places.values():
            only = place.listener.route
            table = Router(routes, None if only is None else route_services[only].route, hosts)
            guard = Guard(
                hosts | table.hosts,
                origins,
                token,
                table.serves_all_routes,
                table.serves_one_route,
                probes=place.listener.address.exposed,
            )
            place.handler.active = ActiveConfig(guard, table, route_services)

    def differences(self, places: Mapping[Key, ListenerEntry]) -> Iterator[str]:
        """Yield the differences of ``places`` from those in force, as texts for the operator."""
        for text, _, _ in places.keys() - self._in_force.keys():
            yield f"listens at {text}"
        for text, _, _ in self._in_force.keys() - places.keys():
            yield f"listens no more at {text}"

    def stop(self) -> None:
        """Stop accepting. Open connections stay."""
        for listener in self.listeners:
            listener.stop()

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()


def _nothing_in_force() -> ActiveConfig:
    """Return the configuration of a listener before its start, or after its end.

    Some of its connections may still be open after its end.
    """
    return ActiveConfig(Guard(LOOPBACK_NAMES, frozenset()), Router(()), {})


def _keys(settings: Settings, unready: Collection[str]) -> Iterator[tuple[Key, str | None]]:
    seen: Counter[tuple[str, str | None]] = Counter()
    for text, owner in listen_places(settings):
        if owner in unready:
            continue
        free = parse_listen(text).port == 0
        yield (text, owner if free else None, seen[text, owner]), owner
        seen[text, owner] += 1


def check_addresses(settings: Settings, token: InboundToken | None) -> None:
    """Check addresses before listening. Raises KeyrelayError for one that needs a token."""
    check_all_served(parse_listen(text) for text, _ in listen_places(settings))
    if token is None:
        settings = settings.model_copy(update={"inbound_token": None})
    for finding in check_exposure(settings):
        raise KeyrelayError(f"{finding.message}: {finding.advice}")
