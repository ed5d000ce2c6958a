"""How much a route may do: parallel requests, and requests in a span of time."""

from __future__ import annotations

import pytest

from proxy.errors import Refusal
from proxy.routing.limits import RouteLimiter
from tests.support.keyrelay import (
    Running,
    answering,
    exchange,
    keyrelay,
    raw_provider,
    static_route,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n"


def refused(limiter: RouteLimiter) -> Refusal:
    with pytest.raises(Refusal) as caught:
        limiter.enter()
    return caught.value


def test_one_more_than_the_bound_is_refused_until_one_leaves() -> None:
    """Requests under way are counted; the place of one that ends is free again."""
    limiter = RouteLimiter("api", concurrency=2, rate=None)
    limiter.enter()
    limiter.enter()
    refusal = refused(limiter)
    assert (refusal.status, refusal.kind) == (503, "too-many-at-once")
    assert ("Retry-After", "1") in refusal.headers
    limiter.leave()
    limiter.enter()


def test_a_rate_counts_requests_that_have_ended_too() -> None:
    """A loop of short requests is what a rate is for."""
    limiter = RouteLimiter("api", concurrency=None, rate="2/hour")
    for _ in range(2):
        limiter.enter()
        limiter.leave()
    refusal = refused(limiter)
    assert (refusal.status, refusal.kind) == (429, "rate-exceeded")
    (seconds,) = [value for name, value in refusal.headers if name == "Retry-After"]
    assert 3590 <= int(seconds) <= 3601


def test_a_refused_request_takes_no_place() -> None:
    """What was refused for its rate does not count as under way."""
    limiter = RouteLimiter("api", concurrency=1, rate="1/hour")
    limiter.enter()
    limiter.leave()
    assert refused(limiter).status == 429
    assert refused(limiter).status == 429


def test_a_rate_is_a_moving_window() -> None:
    """Each request counts for the whole span after it, and what was refused does not count."""
    now = 1000.0
    limiter = RouteLimiter("api", concurrency=None, rate="2/minute", monotonic=lambda: now)

    def enter() -> None:
        limiter.enter()
        limiter.leave()

    enter()
    now += 50
    enter()
    now += 9
    assert ("Retry-After", "1") in refused(limiter).headers
    now += 1
    enter()
    assert ("Retry-After", "50") in refused(limiter).headers
    now += 50
    enter()
    now += 3600
    enter()
    enter()
    assert refused(limiter).status == 429


async def test_a_route_s_rate_is_kept_and_nothing_is_dialled(dummy_key: bytes) -> None:
    """The third request of two gets 429 of ours, and the provider does not hear of it."""
    async with raw_provider(answering(OK)) as provider:
        async with keyrelay({"api": static_route(provider.url, rate="2/hour")}) as running:
            answers = [await exchange(running.port, GET) for _ in range(3)]
        assert [answer.split()[1] for answer in answers] == [b"200", b"200", b"429"]
        assert b"Retry-After: " in answers[2]
        assert provider.connections <= 2


async def test_a_body_over_the_bound_gets_413(dummy_key: bytes) -> None:
    """An announced length is refused before anything is dialled, a streamed one when it is over."""
    async with raw_provider(answering(OK)) as provider:
        route = static_route(provider.url, max_body_bytes=10)
        async with keyrelay({"api": route}) as running:
            assert b" 413 " in await posted(running, b"Content-Length: 11\r\n\r\n")
            assert provider.connections == 0
            chunks = b"Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n6\r\nabcdef\r\n"
            assert b" 413 " in await posted(running, chunks)
            assert b" 200 " in await posted(running, b"Content-Length: 10\r\n\r\n0123456789")


async def posted(running: Running, rest: bytes) -> bytes:
    return await exchange(running.port, b"POST /api/x HTTP/1.1\r\nHost: localhost\r\n" + rest)
