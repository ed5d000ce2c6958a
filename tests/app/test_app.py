"""Putting it together and taking it apart: listeners, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import socket
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from proxy.errors import KeyrelayError
from proxy.server.peer_credentials import lookup_supported
from tests.support.clock import ManualClock
from tests.support.keyrelay import (
    RawClient,
    answering,
    both_loops,
    exchange,
    keyrelay,
    proxied,
    proxied_client,
    raw_provider,
    read_head,
    static_route,
    until,
)
from tests.support.reloading import sockets

pytestmark = both_loops

HEAD = b" HTTP/1.1\r\nHost: localhost\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEALTH = b"GET /-/health" + HEAD + b"\r\n"
HANDSHAKE = (
    b"GET /api HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ZHVtbXktbm9uY2UtMTIzNA==\r\n\r\n"
)
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: WY0Zo7RpAjdIt6MV+bEhWcO7FTA=\r\n\r\n"
)


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose name leaves room for that of a unix socket (107 bytes in all)."""
    with TemporaryDirectory(prefix="keyrelay") as name:
        yield Path(name)


async def over_unix(path: Path, request: bytes) -> bytes:
    async with RawClient(*await asyncio.open_unix_connection(str(path))) as client:
        client.send(request)
        _, head, body = await client.answer()
        return head + body


# -- listeners ---------------------------------------------------------------------------------


async def test_a_port_in_use_is_said(dummy_key: bytes) -> None:
    """A taken port is an error with the address; what was opened before it is closed again."""
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free, port = probe.getsockname()[1], taken.getsockname()[1]
        probe.close()
        listen = [f"127.0.0.1:{free}", f"127.0.0.1:{port}"]
        with pytest.raises(KeyrelayError, match=rf"127\.0\.0\.1:{port} is in use"):
            async with keyrelay({}, listen=listen):
                pytest.fail("it started")
        with socket.create_server(("127.0.0.1", free)):
            assert True, "the free one is free again"


async def test_several_listeners() -> None:
    """Each listener serves, IPv6 among them where there is any; their URLs name the real ports."""
    addresses = ["127.0.0.1:0", "127.0.0.1:0"]
    async with keyrelay({}, listen=addresses) as running:
        ports = {listener.address.port for listener in running.app.listeners}
        assert len(ports) == 2
        assert 0 not in ports
        for listener in running.app.listeners:
            assert listener.url == f"http://127.0.0.1:{listener.address.port}"
            assert (await exchange(listener.address.port, HEALTH)).endswith(b"ok\n")


async def test_a_unix_socket() -> None:
    """A unix socket is its owner's alone, serves, and is gone afterwards."""
    with short_directory() as directory:
        path = directory / "socket"
        async with keyrelay({}, listen=[f"unix:{path}"]) as running:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert running.url == f"unix:{path}"
            assert (await over_unix(path, HEALTH)).endswith(b"ok\n")
        assert not path.exists()


async def test_a_socket_file_left_behind_is_replaced() -> None:
    """The file of a process that was killed is no obstacle."""
    with short_directory() as directory:
        path = directory / "socket"
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
        async with keyrelay({}, listen=[f"unix:{path}"]):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert (await over_unix(path, HEALTH)).endswith(b"ok\n")


async def test_a_socket_file_in_use_stays() -> None:
    """One with a listener is not replaced, and neither is a file that is no socket."""
    with short_directory() as directory:
        path = directory / "socket"
        async with keyrelay({}, listen=[f"unix:{path}"]):
            with pytest.raises(KeyrelayError, match=f"unix:{path} is in use"):
                async with keyrelay({}, listen=[f"unix:{path}"]):
                    pytest.fail("it started")
            assert (await over_unix(path, HEALTH)).endswith(b"ok\n")
        other = directory / "other"
        other.write_text("dummy")
        with pytest.raises(KeyrelayError, match=f"unix:{other}"):
            async with keyrelay({}, listen=[f"unix:{other}"]):
                pytest.fail("it started")
        assert other.read_text() == "dummy"


async def test_the_socket_of_a_successor_stays() -> None:
    """At its end a keyrelay removes its own socket file, not one that has taken its place."""
    with short_directory() as directory:
        path = directory / "socket"
        async with keyrelay({}, listen=[f"unix:{path}"]):
            path.rename(directory / "old")
            path.write_text("dummy")
        assert path.read_text() == "dummy"


async def test_a_directory_that_is_not_there() -> None:
    """Any other failure says what the system says."""
    with (
        short_directory() as directory,
        pytest.raises(KeyrelayError, match="No such file or directory"),
    ):
        async with keyrelay({}, listen=[f"unix:{directory}/none/socket"]):
            pytest.fail("it started")


async def test_a_listener_of_a_route(dummy_key: bytes) -> None:
    """A route's own listener serves it without a prefix, and no page of ours."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append((await read_head(reader)).partition(b"\r\n")[0])
            writer.write(OK)

    async with raw_provider(serve) as provider:
        routes = {"api": static_route(f"{provider.url}/v1", listen=["127.0.0.1:0"])}
        async with keyrelay(routes) as running:
            main, own = running.app.listeners
            assert (main.route, own.route) == (None, "api")
            for path in (b"/x", b"/api/x", b"/-/health"):
                assert await exchange(own.address.port, b"GET " + path + HEAD + b"\r\n") == OK
            assert seen == [
                b"GET /v1/x HTTP/1.1",
                b"GET /v1/api/x HTTP/1.1",
                b"GET /v1/-/health HTTP/1.1",
            ]
            assert (await exchange(main.address.port, HEALTH)).endswith(b"ok\n")


async def test_a_host_of_a_route(dummy_key: bytes) -> None:
    """<name>.localhost serves the route without a prefix, on the main listener."""
    async with proxied(answering(OK)) as (_, running):
        for path in (b"/x", b"/-/health"):
            request = b"GET %b HTTP/1.1\r\nHost: API.localhost:%d\r\n\r\n" % (path, running.port)
            assert await exchange(running.port, request) == OK
        assert [one.path for one in running.app.exchange_log.recent] == ["/x", "/-/health"]


async def test_the_built_in_provider() -> None:
    """A route to the built-in provider needs no name and no network; it ends with keyrelay."""
    route = {
        "upstream": "builtin:demo",
        "secrets": {"key": "builtin:demo"},
        "auth": [{"header": "X-Demo-Key", "value": "{key}"}],
    }
    before = sockets()
    async with keyrelay({"demo": route}) as running:
        request = b"GET /demo/" + HEAD + b"Connection: close\r\n\r\n"
        said = await exchange(running.port, request, until_close=True)
        assert said.startswith(b"HTTP/1.1 200 ")
    await until(lambda: sockets() == before)


# -- time --------------------------------------------------------------------------------------


@pytest.mark.asyncio(loop_factories=["asyncio"])  # it takes a second, and no loop does it otherwise
async def test_deadlines_are_looked_at() -> None:
    """Half a head is not waited for forever: the ticker sees to it."""
    async with (
        keyrelay({}, head_timeout_seconds=0.01) as running,
        await RawClient.to(running.port) as client,
    ):
        client.send(b"GET /-/hea")
        assert await client.rest() == b""


# -- the end -----------------------------------------------------------------------------------


async def test_what_is_in_flight_may_end(dummy_key: bytes) -> None:
    """After ``close`` has begun no connection is accepted, idle ones end, and a request under way
    gets its whole answer.
    """
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        asked.set()
        await go_on.wait()
        writer.write(OK)

    async with (
        proxied_client(serve) as (_, running, busy),
        await RawClient.to(running.port) as idle,
    ):
        port = running.port
        busy.send(b"GET /api" + HEAD + b"\r\n")
        await asked.wait()
        async with asyncio.TaskGroup() as tasks:
            closing = tasks.create_task(running.app.close(30))
            assert await idle.rest() == b""
            with pytest.raises(OSError, match=r"refused|Connect"):
                await RawClient.to(port)
            assert not closing.done()
            go_on.set()
            # It says that nothing can follow.
            head, _, body = (await busy.rest()).partition(b"\r\n\r\n")
            assert (b"Connection: close" in head, body) == (True, b"ok")
        running.app.exchange_log.flush()
        assert " 200 " in "".join(running.lines)


async def test_a_slow_client_may_take_its_answer(dummy_key: bytes) -> None:
    """A client that has yet to read an answer which the provider has ended gets all of it."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + bytes(60_000)
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    async with proxied(answering(answer)) as (_, running):
        slow.setblocking(False)
        await asyncio.get_running_loop().sock_connect(slow, ("127.0.0.1", running.port))
        await until(lambda: running.app._clients)
        (connection,) = running.app._clients
        sock = connection.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await asyncio.get_running_loop().sock_sendall(slow, b"GET /api" + HEAD + b"\r\n")
        await until(lambda: running.app.exchange_log.recent)
        assert connection.idle
        assert connection.transport.get_write_buffer_size()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(running.app.close(30))
            await until(connection.transport.is_closing)
            async with RawClient(*await asyncio.open_connection(sock=slow)) as client:
                assert await client.rest() == answer


async def test_what_does_not_end_is_ended(dummy_key: bytes) -> None:
    """When the time is over the rest is dropped, at both ends, and its line is written."""
    asked, gone = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        asked.set()
        await reader.read()
        gone.set()

    async with raw_provider(serve) as provider:
        async with keyrelay({"api": static_route(provider.url)}) as running:
            client = await RawClient.to(running.port)
            client.send(b"GET /api" + HEAD + b"\r\n")
            await asked.wait()
        assert "client-left" in "".join(running.lines)
        async with asyncio.timeout(5):
            await gone.wait()
        assert await client.rest() == b""
        client.close()


async def test_nothing_is_left(dummy_key: bytes) -> None:
    """Whatever was under way, when ``close`` is over there is no task and no socket, and nothing
    complains of not having been closed.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        if b"/silent " not in head:
            writer.write(SWITCHING if b"Upgrade" in head else b"HTTP/1.1 200 OK\r\n\r\n")
        with suppress(ConnectionError):
            while b"/flood " in head:
                writer.write(bytes(1 << 16))
                await writer.drain()
            await reader.read()

    async def never_shake_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    sockets_before = sockets()
    clients: list[RawClient] = []
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        async with raw_provider(serve) as provider, raw_provider(never_shake_hands) as other:
            routes = {
                "api": static_route(provider.url),
                "never": static_route(other.url.replace("http:", "https:")),
            }
            async with keyrelay(routes) as running:
                for request in (
                    b"",
                    b"GET /ap",
                    HEALTH,
                    b"POST /none" + HEAD + b"Content-Length: 9\r\n\r\n",
                    b"GET /api/flood" + HEAD + b"\r\n",
                    b"GET /api/silent" + HEAD + b"\r\n",
                    b"POST /api" + HEAD + b"Content-Length: 9\r\n\r\nhalf",
                    b"GET /never" + HEAD + b"\r\n",
                    HANDSHAKE,
                    HANDSHAKE.replace(b"/api ", b"/api/flood "),
                ):
                    client = await RawClient.to(running.port)
                    client.send(request)
                    clients.append(client)
                for client in (clients[2], clients[4], *clients[8:]):
                    await client.head()
                await until(lambda: other.connections)
            for client in clients:
                client.reset()
        await until(lambda: sockets() == sockets_before)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        gc.collect()
    assert [str(one.message) for one in complaints] == []


# -- who may connect ---------------------------------------------------------------------------

INBOUND = "dummy-inbound-0123456789"
GUARDED: dict[str, Any] = {"inbound_token": "env:DUMMY_INBOUND", "listen": ["0.0.0.0:0"]}


@pytest.fixture
def inbound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable with the token that clients have to bring is set."""
    monkeypatch.setenv("DUMMY_INBOUND", INBOUND)


@pytest.mark.parametrize("place", ["main", "route"])
async def test_nothing_listens_beyond_loopback_without_a_token(
    dummy_key: bytes, place: str
) -> None:
    """However the settings were made, and for a route's own listener as well."""
    own: dict[str, Any] = {"listen": ["0.0.0.0:0"]}
    route = static_route("https://api.example", **(own if place == "route" else {}))
    with pytest.raises(KeyrelayError, match="inbound_token"):
        async with keyrelay({"api": route}, **(own if place == "main" else {})):
            pass


@pytest.mark.parametrize(
    ("value", "words"), [(None, "set DUMMY_INBOUND"), ("short-dummy", "shorter than 16 bytes")]
)
async def test_no_start_without_the_token_itself(
    dummy_key: bytes, monkeypatch: pytest.MonkeyPatch, value: str | None, words: str
) -> None:
    """A token that is named and not there, or could be guessed, opens nothing; on loopback too."""
    monkeypatch.delenv("DUMMY_INBOUND", raising=False)
    if value is not None:
        monkeypatch.setenv("DUMMY_INBOUND", value)
    route = static_route("https://api.example")
    for listen in ("127.0.0.1:0", "0.0.0.0:0"):
        with pytest.raises(KeyrelayError, match=words) as caught:
            async with keyrelay({"api": route}, **GUARDED | {"listen": [listen]}):
                pass
        assert "short-dummy" not in str(caught.value)


async def test_health_of_a_route_s_own_place_needs_the_token(
    dummy_key: bytes, inbound: None
) -> None:
    """There the path is the provider's: without the token nothing is dialled."""
    async with proxied(answering(OK), route={"listen": ["127.0.0.1:0"]}, **GUARDED) as (
        provider,
        running,
    ):
        main, own = (one.address.port for one in running.app.listeners)
        assert (await exchange(main, HEALTH)).startswith(b"HTTP/1.1 200 ")
        at_route = HEALTH.replace(b"localhost", b"api.localhost")
        for port, request in ((own, HEALTH), (main, at_route)):
            assert (await exchange(port, request)).startswith(b"HTTP/1.1 401 ")
        assert provider.connections == 0
        brought = HEALTH[:-2] + f"X-Keyrelay-Token: {INBOUND}\r\n\r\n".encode()
        assert (await exchange(own, brought)).startswith(b"HTTP/1.1 200 ")
        assert provider.connections == 1


async def test_the_token_is_the_subprotocol_that_is_selected(
    dummy_key: bytes, inbound: None
) -> None:
    """A page that offers nothing else gets its offer back, as browsers insist."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_head(reader))
        writer.write(SWITCHING)
        await reader.read()

    async with proxied_client(serve, **GUARDED) as (_, _, client):
        offer = f"keyrelay.token.{INBOUND}".encode()
        client.send(HANDSHAKE[:-2] + b"Sec-WebSocket-Protocol: " + offer + b"\r\n\r\n")
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"\r\nSec-WebSocket-Protocol: " + offer + b"\r\n" in head
    (asked,) = seen
    assert INBOUND.encode() not in asked
    assert b"protocol" not in asked.lower()


async def test_listed_hosts_and_own_addresses_are_served(dummy_key: bytes, inbound: None) -> None:
    """Names under hosts, the literal address of a listener, and no wildcard."""
    more = {"hosts": ["keyrelay"], "listen": ["0.0.0.0:0", "127.0.0.3:0"]}
    async with keyrelay({"api": static_route("https://api.example")}, **GUARDED | more) as running:
        for host, status in (
            (b"keyrelay", 200),
            (b"KEYRELAY:8080", 200),
            (b"127.0.0.3:1", 200),
            (b"keyrelay.evil.test", 421),
        ):
            said = await exchange(running.port, HEALTH.replace(b"localhost", host))
            assert said.startswith(b"HTTP/1.1 %d " % status), host
        # A kubelet's health check names an address; a route is not served by that name.
        routed = HEALTH.replace(b"/-/health", b"/api/x").replace(b"localhost", b"0.0.0.0")
        assert (await exchange(running.port, routed)).startswith(b"HTTP/1.1 421 ")


async def test_others_on_other_machines_cannot_be_told(dummy_key: bytes, inbound: None) -> None:
    """``enforce`` beyond loopback would refuse every client: it is refused itself."""
    with pytest.raises(KeyrelayError, match="peer_uid: enforce"):
        async with keyrelay(
            {"api": static_route("https://api.example")}, **GUARDED | {"peer_uid": "enforce"}
        ):
            pass


@pytest.mark.skipif(not lookup_supported(), reason="this system does not say who connects")
async def test_who_cannot_be_told_is_refused_if_asked_for(dummy_key: bytes) -> None:
    """The owner is served. For a client that is gone before the check nothing is dialled."""
    async with proxied(answering(OK), peer_uid="enforce") as (provider, running):
        with socket.create_connection(("127.0.0.1", running.port)) as gone:
            gone.sendall(b"GET /api" + HEAD + b"\r\n")
        assert (await exchange(running.port, HEALTH)).startswith(b"HTTP/1.1 200 ")
        assert provider.connections == 0
        said = await exchange(running.port, b"GET /api" + HEAD + b"\r\n")
        assert said.startswith(b"HTTP/1.1 200 ")


# -- sleep -------------------------------------------------------------------------------------


async def test_after_sleep_kept_connections_are_dropped(dummy_key: bytes) -> None:
    """Within a second or two; the next request gets a new one."""
    clock, ends = ManualClock(), 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal ends
        await read_head(reader)
        writer.write(OK)
        with suppress(ConnectionError):
            await reader.read()
        ends += 1

    async with (
        raw_provider(serve) as provider,
        keyrelay({"api": static_route(provider.url)}, clock=clock) as running,
    ):
        assert (await exchange(running.port, b"GET /api" + HEAD + b"\r\n")).endswith(b"ok")
        assert ends == 0
        clock.jump(3600)
        await until(lambda: ends == 1)
        assert (await exchange(running.port, b"GET /api" + HEAD + b"\r\n")).endswith(b"ok")
        assert provider.connections == 2
