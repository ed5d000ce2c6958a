"""How one set of services follows another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.app.route_services import RouteServices, keep_last
from proxy.auth.strategy import AuthContext
from proxy.config.settings import Settings
from proxy.errors import KeyrelayError
from proxy.observability.exchange_log import ExchangeRecord
from proxy.routing.route_secrets import ResolvedSecrets, read_secrets, secrets_of, variables_in
from proxy.upstream.tls import tls_context
from tests.support.certificates import Authority
from tests.support.clock import ManualClock
from tests.support.keyrelay import static_route, until
from tests.support.reloading import keyed_provider, put, token_route

KEY = "dummy-real-key"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_KEY", KEY)
    monkeypatch.setenv("DUMMY_CLIENT_ID", "dummy-client-id")
    monkeypatch.delenv("DUMMY_OTHER", raising=False)


def settings(**routes: Any) -> Settings:
    return Settings.model_validate({"routes": routes})


def route(**more: Any) -> dict[str, Any]:
    return static_route("https://api.example.com", **more)


OTHER = {"key": "env:DUMMY_OTHER"}


class Kept:
    """Services, and the settings that they are given."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.means = AuthContext(ManualClock(), tls_context(), self._spawn)
        self.route_services = RouteServices(self.means, asyncio.get_running_loop(), lambda: ())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def prepare(self, **routes: Any) -> dict[str, Any]:
        checked = settings(**routes)
        return self.route_services.prepare(checked, read_secrets(checked), None)

    def put_in_force(self, **routes: Any) -> None:
        self.route_services.put_in_force(self.prepare(**routes))

    def tick(self, *exchanges: ExchangeRecord) -> int:
        """Let a second pass; how many services are still ending."""
        self.route_services.expire(asyncio.get_running_loop().time(), exchanges)
        return len(self.route_services._retired)


@asynccontextmanager
async def kept() -> AsyncIterator[Kept]:
    one = Kept()
    try:
        yield one
    finally:
        one.route_services.close()
        await until(lambda: not one.tasks)


async def test_what_is_the_same_is_the_very_same() -> None:
    """Route by route: the service in force where nothing is different, else a new one."""
    async with kept() as one:
        one.put_in_force(a=route(), b=route())
        before = one.route_services.in_force
        after = one.prepare(a=route(), b=route(methods=["GET"]), c=route())
        assert after["a"] is before["a"]
        assert after["b"] is not before["b"]
        assert list(one.route_services.differences(after)) == [
            "route b has other settings",
            "route c is new",
        ]
        assert list(one.route_services.differences({"b": before["b"]})) == ["route a is gone"]
        assert list(one.route_services.differences(before)) == []
        assert one.route_services.in_force is before


async def test_other_secrets_are_another_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """By their value, though the settings are the same."""
    async with kept() as one:
        one.put_in_force(a=route())
        monkeypatch.setenv("DUMMY_KEY", "dummy-new-key")
        after = one.prepare(a=route())
        assert list(one.route_services.differences(after)) == ["route a has other secrets"]


async def test_what_is_discarded_was_not_in_force() -> None:
    """Those that are stay open; nothing of the others is left."""
    async with keyed_provider(clients=["dummy-real-key"]) as provider, kept() as one:
        first = token_route(provider.url, "env:DUMMY_KEY")
        one.put_in_force(a=first)
        (strategy,) = one.route_services.strategies()
        await strategy.credential.wait_ready()
        prepared = one.prepare(a=first, b=token_route(provider.url, "env:DUMMY_KEY"))
        one.route_services.discard(prepared)
        assert strategy.credential.ready(websocket=False) is not None
        assert len(provider.fetched) == 1
        (other,) = prepared["b"].route.strategies
        other.credential.start()
        assert other.credential.ready(websocket=False) is None
        assert len(one.tasks) == 1


async def test_only_new_strategies_begin() -> None:
    """A token is fetched for what comes into force, once."""
    async with keyed_provider(clients=["dummy-real-key"]) as provider, kept() as one:
        routes = {"a": token_route(provider.url, "env:DUMMY_KEY")}
        prepared = one.prepare(**routes)
        assert not one.tasks
        one.route_services.put_in_force(prepared)
        await until(lambda: provider.fetched)
        one.put_in_force(**routes)
        one.put_in_force(**routes, b=token_route(provider.url, "env:DUMMY_KEY"))
        await until(lambda: len(provider.fetched) == 2)


async def test_a_route_must_not_lose_what_it_has() -> None:
    """A route that served has to go on; another, or a new one, may lack its secrets. If ``strict``
    nobody may. Every such route is named, each in its line.
    """
    async with kept() as one:
        one.put_in_force(a=route(), b=route(), c=route(secrets=OTHER))
        lost = one.prepare(
            a=route(secrets=OTHER), b=route(secrets=OTHER), c=route(secrets=OTHER), d=route()
        )
        with pytest.raises(KeyrelayError) as caught:
            one.route_services.check_ready(lost, strict=False)
        assert str(caught.value).splitlines() == [
            "a: not ready: set DUMMY_OTHER",
            "b: not ready: set DUMMY_OTHER",
        ]
        new = one.prepare(a=route(), c=route(secrets=OTHER), e=route(secrets=OTHER))
        one.route_services.check_ready(new, strict=False)
        with pytest.raises(KeyrelayError, match=r"c: not ready.*\ne: not ready"):
            one.route_services.check_ready(new, strict=True)


async def test_the_retired_end_with_their_last_request() -> None:
    """A service ends when nothing of what began under it is open; what other services and other
    routes serve does not keep it, nor does an open WebSocket, which needs it no more.
    """
    async with kept() as one:
        one.put_in_force(a=route())
        first = ExchangeRecord("a", "GET", "/x")
        one.put_in_force(a=route(methods=["GET"]))
        second = ExchangeRecord("a", "GET", "/x")
        one.put_in_force(b=route())
        later, other = ExchangeRecord("a", "GET", "/x"), ExchangeRecord("b", "GET", "/x")
        assert one.tick(first, second, later, other) == 2
        assert one.tick(second, later, other) == 1
        second.response_started(101)
        assert one.tick(second, later, other) == 0
        one.put_in_force(a=route())
        one.put_in_force(b=route())
        assert one.tick(first, second, later, other) == 1
        assert one.tick(first, second, later) == 0


async def test_a_handshake_under_way_keeps_its_service() -> None:
    """Until the provider has agreed."""
    async with kept() as one:
        one.put_in_force(a=route())
        handshake = ExchangeRecord("a", "GET", "/x", websocket=True)
        one.put_in_force()
        assert one.tick(handshake) == 1
        handshake.response_started(101)
        assert one.tick(handshake) == 0


async def test_a_retired_strategy_is_closed_and_no_other() -> None:
    """It forgets its token when the service ends, not before."""
    async with keyed_provider(clients=["dummy-real-key"]) as provider, kept() as one:
        one.put_in_force(a=token_route(provider.url, "env:DUMMY_KEY"))
        (strategy,) = one.route_services.strategies()
        await strategy.credential.wait_ready()
        under_way = ExchangeRecord("a", "GET", "/x")
        one.put_in_force(a=token_route(provider.url, "env:DUMMY_KEY", methods=["GET"]))
        (new,) = one.route_services.strategies()
        await new.credential.wait_ready()
        one.tick(under_way)
        assert strategy.credential.ready(websocket=False) is not None
        one.tick()
        assert strategy.credential.ready(websocket=False) is None
        assert new.credential.ready(websocket=False) is not None


async def test_maskers_are_those_of_the_route() -> None:
    """Every credential that it may use now; none of a route that is gone."""
    async with kept() as one:
        one.put_in_force(a=route())
        assert {
            redactor.redact(f"x {KEY} y".encode()) for redactor in one.route_services.redactors("a")
        } == {b"x ************** y"}
        assert list(one.route_services.redactors("gone")) == []


async def test_withheld_fields_stay_here() -> None:
    """What no client may send to any provider is dropped by each route."""
    means = AuthContext(ManualClock(), tls_context(), lambda work: asyncio.Task(work))
    route_services = RouteServices(
        means, asyncio.get_running_loop(), lambda: (), frozenset({b"traceparent"})
    )
    checked = settings(a=route())
    (one,) = route_services.prepare(checked, read_secrets(checked), None).values()
    assert b"traceparent" in one.route.rules.dropped_headers


# -- secrets -----------------------------------------------------------------------------------


def test_secrets_of_a_route() -> None:
    """Those that are there, each value with its reference, and what to do about the others."""
    one = route(secrets={"key": ["env:DUMMY_KEY", "env:DUMMY_OTHER"], "more": "env:DUMMY_OTHER"})
    found = secrets_of("a", settings(a=one).routes["a"])
    assert [secret.reference for secret in found.secrets["key"]] == ["env:DUMMY_KEY"]
    assert found.lacking == {"more": "set DUMMY_OTHER"}


async def last(folder: Path, **more: Any) -> tuple[Kept, Path]:
    """Services in force whose key was in a file."""
    one, file = Kept(), folder / "key"
    put(file, KEY)
    one.put_in_force(a=route(secrets={"key": f"file:{file}"}, **more))
    return one, file


async def test_the_last_value_is_kept(tmp_path: Path) -> None:
    """Where the reference is the same and nothing can be read there now; with a warning."""
    one, file = await last(tmp_path)
    before = one.route_services.in_force["a"]
    file.unlink()
    checked = settings(a=route(secrets={"key": f"file:{file}"}, methods=["GET"]))
    said: list[str] = []
    read = read_secrets(checked)
    found = keep_last(read, checked, one.route_services.in_force, said.append)
    assert found["a"].secrets == before.found.secrets
    assert found["a"].lacking == {}
    assert said == [f"a: the last good value of key goes on serving; {read['a'].lacking['key']}"]
    assert KEY not in said[0]


async def test_no_other_value_is_kept(tmp_path: Path) -> None:
    """Neither for another reference, nor for another route, nor for one that was not there."""
    one, file = await last(tmp_path)
    file.unlink()
    said: list[str] = []
    for routes in (
        {"a": route(secrets={"key": f"file:{tmp_path}/other"})},
        {"a": route(secrets={"key": [f"file:{file}", "env:DUMMY_OTHER"]})},
        {"b": route(secrets={"key": f"file:{file}"})},
    ):
        checked = settings(**routes)
        found = keep_last(read_secrets(checked), checked, one.route_services.in_force, said.append)
        assert [each.secrets for each in found.values()] == [{}]
        assert [list(each.lacking) for each in found.values()] == [["key"]]
        assert said == []
    empty: dict[str, ResolvedSecrets] = keep_last(
        {}, settings(), one.route_services.in_force, said.append
    )
    assert empty == {}


@pytest.mark.parametrize(
    "more",
    [
        {"upstream": "https://api.example.org"},
        {"upstream": "https://api.example.com/other"},
        {"auth": [{"http": {"header": "X-Other", "value": "{key}"}}]},
        {"strategy": "key"},
        {"allow_private": True},
        {"allow_plaintext": True},
        {"vend": True},
    ],
    ids=lambda more: next(iter(more)),
)
async def test_no_value_is_kept_for_another_place(tmp_path: Path, more: dict[str, Any]) -> None:
    """What says where a secret goes is not as it was: the value was not read for that."""
    one, file = await last(tmp_path)
    file.unlink()
    checked = settings(a={**route(secrets={"key": f"file:{file}"}), **more})
    said: list[str] = []
    found = keep_last(read_secrets(checked), checked, one.route_services.in_force, said.append)
    assert found["a"].secrets == {}
    assert list(found["a"].lacking) == ["key"]
    assert said == []


@pytest.mark.parametrize("name", ["egress_proxy", "ca_file"])
async def test_no_value_is_kept_for_another_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Neither if the proxy or the authorities have become others in the file, nor if what was read
    for the same setting has.
    """
    cas = [Authority(tmp_path).file.read_bytes() for _ in range(2)]
    for number, ca in enumerate(cas):
        (tmp_path / f"{number}.pem").write_bytes(ca)
    values = {
        "egress_proxy": ("http://one.example:3128", "http://two.example:3128", "env:DUMMY_PROXY"),
        "ca_file": (f"{tmp_path}/0.pem", f"{tmp_path}/1.pem", f"{tmp_path}/0.pem"),
    }[name]
    monkeypatch.setenv("DUMMY_PROXY", values[0])
    for before, after, reread, kept_value in (
        (None, values[0], False, False),
        (values[0], None, False, False),
        (values[0], values[1], False, False),
        (values[2], values[2], True, False),
        (values[1], values[1], False, True),
    ):
        one, file = await last(tmp_path, **({} if before is None else {name: before}))
        file.unlink()
        if reread:
            monkeypatch.setenv("DUMMY_PROXY", values[1])
            (tmp_path / "0.pem").write_bytes(cas[1])
        more = {} if after is None else {name: after}
        checked = settings(a=route(secrets={"key": f"file:{file}"}, **more))
        read = read_secrets(checked)
        found = keep_last(read, checked, one.route_services.in_force, lambda _: None)
        assert ("key" in found["a"].secrets) is kept_value
        one.route_services.close()


async def test_no_value_is_kept_for_another_token_endpoint(tmp_path: Path) -> None:
    """A token's URL is a place, too."""
    file = tmp_path / "key"
    put(file, KEY)
    before = token_route("https://api.example.com", f"file:{file}")
    async with kept() as one:
        one.put_in_force(a=before)
        file.unlink()
        token = {**before["auth"][0]["token"], "url": "https://api.example.org/token"}
        for auth, secrets in ((before["auth"][0]["token"], 1), (token, 0)):
            checked = settings(a={**before, "auth": [{**before["auth"][0], "token": auth}]})
            found = keep_last(
                read_secrets(checked), checked, one.route_services.in_force, lambda _: None
            )
            assert ("client_secret" in found["a"].secrets) is bool(secrets)


def test_programs_do_not_inherit_the_keys_of_other_routes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that is asked for a secret sees the variables of its own route, and what no secret
    comes from.
    """
    for name in ("OWN", "OTHER", "TOKEN", "HARMLESS"):
        monkeypatch.setenv(f"DUMMY_{name}", "dummy")
    script = tmp_path / "names"
    script.write_text(
        '#!/bin/sh\nenv | grep -o "^DUMMY_[A-Z]*" | sort | tr "\\n" " "; printf end\n'
    )
    script.chmod(0o700)
    checked = Settings.model_validate(
        {
            "inbound_token": ["exec:true", "env:DUMMY_TOKEN"],
            "routes": {
                "a": route(secrets={"key": f"exec:{script}", "own": "env:DUMMY_OWN"}),
                "b": route(secrets={"key": ["file:/none", "env:DUMMY_OTHER"]}),
            },
        }
    )
    assert variables_in(checked) == {"DUMMY_OWN", "DUMMY_OTHER", "DUMMY_TOKEN"}
    monkeypatch.delenv("DUMMY_KEY")
    monkeypatch.delenv("DUMMY_CLIENT_ID")
    (value,) = read_secrets(checked)["a"].secrets["key"]
    assert value.reveal() == b"DUMMY_HARMLESS DUMMY_OWN end"


async def test_nor_do_commands_that_print_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a route that came later, and of one that is gone, whose variable is still there."""
    for name in ("OWN", "OTHER", "LATER"):
        monkeypatch.setenv(f"DUMMY_{name}", "dummy")
    script = "env | grep -o '^DUMMY_[A-Z]*' | sort | tr '\\n' '-' | tr -d _; printf end"
    exec_route = {
        "upstream": "https://api.example.com",
        "secrets": {"own": "env:DUMMY_OWN"},
        "auth": [
            {
                "token": {"type": "exec", "command": ["/bin/sh", "-c", script]},
                "http": {"header": "Authorization", "value": "Bearer {token} {own}"},
            }
        ],
    }
    async with kept() as one:
        one.put_in_force(a=exec_route, b=route(secrets=OTHER))
        (strategy, *_) = one.route_services.in_force["a"].route.strategies
        one.put_in_force(a=exec_route, c=route(secrets={"key": "env:DUMMY_LATER"}))
        injection = await strategy.credential.obtain(websocket=False)
        assert b"Bearer DUMMYCLIENT-DUMMYKEY-DUMMYOWN-end dummy" in injection.headers


async def test_a_value_that_can_be_read_counts(tmp_path: Path) -> None:
    """Whatever it was before."""
    one, file = await last(tmp_path)
    put(file, "dummy-new-key")
    checked = settings(a=route(secrets={"key": f"file:{file}"}))
    read = read_secrets(checked)
    said: list[str] = []
    found = keep_last(read, checked, one.route_services.in_force, said.append)
    assert found["a"].same(read["a"])
    assert said == []
