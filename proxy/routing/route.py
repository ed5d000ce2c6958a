"""Routes as requests see them: compiled, frozen, nothing left to work out.

A reload builds a new table and swaps one reference. Decides only; imports no I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from proxy.auth.strategy import Strategy
from proxy.errors import Refusal
from proxy.http.address import Origin
from proxy.http.path_patterns import PatternSet
from proxy.http.request import Request


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
    rules: RewriteRules
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

    def admit(self, request: Request, rest: bytes) -> Strategy:
        """The strategy that serves the request. ``rest`` is the path behind the prefix.

        Raises Refusal if the route's rules forbid it, or no strategy is there.
        """
        method = request.method
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
            if strategy.serves(method, path, websocket=request.websocket):
                return strategy
        raise Refusal(
            403,
            "no-strategy",
            f"The route {self.name} has no strategy for this "
            f"{'WebSocket' if request.websocket else 'request'}: it uses "
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


@dataclass(frozen=True, slots=True)
class RewriteRules:
    """What a route does to every request, computed when the route is built.

    host              value of the Host field
    base_path         path of the upstream, without a trailing ``/``
    dropped_headers   lower-case names that do not cross
    dropped_query     decoded names of parameters that do not cross
    subprotocols      lower-case prefixes of WebSocket subprotocols that carry a key
    """

    host: bytes
    base_path: bytes
    dropped_headers: frozenset[bytes]
    dropped_query: frozenset[bytes]
    subprotocols: tuple[bytes, ...]
