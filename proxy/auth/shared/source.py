"""Tokens that any number of keyrelays use, each of which can obtain the next one.

The first that needs a token holds a lock while it obtains one; the others look again until the
token is there, or until the lock has ended, which a holder that died no longer renews. A token that
the provider has rejected is removed for all. A failure is shared as well, so that a token endpoint
in trouble gets the calls of one keyrelay and not of all.
"""

from __future__ import annotations

import asyncio
import math
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from proxy import backoff
from proxy.auth.shared.entry import SERIAL_BYTES, Entry
from proxy.auth.shared.server import RedisServer, ServerUnavailable
from proxy.auth.token import FetchedToken, TokenError, TokenSource, renewal_seconds
from proxy.clock import Clock

LEASE_SECONDS = 3.0
"""Life of a lock that its holder does not renew: how long the others wait for one that died."""

# The next look of those that wait for a holder (seconds): random between these.
_LOOK_LEAST, _LOOK_MOST = 0.03, 0.08
# No holder is waited for longer than this (seconds), although it renews its lock.
_WAIT_MOST = 60.0
# A token with less left (seconds) is not taken over.
_LEAST_SECONDS = 1.0
# Pauses after failures that all observe (seconds), and the memory of how many there were.
_PAUSE_FIRST, _PAUSE_MOST = 1.0, 10.0
_PROBE_FIRST, _PROBE_MOST = 5.0, 60.0
_REMEMBERED_SECONDS = 60.0

_TOKEN, _LOCK, _FAILURE = "token", "lock", "failure"

# A script may run twice, as a connection can break before its reply: all of them bear that.
# KEYS: token, lock, failure. ARGV: the serial of the token in use, that of a rejected one, the
# caller's name, the lease (ms), for how long failures are remembered (ms).
_TAKE = f"""
local token = redis.call('GET', KEYS[1])
if token and string.sub(token, 1, {SERIAL_BYTES}) == ARGV[2] then
  redis.call('DEL', KEYS[1])
  token = false
end
if token and string.sub(token, 1, {SERIAL_BYTES}) ~= ARGV[1] then
  return {{'token', token, redis.call('PTTL', KEYS[1])}}
end
local failure = redis.call('GET', KEYS[3])
if failure then
  local left = redis.call('PTTL', KEYS[3]) - tonumber(ARGV[5])
  if left > 0 then
    return {{'failure', failure, left}}
  end
end
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[3] then
  return {{'wait'}}
end
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
return {{'locked', failure or ''}}
"""
# KEYS: what is set, lock, what is deleted. ARGV: value, its life (ms), the holder's name.
_PUT = """
local holder = redis.call('GET', KEYS[2])
if holder and holder ~= ARGV[3] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2], KEYS[3])
return 1
"""
# KEYS: what is set, lock. ARGV: as above. Only if the lock is held.
_PUT_HELD = """
if redis.call('GET', KEYS[2]) ~= ARGV[3] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
return 1
"""
RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
"""
"""Renews the lock ``KEYS[1]`` if ``ARGV[1]`` holds it, for ``ARGV[2]`` milliseconds."""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""


@dataclass(slots=True)
class SharedCounts:
    """Counts of tokens: taken from Redis, put there, obtained without it as it was unavailable."""

    taken: int = 0
    put: int = 0
    alone: int = 0


@dataclass(frozen=True, slots=True, repr=False)
class _Taken:
    """Another keyrelay's token with its serial, and whether it is due for renewal."""

    token: FetchedToken
    serial: bytes
    late: bool


async def renew_lock(server: RedisServer, lock: str, holder: str, lease_seconds: float) -> None:
    """Renew a lock until cancelled."""
    while True:
        await asyncio.sleep(lease_seconds / 3)
        try:
            await server.run(RENEW, [lock], [holder, milliseconds(lease_seconds)])
        except ServerUnavailable:
            continue  # the lease may end: what follows checks the holder


class RedisTokenSource:
    """Takes a token over from another keyrelay, or obtains one for all from ``source``.

    alone          whether to obtain a token for this keyrelay while the server is unavailable
    lease_seconds  see ``LEASE_SECONDS``
    """

    def __init__(
        self,
        server: RedisServer,
        entry: Entry,
        source: TokenSource,
        clock: Clock,
        *,
        alone: bool,
        counts: SharedCounts | None = None,
        lease_seconds: float = LEASE_SECONDS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._server = server
        self._entry = entry
        self._source = source
        self._clock = clock
        self._alone_allowed = alone
        self._counts = SharedCounts() if counts is None else counts
        self._lease_seconds = lease_seconds
        self._jitter = jitter
        # Of the token in use: its serial, b"" for one that is not shared, and its end (monotonic).
        self._serial = b""
        self._ends_at = -math.inf
        # The serial of the last token that was rejected.
        self._rejected = b""

    async def fetch(self) -> FetchedToken:
        """Return a token that is not the last one. Raises TokenError. Cancelling ends a lock."""
        holder = secrets.token_hex(16)
        known = self._serial
        give_up_at = self._clock.monotonic() + _WAIT_MOST
        # A token that is due for renewal, for want of a better one.
        late: _Taken | None = None
        try:
            while True:
                kind, *reply = await self._take(holder, known)
                if kind == b"token":
                    found = self._opened(*reply)
                    if found is not None and not found.late:
                        return self._take_over(found)
                    late, known = found, reply[0][:SERIAL_BYTES]
                    continue
                if kind == b"locked":
                    break
                if late is not None:
                    return self._take_over(late)
                if kind == b"failure":
                    raise self._shared_failure(*reply)
                if self._clock.monotonic() > give_up_at:
                    return await self._fetch_alone("another keyrelay does not obtain one in time")
                await asyncio.sleep(_LOOK_LEAST + (_LOOK_MOST - _LOOK_LEAST) * self._jitter())
        except ServerUnavailable as trouble:
            return await self._fetch_alone(str(trouble))
        try:
            return await self._fetch_for_all(holder, self._failures(reply[0]))
        except TokenError as failure:
            if late is None:
                raise
            return replace(self._take_over(late), counts=failure.counts)

    # -- taking over ---------------------------------------------------------------------------

    async def _take(self, holder: str, known: bytes) -> list[Any]:
        keys = [self._entry.name(one) for one in (_TOKEN, _LOCK, _FAILURE)]
        lease, memory = map(milliseconds, (self._lease_seconds, _REMEMBERED_SECONDS))
        found: list[Any] = await self._server.run(
            _TAKE, keys, [known, self._rejected, holder, lease, memory]
        )
        return found

    def _opened(self, sealed: bytes, left_milliseconds: int) -> _Taken | None:
        """Return another keyrelay's token, None if it is of no use."""
        document, left = self._entry.open(_TOKEN, sealed), left_milliseconds / 1000
        if document is None or left < _LEAST_SECONDS:
            return None
        if left + _LEAST_SECONDS < self._ends_at - self._clock.monotonic():
            return None  # older than the one in use, which is to be replaced
        lifetime: float = document["lifetime_seconds"]
        renew: float | None = document["renew_seconds"]
        due = renewal_seconds(lifetime) if renew is None else lifetime - renew
        token = FetchedToken(
            document["token"].encode("latin-1"),
            left,
            renew_seconds=None if renew is None else max(left - due, 0.0),
            counts=(0, 0),
            remarks=tuple(document["remarks"]),
            notes=tuple(document["notes"]),
            whole_seconds=lifetime,
        )
        return _Taken(token, sealed[:SERIAL_BYTES], late=left < due)

    def _take_over(self, taken: _Taken) -> FetchedToken:
        self._counts.taken += 1
        return self._in_use(taken.token, taken.serial)

    def _in_use(self, token: FetchedToken, serial: bytes) -> FetchedToken:
        self._serial = serial
        self._ends_at = self._clock.monotonic() + token.lifetime_seconds
        rejected = token.refused

        def note_rejected(served: bool) -> None:
            rejected(served)
            self._ends_at = -math.inf
            if serial:
                self._rejected = serial

        return replace(token, refused=note_rejected)

    def _failures(self, sealed: bytes) -> int:
        """Return how many failures in a row are remembered."""
        document = self._entry.open(_FAILURE, sealed)
        return 0 if document is None else int(document["count"])

    def _shared_failure(self, sealed: bytes, left: int) -> TokenError:
        """Return another keyrelay's failure, which has been reported and counted there."""
        document = self._entry.open(_FAILURE, sealed)
        if document is None:
            document = {"reason": "another keyrelay could not obtain one"}
        return TokenError(
            document["reason"],
            details=document.get("details", ""),
            advice=document.get("advice", ""),
            invalid_response=document.get("invalid_response", False),
            pause_seconds=left / 1000,
            lasting=document.get("lasting", False),
            probes=document.get("probes", False),
            counts=(0, 0),
        )

    # -- obtaining -----------------------------------------------------------------------------

    async def _fetch_alone(self, reason: str) -> FetchedToken:
        if not self._alone_allowed:
            raise unavailable(reason)
        fetched = await self._source.fetch()
        self._counts.alone += 1
        return self._in_use(fetched, b"")

    async def _fetch_for_all(self, holder: str, failures: int) -> FetchedToken:
        lock = self._entry.name(_LOCK)
        renewal = asyncio.get_running_loop().create_task(
            renew_lock(self._server, lock, holder, self._lease_seconds)
        )
        try:
            fetched = await self._source.fetch()
        except TokenError as failure:
            await self._put_failure(holder, failure, failures + 1)
            raise
        except BaseException:
            await self._put(_RELEASE, [lock], [holder])
            raise
        finally:
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)
        return self._in_use(fetched, await self._put_token(holder, fetched))

    async def _put_token(self, holder: str, token: FetchedToken) -> bytes:
        """Return the serial, b"" if the token is for this keyrelay alone."""
        lifetime = token.lifetime_seconds
        if lifetime < _LEAST_SECONDS:
            await self._put(_RELEASE, [self._entry.name(_LOCK)], [holder])
            return b""
        document = {
            "token": token.value.decode("latin-1"),
            "lifetime_seconds": lifetime,
            "renew_seconds": token.renew_seconds,
            "remarks": token.remarks,
            "notes": token.notes,
        }
        sealed = self._entry.seal(_TOKEN, document)
        names = [self._entry.name(one) for one in (_TOKEN, _LOCK, _FAILURE)]
        if not await self._put(_PUT, names, [sealed, milliseconds(lifetime), holder]):
            return b""
        self._counts.put += 1
        return sealed[:SERIAL_BYTES]

    async def _put_failure(self, holder: str, failure: TokenError, count: int) -> None:
        """Have all keyrelays pause, and longer after each failure in a row."""
        bound = backoff.bound(count - 1, first=_PAUSE_FIRST, most=_PAUSE_MOST)
        pause = max(failure.pause_seconds, bound * (1 + self._jitter()) / 2)
        if failure.probes:
            # The cause may have been repaired.
            pause = min(pause, backoff.bound(count - 1, first=_PROBE_FIRST, most=_PROBE_MOST))
        document = {
            "count": count,
            "reason": failure.reason,
            "details": failure.details,
            "advice": failure.advice,
            "invalid_response": failure.invalid_response,
            "lasting": failure.lasting,
            "probes": failure.probes,
        }
        # What a holder that lost its lock has to report is out of date.
        names = [self._entry.name(one) for one in (_FAILURE, _LOCK)]
        life = milliseconds(pause + _REMEMBERED_SECONDS)
        await self._put(_PUT_HELD, names, [self._entry.seal(_FAILURE, document), life, holder])

    async def _put(self, script: str, names: list[str], arguments: list[Any]) -> int:
        """Run a script that ends the lock. 0 if the server is unavailable: the lease ends it."""
        try:
            return int(await self._server.run(script, names, arguments))
        except ServerUnavailable:
            return 0


def unavailable(reason: str) -> TokenError:
    """Return the error while tokens cannot be shared; it is spaced by the server's checks."""
    return TokenError(
        f"tokens are shared through Redis: {reason or 'keyrelay ends'}",
        pause_seconds=1.0,
        spaced=True,
        counts=(0, 0),
    )


def milliseconds(seconds: float) -> int:
    """Return a time as Redis takes it."""
    return math.ceil(seconds * 1000)
