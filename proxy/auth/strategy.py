"""A strategy: one way a provider authenticates.

It has three parts: a match (the paths and kinds of requests that it serves), placements, and a
credential, which returns what is injected into a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, replace
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, final

from proxy.auth.credential import Credential
from proxy.auth.egress import ResolvedEgress
from proxy.auth.injection import Placements
from proxy.auth.token import TokenSource
from proxy.auth.token_cache import TokenCaches
from proxy.clock import Clock
from proxy.http.path_patterns import PatternSet
from proxy.upstream.egress_proxy import EgressProxy

if TYPE_CHECKING:
    # Loads cryptography, which keyrelays that share nothing do without.
    from proxy.auth.shared.tokens import SharedTokens

EVERY_PATH = "every path"

Share = Callable[[str, TokenSource, Callable[[str], object]], TokenSource]


@dataclass(frozen=True, slots=True)
class AuthContext:
    """Services of the process for credentials that have to be obtained.

    tls     for requests to token endpoints
    spawn   starts a task that the caller owns and ends
    warn    receives a line for the operator
    share   wraps a token source, with the identity of its tokens, in one that shares them with
            other processes; None without other processes. Its last argument receives warnings
    hidden  returns the environment variables that commands do not inherit
    caches  caches of this process, one for equal settings; None: each strategy has its own
    shared  shares tokens with other keyrelays; None without that
    authorities   further CAs in PEM, which ``tls`` has already
    egress_proxy  the proxy for token endpoints that it serves
    """

    clock: Clock
    tls: SSLContext
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    warn: Callable[[str], object] = lambda _line: None
    share: Share | None = None
    hidden: Callable[[], Collection[str]] = frozenset
    caches: TokenCaches | None = None
    shared: SharedTokens | None = None
    authorities: str = ""
    egress_proxy: EgressProxy | None = None

    def over(self, egress: ResolvedEgress, tls: SSLContext) -> AuthContext:
        """Return the context of a route with this way to its provider; ``tls`` has its CAs."""
        return replace(
            self,
            tls=tls,
            authorities=egress.authorities,
            egress_proxy=egress.egress_proxy(),
        )


@final
class Strategy:
    """One way a provider authenticates.

    name        as in the configuration; shown and logged
    paths       patterns of paths below the route's prefix; None for all
    placements  decide which kinds of requests are served
    credential  what is injected; the data path calls it directly
    """

    __slots__ = ("_http", "_paths", "_websocket", "credential", "name")

    def __init__(
        self, name: str, paths: PatternSet | None, placements: Placements, credential: Credential
    ) -> None:
        self.name = name
        self.credential = credential
        self._paths = paths
        self._http = placements.http is not None
        self._websocket = placements.websocket is not None

    def serves(self, method: str, path: str, *, websocket: bool) -> bool:
        """Return whether the strategy serves a request. ``path`` is raw, below the prefix.

        Matches any reading of the path, as ``deny`` does: a request whose path the provider folds
        must not get the credential of another strategy.
        """
        return (self._websocket if websocket else self._http) and (
            self._paths is None or self._paths.catches(method, path)
        )

    @property
    def scope(self) -> str:
        """The paths that the strategy serves, for display."""
        return EVERY_PATH if self._paths is None else ", ".join(self._paths.texts)
