"""The file in which the newest refresh token is kept, shared by processes."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from proxy.auth.token_cache import FetchedToken, TokenError
from proxy.auth.tokens.client import Ask, TokenRequest
from proxy.auth.tokens.response import TokenFields, read_token

# Another process holds the lock for one call at most; whoever holds it longer is stuck (seconds).
_LOCK_SECONDS = 30.0
_LOCK_AGAIN_SECONDS = 0.02


class RefreshTokenStore:
    """One refresh token in a file of mode 0600, beside it a lock. Its directory is the user's own.

    first  the refresh token of the configuration, from which the kept one must descend

    All methods raise TokenError.
    """

    def __init__(self, path: Path, first: bytes) -> None:
        self._path = path
        self._first = first
        self._began = hashlib.sha256(b"keyrelay refresh token\0" + first).hexdigest()

    async def lock(self) -> int:
        """A descriptor that holds the lock until it is closed. Cancelling is safe.

        Asks again and again, because a thread that blocks in ``flock`` cannot be called back.
        """
        try:
            descriptor = os.open(
                f"{self._path}.lock",
                os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
                0o600,
            )
        except OSError as error:
            raise TokenError(f"the store cannot be used: {error.strerror}") from None
        with ExitStack() as undo:
            undo.callback(os.close, descriptor)
            try:
                async with asyncio.timeout(_LOCK_SECONDS):
                    while not _locked(descriptor):  # noqa: ASYNC110  other processes set no event
                        await asyncio.sleep(_LOCK_AGAIN_SECONDS)
            except TimeoutError:
                raise TokenError("another process holds the lock of the store") from None
            except OSError as error:
                raise TokenError(f"the store cannot be locked: {error.strerror}") from None
            undo.pop_all()
        return descriptor

    def read(self) -> bytes:
        """The newest refresh token that came from ``first``, or ``first`` itself.

        A store that began with another refresh token is out of date: somebody has signed in anew.
        """
        try:
            document: Any = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return self._first
        except (OSError, ValueError) as error:
            raise TokenError(f"the store cannot be read ({type(error).__name__})") from None
        if not isinstance(document, dict) or document.get("began") != self._began:
            return self._first
        kept = document.get("refresh_token")
        if not isinstance(kept, str) or not kept.isascii():
            raise TokenError("the store holds no refresh token")
        return kept.encode("ascii")

    def write(self, newest: bytes) -> None:
        """Replace what is kept, in one step and durably."""
        text = json.dumps({"began": self._began, "refresh_token": newest.decode("ascii")})
        new = Path(f"{self._path}.new")
        try:
            # Nothing that lies there already decides who may read it.
            new.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            with open(os.open(new, flags, 0o600), "wb") as file:  # noqa: PTH123  a descriptor
                file.write(text.encode("ascii"))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise TokenError(f"the store cannot be written: {error.strerror}") from None


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# RFC 6749 appendix A.17.
_REFRESH_TOKEN = re.compile(r"[\x20-\x7e]+")


class RefreshTokenSource:
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
        make: Callable[[bytes], TokenRequest],
        fields: TokenFields,
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

    async def token_source(self) -> FetchedToken:
        if self._store is None:
            return await _to_its_end(self._exchange(None))
        lock = await self._store.lock()
        try:
            return await _to_its_end(self._exchange(self._store))
        finally:
            os.close(lock)

    async def _exchange(self, store: RefreshTokenStore | None) -> FetchedToken:
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
    task.exception()  # nobody is there to hear of it
    raise cancelled
