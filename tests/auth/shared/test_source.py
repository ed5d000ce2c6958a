"""Tests of auth/shared/source.py: tokens that several keyrelays obtain once, through Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from proxy.auth.shared.entry import Entry
from proxy.auth.shared.server import RedisServer
from proxy.auth.shared.source import RedisTokenSource, SharedCounts
from proxy.auth.token import FetchedToken, TokenError
from proxy.clock import SystemClock
from proxy.config.token_sharing import parse_redis_url
from tests.support.keyrelay import until
from tests.support.redis_server import RedisProcess, needs_redis

pytestmark = needs_redis
IDENTITY = b"dummy-identity-of-a-token-source"
# Much longer than a busy machine needs: what is frozen has a test of its own.
PATIENT = (10.0, 10.0)


class Endpoint:
    """A token endpoint: counts calls, and responds when ``gate`` is open."""

    def __init__(self) -> None:
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: TokenError | None = None
        self.lifetime = 3600.0

    async def fetch(self) -> FetchedToken:
        self.calls += 1
        number = self.calls
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return FetchedToken(b"dummy-token-%d" % number, self.lifetime, remarks=("a remark",))


class Replicas:
    """Sources of separate keyrelays, each with connections of its own."""

    def __init__(self, url: str, endpoint: Endpoint) -> None:
        self._url = url
        self._endpoint = endpoint
        self.servers: list[RedisServer] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def one(
        self,
        *,
        alone: bool = True,
        lease_seconds: float = 3.0,
        timeouts: tuple[float, float] = PATIENT,
        counts: SharedCounts | None = None,
    ) -> RedisTokenSource:
        server = RedisServer(
            parse_redis_url(self._url),
            SystemClock(),
            self._spawn,
            check_key="keyrelay:check",
            timeouts=timeouts,
        )
        self.servers.append(server)
        return RedisTokenSource(
            server,
            Entry(IDENTITY, "access", prefix="keyrelay"),
            self._endpoint,
            SystemClock(),
            alone=alone,
            lease_seconds=lease_seconds,
            counts=counts,
        )

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        return task

    def task(self, work: Any) -> asyncio.Task[FetchedToken]:
        return asyncio.get_running_loop().create_task(work)

    async def close(self) -> None:
        for server in self.servers:
            await server.close()


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
async def replicas(redis: RedisProcess, endpoint: Endpoint) -> AsyncIterator[Replicas]:
    made = Replicas(redis.url, endpoint)
    yield made
    await made.close()


def values(tokens: Sequence[FetchedToken]) -> set[bytes]:
    return {one.value for one in tokens}


async def all_of(sources: Sequence[RedisTokenSource]) -> list[FetchedToken]:
    async with asyncio.timeout(60):
        return await asyncio.gather(*(one.fetch() for one in sources))


async def test_one_call_for_all(replicas: Replicas, endpoint: Endpoint) -> None:
    """Four that start at once cause one call, and so does every renewal by all of them."""
    sources = [replicas.one() for _ in range(4)]
    tokens = await all_of(sources)
    assert values(tokens) == {b"dummy-token-1"}
    for calls in (2, 3):
        tokens = await all_of(sources)
        assert values(tokens) == {b"dummy-token-%d" % calls}
        assert endpoint.calls == calls
    assert sum(one.counts[0] for one in tokens) == 1
    assert all(one.remarks == ("a remark",) for one in tokens)
    assert all(3590 < one.lifetime_seconds <= 3600 for one in tokens)


async def test_lost_keys_cost_one_call(
    replicas: Replicas, redis: RedisProcess, endpoint: Endpoint
) -> None:
    """A server that lost everything costs one more call for all, and no error."""
    sources = [replicas.one() for _ in range(4)]
    await all_of(sources)
    await redis.flush()
    assert values(await all_of(sources)) == {b"dummy-token-2"}
    assert endpoint.calls == 2


async def test_a_server_that_is_gone(
    replicas: Replicas, redis: RedisProcess, endpoint: Endpoint
) -> None:
    """Each obtains its own token without it, once per renewal; with it they share again."""
    counts = SharedCounts()
    sources = [replicas.one(counts=counts) for _ in range(4)]
    await all_of(sources)
    await redis.kill()
    assert len(values(await all_of(sources))) == 4
    assert endpoint.calls == 5
    assert (counts.put, counts.taken, counts.alone) == (1, 3, 4)
    await redis.start()
    for server in replicas.servers:
        assert (await server.check()).usable
    assert len(values(await all_of(sources))) == 1
    assert endpoint.calls == 6


async def test_a_server_that_is_frozen(
    replicas: Replicas, redis: RedisProcess, endpoint: Endpoint
) -> None:
    """It is waited for once, and then not at all; every request gets a token."""
    sources = [replicas.one(timeouts=(10.0, 0.2)) for _ in range(2)]
    redis.freeze()
    try:
        assert len(values(await all_of(sources))) == 2
        failures = [one.state().failures for one in replicas.servers]
        assert len(values(await all_of(sources))) == 2
    finally:
        redis.thaw()
    assert endpoint.calls == 4
    assert all(one.state().reason == "Redis does not respond in time" for one in replicas.servers)
    assert [one.state().failures for one in replicas.servers] == [one + 1 for one in failures]


async def test_nothing_is_obtained_where_that_is_wished(
    replicas: Replicas, redis: RedisProcess, endpoint: Endpoint
) -> None:
    """With ``fail`` there is no token without the server, and the reason has no value in it."""
    source = replicas.one(alone=False)
    await redis.kill()
    with pytest.raises(TokenError, match="shared through Redis: Redis cannot be reached") as raised:
        await source.fetch()
    assert (raised.value.spaced, raised.value.counts) == (True, (0, 0))
    assert endpoint.calls == 0


async def test_a_holder_that_died_is_waited_for_as_long_as_its_lease(
    replicas: Replicas, redis: RedisProcess, endpoint: Endpoint
) -> None:
    """No call before the lock has ended by itself, and then one."""
    lock = Entry(IDENTITY, "access", prefix="keyrelay").name("lock")
    await redis.command("SET", lock, "a-holder-that-died", "PX", 1500)
    gone = []

    async def fetch() -> FetchedToken:
        gone.append(await redis.command("GET", lock) != b"a-holder-that-died")
        return await plain()

    plain, endpoint.fetch = endpoint.fetch, fetch  # type: ignore[method-assign]
    tokens = await all_of([replicas.one() for _ in range(3)])
    assert values(tokens) == {b"dummy-token-1"}
    assert gone == [True]


async def test_a_slow_holder_keeps_its_lock(
    replicas: Replicas, redis: RedisProcess, endpoint: Endpoint
) -> None:
    """The lock is renewed during the call, which is not made a second time."""
    endpoint.gate.clear()
    sources = [replicas.one() for _ in range(3)]
    fetches = [replicas.task(one.fetch()) for one in sources]
    await until(lambda: endpoint.calls)
    lock = Entry(IDENTITY, "access", prefix="keyrelay").name("lock")
    left = await redis.command("PTTL", lock)
    async with asyncio.timeout(60):
        while (now := await redis.command("PTTL", lock)) <= left:
            left = now
            await asyncio.sleep(0.05)
    assert endpoint.calls == 1
    endpoint.gate.set()
    tokens = await asyncio.gather(*fetches)
    assert values(tokens) == {b"dummy-token-1"}
    assert endpoint.calls == 1


async def test_a_cancelled_holder_lets_go(
    replicas: Replicas, redis: RedisProcess, endpoint: Endpoint
) -> None:
    """The lock is gone when the cancelled call is, so that the next one need not wait."""
    endpoint.gate.clear()
    fetch = replicas.task(replicas.one().fetch())
    await until(lambda: endpoint.calls)
    fetch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetch
    assert await redis.keys() == {}
    endpoint.gate.set()
    assert (await replicas.one().fetch()).value == b"dummy-token-2"


async def test_an_unforeseen_error_lets_go(
    replicas: Replicas, redis: RedisProcess, endpoint: Endpoint
) -> None:
    """No lock stays behind it."""

    async def fetch() -> FetchedToken:
        raise RuntimeError("unforeseen")

    endpoint.fetch = fetch  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        await replicas.one().fetch()
    assert await redis.keys() == {}


async def test_a_rejected_token_is_gone_for_all(replicas: Replicas, endpoint: Endpoint) -> None:
    """One call replaces it: others that it is rejected for, and new ones, take the successor."""
    first, second = replicas.one(), replicas.one()
    before = await all_of([first, second])
    before[0].refused(True)
    assert (await first.fetch()).value == b"dummy-token-2"
    before[1].refused(True)
    after = [await second.fetch(), await replicas.one().fetch()]
    assert values(after) == {b"dummy-token-2"}
    assert endpoint.calls == 2


async def test_a_rejected_token_reaches_no_newcomer(replicas: Replicas, endpoint: Endpoint) -> None:
    """While its successor is being obtained, one that starts waits for that."""
    first = replicas.one()
    token = await first.fetch()
    token.refused(True)
    endpoint.gate.clear()
    renewal = replicas.task(first.fetch())
    await until(lambda: endpoint.calls == 2)
    newcomer = replicas.task(replicas.one().fetch())
    await asyncio.sleep(0.3)
    assert not newcomer.done()
    endpoint.gate.set()
    assert values(await asyncio.gather(renewal, newcomer)) == {b"dummy-token-2"}


async def test_a_failure_is_shared(
    replicas: Replicas, redis: RedisProcess, endpoint: Endpoint
) -> None:
    """One call fails for all, with its reason and the pause; it is counted once."""
    endpoint.failure = TokenError(
        "the token endpoint answered 503", details="in detail", advice="Wait.", pause_seconds=30
    )
    sources = [replicas.one() for _ in range(4)]
    async with asyncio.timeout(60):
        failures = await asyncio.gather(*(one.fetch() for one in sources), return_exceptions=True)
    assert endpoint.calls == 1
    assert all(isinstance(one, TokenError) for one in failures)
    told = [one for one in failures if isinstance(one, TokenError)]
    assert sorted(one.counts for one in told) == [(0, 0), (0, 0), (0, 0), (1, 1)]
    assert {(one.reason, one.details, one.advice) for one in told} == {
        ("the token endpoint answered 503", "in detail", "Wait.")
    }
    assert all(0 < one.pause_seconds <= 30 for one in told)
    # The pause is over, and the cause repaired.
    name = Entry(IDENTITY, "access", prefix="keyrelay").name("failure")
    await redis.command("PEXPIRE", name, 60_000)
    endpoint.failure = None
    assert values(await all_of(sources)) == {b"dummy-token-2"}
    assert name not in await redis.keys()


async def test_a_failure_leaves_the_token_that_serves(
    replicas: Replicas, endpoint: Endpoint
) -> None:
    """One that starts takes it, although another could not renew it."""
    first = replicas.one()
    await first.fetch()
    endpoint.failure = TokenError("the token endpoint answered 503")
    with pytest.raises(TokenError):
        await first.fetch()
    assert (await replicas.one().fetch()).value == b"dummy-token-1"


async def test_what_redis_has_is_sealed(
    replicas: Replicas, redis: RedisProcess, endpoint: Endpoint
) -> None:
    """Neither names nor values show the token or what it is made from; one hash slot has all."""
    endpoint.failure = TokenError("the token endpoint answered 503", details="CANARY-details")
    with pytest.raises(TokenError):
        await replicas.one().fetch()
    name = Entry(IDENTITY, "access", prefix="keyrelay").name("failure")
    kept = await redis.keys()
    await redis.command("PEXPIRE", name, 60_000)
    endpoint.failure = None
    await replicas.one().fetch()
    kept |= await redis.keys()
    assert len(kept) == 2
    for key, value in kept.items():
        assert b"dummy" not in value
        assert b"CANARY" not in value
        assert "dummy" not in key
        assert key.startswith("keyrelay:{")
    assert len({key[key.index("{") : key.index("}")] for key in kept}) == 1


async def test_what_was_tampered_with_is_not_used(
    replicas: Replicas, redis: RedisProcess, endpoint: Endpoint
) -> None:
    """A value that does not open is replaced by a token of keyrelay's own."""
    await replicas.one().fetch()
    (name,) = await redis.keys()
    value = bytearray((await redis.keys())[name])
    value[-1] ^= 1
    await redis.command("SET", name, bytes(value))
    assert (await replicas.one().fetch()).value == b"dummy-token-2"
    assert (await replicas.one().fetch()).value == b"dummy-token-2"


async def test_a_token_with_little_time_left_is_replaced(
    replicas: Replicas, redis: RedisProcess, endpoint: Endpoint
) -> None:
    """It is not taken over, and neither is one that lives too short put there."""
    await replicas.one().fetch()
    (name,) = await redis.keys()
    await redis.command("PEXPIRE", name, 900)
    endpoint.lifetime = 0.9
    assert (await replicas.one().fetch()).value == b"dummy-token-2"
    assert await replicas.one().fetch() is not None
    assert endpoint.calls == 3


async def test_the_life_that_is_left_is_the_servers(
    replicas: Replicas, redis: RedisProcess
) -> None:
    """What is taken over lives as long as its entry."""
    await replicas.one().fetch()
    (name,) = await redis.keys()
    await redis.command("PEXPIRE", name, 1_000_000)
    token = await replicas.one().fetch()
    assert 900 < token.lifetime_seconds <= 1000
    assert token.whole_seconds == 3600


async def test_a_token_that_is_due_is_renewed_if_that_is_possible(
    replicas: Replicas, redis: RedisProcess, endpoint: Endpoint
) -> None:
    """One that starts then obtains the next token for all, and if that fails it takes the old one,
    like all that start during the pause, or during that call.
    """
    await replicas.one().fetch()
    (name,) = await redis.keys()
    await redis.command("PEXPIRE", name, 250_000)
    endpoint.failure = TokenError("the token endpoint answered 503", pause_seconds=60)
    for _ in range(2):
        assert (await replicas.one().fetch()).value == b"dummy-token-1"
        assert endpoint.calls == 2
    await redis.command("DEL", Entry(IDENTITY, "access", prefix="keyrelay").name("failure"))
    endpoint.failure = None
    endpoint.gate.clear()
    renewal = replicas.task(replicas.one().fetch())
    await until(lambda: endpoint.calls == 3)
    assert (await replicas.one().fetch()).value == b"dummy-token-1"
    endpoint.gate.set()
    assert (await renewal).value == b"dummy-token-3"
