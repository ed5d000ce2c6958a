"""Credentials of a strategy: how one becomes ready, and what a rejection by the provider does.

``StaticCredential`` never changes, ``token_credential`` fetches tokens, ``secret_rotation``
alternates between several values of a secret.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from proxy.auth.injection import Injection, Injections
from proxy.auth.token import TokenState


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class IssuedToken:
    """A token for a client, and the seconds for which it remains valid. Never printed."""

    token: bytes
    seconds_left: float


@dataclass(frozen=True, slots=True)
class SecretState:
    """Statistics of a secret that a credential uses. Never its value.

    reference                   source of the secret in the configuration (``env:NAME``)
    fingerprint                 distinguishes two values without disclosing them
    served, refused             requests that were accepted, and rejected, with the secret
    last_served, last_refused   seconds since the epoch, None if never
    current                     whether requests use it now, of several values in rotation
    """

    name: str
    reference: str
    fingerprint: str
    served: int = 0
    last_served: float | None = None
    refused: int = 0
    last_refused: float | None = None
    current: bool = False


@dataclass(frozen=True, slots=True)
class CredentialState:
    """State of a credential, for the status.

    token    None if the secrets themselves are the credential
    secrets  secrets with statistics, in the order in which they are tried
    """

    token: TokenState | None = None
    secrets: tuple[SecretState, ...] = ()


class Credential(ABC):
    """A credential in its placements. The defaults are those of one that never changes."""

    __slots__ = ()

    @abstractmethod
    def ready(self, *, websocket: bool) -> Injection | None:
        """Return the injection if it is available; None if ``obtain`` must be awaited."""

    @abstractmethod
    async def obtain(self, *, websocket: bool, certain: bool = False) -> Injection:
        """Return the injection; wait until it is available.

        certain  for a request that cannot be sent again: see ``revocable``

        Raises Refusal if the credential cannot be obtained. Cancellation affects no other waiter.
        """

    @property
    def renewable(self) -> bool:
        """Whether another credential may be accepted after the provider rejects one."""
        return False

    @property
    def revocable(self) -> bool:
        """Whether the injection of ``ready`` may be replaced elsewhere at any time, and rejected.

        A request that cannot be sent again must then ``obtain`` a certain credential.
        """
        return False

    @property
    def replays(self) -> int:
        """How often a rejected request may be sent again, each time as ``on_response`` returns."""
        return 1 if self.renewable else 0

    @property
    def vends(self) -> bool:
        """Whether the credential is a token that ``vend`` can issue to clients."""
        return False

    def rejects(self, status: int) -> bool:
        """Return whether the status means that the provider rejects the credential."""
        return False

    def on_response(self, injection: Injection, status: int) -> bool:
        """Record the status of a response; return whether the request should be sent again.

        Called for every response to a request with a renewable credential. A rejected credential
        is discarded even if the request cannot be sent again.
        """
        return False

    def on_rejection(self, injection: Injection) -> bool:
        """Record that the provider rejected the credential; return whether another may be accepted.

        ``on_response`` does the same for the status of a response.
        """
        return False

    def reset(self) -> None:  # noqa: B027  a static credential has no alternatives
        """Retry rejected credentials, the first one first: the cause may have been repaired."""

    def sources(self, injection: Injection) -> tuple[SecretState, ...]:
        """Return the secrets from which an injection of this credential was made."""
        return ()

    def active_injections(self) -> tuple[Injection, ...]:
        """Return every injection that may be in use, to redact it in responses."""
        return ()

    def start(self) -> None:  # noqa: B027  a static credential is always ready
        """Obtain the credential in the background, so that the first request need not wait."""

    async def wait_ready(self) -> None:  # noqa: B027  a static credential is always ready
        """Wait until the first credential is ready, or could not be obtained."""

    def close(self) -> None:  # noqa: B027  a static credential has no resources
        """Stop renewing the credential and discard it."""

    async def vend(self) -> IssuedToken:
        """Return the token itself, for a page that may have it. Only if ``vends``.

        Raises Refusal. Cancellation affects no other waiter.
        """
        raise NotImplementedError("only tokens are issued to clients")

    def state(self) -> CredentialState | None:
        """Return the state for the status; None if there is none. Never a value."""
        return None

    def describe(self) -> str:
        """Return the state as text, "" if there is none. Never a value."""
        return ""


class StaticCredential(Credential):
    """Injections computed when the route is built; nothing is encoded per request."""

    __slots__ = ("_http", "_sources", "_websocket")

    def __init__(self, injections: Injections, sources: tuple[SecretState, ...] = ()) -> None:
        self._http, self._websocket = injections
        self._sources = sources

    def ready(self, *, websocket: bool) -> Injection | None:
        return self._websocket if websocket else self._http

    async def obtain(self, *, websocket: bool, certain: bool = False) -> Injection:
        injection = self.ready(websocket=websocket)
        assert injection is not None, "the strategy has no placement for the request"
        return injection

    def sources(self, injection: Injection) -> tuple[SecretState, ...]:
        return self._sources

    def active_injections(self) -> tuple[Injection, ...]:
        return tuple(one for one in (self._http, self._websocket) if one is not None)
