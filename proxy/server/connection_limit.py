"""Limit of client connections: one over it is refused before any read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.errors import Refusal
from proxy.server.head_limits import HeadBudget

if TYPE_CHECKING:
    from proxy.server.connection import ClientConnection

# Maximum number of refused connections that linger at once. Others are reset: a client that opens
# so many reads no responses.
MAX_REFUSED = 64


class ConnectionLimit:
    """Admits connections: up to ``max_connections`` at a time, and none that ``refusal`` rejects.

    ``refused`` holds the connections that have been sent a refusal and linger for a few seconds to
    receive it. Open WebSockets do not count. ``heads`` bounds what all connections hold of
    incomplete header sections. ``handshakes`` are connections before or within their TLS handshake,
    which count as connections.
    """

    def __init__(
        self,
        max_connections: int,
        refusal: Callable[[asyncio.BaseTransport], Refusal | None] | None = None,
    ) -> None:
        self.max_connections = max_connections
        self.refusal = refusal
        self.refused: set[ClientConnection] = set()
        self.handshakes: set[ClientConnection] = set()
        self.heads = HeadBudget()

    def check(self, transport: asyncio.Transport, connections: int) -> Refusal | None:
        """The refusal of this connection beside ``connections`` others, None if it is admitted."""
        if connections + len(self.handshakes) >= self.max_connections:
            return Refusal(
                503,
                "too-many-connections",
                f"Keyrelay keeps {self.max_connections} connections at a time.",
                "Try again, close unused connections, or raise max_connections in the routes file.",
                proxy_error="connection_limit_reached",
                headers=(("Retry-After", "1"),),
            )
        return None if self.refusal is None else self.refusal(transport)
