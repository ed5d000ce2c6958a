"""Two values of one secret: the new key may be made known here before or after the provider."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from proxy.auth.credential import Credential, CredentialState, StaticCredential
from proxy.auth.injection import Injection, Injections, Placements
from proxy.auth.secret_rotation import RotatingCredential, Variant
from proxy.auth.token import FetchedToken, TokenError
from proxy.auth.token_cache import TokenCache
from proxy.auth.token_credential import TokenCredential
from proxy.config.placement import HeaderPlacement
from proxy.diagnostics.doctor import run_checks
from proxy.diagnostics.route_check import Result
from proxy.errors import Refusal
from proxy.secrets.secret import Secret
from tests.support.clock import ManualClock
from tests.support.keyrelay import answering, both_loops, client, exchange, keyrelay, raw_provider
from tests.support.reloading import (
    UNAUTHORIZED,
    Changing,
    KeyedProvider,
    changing,
    keyed_provider,
    rotated_route,
    token_route,
)

NEW, OLD, OLDEST = "dummy-new-key", "dummy-old-key", "dummy-oldest-key"
VALUES = (NEW, OLD, OLDEST)
BOTH = ("env:DUMMY_NEW", "env:DUMMY_OLD")
WALL = 1_800_000_000.0


def secret(name: str, value: str) -> Secret:
    return Secret("key", value.encode(), f"env:{name}")


@pytest.fixture(autouse=True)
def values(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(("NEW", "OLD", "OLDEST"), VALUES, strict=True):
        monkeypatch.setenv(f"DUMMY_{name}", value)
    monkeypatch.setenv("DUMMY_CLIENT_ID", "dummy-client-id")


def no_value_in(*texts: object) -> None:
    """No text holds a value, nor the beginning of one."""
    for text in map(str, texts):
        assert not [value for value in VALUES if value[:9] in text], text


# -- over real connections ---------------------------------------------------------------------


@asynccontextmanager
async def rotated(
    folder: Path, *accepts: str, references: Sequence[str] = BOTH
) -> AsyncIterator[tuple[Changing, KeyedProvider]]:
    """A route with several keys to a provider that takes some of them."""
    async with (
        keyed_provider(*accepts) as provider,
        changing(folder, {"api": rotated_route(provider.url, *references)}) as running,
    ):
        yield running, provider


@asynccontextmanager
async def of_tokens(
    folder: Path, *, clients: Sequence[str] = ()
) -> AsyncIterator[tuple[Changing, KeyedProvider]]:
    """The same with tokens that are made from one of two client secrets."""
    secret = ["env:DUMMY_NEW", "env:DUMMY_OLD"]
    async with (
        keyed_provider(clients=clients) as provider,
        changing(folder, {"api": token_route(provider.url, secret, vend=True)}) as running,
    ):
        yield running, provider


async def ask(running: Changing, method: str = "GET", body: bytes = b"") -> tuple[int, bytes]:
    async with client() as session:
        request = session.request(method, f"{running.url}/api/x", data=body or None)
        async with request as answer:
            return answer.status, await answer.read()


async def echoed(running: Changing, text: str = "hello") -> str | bytes:
    """What comes back over a WebSocket of its own."""
    async with running.websocket("/api/x") as socket:
        await socket.send(text)
        return await socket.recv()


@both_loops
@pytest.mark.parametrize(
    ("method", "body"), [("GET", b""), ("POST", b"dummy"), ("POST", bytes(64 * 1024))]
)
async def test_the_old_key_serves_while_the_new_one_is_refused(
    tmp_path: Path, method: str, body: bytes
) -> None:
    """The client sees no 401; the very request that was refused goes out again with the old key,
    body and all, and the next one with that at once.
    """
    async with rotated(tmp_path, OLD) as (running, provider):
        for _ in range(2):
            assert await ask(running, method, body) == (200, body or b"ok")
        assert provider.asked == [(method, "/x", key, body) for key in (NEW, OLD, OLD)]
        assert [line for line in running.said if "serves now" in line] == running.said
        assert len(running.said) == 1


@both_loops
async def test_a_handshake_is_sent_again_with_the_old_key(tmp_path: Path) -> None:
    """A WebSocket whose key is refused opens with the other one, and echoes."""
    async with rotated(tmp_path, OLD) as (running, provider):
        assert await echoed(running) == "hello"
        assert provider.asked == [("WS", "/x", key, b"") for key in (NEW, OLD)]
        assert [one.served for one in running.secrets()] == [0, 1]


async def test_it_follows_the_provider_back_and_forth(tmp_path: Path) -> None:
    """Whichever key the provider takes serves, however often that changes; a client sees nothing
    of it, over HTTP or WebSocket.
    """
    async with rotated(tmp_path, OLD) as (running, provider):
        for key in (OLD, NEW, OLD, NEW):
            provider.accepts = {key}
            assert await ask(running, "POST", b"dummy") == (200, b"dummy")
            assert provider.keys[-1] == key
            assert await echoed(running) == "hello"
            assert provider.keys[-1] == key


async def test_a_key_that_works_is_kept(tmp_path: Path) -> None:
    """While the old key serves, the new one is not tried at each request."""
    async with rotated(tmp_path, OLD) as (running, provider):
        for _ in range(3):
            await ask(running)
        provider.accepts = {NEW, OLD}
        for _ in range(3):
            await ask(running)
        assert provider.keys == [NEW, OLD, OLD, OLD, OLD, OLD, OLD]


async def test_where_every_key_is_refused(tmp_path: Path) -> None:
    """Each request tries each key once, then the provider's own 401 passes unchanged: no loop."""
    async with rotated(tmp_path) as (running, provider):
        async with client() as session, session.get(f"{running.url}/api/x") as answer:
            assert (answer.status, await answer.read()) == (401, UNAUTHORIZED)
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert answer.headers["X-Provider"] == "dummy"
        assert provider.keys == [NEW, OLD]
        with pytest.raises(InvalidStatus) as caught:
            await echoed(running)
        assert caught.value.response.status_code == 401
        assert caught.value.response.body == UNAUTHORIZED
        assert len(provider.keys) == 4


async def test_a_flood_of_refusals_is_no_flood_of_lines(tmp_path: Path) -> None:
    """Where every key is refused each turn of it is said once in a while, not for each request."""
    async with rotated(tmp_path) as (running, _):
        for _ in range(5):
            assert (await ask(running))[0] == 401
        assert len(running.said) == 2
        assert [one.refused for one in running.secrets()] == [5, 5]


async def test_a_body_that_cannot_be_sent_again(tmp_path: Path) -> None:
    """Above 64 KiB the refusal passes on, and the next request gets the other key: a client of
    such bodies alone would else never get through.
    """
    body = bytes(64 * 1024 + 1)
    async with rotated(tmp_path, OLD) as (running, provider):
        assert await ask(running, "POST", body) == (401, UNAUTHORIZED)
        assert await ask(running, "POST", body) == (200, body)
        assert provider.keys == [NEW, OLD]


async def test_other_answers_change_nothing(tmp_path: Path) -> None:
    """Only what ``refused`` lists means the key."""
    async with rotated(tmp_path, OLD) as (running, provider):
        route = running.document["routes"]["api"]
        route["auth"][0]["refused"] = [403]
        assert (await running.change(api=route)).changed == ("route api has other settings",)
        for _ in range(2):
            assert await ask(running) == (401, UNAUTHORIZED)
        assert provider.keys == [NEW, NEW]
        assert not [line for line in running.said if "serves now" in line]


async def test_three_keys(tmp_path: Path) -> None:
    """All of them are tried, beginning with the one in use."""
    route = ("env:DUMMY_NEW", "env:DUMMY_OLD", "env:DUMMY_OLDEST")
    async with rotated(tmp_path, OLDEST, references=route) as (running, provider):
        assert (await ask(running))[0] == 200
        provider.accepts = {OLD}
        assert (await ask(running))[0] == 200
        assert provider.keys == [NEW, OLD, OLDEST, OLDEST, NEW, OLD]
        provider.accepts = set()
        assert (await ask(running))[0] == 401
        assert provider.keys[6:] == [OLD, OLDEST, NEW]


async def test_a_value_that_is_not_there_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one value left there is nothing to rotate: its refusal passes on, once."""
    monkeypatch.delenv("DUMMY_NEW")
    async with rotated(tmp_path) as (running, provider):
        assert (await ask(running))[0] == 401
        assert provider.keys == [OLD]
        assert running.secrets() == ()


@both_loops
async def test_many_at_once(tmp_path: Path) -> None:
    """Requests under way with the refused key go out once more; the turn is taken once."""
    async with rotated(tmp_path, OLD) as (running, provider):
        answers = await asyncio.gather(*(ask(running, "POST", b"dummy") for _ in range(50)))
        assert answers == [(200, b"dummy")] * 50
        assert len(running.said) == 1
        assert [one.served for one in running.secrets()] == [0, 50]
        assert 50 < len(provider.keys) <= 100


async def test_what_is_said_and_what_is_not(tmp_path: Path) -> None:
    """Lines and states name references and fingerprints; no value, and no part of one."""
    async with rotated(tmp_path, OLD) as (running, _):
        await ask(running)
        new, old = secret("DUMMY_NEW", NEW).fingerprint(), secret("", OLD).fingerprint()
        assert running.said == [
            f"api: the provider refuses env:DUMMY_NEW ({new}); env:DUMMY_OLD ({old}) serves now"
        ]
        (strategy,) = running.app.routes[0].strategies
        assert strategy.credential.describe() == f"env:DUMMY_OLD ({old}) in use, of 2"
        states = running.secrets()
        assert [(one.name, one.reference, one.fingerprint) for one in states] == [
            ("key", "env:DUMMY_NEW", new),
            ("key", "env:DUMMY_OLD", old),
        ]
        no_value_in(running.said, states, strategy.credential.describe(), strategy, running.lines)


async def test_how_often_each_key_served(tmp_path: Path) -> None:
    """A request counts for the key that it was answered with, once, however it was connected;
    times are when that was.
    """
    async with rotated(tmp_path, NEW) as (running, provider):
        assert [(one.served, one.last_served) for one in running.secrets()] == [(0, None)] * 2
        before = time.time()
        await ask(running)
        await ask(running)
        await echoed(running)
        new, old = running.secrets()
        assert (new.served, new.refused, new.last_refused) == (3, 0, None)
        assert before <= (new.last_served or 0) <= time.time()
        assert (old.served, old.last_served) == (0, None)
        provider.accepts = {OLD}
        await ask(running)
        new, old = running.secrets()
        assert (new.served, new.refused) == (3, 1)
        assert (old.served, old.refused) == (1, 0)
        assert new.last_refused is not None
        assert before <= new.last_refused <= (old.last_served or 0) <= time.time()


async def test_a_reload_tries_the_first_key_again(tmp_path: Path) -> None:
    """A reload by hand means that the new key is valid by now."""
    async with rotated(tmp_path, OLD) as (running, provider):
        await ask(running)
        provider.accepts = {NEW, OLD}
        assert (await running.reload()).changed == ()
        await ask(running)
        assert provider.keys == [NEW, OLD, NEW]
        assert [one.served for one in running.secrets()] == [1, 1]


# -- tokens from two client secrets ------------------------------------------------------------


async def test_a_client_secret_that_the_token_endpoint_refuses(tmp_path: Path) -> None:
    """The token is made with the other one; no client sees a failure, and the line says why."""
    async with of_tokens(tmp_path, clients=[OLD]) as (running, provider):
        answers = await asyncio.gather(*(ask(running, "POST", b"dummy") for _ in range(20)))
        assert answers == [(200, b"dummy")] * 20
        assert await echoed(running) == "hello"
        assert provider.fetched == [NEW, OLD]
        assert {key for _, _, key, _ in provider.asked} == {"dummy-token-2"}
        (line,) = running.said
        assert line.startswith("api: no token from ")
        assert f"env:DUMMY_NEW ({secret('', NEW).fingerprint()}) (" in line
        assert "the token endpoint answered 401, invalid_client" in line
        assert line.endswith(f"env:DUMMY_OLD ({secret('', OLD).fingerprint()}) serves now")
        *_, new, old = running.secrets()
        assert (new.served, new.refused) == (0, 1)
        assert (old.served, old.refused) == (21, 0)
        no_value_in(running.said, running.secrets(), running.lines)


async def test_a_token_is_made_anew_before_the_other_secret_is_tried(tmp_path: Path) -> None:
    """A refused token may just have been revoked: another one of the same secret comes first."""
    async with of_tokens(tmp_path, clients=[NEW, OLD]) as (running, provider):
        assert (await ask(running))[0] == 200
        provider.accepts.clear()
        assert (await ask(running))[0] == 200
        assert provider.fetched == [NEW, NEW]
        assert running.said == []


async def test_tokens_of_one_secret_that_are_all_refused(tmp_path: Path) -> None:
    """When a second token of the first secret is refused too, one of the other secret serves. All
    three are masked in the answer to that one.
    """
    async with of_tokens(tmp_path, clients=[NEW, OLD]) as (running, provider):

        class OfTheOld(set[str]):
            """Tokens of the old secret."""

            def __contains__(self, token: object) -> bool:
                number = str(token).removeprefix("dummy-token-")
                return number.isdigit() and provider.fetched[int(number) - 1] == OLD

        provider.accepts = OfTheOld()
        assert await ask(running, "POST", b"dummy") == (200, b"dummy")
        assert provider.fetched == [NEW, NEW, OLD]
        assert await echoed(running) == "hello"
        *_, new, old = running.secrets()
        assert (new.refused, old.refused) == (1, 0)
        (strategy,) = next(one for one in running.app.routes if one.name == "api").strategies
        injection = await strategy.credential.obtain(websocket=False)
        assert b"dummy-token-3" in injection.headers
        told = b"dummy-token-1 dummy-token-2 dummy-token-3"
        assert injection.redactor.redact(told) == re.sub(rb"[^ ]", b"*", told)


async def test_no_client_secret_is_taken(tmp_path: Path) -> None:
    """Both are refused: requests fail closed with the reason, and the endpoint is left alone."""
    async with of_tokens(tmp_path) as (running, provider):
        for _ in range(3):
            status, body = await ask(running)
            assert status == 503
            assert b"invalid_client" in body
        assert sorted(provider.fetched) == [NEW, OLD]
        assert provider.asked == []
        assert len(running.said) == 2


async def test_a_token_is_handed_out_of_the_secret_that_works(tmp_path: Path) -> None:
    """A page gets its token although the first secret is refused."""
    async with (
        of_tokens(tmp_path, clients=[OLD]) as (running, _),
        client() as session,
        session.post(f"{running.url}/-/token/api") as answer,
    ):
        assert answer.status == 200
        assert (await answer.json())["token"] == "dummy-token-2"


# -- the strategy by itself --------------------------------------------------------------------


def key(value: str) -> Variant:
    one = Injection(headers=f"X-Api-Key: {value}\r\n".encode())
    return Variant(StaticCredential(Injections(one, None)), (secret(value, value),))


class ScriptedTokenSource:
    """Gives ``token-1``, ``token-2`` …, or fails as told."""

    def __init__(self) -> None:
        self.failure: TokenError | None = None
        self.calls = 0

    async def fetch(self) -> FetchedToken:
        self.calls += 1
        if self.failure is not None:
            raise self.failure
        return FetchedToken(f"token-{self.calls}".encode(), 1000.0)


class Rotating:
    """A strategy of keys, or of tokens, with all that surrounds it."""

    def __init__(self, *values: str, tokens: bool = False) -> None:
        self.clock = ManualClock()
        self.said: list[str] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.mints = [ScriptedTokenSource() for _ in values]
        variants = [key(value) for value in values]
        if tokens:
            variants = [
                Variant(self._token(mint), (secret(value, value),))
                for mint, value in zip(self.mints, values, strict=True)
            ]
        self.credential = RotatingCredential(
            variants,
            refused=frozenset({401}),
            clock=self.clock,
            warn=self.said.append,
        )

    def _token(self, mint: ScriptedTokenSource) -> Credential:
        placement = HeaderPlacement(header="Authorization", value="Bearer {token}")
        return TokenCredential(
            TokenCache(mint, self.clock, self._spawn, lambda: 1.0),
            Placements((placement,), None),
            values={},
            refused=frozenset({401, 403}),
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def ready(self) -> Injection:
        injection = self.credential.ready(websocket=False)
        assert injection is not None
        return injection

    async def obtain(self) -> Injection:
        return await self.credential.obtain(websocket=False)

    @property
    def state(self) -> CredentialState:
        return self.credential.state()

    @property
    def counts(self) -> list[tuple[int, int]]:
        """Of each value how often it served and was refused."""
        return [(one.served, one.refused) for one in self.state.secrets]

    async def close(self) -> None:
        self.credential.close()
        await self.clock.settle()
        assert not self.tasks


def test_a_late_refusal_leaves_the_successor_alone() -> None:
    """Of two requests that left with the first key, the one that is refused later goes out again
    with what has taken over, and moves nothing on. Each refusal is counted for its own key.
    """
    one = Rotating("a", "b")
    first = one.ready()
    assert one.credential.on_response(first, 401)
    second = one.ready()
    assert second is not first
    assert one.credential.on_response(first, 401)
    assert one.ready() is second
    assert one.counts == [(0, 2), (0, 0)]
    assert not one.credential.on_response(second, 200)
    assert one.counts == [(0, 2), (1, 0)]


def test_asking_for_a_credential_is_not_serving() -> None:
    """A credential that was at hand, but whose request did not leave, has not served."""
    one = Rotating("a", "b")
    for _ in range(3):
        one.ready()
    assert one.counts == [(0, 0), (0, 0)]


def test_times_are_those_of_the_clock() -> None:
    """Seconds since the epoch, of the last time."""
    one = Rotating("a", "b")
    one.credential.on_response(one.ready(), 200)
    one.clock.jump(5)
    one.credential.on_response(one.ready(), 404)
    one.clock.jump(5)
    one.credential.on_response(one.ready(), 401)
    (first, second) = one.state.secrets
    assert (first.served, first.last_served) == (2, WALL + 5)
    assert (first.refused, first.last_refused) == (1, WALL + 10)
    assert (second.last_served, second.last_refused) == (None, None)
    assert one.state.token is None


async def test_the_same_line_is_said_once_a_minute() -> None:
    """And again later: it may have been overlooked, and it goes on."""
    one = Rotating("a", "b")
    for _ in range(4):
        one.credential.on_response(one.ready(), 401)
    assert len(one.said) == 2
    await one.clock.advance(60)
    one.credential.on_response(one.ready(), 401)
    assert len(one.said) == 3
    assert one.said[2] == one.said[0]


def test_how_often_a_request_may_be_sent_again() -> None:
    """Once for each other key; where it is a token, once more for each that may be made anew."""
    assert Rotating("a", "b").credential.replays == 1
    assert Rotating("a", "b", "c").credential.replays == 2
    assert Rotating("a", "b", tokens=True).credential.replays == 3


def test_reconsider_begins_with_the_first() -> None:
    """Nothing is said and nothing is forgotten."""
    one = Rotating("a", "b", "c")
    first = one.ready()
    one.credential.on_response(first, 401)
    one.credential.on_response(one.ready(), 401)
    one.credential.reset()
    assert one.ready() is first
    assert one.counts == [(0, 1), (0, 1), (0, 0)]
    assert len(one.said) == 2


def test_every_key_is_masked() -> None:
    """An answer to a request with the first key may come when the second one is in use."""
    one = Rotating("a", "b")
    before = one.credential.active_injections()
    one.credential.on_response(one.ready(), 401)
    assert one.credential.active_injections() == before
    assert len(before) == 2


async def test_the_refused_key_is_masked_in_the_answer_to_the_next() -> None:
    """A provider that tells of the key that it has just refused tells nobody, and nobody of one
    that it was not yet sent.
    """
    body = f"{NEW} was replaced, {OLD} may not do this, {OLDEST} neither".encode()
    no = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
    told = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    async with raw_provider(answering(no, told)) as provider:
        references = (*BOTH, "env:DUMMY_OLDEST")
        async with keyrelay({"api": rotated_route(provider.url, *references)}) as running:
            request = b"GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
            got = await exchange(running.port, request)
    assert got.startswith(b"HTTP/1.1 403")
    assert got.endswith(b" was replaced, ************* may not do this, **************** neither")
    no_value_in(got.decode())


def test_a_key_is_not_handed_out() -> None:
    """Having two of them makes it no token."""
    one = Rotating("a", "b")
    assert not one.credential.vends
    assert one.credential.ready(websocket=True) is None


async def test_a_token_of_another_secret_is_not_taken_for_the_current_one() -> None:
    """The first secret's token is refused twice and the second secret takes over. A refusal that
    comes late, before that one has a token, does not move on again.
    """
    one = Rotating("a", "b", tokens=True)
    old = await one.obtain()
    assert one.credential.on_response(old, 401)
    newer = await one.obtain()
    assert one.mints[0].calls == 2
    assert one.credential.on_response(newer, 401)
    assert len(one.said) == 1
    for late in (newer, old):
        assert one.credential.on_response(late, 403)
    assert len(one.said) == 1
    assert (await one.obtain()).headers == b"Authorization: Bearer token-1\r\n"
    assert one.mints[1].calls == 1
    await one.close()


async def test_counts_of_calls_never_go_back() -> None:
    """Calls and failures of all values are added up; age and reason are those of the one in use."""
    one = Rotating("a", "b", tokens=True)
    one.mints[0].failure = TokenError("dummy reason", pause_seconds=60)
    await one.obtain()
    token = one.state.token
    assert token is not None
    assert (token.fetches, token.failures, token.reason) == (2, 1, "")
    assert token.age_seconds == 0
    assert one.counts == [(0, 1), (0, 0)]
    one.credential.reset()
    token = one.state.token
    assert token is not None
    assert (token.fetches, token.failures, token.reason) == (2, 1, "dummy reason")
    await one.close()


async def test_waiters_move_on_together() -> None:
    """However many wait for the token that fails, the turn is taken once."""
    one = Rotating("a", "b", "c", tokens=True)
    one.mints[0].failure = TokenError("dummy reason", pause_seconds=60)
    got = await asyncio.gather(*(one.obtain() for _ in range(50)))
    assert {injection.headers for injection in got} == {b"Authorization: Bearer token-1\r\n"}
    assert [mint.calls for mint in one.mints] == [1, 1, 0]
    assert len(one.said) == 1
    await one.close()


async def test_after_the_end_there_is_nothing() -> None:
    """A closed strategy fetches no more, with none of its values."""
    one = Rotating("a", "b", tokens=True)
    await one.obtain()
    await one.close()
    with pytest.raises(Refusal, match="no token"):
        await one.obtain()
    assert [mint.calls for mint in one.mints] == [1, 0]
    assert one.credential.active_injections() == ()
    await one.close()


# -- what is built around it -------------------------------------------------------------------


async def test_doctor_examines_a_route_with_two_keys(tmp_path: Path) -> None:
    """There is no token to obtain; the call to verify with is made."""
    async with rotated(tmp_path, NEW) as (running, _):
        results: list[Result] = []
        await run_checks(running.app.settings, results.append)
        assert [one.mark for one in results if one.what == "secret key"] == ["ok", "ok"]
        assert not [one for one in results if one.mark == "fail" or one.what == "token"]
        no_value_in(results)


async def test_a_secret_with_one_value_is_not_told_of(tmp_path: Path) -> None:
    """That a client secret was refused says nothing against the client's id, which both use."""
    async with of_tokens(tmp_path, clients=[OLD]) as (running, _):
        assert (await ask(running))[0] == 200
        assert [one.reference for one in running.secrets()] == [*BOTH]
        assert "CLIENT_ID" not in running.said[0]


async def test_a_token_without_secrets(tmp_path: Path) -> None:
    """A program that prints tokens may need no secret of ours: it is a strategy like any other."""
    async with keyed_provider("dummy-printed-token") as provider:
        route = token_route(provider.url, "env:DUMMY_NEW")
        program = ["echo", '{"token": "dummy-printed-token"}']
        route["auth"][0]["token"] = {"type": "exec", "command": program}
        del route["secrets"]
        async with changing(tmp_path, {"api": route}) as running:
            assert await ask(running) == (200, b"ok")
