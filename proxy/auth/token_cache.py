"""Cache of one credential's token, which a ``TokenSource`` obtains.

Any number of requests that wait for a token cause one fetch; a cancelled request does not cancel
it. A token is renewed in the background before it expires, while requests go on using it. One that
the provider rejects is discarded, by identity, so that a late 401 cannot discard its successor.
When the source fails, the old token serves as long as it is valid; then requests fail with the
reason and Retry-After, and fetches back off.
"""

from __future__ import annotations

import asyncio
import math
import random
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

from proxy import backoff
from proxy.auth.token import (
    FetchedToken,
    Token,
    TokenError,
    TokenSource,
    TokenState,
    renewal_seconds,
)
from proxy.auth.token_rejection import TokenRejections
from proxy.clock import Clock, format_span
from proxy.errors import Refusal

# Up to a fifth of the time left at a renewal is random: many processes that started together should
# not call together.
_JITTER = 0.2
# Fetches in the background are at least this far apart (seconds), however short tokens live.
_RENEW_LEAST = 1.0
# A token is not used for its last moments: it must still be valid when it arrives.
_LAST_SHARE = 0.05
_LAST_MOST = 10.0
# Spacing of calls that fail (seconds): full jitter below a doubling bound.
_BACKOFF_LEAST = 0.1
_BACKOFF_FIRST = 1.0
_BACKOFF_MOST = 60.0
# After a refusal by the token endpoint that will last, calls are far apart. A request that comes
# may cause one sooner, this long after the last (seconds, doubled each time): the cause may have
# been repaired.
_PROBE_FIRST = 5.0
# A token that no request has used in this time (seconds), or in a lifetime if that is longer, is
# not renewed any more; the next request fetches one.
_QUIET = 600.0


class TokenCache:
    """One credential's token.

    spawn    starts a task that its owner awaits or cancels
    jitter   a number from 0 to 1, random by default
    warn     gets a line once for each remark about a token
    trouble  gets a line when there is no token any more, and when there is one again; None where
             another token may take its place

    fetches, failures  as in ``TokenState``
    """

    def __init__(
        self,
        source: TokenSource,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        jitter: Callable[[], float] = random.random,
        warn: Callable[[str], object] = lambda _line: None,
        trouble: Callable[[str], object] | None = None,
    ) -> None:
        self._source = source
        self._clock = clock
        self._spawn = spawn
        self._jitter = jitter
        self._warn = warn
        self._trouble = trouble or (lambda _line: None)
        self._token: Token | None = None
        self._flight: asyncio.Task[None] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._failure: TokenError | None = None
        self._failures_in_row = 0
        self._failed_at = -math.inf
        self._not_before = -math.inf
        self._rejections = TokenRejections(clock)
        self._asked_at = clock.monotonic()
        self._remarks: set[str] = set()
        self._trouble_since: float | None = None
        self._users = 1
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

    async def obtain(self, *, certain: bool = False) -> Token:
        """The token, waited for. Raises Refusal. Cancelling harms no other waiter.

        certain  for a request that cannot be sent again: not a token that is being replaced, or
                 that another process has replaced, where replacing revokes
        """
        token = self.ready()
        if token is not None and certain:
            await self._confirm(token)
            token = self.ready()
        if token is not None:
            return token
        self._asked_at = self._clock.monotonic()
        self.start()
        if self._closed or (not self._flying() and self._asked_at < self._retry_at()):
            raise self.refusal()
        # Not asked whether it is usable: one that ends at once is still the best there is.
        if await self._fly() and self._failure is None and self._token is not None:
            return self._token
        raise self.refusal()

    async def _confirm(self, token: Token) -> None:
        """Wait for a token that replaces ``token``, if one is on its way or elsewhere already.

        If it cannot be had, ``token`` is the best there is.
        """
        superseded = token.fetched.superseded
        if superseded is not None and (self._flying() or await superseded()):
            await self._fly()

    def serve(self, token: Token) -> None:
        """The provider took ``token``. To be called often, so it does next to nothing."""
        self._rejections.note_served(token)

    def reject(self, token: Token) -> bool:
        """The provider rejected ``token``. Whether another one is there or worth a call."""
        if self._closed:
            return False
        if token is not self._token:
            return True
        # The end of a token explains its rejection, unless it had ended when it was fetched.
        if token.usable(self._clock) or token.unusable_at <= token.obtained_at:
            served = self._rejections.note_rejected(token)
            if not self._flying() and not self._rejections.may_replace(token, served=served):
                return False
            self._rejections.note_replaced()
            token.fetched.refused(served)
        self._token = None
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

    def reset(self) -> None:
        """Try again at once, whatever was refused: its cause may have been repaired."""
        self._rejections.reset()
        if self._failure is None or self._closed:
            return
        self._not_before = self._failed_at = -math.inf
        self._failures_in_row = 0
        if self._renewal is not None:
            self._renewal.cancel()  # it waits for a pause to end
            self._renewal = None
        self.start()

    def retain(self) -> bool:
        """Have it closed once more often, as it has one more user. False if it is closed."""
        self._users += 1
        return not self._closed

    def close(self) -> None:
        """Stop renewing and forget the token, if this was the last user. Waiters get a Refusal."""
        self._users -= 1
        if self._users > 0:
            return
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
            reason="" if self._failure is None else self._failure.details,
            advice="" if self._failure is None else self._failure.advice,
            remarks=() if token is None else token.fetched.remarks,
            notes=() if token is None else token.fetched.notes,
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
            fetched = await self._source.fetch()
        except TokenError as failure:
            self._fail(failure)
        except Exception as error:  # noqa: BLE001  calls must be spaced whatever went wrong
            # An unforeseen error: its text may contain the secret.
            self._fail(TokenError(f"fetching one failed inside keyrelay ({type(error).__name__})"))
        else:
            self._take(fetched)

    def _fail(self, failure: TokenError) -> None:
        bound = backoff.bound(self._failures_in_row, first=_BACKOFF_FIRST, most=_BACKOFF_MOST)
        delay = 0.0 if failure.spaced else bound * self._jitter()
        pause = max(delay, _BACKOFF_LEAST, failure.pause_seconds)
        self._count(failure.counts)
        self._failures_in_row += 1
        self._failed_at = self._clock.monotonic()
        self._not_before = self._failed_at + pause
        again = self._failure is not None and self._failure.details == failure.details
        self._failure = failure
        if not (again or failure.spaced):
            advice = f" ({failure.advice.removesuffix('.')})" if failure.advice else ""
            self._trouble(f"no token: {failure.details}{advice}")
        if self._trouble_since is None:
            self._trouble_since = self._failed_at

    def _take(self, fetched: FetchedToken) -> None:
        now, lifetime = self._clock.monotonic(), fetched.lifetime_seconds
        whole = fetched.whole_seconds or lifetime
        margin = renewal_seconds(whole) * (1 + _JITTER * self._jitter())
        last = min(whole * _LAST_SHARE, _LAST_MOST)
        renew = lifetime - margin if fetched.renew_seconds is None else fetched.renew_seconds
        self._count(fetched.counts)
        if self._failure is not None and not self._failure.spaced:
            assert self._trouble_since is not None
            self._trouble(f"a token again, after {format_span(now - self._trouble_since)}")
        self._failure = None
        self._trouble_since = None
        self._failures_in_row = 0
        self._not_before = -math.inf
        for remark in fetched.remarks:
            if remark not in self._remarks:
                self._remarks.add(remark)
                self._warn(remark)
        self._token = Token(
            fetched.value,
            obtained_at=now,
            renew_at=now + max(renew, _RENEW_LEAST),
            unusable_at=now + lifetime - last,
            wall_end=self._clock.wall() + lifetime - last,
            fetched=fetched,
        )

    def _retry_at(self) -> float:
        """When a request may cause the next call, on the monotonic clock."""
        failure = self._failure
        if failure is None or not failure.probes:
            return self._not_before
        pause = _PROBE_FIRST * 2.0 ** min(self._failures_in_row - 1, 10)
        return min(self._not_before, self._failed_at + pause)

    def _count(self, counts: tuple[int, int]) -> None:
        self.fetches += counts[0]
        self.failures += counts[1]

    async def _renew(self) -> None:
        """Renew the token ahead of requests, until it is no longer used."""
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

    def refusal(self) -> Refusal:
        """Return the response to a request while there is no token."""
        failure = self._failure or TokenError("the route is being closed")
        wait = math.ceil(max(self._retry_at() - self._clock.monotonic(), 1))
        again = "" if failure.lasting else f"It tries again by itself; come back in {wait} s."
        return Refusal(
            502 if failure.invalid_response else 503,
            "no-token",
            f"Keyrelay has no token for the provider: {failure.reason}.",
            " ".join(filter(None, (failure.advice, again))),
            proxy_error="proxy_internal_response",
            # Without the field if waiting cannot help: clients wait as long as it says, repeatedly.
            headers=() if failure.lasting else (("Retry-After", str(wait)),),
            log_detail=f"no-token: {failure.details}",
        )

    @property
    def failure(self) -> TokenError | None:
        """Why there is no token, and None while there is one or no call has ended."""
        return self._failure

    @property
    def retry_seconds(self) -> float:
        """Seconds until a request may cause the next call after one that failed."""
        return max(self._retry_at() - self._clock.monotonic(), 0.0)


class TokenCaches:
    """The caches of a process, by the identity of what their tokens are obtained with."""

    def __init__(self) -> None:
        self._caches: weakref.WeakValueDictionary[str, TokenCache] = weakref.WeakValueDictionary()

    def cache(self, identity: str, make: Callable[[], TokenCache]) -> TokenCache:
        """The one that is in use, else a new one. Each user closes it once."""
        found = self._caches.get(identity)
        if found is not None and found.retain():
            return found
        made = self._caches[identity] = make()
        return made
