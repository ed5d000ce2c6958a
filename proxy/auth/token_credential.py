"""A credential that is a token, fetched and renewed by a token cache."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from proxy.auth.credential import Credential, CredentialState, IssuedToken, SecretState
from proxy.auth.injection import Injection, Injections, Placements, RequestProof
from proxy.auth.token import Token
from proxy.auth.token_cache import TokenCache
from proxy.errors import Refusal

# Any token, to check that all other values can be placed.
_EXAMPLE = b"token"


class TokenCredential(Credential):
    """The cache's token in the placements, under the name ``token``.

    placements  where the token is injected
    values      the secrets that placements name besides the token
    refused     statuses with which the provider rejects the token
    others      ``values`` of the other variants of the credential
    recent      the last tokens, shared with these variants; all of them are redacted, as a provider
                that rejects one may quote it in the response to the next
    prove       creates the proof for a token, where tokens are bound to a key
    sources     the secrets behind ``values``, for display
    vends       whether pages may get the token: not if it contains a secret

    Raises ValueError, without the value, if one of ``values`` does not fit its placement.
    """

    __slots__ = (
        "_cache",
        "_others",
        "_placements",
        "_prove",
        "_recent",
        "_refused",
        "_rendered",
        "_sources",
        "_values",
        "_vends",
    )

    def __init__(
        self,
        cache: TokenCache,
        placements: Placements,
        *,
        values: Mapping[str, bytes],
        refused: frozenset[int],
        others: Collection[Mapping[str, bytes]] = (),
        recent: deque[bytes] | None = None,
        prove: Callable[[bytes], RequestProof] | None = None,
        vends: bool = True,
        sources: tuple[SecretState, ...] = (),
    ) -> None:
        self._cache = cache
        self._placements = placements
        self._values = dict(values)
        self._refused = refused
        self._others = tuple(others)
        self._prove = prove
        self._vends = vends
        self._sources = sources
        self._recent: deque[bytes] = deque(maxlen=2) if recent is None else recent
        # The last token in its placements: nothing is encoded per request.
        self._rendered: tuple[Token, Injection | None, Injection | None] | None = None
        self._render(_EXAMPLE)

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
        # A server may first require its nonce, and then reject the token.
        return 1 if self._prove is None else 2

    @property
    def vends(self) -> bool:
        return self._vends

    def rejects(self, status: int) -> bool:
        return status in self._refused

    def on_response(self, injection: Injection, status: int) -> bool:
        if self.rejects(status):
            return self.on_rejection(injection)
        if self._rendered is not None and self._is_current(injection):
            self._cache.serve(self._rendered[0])
        return False

    def on_rejection(self, injection: Injection) -> bool:
        if self._rendered is None:
            return False
        if self._is_current(injection):
            return self._cache.reject(self._rendered[0])
        return True  # an older token: its successor is in use

    def _is_current(self, injection: Injection) -> bool:
        rendered = self._rendered
        return rendered is not None and (injection is rendered[1] or injection is rendered[2])

    def reset(self) -> None:
        self._cache.reset()

    def sources(self, injection: Injection) -> tuple[SecretState, ...]:
        return self._sources

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
            rendered = self._rendered = (token, *self._render(token.value))
        injection = rendered[2] if websocket else rendered[1]
        assert injection is not None, "the strategy has no placement for the request"
        return injection

    def _unplaceable(self, token: Token) -> Refusal | None:
        """Return why a token does not fit the placements: a cookie allows less than a field."""
        if self._rendered is not None and self._rendered[0] is token:
            return None
        try:
            self._render(token.value)
        except ValueError as error:
            return Refusal(
                502,
                "no-token",
                f"Keyrelay cannot place the provider's token: {error}.",
                "Use another placement, such as header: Authorization.",
                proxy_error="proxy_internal_response",
            )
        return None

    def _render(self, token: bytes) -> Injections:
        others = [{**one, "token": token} for one in self._others]
        others += [{**self._values, "token": one} for one in self._recent if one != token]
        http, websocket = self._placements.inject({**self._values, "token": token}, others)
        return Injections(self._proven(http, token), self._proven(websocket, token))

    def _proven(self, injection: Injection | None, token: bytes) -> Injection | None:
        """Return the injection with the proof for the token, if tokens need one."""
        if injection is None or self._prove is None:
            return injection
        return replace(injection, proof=self._prove(token))
