"""Which connections the admin listener takes: so many at a time, and only of users who may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from aiohttp import web

from proxy.errors import Refusal
from proxy.http.problem import problem

PeerRefusal = Callable[[asyncio.BaseTransport], Refusal | None]
"""Why a user's connection cannot stay, None if it can: as ``App.peer_refusal``."""

MOST_CONNECTIONS: Final = 64
"""Eight may watch at once, and a browser opens some six; the rest is for scripts and scrapers."""


class AdmissionProtocol(asyncio.Protocol):
    """Decides on one connection before anything of it is read, then leaves it to ``server``."""

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
                "Try again, or close those that nobody uses.",
                headers=(("Retry-After", "1"),),
            )
        if refusal is not None:
            taken.write(problem(refusal, close=True))
            taken.close()
            return
        handler = self._server()
        taken.set_protocol(handler)
        handler.connection_made(taken)
