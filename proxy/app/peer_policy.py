"""The setting ``peer_uid`` in force: which users of this machine may connect."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from proxy.config.settings import Settings
from proxy.errors import Refusal
from proxy.server.connection import ClientConnection
from proxy.server.peer_credentials import Peers, lookup_supported


class PeerPolicy:
    """Checks connecting users, for new connections and for those that are open.

    clients  the open connections
    warn     gets a line for each other user with ``peer_uid: warn``; None for no warnings
    """

    def __init__(
        self, clients: Collection[ClientConnection], warn: Callable[[str], object] | None
    ) -> None:
        self._clients = clients
        self._warn = warn
        # "" before the first configuration.
        self._setting = ""
        self._peers: Peers | None = None

    def prepare(self, settings: Settings) -> Peers | None:
        """Return the check for these settings, None without one. Raises KeyrelayError."""
        if settings.peer_uid == self._setting:
            return self._peers
        enforce = settings.peer_uid == "enforce"
        warns = settings.peer_uid == "warn" and self._warn is not None and lookup_supported()
        if not (enforce or warns):
            return None
        return Peers(enforce=enforce, warn=self._warn or (lambda _line: None))

    def put_in_force(self, settings: Settings, peers: Peers | None) -> None:
        """Use this check from now on. Open connections that it refuses end when they are idle."""
        if settings.peer_uid == self._setting:
            return
        self._setting, self._peers = settings.peer_uid, peers
        for client in list(self._clients):
            if self.refusal(client.transport) is not None:
                client.close_when_idle()

    def refusal(self, transport: asyncio.BaseTransport) -> Refusal | None:
        """Return the refusal of a connection, None if its user is permitted."""
        return None if self._peers is None else self._peers.refusal(transport)
