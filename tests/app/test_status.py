"""The snapshot: what it says of a keyrelay that runs, and how those of several are added up."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from proxy import __version__
from proxy.app.status import Reload, Reloads, _secrets, merged, snapshot
from proxy.auth.credential import CredentialState, SecretState, StaticCredential
from proxy.auth.injection import Injection, Injections, Placements
from proxy.auth.strategy import Strategy
from proxy.auth.token import FetchedToken, TokenError, TokenState
from proxy.auth.token_cache import TokenCache
from proxy.observability.exchange_log import ExchangeRecord
from tests.support.clock import ManualClock
from tests.support.keyrelay import (
    SECRET,
    RawClient,
    Running,
    answering,
    both_loops,
    client,
    keyrelay,
    proxied,
    raw_provider,
    static_route,
    until,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TOKEN = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 73\r\n\r\n"
    b'{"access_token": "dummy-token", "token_type": "bearer","expires_in": 900}'
)


@pytest.fixture
async def running(dummy_key: bytes) -> AsyncIterator[Running]:
    async with raw_provider(answering(OK)) as provider:
        routes = {
            "api": static_route(provider.url),
            "unready": static_route(provider.url, secrets={"key": "env:DUMMY_MISSING"}),
        }
        async with keyrelay(routes) as running:
            yield running


async def test_what_is_said_of_a_route(running: Running) -> None:
    """Names, readiness, strategies, pool, and how much was done; all of it is JSON."""
    app = running.app
    async with client() as session:
        for _ in range(2):
            async with session.get(f"{running.url}/api/CANARY?CANARY") as answer:
                assert await answer.read() == b"ok"
    said = json.loads(json.dumps(snapshot(app)))
    assert said["version"] == __version__
    assert said["pids"] == [os.getpid()]
    assert said["at"] >= said["started"]
    assert said["listeners"] == [{"url": running.url, "route": None}]
    route = said["routes"]["api"]
    assert route["origin"] == str(running.app.routes[0].origin)
    assert (route["unready"], route["prefix"]) == ("", "/api")
    assert route["strategies"] == [{"name": "key", "scope": "every path", "credential": None}]
    assert route["secrets"] == []
    assert {name: route["pool"][name] for name in ("dialled", "reused", "idle")} == {
        "dialled": 1,
        "reused": 1,
        "idle": 1,
    }
    assert "DUMMY_MISSING" in said["routes"]["unready"]["unready"]
    assert said["tally"]["api"]["requests"] == {"GET": {"200": 2}}
    assert said["reloads"] == {"count": 0, "failed": 0, "last": None}
    assert "CANARY" not in json.dumps(said)
    assert SECRET.decode() not in json.dumps(said)


async def test_what_is_under_way(running: Running) -> None:
    """Requests and open WebSockets are told apart; a handshake counts as a request until then."""
    app = running.app
    opened = ExchangeRecord("api", "GET", "/", websocket=True)
    opened.response_started(101)
    every = [
        opened,
        ExchangeRecord("api", "GET", "/", websocket=True),
        ExchangeRecord("api", "GET", "/"),
    ]
    for one in every:
        app.exchange_log.begin(one)
    route = snapshot(app)["routes"]["api"]
    assert (route["in_flight"], route["websockets"]) == (2, 1)
    for one in every:
        app.exchange_log.finish(one)
    said = snapshot(app)
    route = said["routes"]["api"]
    assert (route["in_flight"], route["websockets"]) == (0, 0)
    # Nothing is lost between the two: what ended is counted in the same snapshot.
    assert sum(said["tally"]["api"]["requests"]["GET"].values()) == 3


@both_loops
async def test_a_request_is_under_way_until_it_has_ended(dummy_key: bytes) -> None:
    """From when it leaves for the provider; a client that goes away ends it."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with proxied(hang) as (_, running):

        def in_flight() -> int:
            found: int = snapshot(running.app)["routes"]["api"]["in_flight"]
            return found

        async with await RawClient.to(running.port) as asking:
            asking.send(b"GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await until(lambda: in_flight() == 1)
        await until(lambda: in_flight() == 0)
        assert snapshot(running.app)["tally"]["api"]["broken"] == {"client-left": 1}


async def test_what_is_said_of_a_token(dummy_key: bytes) -> None:
    """Its age, its renewal and its calls; not the token."""
    async with raw_provider(answering(TOKEN)) as provider:
        auth = {
            "name": "token",
            "token": {
                "type": "oauth2_client_credentials",
                "url": "/token",
                "client_id": "id",
                "client_secret": "{key}",
            },
            "http": {"header": "Authorization", "value": "Bearer {token}"},
        }
        async with keyrelay({"api": static_route(provider.url, auth=[auth])}) as running:
            app = running.app

            def credential() -> dict[str, Any]:
                found: dict[str, Any] = snapshot(app)["routes"]["api"]["strategies"][0][
                    "credential"
                ]
                return found

            await until(lambda: credential()["fetches"])
            said = credential()
            assert 0 <= said.pop("age_seconds") < 10
            assert 500 < said.pop("renews_in_seconds") < 900
            assert said == {
                "fetches": 1,
                "failures": 0,
                "last_failure": "",
                "advice": "",
                "remarks": [],
            }
            assert "dummy-token" not in json.dumps(snapshot(app))


class Flaky:
    """Gives a token, or fails."""

    def __init__(self) -> None:
        self.failing = False

    async def fetch(self) -> FetchedToken:
        if self.failing:
            raise TokenError("it is down")
        return FetchedToken(b"dummy-token", 1000)


async def test_the_calls_for_tokens_are_counted() -> None:
    """Each that came to an end, failed ones also by themselves; a success ends the reason."""
    clock, token_source = ManualClock(), Flaky()
    tasks: set[asyncio.Task[None]] = set()

    def spawn(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        tasks.add(task)
        return task

    token_cache = TokenCache(token_source, clock, spawn, jitter=lambda: 1.0)
    assert token_cache.state() == TokenState(None, None, 0, 0, "")
    assert str(token_cache.state()) == token_cache.describe() == "no token yet"
    await token_cache.obtain()
    await clock.advance(100)
    assert token_cache.state() == TokenState(100.0, 660.0, 1, 0, "")
    token_source.failing = True
    await clock.advance(660.5)
    assert token_cache.state() == TokenState(760.5, 0, 2, 1, "it is down")
    assert token_cache.describe() == "token 13 min old, renewed in 0 s"
    await clock.advance(300)
    said = token_cache.state()
    assert (said.age_seconds, said.renews_in_seconds) == (None, None)
    assert said.failures == said.fetches - 1 > 1
    assert token_cache.describe() == "no token: it is down"
    token_source.failing = False
    await token_cache.obtain()
    now = token_cache.state()
    assert (now.fetches, now.failures, now.reason) == (said.fetches + 1, said.failures, "")
    token_cache.close()
    await asyncio.gather(*tasks, return_exceptions=True)


NEW = SecretState("api_key", "env:NEW", "0a1b2c3d", served=3, last_served=5.0, current=True)
OLD = SecretState("api_key", "env:OLD", "99999999", refused=1, last_refused=7.0)


class Rotating(StaticCredential):
    """A credential with statistics of its secrets."""

    __slots__ = ()

    def state(self) -> CredentialState:
        return CredentialState(secrets=(NEW, OLD))


def test_what_is_said_of_secrets() -> None:
    """Where each comes from and how it served; once, however many strategies share it."""
    both = [
        Strategy(name, None, Placements(None, None), Rotating(Injections(Injection(), None)))
        for name in ("first", "second")
    ]
    assert _secrets(both) == [
        {
            "name": "api_key",
            "reference": "env:NEW",
            "fingerprint": "0a1b2c3d",
            "served": 3,
            "last_served": 5.0,
            "refused": 0,
            "last_refused": None,
            "current": True,
        },
        {
            "name": "api_key",
            "reference": "env:OLD",
            "fingerprint": "99999999",
            "served": 0,
            "last_served": None,
            "refused": 1,
            "last_refused": 7.0,
            "current": False,
        },
    ]


async def test_reloads_are_counted(running: Running) -> None:
    """Those that were taken, those that were not, and what the last one said."""
    app = running.app
    app.reloads.note(Reload(1.0, changed=("routes: one more",)))
    app.reloads.note(Reload(2.0, findings=("routes.yaml:1:1: no",)))
    assert json.loads(json.dumps(snapshot(app)))["reloads"] == {
        "count": 1,
        "failed": 1,
        "last": {"at": 2.0, "findings": ["routes.yaml:1:1: no"], "changed": [], "warnings": []},
    }
    assert Reloads() == Reloads(0, 0, None)


async def test_snapshots_of_processes_add_up(running: Running) -> None:
    """Counts are summed, also where a route has secrets or tokens; states are the first's."""
    app = running.app
    running.app.exchange_log.finish(ExchangeRecord("api", "GET", "/", status=200))
    first = snapshot(app)
    route = first["routes"]["api"]
    route["secrets"] = [
        {"name": "api_key", "reference": "env:NEW", "served": 2, "last_served": 5.0},
        {"name": "api_key", "reference": "env:OLD", "served": 0, "last_served": None},
    ]
    route["strategies"][0]["credential"] = {"age_seconds": 4.0, "fetches": 1, "failures": 0}
    route["in_flight"] = 2
    second = json.loads(json.dumps(first))
    second["pids"] = [1]
    second["routes"]["api"]["secrets"][0]["last_served"] = 9.0
    second["routes"]["api"]["strategies"][0]["credential"]["age_seconds"] = 8.0
    second["routes"].pop("unready")
    said = merged([first, second])
    assert said["pids"] == [os.getpid(), 1]
    assert set(said["routes"]) == {"api", "unready"}
    assert said["routes"]["api"]["in_flight"] == 4
    assert said["routes"]["api"]["strategies"][0]["credential"] == {
        "age_seconds": 4.0,
        "fetches": 2,
        "failures": 0,
    }
    assert said["routes"]["api"]["secrets"] == [
        {"name": "api_key", "reference": "env:NEW", "served": 4, "last_served": 9.0},
        {"name": "api_key", "reference": "env:OLD", "served": 0, "last_served": None},
    ]
    assert said["tally"]["api"]["requests"] == {"GET": {"200": 2}}
    assert said["version"] == first["version"]
    assert merged([first]) == first
