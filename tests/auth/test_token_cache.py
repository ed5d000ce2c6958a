"""Tests of auth/tokens.py: one call for many, renewal, refusal, failure. No time passes."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from proxy.auth.token import FetchedToken, Token, TokenError
from proxy.auth.token_cache import TokenCache, TokenCaches
from proxy.errors import Refusal
from tests.support.clock import ManualClock

CANARY = "CANARY_dummy_token"


class ScriptedTokenSource:
    """Gives ``token-1``, ``token-2`` …, or fails as told; ``open`` lets a call end."""

    def __init__(
        self,
        lifetime: float = 1000.0,
        failure: Exception | None = None,
        more: dict[str, Any] | None = None,
    ) -> None:
        self.lifetime = lifetime
        self.failure = failure
        self.more = more or {}
        self.calls = 0
        self.cancelled = 0
        self.open = asyncio.Event()
        self.open.set()

    async def fetch(self) -> FetchedToken:
        self.calls += 1
        number = self.calls
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None:
            raise self.failure
        return FetchedToken(f"token-{number}".encode(), self.lifetime, **self.more)


class Kept:
    """A keeper with all that surrounds it."""

    def __init__(self, mint: ScriptedTokenSource, jitter: Callable[[], float]) -> None:
        self.mint = mint
        self.clock = ManualClock()
        self.tasks: set[asyncio.Task[None]] = set()
        self.lines: list[str] = []
        self.trouble: list[str] = []
        self.keeper = TokenCache(
            mint,
            self.clock,
            self._spawn,
            jitter,
            warn=self.lines.append,
            trouble=self.trouble.append,
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def value(self) -> bytes:
        return (await self.keeper.obtain()).value

    async def used_for(self, seconds: float, every: float) -> None:
        """Let time pass while requests come in and take the token that is ready."""
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            self.keeper.ready()
            await self.clock.advance(every)

    async def recovers(self) -> bool:
        """Whether there is a token a minute after the source is well again."""
        self.mint.failure = None
        await self.clock.advance(60)
        return self.keeper.ready() is not None

    async def refusal(self) -> Refusal:
        with pytest.raises(Refusal) as caught:
            await self.keeper.obtain()
        return caught.value


@asynccontextmanager
async def kept(
    mint: ScriptedTokenSource | None = None, *, jitter: Callable[[], float] = lambda: 1.0
) -> AsyncIterator[Kept]:
    """A keeper that is closed at the end; nothing may be left of it then, nor have been said."""
    loop = asyncio.get_running_loop()
    unretrieved: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unretrieved.append(context))
    one = Kept(mint or ScriptedTokenSource(), jitter)
    try:
        yield one
    finally:
        one.keeper.close()
        await one.clock.settle()
        assert not one.tasks
        assert not one.clock.sleeping
        gc.collect()
        await one.clock.settle()
        assert not unretrieved


# -- one call for many ----------------------------------------------------------------------------


async def test_two_hundred_first_requests_cause_one_call() -> None:
    """All of them get the token of one call."""
    async with kept() as one:
        one.mint.open.clear()
        waiting = asyncio.gather(*(one.keeper.obtain() for _ in range(200)))
        await one.clock.settle()
        one.mint.open.set()
        assert len({id(token) for token in await waiting}) == 1
        assert one.mint.calls == 1


async def test_the_token_is_fetched_before_it_is_asked_for() -> None:
    """After ``start`` a token is ready with no request waiting, and the first one gets it."""
    async with kept() as one:
        assert one.keeper.ready() is None
        one.keeper.start()
        one.keeper.start()
        await one.clock.settle()
        token = one.keeper.ready()
        assert token is not None
        assert await one.keeper.obtain() is token
        assert one.mint.calls == 1


@pytest.mark.parametrize("gone", [0, 1, 2])
async def test_a_waiter_that_goes_away_harms_no_other(gone: int) -> None:
    """Whichever of the waiters is cancelled, the first included: the others get their token."""
    async with kept() as one:
        one.mint.open.clear()
        waiters = [asyncio.ensure_future(one.keeper.obtain()) for _ in range(3)]  # noqa: TID251
        await one.clock.settle()
        waiters[gone].cancel()
        await one.clock.settle()
        assert waiters[gone].cancelled()
        one.mint.open.set()
        waiters.pop(gone)
        assert {token.value for token in await asyncio.gather(*waiters)} == {b"token-1"}
        assert (one.mint.calls, one.mint.cancelled) == (1, 0)


async def test_a_call_goes_on_when_all_waiters_have_gone() -> None:
    """Its token is there for the next request."""
    async with kept() as one:
        one.mint.open.clear()
        waiter = asyncio.ensure_future(one.keeper.obtain())  # noqa: TID251
        await one.clock.settle()
        waiter.cancel()
        one.mint.open.set()
        await one.clock.settle()
        assert one.keeper.ready() is not None
        assert one.mint.calls == 1


async def test_a_failure_reaches_all_waiters_and_nobody_else() -> None:
    """A failed fetch refuses the waiting requests, some of which have gone; no error is left."""
    async with kept() as one:
        one.mint.open.clear()
        one.mint.failure = TokenError("the endpoint is down")
        waiters = [asyncio.ensure_future(one.keeper.obtain()) for _ in range(3)]  # noqa: TID251
        await one.clock.settle()
        waiters[0].cancel()
        one.mint.open.set()
        results = await asyncio.gather(*waiters, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError, Refusal, Refusal]
        assert one.mint.calls == 1


# -- renewal --------------------------------------------------------------------------------------


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("lifetime", "earliest", "latest"),
    [(1000, 760, 800), (1800, 1440, 1500), (3, 2.28, 2.4), (86400, 86040, 86100)],
)
async def test_a_token_is_renewed_before_it_ends(
    lifetime: float, earliest: float, latest: float, jitter: float
) -> None:
    """In its last fifth, at most five minutes (plus up to a fifth) ahead; no request waits."""
    async with kept(ScriptedTokenSource(lifetime), jitter=lambda: jitter) as one:
        assert await one.value() == b"token-1"
        await one.clock.advance(earliest - 0.01)
        assert one.mint.calls == 1
        assert one.keeper.ready() is not None
        await one.clock.advance(latest - earliest + 0.02)
        assert one.mint.calls == 2
        token = one.keeper.ready()
        assert token is not None
        assert token.value == b"token-2"


async def test_requests_use_the_old_token_during_renewal() -> None:
    """While a new token is fetched no request waits for it."""
    async with kept() as one:
        await one.value()
        one.mint.open.clear()
        await one.clock.advance(801)
        assert one.mint.calls == 2
        async with asyncio.timeout(1):
            assert await one.value() == b"token-1"
        one.mint.open.set()
        await one.clock.settle()
        assert await one.value() == b"token-2"


@pytest.mark.parametrize("lifetime", [3.0, 30.0])
async def test_short_lives_are_sensible(lifetime: float) -> None:
    """Tokens of seconds: always one at hand, about one call for each lifetime."""
    async with kept(ScriptedTokenSource(lifetime), jitter=lambda: 0.5) as one:
        await one.value()
        for _ in range(600):
            await one.clock.advance(0.1)
            assert one.keeper.ready() is not None
        assert one.mint.calls <= 60 / (lifetime * 0.75) + 1


@pytest.mark.parametrize("lifetime", [0.001, 0.3, 1.0])
async def test_tokens_that_end_at_once_cause_no_storm(lifetime: float) -> None:
    """In the background at most one call a second is made; requests still get tokens."""
    async with kept(ScriptedTokenSource(lifetime)) as one:
        await one.value()
        await one.clock.advance(100)
        assert one.mint.calls <= 101
        assert (await one.value()).startswith(b"token-")


async def test_a_token_that_is_late_is_handed_out_all_the_same() -> None:
    """A token whose short life is over before its waiter runs is better than none."""
    async with kept(ScriptedTokenSource(0.000001)) as one:
        one.mint.open.clear()
        waiter = asyncio.ensure_future(one.keeper.obtain())  # noqa: TID251
        await one.clock.settle()
        one.mint.open.set()
        await asyncio.sleep(0)  # the call goes on, the waiter does not yet
        assert (await waiter).value == b"token-1"


async def test_quiet_tokens_are_not_renewed_for_ever() -> None:
    """With no request for ten minutes and a lifetime, calls end; the next request starts again."""
    async with kept(ScriptedTokenSource(100)) as one:
        await one.value()
        await one.clock.advance(700)
        calls = one.mint.calls
        assert 6 <= calls <= 10
        await one.clock.advance(100_000)
        assert one.mint.calls == calls
        assert one.keeper.ready() is None
        assert await one.value() == f"token-{calls + 1}".encode()
        await one.used_for(300, 10)
        assert one.mint.calls >= calls + 4


async def test_long_tokens_of_a_route_in_use_are_renewed() -> None:
    """A day's token that is used once in a while is renewed, though not within ten minutes."""
    async with kept(ScriptedTokenSource(86_400)) as one:
        await one.value()
        await one.used_for(86_400, 7200)
        assert one.mint.calls == 2


async def test_looking_is_not_using() -> None:
    """Status pages do not keep a token alive."""
    async with kept(ScriptedTokenSource(100)) as one:
        await one.value()
        for _ in range(2000):
            await one.clock.advance(5)
            one.keeper.describe()
        assert one.mint.calls <= 10


async def test_a_request_after_a_quiet_time_renews_behind_its_back() -> None:
    """A token that was let run into its last fifth is used, and replaced without waiting."""
    async with kept(ScriptedTokenSource(10_000)) as one:
        token = await one.keeper.obtain()
        one.keeper.start()
        await one.clock.advance(9_701)
        assert one.mint.calls == 2
        await one.clock.advance(9_701)  # nobody has asked for a lifetime
        assert one.mint.calls == 2
        second = one.keeper.ready()
        assert second is not None
        assert second is not token
        await one.clock.settle()
        assert one.mint.calls == 3
        third = one.keeper.ready()
        assert third is not None
        assert third is not second


@pytest.mark.parametrize("seconds", [-400_000_000.0, -3600.0])
async def test_a_wall_clock_that_goes_back_changes_nothing(seconds: float) -> None:
    """The token serves as long as it would have, and no longer."""
    async with kept() as one:
        await one.value()
        one.clock.jump(seconds)
        assert one.keeper.ready() is not None
        await one.clock.advance(770)
        assert await one.value() == b"token-2"
        one.mint.failure = TokenError("down")
        await one.clock.advance(1000)
        assert one.keeper.ready() is None


@pytest.mark.parametrize("seconds", [991.0, 400_000_000.0])
async def test_a_wall_clock_that_goes_ahead_costs_one_call(seconds: float) -> None:
    """Perhaps the machine slept and the token has ended: another is fetched, once."""
    async with kept() as one:
        await one.value()
        one.clock.jump(seconds)
        assert one.keeper.ready() is None
        assert await one.value() == b"token-2"
        await one.clock.advance(10)
        assert await one.value() == b"token-2"
        assert one.mint.calls == 2
        await one.used_for(2000, 100)
        assert 4 <= one.mint.calls <= 5


# -- refusal --------------------------------------------------------------------------------------


async def test_a_refused_token_is_replaced() -> None:
    """It is not handed out again, and the next one is fetched ahead of requests."""
    async with kept() as one:
        token = await one.keeper.obtain()
        assert one.keeper.reject(token)
        assert one.keeper.ready() is None
        await one.clock.settle()
        assert one.mint.calls == 2
        assert await one.value() == b"token-2"


async def test_late_refusals_do_not_discard_the_successor() -> None:
    """Refusals of the old token say that another is there, and leave it alone."""
    async with kept() as one:
        old = await one.keeper.obtain()
        assert one.keeper.reject(old)
        new = await one.keeper.obtain()
        for _ in range(50):
            assert one.keeper.reject(old)
        assert one.keeper.ready() is new
        assert one.mint.calls == 2


async def test_tokens_are_told_apart_by_identity() -> None:
    """A server that gives the same text again has given another token."""

    class SameTokenSource(ScriptedTokenSource):
        async def fetch(self) -> FetchedToken:
            await super().fetch()
            return FetchedToken(b"same", 1000)

    async with kept(SameTokenSource()) as one:
        old = await one.keeper.obtain()
        assert one.keeper.reject(old)
        new = await one.keeper.obtain()
        assert new is not old
        assert one.keeper.reject(old)
        assert one.keeper.ready() is new


async def test_a_provider_that_refuses_everything_causes_no_storm() -> None:
    """A hundred refusals in a row: two calls. After that one call in thirty seconds."""
    async with kept() as one:
        for _ in range(100):
            one.keeper.reject(await one.keeper.obtain())
        assert one.mint.calls == 2
        await one.clock.advance(29.9)
        assert not one.keeper.reject(await one.keeper.obtain())
        await one.clock.advance(0.2)
        assert one.keeper.reject(await one.keeper.obtain())
        assert await one.value() == b"token-3"
        for _ in range(90):
            one.keeper.reject(await one.keeper.obtain())
            await one.clock.advance(1)
        assert one.mint.calls <= 6


async def test_a_hundred_refused_at_once_cause_one_call() -> None:
    """All had the same token; each gets the one successor."""
    async with kept() as one:
        old = await one.keeper.obtain()

        async def refused() -> Token:
            assert one.keeper.reject(old)
            return await one.keeper.obtain()

        tokens = await asyncio.gather(*(refused() for _ in range(100)))
        assert {token.value for token in tokens} == {b"token-2"}
        assert one.mint.calls == 2


async def test_a_token_refused_during_its_renewal_is_not_fetched_twice() -> None:
    """The call that is under way anyway is the replacement."""
    async with kept() as one:
        old = await one.keeper.obtain()
        one.mint.open.clear()
        await one.clock.advance(801)
        assert one.keeper.reject(old)
        await one.clock.settle()
        one.mint.open.set()
        assert await one.value() == b"token-2"
        assert one.mint.calls == 2


async def test_a_refused_token_does_not_come_back_when_the_mint_fails() -> None:
    """Valid or not by the clock: what the provider refused is not used again."""
    async with kept() as one:
        old = await one.keeper.obtain()
        one.mint.failure = TokenError("down")
        assert one.keeper.reject(old)
        assert (await one.refusal()).status == 503
        assert one.keeper.ready() is None
        one.mint.failure = None
        await one.clock.advance(61)
        assert one.keeper.ready() is not None  # by itself


# -- failure --------------------------------------------------------------------------------------


async def test_a_valid_token_outlasts_a_broken_mint() -> None:
    """While it is valid requests get it; then a refusal says why and when to come back."""
    async with kept(jitter=lambda: 0.5) as one:
        await one.value()
        one.mint.failure = TokenError("the endpoint is down")
        await one.clock.advance(980)
        assert one.mint.calls > 2
        assert await one.value() == b"token-1"
        assert "old" in one.keeper.describe()
        await one.clock.advance(11)
        refusal = await one.refusal()
        assert refusal.status == 503
        assert "the endpoint is down" in refusal.detail
        (name, seconds), *more = refusal.headers
        assert (name, more) == ("Retry-After", [])
        assert 1 <= int(seconds) <= 60
        assert seconds in refusal.advice
        assert "the endpoint is down" in one.keeper.describe()
        one.mint.failure = None
        await one.clock.advance(61)
        assert one.keeper.ready() is not None  # nobody had to ask
        assert "old" in one.keeper.describe()


async def test_the_first_call_is_tried_again_by_itself() -> None:
    """A route whose endpoint is down at the start recovers without a request."""
    async with kept(ScriptedTokenSource(failure=TokenError("down"))) as one:
        one.keeper.start()
        await one.clock.advance(20)
        assert one.mint.calls >= 3
        assert await one.recovers()


async def test_an_answer_that_cannot_be_used_is_a_502() -> None:
    """The endpoint is there, but what it says is wrong: not the same as being down."""
    async with kept(
        ScriptedTokenSource(failure=TokenError("the answer is not JSON", invalid_response=True))
    ) as one:
        assert (await one.refusal()).status == 502


@pytest.mark.parametrize("jitter", [0.0, 0.01, 1.0])
async def test_failing_calls_are_spaced_out(jitter: float) -> None:
    """However many requests come: one call per pause, pauses that double up to a minute."""
    async with kept(ScriptedTokenSource(failure=TokenError("down")), jitter=lambda: jitter) as one:
        for _ in range(100):
            await one.refusal()
        assert one.mint.calls == 1
        moments: list[float] = []
        while len(moments) < 12:
            before = one.mint.calls
            await one.clock.advance(0.05)
            if one.mint.calls > before:
                moments.append(one.clock.monotonic())
        pauses = [later - sooner for sooner, later in pairwise(moments)]
        bounds = [min(2**failures, 60) for failures in range(1, 12)]
        assert pauses == pytest.approx([max(bound * jitter, 0.1) for bound in bounds], abs=0.06)


async def test_a_mint_that_is_down_for_days_is_still_asked() -> None:
    """However often it failed, a minute is the longest pause and it recovers."""
    async with kept(ScriptedTokenSource(failure=TokenError("down"))) as one:
        await one.refusal()
        for _ in range(1500):
            await one.clock.advance(60)
            one.keeper.ready()
            assert (await one.refusal()).status == 503
        assert one.mint.calls >= 1500
        assert await one.recovers()


async def test_a_pause_that_the_mint_asks_for_is_kept() -> None:
    """Wrong credentials: one call a minute, for requests and in the background together."""
    async with kept(
        ScriptedTokenSource(failure=TokenError("invalid_client", pause_seconds=60)),
        jitter=lambda: 0.0,
    ) as one:
        one.keeper.start()
        for _ in range(599):
            await one.refusal()
            await one.clock.advance(0.1)
        assert one.mint.calls == 1
        assert (await one.refusal()).headers == (("Retry-After", "1"),)
        await one.clock.advance(0.2)
        assert one.mint.calls == 2
        assert (await one.refusal()).headers == (("Retry-After", "60"),)


async def test_trying_ends_when_nobody_asks() -> None:
    """A broken endpoint is not called for ever for an unused route."""
    async with kept(ScriptedTokenSource(failure=TokenError("down"))) as one:
        one.keeper.start()
        await one.clock.advance(700)
        calls = one.mint.calls
        await one.clock.advance(100_000)
        assert one.mint.calls == calls
        await one.refusal()
        assert one.mint.calls == calls + 1


async def test_a_mint_that_breaks_is_one_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """An unforeseen error refuses requests, is not repeated in words, and calls are spaced out."""
    async with kept(ScriptedTokenSource(failure=KeyError(CANARY))) as one:
        one.keeper.start()
        for _ in range(20):
            await one.refusal()
        refusal = await one.refusal()
        assert one.mint.calls == 1
        assert refusal.status == 503
        assert "KeyError" in refusal.detail
        assert CANARY not in str(refusal) + repr(refusal.headers) + one.keeper.describe()
        one.mint.failure = None
        await one.clock.advance(2)
        assert one.keeper.ready() is not None
    assert CANARY not in caplog.text


# -- the end --------------------------------------------------------------------------------------


async def test_closing_refuses_those_who_wait() -> None:
    """They are not cancelled, they get an answer; the call is ended."""
    async with kept() as one:
        one.mint.open.clear()
        waiters = [asyncio.ensure_future(one.keeper.obtain()) for _ in range(3)]  # noqa: TID251
        await one.clock.settle()
        one.keeper.close()
        results = await asyncio.gather(*waiters, return_exceptions=True)
        assert [getattr(result, "status", None) for result in results] == [503] * 3
        assert one.mint.cancelled == 1


async def test_closing_before_the_first_step_is_safe() -> None:
    """A keeper may be closed in the turn of the loop in which it was started."""
    async with kept() as one:
        one.keeper.start()
        waiter = asyncio.ensure_future(one.keeper.obtain())  # noqa: TID251
        one.keeper.close()
        with pytest.raises(Refusal):
            await waiter
        assert one.mint.calls == 0


async def test_nothing_happens_after_closing() -> None:
    """No token, no call, no task, whatever is asked."""
    async with kept() as one:
        token = await one.keeper.obtain()
        one.keeper.close()
        assert one.keeper.ready() is None
        assert not one.keeper.reject(token)
        one.keeper.start()
        refusal = await one.refusal()
        assert refusal.headers == (("Retry-After", "1"),)
        await one.clock.advance(10_000)
        assert one.mint.calls == 1


async def test_tasks_that_the_owner_cancels_end_quietly() -> None:
    """Even without ``close``: waiters get a refusal, not an old token, and nothing starts anew."""
    async with kept() as one:
        await one.value()
        one.mint.open.clear()
        await one.clock.advance(1001)
        waiter = asyncio.ensure_future(one.keeper.obtain())  # noqa: TID251
        await one.clock.settle()
        for task in list(one.tasks):
            task.cancel()
        with pytest.raises(Refusal):
            await waiter
        await one.clock.settle()
        assert not one.tasks
        assert one.mint.calls == 2


async def test_tokens_are_never_printed(caplog: pytest.LogCaptureFixture) -> None:
    """No repr or text of anything shows the token, nor its length."""
    caplog.set_level(logging.DEBUG)

    class CanaryTokenSource(ScriptedTokenSource):
        async def fetch(self) -> FetchedToken:
            await super().fetch()
            return FetchedToken(CANARY.encode(), self.lifetime)

    async with kept(CanaryTokenSource()) as one:
        token = await one.keeper.obtain()
        minted = await one.mint.fetch()
        for thing in (token, minted, one.keeper):
            assert CANARY not in f"{thing!r}{thing!s}{thing}"
        assert one.keeper.describe() == "token 0 s old, renewed in 13 min"
        await one.clock.advance(100)
        assert one.keeper.describe() == "token 100 s old, renewed in 11 min"
    assert one.keeper.describe() == "no token yet"
    assert CANARY not in caplog.text


async def test_spans_read_well() -> None:
    """Long ones in hours."""
    async with kept(ScriptedTokenSource(86_400), jitter=lambda: 0.0) as one:
        await one.value()
        assert one.keeper.describe() == "token 0 s old, renewed in 24 h"


# -- tokens that served, and are refused ----------------------------------------------------------


async def test_a_token_that_served_is_replaced_at_once() -> None:
    """Also when another one was refused seconds ago: a server that lost its store twice."""
    async with kept() as one:
        for number in range(1, 4):
            token = await one.keeper.obtain()
            one.keeper.serve(token)
            assert one.keeper.reject(token)
            await one.clock.advance(5)
            assert one.mint.calls == number + 1


async def test_where_every_token_is_refused_three_calls_are_the_most() -> None:
    """A hundred requests, each sent twice: no storm, whether the first token had served or not."""
    for served in (False, True):
        async with kept() as one:
            first = await one.keeper.obtain()
            if served:
                one.keeper.serve(first)
            for _ in range(100):
                if one.keeper.reject(await one.keeper.obtain()):
                    one.keeper.reject(await one.keeper.obtain())
                await one.clock.advance(0.1)
            assert one.mint.calls <= 3


async def test_a_path_that_is_always_refused_causes_no_storm() -> None:
    """While the token serves others: a few calls at once, then few, however many requests."""
    async with kept() as one:
        for _ in range(300):
            token = await one.keeper.obtain()
            one.keeper.serve(token)
            if one.keeper.reject(await one.keeper.obtain()):
                one.keeper.reject(await one.keeper.obtain())
            await one.clock.advance(0.2)
        assert one.mint.calls <= 10


async def test_short_lives_may_be_replaced_more_often() -> None:
    """A server that revokes with each rotation of another process refuses a token per lifetime."""
    async with kept(ScriptedTokenSource(lifetime=4.0)) as one:
        for _ in range(30):
            token = await one.keeper.obtain()
            one.keeper.serve(token)
            assert one.keeper.reject(token)
            await one.clock.advance(2)


async def test_a_token_that_ended_on_its_way_is_replaced_at_once() -> None:
    """Time explains the refusal, of a token that never served as well, however often it happens."""
    async with kept(ScriptedTokenSource(lifetime=0.9)) as one:
        for number in range(1, 11):
            token = await one.keeper.obtain()
            assert one.mint.calls == number
            await one.clock.advance(0.95)
            assert one.mint.calls == number
            assert one.keeper.reject(token)
            await one.clock.settle()
            assert one.mint.calls == number + 1


async def test_the_margins_are_those_of_the_whole_life() -> None:
    """A token of which a part of the life is over is renewed, and no longer used, as a new one."""
    old = {"whole_seconds": 100.0}
    async with kept(ScriptedTokenSource(lifetime=30.0, more=old), jitter=lambda: 0.0) as one:
        await one.value()
        one.mint.open.clear()
        await one.clock.advance(9.9)
        assert one.mint.calls == 1
        await one.clock.advance(0.2)
        assert one.mint.calls == 2
        await one.clock.advance(14.8)
        assert one.keeper.ready() is not None
        await one.clock.advance(0.2)
        assert one.keeper.ready() is None


async def test_a_refusal_during_a_renewal_waits_for_its_outcome() -> None:
    """The server has revoked the old one already; however recent another refusal is."""
    async with kept() as one:
        token = await one.keeper.obtain()
        assert one.keeper.reject(token)
        token = await one.keeper.obtain()
        one.mint.open.clear()
        await one.clock.advance(801)
        assert one.keeper.reject(token)
        waiting = asyncio.ensure_future(one.keeper.obtain())  # noqa: TID251
        await one.clock.settle()
        assert not waiting.done()
        one.mint.open.set()
        assert (await waiting).value == b"token-3"
        assert one.mint.calls == 3


# -- requests that cannot be sent again -----------------------------------------------------------


async def test_a_certain_token_is_none_that_was_replaced_elsewhere() -> None:
    """Another process has replaced it: its successor is fetched before the request is sent."""
    replaced = False

    async def superseded() -> bool:
        return replaced

    source = ScriptedTokenSource(more={"superseded": superseded})
    async with kept(source) as one:
        first = await one.keeper.obtain()
        assert await one.keeper.obtain(certain=True) is first
        replaced = True
        assert (await one.keeper.obtain(certain=True)).value == b"token-2"
        assert one.mint.calls == 2


async def test_a_certain_token_waits_for_a_rotation() -> None:
    """The one that is in use will be refused in a moment, if it is not already."""

    async def superseded() -> bool:
        return False

    source = ScriptedTokenSource(more={"superseded": superseded})
    async with kept(source) as one:
        first = await one.keeper.obtain()
        source.open.clear()
        await one.clock.advance(801)
        assert one.keeper.ready() is first
        waiting = asyncio.ensure_future(one.keeper.obtain(certain=True))  # noqa: TID251
        await one.clock.settle()
        assert not waiting.done()
        source.open.set()
        assert (await waiting).value == b"token-2"


async def test_a_certain_token_of_another_kind_waits_for_nothing() -> None:
    """Where renewing revokes nothing, the old one serves during the call."""
    async with kept() as one:
        first = await one.keeper.obtain()
        one.mint.open.clear()
        await one.clock.advance(801)
        assert await one.keeper.obtain(certain=True) is first
        one.mint.open.set()


# -- pauses that end ------------------------------------------------------------------------------


async def test_a_request_probes_before_the_pause_is_over() -> None:
    """The secret may have been repaired at the server: one call after a short while, no storm."""
    async with kept() as one:
        one.mint.failure = TokenError("refused", pause_seconds=60, probes=True, lasting=True)
        await one.refusal()
        one.mint.failure = None
        await one.clock.advance(4.9)
        await one.refusal()
        assert one.mint.calls == 1
        await one.clock.advance(0.2)
        got = await asyncio.gather(*(one.value() for _ in range(50)))
        assert set(got) == {b"token-2"}
        assert one.mint.calls == 2


async def test_no_probe_where_nobody_asks() -> None:
    """By itself a call is made when the pause is over."""
    async with kept() as one:
        one.mint.failure = TokenError("refused", pause_seconds=60, probes=True)
        await one.refusal()
        await one.clock.advance(59)
        assert one.mint.calls == 1
        await one.clock.advance(2)
        assert one.mint.calls == 2


@pytest.mark.parametrize("probes", [False, True])
async def test_a_reset_ends_the_pause(probes: bool) -> None:
    """As after a reload: tried again at once, without a request."""
    async with kept() as one:
        one.mint.failure = TokenError("refused", pause_seconds=3600, probes=probes)
        await one.refusal()
        one.mint.failure = None
        one.keeper.reset()
        await one.clock.settle()
        assert one.keeper.ready() is not None
        assert one.mint.calls == 2


async def test_a_reset_leaves_a_good_token_alone() -> None:
    """Nothing is fetched that is there."""
    async with kept() as one:
        token = await one.keeper.obtain()
        one.keeper.reset()
        await one.clock.settle()
        assert one.keeper.ready() is token
        assert one.mint.calls == 1


@pytest.mark.parametrize("probes", [False, True])
async def test_waiting_is_advised_only_where_it_helps(probes: bool) -> None:
    """What lasts until something is changed has no time to come back at."""
    async with kept() as one:
        one.mint.failure = TokenError("spent", advice="Sign in anew.", lasting=True, probes=probes)
        refusal = await one.refusal()
        assert refusal.advice == "Sign in anew."
        assert refusal.headers == ()
    async with kept() as one:
        one.mint.failure = TokenError("down")
        refusal = await one.refusal()
        assert "come back in 1 s" in refusal.advice
        assert refusal.headers == (("Retry-After", "1"),)


# -- what the operator gets -----------------------------------------------------------------------


async def test_trouble_is_told_when_it_begins_and_ends() -> None:
    """One line each, however often a call fails in between for the same reason."""
    async with kept() as one:
        one.mint.failure = TokenError("refused", details="refused: AADSTS7000215", advice="Look.")
        one.keeper.start()
        await one.clock.advance(100)
        assert one.mint.calls > 3
        assert one.trouble == ["no token: refused: AADSTS7000215 (Look)"]
        one.mint.failure = TokenError("down")
        await one.clock.advance(100)
        assert one.trouble[1:] == ["no token: down"]
        one.mint.failure = None
        await one.clock.advance(100)
        (end,) = one.trouble[2:]
        assert end.startswith("a token again, after ")


async def test_trouble_that_is_told_elsewhere_is_not_told_here() -> None:
    """The process that makes the calls tells of them."""
    async with kept() as one:
        one.mint.failure = TokenError("refused", spaced=True)
        await one.refusal()
        one.mint.failure = None
        await one.clock.advance(10)
        await one.keeper.obtain()
        assert not one.trouble


async def test_remarks_are_told_once() -> None:
    """And stay in the state for later."""
    source = ScriptedTokenSource()
    source.more = {"remarks": ("the scope is narrower",), "notes": ("only for doctor",)}
    async with kept(source) as one:
        await one.keeper.obtain()
        await one.used_for(5000, every=50)
        assert source.calls > 3
        assert one.lines == ["the scope is narrower"]
        state = one.keeper.state()
        assert (state.remarks, state.notes) == (("the scope is narrower",), ("only for doctor",))
        assert str(state).endswith("; the scope is narrower")


async def test_the_state_has_the_server_s_words() -> None:
    """Details and advice for the operator; the refusal has what clients may see."""
    async with kept() as one:
        one.mint.failure = TokenError("401", details="401: secret expired", advice="Check it.")
        refusal = await one.refusal()
        assert "secret expired" not in f"{refusal}{refusal.advice}"
        assert refusal.log_detail == "no-token: 401: secret expired"
        state = one.keeper.state()
        assert (state.reason, state.advice) == ("401: secret expired", "Check it.")


# -- caches that are shared -----------------------------------------------------------------------


async def test_equal_settings_use_one_cache() -> None:
    """It is closed when its last user has closed it, and the next user gets a new one."""
    caches, made = TokenCaches(), []

    def make() -> TokenCache:
        clock = ManualClock()
        loop = asyncio.get_running_loop()
        cache = TokenCache(ScriptedTokenSource(), clock, loop.create_task)
        made.append(cache)
        return cache

    first = caches.cache("one", make)
    assert caches.cache("one", make) is first
    other = caches.cache("two", make)
    assert other is not first
    first.close()
    assert (await first.obtain()).value == b"token-1"
    first.close()
    with pytest.raises(Refusal):
        await first.obtain()
    again = caches.cache("one", make)
    assert again is not first
    assert len(made) == 3
    for cache in (again, other):
        cache.close()
