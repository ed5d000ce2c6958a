"""Changed files and signals: the whole of a new configuration is taken, or nothing of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.app.app import App
from proxy.app.reload import Reloader
from proxy.config import loader
from proxy.config.settings import Settings
from proxy.errors import ConfigError, Finding
from tests.support.command import running as process
from tests.support.keyrelay import (
    RawClient,
    both_loops,
    client,
    exchange,
    keyrelay,
    static_route,
    until,
)
from tests.support.reloading import (
    LOOK_SECONDS,
    Changing,
    KeyedProvider,
    changing,
    keyed_provider,
    put,
    sockets,
    token_route,
    watched,
)

FIRST, SECOND = "dummy-first-key", "dummy-second-key"
GET = b"GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEALTH = b"GET /-/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
OLD_SERVES = "The configuration was not taken; the old one goes on serving."


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A file with a key that the provider takes."""
    file = tmp_path / "key"
    put(file, f"{FIRST}\n")
    return file


@asynccontextmanager
async def serving(
    folder: Path, secret: str, **more: Any
) -> AsyncIterator[tuple[Changing, KeyedProvider]]:
    """A route whose key is in a file, to a provider that takes both keys."""
    async with (
        keyed_provider(FIRST, SECOND) as provider,
        changing(folder, {"api": keyed_route(provider, secret)}, **more) as running,
    ):
        yield running, provider


def keyed_route(provider: KeyedProvider, secret: str, **more: Any) -> dict[str, Any]:
    return static_route(provider.url, **{"secrets": {"key": secret}, **more})


async def status(running: Changing, route: str = "api") -> int:
    """What a request on a connection of its own is answered."""
    async with client() as session, session.get(f"{running.url}/{route}/x") as answer:
        await answer.read()
        return answer.status


async def used(running: Changing, provider: KeyedProvider) -> str:
    """The key that a request leaves with now; it is answered 200."""
    assert await status(running) == 200
    return provider.keys[-1]


# -- secrets in files --------------------------------------------------------------------------


@both_loops
async def test_a_file_that_is_replaced(tmp_path: Path, key: Path) -> None:
    """A new value serves once it is read, without a request; only the change is reported."""
    async with serving(tmp_path, f"file:{key}") as (running, provider), watched(running):
        assert await used(running, provider) == FIRST
        put(key, SECOND)
        await until(lambda: running.said)
        assert running.said == ["Reloaded: route api has other secrets."]
        assert await used(running, provider) == SECOND


async def test_a_file_that_is_written_in_place(tmp_path: Path, key: Path) -> None:
    """So does one that keeps its inode."""
    async with serving(tmp_path, f"file:{key}") as (running, provider), watched(running):
        write(key, SECOND)
        await until(lambda: running.said)
        assert await used(running, provider) == SECOND


async def test_a_mount_that_is_swapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes: the file is a link into ``..data``, which is a link that is swapped. Nothing
    about the file itself changes.
    """
    mount = tmp_path / "mount"
    mount.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(mount))

    def fill(name: str, value: str) -> None:
        (mount / name).mkdir()
        put(mount / name / "key", value)
        (mount / "..new").symlink_to(name)
        (mount / "..new").replace(mount / "..data")

    fill("..2026_1", FIRST)
    (mount / "key").symlink_to("..data/key")
    async with serving(tmp_path, f"file:{mount}/key") as (running, provider), watched(running):
        assert await used(running, provider) == FIRST
        fill("..2026_2", SECOND)
        await until(lambda: running.said)
        assert await used(running, provider) == SECOND
        for file in (mount / "..2026_1").iterdir():
            file.unlink()
        fill("..2026_3", FIRST)
        await until(lambda: len(running.said) == 2)
        assert await used(running, provider) == FIRST


def write(file: Path, text: str) -> None:
    """In place: the file stays the same one."""
    file.write_text(text)


def put_back(file: Path, text: str) -> None:
    """Whatever is there now."""
    if file.is_dir():
        file.rmdir()
    put(file, text)


def size(file: Path) -> int:
    return file.stat().st_size


def truncate(file: Path) -> None:
    file.write_text("")


def expose(file: Path) -> None:
    file.chmod(0o644)


def delete(file: Path) -> None:
    file.unlink()


def replace_by_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def forbid(file: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    file.chmod(0)


@pytest.mark.parametrize("spoil", [truncate, expose, delete, replace_by_directory, forbid])
async def test_a_file_that_cannot_be_read(tmp_path: Path, key: Path, spoil: Any) -> None:
    """The last good value serves on, with a warning that says what to do. When the file is back,
    its value counts.
    """
    async with serving(tmp_path, f"file:{key}") as (running, provider), watched(running):
        spoil(key)
        await until(lambda: running.said)
        (line,) = running.said
        assert line.startswith("api: the last good value of key goes on serving; ")
        assert str(key) in line
        assert FIRST not in line
        assert await used(running, provider) == FIRST
        assert running.app.reloads.last is not None
        assert running.app.reloads.last.findings == ()
        put_back(key, SECOND)
        await until(lambda: len(running.said) == 2)
        assert running.said[1:] == ["Reloaded: route api has other secrets."]
        assert await used(running, provider) == SECOND


async def test_a_new_reference_has_no_last_good_value(tmp_path: Path, key: Path) -> None:
    """A value is kept for the place it came from: a route that names another file, which is not
    there, would lose its secret, and that is refused.
    """
    async with serving(tmp_path, f"file:{key}") as (running, provider):
        report = await running.change(api=keyed_route(provider, f"file:{tmp_path}/other"))
        (finding,) = report.findings
        assert finding.startswith("api: not ready: ")
        assert f"{tmp_path}/other" in finding
        assert running.said == [finding, OLD_SERVES]
        assert await used(running, provider) == FIRST


async def test_what_was_not_taken_is_taken_once_it_is_mended(tmp_path: Path, key: Path) -> None:
    """The missing file of a configuration that was refused is waited for; so is whichever file had
    the mistake, although the old configuration knows nothing of it.
    """
    async with serving(tmp_path, f"file:{key}") as (running, provider), watched(running):
        other = tmp_path / "other"
        running.document["routes"]["api"] = keyed_route(provider, f"file:{other}")
        running.write()
        await until(lambda: OLD_SERVES in running.said)
        put(other, SECOND)
        await until(lambda: "Reloaded: route api has other settings." in running.said)
        assert await used(running, provider) == SECOND
        running.said.clear()
        presets = tmp_path / "presets"
        presets.mkdir()
        put(presets / "acme.yaml", "upstream: nonsense\n")
        running.document["providers"] = ["presets"]
        running.write()
        await until(lambda: OLD_SERVES in running.said)
        put(presets / "acme.yaml", f"upstream: {provider.url}\n")
        await until(lambda: "Reloaded: general settings are different." in running.said)


async def test_changes_before_anybody_watches(tmp_path: Path, key: Path) -> None:
    """What changes after the values were read, and before watching begins, is seen as well."""
    async with serving(tmp_path, f"file:{key}") as (running, provider):
        put(key, SECOND)
        async with watched(running):
            await until(lambda: running.said)
            assert await used(running, provider) == SECOND


async def test_changes_during_a_reload(tmp_path: Path, key: Path) -> None:
    """A file that changes after it was read for a reload is read again afterwards."""
    async with serving(tmp_path, f"file:{key}") as (running, provider):
        go_on, reading = tmp_path / "go-on", tmp_path / "reading"
        os.mkfifo(go_on)
        line = f"exec:sh -c 'touch {reading}; read -r x < {go_on}; echo dummy-slow-key'"
        slow = keyed_route(provider, line)
        running.document["routes"] = {"api": running.document["routes"]["api"], "slow": slow}
        running.write()
        async with watched(running):
            reload = asyncio.get_running_loop().create_task(running.reload())
            await until(reading.exists)
            put(key, SECOND)
            # The route's own file had been read before the slow one.
            await asyncio.to_thread(go_on.write_text, "\n")
            reading.unlink()
            assert "route slow is new" in (await reload).changed
            await until(reading.exists)
            await asyncio.to_thread(go_on.write_text, "\n")
            await until(lambda: "Reloaded: route api has other secrets." in running.said)
            assert await used(running, provider) == SECOND


async def test_directories_that_nobody_may_look_into(tmp_path: Path, dummy_key: bytes) -> None:
    """They show no change; watching goes on, and so do reloads."""
    looked: list[str] = []

    def files(_settings: Settings) -> list[Path]:
        looked.append("")
        raise PermissionError(13, "dummy")

    async with keyed_provider() as provider:
        document = {"listen": "127.0.0.1:0", "routes": {"api": static_route(provider.url)}}
        settings = loader.load_text(json.dumps(document), "routes.yaml")
        async with App(settings) as app:
            said: list[str] = []
            reloader = Reloader(app, lambda: settings, files, said.append, poll_seconds=0.001)
            watching = asyncio.get_running_loop().create_task(reloader.watch())
            await until(lambda: len(looked) > 3)
            assert (await reloader.reload()).findings == ()
            assert not watching.done()
            watching.cancel()
            await asyncio.wait({watching})
            assert said == []


@pytest.mark.seconds
async def test_a_program_is_asked_again(tmp_path: Path, key: Path) -> None:
    """After ``ttl_seconds`` what it prints then counts; one without is left alone. When it fails,
    its last value serves on.
    """
    asked = tmp_path / "asked"
    secret = {"exec": f"sh -c 'echo >> {asked}; cat {key}'", "ttl_seconds": 1}
    async with keyed_provider(FIRST, SECOND) as provider:
        route = static_route(provider.url, secrets={"key": secret})
        async with changing(tmp_path, {"api": route}) as running, watched(running):
            assert await used(running, provider) == FIRST
            write(key, SECOND)
            await until(lambda: "Reloaded: route api has other secrets." in running.said)
            assert await used(running, provider) == SECOND
            route_service = running.app._services.in_force["api"]
            count = size(asked)
            await until(lambda: size(asked) > count)
            await asyncio.sleep(2 * LOOK_SECONDS)
            assert running.app._services.in_force["api"] is route_service
            delete(key)
            await until(lambda: len(running.said) == 2)
            assert running.said[1].startswith("api: the last good value of key goes on serving; ")
            assert await used(running, provider) == SECOND


async def test_the_inbound_token_in_a_file(tmp_path: Path, key: Path) -> None:
    """Another token counts at once, at connections that are open as well; the last one does not."""
    token = tmp_path / "token"
    put(token, "dummy-inbound-0000000001")
    more = {"inbound_token": f"file:{token}"}
    async with serving(tmp_path, f"file:{key}", **more) as (running, _), client() as session:

        async def asked(number: int) -> int:
            headers = {"X-Keyrelay-Token": f"dummy-inbound-000000000{number}"}
            async with session.get(f"{running.url}/api/x", headers=headers) as answer:
                await answer.read()
                return answer.status

        assert [await asked(1), await asked(2)] == [200, 401]
        put(token, "dummy-inbound-0000000002")
        assert (await running.reload()).findings == ()
        assert [await asked(1), await asked(2)] == [401, 200]
        put(token, "dummy")
        (finding,) = (await running.reload()).findings
        assert "inbound_token is shorter" in finding
        token.unlink()
        assert (await running.reload()).findings
        assert [await asked(1), await asked(2)] == [401, 200]


# -- all or nothing ----------------------------------------------------------------------------


async def test_a_changed_routes_file(tmp_path: Path, key: Path) -> None:
    """It is taken by itself, as a whole, and what is different is said."""
    async with serving(tmp_path, f"file:{key}") as (running, provider), watched(running):
        running.document["routes"]["other"] = keyed_route(provider, f"file:{key}")
        running.document["routes"]["api"]["deny"] = ["GET /x"]
        running.write()
        await until(lambda: running.said)
        (line,) = running.said
        assert line == "Reloaded: route api has other settings; route other is new."
        assert [await status(running), await status(running, "other")] == [403, 200]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "routes: [",
        "dummy: 1\nroutes: {api: {provider: none}}\n",
        '{"listen": "127.0.0.1:0", "routes": {"api": {"upstream": "http://example.com"}}}',
    ],
)
async def test_a_file_with_a_mistake(tmp_path: Path, key: Path, text: str) -> None:
    """Every finding is said with its place, and the old configuration serves on, untouched."""
    async with serving(tmp_path, f"file:{key}") as (running, provider), watched(running):
        route_service = running.app._services.in_force["api"]
        put(running.file, text)
        await until(lambda: OLD_SERVES in running.said)
        assert running.said[-1] == OLD_SERVES
        assert all(line.startswith(f"{running.file}:") for line in running.said[:-1])
        assert len(running.said) > 1
        last = running.app.reloads.last
        assert last is not None
        assert list(last.findings) == running.said[:-1]
        assert (running.app.reloads.count, running.app.reloads.failed) == (0, 1)
        assert running.app._services.in_force["api"] is route_service
        assert await used(running, provider) == FIRST
        await asyncio.sleep(5 * LOOK_SECONDS)
        assert running.app.reloads.failed == 1
        running.write()
        await until(lambda: running.app.reloads.count)
        assert running.app._services.in_force["api"] is route_service


async def test_a_route_that_would_lose_its_secret(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of such a configuration is taken, the good parts neither. A route that was not ready
    before may stay so.
    """
    monkeypatch.delenv("DUMMY_KEY", raising=False)
    async with serving(tmp_path, f"file:{key}") as (running, provider):
        report = await running.change(other=static_route(provider.url))
        assert report.changed == ("route other is new",)
        assert await status(running, "other") == 503
        third = keyed_route(provider, f"file:{key}")
        report = await running.change(api=static_route(provider.url), third=third)
        assert report.findings == ("api: not ready: set DUMMY_KEY",)
        assert await used(running, provider) == FIRST
        assert await status(running, "third") == 404
        assert list(running.app._services.in_force) == ["api", "other"]


async def test_a_fault_inside(tmp_path: Path, key: Path) -> None:
    """Whatever goes wrong, the old one serves on; of an unforeseen error only the kind is
    said.
    """
    async with serving(tmp_path, f"file:{key}") as (running, provider):

        def load() -> Settings:
            raise ZeroDivisionError("dummy-canary")

        said: list[str] = []
        reloader = Reloader(running.app, load, lambda _: (), said.append)
        report = await reloader.reload()
        assert report.findings == ("a fault inside keyrelay (ZeroDivisionError)",)
        assert said == [*report.findings, OLD_SERVES]
        assert await used(running, provider) == FIRST


async def test_a_reload_that_is_cancelled(tmp_path: Path, key: Path) -> None:
    """The old configuration is in force, and the next reload goes through."""
    async with serving(tmp_path, f"file:{key}") as (running, provider):
        reading = tmp_path / "reading"
        slow = keyed_route(provider, f"exec:sh -c 'touch {reading}; sleep 0.2; echo dummy'")
        running.document["routes"]["slow"] = slow
        running.write()
        reload = asyncio.get_running_loop().create_task(running.reload())
        await until(reading.exists)
        reload.cancel()
        await asyncio.wait({reload})
        assert reload.cancelled()
        assert list(running.app._services.in_force) == ["api"]
        assert await used(running, provider) == FIRST
        assert (await running.reload()).changed == ("route slow is new",)


async def test_two_reloads_at_once(tmp_path: Path, key: Path) -> None:
    """They come one after the other; the second finds nothing more to change."""
    async with serving(tmp_path, f"file:{key}") as (running, provider):
        put(key, SECOND)
        reports = await asyncio.gather(*(running.reload() for _ in range(3)))
        assert sorted(report.changed for report in reports) == [
            (),
            (),
            ("route api has other secrets",),
        ]
        assert running.app.reloads.count == 3
        assert await used(running, provider) == SECOND


# -- what stays --------------------------------------------------------------------------------


@pytest.fixture
def client_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_CLIENT_ID", "dummy-id")


@asynccontextmanager
async def with_token(tmp_path: Path, key: Path) -> AsyncIterator[tuple[Changing, KeyedProvider]]:
    """A route with the key itself, and one with a token that is obtained with it."""
    async with keyed_provider(FIRST, clients=[FIRST]) as provider:
        routes = {
            "api": keyed_route(provider, f"file:{key}"),
            "token": token_route(provider.url, f"file:{key}"),
        }
        async with changing(tmp_path, routes) as running:
            yield running, provider


@both_loops
async def test_where_nothing_is_different(tmp_path: Path, key: Path, client_id: None) -> None:
    """Services, pools, connections and tokens are the very same; nothing is said."""
    async with with_token(tmp_path, key) as (running, provider):
        for route in ("api", "token"):
            assert await status(running, route) == 200
        route_services, pools = running.app._services.in_force, running.app.pools
        counts = {name: pool.counts.dialled for name, pool in pools.items()}
        for _ in range(3):
            put(key, FIRST)
            running.write()
            assert (await running.reload()).changed == ()
            for route in ("api", "token"):
                assert await status(running, route) == 200
        assert running.app._services.in_force == route_services
        assert running.app.pools == pools
        assert {name: pool.counts.dialled for name, pool in pools.items()} == counts
        assert provider.fetched == [FIRST]
        assert running.said == []
        assert running.app.reloads.count == 3


async def test_one_route_is_different(tmp_path: Path, key: Path, client_id: None) -> None:
    """The others keep everything, their tokens among it."""
    async with with_token(tmp_path, key) as (running, provider):
        assert await status(running, "token") == 200
        before = running.app._services.in_force
        await running.change(api=keyed_route(provider, f"file:{key}", methods=["GET"]))
        after = running.app._services.in_force
        assert after["token"] is before["token"]
        assert after["api"] is not before["api"]
        assert await status(running, "token") == 200
        assert provider.fetched == [FIRST]


async def test_bounds_go_on_counting(tmp_path: Path, key: Path) -> None:
    """A reload that changes something else permits no more requests; other bounds count anew."""
    async with serving(tmp_path, f"file:{key}") as (running, provider):
        route = keyed_route(provider, f"file:{key}", rate="2/hour")
        await running.change(api=route)
        assert [await status(running) for _ in range(2)] == [200, 200]
        put(key, SECOND)
        await running.change(api={**route, "methods": ["GET"]})
        assert await status(running) == 429
        await running.change(api={**route, "rate": "3/hour"})
        assert await status(running) == 200


async def test_a_request_under_way_counts_for_concurrency(tmp_path: Path, key: Path) -> None:
    """One that began before the reload takes its place until it ends, and gives it back."""
    async with serving(tmp_path, f"file:{key}") as (running, provider), client() as session:
        route = keyed_route(provider, f"file:{key}", concurrency=1)
        await running.change(api=route)
        async with session.get(f"{running.url}/api/slow") as slow:
            await running.change(api={**route, "methods": ["GET"]})
            assert await status(running) == 503
            provider.go_on.set()
            assert await slow.read() == b"first second"
        assert await status(running) == 200


# -- what is under way -------------------------------------------------------------------------


@both_loops
async def test_what_is_under_way_ends_by_the_old(tmp_path: Path, key: Path) -> None:
    """An answer that streams and an open WebSocket do not notice that their route is another one,
    and then gone. New requests are served by the new one, on the same client connection.
    """
    async with serving(tmp_path, f"file:{key}") as (running, provider), client() as session:
        before = sockets()
        async with (
            session.get(f"{running.url}/api/slow") as slow,
            running.websocket("/api/x") as open_socket,
        ):
            put(key, SECOND)
            assert (await running.reload()).changed == ("route api has other secrets",)
            assert await used(running, provider) == SECOND
            await open_socket.send("changed")
            assert await open_socket.recv() == "changed"
            await running.change(api=None, other=keyed_route(provider, f"file:{key}"))
            assert await status(running) == 404
            await open_socket.send("gone")
            assert await open_socket.recv() == "gone"
            # Whatever is looked at once a second has been looked at.
            running.app._services.expire(
                running.app._context.loop.time(), running.app.exchange_log.open
            )
            assert len(running.app._services._retired) == 1
            provider.go_on.set()
            assert await slow.read() == b"first second"
            await open_socket.send("still there")
            assert await open_socket.recv() == "still there"
        await until(lambda: not running.app._services._retired)
        # The connection of the session and those of the provider.
        await session.close()
        await until(lambda: sockets() <= before)


async def test_a_body_that_is_under_way(tmp_path: Path, key: Path) -> None:
    """A request of which only a part has come ends by the old configuration too."""
    post = b"POST /api/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nabc"
    async with (
        serving(tmp_path, f"file:{key}") as (running, provider),
        await RawClient.to(running.port) as one,
    ):
        one.send(post)
        await until(lambda: running.app.pools["api"].open)
        await running.change(api=None, other=keyed_route(provider, f"file:{key}"))
        one.send(b"def")
        status, _, body = await one.answer()
        assert (status, body) == (200, b"abcdef")
        assert provider.keys == [FIRST]
        one.send(GET)
        assert (await one.answer())[0] == 404


async def test_a_retired_service_is_closed(
    tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its last request its connections end, and its token is neither renewed nor kept."""
    monkeypatch.setenv("DUMMY_CLIENT_ID", "dummy-id")
    async with keyed_provider(clients=[FIRST, SECOND]) as provider:
        route = token_route(provider.url, f"file:{key}")
        async with changing(tmp_path, {"token": route}) as running, client() as session:
            async with session.get(f"{running.url}/token/slow") as slow:
                route_service = running.app._services.in_force["token"]
                put(key, SECOND)
                await running.reload()
                assert await status(running, "token") == 200
                provider.go_on.set()
                assert await slow.read() == b"first second"
            await until(lambda: not running.app._services._retired)
            (strategy,) = route_service.route.strategies
            assert strategy.credential.ready(websocket=False) is None
            assert strategy.credential.active_injections() == ()
            assert route_service.pool.open == 0
            assert provider.fetched == [FIRST, SECOND]
            # The new one's, idle, and that alone.
            await until(lambda: provider.open == 1)
            assert await status(running, "token") == 200
        await until(lambda: provider.open == 0)


async def test_idle_connections_end_at_once(tmp_path: Path, key: Path) -> None:
    """What waits for requests with the old credential waits no more."""
    async with serving(tmp_path, f"file:{key}") as (running, provider):
        assert await status(running) == 200
        assert provider.open == 1
        put(key, SECOND)
        await running.reload()
        await until(lambda: provider.open == 0)


async def test_many_reloads_leave_nothing(tmp_path: Path, key: Path) -> None:
    """After a hundred changes there are as many services, tasks and sockets as before."""
    async with serving(tmp_path, f"file:{key}") as (running, _):
        assert await status(running) == 200
        before, tasks = sockets(), len(asyncio.all_tasks())
        for number in range(100):
            put(key, (FIRST, SECOND)[number % 2])
            assert (await running.reload()).findings == ()
            assert await status(running) == 200
        await until(lambda: not running.app._services._retired)
        await until(lambda: sockets() <= before)
        assert len(asyncio.all_tasks()) <= tasks


# -- listeners ---------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@both_loops
async def test_listeners_come_and_go(tmp_path: Path, key: Path) -> None:
    """A new address serves, a removed one accepts no connection; the others, and what is connected
    there, notice nothing. What is under way at the one that is gone ends well.
    """
    async with serving(tmp_path, f"file:{key}") as (running, provider):
        main, more, own = running.port, free_port(), free_port()
        running.document["listen"] = [f"127.0.0.1:{more}", "127.0.0.1:0"]
        route = keyed_route(provider, f"file:{key}", listen=[f"127.0.0.1:{own}"])
        async with await RawClient.to(main) as connected:
            connected.send(GET)
            assert (await connected.answer())[0] == 200
            report = await running.change(api=route)
            assert sorted(report.changed) == sorted(
                [
                    f"listens at 127.0.0.1:{more}",
                    f"listens at 127.0.0.1:{own}",
                    "route api has other settings",
                ]
            )
            assert (await exchange(more, HEALTH)).endswith(b"ok\n")
            assert (await exchange(own, GET.replace(b"/api/x", b"/x"))).endswith(b"ok")
            connected.send(GET)
            assert (await connected.answer())[0] == 200
        async with await RawClient.to(more) as under_way:
            under_way.send(GET.replace(b"/x", b"/slow"))
            await under_way.head()
            running.document["listen"] = ["127.0.0.1:0"]
            report = await running.change(api={**route, "listen": []})
            assert f"listens no more at 127.0.0.1:{more}" in report.changed
            assert refuses(more)
            assert refuses(own)
            assert (await exchange(main, HEALTH)).endswith(b"ok\n")
            provider.go_on.set()
            assert await under_way.chunk() == b"first "
            assert await under_way.chunk() == b"second"
            assert await under_way.chunk() == b""
            under_way.send(GET)
            assert (await under_way.answer())[0] == 404


async def test_an_address_that_cannot_be_had(tmp_path: Path, key: Path) -> None:
    """A port in use leaves everything as it was: what had been opened before it is closed, what was
    to be closed is open, and the routes are the old ones.
    """
    async with serving(tmp_path, f"file:{key}") as (running, provider):
        old, new = free_port(), free_port()
        running.document["listen"] = ["127.0.0.1:0", f"127.0.0.1:{old}"]
        assert (await running.reload_document()).findings == ()
        before = sockets()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            running.document["listen"] = ["127.0.0.1:0", f"127.0.0.1:{new}", f"127.0.0.1:{port}"]
            report = await running.change(other=keyed_route(provider, f"file:{key}"), api=None)
            (finding,) = report.findings
            assert finding.startswith(f"127.0.0.1:{port} is in use")
            assert refuses(new)
            assert (await exchange(old, HEALTH)).endswith(b"ok\n")
            assert await used(running, provider) == FIRST
            assert await status(running, "other") == 404
            assert sockets() - 1 <= before + 2
        assert (await running.reload()).findings == ()
        assert (await exchange(port, HEALTH)).endswith(b"ok\n")
        assert refuses(old)


async def test_a_route_that_leads_to_a_new_listener(tmp_path: Path, key: Path) -> None:
    """No route leads to keyrelay itself, also where both come with the same reload."""
    async with serving(tmp_path, f"file:{key}") as (running, provider):
        port = free_port()
        running.document["listen"] = ["127.0.0.1:0", f"127.0.0.1:{port}"]
        here = static_route(f"http://127.0.0.1:{port}", secrets={"key": f"file:{key}"})
        report = await running.change(loop=here)
        (finding,) = report.findings
        assert "the upstream is keyrelay itself" in finding
        main = static_route(running.url, secrets={"key": f"file:{key}"})
        running.document["listen"] = "127.0.0.1:0"
        assert (await running.change(loop=main)).findings == ()
        assert await status(running, "loop") == 508
        assert provider.asked == []


# -- as a process ------------------------------------------------------------------------------


async def test_a_hangup_reloads(tmp_path: Path, key: Path) -> None:
    """SIGHUP takes a changed file, prints the findings of a broken one and serves on, and ends
    nothing: an answer that streams goes on through all of it.
    """
    file = tmp_path / "routes.yaml"
    async with keyed_provider(FIRST, SECOND) as provider:
        document = {
            "listen": "127.0.0.1:0",
            "routes": {"api": keyed_route(provider, f"file:{key}")},
        }
        put(file, json.dumps(document))
        async with process("run", "-c", str(file)) as running, client() as session:
            base = f"http://127.0.0.1:{running.port}/api"
            async with session.get(f"{base}/slow") as slow:
                put(file, json.dumps({**document, "keepalive_seconds": 7}))
                running.signal(signal.SIGHUP)
                await running.said("Reloaded: general settings are different.")
                put(file, '{"routes": {"api": {"provider": "none"}}, "dummy": 1}')
                running.signal(signal.SIGHUP)
                await running.said(OLD_SERVES)
                assert f"{file}:1:" in running.err
                async with session.get(f"{base}/x") as answer:
                    assert (answer.status, await answer.read()) == (200, b"ok")
                put(file, json.dumps(document))
                put(key, SECOND)
                running.signal(signal.SIGHUP)
                await running.said("route api has other secrets", after=OLD_SERVES)
                provider.go_on.set()
                assert await slow.read() == b"first second"
            async with session.get(f"{base}/x") as answer:
                assert answer.status == 200
            assert provider.keys[-1] == SECOND
            running.signal(signal.SIGTERM)
            assert await running.ended() == 0


async def test_a_snapshot_holds_what_a_reload_came_to(dummy_key: bytes) -> None:
    """The one process of the app, its requests, and the changes or findings of each reload."""
    async with keyrelay({"api": static_route("https://api.example.com")}) as running:
        app = running.app
        current = app.settings
        answers: Iterator[Settings | ConfigError] = iter(
            [
                current,
                current.model_copy(update={"keepalive_seconds": 7}),
                ConfigError([Finding("routes.yaml", 1, 2, "no")]),
            ]
        )

        def load() -> Settings:
            answer = next(answers)
            if isinstance(answer, ConfigError):
                raise answer
            return answer

        def files(_settings: Settings) -> list[Path]:
            return []

        said: list[str] = []
        reloader = Reloader(app, load, files, said.append)
        await exchange(running.port, b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
        [snapshot] = await app.snapshots()
        assert snapshot["pids"] == [os.getpid()]
        assert snapshot["tally"]["-"]["requests"] == {"GET": {"404": 1}}
        assert (await reloader.reload()).changed == ()
        assert (await reloader.reload()).changed == ("general settings are different",)
        assert (await reloader.reload()).findings == ("routes.yaml:1:2: no",)
        [snapshot] = await app.snapshots()
        assert (snapshot["reloads"]["count"], snapshot["reloads"]["failed"]) == (2, 1)
        assert snapshot["reloads"]["last"]["findings"] == ("routes.yaml:1:2: no",)
