"""Tokens of OAuth 2.0 servers: client credentials and refresh tokens (RFC 6749)."""

from __future__ import annotations

import asyncio
import base64
import os
import re
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode

from .endpoint import Ask, Call, Fields, read_token
from .keeping import RefreshTokenStore
from .tokens import Minted

_EXPIRY = ("expires_in", "expires_at")
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
# RFC 6749 appendix A.17.
_REFRESH_TOKEN = re.compile(r"[\x20-\x7e]+")


def oauth2_fields(lifetime_seconds: float) -> Fields:
    """Where an OAuth 2.0 answer has what matters (RFC 6749 section 5.1)."""
    return Fields("access_token", _EXPIRY, lifetime_seconds)


def oauth2_call(
    url: str,
    form: Mapping[str, bytes | None],
    *,
    client_auth: str,
    client_id: bytes,
    client_secret: bytes | None,
) -> Call:
    """A request to a token endpoint. ``form`` without the client's credentials; None is left out.

    Basic authorization carries id and secret form-encoded, which RFC 6749 section 2.3.1 wants and
    many forget: a secret with a ``%`` or ``:`` would arrive as another one.
    """
    headers = dict(_FORM)
    fields = {name: value for name, value in form.items() if value is not None}
    if client_auth == "basic" and client_secret is not None:
        pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode("ascii")
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode('ascii')}"
    else:
        fields["client_id"] = client_id
        if client_secret is not None:
            fields["client_secret"] = client_secret
    return Call("POST", url, headers, urlencode(fields).encode("ascii"))


class CallMint:
    """The same call each time: client credentials, or whatever else needs nothing new."""

    def __init__(self, ask: Ask, make: Callable[[], Call], fields: Fields) -> None:
        self._ask = ask
        self._make = make
        self._fields = fields

    async def mint(self) -> Minted:
        answer, now = await self._ask(self._make())
        return read_token(answer, self._fields, now)


class RefreshTokenMint:
    """Access tokens for a refresh token, which the server may replace with each answer.

    make    the call for a refresh token
    first   the refresh token of the configuration
    store   where the newest one is kept; None: in memory only

    A server that replaces refresh tokens refuses the old one and, seeing it again, may refuse the
    whole family. So processes that share a store take turns, each reading what the last has left,
    and what has begun is brought to its end: cancelling waits for that, ten seconds at most.
    """

    def __init__(
        self,
        ask: Ask,
        make: Callable[[bytes], Call],
        fields: Fields,
        *,
        first: bytes,
        store: Path | None,
    ) -> None:
        self._ask = ask
        self._make = make
        self._fields = fields
        self._newest = first
        # What the store had when a newer one came: spent, should writing that have failed.
        self._outdated: bytes | None = None
        self._store = None if store is None else RefreshTokenStore(store, first)

    async def mint(self) -> Minted:
        if self._store is None:
            return await _to_its_end(self._exchange(None))
        lock = await self._store.lock()
        try:
            return await _to_its_end(self._exchange(self._store))
        finally:
            os.close(lock)

    async def _exchange(self, store: RefreshTokenStore | None) -> Minted:
        kept = self._newest if store is None else await asyncio.to_thread(store.read)
        if kept != self._outdated:
            self._newest = kept
        answer, now = await self._ask(self._make(self._newest))
        newer = answer.get("refresh_token") if isinstance(answer, dict) else None
        if isinstance(newer, str) and _REFRESH_TOKEN.fullmatch(newer):
            self._newest = newer.encode()
        if store is not None and self._newest != kept:
            self._outdated = kept
            await asyncio.to_thread(store.write, self._newest)
        # Last: the refresh token counts even if the access token beside it cannot be used.
        return read_token(answer, self._fields, now)


async def _to_its_end(work: Coroutine[Any, Any, Minted]) -> Minted:
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
    task.exception()  # nobody is there to hear of it
    raise cancelled
