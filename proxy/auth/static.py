"""Credentials that do not change: keys, and Basic made from two secrets."""

from __future__ import annotations

from ..outgoing import Injection
from ..patterns import PatternSet
from .base import Strategy


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

    def at_hand(self) -> tuple[Injection, ...]:
        return tuple(one for one in (self._http, self._websocket) if one is not None)

    async def obtain(self, *, websocket: bool) -> Injection:
        injection = self.ready(websocket=websocket)
        assert injection is not None, "asked of a strategy that does not serve the request"
        return injection
