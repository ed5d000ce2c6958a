"""Find the route of a request by host and path prefix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from proxy.errors import Refusal
from proxy.http.request import Request
from proxy.routing.route import Route
from proxy.routing.url_rewriter import UrlRewriter

# A first segment that the log may show.
_PLAIN_SEGMENT = re.compile(r"/[A-Za-z0-9._~-]{0,24}")


@dataclass(slots=True)  # not frozen: created per request, and freezing doubles the cost
class Match:
    """The route of a request.

    mount  raw path before the provider's path: the prefix, or empty where the route has its own
           origin
    rest   the raw path behind it
    hosts  host names, in lower case, under which this process serves
    """

    route: Route
    mount: bytes
    rest: bytes
    hosts: frozenset[str] = frozenset()

    def url_rewriter(
        self,
        request: Request,
        status: int,
        own_ports: Callable[[], Collection[int]],
        *,
        tls: bool = False,
    ) -> UrlRewriter:
        """The rewriter for the fields of the response with this status.

        ``tls``: the client is connected with TLS.
        """
        redirects = 300 <= status < 400
        return UrlRewriter(
            self.route, self.mount, self.rest, self.hosts, request, own_ports, redirects, tls
        )


class Router:
    """Finds the route of a request.

    only   the route of a listener that belongs to a single one, else None
    hosts  further host names, in lower case, under which this process serves
    """

    def __init__(
        self,
        routes: Iterable[Route],
        only: Route | None = None,
        hosts: frozenset[str] = frozenset(),
    ) -> None:
        self.routes = tuple(routes)
        self._only = only
        self._by_prefix = {route.prefix: route for route in self.routes}
        self._by_host = {f"{route.name}.localhost": route for route in self.routes}
        self._served = hosts | self.hosts
        depths = {prefix.count(b"/") for prefix in self._by_prefix}
        self._depths = tuple(sorted(depths, reverse=True))

    @property
    def hosts(self) -> frozenset[str]:
        """Host names that select a route."""
        return frozenset(self._by_host)

    def serves_all_routes(self, host: str) -> bool:
        """Whether this host serves all routes by prefix, and keyrelay's own pages."""
        return self._only is None and host not in self._by_host

    def serves_one_route(self, host: str) -> bool:
        """Whether this host serves a single route, without a prefix."""
        return not self.serves_all_routes(host)

    def find(self, host: str, request: Request) -> Match:
        """The route of a request that the guard has admitted. Raises Refusal (404).

        Slashes that follow the prefix become one, since a base URL with a slash at its end, and
        servers that take "//" for the beginning of a host, would make them another path. Rules,
        strategies and the provider get the same one.
        """
        route = self._only or self._by_host.get(host)
        path = request.path
        if route is not None:
            return Match(route, b"", path, self._served)
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
                rest = path[end:]
                if rest.startswith(b"//"):
                    rest = b"/" + rest.lstrip(b"/")
                return Match(route, prefix, rest, self._served)
        raise self._no_route(path)

    def _no_route(self, path: bytes) -> Refusal:
        """The refusal of a path. To the client it has names of the configuration only."""
        prefixes = sorted(prefix.decode() for prefix in self._by_prefix)
        first = "/" + path[1:].partition(b"/")[0].decode("ascii", "replace")
        near = difflib.get_close_matches(first.lower(), prefixes, n=1)
        guess = f"Did you mean {near[0]}? " if near else ""
        # A longer segment, or one with other characters, may be a key that a client puts there.
        shown = first if _PLAIN_SEGMENT.fullmatch(first) else "(a segment that is no plain name)"
        advice = (
            f"{guess}The routes are: {', '.join(prefixes)}. A client that drops the path of a base "
            "URL uses http://<route>.localhost:<port>, or a listener of the route's own (listen:)."
        )
        return Refusal(
            404,
            "no-route",
            "No route has this path.",
            advice,
            log_detail=f"no route {shown}",
            notice=f"No route {shown}.",
        )
