"""Tokens for pages that talk to the provider themselves: handed out if allowed, keys never."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.emulators import HUME_KEY, HUME_SECRET, HumeEmulator, json_answer
from tests.emulators.hume import TOKEN_PATH
from tests.support.clock import ManualClock
from tests.support.keyrelay import (
    RawClient,
    Running,
    both_loops,
    exchange,
    preset_keyrelay,
    static_route,
    until,
)

pytestmark = both_loops

PAGE = "http://localhost:5173"
# What a browser sends with fetch(url, {method: "POST"}).
FETCH = (
    f"Origin: {PAGE}\r\nReferer: {PAGE}/\r\nSec-Fetch-Site: same-site\r\nSec-Fetch-Mode: cors\r\n"
    "Sec-Fetch-Dest: empty\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0\r\n"
    "Content-Length: 0\r\n"
)
LIFETIME = 1800
# A token is not handed out as valid for its last moments.
LAST = 10


class Answer:
    """What came back: the status, the head's lines in order, the body."""

    def __init__(self, said: bytes) -> None:
        head, _, self.body = said.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.fields = [tuple(line.split(": ", 1)) for line in lines]

    def values(self, name: str) -> list[str]:
        return [field[1] for field in self.fields if field[0].lower() == name.lower()]

    @property
    def json(self) -> dict[str, Any]:
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found

    @property
    def problem(self) -> str:
        """The kind of problem, of an answer that is one of ours."""
        assert self.values("Content-Type") == ["application/problem+json"]
        assert self.json["status"] == self.status
        return str(self.json["type"]).removeprefix("urn:keyrelay:problem:")


async def ask(
    running: Running, fields: str = "", *, method: str = "POST", path: str = "/-/token/hume"
) -> Answer:
    request = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n"
    return Answer(await exchange(running.port, request.encode()))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(wall=datetime.now(UTC).timestamp())


@pytest.fixture
async def hume(hume_keys: None, clock: ManualClock) -> AsyncIterator[HumeEmulator]:
    async with HumeEmulator(strategy="token", lifetime_seconds=LIFETIME, clock=clock.wall) as hume:
        yield hume


def keyrelay_to(
    hume: HumeEmulator, clock: ManualClock, **more: Any
) -> AbstractAsyncContextManager[Running]:
    """Three routes: one that hands tokens out, one that does not, and one that has a key only."""
    route = {"provider": "hume", "upstream": hume.origin}
    routes = {
        "hume": {**route, "vend": True, **more},
        "silent": route,
        "key": static_route(hume.origin, vend=True),
    }
    return preset_keyrelay(routes, origins=(PAGE,), clock=clock)


@pytest.fixture
async def running(
    hume: HumeEmulator, clock: ManualClock, dummy_key: bytes
) -> AsyncIterator[Running]:
    """With a token for each of the two routes that have one."""
    async with keyrelay_to(hume, clock) as running:
        await until(lambda: sum(has_token(running, number) for number in (0, 1)) == 2)
        yield running


def has_token(running: Running, number: int) -> bool:
    return running.app.routes[number].strategies[0].credential.describe().startswith("token ")


def one_of(hume: HumeEmulator, token: object) -> bool:
    return token in {fetched.value for fetched in hume.fetched}


# --- who gets one -----------------------------------------------------------------------------


async def test_a_page_gets_a_token(hume: HumeEmulator, running: Running) -> None:
    """Readable for its origin alone, kept by no cache, with the token's end in two forms."""
    before = datetime.now(UTC)
    answer = await ask(running, FETCH)
    assert answer.status == 200
    assert answer.values("Content-Type") == ["application/json"]
    assert answer.values("Access-Control-Allow-Origin") == [PAGE]
    assert answer.values("Access-Control-Allow-Credentials") == []
    assert answer.values("Vary") == ["Origin"]
    assert answer.values("Cache-Control") == ["no-store"]
    assert answer.values("X-Content-Type-Options") == ["nosniff"]
    assert answer.values("Connection") == []
    assert answer.json.keys() == {"token", "expires_in", "expires_at"}
    assert one_of(hume, answer.json["token"])
    assert answer.json["expires_in"] == LIFETIME - LAST
    assert answer.json["expires_at"].endswith("Z")
    ends = datetime.fromisoformat(answer.json["expires_at"])
    assert -1 <= (ends - before).total_seconds() - answer.json["expires_in"] <= 5
    assert HUME_KEY.encode() not in answer.body
    assert HUME_SECRET.encode() not in answer.body


async def test_a_page_may_ask_with_a_preflight(hume: HumeEmulator, running: Running) -> None:
    """Where its POST is no simple one; the answer says nothing about tokens."""
    asked = hume.calls
    fields = FETCH + "Access-Control-Request-Method: POST\r\n"
    fields += "Access-Control-Request-Headers: content-type\r\n"
    answer = await ask(running, fields.replace("Content-Length: 0\r\n", ""), method="OPTIONS")
    assert (answer.status, answer.body) == (204, b"")
    assert answer.values("Access-Control-Allow-Origin") == [PAGE]
    assert answer.values("Access-Control-Allow-Headers") == ["content-type"]
    assert hume.calls == asked


async def test_a_program_gets_a_token(hume: HumeEmulator, running: Running) -> None:
    """One on this machine, which could use the route just as well; without CORS headers."""
    answer = await ask(running, "User-Agent: curl/8\r\n")
    assert answer.status == 200
    assert one_of(hume, answer.json["token"])
    assert answer.values("Cache-Control") == ["no-store"]
    assert answer.values("Access-Control-Allow-Origin") == []


async def test_the_token_is_the_one_in_use(hume: HumeEmulator, running: Running) -> None:
    """Asking costs no call, and what is handed out works at the provider."""
    asked = hume.calls
    tokens = {(await ask(running, FETCH)).json["token"] for _ in range(10)}
    request = b"GET /hume/v0/evi/configs HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert (await exchange(running.port, request)).startswith(b"HTTP/1.1 200 ")
    (token,) = tokens
    assert hume.requests[-1].value("Authorization") == f"Bearer {token}"
    assert hume.calls == asked


async def test_bodies_are_read_and_mean_nothing(hume: HumeEmulator, running: Running) -> None:
    """A POST may have one; the connection goes on behind it."""
    request = b"POST /-/token/hume?x=1 HTTP/1.1\r\nHost: localhost\r\n"
    async with await RawClient.to(running.port) as one:
        for rest in (b"Content-Length: 2\r\n\r\n{}", b"\r\n"):
            one.send(request + rest)
            status, _, body = await one.answer()
            assert status == 200
            assert one_of(hume, json.loads(body)["token"])
        # One that is still coming is not waited for.
        one.send(request + b"Content-Length: 5\r\n\r\nhell")
        status, head, _ = await one.answer()
        assert status == 200
        assert b"\r\nConnection: close\r\n" in head
    chunks = b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    assert (await exchange(running.port, request + chunks)).startswith(b"HTTP/1.1 200 ")


# --- who gets none ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        FETCH.replace(PAGE, "https://evil.example"),
        FETCH.replace(PAGE, "http://localhost:51730"),
        FETCH.replace(f"Origin: {PAGE}\r\n", "Origin: null\r\n"),
        FETCH.replace(f"Origin: {PAGE}\r\n", ""),
        "Origin: https://evil.example\r\n",
        "Referer: https://evil.example/\r\n",
        "User-Agent: Mozilla/5.0\r\n",
        FETCH.replace("Mode: cors", "Mode: navigate"),
    ],
)
async def test_foreign_pages_get_nothing(
    hume: HumeEmulator, clock: ManualClock, dummy_key: bytes, fields: str
) -> None:
    """Not even a call for a token is made for them."""
    async with keyrelay_to(hume, clock) as running:
        # Of both routes, before the time passes.
        await until(lambda: has_token(running, 0) and len(hume.fetched) == 2)
        # Until there is no token any more: nobody has asked for one, so it is not renewed for ever.
        await clock.advance(LIFETIME)
        await until(lambda: len(hume.fetched) == 4)
        await clock.advance(3 * LIFETIME)
        assert (hume.calls, has_token(running, 0)) == (4, False)

        answer = await ask(running, fields)
        assert (answer.status, answer.problem) == (403, "browser-not-allowed")
        assert answer.values("Access-Control-Allow-Origin") == []
        assert b"token" not in answer.body
        assert hume.calls == 4

        assert (await ask(running, FETCH)).status == 200
        assert hume.calls == 5


async def test_foreign_hosts_get_nothing(hume: HumeEmulator, running: Running) -> None:
    """Whatever name DNS was made to give this machine."""
    request = b"POST /-/token/hume HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    assert Answer(await exchange(running.port, request)).status == 421


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_only_a_post_is_served(hume: HumeEmulator, running: Running, method: str) -> None:
    """What a link or an image can send gets nothing."""
    request = f"{method} /-/token/hume HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    async with await RawClient.to(running.port) as one:
        one.send(request)
        head = await one.head()
    assert head.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: POST\r\n" in head


async def test_it_is_off_by_default(hume: HumeEmulator, running: Running) -> None:
    """A route that does not say so hands out nothing; the answer says what to write."""
    for fields in (FETCH, ""):
        answer = await ask(running, fields, path="/-/token/silent")
        assert (answer.status, answer.problem) == (403, "vending-off")
        assert "vend: true" in answer.json["advice"]
        assert answer.values("Access-Control-Allow-Origin") == ([PAGE] if fields else [])


async def test_keys_are_never_handed_out(
    hume: HumeEmulator, running: Running, dummy_key: bytes
) -> None:
    """A route that has nothing but a key has nothing to hand out, though it may."""
    answer = await ask(running, FETCH, path="/-/token/key")
    assert (answer.status, answer.problem) == (403, "nothing-to-vend")
    assert "uses a key" in answer.json["detail"]
    assert dummy_key not in answer.body
    assert hume.connections == hume.calls


async def test_the_key_that_a_route_has_beside_its_token(
    hume: HumeEmulator, clock: ManualClock, dummy_key: bytes
) -> None:
    """If the route is told to use the key, its secret notwithstanding: no token, no call."""
    async with keyrelay_to(hume, clock, strategy="api_key") as running:
        answer = await ask(running, FETCH)
        assert (answer.status, answer.problem) == (403, "nothing-to-vend")
        assert HUME_KEY.encode() not in answer.body


@pytest.mark.parametrize(
    "name", ["", "nothing", "HUME", "hume/", "hume/x", "%68ume", "hume%2f", "hume;x"]
)
async def test_there_are_no_other_tokens(hume: HumeEmulator, running: Running, name: str) -> None:
    """The exact name of a route, or nothing."""
    answer = await ask(running, FETCH, path=f"/-/token/{name}")
    assert (answer.status, answer.problem) == (404, "no-route")


async def test_a_route_without_its_secrets(clock: ManualClock) -> None:
    """503 and what to set, as for any request to it."""
    routes = {"hume": {"provider": "hume", "upstream": "http://127.0.0.1:9", "vend": True}}
    async with preset_keyrelay(routes, origins=(PAGE,), clock=clock) as running:
        answer = await ask(running, FETCH)
        assert (answer.status, answer.problem) == (503, "route-not-ready")
        assert "HUME_API_KEY" in answer.json["advice"]


async def test_under_the_name_of_a_route_the_path_is_the_provider_s(
    hume: HumeEmulator, running: Running
) -> None:
    """At ``hume.localhost`` and on a listener of its own a route has all paths."""
    request = b"POST /-/token/hume HTTP/1.1\r\nHost: hume.localhost\r\nContent-Length: 0\r\n\r\n"
    answer = Answer(await exchange(running.port, request))
    assert answer.status == 404
    assert answer.values("Proxy-Status") == []
    assert hume.requests[-1].target == "/-/token/hume"


# --- the token's time -------------------------------------------------------------------------


async def test_the_time_that_is_left(
    hume: HumeEmulator, running: Running, clock: ManualClock
) -> None:
    """In whole seconds, never more than there are; a renewed token has its whole time again."""
    first = (await ask(running, FETCH)).json
    await clock.advance(600.5)
    second = (await ask(running, FETCH)).json
    assert second["token"] == first["token"]
    assert second["expires_in"] == LIFETIME - LAST - 601
    fetched = len(hume.fetched)
    await clock.advance(LIFETIME - 900)
    await until(lambda: len(hume.fetched) == fetched + 2)
    await until(lambda: " s old" in running.app.routes[0].strategies[0].credential.describe())
    third = (await ask(running, FETCH)).json
    assert third["token"] != first["token"]
    assert LIFETIME - LAST - 400 < third["expires_in"] <= LIFETIME - LAST


async def test_the_time_that_is_left_after_a_sleep(running: Running, clock: ManualClock) -> None:
    """A laptop that slept for ten minutes does not promise them once more."""
    clock.jump(600)
    assert (await ask(running, FETCH)).json["expires_in"] <= LIFETIME - LAST - 600


async def test_it_waits_for_the_token(
    hume: HumeEmulator, clock: ManualClock, dummy_key: bytes
) -> None:
    """The first page waits for the call under way; any number of them cause no other."""
    hume.minting.hold()
    async with keyrelay_to(hume, clock) as running:
        await hume.minting.reached(2)
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(ask(running, FETCH)) for _ in range(50)]
            await until(lambda: waiting(running) == 50)
            hume.minting.open()
        answers = [await one for one in asking]
        assert {one.status for one in answers} == {200}
        assert len({one.json["token"] for one in answers}) == 1
    assert hume.calls == 2  # one for each of the two routes


def waiting(running: Running) -> int:
    return sum(not one.idle for one in running.app._clients)


async def test_pages_that_leave_while_they_wait(
    hume: HumeEmulator, clock: ManualClock, dummy_key: bytes
) -> None:
    """They harm no other waiter, and are recorded as gone without a response."""
    hume.minting.hold()
    request = f"POST /-/token/hume HTTP/1.1\r\nHost: localhost\r\n{FETCH}\r\n".encode()
    async with keyrelay_to(hume, clock) as running:
        await hume.minting.reached(2)
        clients = [await RawClient.to(running.port) for _ in range(8)]
        for one in clients:
            one.send(request)
        await until(lambda: waiting(running) == 8)
        for number, one in enumerate(clients[:4]):
            one.reset() if number % 2 else one.close()
        await until(lambda: len(running.app._clients) == 4)
        hume.minting.open()
        for one in clients[4:]:
            assert (await one.answer())[0] == 200
            one.close()
        noted = [(one.status, one.outcome) for one in running.app.exchange_log.recent]
        assert noted == [(0, "client-left")] * 4 + [(200, "")] * 4
        assert all(
            (one.first_byte >= 0) == (one.status == 200) for one in running.app.exchange_log.recent
        )
    assert hume.calls == 2


async def test_no_token_to_hand_out(
    hume: HumeEmulator, clock: ManualClock, dummy_key: bytes
) -> None:
    """The page learns why, and when to come back."""
    hume.answer_next(json_answer(500, {"error": "CANARY"}), path=TOKEN_PATH, times=2)
    async with keyrelay_to(hume, clock) as running:
        answer = await ask(running, FETCH)
        assert (answer.status, answer.problem) == (503, "no-token")
        assert answer.values("Access-Control-Allow-Origin") == [PAGE]
        assert answer.values("Retry-After") == ["1"]
        assert "the token endpoint answered 500" in answer.json["detail"]
        assert b"CANARY" not in answer.body
        # The second failure may come before or after the first step of the clock.
        async with asyncio.timeout(5):
            while not has_token(running, 0):
                await clock.advance(2)
                await asyncio.sleep(0.001)
        assert (await ask(running, FETCH)).status == 200


async def test_what_is_noted(hume: HumeEmulator, running: Running) -> None:
    """Route, strategy, outcome, and a refusal's id, the same as in its answer; never the token."""
    token = (await ask(running, FETCH)).json["token"]
    (named,) = (await ask(running, FETCH, path="/-/token/silent")).values("X-Request-Id")
    running.app.exchange_log.flush()
    first, second = "".join(running.lines).splitlines()
    assert " hume POST /-/token/hume 200 " in first
    assert first.endswith(", token")
    assert " 403 " in second
    assert second.endswith(f", vending-off, request {named}")
    assert token not in first
