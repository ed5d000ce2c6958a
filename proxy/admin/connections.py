"""Admission of connections to the admin listener: a maximum number, and permitted users only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final, cast

from aiohttp import web

from proxy.errors import Refusal
from proxy.http.problem import problem

PeerRefusal = Callable[[asyncio.BaseTransport], Refusal | None]
"""Returns the refusal of a connection, None if its user is permitted: ``App.peer_refusal``."""

MOST_CONNECTIONS: Final = 64
"""Eight inspectors at a time, some six connections of a browser; the rest for metrics and scripts.
"""


class IdleConnections:
    """The connections without a request in progress, the longest idle first."""

    def __init__(self) -> None:
        self._idle: dict[web.RequestHandler, None] = {}

    def add(self, handler: web.RequestHandler) -> None:
        """Add a connection, unless it is closed. Closed ones are forgotten."""
        known = [*self._idle, handler]
        self._idle = {one: None for one in known if one.transport is not None}

    def discard(self, handler: web.RequestHandler) -> None:
        self._idle.pop(handler, None)

    def close_one(self, open_now: Collection[web.RequestHandler]) -> bool:
        """Close the one that has been idle longest. Returns whether there was one."""
        for handler in list(self._idle):
            self.discard(handler)
            if handler in open_now:
                handler.force_close()
                return True
        return False


class AdmissionProtocol(asyncio.Protocol):
    """Admits or refuses one connection before reading from it, then passes it to ``server``.

    If there are too many, the one that has been ``idle`` longest is closed: connections that send
    no request, or a part of one, thus lock no other out.
    """

    def __init__(
        self, server: web.Server, peer_refusal: PeerRefusal, idle: IdleConnections
    ) -> None:
        self._server = server
        self._peer_refusal = peer_refusal
        self._idle = idle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        taken = cast(asyncio.Transport, transport)
        refusal = self._peer_refusal(taken)
        handlers = self._server.connections
        if (
            refusal is None
            and len(handlers) >= MOST_CONNECTIONS
            and not self._idle.close_one(handlers)
        ):
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
        self._idle.add(handler)
