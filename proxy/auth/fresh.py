"""The strategy whose credential is a token that has to be kept fresh."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..outgoing import Injection
from ..patterns import PatternSet
from ..placements import Placement
from .base import Strategy
from .injecting import inject
from .tokens import Token, TokenKeeper

# What stands for the token where a request is shown and not sent.
_EXAMPLE = b"<token>"


class TokenStrategy(Strategy):
    """Puts the keeper's token into the placements, under the name ``token``.

    refused  statuses by which the provider says that it does not take the token
    """

    __slots__ = ("_http", "_keeper", "_refused", "_rendered", "_values", "_websocket")

    def __init__(
        self,
        name: str,
        paths: PatternSet | None,
        keeper: TokenKeeper,
        *,
        http: Iterable[Placement] | None,
        websocket: Iterable[Placement] | None,
        values: Mapping[str, bytes],
        refused: frozenset[int],
    ) -> None:
        super().__init__(name, paths)
        self._keeper = keeper
        self._http = None if http is None else tuple(http)
        self._websocket = None if websocket is None else tuple(websocket)
        self._values = dict(values)
        self._refused = refused
        # The last token in its placements: nothing is encoded per request.
        self._rendered: tuple[Token, Injection | None, Injection | None] | None = None

    def _carries(self, *, websocket: bool) -> bool:
        return (self._websocket if websocket else self._http) is not None

    def ready(self, *, websocket: bool) -> Injection | None:
        token = self._keeper.ready()
        return None if token is None else self._injection(token, websocket=websocket)

    async def obtain(self, *, websocket: bool) -> Injection:
        return self._injection(await self._keeper.obtain(), websocket=websocket)

    def example(self, *, websocket: bool) -> Injection:
        return self._inject(self._websocket if websocket else self._http, _EXAMPLE)

    @property
    def renewable(self) -> bool:
        return True

    def refused(self, injection: Injection, status: int) -> bool:
        if status not in self._refused:
            return False
        if self._rendered is None or all(one is not injection for one in self._rendered[1:]):
            # Not the current token's: a newer one is there or on its way.
            return True
        return self._keeper.refuse(self._rendered[0])

    def start(self) -> None:
        self._keeper.start()

    def close(self) -> None:
        self._keeper.close()
        self._rendered = None

    def describe(self) -> str:
        return self._keeper.describe()

    def _injection(self, token: Token, *, websocket: bool) -> Injection:
        rendered = self._rendered
        if rendered is None or rendered[0] is not token:
            http, sockets = self._http, self._websocket
            rendered = self._rendered = (
                token,
                None if http is None else self._inject(http, token.value),
                None if sockets is None else self._inject(sockets, token.value),
            )
        injection = rendered[2] if websocket else rendered[1]
        assert injection is not None, "asked of a strategy that does not serve the request"
        return injection

    def _inject(self, placements: Iterable[Placement] | None, token: bytes) -> Injection:
        assert placements is not None, "asked of a strategy that does not serve the request"
        return inject(placements, {**self._values, "token": token})
