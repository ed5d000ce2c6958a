"""Graceful shutdown of the connections: what may still finish, and the end of the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from proxy.server.connection import ClientConnection
from proxy.upstream.unread import has_unread
from proxy.websocket.relay import Relay

# How long a connection without a complete request may take to send one (seconds): it may have been
# accepted just now.
_EXPECTED_SECONDS = 0.5
# Interval at which the connections are checked (seconds). Many may end, and none of them is awaited
# individually.
_POLL_SECONDS = 0.02
# How long the end waits for connections that were aborted (seconds): a transport that never reports
# its end must not keep the process alive.
_ABORT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Connections:
    """The open connections of a process, as live sets.

    clients  that are served
    refused  client connections whose refusal is being sent
    relays   open WebSockets
    """

    clients: AbstractSet[ClientConnection]
    refused: AbstractSet[ClientConnection]
    relays: AbstractSet[Relay]

    async def drain(self, seconds: float) -> None:
        """Let requests finish for at most ``seconds``, and close every connection without one.

        Requests that are on their way are served too. WebSockets get a Close frame with 1001
        (RFC 6455 section 7.4.1). Cancellation leaves connections open, for ``abort``.
        """
        loop = asyncio.get_running_loop()
        for relay in list(self.relays):
            relay.close_gracefully(seconds)
        until = loop.time() + seconds
        expected = loop.time() + min(seconds, _EXPECTED_SECONDS)
        # Written data is sent even if ``seconds`` is 0.
        await asyncio.sleep(0)
        while True:
            self._close_idle(expecting=loop.time() < expected)
            if not (self.clients or self.relays) or loop.time() >= until:
                return
            await asyncio.sleep(_POLL_SECONDS)

    def _close_idle(self, *, expecting: bool) -> None:
        """Close the connections without a request, ``expecting`` only those that expect none.

        A connection without a request may still be sending its last response.
        """
        for client in list(self.clients):
            client.finish_soon()
            if not client.idle:
                continue
            if client.transport.is_closing():
                client.end_closing()
                continue
            # A request, or the end, may have arrived that the event loop has not read yet.
            if not (expecting and (client.expects_request or has_unread(client.transport))):
                client.transport.close()

    async def abort(self) -> str:
        """Abort every connection, and wait at most a second until they are closed.

        Returns a warning if some are not, else an empty text.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _ABORT_SECONDS
        # Transports call ``connection_lost`` in a later iteration of the event loop.
        while (self.clients or self.refused or self.relays) and loop.time() < until:
            for client in [*self.clients, *self.refused]:
                client.transport.abort()
            for relay in list(self.relays):
                relay.abort()
            await asyncio.sleep(0)
        left = len(self.clients) + len(self.refused) + len(self.relays)
        if not left:
            return ""
        return f"{left} connections did not close within {_ABORT_SECONDS:g} s of the end"
