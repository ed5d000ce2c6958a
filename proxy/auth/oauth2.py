"""Tokens of OAuth 2.0 servers: client credentials and refresh tokens (RFC 6749)."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode

from .endpoint import Ask, Call, Fields, read_token
from .tokens import Minted, MintFailed

_EXPIRY = ("expires_in", "expires_at")
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


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
    whole family. So processes that share a store take turns, each reading what the last has left.
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
        self._first = first
        self._newest = first
        self._store = store
        self._turn: asyncio.Future[Minted] | None = None

    async def mint(self) -> Minted:
        if self._store is None:
            return await self._exchange()
        # Once sent, the answer must be kept, whoever goes away meanwhile: the old refresh token may
        # be worth nothing then.
        self._turn = asyncio.ensure_future(self._take_turn(self._store))  # noqa: TID251  kept here
        return await asyncio.shield(self._turn)

    async def _take_turn(self, store: Path) -> Minted:
        try:
            lock = await asyncio.to_thread(_locked, store)
        except OSError as error:
            raise MintFailed(f"the store cannot be used: {error.strerror}") from None
        try:
            self._newest = _stored(store, self._first)
            return await self._exchange()
        finally:
            os.close(lock)

    async def _exchange(self) -> Minted:
        answer, now = await self._ask(self._make(self._newest))
        minted = read_token(answer, self._fields, now)
        newer = answer.get("refresh_token")
        if isinstance(newer, str) and newer.isascii() and newer.encode() != self._newest:
            self._newest = newer.encode("ascii")
            if self._store is not None:
                _keep(self._store, self._first, self._newest)
        return minted


def _locked(store: Path) -> int:
    """A descriptor that holds the lock until it is closed. Blocks. Raises OSError."""
    descriptor = os.open(f"{store}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _stored(store: Path, first: bytes) -> bytes:
    """The newest refresh token that came from ``first``, or ``first`` itself.

    A store that began with another refresh token is out of date: somebody has signed in anew.
    """
    try:
        document: Any = json.loads(store.read_text("ascii"))
    except FileNotFoundError:
        return first
    except (OSError, ValueError) as error:
        raise MintFailed(f"the store cannot be read ({type(error).__name__})") from None
    if not isinstance(document, dict) or document.get("began") != _began(first):
        return first
    return str(document["refresh_token"]).encode("ascii")


def _keep(store: Path, first: bytes, newest: bytes) -> None:
    text = json.dumps({"began": _began(first), "refresh_token": newest.decode("ascii")})
    new = Path(f"{store}.new")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(store)
    except OSError as error:
        raise MintFailed(f"the store cannot be written: {error.strerror}") from None


def _began(first: bytes) -> str:
    return hashlib.sha256(b"keyrelay refresh token\0" + first).hexdigest()
