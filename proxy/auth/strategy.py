"""The strategy: one way in which a provider authenticates requests.

A strategy decides three things independently: whether it serves a request, what is added to the
request (an Injection), and whether that is ready now or has to be awaited.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any

from proxy.auth.injection import Injection
from proxy.auth.token import TokenSource, TokenState
from proxy.auth.token_cache import TokenCaches
from proxy.clock import Clock
from proxy.http.path_patterns import PatternSet

EVERY_PATH = "every path"


Share = Callable[[str, TokenSource, Callable[[str], object]], TokenSource]


@dataclass(frozen=True, slots=True)
class AuthContext:
    """What strategies need beside settings and secrets, if they have to obtain something.

    tls     for calls to token endpoints
    spawn   starts a task that the caller owns and ends
    warn    gets a line that the operator should read
    share   makes of a source, and of what identifies its tokens, one that shares them with other
            processes; None if this process is alone. Lines about them go to the last argument
    hidden  variables that commands do not inherit, asked for when one is started
    caches  those of this process, so that equal settings use one; None: each strategy has its own
    """

    clock: Clock
    tls: SSLContext
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    warn: Callable[[str], object] = lambda _line: None
    share: Share | None = None
    hidden: Callable[[], Collection[str]] = frozenset
    caches: TokenCaches | None = None


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class IssuedToken:
    """A token that is handed out, and the seconds for which it is still good. Never printed."""

    token: bytes
    seconds_left: float


@dataclass(frozen=True, slots=True)
class SecretState:
    """How a secret served that a strategy uses. Never its value.

    reference                   its source, as in the configuration (``env:NAME``)
    fingerprint                 distinguishes two values, and reveals nothing else
    served, refused             requests that it served, and that were refused for it
    last_served, last_refused   seconds since the epoch, None if never
    """

    name: str
    reference: str
    fingerprint: str
    served: int = 0
    last_served: float | None = None
    refused: int = 0
    last_refused: float | None = None


@dataclass(frozen=True, slots=True)
class CredentialState:
    """How a strategy's credential is, in numbers.

    token    None if the secrets themselves are the credential
    secrets  those with several values, in the order in which they are tried
    """

    token: TokenState | None = None
    secrets: tuple[SecretState, ...] = ()


class Strategy(ABC):
    """One way a provider authenticates, for the paths that it serves.

    name   as in the configuration; shown, logged
    paths  patterns of what follows the route's prefix; None for all
    """

    __slots__ = ("_paths", "name")

    def __init__(self, name: str, paths: PatternSet | None) -> None:
        self.name = name
        self._paths = paths

    def serves(self, method: str, path: str, *, websocket: bool) -> bool:
        """Whether a request is this strategy's. ``path`` is raw, from the route's prefix on.

        In any reading of the path, as for ``deny``: a request whose path the provider folds must
        not get the credential of another strategy.
        """
        return self.carries(websocket=websocket) and (
            self._paths is None or self._paths.catches(method, path)
        )

    @property
    def scope(self) -> str:
        """The paths that it serves, for a person."""
        return EVERY_PATH if self._paths is None else ", ".join(self._paths.texts)

    @abstractmethod
    def carries(self, *, websocket: bool) -> bool:
        """Whether there is a placement for this kind of request at all."""

    @abstractmethod
    def ready(self, *, websocket: bool) -> Injection | None:
        """The credential in its placements if it is at hand; None if ``obtain`` must be awaited."""

    @abstractmethod
    async def obtain(self, *, websocket: bool, certain: bool = False) -> Injection:
        """The credential in its placements, waited for.

        certain  for a request that cannot be sent again: see ``revocable``

        Raises Refusal if there is none to be had. Cancelling harms no other waiter.
        """

    @property
    def renewable(self) -> bool:
        """Whether a refusal by the provider may be mended by another credential."""
        return False

    @property
    def revocable(self) -> bool:
        """Whether what ``ready`` gives may be replaced elsewhere at any time, and is then refused.

        A request that cannot be sent again has to ``obtain`` a certain credential.
        """
        return False

    @property
    def replays(self) -> int:
        """How often a refused request may be sent again, each time if ``refused`` is true."""
        return 1 if self.renewable else 0

    @property
    def vends(self) -> bool:
        """Whether the credential is a token, which may be handed out."""
        return False

    def refuses(self, status: int) -> bool:
        """Whether the provider refuses the credential with this status."""
        return False

    def refused(self, injection: Injection, status: int) -> bool:
        """The provider answered ``status``. Whether the request should be sent once more.

        To be called for every answer to a request of a renewable strategy; what was refused is
        forgotten even if the request cannot be repeated.
        """
        return False

    def reset(self) -> None:  # noqa: B027  most have one credential
        """Try again what was refused, the first credential first: its cause may be repaired."""

    def active_injections(self) -> tuple[Injection, ...]:
        """Every credential that may be in use now, to find it in what comes back."""
        return ()

    def start(self) -> None:  # noqa: B027  most have nothing to obtain
        """Obtain the credential now, so that the first request need not wait."""

    async def wait_ready(self) -> None:  # noqa: B027  most have nothing to obtain
        """Wait for the first credential, or for the error of its fetch."""

    def close(self) -> None:  # noqa: B027  most keep nothing
        """Stop whatever keeps the credential fresh, and forget it."""

    async def vend(self) -> IssuedToken:
        """The token itself, for a page that may have it. Only renewable strategies have one.

        Raises Refusal. Cancelling harms no other waiter.
        """
        raise NotImplementedError("a key is never handed out")

    def state(self) -> CredentialState | None:
        """State of the credential, for programs; None for a static one. Never a value."""
        return None

    def describe(self) -> str:
        """The state of the credential for a person, "" if it has none. Never a value."""
        return ""


class StaticStrategy(Strategy):
    """Injections computed when the route is built; nothing is encoded per request."""

    __slots__ = ("_http", "_websocket")

    def __init__(
        self,
        name: str,
        paths: PatternSet | None,
        *,
        http: Injection | None,
        websocket: Injection | None,
    ) -> None:
        super().__init__(name, paths)
        self._http = http
        self._websocket = websocket

    def carries(self, *, websocket: bool) -> bool:
        return self.ready(websocket=websocket) is not None

    def ready(self, *, websocket: bool) -> Injection | None:
        return self._websocket if websocket else self._http

    def active_injections(self) -> tuple[Injection, ...]:
        return tuple(one for one in (self._http, self._websocket) if one is not None)

    async def obtain(self, *, websocket: bool, certain: bool = False) -> Injection:
        injection = self.ready(websocket=websocket)
        assert injection is not None, "asked of a strategy that does not serve the request"
        return injection
