"""Admission of connections to the admin listener: a maximum number, and permitted users only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from aiohttp import web

from proxy.errors import Refusal
from proxy.http.problem import problem

PeerRefusal = Callable[[asyncio.BaseTransport], Refusal | None]
"""Returns the refusal of a connection, None if its user is permitted: ``App.peer_refusal``."""

MOST_CONNECTIONS: Final = 64
"""Eight inspectors at a time, some six connections of a browser; the rest for metrics and scripts.
"""


class AdmissionProtocol(asyncio.Protocol):
    """Admits or refuses one connection before reading from it, then passes it to ``server``."""

    def __init__(self, server: web.Server, peer_refusal: PeerRefusal) -> None:
        self._server = server
        self._peer_refusal = peer_refusal

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        taken = cast(asyncio.Transport, transport)
        refusal = self._peer_refusal(taken)
        if refusal is None and len(self._server.connections) >= MOST_CONNECTIONS:
            refusal = Refusal(
                503,
                "too-many-connections",
                f"The admin listener keeps {MOST_CONNECTIONS} connections at a time.",
                "Try again, or close unused ones.",
                headers=(("Retry-After", "1"),),
            )
        if refusal is not None:
            taken.write(problem(refusal, close=True))
            taken.close()
            return
        handler = self._server()
        taken.set_protocol(handler)
        handler.connection_made(taken)
