"""Find the route of a request by host and path prefix, and rewrite ``Location`` back to it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from proxy.errors import Refusal
from proxy.http.abnf import AUTHORITY
from proxy.http.headers import strip_query
from proxy.http.request import Request
from proxy.routing.route import Route

# RFC 3986 appendix B: scheme, authority, path, query, and the fragment with its ``#``.
_URI = re.compile(
    rf"(?:([^:/?#]+):)?(?://({AUTHORITY}))?([^?#]*)(?:\?([^#]*))?(#.*)?".encode(), re.DOTALL
)


@dataclass(slots=True)  # not frozen: created per request, and freezing doubles the cost
class Match:
    """The route of a request.

    mount  raw path before the provider's path: the prefix, or empty where the route has its own
           origin
    rest   the raw path behind it
    """

    route: Route
    mount: bytes
    rest: bytes

    def rewrite_location(self, location: bytes) -> bytes:
        """A ``Location`` that the client can follow without leaving the route.

        A reference to the provider's origin is rewritten, and credentials that the provider
        repeated in it are removed; any other is returned unchanged.
        """
        parts = _URI.fullmatch(location)
        assert parts is not None, "the regular expression matches every string"
        scheme, authority, path, query, fragment = parts.groups()
        if authority is None and scheme is not None:
            return location
        if authority is not None and not self._is_provider(scheme, authority):
            return location
        if authority is not None or path.startswith(b"/"):
            path = self._mounted(path)
        if query:
            # An empty reference would denote the query of the request.
            query = strip_query(query, self.route.rules.dropped_query) or (None if path else b"")
        return path + (b"" if query is None else b"?" + query) + (fragment or b"")

    def _is_provider(self, scheme: bytes | None, authority: bytes) -> bool:
        origin = self.route.origin
        own, port = origin.authority.encode(), b":%d" % origin.port
        return (scheme is None or scheme.lower() == origin.scheme.encode()) and (
            authority.lower().removesuffix(b":") in {own, own.removesuffix(port) + port}
        )

    def _mounted(self, path: bytes) -> bytes:
        """Map a path at the provider's origin to one at this proxy's."""
        base = self.route.rules.base_path
        if path == base or path.startswith(base + b"/"):
            path = path[len(base) :]
        for credential in self.route.path_credentials:
            if found := credential.match(path):
                path = path[found.end() :]
                break
        # Never "//…" or a form that browsers treat as such: it would denote another host.
        return (self.mount + b"/" + path.lstrip(b"/\\")) if path else self.mount or b"/"


class Router:
    """Finds the route of a request.

    ``only``: the route of a listener that belongs to a single one, else None.
    """

    def __init__(self, routes: Iterable[Route], only: Route | None = None) -> None:
        self.routes = tuple(routes)
        self._only = only
        self._by_prefix = {route.prefix: route for route in self.routes}
        self._by_host = {f"{route.name}.localhost": route for route in self.routes}
        depths = {prefix.count(b"/") for prefix in self._by_prefix}
        self._depths = tuple(sorted(depths, reverse=True))

    @property
    def hosts(self) -> frozenset[str]:
        """Host names that select a route."""
        return frozenset(self._by_host)

    def shares(self, host: str) -> bool:
        """Whether this host serves all routes by prefix, and keyrelay's own pages."""
        return self._only is None and host not in self._by_host

    def find(self, host: str, request: Request) -> Match:
        """The route of a request that the guard has admitted. Raises Refusal (404)."""
        route = self._only or self._by_host.get(host)
        path = request.path
        if route is not None:
            return Match(route, b"", path)
        for depth in self._depths:
            # Longest prefix first, cut at segment boundaries: "/hume" is not "/humex".
            end = 0
            for _ in range(depth):
                end = path.find(b"/", end + 1)
                if end < 0:
                    end = len(path)
                    break
            prefix = path[:end]
            route = self._by_prefix.get(prefix)
            if route is not None:
                return Match(route, prefix, path[end:])
        names = ", ".join(sorted(prefix.decode() for prefix in self._by_prefix))
        raise Refusal(404, "no-route", "No route has this path.", f"The routes are: {names}.")
