"""What an ``App`` is given from outside, and what several processes replace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy.app.listeners import ListenerSet, ServeTls
from proxy.app.token_sharing import open_shared_tokens
from proxy.auth.strategy import AuthContext, Share
from proxy.config.server_certificate import read_key_pair
from proxy.config.settings import Settings
from proxy.forwarding.handler import ActiveConfig, RequestHandler
from proxy.routing.route_secrets import ResolvedSecrets, read_secrets
from proxy.secrets import resolver
from proxy.secrets.key_pair import KeyPair
from proxy.secrets.secret import Secret
from proxy.server.connection import ClientConnection

if TYPE_CHECKING:
    from proxy.auth.shared.tokens import SharedTokens


def read_all(settings: Settings) -> tuple[Mapping[str, ResolvedSecrets], Secret | None]:
    """Resolve every secret that the settings name. Blocking. Raises SecretUnavailable."""
    found = read_secrets(settings)
    if settings.inbound_token is None:
        return found, None
    return found, resolver.resolve("inbound_token", settings.inbound_token)


@dataclass(slots=True)
class Timeouts:
    """The timeouts of client connections, in seconds."""

    head_seconds: float = 0.0
    keepalive_seconds: float = 0.0
    dead_peer_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Supply:
    """Sources of secrets, tokens and sockets, replaced in each of several processes.

    read    returns the secrets of every route, by its name, and the inbound token, None without
            one: blocking, raises KeyrelayError
    share   as of ``AuthContext``
    places  makes the ``ListenerSet``
    key_pair  returns the certificate of the TLS listeners, as ``read_key_pair`` does
    shared_tokens  opens what shares tokens with other keyrelays; None for a process that does not
    """

    read: Callable[[Settings], tuple[Mapping[str, ResolvedSecrets], Secret | None]] = read_all
    share: Share | None = None
    places: Callable[
        [
            Callable[[ActiveConfig], RequestHandler],
            Callable[[RequestHandler], ClientConnection],
            ServeTls,
        ],
        ListenerSet,
    ] = ListenerSet
    key_pair: Callable[[Settings, float], KeyPair | None] = read_key_pair
    shared_tokens: Callable[[Settings, AuthContext], Awaitable[SharedTokens | None]] | None = (
        open_shared_tokens
    )
