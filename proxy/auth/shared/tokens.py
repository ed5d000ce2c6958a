"""The tokens of one keyrelay that it shares with others: what they have in common."""

from __future__ import annotations

import asyncio
import ssl
import weakref
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from proxy.auth.shared.entry import Entry
from proxy.auth.shared.server import RedisServer, ServerState
from proxy.auth.shared.source import RedisTokenSource, SharedCounts
from proxy.auth.shared.store import RedisTokenStore
from proxy.auth.shared.trouble import Trouble
from proxy.auth.token import TokenSource
from proxy.clock import Clock, format_span
from proxy.config.template import parse_template
from proxy.config.token import TokenSettings
from proxy.config.token_sharing import TokenSharing
from proxy.errors import KeyrelayError
from proxy.secrets.secret import Secret

PASSWORD, KEY = "tokens.password", "tokens.key"
"""Names of the secrets of ``tokens:``, for messages."""

# A secret with fewer bytes could be guessed by a reader of Redis, who can try as often as wanted.
_LEAST_BYTES = 16


class SharedTokens:
    """Makes sources and stores that share their tokens through one Redis server.

    password  of the server
    reread    reads the password again; blocking, raises SecretUnavailable
    key       the explicit key
    tls       the context for ``rediss``
    warn      receives a line for the operator

    Raises KeyrelayError if the extra is not installed, or the key is too short.
    """

    def __init__(
        self,
        settings: TokenSharing,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        *,
        tls: ssl.SSLContext | None = None,
        password: Secret | None = None,
        reread: Callable[[], Secret] | None = None,
        key: Secret | None = None,
        warn: Callable[[str], object] = lambda _line: None,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._spawn = spawn
        self._warn = warn
        self._salt = b"" if key is None else key.reveal()
        if key is not None and len(self._salt) < _LEAST_BYTES:
            raise KeyrelayError(
                f"{KEY} has fewer than {_LEAST_BYTES} bytes: print one with openssl rand -hex 32"
            )
        self._counts = SharedCounts()
        self._stores: weakref.WeakSet[RedisTokenStore] = weakref.WeakSet()
        self._server = RedisServer(
            settings.address,
            clock,
            spawn,
            check_key=f"{settings.prefix}:check",
            password=password,
            source=reread,
            tls=tls,
            changed=self._report,
        )

    def unshared(self, token: TokenSettings, values: Mapping[str, bytes]) -> str:
        """Return why the tokens of these settings are not shared, "" if they are.

        values  the secrets by name
        """
        names = {name for text in token.templates.values() for name in parse_template(text).names}
        lengths = [len(values[name]) for name in names & values.keys()]
        if self._salt or max(lengths, default=0) >= _LEAST_BYTES:
            return ""
        found = "a secret that is too short" if lengths else "no secret"
        return f"made from {found}, so that a reader of Redis could find them; set {KEY}"

    def source(self, identity: str, source: TokenSource) -> TokenSource:
        """Return a source of the tokens that ``identity`` identifies, for all keyrelays."""
        return RedisTokenSource(
            self._server,
            self._entry(identity.encode("ascii"), "access"),
            source,
            self._clock,
            alone=self.settings.when_down == "fetch",
            counts=self._counts,
        )

    def store(self, first: bytes, call_seconds: float) -> RedisTokenStore:
        """Return the store of a refresh token, by the configured one.

        Raises ValueError, without the value, for one that could be guessed.
        """
        if not self._salt and len(first) < _LEAST_BYTES:
            raise ValueError(f"the refresh token has fewer than {_LEAST_BYTES} bytes; set {KEY}")
        store = RedisTokenStore(
            self._server,
            self._entry(first, "refresh"),
            first,
            self._clock,
            self._spawn,
            call_seconds=call_seconds,
            counts=self._counts,
        )
        self._stores.add(store)
        return store

    def _entry(self, identity: bytes, purpose: str) -> Entry:
        return Entry(identity, purpose, prefix=self.settings.prefix, salt=self._salt)

    def start(self) -> None:
        """Check regularly whether the server can be used."""
        self._server.start()

    async def check(self) -> ServerState:
        """Try now whether the server can be used."""
        return await self._server.check()

    def status(self) -> dict[str, Any]:
        """Return the state as JSON-able data, without a secret."""
        state = self._server.state()
        return {
            "server": str(self.settings.address),
            "when_down": self.settings.when_down,
            "usable": state.usable,
            "since_seconds": state.since_seconds,
            "reason": state.reason,
            "advice": state.advice,
            "unavailable": state.failures,
            "taken": self._counts.taken,
            "put": self._counts.put,
            "alone": self._counts.alone,
        }

    def _report(self, trouble: Trouble | None, seconds: float) -> None:
        if trouble is None:
            self._warn(f"tokens.share: Redis can be used again, after {format_span(seconds)}")
            return
        advice = f" ({trouble.advice.removesuffix('.')})" if trouble.advice else ""
        meanwhile = (
            "each keyrelay obtains its own tokens until then, and none by a refresh token"
            if self.settings.when_down == "fetch"
            else "no token is obtained until then"
        )
        self._warn(f"tokens.share: {trouble.reason}{advice}; {meanwhile}")

    async def close(self) -> None:
        """End all calls. What could not be kept is reported."""
        kept = [await store.close() for store in list(self._stores)]
        if not all(kept):
            self._warn(
                "tokens.share: the successor of a refresh token could not be kept in Redis, and is "
                "lost; sign in anew"
            )
        await self._server.close()
