"""Keeps a token fresh. How one is asked for or made is the business of a ``TokenSource``.

Any number of requests that wait for a token cause one call; a request that goes away cancels
nobody's. A token is renewed in the background before it ends, while requests go on using it. One
that the provider refuses is forgotten, by identity, so that a late refusal cannot discard its
successor. When the mint fails, the old token serves as long as it is valid; then requests fail with
the reason and a time to come back, and calls are spaced out.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from proxy.clock import Clock
from proxy.errors import KeyrelayError, Refusal

# Renewal begins when this share of the lifetime is left, but no more than five minutes (seconds),
# so that a day's token is not thrown away hours early. Up to a fifth of that is random: many
# processes that started together should not call together.
_RENEW_SHARE = 0.2
_RENEW_MOST = 300.0
_JITTER = 0.2
# Calls that nobody waits for are at least this far apart (seconds), however short tokens live.
_RENEW_LEAST = 1.0
# A token is not used for its last moments: it must still be valid when it arrives.
_LAST_SHARE = 0.05
_LAST_MOST = 10.0
# A refused token causes a call at most this often (seconds): if the provider refuses every token,
# another one will not help (no storms).
_REFUSAL_PAUSE = 30.0
# Spacing of calls that fail (seconds): full jitter below a doubling bound.
_BACKOFF_LEAST = 0.1
_BACKOFF_FIRST = 1.0
_BACKOFF_MOST = 60.0
# A token that nobody has asked for in this time (seconds), or in a lifetime if that is longer, is
# not renewed any more; the next request fetches one.
_QUIET = 600.0


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class FetchedToken:
    """What a mint gives: the token, and for how many seconds from now it is valid.

    renew_seconds  when to ask for the next one, if the mint knows better than the lifetime says
    refused        called when the provider refuses this very token
    counts         calls that came to an end for it, and how many of them gave no token
    """

    value: bytes
    lifetime_seconds: float
    renew_seconds: float | None = None
    refused: Callable[[], object] = lambda: None
    counts: tuple[int, int] = (1, 0)


class TokenError(KeyrelayError):
    """No token could be had. The text is ours and may be shown.

    bad_answer     the mint answered, but with nothing that can be used (502 instead of 503)
    pause_seconds  do not try again sooner, if the mint's answer lets us know
    spaced         and then do: somebody else spaces the calls
    counts         as of ``FetchedToken``
    """

    def __init__(
        self,
        reason: str,
        *,
        bad_answer: bool = False,
        pause_seconds: float = 0.0,
        spaced: bool = False,
        counts: tuple[int, int] = (1, 1),
    ) -> None:
        self.reason = reason
        self.bad_answer = bad_answer
        self.pause_seconds = pause_seconds
        self.spaced = spaced
        self.counts = counts
        super().__init__(reason)


class TokenSource(Protocol):
    """Where tokens come from."""

    async def token_source(self) -> FetchedToken:
        """A new token. Raises TokenError. May be cancelled."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Token:
    """A token in use. Compared by identity; holds secret bytes: never printed.

    Times are readings of the clock: ``…_at`` monotonic, ``wall_end`` since the epoch. The wall
    clock counts too, because the monotonic one stands still while a laptop sleeps.
    """

    value: bytes
    obtained_at: float
    renew_at: float
    unusable_at: float
    wall_end: float
    refused: Callable[[], object]

    def usable(self, clock: Clock) -> bool:
        return clock.monotonic() < self.unusable_at and clock.wall() < self.wall_end


@dataclass(frozen=True, slots=True)
class TokenState:
    """How a token is, without the token.

    age_seconds        None if there is no usable token; so is ``renews_in_seconds``
    fetches, failures  calls that came to an end, and how many of them gave no token
    reason             why the last call gave none, "" if it gave one
    """

    age_seconds: float | None
    renews_in_seconds: float | None
    fetches: int
    failures: int
    reason: str

    def __str__(self) -> str:
        if self.age_seconds is None or self.renews_in_seconds is None:
            return f"no token: {self.reason}" if self.reason else "no token yet"
        return f"token {_span(self.age_seconds)} old, renewed in {_span(self.renews_in_seconds)}"


class TokenCache:
    """One credential's token.

    spawn    starts a task that somebody owns
    jitter   a number from 0 to 1, random by default

    fetches, failures  as in ``TokenState``
    """

    def __init__(
        self,
        token_source: TokenSource,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._mint = token_source
        self._clock = clock
        self._spawn = spawn
        self._jitter = jitter
        self._token: Token | None = None
        self._flight: asyncio.Task[None] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._failure: TokenError | None = None
        self._failures_in_row = 0
        self._not_before = -math.inf
        self._refused_at = -math.inf
        self._asked_at = clock.monotonic()
        self._closed = False
        self.fetches = 0
        self.failures = 0

    # -- for requests --------------------------------------------------------------------------

    def ready(self) -> Token | None:
        """The token, if there is a usable one."""
        token = self._token
        if token is None or not token.usable(self._clock):
            return None
        self._asked_at = now = self._clock.monotonic()
        if now >= token.renew_at:
            self.start()  # it may have been quiet
        return token

    async def obtain(self) -> Token:
        """The token, waited for. Raises Refusal. Cancelling harms no other waiter."""
        if (token := self.ready()) is not None:
            return token
        self._asked_at = self._clock.monotonic()
        self.start()
        if self._closed or (not self._flying() and self._asked_at < self._not_before):
            raise self._refusal()
        # Not asked whether it is usable: one that ends at once is still the best there is.
        if await self._fly() and self._failure is None and self._token is not None:
            return self._token
        raise self._refusal()

    def refuse(self, token: Token) -> bool:
        """The provider refused ``token``. Whether another one is there or worth a call."""
        if self._closed:
            return False
        if token is not self._token:
            return True
        now = self._clock.monotonic()
        if now - self._refused_at < _REFUSAL_PAUSE:
            return False
        self._refused_at = now
        self._token = None
        token.refused()
        if self._renewal is not None:
            self._renewal.cancel()  # it waits for this token's time to come
            self._renewal = None
        self.start()
        return True

    # -- for the owner -------------------------------------------------------------------------

    def start(self) -> None:
        """Fetch a token if there is none, so that the next request need not wait; keep it fresh."""
        if not self._closed and (self._renewal is None or self._renewal.done()):
            self._renewal = self._spawn(self._renew())

    async def wait_ready(self) -> None:
        """Wait until there is a token or a reason why not. Cancelling harms no waiter."""
        if self._token is None and self._failure is None:
            await self._fly()

    def close(self) -> None:
        """Stop renewing and forget the token. Whoever waits for one gets a Refusal."""
        self._closed = True
        self._token = self._failure = None
        for task in (self._renewal, self._flight):
            if task is not None:
                task.cancel()

    def seconds_left(self, token: Token) -> float:
        """How long a token can still be used."""
        by_age = token.unusable_at - self._clock.monotonic()
        return max(0.0, min(by_age, token.wall_end - self._clock.wall()))

    def state(self) -> TokenState:
        """Age and next renewal, or why there is no token. Never the value."""
        token, now = self._token, self._clock.monotonic()
        if token is not None and not token.usable(self._clock):
            token = None
        return TokenState(
            age_seconds=None if token is None else now - token.obtained_at,
            renews_in_seconds=None if token is None else max(token.renew_at - now, 0),
            fetches=self.fetches,
            failures=self.failures,
            reason="" if self._failure is None else self._failure.reason,
        )

    def describe(self) -> str:
        """The state for a person."""
        return str(self.state())

    # -- fetching ------------------------------------------------------------------------------

    def _flying(self) -> bool:
        return self._flight is not None and not self._flight.done()

    async def _fly(self) -> bool:
        """Wait for the one call under way, starting it if there is none. Whether it came to an end.

        Waits beside the task and not for it: cancelling one of the two leaves the other alone.
        """
        if self._flight is None or self._flight.done():
            self._flight = self._spawn(self._fetch())
        flight = self._flight
        await asyncio.wait({flight})
        return not flight.cancelled()

    async def _fetch(self) -> None:
        try:
            fetched = await self._mint.token_source()
        except TokenError as failure:
            self._fail(failure)
        except Exception as error:  # noqa: BLE001  calls must be spaced whatever went wrong
            # Nobody foresaw it, so nobody knows whether its text holds the secret.
            self._fail(TokenError(f"fetching one failed inside keyrelay ({type(error).__name__})"))
        else:
            self._take(fetched)

    def _fail(self, failure: TokenError) -> None:
        bound = min(_BACKOFF_FIRST * 2 ** min(self._failures_in_row, 30), _BACKOFF_MOST)
        backoff = 0.0 if failure.spaced else bound * self._jitter()
        pause = max(backoff, _BACKOFF_LEAST, failure.pause_seconds)
        self._count(failure.counts)
        self._failures_in_row += 1
        self._failure = failure
        self._not_before = self._clock.monotonic() + pause

    def _take(self, fetched: FetchedToken) -> None:
        now, lifetime = self._clock.monotonic(), fetched.lifetime_seconds
        margin = min(lifetime * _RENEW_SHARE, _RENEW_MOST) * (1 + _JITTER * self._jitter())
        last = min(lifetime * _LAST_SHARE, _LAST_MOST)
        renew = lifetime - margin if fetched.renew_seconds is None else fetched.renew_seconds
        self._count(fetched.counts)
        self._failure = None
        self._failures_in_row = 0
        self._not_before = -math.inf
        self._token = Token(
            fetched.value,
            obtained_at=now,
            renew_at=now + max(renew, _RENEW_LEAST),
            unusable_at=now + lifetime - last,
            wall_end=self._clock.wall() + lifetime - last,
            refused=fetched.refused,
        )

    def _count(self, counts: tuple[int, int]) -> None:
        self.fetches += counts[0]
        self.failures += counts[1]

    async def _renew(self) -> None:
        """Have a fresh token before it is asked for, until nobody asks any more."""
        while True:
            if (wait := self._due() - self._clock.monotonic()) > 0:
                await self._clock.sleep(wait)
            elif not self._wanted() or not await self._fly():
                return

    def _due(self) -> float:
        """When the next call is to be made, on the monotonic clock."""
        token = self._token
        return self._not_before if token is None else max(token.renew_at, self._not_before)

    def _wanted(self) -> bool:
        token, quiet = self._token, _QUIET
        if token is not None:
            quiet = max(quiet, token.unusable_at - token.obtained_at)
        return self._clock.monotonic() - self._asked_at <= quiet

    def _refusal(self) -> Refusal:
        failure = self._failure or TokenError("the route is being closed")
        wait = math.ceil(max(self._not_before - self._clock.monotonic(), 1))
        return Refusal(
            502 if failure.bad_answer else 503,
            "no-token",
            f"Keyrelay has no token for the provider: {failure.reason}.",
            f"It tries again by itself; come back in {wait} s.",
            proxy_error="proxy_internal_response",
            headers=(("Retry-After", str(wait)),),
        )


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
