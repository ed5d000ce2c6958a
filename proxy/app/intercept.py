"""Serve connections of clients that take keyrelay for the provider itself, by the provider's name.

For ``keyrelay exec --intercept``: the request has the provider's ``Host`` and path. It passes the
same guard, rules and data path as one to a listener.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from proxy.config.settings import Settings
from proxy.errors import Refusal
from proxy.forwarding.handler import ActiveConfig
from proxy.http.request import Request
from proxy.routing.route import Route
from proxy.routing.route_service import RouteService
from proxy.routing.router import Match, Router
from proxy.server.guard import Guard


class OriginRouter(Router):
    """Finds the route of a request by the provider's host name and the upstream's path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        super().__init__(routes)
        self._by_origin: dict[str, list[Route]] = {}
        # The longest path first: of two routes with one host the more specific one serves.
        for route in sorted(self.routes, key=lambda one: -len(one.rules.base_path)):
            self._by_origin.setdefault(route.origin.host, []).append(route)

    def serves_all_routes(self, host: str) -> bool:
        """False: keyrelay has no pages of its own under a provider's name."""
        return False

    def find(self, host: str, request: Request) -> Match:
        """The route whose upstream the request is for. Raises Refusal (404)."""
        for route in self._by_origin.get(host, ()):
            base = route.rules.base_path
            if request.path == base or request.path.startswith(base + b"/"):
                return Match(route, base, request.path[len(base) :])
        raise Refusal(
            404,
            "no-route",
            "No route of this provider has the path.",
            "Add a route whose upstream is the beginning of the URL.",
        )


@dataclass(frozen=True, slots=True)
class Intercepted:
    """The providers whose connections are served here.

    origins  host and port of each
    serve    serves a connection before its TLS handshake, and owns its socket
    """

    origins: frozenset[tuple[str, int]]
    serve: Callable[[socket.socket], None]


def origins_of(routes: Iterable[Route]) -> frozenset[tuple[str, int]]:
    """Host and port of each ready route's provider, as far as clients use TLS with it."""
    return frozenset(
        (route.origin.host, route.origin.port)
        for route in routes
        if route.origin.scheme == "https" and not route.unready
    )


def active_config(services: Mapping[str, RouteService], settings: Settings) -> ActiveConfig:
    """The configuration for requests under the providers' own names."""
    routes = [one.route for one in services.values() if one.route.origin.scheme == "https"]
    guard = Guard(
        frozenset(route.origin.host for route in routes),
        frozenset(settings.browsers.origins),
        own_root=lambda _host: True,
    )
    return ActiveConfig(guard, OriginRouter(routes), services)
