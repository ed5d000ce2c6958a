"""One token for several processes: each request gets it, and one of them causes the fetch."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from proxy.auth.strategy import AuthContext
from proxy.auth.token import FetchedToken, TokenError, TokenSource
from proxy.auth.token_cache import TokenCache
from proxy.auth.tokens.factory import make_source
from proxy.auth.tokens.inputs import SourceInputs
from proxy.config.oauth2 import ClientCredentials
from proxy.errors import Refusal
from proxy.process.ipc import ChannelClosed
from proxy.process.token_broker import SharedTokenSource, TokenBroker, remote
from proxy.process.worker_config import secret_as_json, secret_from_json
from proxy.secrets.secret import Secret
from proxy.upstream.tls import tls_context
from tests.support.clock import ManualClock

CANARY = "CANARY_dummy_token"


class ScriptedTokenSource:
    """Gives ``…-1``, ``…-2``, or fails as told."""

    def __init__(self, lifetime: float = 1000.0) -> None:
        self.lifetime = lifetime
        self.failure: TokenError | None = None
        self.calls = 0

    async def fetch(self) -> FetchedToken:
        self.calls += 1
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        return FetchedToken(f"{CANARY}-{self.calls}".encode(), self.lifetime)


class Host:
    """A supervisor's tokens, and keepers of workers that ask for them as over a channel."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.tasks: set[asyncio.Task[None]] = set()
        self.tokens = TokenBroker(self.clock, self.spawn)
        self.mint = ScriptedTokenSource()
        self.own: TokenSource | None = self.tokens.share("identity", self.mint)
        self.asked = 0

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def call(self, question: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        # There and back as JSON, as everything that goes over a channel.
        answer = await self.tokens.answer(json.loads(json.dumps(question)))
        back: dict[str, Any] = json.loads(json.dumps(answer))
        return back

    def worker(self, identity: str = "identity") -> TokenCache:
        return TokenCache(SharedTokenSource(remote(self.call), identity), self.clock, self.spawn)


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    one = Host()
    yield one
    one.tokens.close()
    for task in list(one.tasks):
        task.cancel()
    await one.clock.settle()
    assert not one.tasks


async def test_all_get_one_token(host: Host) -> None:
    """However many requests, and from which process: one fetch, counted by one of them."""
    workers = [host.worker() for _ in range(4)]
    got = await asyncio.gather(*(one.obtain() for one in workers for _ in range(50)))
    assert {token.value for token in got} == {f"{CANARY}-1".encode()}
    assert host.mint.calls == 1
    assert sum(one.fetches for one in workers) == 1
    assert sum(one.failures for one in workers) == 0


async def test_workers_have_the_next_token_before_the_old_one_ends(host: Host) -> None:
    """In use for ten lifetimes: a fetch for each, shared evenly by workers, no request waits."""
    workers = [host.worker() for _ in range(3)]
    for one in workers:
        await one.obtain()
    for _ in range(1000):
        await host.clock.advance(10)
        assert all(one.ready() for one in workers)
    assert 10 <= host.mint.calls <= 14
    assert host.asked <= 3 * (host.mint.calls + 2)


async def test_a_token_that_all_see_refused_is_fetched_once(host: Host) -> None:
    """Each says so, also long after the others; the one that is asked for first is fetched."""
    workers = [host.worker() for _ in range(4)]
    old = [await one.obtain() for one in workers]
    for one, token in list(zip(workers, old, strict=True))[:3]:
        assert one.reject(token)
    for one in workers[:3]:
        assert (await one.obtain()).value == f"{CANARY}-2".encode()
    await host.clock.advance(100)
    assert workers[3].reject(old[3])
    assert (await workers[3].obtain()).value == f"{CANARY}-2".encode()
    assert host.mint.calls == 2


async def test_a_provider_that_refuses_every_token_causes_no_storm(host: Host) -> None:
    """However many workers see a young token refused, there is no call for another."""
    workers = [host.worker() for _ in range(4)]
    old = [await one.obtain() for one in workers]
    assert workers[0].reject(old[0])
    second = await workers[0].obtain()
    assert not workers[0].reject(second)
    for one, token in zip(workers[1:], old[1:], strict=True):
        assert one.reject(token)
        assert not one.reject(await one.obtain())
    # One that has had the successor from the beginning.
    late = host.worker()
    assert late.reject(await late.obtain())
    assert not late.reject(await late.obtain())
    assert host.mint.calls == 2


async def test_a_token_refused_while_it_is_asked_for_is_asked_for_again(host: Host) -> None:
    """What comes back from a question asked before the refusal is not taken for its successor."""
    gate = asyncio.Event()

    async def held(question: dict[str, Any]) -> dict[str, Any]:
        answer = await host.call(question)
        await gate.wait()
        return answer

    gate.set()
    mint = SharedTokenSource(remote(held), "identity")
    first = await mint.fetch()
    gate.clear()
    got: list[FetchedToken] = []
    again = host.spawn(_taken(mint, got))
    await host.clock.settle()
    first.refused(True)
    gate.set()
    await again
    assert [one.value for one in got] == [f"{CANARY}-2".encode()]


async def _taken(mint: SharedTokenSource, got: list[FetchedToken]) -> None:
    got.append(await mint.fetch())


async def test_the_reason_is_that_of_the_call(host: Host) -> None:
    """A worker says why there is no token as the supervisor would, and when to come back; it does
    not space calls that are spaced already.
    """
    host.mint.failure = TokenError("the token endpoint is out of order", invalid_response=True)
    one = host.worker()
    for _ in range(5):
        with pytest.raises(Refusal) as caught:
            await one.obtain()
        assert (caught.value.status, caught.value.kind) == (502, "no-token")
        assert "the token endpoint is out of order." in caught.value.detail
        await host.clock.advance(61)
    failed = host.mint.calls
    assert failed > 1
    host.mint.failure = None
    # The supervisor's next try is at most a minute away, and the worker's a second.
    await host.clock.advance(62)
    assert (await one.obtain()).value.startswith(CANARY.encode())
    assert (one.fetches, one.failures) == (host.mint.calls, failed)


async def test_a_token_of_another_configuration_is_never_given(host: Host) -> None:
    """A worker that has not heard of a change yet asks for what is there no more, and again."""
    one = host.worker("another identity")
    with pytest.raises(Refusal, match="different configurations"):
        await one.obtain()
    assert host.mint.calls == 0
    host.tokens.share("another identity", ScriptedTokenSource())
    await host.clock.advance(1.5)
    assert (await one.obtain()).value == f"{CANARY}-1".encode()


async def test_what_no_route_needs_is_forgotten(host: Host) -> None:
    """Requests that began before a reload may still use it; ten minutes later none can."""
    mine = SharedTokenSource(remote(host.call), "identity")
    host.own = None
    gc.collect()
    await mine.fetch()
    await host.clock.advance(599)
    await mine.fetch()
    await host.clock.advance(601)
    with pytest.raises(TokenError, match="different configurations"):
        await mine.fetch()


async def test_a_route_that_comes_back_finds_its_token(host: Host) -> None:
    """A reload that changes something else about a route costs no call."""
    await host.worker().obtain()
    fresh = ScriptedTokenSource()
    host.own = host.tokens.share("identity", fresh)
    assert (await host.own.fetch()).value == f"{CANARY}-1".encode()
    assert fresh.calls == 0


async def test_without_a_supervisor_there_is_no_token(host: Host) -> None:
    """Its end is said as a reason, not raised as an error of its own."""

    async def gone(_question: dict[str, Any]) -> dict[str, Any]:
        raise ChannelClosed("the other process is gone")

    one = TokenCache(SharedTokenSource(remote(gone), "identity"), host.clock, host.spawn)
    with pytest.raises(Refusal, match="do not reach each other") as caught:
        await one.obtain()
    assert caught.value.status == 503


async def test_nothing_shows_a_token(host: Host) -> None:
    """Neither what is asked for nor what is kept has it in its text."""
    shared = await host.tokens.ask("identity")
    assert CANARY.encode() in shared.value
    entries = repr(vars(host.tokens))
    assert CANARY not in repr(shared) + repr(host.own) + entries


def test_a_secret_goes_there_and_back() -> None:
    """Any bytes, with name and origin."""
    secret = Secret("key", bytes(range(256)), "env:DUMMY")
    back = secret_from_json(json.loads(json.dumps(secret_as_json(secret))))
    assert (back.name, back.reveal(), back.reference) == ("key", bytes(range(256)), "env:DUMMY")


# -- which token is which ----------------------------------------------------------------------


def identity(base: str = "https://api.test", key: bytes = b"dummy", **more: Any) -> str:
    """Under which name the token of these settings is shared."""
    found: list[str] = []

    def share(name: str, mint: TokenSource, _warn: Callable[[str], object]) -> TokenSource:
        found.append(name)
        return mint

    def spawn(_work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        raise NotImplementedError

    settings = ClientCredentials.model_validate(
        {
            "type": "oauth2_client_credentials",
            "url": "/token",
            "client_id": "{id}",
            "client_secret": "{key}",
            **more,
        }
    )
    means = AuthContext(ManualClock(), tls_context(), spawn, share=share)
    make_source(settings, SourceInputs({"id": b"dummy-id", "key": key}, base), means)
    (name,) = found
    return name


def test_what_a_token_is_made_from_says_which_it_is() -> None:
    """The same of the same, another one for another place, secret or setting; and no name shows a
    secret.
    """
    names = [
        identity(),
        identity(base="https://other.test"),
        identity(key=b"dummy-2"),
        identity(scope="read"),
        identity(url="/other"),
    ]
    assert identity() == names[0]
    assert len(set(names)) == len(names)
    assert all(len(name) == 64 and "dummy" not in name for name in names)
