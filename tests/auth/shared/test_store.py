"""Tests of auth/shared/store.py: refresh tokens in Redis, each redeemed once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.auth.shared.entry import Entry
from proxy.auth.shared.server import RedisServer
from proxy.auth.shared.store import RedisTokenStore
from proxy.auth.token import TokenError
from proxy.auth.token_store import StoredToken, StoredTokens
from proxy.clock import SystemClock
from proxy.config.token_sharing import parse_redis_url
from tests.support.clock import ManualClock
from tests.support.redis_server import RedisProcess, needs_redis

pytestmark = needs_redis
FIRST = b"CANARY-first-refresh-token"
SECOND, THIRD = b"CANARY-second-refresh-token", b"CANARY-third-refresh-token"


def name(part: str, first: bytes = FIRST) -> str:
    return Entry(first, "refresh", prefix="keyrelay").name(part)


class Replicas:
    """Stores of separate keyrelays, each with connections of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.servers: list[RedisServer] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    def one(
        self,
        first: bytes = FIRST,
        *,
        wall: float | None = None,
        answer_seconds: float = 10.0,
        call_seconds: float = 10.0,
        watched: bool = False,
        keep_seconds: float = 60.0,
    ) -> RedisTokenStore:
        server = RedisServer(
            parse_redis_url(self._url),
            SystemClock(),
            self.task,
            check_key="keyrelay:check",
            timeouts=(10.0, answer_seconds),
        )
        if watched:
            server.start()
        self.servers.append(server)
        return RedisTokenStore(
            server,
            Entry(first, "refresh", prefix="keyrelay"),
            first,
            SystemClock() if wall is None else ManualClock(wall=wall),
            self.task,
            call_seconds=call_seconds,
            keep_seconds=keep_seconds,
        )

    def task(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        return task

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in self.servers:
            await server.close()


@pytest.fixture
async def replicas(redis: RedisProcess) -> AsyncIterator[Replicas]:
    made = Replicas(redis.url)
    yield made
    await made.close()


async def exchange(store: RedisTokenStore, successor: bytes = SECOND) -> StoredTokens:
    """What a source does in its turn; returns what was kept before."""
    async with store.lock():
        kept = await store.read()
        await store.reserve()
        await store.write(StoredTokens(successor))
    return kept


async def read(store: RedisTokenStore) -> StoredTokens:
    async with store.lock():
        return await store.read()


async def test_what_is_written_is_read(replicas: Replicas) -> None:
    """Nothing until something was written; then every keyrelay has it, with its access tokens."""
    store, other = replicas.one(wall=1000.0), replicas.one(wall=1000.0)
    assert await read(store) == StoredTokens()
    tokens = StoredTokens(SECOND, {"one": StoredToken(b"CANARY-access", 1500.0, 600.0)})
    async with store.lock():
        await store.reserve()
        await store.write(tokens)
    for reader in (store, other, replicas.one(wall=1000.0)):
        kept = await read(reader)
        assert kept.refresh_token == SECOND
        assert kept.access_tokens["one"].value == b"CANARY-access"
        assert kept.access_tokens["one"].lifetime_seconds == 600.0
        assert 1400 < kept.access_tokens["one"].expires_at <= 1500


async def test_clocks_need_not_agree(replicas: Replicas) -> None:
    """What is left of an access token is the same for a keyrelay whose clock is a day ahead."""
    tokens = StoredTokens(SECOND, {"one": StoredToken(b"CANARY-access", 1500.0, 600.0)})
    store = replicas.one(wall=1000.0)
    async with store.lock():
        await store.reserve()
        await store.write(tokens)
    kept = await read(replicas.one(wall=87_400.0))
    assert 87_800 < kept.access_tokens["one"].expires_at <= 87_900


async def test_another_sign_in_has_another_entry(replicas: Replicas) -> None:
    """What descends from another refresh token of the configuration is not found."""
    await exchange(replicas.one())
    assert await read(replicas.one(b"CANARY-another-sign-in")) == StoredTokens()


async def test_what_redis_has_is_sealed(replicas: Replicas, redis: RedisProcess) -> None:
    """No refresh token can be read there, nothing but the tokens stays, and that without an end."""
    await exchange(replicas.one())
    kept = await redis.keys()
    assert set(kept) == {name("refresh")}
    assert b"CANARY" not in kept[name("refresh")]
    assert await redis.command("PTTL", name("refresh")) == -1


async def test_one_at_a_time(replicas: Replicas) -> None:
    """The second one that wants the lock gets it when the first has written, and reads that."""
    first, second = replicas.one(), replicas.one()
    async with first.lock():
        waiting = replicas.task(exchange(second, THIRD))
        await first.reserve()
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await first.write(StoredTokens(SECOND))
    assert (await waiting).refresh_token == SECOND
    assert (await read(first)).refresh_token == THIRD


async def test_one_task_of_a_keyrelay_at_a_time(replicas: Replicas) -> None:
    """The lock also keeps two tasks of one store apart."""
    store = replicas.one()
    async with store.lock():
        waiting = replicas.task(read(store))
        await asyncio.sleep(0.2)
        assert not waiting.done()
    assert await waiting == StoredTokens()


async def test_a_change_is_known_without_the_lock(replicas: Replicas) -> None:
    """Whether another has written, or holds the lock; not what one has read or written oneself."""
    store, other = replicas.one(), replicas.one()
    await read(store)
    assert not await store.changed()
    await exchange(other)
    assert await store.changed()
    assert not await other.changed()
    await read(store)
    assert not await store.changed()
    async with other.lock():
        assert await store.changed()
    assert not await store.changed()


async def test_nothing_is_spent_without_the_server(replicas: Replicas, redis: RedisProcess) -> None:
    """Neither lock nor reservation succeeds; the error is spaced, and the store is not changed."""
    store, late = replicas.one(), replicas.one()
    async with late.lock():
        await redis.kill()
        with pytest.raises(TokenError, match="Redis cannot be reached"):
            await late.reserve()
    with pytest.raises(TokenError, match="Redis cannot be reached") as raised:
        await read(store)
    assert (raised.value.spaced, raised.value.counts) == (True, (0, 0))
    assert not await store.changed()


async def test_nothing_is_spent_without_the_lock(replicas: Replicas, redis: RedisProcess) -> None:
    """A holder whose lock has ended before its call makes none."""
    store = replicas.one()
    async with store.lock():
        await redis.command("DEL", name("lock"))
        with pytest.raises(TokenError, match="ended too soon"):
            await store.reserve()
    assert name("spending") not in await redis.keys()


async def test_a_spent_token_is_not_read_by_others(replicas: Replicas, redis: RedisProcess) -> None:
    """While a holder spends a refresh token, its lock may end: no other one gets in before it has
    written, however long that takes.
    """
    first, second = replicas.one(), replicas.one()
    async with first.lock():
        await first.reserve()
        await redis.command("DEL", name("lock"))
        waiting = replicas.task(exchange(second, THIRD))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        await first.write(StoredTokens(SECOND))
    assert (await waiting).refresh_token == SECOND


async def test_a_successor_is_kept_when_the_server_is_back(
    replicas: Replicas, redis: RedisProcess
) -> None:
    """A holder that cannot write goes on trying; until then no other one spends anything, and
    then they have the successor.
    """
    first = replicas.one(answer_seconds=0.3, watched=True, keep_seconds=0.5)
    second = replicas.one()

    async def write() -> None:
        async with first.lock():
            await first.reserve()
            redis.freeze()
            await first.write(StoredTokens(SECOND))

    with pytest.raises(TokenError, match="does not respond in time"):
        await write()
    # Its lock ends while the server stands still.
    await asyncio.sleep(3.2)
    redis.thaw()
    assert (await exchange(second, THIRD)).refresh_token == SECOND
    assert await replicas.servers[0].available(30)
    assert (await read(first)).refresh_token == THIRD


async def test_a_failed_call_leaves_no_mark(replicas: Replicas, redis: RedisProcess) -> None:
    """After a call that brought nothing the next one may spend at once."""
    store = replicas.one()

    async def fail() -> None:
        async with store.lock():
            await store.reserve()
            raise RuntimeError("the token endpoint failed")

    with pytest.raises(RuntimeError):
        await fail()
    assert await redis.keys() == {}


async def test_a_holder_that_died_before_it_spent(replicas: Replicas, redis: RedisProcess) -> None:
    """Its lease is waited for, no longer."""
    await redis.command("SET", name("lock"), "a-holder-that-died", "PX", 1000)
    async with asyncio.timeout(30):
        assert await read(replicas.one()) == StoredTokens()


@pytest.mark.seconds
async def test_a_holder_that_died_while_it_spent(replicas: Replicas, redis: RedisProcess) -> None:
    """Its mark counts until no call can be as old, and until a live holder would have written."""
    store = replicas.one(call_seconds=0.0)
    seconds = int((await redis.command("TIME"))[0])
    await redis.command("SET", name("spending"), f"{'0' * 32}:{seconds}")
    waiting = replicas.task(read(store))
    await asyncio.sleep(3)
    assert not waiting.done()
    async with asyncio.timeout(60):
        assert await waiting == StoredTokens()
    assert name("spending") not in await redis.keys()


async def test_a_late_successor_is_void(replicas: Replicas, redis: RedisProcess) -> None:
    """A holder that was taken for dead cannot write over what came after it."""
    first, second = replicas.one(), replicas.one()

    async def write_late() -> None:
        async with first.lock():
            await first.reserve()
            await redis.command("DEL", name("lock"), name("spending"))
            await exchange(second, THIRD)
            await first.write(StoredTokens(SECOND))

    with pytest.raises(TokenError, match="has replaced the refresh token"):
        await write_late()
    assert (await read(first)).refresh_token == THIRD


async def test_a_lost_successor_is_not_replaced_by_a_spent_token(
    replicas: Replicas, redis: RedisProcess
) -> None:
    """After the server has lost it, a keyrelay that knows of it does not return to the first one;
    where nothing was replaced, the first one is as good as before.
    """
    store, other = replicas.one(), replicas.one()
    await exchange(store)
    await read(other)
    await redis.flush()
    for one in (store, other):
        with pytest.raises(TokenError, match="has lost the refresh token") as raised:
            await read(one)
        assert raised.value.lasting
    unchanged = replicas.one()
    await exchange(unchanged, FIRST)
    await redis.flush()
    assert await read(unchanged) == StoredTokens()


async def test_what_was_tampered_with_is_not_used(replicas: Replicas, redis: RedisProcess) -> None:
    """A value that does not open is an error that lasts, and no reason to spend the first one."""
    await exchange(replicas.one())
    value = bytearray((await redis.keys())[name("refresh")])
    value[-1] ^= 1
    await redis.command("SET", name("refresh"), bytes(value))
    with pytest.raises(TokenError, match="cannot be opened"):
        await read(replicas.one())


async def test_waiting_for_the_lock_can_be_cancelled(replicas: Replicas) -> None:
    """It harms neither the holder nor the next one."""
    first, second = replicas.one(), replicas.one()
    async with first.lock():
        waiting = replicas.task(read(second))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert await read(second) == StoredTokens()
