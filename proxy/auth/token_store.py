"""Tokens that processes share: what a store has to do, and the store that is a file.

One process at a time holds a store's lock. It reads what is kept, and only if that is of no use it
asks the token endpoint, writes what came, and lets go. So a refresh token is spent once, and its
successor is kept before the access token beside it is used.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from proxy.auth.token import TokenError
from proxy.secrets import private_file

# How long a lock is waited for (seconds) beyond the longest call that its holder may make.
_LOCK_MARGIN = 20.0
_LOCK_AGAIN_SECONDS = 0.02
# Space that is set aside before a token endpoint is asked (bytes): more than any successor takes.
_RESERVED = 64 * 1024


@dataclass(frozen=True, slots=True, repr=False)
class StoredToken:
    """An access token. Holds secret bytes: never printed.

    expires_at        seconds since the epoch
    lifetime_seconds  with which it was issued; 0 if that is not known
    """

    value: bytes
    expires_at: float
    lifetime_seconds: float = 0.0


@dataclass(frozen=True, slots=True, repr=False)
class StoredTokens:
    """What a store keeps. Holds secret bytes: never printed.

    refresh_token  the newest one; None if the one of the configuration is
    access_tokens  by the identity of the settings that they were obtained with: two strategies may
                   use one refresh token with different scopes
    """

    refresh_token: bytes | None = None
    access_tokens: Mapping[str, StoredToken] = field(default_factory=dict)


class TokenStore(Protocol):
    """Keeps tokens for all processes that use the same one. Every method raises TokenError."""

    def lock(self) -> AbstractAsyncContextManager[None]:
        """Exclusive use, of this process and of this task. Waiting for it can be cancelled."""

    async def read(self) -> StoredTokens:
        """What is kept."""

    async def reserve(self) -> None:
        """Make sure that a ``write`` will succeed. Under the lock, before a token is spent."""

    async def write(self, tokens: StoredTokens) -> None:
        """Replace what is kept, in one step and durably. Under the lock."""

    async def changed(self) -> bool:
        """Whether something else is kept than was read or written last, or soon will be.

        For requests that cannot be sent again: cheap, without the lock, and never raises.
        """


class FileTokenStore:
    """A TokenStore: a file of mode 0600, and beside it a lock. Its directory is the user's own.

    path           the file
    first          the refresh token of the configuration, from which the kept one must descend: a
                   store that began with another one is out of date, since its user signed in anew
    call_seconds   how long a holder of the lock may take for its call
    """

    def __init__(self, path: Path, first: bytes, *, call_seconds: float = 10.0) -> None:
        self._path = path
        self._lock_path = Path(f"{path}.lock")
        self._new_path = Path(f"{path}.new")
        self._began = hashlib.sha256(b"keyrelay refresh token\0" + first).hexdigest()
        self._lock_seconds = call_seconds + _LOCK_MARGIN
        self._reserved = False
        self._seen: tuple[int, int] | None = None

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """Tries again and again, because a thread that blocks in ``flock`` cannot be cancelled."""
        try:
            descriptor = self._open_lock()
        except OSError as error:
            raise TokenError(f"the store cannot be used: {error.strerror}") from None
        try:
            try:
                async with asyncio.timeout(self._lock_seconds):
                    while not _locked(descriptor):  # noqa: ASYNC110  other processes set no event
                        await asyncio.sleep(_LOCK_AGAIN_SECONDS)
            except TimeoutError:
                raise TokenError("another process holds the lock of the store") from None
            except OSError as error:
                raise TokenError(f"the store cannot be locked: {error.strerror}") from None
            yield
        finally:
            os.close(descriptor)

    async def read(self) -> StoredTokens:
        return await asyncio.to_thread(self._read)

    async def reserve(self) -> None:
        await asyncio.to_thread(self._reserve)

    async def write(self, tokens: StoredTokens) -> None:
        await asyncio.to_thread(self._write, tokens)

    async def changed(self) -> bool:
        try:
            descriptor = self._open_lock()
            try:
                if not _locked(descriptor, shared=True):
                    return True
                return self._stamp() != self._seen
            finally:
                os.close(descriptor)
        except OSError:
            # The stored state is unreadable; the next use of the store reports why.
            return False

    def _open_lock(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._lock_path, flags, 0o600)

    def _stamp(self) -> tuple[int, int] | None:
        """Distinguishes two contents of the file; None if there is no file."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    def _read(self) -> StoredTokens:
        try:
            self._seen = self._stamp()
            document: Any = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return StoredTokens()
        except (OSError, ValueError) as error:
            raise TokenError(f"the store cannot be read ({type(error).__name__})") from None
        if not isinstance(document, dict) or document.get("began") != self._began:
            return StoredTokens()
        kept = document.get("refresh_token")
        if not isinstance(kept, str) or not kept.isascii():
            raise TokenError("the store holds no refresh token")
        return StoredTokens(kept.encode("ascii"), _access_tokens(document.get("access_tokens")))

    def _reserve(self) -> None:
        try:
            private_file.reserve(self._new_path, _RESERVED)
        except OSError as error:
            raise TokenError(f"the store cannot be written: {error.strerror}") from None
        self._reserved = True

    def _write(self, tokens: StoredTokens) -> None:
        assert tokens.refresh_token is not None, "a file keeps a refresh token"
        document = {
            "began": self._began,
            "refresh_token": tokens.refresh_token.decode("ascii"),
            "access_tokens": {
                identity: {
                    "token": one.value.decode("ascii"),
                    "expires_at": one.expires_at,
                    "lifetime_seconds": one.lifetime_seconds,
                }
                for identity, one in tokens.access_tokens.items()
            },
        }
        content = json.dumps(document).encode("ascii")
        try:
            if not self._reserved:
                self._reserve()
            self._reserved = False
            private_file.replace_by_reserved(self._path, self._new_path, content)
            self._seen = self._stamp()
        except OSError as error:
            raise TokenError(f"the store cannot be written: {error.strerror}") from None


def _access_tokens(document: Any) -> dict[str, StoredToken]:
    """Those that can be read; a file of an older keyrelay has none."""
    found = {}
    for identity, one in document.items() if isinstance(document, dict) else ():
        if not isinstance(one, dict):
            continue
        token, end = one.get("token"), one.get("expires_at")
        if isinstance(token, str) and token.isascii() and isinstance(end, int | float):
            lifetime = one.get("lifetime_seconds")
            whole = float(lifetime) if isinstance(lifetime, int | float) else 0.0
            found[identity] = StoredToken(token.encode("ascii"), float(end), whole)
    return found


def _locked(descriptor: int, *, shared: bool = False) -> bool:
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
