"""The strategy whose credential is a token that has to be kept fresh."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping

from proxy.auth.injection import Injection, inject
from proxy.auth.strategy import CredentialState, IssuedToken, Strategy
from proxy.auth.token_cache import Token, TokenCache
from proxy.config.placement import Placement
from proxy.http.path_patterns import PatternSet

# Any token, to see whether all the rest can be placed.
_EXAMPLE = b"token"


class TokenStrategy(Strategy):
    """Puts the keeper's token into the placements, under the name ``token``.

    values   what the placements name beside it
    refused  statuses by which the provider says that it does not take the token
    others   what ``values`` are for the other variants of the strategy
    recent   the last tokens, shared with these; all of them are masked, as a provider that does not
             take one may tell of it in its answer to the next

    Raises ValueError, without the value, if one of ``values`` cannot be where a placement puts it.
    """

    __slots__ = (
        "_http",
        "_keeper",
        "_others",
        "_recent",
        "_refused",
        "_rendered",
        "_values",
        "_websocket",
    )

    def __init__(
        self,
        name: str,
        paths: PatternSet | None,
        token_cache: TokenCache,
        *,
        http: Iterable[Placement] | None,
        websocket: Iterable[Placement] | None,
        values: Mapping[str, bytes],
        refused: frozenset[int],
        others: Collection[Mapping[str, bytes]] = (),
        recent: deque[bytes] | None = None,
    ) -> None:
        super().__init__(name, paths)
        self._keeper = token_cache
        self._http = None if http is None else tuple(http)
        self._websocket = None if websocket is None else tuple(websocket)
        self._values = dict(values)
        self._refused = refused
        self._others = tuple(others)
        self._recent: deque[bytes] = deque(maxlen=2) if recent is None else recent
        # The last token in its placements: nothing is encoded per request.
        self._rendered: tuple[Token, Injection | None, Injection | None] | None = None
        for placements in (self._http, self._websocket):
            self._inject(placements, _EXAMPLE)

    def carries(self, *, websocket: bool) -> bool:
        return (self._websocket if websocket else self._http) is not None

    def ready(self, *, websocket: bool) -> Injection | None:
        token = self._keeper.ready()
        return None if token is None else self._injection(token, websocket=websocket)

    async def obtain(self, *, websocket: bool) -> Injection:
        return self._injection(await self._keeper.obtain(), websocket=websocket)

    @property
    def renewable(self) -> bool:
        return True

    @property
    def vends(self) -> bool:
        return True

    def refuses(self, status: int) -> bool:
        return status in self._refused

    def refused(self, injection: Injection, status: int) -> bool:
        rendered = self._rendered
        if not self.refuses(status) or rendered is None:
            return False
        if injection is rendered[1] or injection is rendered[2]:
            return self._keeper.refuse(rendered[0])
        return True  # of an older token: its successor has been used since

    def active_injections(self) -> tuple[Injection, ...]:
        rendered = () if self._rendered is None else self._rendered[1:]
        return tuple(one for one in rendered if one is not None)

    def start(self) -> None:
        self._keeper.start()

    async def wait_ready(self) -> None:
        await self._keeper.wait_ready()

    def close(self) -> None:
        self._keeper.close()
        self._rendered = None
        self._recent.clear()

    async def vend(self) -> IssuedToken:
        token = await self._keeper.obtain()
        return IssuedToken(token.value, self._keeper.seconds_left(token))

    def state(self) -> CredentialState:
        return CredentialState(self._keeper.state())

    def describe(self) -> str:
        return self._keeper.describe()

    def _injection(self, token: Token, *, websocket: bool) -> Injection:
        rendered = self._rendered
        if rendered is None or rendered[0] is not token:
            if token.value not in self._recent:
                self._recent.append(token.value)
            rendered = self._rendered = (
                token,
                self._inject(self._http, token.value),
                self._inject(self._websocket, token.value),
            )
        injection = rendered[2] if websocket else rendered[1]
        assert injection is not None, "asked of a strategy that does not serve the request"
        return injection

    def _inject(self, placements: Iterable[Placement] | None, token: bytes) -> Injection | None:
        if placements is None:
            return None
        others = [{**one, "token": token} for one in self._others]
        others += [{**self._values, "token": one} for one in self._recent if one != token]
        return inject(placements, {**self._values, "token": token}, others)
