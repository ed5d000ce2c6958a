"""The strategy whose credential is a token that expires and is renewed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from proxy.auth.injection import Injection, RequestProof, inject
from proxy.auth.strategy import CredentialState, IssuedToken, Strategy
from proxy.auth.token import Token
from proxy.auth.token_cache import TokenCache
from proxy.config.placement import Placement
from proxy.errors import Refusal
from proxy.http.path_patterns import PatternSet

# Any token, to check at the start that all other values fit their placements.
_EXAMPLE = b"token"


class TokenStrategy(Strategy):
    """Puts the cache's token into the placements, under the name ``token``.

    values   what the placements name beside it
    refused  statuses with which the provider refuses the token
    others   what ``values`` are for the other variants of the strategy
    recent   the last tokens, shared with these; all are redacted, since a provider that refuses
             one may quote it in the response to the next
    prove    makes the proof for a token, where tokens are bound to a key
    vends    whether pages may get the token: not if it contains a secret

    Raises ValueError, without the value, if one of ``values`` cannot be where a placement puts it.
    """

    __slots__ = (
        "_cache",
        "_http",
        "_others",
        "_prove",
        "_recent",
        "_refused",
        "_rendered",
        "_values",
        "_vends",
        "_websocket",
    )

    def __init__(
        self,
        name: str,
        paths: PatternSet | None,
        cache: TokenCache,
        *,
        http: Iterable[Placement] | None,
        websocket: Iterable[Placement] | None,
        values: Mapping[str, bytes],
        refused: frozenset[int],
        others: Collection[Mapping[str, bytes]] = (),
        recent: deque[bytes] | None = None,
        prove: Callable[[bytes], RequestProof] | None = None,
        vends: bool = True,
    ) -> None:
        super().__init__(name, paths)
        self._cache = cache
        self._http = None if http is None else tuple(http)
        self._websocket = None if websocket is None else tuple(websocket)
        self._values = dict(values)
        self._refused = refused
        self._others = tuple(others)
        self._prove = prove
        self._vends = vends
        self._recent: deque[bytes] = deque(maxlen=2) if recent is None else recent
        # The last token in its placements: nothing is encoded per request.
        self._rendered: tuple[Token, Injection | None, Injection | None] | None = None
        for placements in (self._http, self._websocket):
            self._inject(placements, _EXAMPLE)

    def carries(self, *, websocket: bool) -> bool:
        return (self._websocket if websocket else self._http) is not None

    def ready(self, *, websocket: bool) -> Injection | None:
        token = self._cache.ready()
        if token is None:
            return None
        rendered = self._rendered
        if rendered is None or rendered[0] is not token:
            return None if self._unplaceable(token) else self._injection(token, websocket=websocket)
        return rendered[2] if websocket else rendered[1]

    async def obtain(self, *, websocket: bool, certain: bool = False) -> Injection:
        token = await self._cache.obtain(certain=certain)
        if (reason := self._unplaceable(token)) is not None:
            raise reason
        return self._injection(token, websocket=websocket)

    @property
    def renewable(self) -> bool:
        return True

    @property
    def revocable(self) -> bool:
        token = self._cache.ready()
        return token is not None and token.fetched.superseded is not None

    @property
    def replays(self) -> int:
        # A server may ask for its nonce first, and then refuse the token.
        return 1 if self._prove is None else 2

    @property
    def vends(self) -> bool:
        return self._vends

    def refuses(self, status: int) -> bool:
        return status in self._refused

    def refused(self, injection: Injection, status: int) -> bool:
        rendered = self._rendered
        if rendered is None:
            return False
        current = injection is rendered[1] or injection is rendered[2]
        if not self.refuses(status):
            if current:
                self._cache.serve(rendered[0])
            return False
        if current:
            return self._cache.refuse(rendered[0])
        return True  # of an older token: its successor has been used since

    def reset(self) -> None:
        self._cache.reset()

    def active_injections(self) -> tuple[Injection, ...]:
        rendered = () if self._rendered is None else self._rendered[1:]
        return tuple(one for one in rendered if one is not None)

    def start(self) -> None:
        self._cache.start()

    async def wait_ready(self) -> None:
        await self._cache.wait_ready()

    def close(self) -> None:
        self._cache.close()
        self._rendered = None
        self._recent.clear()

    async def vend(self) -> IssuedToken:
        token = await self._cache.obtain()
        return IssuedToken(token.value, self._cache.seconds_left(token))

    def state(self) -> CredentialState:
        return CredentialState(self._cache.state())

    def describe(self) -> str:
        return self._cache.describe()

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

    def _unplaceable(self, token: Token) -> Refusal | None:
        """Why a token cannot be in these placements: a cookie holds less than a header."""
        if self._rendered is not None and self._rendered[0] is token:
            return None
        try:
            for placements in (self._http, self._websocket):
                self._inject(placements, token.value)
        except ValueError as error:
            return Refusal(
                502,
                "no-token",
                f"Keyrelay cannot place the provider's token: {error}.",
                "Use another placement, such as header: Authorization.",
                proxy_error="proxy_internal_response",
            )
        return None

    def _inject(self, placements: Iterable[Placement] | None, token: bytes) -> Injection | None:
        if placements is None:
            return None
        others = [{**one, "token": token} for one in self._others]
        others += [{**self._values, "token": one} for one in self._recent if one != token]
        injection = inject(placements, {**self._values, "token": token}, others)
        return injection if self._prove is None else replace(injection, proof=self._prove(token))
