"""One token for several processes: the supervisor caches it, its workers request it.

A token is identified by the inputs it is made from, so a process whose configuration differs for a
moment can never receive a token for another upstream. Nothing here is logged; the channel connects
only processes of one keyrelay.
"""

from __future__ import annotations

import asyncio
import base64
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from proxy.auth.token import FetchedToken, Token, TokenError, TokenSource
from proxy.auth.token_cache import TokenCache
from proxy.clock import Clock
from proxy.errors import KeyrelayError, Refusal

# A token of a removed route is kept this long (seconds) for requests that began before.
_FORGET_SECONDS = 600.0
# Retry delay of a token request that failed within keyrelay (seconds).
_AGAIN_SECONDS = 1.0

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
Call = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Sends a request to the supervisor and returns its reply. Raises KeyrelayError."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Shared:
    """A token as it is shared. Holds secret bytes: never printed.

    serial         distinguishes it from its predecessors and successors
    seconds_left   remaining time of use
    renew_seconds  time until the next token is available
    revocable      whether it may be replaced, and then refused, at any time
    counts         as of ``FetchedToken``: calls made since the last report of the counts
    """

    serial: int
    value: bytes
    seconds_left: float
    renew_seconds: float
    counts: tuple[int, int] = (0, 0)
    revocable: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A token that the provider refused: its serial, and whether it had served before."""

    serial: int
    served: bool


class Ask(Protocol):
    """Asks for the token of an identity. Raises TokenError.

    refused  the last one that was refused
    certain  as of ``TokenCache.obtain``
    """

    async def __call__(
        self, identity: str, refused: Refused | None, *, certain: bool = False
    ) -> Shared: ...


class SharedTokenSource:
    """Requests a token from a cache in another process, or in another part of this one."""

    def __init__(self, ask: Ask, identity: str) -> None:
        self._ask = ask
        self._identity = identity
        self._refused: Refused | None = None

    async def fetch(self) -> FetchedToken:
        while True:
            known = self._refused
            shared = await self._ask(self._identity, known)
            # A provider may have refused the token while the reply was in transit.
            if known is self._refused or self._refused is None:
                break
            if shared.serial != self._refused.serial:
                break
        serial = shared.serial
        return FetchedToken(
            shared.value,
            shared.seconds_left,
            renew_seconds=shared.renew_seconds,
            refused=lambda served: self._note(serial, served=served),
            superseded=(lambda: self._superseded(serial)) if shared.revocable else None,
            counts=shared.counts,
        )

    async def _superseded(self, serial: int) -> bool:
        try:
            shared = await self._ask(self._identity, None, certain=True)
        except TokenError:
            return False
        return shared.serial != serial

    def _note(self, serial: int, *, served: bool) -> None:
        self._refused = Refused(serial, served)


def remote(call: Call) -> Ask:
    """Return an ``Ask`` that sends its requests to the supervisor."""

    async def ask(identity: str, refused: Refused | None, *, certain: bool = False) -> Shared:
        question = {
            "identity": identity,
            "refused": None if refused is None else refused.serial,
            "served": refused is not None and refused.served,
            "certain": certain,
        }
        try:
            answer = await call(question)
        except KeyrelayError:
            raise _failure("keyrelay's own processes do not reach each other") from None
        answer["counts"] = tuple(answer["counts"])
        if "reason" in answer:
            raise TokenError(**answer)
        return Shared(**{**answer, "value": base64.b64decode(answer["value"])})

    return ask


@dataclass(slots=True, eq=False)
class _Entry:
    """A shared token. ``owner`` is the supervisor's own source while its route exists."""

    cache: TokenCache
    owner: weakref.ref[SharedTokenSource]
    asked_at: float
    serial: int = 0
    token: Token | None = field(default=None, repr=False)
    reported: tuple[int, int] = (0, 0)

    def unreported(self) -> tuple[int, int]:
        """Return the cache's counts since the last call, and mark them as reported."""
        before, self.reported = self.reported, (self.cache.fetches, self.cache.failures)
        return self.reported[0] - before[0], self.reported[1] - before[1]


class TokenBroker:
    """The tokens of a supervisor, each in one ``TokenCache``.

    spawn  starts a task that the caller owns and ends
    """

    def __init__(self, clock: Clock, spawn: Spawn) -> None:
        self._clock = clock
        self._spawn = spawn
        self._entries: dict[str, _Entry] = {}

    def share(
        self,
        identity: str,
        source: TokenSource,
        warn: Callable[[str], object] = lambda _line: None,
    ) -> TokenSource:
        """Return a source for the supervisor's own strategy.

        ``source`` fetches the tokens of an identity that has no cache yet.
        """
        shared = SharedTokenSource(self.ask, identity)
        owner, now = weakref.ref(shared), self._clock.monotonic()
        if (entry := self._entries.get(identity)) is None:
            cache = TokenCache(source, self._clock, self._spawn, warn=warn, trouble=warn)
            self._entries[identity] = _Entry(cache, owner, now)
        else:
            entry.owner, entry.asked_at = owner, now
        return shared

    async def ask(
        self, identity: str, refused: Refused | None = None, *, certain: bool = False
    ) -> Shared:
        """Return the token. Raises TokenError. Cancelling does not affect other waiters."""
        self._forget()
        if (entry := self._entries.get(identity)) is None:
            raise _failure("keyrelay's processes have different configurations for a moment")
        entry.asked_at = self._clock.monotonic()
        if refused is not None and entry.token is not None and entry.serial == refused.serial:
            # The cache decides for all processes whether the refusal is worth a call.
            if refused.served:
                entry.cache.serve(entry.token)
            entry.cache.reject(entry.token)
        try:
            token = await entry.cache.obtain(certain=certain)
        except Refusal:
            raise _passed_on(entry.cache) from None
        if token is not entry.token:
            entry.token = token
            entry.serial += 1
        # A while after the cache has begun to renew, so that the next one is there.
        later = (token.unusable_at - token.renew_at) / 4
        renews = max(token.renew_at - self._clock.monotonic(), 0.0) + later
        return Shared(
            entry.serial,
            token.value,
            entry.cache.seconds_left(token),
            renews,
            revocable=token.fetched.superseded is not None,
        )

    async def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Handle a request of ``remote``, as JSON. Each fetch is counted in exactly one reply."""
        identity, serial = question["identity"], question["refused"]
        refused = None if serial is None else Refused(serial, question["served"])
        try:
            shared = await self.ask(identity, refused, certain=question["certain"])
        except TokenError as failure:
            return {
                "counts": self._unreported(identity),
                "reason": failure.reason,
                "details": failure.details,
                "advice": failure.advice,
                "invalid_response": failure.invalid_response,
                "pause_seconds": failure.pause_seconds,
                "lasting": failure.lasting,
                "spaced": failure.spaced,
            }
        return {
            "counts": self._unreported(identity),
            "serial": shared.serial,
            "value": base64.b64encode(shared.value).decode("ascii"),
            "seconds_left": shared.seconds_left,
            "renew_seconds": shared.renew_seconds,
            "revocable": shared.revocable,
        }

    def reset(self) -> None:
        """Try again what was refused: its cause may be repaired."""
        for entry in self._entries.values():
            entry.cache.reset()

    def close(self) -> None:
        """Forget every token."""
        for entry in self._entries.values():
            entry.cache.close()
        self._entries = {}

    def _unreported(self, identity: str) -> tuple[int, int]:
        entry = self._entries.get(identity)
        return (0, 0) if entry is None else entry.unreported()

    def _forget(self) -> None:
        """Drop tokens without a route that no process has requested for _FORGET_SECONDS."""
        old = self._clock.monotonic() - _FORGET_SECONDS
        for identity, entry in list(self._entries.items()):
            if entry.owner() is None and entry.asked_at < old:
                entry.cache.close()
                del self._entries[identity]


def _passed_on(cache: TokenCache) -> TokenError:
    """Why the cache has no token, for another process, which does not space calls itself."""
    failure = cache.failure or TokenError("the route is being closed")
    return TokenError(
        failure.reason,
        details=failure.details,
        advice=failure.advice,
        invalid_response=failure.invalid_response,
        pause_seconds=max(cache.retry_seconds, _AGAIN_SECONDS),
        lasting=failure.lasting and not failure.probes,
        spaced=True,
    )


def _failure(reason: str) -> TokenError:
    return TokenError(reason, pause_seconds=_AGAIN_SECONDS, spaced=True, counts=(0, 0))
