"""Listeners that come and go, and what is served at each."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.app.listeners import Key, ListenerEntry, ListenerSet, check_addresses
from proxy.app.supply import Timeouts
from proxy.config.secret import SecretSettings
from proxy.config.settings import Settings
from proxy.config.validation import listen_places, served_hosts
from proxy.errors import KeyrelayError
from proxy.forwarding.context import ProxyContext
from proxy.forwarding.handler import RequestHandler
from proxy.http.address import LOOPBACK_NAMES
from proxy.observability.exchange_log import ExchangeLog
from proxy.observability.inspector import InspectorHub
from proxy.secrets.secret import Secret
from proxy.server.connection import ClientConnection
from proxy.server.connection_limit import ConnectionLimit
from proxy.server.inbound_token import InboundToken
from tests.support.keyrelay import RawClient, exchange, keyrelay, static_route, until

HEALTH = b"GET /-/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
TOKEN = InboundToken(Secret("inbound_token", b"dummy-inbound-0123456789"))


def settings(*listen: str, **routes: list[str]) -> Settings:
    """Settings with these addresses, and routes that have some of their own."""
    own = {
        name: {"upstream": "https://api.example.com", "auth": [], "listen": texts}
        for name, texts in routes.items()
    }
    return Settings.model_validate({"listen": list(listen), "routes": own})


def free(port: int) -> bool:
    """Whether no listener is there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Opened:
    """Places, with the least that they need around them. Nothing but health is served."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        inspector_hub = InspectorHub(lambda _route: ())
        around = ProxyContext(loop, ExchangeLog(loop), set(), self._spawn, inspector_hub, None)
        self.clients: set[ClientConnection] = set()
        times, limit = Timeouts(10, 10), ConnectionLimit(100)

        def accept(handler: RequestHandler) -> ClientConnection:
            return ClientConnection(handler.handle, self.clients, times, loop, limit)

        self.places = ListenerSet(lambda now: RequestHandler(now, around), accept)

    @staticmethod
    def _spawn(work: Any) -> asyncio.Task[None]:
        raise AssertionError("nothing here waits for anything")

    async def take(
        self, wanted: Settings, token: InboundToken | None = None
    ) -> dict[Key, ListenerEntry]:
        """Serve by these settings, without their routes."""
        prepared = await self.places.prepare(wanted)
        routeless = wanted.model_copy(update={"routes": {}})
        self.places.put_in_force(
            {key: one for key, one in prepared.items() if one.listener.route is None},
            routeless,
            {},
            token,
        )
        return prepared

    @property
    def ports(self) -> list[int]:
        return [one.address.port for one in self.places.listeners]


@asynccontextmanager
async def opened() -> AsyncIterator[Opened]:
    one = Opened()
    try:
        yield one
    finally:
        one.places.close()
        for connection in list(one.clients):
            connection.transport.abort()
        await until(lambda: not one.clients)


async def test_what_stays_is_the_very_same() -> None:
    """An address that is in both configurations keeps its listener and its connections; the
    order may be another one.
    """
    first, second = (f"127.0.0.1:{free_port()}" for _ in range(2))
    async with opened() as one:
        await one.take(settings(first, second))
        before = set(one.places.listeners)
        async with await RawClient.to(one.ports[0]) as client:
            client.send(HEALTH)
            assert (await client.answer())[2] == b"ok\n"
            await one.take(settings(second, first))
            assert set(one.places.listeners) == before
            client.send(HEALTH)
            assert (await client.answer())[2] == b"ok\n"


async def test_free_ports_are_told_apart() -> None:
    """Each address that asks for one is its own, also where several are written alike; what stays
    keeps its port.
    """
    free_one = "127.0.0.1:0"
    async with opened() as one:
        await one.take(settings(free_one, free_one))
        first, second = one.ports
        assert first != second
        await one.take(settings(free_one, free_one, free_one))
        assert one.ports[:2] == [first, second]
        assert len(set(one.ports)) == 3
        await one.take(settings(free_one))
        assert one.ports == [first]
        assert free(second)


async def test_what_was_not_taken_is_closed() -> None:
    """Discarding closes what had been opened anew, and nothing that is in force."""
    old, new = free_port(), free_port()
    async with opened() as one:
        await one.take(settings(f"127.0.0.1:{old}"))
        prepared = await one.places.prepare(settings(f"127.0.0.1:{old}", f"127.0.0.1:{new}"))
        assert sorted(one.places.differences(prepared)) == [f"listens at 127.0.0.1:{new}"]
        assert not free(new)
        one.places.discard(prepared)
        assert free(new)
        assert (await exchange(old, HEALTH)).endswith(b"ok\n")


async def test_before_it_is_in_force_nothing_is_served() -> None:
    """A client that connects at once to a listener that may yet be given up reaches no route."""
    port = free_port()
    async with opened() as one:
        prepared = await one.places.prepare(settings(f"127.0.0.1:{port}"))
        request = b"GET /api HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert (await exchange(port, request)).startswith(b"HTTP/1.1 404 ")
        one.places.discard(prepared)


async def test_one_that_cannot_be_had_closes_the_others() -> None:
    """With the error nothing is left open of what had come before it."""
    good = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bad = taken.getsockname()[1]
        async with opened() as one:
            with pytest.raises(KeyrelayError, match=f"127.0.0.1:{bad} is in use"):
                await one.places.prepare(settings(f"127.0.0.1:{good}", f"127.0.0.1:{bad}"))
            assert free(good)
            assert one.places.listeners == ()


async def test_what_is_gone_serves_nobody() -> None:
    """No client can connect, and a connected one gets no further: not even with the token."""
    port = free_port()
    async with opened() as one:
        await one.take(settings(f"127.0.0.1:{port}", "127.0.0.1:0"), TOKEN)
        async with await RawClient.to(port) as client:
            client.send(HEALTH)
            assert (await client.answer())[0] == 200
            prepared = await one.places.prepare(settings("127.0.0.1:0"))
            assert list(one.places.differences(prepared)) == [
                f"listens no more at 127.0.0.1:{port}"
            ]
            await one.take(settings("127.0.0.1:0"), TOKEN)
            assert free(port)
            client.send(b"GET /api HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await client.answer())[0] == 404


async def test_who_an_address_is_for_may_change() -> None:
    """From the whole to one route: the listener stays open, and is that route's from then on."""
    text = f"127.0.0.1:{free_port()}"
    async with opened() as one:
        (before,) = (await one.take(settings(text))).values()
        prepared = await one.places.prepare(settings("127.0.0.1:0", api=[text]))
        (after,) = [place for place in prepared.values() if place.listener.route]
        assert after.listener.route == "api"
        assert after.listener.server is before.listener.server
        assert after.handler is before.handler
        one.places.discard(prepared)
        assert (await exchange(before.listener.address.port, HEALTH)).endswith(b"ok\n")


async def test_stopping_leaves_connections() -> None:
    """No connection is accepted; those that are open go on."""
    port = free_port()
    async with opened() as one:
        await one.take(settings(f"127.0.0.1:{port}"))
        async with await RawClient.to(port) as client:
            client.send(HEALTH)
            await client.answer()
            one.places.stop()
            assert free(port)
            client.send(HEALTH)
            assert (await client.answer())[2] == b"ok\n"


def test_every_place_and_whose_it_is() -> None:
    """Those of the file, then those of each route, in order."""
    wanted = settings("127.0.0.1:1", "127.0.0.1:2", a=["127.0.0.1:3"], b=["127.0.0.1:4"])
    assert list(listen_places(wanted)) == [
        ("127.0.0.1:1", None),
        ("127.0.0.1:2", None),
        ("127.0.0.1:3", "a"),
        ("127.0.0.1:4", "b"),
    ]


def test_hosts_that_stand_for_keyrelay() -> None:
    """Loopback's names, the literal addresses of listeners, what is configured; no wildcard."""
    wanted = settings("127.0.0.3:0", "[::1]:0", "0.0.0.0:0", "unix:/run/dummy", a=["127.0.0.4:0"])
    hosts = served_hosts(wanted.model_copy(update={"hosts": ("keyrelay",)}))
    assert {"localhost", "127.0.0.1", "[::1]", "127.0.0.3", "127.0.0.4", "keyrelay"} <= hosts
    assert not {"0.0.0.0", "/run/dummy", "unix:/run/dummy"} & hosts


def test_who_may_connect() -> None:
    """Beyond loopback a token is needed; and users cannot be told apart there."""
    loopback, beyond = settings("127.0.0.1:0"), settings("127.0.0.1:0", a=["0.0.0.0:0"])
    for token in (None, TOKEN):
        check_addresses(loopback, token)
    guarded = beyond.model_copy(update={"inbound_token": SecretSettings(references=("env:DUMMY",))})
    check_addresses(guarded, TOKEN)
    with pytest.raises(KeyrelayError, match=r"not loopback|every network"):
        check_addresses(guarded, None)
    with pytest.raises(KeyrelayError) as caught:
        check_addresses(beyond, None)
    assert "\n" not in str(caught.value)
    enforced = guarded.model_copy(update={"peer_uid": "enforce"})
    with pytest.raises(KeyrelayError, match="peer_uid: enforce"):
        check_addresses(enforced, TOKEN)
    check_addresses(loopback.model_copy(update={"peer_uid": "enforce"}), TOKEN)


async def test_a_kubelet_s_probe_by_address(
    dummy_key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond loopback, health checks are served by address and without Host; routes are not."""
    monkeypatch.setenv("DUMMY_INBOUND", "dummy-inbound-token-of-enough-length-0123456789")
    routes = {"api": static_route("http://127.0.0.1:9")}
    inbound: dict[str, Any] = {"listen": ["0.0.0.0:0"], "inbound_token": "env:DUMMY_INBOUND"}
    async with keyrelay(routes, **inbound) as running:
        for head in (b"HTTP/1.1\r\nHost: 10.1.2.3:8080\r\n\r\n", b"HTTP/1.0\r\n\r\n"):
            assert b" 200 " in (await exchange(running.port, b"GET /-/ready " + head))[:15]
            assert b" 200 " not in (await exchange(running.port, b"GET /api/x " + head))[:15]


def test_the_names_of_a_service() -> None:
    """Of a Kubernetes Service that is listed with namespace and svc the short and the full one."""
    hosts = served_hosts(Settings(hosts=("keyrelay.demo.svc", "proxy", "x.y.z", "a.svc")))
    named = hosts - LOOPBACK_NAMES
    full = "keyrelay.demo.svc.cluster.local"
    assert named == {"keyrelay", "keyrelay.demo.svc", full, "proxy", "x.y.z", "a.svc"}
