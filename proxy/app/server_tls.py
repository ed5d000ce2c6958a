"""TLS with clients: the certificate of all TLS listeners, and its renewal during operation.

Without a TLS listener nothing of this is loaded: neither ``server.tls`` nor ``cryptography``.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.clock import Clock
from proxy.config.server_certificate import has_tls
from proxy.config.settings import Settings
from proxy.errors import KeyrelayError
from proxy.forwarding.handler import RequestHandler
from proxy.secrets import resolver
from proxy.secrets.key_pair import NEVER, KeyPair
from proxy.server.client_transport import Timeouts
from proxy.server.connection import ClientConnection
from proxy.server.connection_limit import ConnectionLimit

if TYPE_CHECKING:
    from proxy.server.tls import Handshakes

_NOT_INTERCEPTED = (
    "A client does not trust the authority of --intercept, such as one with a bundle of its "
    "own. Give it a base URL of keyrelay, or the file in SSL_CERT_FILE, by a setting of its own."
)
# Delay before another attempt after a renewal that failed (seconds).
_AGAIN_SECONDS = 600.0


class ServerTls:
    """The TLS of a process's listeners.

    read  returns the certificate for settings, at a time in seconds since the epoch: blocking,
          raises KeyrelayError
    """

    def __init__(
        self,
        read: Callable[[Settings, float], KeyPair | None],
        limit: ConnectionLimit,
        clients: set[ClientConnection],
        times: Timeouts,
        clock: Clock,
        notice: Callable[[str], object],
    ) -> None:
        self._read = read
        self._limit = limit
        self._clients = clients
        self._times = times
        self._clock = clock
        self._notice = notice
        self._handshakes: Handshakes | None = None
        self._noted: set[str] = set()
        self._distrusted = ""
        self._renew_at = NEVER
        self.pair: KeyPair | None = None

    async def prepare(self, settings: Settings) -> tuple[KeyPair, ssl.SSLContext] | None:
        """Read the certificate, for ``put_in_force``. Raises KeyrelayError. Cancelling is safe."""
        if not has_tls(settings):
            return None
        return await resolver.in_thread(lambda: self._prepare(settings))

    def _prepare(self, settings: Settings) -> tuple[KeyPair, ssl.SSLContext] | None:
        pair = self._read(settings, self._clock.wall())
        if pair is None:
            return None
        from proxy.server.tls import server_context

        try:
            return pair, server_context(pair.certificate, pair.key)
        except ValueError as error:
            raise KeyrelayError(f"tls: {error}") from None

    def put_in_force(self, prepared: tuple[KeyPair, ssl.SSLContext] | None) -> None:
        """Use this certificate for connections from now on."""
        self.pair = None if prepared is None else prepared[0]
        self._renew_at = NEVER if self.pair is None else self.pair.renew_at
        if prepared is not None:
            self._loaded().context = prepared[1]
        elif self._handshakes is not None:
            self._handshakes.context = None

    def use(self, pair: KeyPair) -> None:
        """Use this certificate for intercepted connections, without a TLS listener."""
        self._distrusted = _NOT_INTERCEPTED
        from proxy.server.tls import server_context

        self.put_in_force((pair, server_context(pair.certificate, pair.key)))

    def _loaded(self) -> Handshakes:
        from proxy.server.tls import DISTRUSTED, Handshakes

        if self._handshakes is None:
            self._handshakes = Handshakes(
                self._limit,
                self._clients,
                self._times,
                lambda: self._note_once(self._distrusted or DISTRUSTED),
            )
        return self._handshakes

    def _note_once(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self._notice(text)

    def serve(self, handler: RequestHandler, connection: socket.socket) -> None:
        """Serve a connection that a TLS listener has accepted."""
        from proxy.server.tls import TlsClientConnection

        client = TlsClientConnection(
            handler.handle,
            self._clients,
            self._times,
            asyncio.get_running_loop(),
            self._limit,
            handler.malformed,
        )
        self._loaded().begin(client, connection)

    @property
    def due(self) -> bool:
        """Whether the certificate is to be renewed."""
        return self._clock.wall() >= self._renew_at

    def postpone(self) -> None:
        """Let ``due`` be false for some minutes, since the renewal runs or has failed."""
        self._renew_at = self._clock.wall() + _AGAIN_SECONDS

    def stop(self) -> None:
        """Close the connections of which no byte has arrived."""
        if self._handshakes is not None:
            self._handshakes.close_silent()
