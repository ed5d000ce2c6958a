"""Refresh tokens in Redis, of which a server accepts each only once.

Two keyrelays that redeem one refresh token lose the whole grant, so this store fails rather than
guesses. A lock keeps them apart. Because its lease can end during a call, a holder first leaves a
mark that it spends the refresh token, which stays until the successor is kept: the mark decides
which keyrelay may write, and as long as it is there no other one spends anything. A holder that
cannot reach the server goes on trying to keep the successor. Only a mark that is older than any
call can be, and stays although the server can be reached, was left by a holder that died.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from proxy.auth.shared.entry import Entry
from proxy.auth.shared.server import RedisServer, ServerUnavailable
from proxy.auth.shared.source import (
    LEASE_SECONDS,
    SharedCounts,
    milliseconds,
    renew_lock,
    unavailable,
)
from proxy.auth.token import TokenError
from proxy.auth.token_store import StoredToken, StoredTokens
from proxy.clock import Clock

# How long a lock is waited for (seconds) beyond the longest call that its holder may make.
_LOCK_MARGIN = 20.0
# The next look of those that wait (seconds): random between these.
_LOOK_LEAST, _LOOK_MOST = 0.03, 0.08
# A mark of a holder that died (seconds): older than the longest call by this, and seen for so long
# by a keyrelay that reaches the server. A live holder, which tries each second, would have written.
_MARK_MARGIN = 5.0
# How long a request waits until a successor is kept (seconds), which goes on without it.
_KEEP_SECONDS = 5.0
_KEEP_AGAIN_SECONDS = 0.25
# Of a kept value, what distinguishes it from others: the time and the beginning of the nonce.
_STAMP_BYTES = 24
_NAME_BYTES = 32

_TOKENS, _LOCK, _SPENDING = "refresh", "lock", "spending"

# A script may run twice, as a connection can break before its reply: all of them bear that.
# KEYS: lock, mark. ARGV: the holder, the lease (ms), the name of this store's mark, that of a mark
# that does not count. A mark has its name and the time. Returns {1}, or {0, mark, its age (s)}.
_ACQUIRE = f"""
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return {{0, '', 0}}
end
local mark = redis.call('GET', KEYS[2])
if mark then
  local name = string.sub(mark, 1, {_NAME_BYTES})
  if name ~= ARGV[3] and name ~= ARGV[4] then
    return {{0, name, redis.call('TIME')[1] - string.sub(mark, {_NAME_BYTES + 2})}}
  end
  if name == ARGV[4] then
    redis.call('DEL', KEYS[2])
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {{1}}
"""
# KEYS: lock, mark. ARGV: the holder, the name of its mark, whether that is removed.
_LET_GO = f"""
if ARGV[3] == '1' then
  local mark = redis.call('GET', KEYS[2])
  if mark and string.sub(mark, 1, {_NAME_BYTES}) == ARGV[2] then
    redis.call('DEL', KEYS[2])
  end
end
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
return 1
"""
# KEYS: lock, mark. ARGV: the holder, the name of its mark.
_MARK = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[2] .. ':' .. redis.call('TIME')[1])
return 1
"""
# KEYS: tokens, mark. ARGV: the sealed tokens, the name of their mark. Without a mark they are kept
# if this call has kept them already, or if everything was lost.
_KEEP = f"""
local mark = redis.call('GET', KEYS[2])
local kept = redis.call('GET', KEYS[1])
if mark and string.sub(mark, 1, {_NAME_BYTES}) ~= ARGV[2] then
  return false
end
if not mark and kept then
  if string.sub(kept, -string.len(ARGV[1])) ~= ARGV[1] then
    return false
  end
  return kept
end
kept = redis.call('TIME')[1] .. ':' .. ARGV[1]
redis.call('SET', KEYS[1], kept)
redis.call('DEL', KEYS[2])
return kept
"""
# KEYS: tokens.
_READ = "return {redis.call('GET', KEYS[1]), redis.call('TIME')[1]}"
# KEYS: tokens, lock.
_LOOK = f"""
return {{string.sub(redis.call('GET', KEYS[1]) or '', 1, {_STAMP_BYTES}),
  redis.call('EXISTS', KEYS[2])}}
"""


class _VoidError(Exception):
    """What was to be kept is out of date."""


class RedisTokenStore:
    """A TokenStore in Redis.

    entry         of the configured refresh token: signing in anew begins another entry
    first         that refresh token
    call_seconds  how long a holder of the lock may take for its call
    spawn         starts a task that its owner cancels
    keep_seconds  how long a request waits until a successor is kept
    """

    def __init__(
        self,
        server: RedisServer,
        entry: Entry,
        first: bytes,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        *,
        call_seconds: float = 10.0,
        counts: SharedCounts | None = None,
        lease_seconds: float = LEASE_SECONDS,
        keep_seconds: float = _KEEP_SECONDS,
    ) -> None:
        self._server = server
        self._entry = entry
        self._first = first
        self._clock = clock
        self._spawn = spawn
        self._call_seconds = call_seconds
        self._counts = SharedCounts() if counts is None else counts
        self._lease_seconds = lease_seconds
        self._keep_seconds = keep_seconds
        # One task of this process at a time: a lease that ended would let in a second one.
        self._mutex = asyncio.Lock()
        self._holder = ""
        # The mark of the last exchange: a new one each time, so that no late write counts.
        self._mark = ""
        # Sealed tokens that came for a refresh token that is spent, and the mark of that, until
        # they are kept.
        self._unsaved: tuple[bytes, str] | None = None
        self._saving: asyncio.Task[None] | None = None
        self._seen = b""
        # Whether Redis had a successor of the configured refresh token, which is spent then.
        self._replaced = False

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        async with self._mutex:
            holder = secrets.token_hex(_NAME_BYTES // 2)
            try:
                await self._acquire(holder)
            except ServerUnavailable as trouble:
                raise unavailable(str(trouble)) from None
            renewal = asyncio.get_running_loop().create_task(
                renew_lock(self._server, self._key(_LOCK), holder, self._lease_seconds)
            )
            self._holder = holder
            try:
                # One that is void was kept late, or has been replaced: what is there counts.
                with suppress(_VoidError):
                    if not await self._saved():
                        raise unavailable(self._reason())
                yield
            finally:
                self._holder = ""
                renewal.cancel()
                await asyncio.gather(renewal, return_exceptions=True)
                await self._let_go(holder)

    async def read(self) -> StoredTokens:
        try:
            kept, now = await self._server.run(_READ, [self._key(_TOKENS)])
        except ServerUnavailable as trouble:
            raise unavailable(str(trouble)) from None
        if kept is None:
            return self._nothing()
        self._seen = kept[:_STAMP_BYTES]
        written, _, sealed = kept.partition(b":")
        document = self._entry.open(_TOKENS, sealed)
        if document is None:
            raise TokenError(
                "what Redis has for the refresh token cannot be opened",
                advice="It was written by another program: remove it, and sign in anew.",
                lasting=True,
                counts=(0, 0),
            )
        refresh_token = document["refresh_token"].encode("latin-1")
        self._replaced = self._replaced or refresh_token != self._first
        # By the server's clock, as those of keyrelays may differ.
        now_here = self._clock.wall() - (int(now) - int(written))
        access_tokens = {
            identity: StoredToken(
                one["token"].encode("latin-1"),
                now_here + one["seconds_left"],
                one["lifetime_seconds"],
            )
            for identity, one in document["access_tokens"].items()
        }
        return StoredTokens(refresh_token, access_tokens)

    def _nothing(self) -> StoredTokens:
        if self._replaced:
            raise TokenError(
                "Redis has lost the refresh token that replaced the configured one",
                advice="Restore the data of Redis, or sign in anew; Redis must not evict keys, and "
                "has to keep them over a restart.",
                lasting=True,
                counts=(0, 0),
            )
        self._seen = b""
        return StoredTokens()

    async def reserve(self) -> None:
        keys = [self._key(_LOCK), self._key(_SPENDING)]
        self._mark = secrets.token_hex(_NAME_BYTES // 2)
        try:
            held = await self._server.run(_MARK, keys, [self._holder, self._mark])
        except ServerUnavailable as trouble:
            raise unavailable(str(trouble)) from None
        if not held:
            # Nothing is spent yet.
            raise unavailable("the lock of the refresh token ended too soon")

    async def write(self, tokens: StoredTokens) -> None:
        assert tokens.refresh_token is not None, "a store keeps a refresh token"
        now = self._clock.wall()
        document = {
            "refresh_token": tokens.refresh_token.decode("latin-1"),
            "access_tokens": {
                identity: {
                    "token": one.value.decode("latin-1"),
                    "seconds_left": one.expires_at - now,
                    "lifetime_seconds": one.lifetime_seconds,
                }
                for identity, one in tokens.access_tokens.items()
            },
        }
        self._unsaved = (self._entry.seal(_TOKENS, document), self._mark)
        self._replaced = self._replaced or tokens.refresh_token != self._first
        try:
            async with asyncio.timeout(self._keep_seconds):
                while not await self._saved():
                    await self._server.available(_KEEP_AGAIN_SECONDS)
                    await asyncio.sleep(_LOOK_LEAST)
                return
        except _VoidError:
            raise unavailable("another keyrelay has replaced the refresh token") from None
        except TimeoutError:
            pass  # it is kept in the background
        if self._saving is None or self._saving.done():
            self._saving = self._spawn(self._save())
        raise unavailable(self._reason())

    async def changed(self) -> bool:
        try:
            stamp, locks = await self._server.run(_LOOK, [self._key(_TOKENS), self._key(_LOCK)])
        except ServerUnavailable:
            return False
        return bool(locks) or stamp != self._seen

    # -- internal ------------------------------------------------------------------------------

    def _key(self, part: str) -> str:
        return self._entry.name(part)

    def _reason(self) -> str:
        trouble = self._server.trouble
        return "Redis cannot be reached" if trouble is None else trouble.reason

    async def _acquire(self, holder: str) -> None:
        """Wait for the lock. Raises TokenError, ServerUnavailable."""
        keys = [self._key(_LOCK), self._key(_SPENDING)]
        lease = milliseconds(self._lease_seconds)
        give_up_at = self._clock.monotonic() + self._call_seconds + _LOCK_MARGIN
        # The mark of another keyrelay, and since when it has been seen; one that does not count.
        mark, since, void = b"", 0.0, b""
        while True:
            taken, *found = await self._server.run(
                _ACQUIRE, keys, [holder, lease, self._mark, void]
            )
            if taken:
                return
            name, age = found
            now = self._clock.monotonic()
            if name != mark:
                mark, since = name, now
            elif mark and age > self._call_seconds + _MARK_MARGIN and now - since > _MARK_MARGIN:
                void = mark
            if now > give_up_at:
                raise unavailable("another keyrelay holds the lock of the refresh token")
            await asyncio.sleep(random.uniform(_LOOK_LEAST, _LOOK_MOST))  # noqa: S311  no secret

    async def _let_go(self, holder: str) -> None:
        keys = [self._key(_LOCK), self._key(_SPENDING)]
        # The mark stays until the successor is kept.
        done = "1" if self._unsaved is None else "0"
        with suppress(ServerUnavailable):  # the lease ends
            await self._server.run(_LET_GO, keys, [holder, self._mark, done])

    async def _saved(self) -> bool:
        """Keep what is not kept yet. Whether nothing is left. Raises _VoidError."""
        if (unsaved := self._unsaved) is None:
            return True
        keys = [self._key(_TOKENS), self._key(_SPENDING)]
        try:
            kept = await self._server.run(_KEEP, keys, unsaved)
        except ServerUnavailable:
            return False
        if self._unsaved is not unsaved:
            return self._unsaved is None  # another task has kept it
        self._unsaved = None
        if kept is None:
            raise _VoidError
        self._seen = kept[:_STAMP_BYTES]
        self._counts.put += 1
        return True

    async def close(self) -> bool:
        """Try once more to keep what is not kept yet. Whether nothing is lost."""
        try:
            return await self._saved()
        except _VoidError:
            return True

    async def _save(self) -> None:
        """Go on trying to keep a successor, after the request that caused it has failed."""
        while True:
            try:
                if await self._saved():
                    return
            except _VoidError:
                return
            await self._server.available(_KEEP_AGAIN_SECONDS)
            await asyncio.sleep(_KEEP_AGAIN_SECONDS)
