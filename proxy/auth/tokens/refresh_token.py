"""Access tokens for a refresh token, which the server may replace each time (RFC 6749 section 6).

A server that replaces refresh tokens refuses the old one and, if it comes again, may refuse the
whole family; many revoke the old access token as well. So nothing is spent that cannot be
replaced: processes that share a store take turns, the one that gets the lock takes what another
has just put there, room for the successor is made before the call, what has begun is brought to
its end, and the successor is kept before its access token is used.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any

from proxy.auth.token import FetchedToken, TokenError, renewal_seconds
from proxy.auth.token_store import StoredToken, StoredTokens, TokenStore
from proxy.auth.tokens.client import SendTokenRequest, TokenEndpointFailure, TokenRequest
from proxy.auth.tokens.response import TokenFields, read_token

# RFC 6749 appendix A.17.
_REFRESH_TOKEN = re.compile(r"[\x20-\x7e]+")
# An access token that another process left is taken if it is good for this long (seconds), and not
# due for renewal.
_LEAST_SECONDS = 1.0
# What servers call a refresh token that is spent or revoked: the standard's word, and those of
# servers that have none for it.
_SPENT = frozenset({"invalid_grant", "invalid_request", "invalid_token", ""})


class RefreshTokenSource:
    """Access tokens for a refresh token.

    make      the request for a refresh token
    first     the refresh token of the configuration
    store     where tokens are kept, for every process that uses it; None: in memory only
    identity  of the settings: what an access token in the store has to have been obtained with
    wall      reads the time in seconds since the epoch
    warn      gets a line if a successor came that will be lost
    """

    def __init__(
        self,
        send: SendTokenRequest,
        make: Callable[[bytes], TokenRequest],
        fields: TokenFields,
        *,
        first: bytes,
        store: TokenStore | None,
        identity: str,
        wall: Callable[[], float],
        warn: Callable[[str], object] = lambda _line: None,
    ) -> None:
        self._send = send
        self._make = make
        self._fields = fields
        self._newest = first
        # What the store had when a newer one came: spent, should writing that have failed.
        self._outdated: bytes | None = None
        self._first = first
        self._store = store
        self._identity = identity
        self._wall = wall
        self._warn = warn
        self._warned = False
        # The access tokens that were given out last, and refused last.
        self._current: bytes | None = None
        self._refused: bytes | None = None

    async def fetch(self) -> FetchedToken:
        """A token that is not the last one. Cancelling waits for an exchange that has begun."""
        if self._store is None:
            return self._given(await _to_its_end(self._exchange(StoredTokens())))
        async with self._store.lock():
            kept = await self._store.read()
            if (token := self._usable(kept)) is not None:
                return self._given(token)
            return self._given(await _to_its_end(self._exchange(kept)))

    def _usable(self, kept: StoredTokens) -> FetchedToken | None:
        """What another process has put there, or this one before it was started anew."""
        stored = kept.access_tokens.get(self._identity)
        if stored is None or stored.value in {self._current, self._refused}:
            return None
        left = stored.expires_at - self._wall()
        if left < max(_LEAST_SECONDS, renewal_seconds(stored.lifetime_seconds)):
            return None
        whole = max(stored.lifetime_seconds, left)
        return FetchedToken(stored.value, left, counts=(0, 0), whole_seconds=whole)

    def _given(self, token: FetchedToken) -> FetchedToken:
        self._current = value = token.value
        return FetchedToken(
            value,
            token.lifetime_seconds,
            refused=lambda _served: self._note_refused(value),
            superseded=lambda: self._superseded(value),
            counts=token.counts,
            remarks=token.remarks,
            notes=token.notes,
            whole_seconds=token.whole_seconds,
        )

    def _note_refused(self, value: bytes) -> None:
        self._refused = value

    async def _superseded(self, value: bytes) -> bool:
        """Whether another process has replaced the token ``value``, or is about to."""
        if self._store is None or not await self._store.changed():
            return False
        try:
            async with self._store.lock():
                kept = await self._store.read()
        except TokenError:
            return False
        stored = kept.access_tokens.get(self._identity)
        return stored is not None and stored.value != value

    async def _exchange(self, kept: StoredTokens) -> FetchedToken:
        store = self._store
        if store is not None:
            spendable = kept.refresh_token or self._first
            if spendable != self._outdated:
                self._newest = spendable
            await store.reserve()
        try:
            document, now = await self._send(self._make(self._newest))
        except TokenEndpointFailure as failure:
            raise self._explained(failure) from None
        newer = document.get("refresh_token") if isinstance(document, dict) else None
        if isinstance(newer, str) and _REFRESH_TOKEN.fullmatch(newer):
            successor = newer.encode()
            if store is None and successor != self._newest:
                self._warn_of_loss()
            self._newest = successor
        fetched: FetchedToken | None = None
        failed: TokenError | None = None
        try:
            fetched = read_token(document, self._fields, now)
        except TokenError as error:
            # The refresh token counts even if the access token beside it cannot be used.
            failed = error
        if store is not None:
            self._outdated = kept.refresh_token or self._first
            await store.write(self._stored(kept, fetched, now))
            self._outdated = None
        if fetched is None:
            assert failed is not None
            raise failed
        return fetched

    def _stored(self, kept: StoredTokens, fetched: FetchedToken | None, now: float) -> StoredTokens:
        others = {
            identity: one
            for identity, one in kept.access_tokens.items()
            if identity != self._identity and one.expires_at > now
        }
        if fetched is not None:
            end = now + fetched.lifetime_seconds
            others[self._identity] = StoredToken(fetched.value, end, fetched.lifetime_seconds)
        return StoredTokens(self._newest, others)

    def _warn_of_loss(self) -> None:
        if self._warned:
            return
        self._warned = True
        self._warn(
            "the server replaced the refresh token, and its successor is kept in memory alone: the "
            "next start, a second process and doctor cannot sign in; "
            "write store: /var/lib/keyrelay/NAME.json in token: to keep it"
        )

    def _explained(self, failure: TokenEndpointFailure) -> TokenError:
        """A refused refresh token does not become good by waiting."""
        if failure.status != 400 or failure.code not in _SPENT:
            return failure
        store = "" if self._store is not None else " and set store:, which keeps successors"
        advice = f"The refresh token is spent, expired or revoked: sign in anew{store}."
        return TokenEndpointFailure(
            failure.status,
            failure.code,
            failure.reason,
            details=failure.details,
            advice=advice if not failure.advice else f"{advice} {failure.advice}",
            pause_seconds=failure.pause_seconds,
            lasting=True,
        )


async def _to_its_end(work: Coroutine[Any, Any, FetchedToken]) -> FetchedToken:
    """Await ``work``; when cancelled, wait until it has ended all the same."""
    task = asyncio.ensure_future(work)  # noqa: TID251  awaited here, whatever happens
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None or task.cancelled():
        return task.result()
    task.exception()  # no caller is left that could handle it
    raise cancelled
