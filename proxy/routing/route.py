"""A route: the immutable result of its settings, with the checks on a request.

A reload builds new routes and swaps one reference. Pure; imports no I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from proxy.auth.strategy import Strategy
from proxy.errors import Refusal
from proxy.http.address import Origin
from proxy.http.headers import URL_FIELDS
from proxy.http.path_patterns import PatternSet
from proxy.http.request import Request
from proxy.routing.secret_remarks import SecretRemark
from proxy.websocket.json_edit import Pointer

# How many patterns of an allow list a refusal names.
_SHOWN_PATTERNS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A path prefix of the proxy, bound to one provider's origin.

    prefix            raw path prefix on shared listeners, without a trailing ``/``
    rules             how every request is rewritten
    strategies        in order of preference; the first that serves a request is used
    methods           the allowed methods
    allow             patterns of allowed requests; None allows everything that is not denied
    deny              patterns of denied requests, under any interpretation of the path
    path_credentials  match the beginning of a path with a credential that a placement put there
    unready           the correction before the route can serve, "" if it can
    vends             whether pages may get the provider's tokens
    remarks           what is odd about the values of its secrets, for the operator
    preset            name of its preset, its own name without one
    preset_rules      patterns of ``allow`` and ``deny`` that the preset brings; None if the preset
                      is not a shipped one, so that it is not known which these are
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
    remarks: tuple[SecretRemark, ...] = ()
    preset: str = ""
    preset_rules: frozenset[str] | None = frozenset()
    # Value of Allow in responses to other methods.
    allowed_methods: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "allowed_methods", ", ".join(sorted(self.methods)))

    def strategy_for(self, request: Request, rest: bytes) -> Strategy:
        """The strategy that serves the request. ``rest`` is the raw path behind the prefix.

        Raises Refusal if the route's rules forbid the request, or no strategy serves it.
        """
        method = request.method
        if method not in self.methods:
            raise Refusal(
                405,
                "method-not-allowed",
                f"The route {self.name} does not serve this method.",
                "Add it to the route's methods to allow it.",
                headers=(("Allow", self.allowed_methods),),
            )
        path = rest.decode("ascii") or "/"
        if (denied := self.deny.find_catch(method, path)) is not None:
            raise self._denied(denied)
        if self.allow is not None and not self.allow.matches(method, path):
            raise self._not_allowed(self.allow.texts)
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

    def place_of(self, pattern: str) -> str:
        """Where a pattern of ``allow`` or ``deny`` is written, in words."""
        if self.preset_rules is None:
            return f"the route {self.name} or its preset {self.preset}"
        if pattern in self.preset_rules:
            return f"the preset {self.preset}"
        return f"the route {self.name}"

    def _denied(self, pattern: str) -> Refusal:
        remedy = f"Remove it from deny of the route {self.name} to serve this request."
        if self.preset_rules is not None and pattern in self.preset_rules:
            remedy = (
                "Presets deny calls that return or mint credentials. deny: [] in the route removes "
                "the preset's patterns."
            )
        return Refusal(
            403,
            "path-not-allowed",
            f"The request matches deny {pattern} of {self.place_of(pattern)}.",
            remedy,
            log_detail=f"deny {pattern}",
        )

    def _not_allowed(self, patterns: tuple[str, ...]) -> Refusal:
        shown = ", ".join(patterns[:_SHOWN_PATTERNS])
        more = len(patterns) - _SHOWN_PATTERNS
        return Refusal(
            403,
            "path-not-allowed",
            f"The request matches nothing of allow of {self.place_of(patterns[0])}: {shown}"
            f"{f' and {more} more' if more > 0 else ''}.",
            f"Add its method and path to allow of the route {self.name} to serve it.",
            log_detail="not in allow",
        )


@dataclass(frozen=True, slots=True)
class RewriteRules:
    """How a route rewrites every request, computed when the route is built.

    host              value of the Host field
    base_path         path of the upstream, without a trailing ``/``
    dropped_headers   lower-case names of fields that are not forwarded
    dropped_query     decoded names of query parameters that are not forwarded
    subprotocols      lower-case prefixes of WebSocket subprotocols that may contain a key
    url_fields        lower-case names of response fields that hold URLs of the provider
    message_members   members that are removed from a WebSocket client's first messages
    """

    host: bytes
    base_path: bytes
    dropped_headers: frozenset[bytes]
    dropped_query: frozenset[bytes]
    subprotocols: tuple[bytes, ...]
    url_fields: frozenset[bytes] = URL_FIELDS
    message_members: tuple[Pointer, ...] = ()
