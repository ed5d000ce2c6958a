"""When spares are dialled, renewed and given up: decided on time alone."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any

import pytest

from proxy.upstream.prewarm import PrewarmPolicy


def unused(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    raise AssertionError("nothing is started here")


def prewarm_policy(
    *, prewarmed: int = 1, idle_seconds: float = 50, jitter: float = 1
) -> PrewarmPolicy:
    """In use since 0, for 300 s."""
    made = PrewarmPolicy(
        unused,
        prewarmed=prewarmed,
        in_use_seconds=300,
        idle_seconds=idle_seconds,
        jitter=lambda: jitter,
    )
    made.used = True
    made.tick(0)
    return made


def failing(one: PrewarmPolicy, seconds: float) -> list[float]:
    """The moments, on a tick each tenth of a second, at which spares that all fail are dialled."""
    attempts = []
    for tenth in range(int(seconds * 10)):
        now = tenth / 10
        if one.missing(0, 0, now):
            attempts.append(now)
            one.failed(now)
    return attempts


def test_nothing_is_wanted_before_the_first_request() -> None:
    """A route without requests has no spares."""
    quiet = PrewarmPolicy(unused, prewarmed=1, in_use_seconds=300, idle_seconds=50)
    quiet.tick(1000)
    assert not quiet.wanted
    assert quiet.missing(0, 0, 1000) == 0


def test_a_route_is_in_use_for_a_while_after_each_request() -> None:
    """Sparing goes on for its time after the last request, not after the first, and then stops."""
    one = prewarm_policy()
    one.tick(299)
    assert one.missing(0, 0, 299) == 1
    one.used = True
    one.tick(299.5)
    one.tick(599)
    assert one.missing(0, 0, 599) == 1
    one.tick(600)
    assert one.missing(0, 0, 600) == 0
    one.used = True
    assert one.missing(0, 0, 600) == 1, "at once, without a tick"


@pytest.mark.parametrize(
    ("prewarmed", "ready", "dialling", "missing"),
    [(1, 0, 0, 1), (1, 1, 0, 0), (1, 0, 1, 0), (4, 1, 1, 2), (2, 5, 0, 0), (2, 2, 2, 0)],
)
def test_what_is_missing(prewarmed: int, ready: int, dialling: int, missing: int) -> None:
    """What is ready or being dialled is not dialled again."""
    assert prewarm_policy(prewarmed=prewarmed).missing(ready, dialling, 1) == missing


@pytest.mark.parametrize(("idle_seconds", "possible"), [(0, False), (3.9, False), (4, True)])
def test_no_prewarmed_connections_where_none_could_stand(
    idle_seconds: float, possible: bool
) -> None:
    """Where connections may hardly stand unused, spares would only be dialled and closed."""
    assert prewarm_policy(idle_seconds=idle_seconds).wanted is possible


@pytest.mark.parametrize(("limit", "lead"), [(4, 2), (10, 2), (20, 4), (25, 5), (50, 5), (3600, 5)])
def test_renewal_begins_some_seconds_before_the_end(limit: float, lead: float) -> None:
    """There is time for a dial, and most of the time that a spare may stand is used."""
    assert prewarm_policy(idle_seconds=limit).lead_seconds == lead


def test_failures_are_spaced_ever_wider() -> None:
    """A provider that is down sees ever fewer attempts, one a minute in the end."""
    assert failing(prewarm_policy(), 200) == [0, 1, 3, 7, 15, 31, 63, 123, 183]


def test_the_spacing_is_random_but_never_nothing() -> None:
    """Full jitter, with a floor."""
    attempts = failing(prewarm_policy(jitter=0), 1)
    assert all(later - earlier > 0.09 for earlier, later in itertools.pairwise(attempts))
    assert failing(prewarm_policy(jitter=0.5), 8) == [0, 0.5, 1.5, 3.5, 7.5]


def test_failures_at_the_same_time_count_once() -> None:
    """Four spares that fail together are one failure."""
    one = prewarm_policy(prewarmed=4)
    for _ in range(4):
        one.failed(0)
    assert one.missing(0, 0, 0.9) == 0
    assert one.missing(0, 0, 1) == 1, "one shows whether the others are worth it"
    assert one.missing(0, 1, 1) == 0


@pytest.mark.parametrize("proof", ["served", "stood"])
def test_a_prewarmed_connection_that_was_of_use_ends_the_spacing(proof: str) -> None:
    """After a success all spares are dialled again, and the next failure is the first."""
    one = prewarm_policy(prewarmed=4)
    failing(one, 10)
    if proof == "served":
        one.served()
    else:
        one.unused(3.9)
        assert one.missing(0, 0, 20) == 1, "not of use yet"
        one.unused(4)
    assert one.missing(0, 0, 20) == 4
    one.failed(20)
    assert one.missing(0, 0, 21) == 1


def test_a_provider_shows_how_long_prewarmed_connections_may_stand() -> None:
    """A spare that is closed early shortens the time of the next, never lengthens it."""
    one = prewarm_policy()
    one.closed_early(8, 8)
    assert (one.limit_seconds, one.lead_seconds) == (8, 2)
    assert one.missing(0, 0, 8) == 1, "it is replaced at once"
    one.closed_early(9, 17)
    assert one.limit_seconds == 8


def test_prewarmed_connections_are_not_renewed_all_the_time() -> None:
    """Closed sooner than a renewal every 2 s could prevent, they are failures instead."""
    one = prewarm_policy()
    now = 0.0
    for seconds in (0, 0.5, 2, 3.9):
        one.closed_early(seconds, now)
        assert one.limit_seconds == 50
        assert one.missing(0, 0, now) == 0
        now += 20
    one.closed_early(4, now)
    assert one.limit_seconds - one.lead_seconds == 2


def test_a_quiet_route_forgets_what_it_learnt() -> None:
    """An accident of the past does not cost for ever."""
    one = prewarm_policy()
    one.closed_early(5, 5)
    failing(one, 20)
    one.tick(301)
    one.used = True
    one.tick(1000)
    assert one.limit_seconds == 50
    one.failed(1000)
    assert one.missing(0, 0, 1001) == 1
