"""Routes as requests see them: compiled, frozen, nothing left to work out.

A reload builds a new table and swaps one reference. Decides only; imports no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from .auth.base import Strategy
from .errors import Refusal
from .headers import strip_query
from .incoming import Incoming
from .origins import Origin
from .outgoing import Rules
from .patterns import PatternSet

# RFC 3986 appendix B: scheme, authority, path, query, and the fragment with its ``#``.
_URI = re.compile(rb"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(#.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A place on the proxy, bound to one provider's origin.

    prefix            raw path under which it answers on shared listeners, without a trailing ``/``
    rules             what happens to every request of it
    strategies        in the order in which they are asked whether they serve a request
    methods           those that pass
    allow             None: whatever is not denied
    deny              what never passes, however its path is spelled
    path_credentials  what a path begins with where a placement puts the credential into it
    unready           what to do before the route can serve, "" if it can
    vends             whether pages may be handed the provider's tokens
    max_body_bytes    largest body of a request; None for no bound
    mask_bodies       whether the credential is blotted out in every body of an answer
    """

    name: str
    prefix: bytes
    origin: Origin
    rules: Rules
    strategies: tuple[Strategy, ...]
    methods: frozenset[str]
    allow: PatternSet | None
    deny: PatternSet
    path_credentials: tuple[re.Pattern[bytes], ...] = ()
    unready: str = ""
    vends: bool = False
    max_body_bytes: int | None = None
    mask_bodies: bool = False
    # For answers to a method that is not served.
    allowed_methods: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "allowed_methods", ", ".join(sorted(self.methods)))

    def admit(self, incoming: Incoming, rest: bytes) -> Strategy:
        """The strategy that serves the request. ``rest`` is the path behind the prefix.

        Raises Refusal if the route's rules forbid it, or no strategy is there.
        """
        method = incoming.method
        if rest.startswith(b"//") and not self.rules.base_path:
            # Some servers read what follows as a host, and then another path than the one checked.
            raise Refusal(
                400,
                "bad-target",
                f"Two slashes follow the prefix of the route {self.name}.",
                "Write one; a base URL that is given to an SDK ends without a slash.",
            )
        if method not in self.methods:
            raise Refusal(
                405,
                "method-not-allowed",
                f"The route {self.name} does not serve this method.",
                "Add it to the route's methods, if it is meant to pass.",
                headers=(("Allow", self.allowed_methods),),
            )
        path = rest.decode("ascii") or "/"
        if self.deny.catches(method, path):
            raise self._forbidden("are denied by", "deny")
        if self.allow is not None and not self.allow.matches(method, path):
            raise self._forbidden("are not among what is let through by", "allow")
        if self.unready:
            raise Refusal(
                503,
                "route-not-ready",
                f"The route {self.name} has no credential.",
                self.unready,
                proxy_error="proxy_configuration_error",
            )
        for strategy in self.strategies:
            if strategy.serves(method, path, websocket=incoming.websocket):
                return strategy
        raise Refusal(
            403,
            "no-strategy",
            f"The route {self.name} has no strategy for this "
            f"{'WebSocket' if incoming.websocket else 'request'}: it uses "
            f"{' and '.join(strategy.name for strategy in self.strategies)}.",
            "See the paths and placements of auth, and strategy, in the route and its preset.",
            proxy_error="proxy_configuration_error",
        )

    def _forbidden(self, how: str, rule: str) -> Refusal:
        return Refusal(
            403,
            "path-not-allowed",
            f"This method and path {how} the rules of the route {self.name}.",
            f"See {rule} in the route and in its provider's preset.",
        )


@dataclass(slots=True)  # not frozen: one is made for each request, and that would cost twice
class Match:
    """A route found for a request.

    mount  what clients write before the provider's path: the prefix, or nothing where the route
           has an origin of its own
    rest   what follows it, byte for byte
    """

    route: Route
    mount: bytes
    rest: bytes

    def relocate(self, location: bytes) -> bytes:
        """A ``Location`` as the client can follow it without leaving the route.

        What points to the provider's origin is rewritten; anything else is none of our business
        and goes on as it is. Credentials that the provider repeated in it are taken out.
        """
        parts = _URI.fullmatch(location)
        assert parts is not None, "the expression fits every text"
        scheme, authority, path, query, fragment = parts.groups()
        if authority is None and scheme is not None:
            return location
        if authority is not None and not self._is_provider(scheme, authority):
            return location
        if authority is not None or path.startswith(b"/"):
            path = self._mounted(path)
        if query:
            # An empty reference would mean the query of the request.
            query = strip_query(query, self.route.rules.dropped_query) or (None if path else b"")
        return path + (b"" if query is None else b"?" + query) + (fragment or b"")

    def _is_provider(self, scheme: bytes | None, authority: bytes) -> bool:
        origin = self.route.origin
        own, port = origin.authority.encode(), b":%d" % origin.port
        return (scheme is None or scheme.lower() == origin.scheme.encode()) and (
            authority.lower().removesuffix(b":") in {own, own.removesuffix(port) + port}
        )

    def _mounted(self, path: bytes) -> bytes:
        """A path at the provider's origin as one at ours."""
        base = self.route.rules.base_path
        if path == base or path.startswith(base + b"/"):
            path = path[len(base) :]
        for credential in self.route.path_credentials:
            if found := credential.match(path):
                path = path[found.end() :]
                break
        # Never "//…", nor what browsers take for it: that would name another host.
        return (self.mount + b"/" + path.lstrip(b"/\\")) if path else self.mount or b"/"


class RouteTable:
    """Finds the route of a request.

    ``only`` makes the table of a listener that belongs to one route.
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
        """Host names that stand for a route."""
        return frozenset(self._by_host)

    def shares(self, host: str) -> bool:
        """Whether this host serves all routes by prefix, and pages of our own."""
        return self._only is None and host not in self._by_host

    def find(self, host: str, incoming: Incoming) -> Match:
        """The route for a request that the guard has admitted. Raises Refusal (404)."""
        route = self._only or self._by_host.get(host)
        path = incoming.path
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
