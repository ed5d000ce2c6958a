"""Places of several processes, in one process: what is accepted here is served there."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

import pytest

from proxy.config.settings import Settings
from proxy.errors import KeyrelayError
from proxy.forwarding.handler import RequestHandler
from proxy.http.address import ListenAddress
from proxy.process.ipc import Channel, Message
from proxy.process.worker_listeners import GivenPlaces, ListenerOffer, OpenPlaces, PassedConnections
from proxy.server.connection import ClientConnection
from tests.support.keyrelay import both_loops, until

pytestmark = both_loops

TEXT = "127.0.0.1:0"
HERE = ListenAddress("127.0.0.1", 4711, None)
THERE = ListenAddress("127.0.0.1", 4712, None)


def no_gateway(_now: object) -> RequestHandler:
    """Nothing here asks what is served."""
    return object.__new__(RequestHandler)


def no_client(_gateway: RequestHandler) -> ClientConnection:
    raise NotImplementedError


class Hello(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are of no class of asyncio's.
        there = cast("asyncio.WriteTransport", transport)
        there.write(b"hello")
        there.close()


async def test_connections_wait_until_somebody_wants_them() -> None:
    """Before that, and while nobody does, they are neither refused nor lost."""
    passed: list[tuple[ListenAddress, socket.socket]] = []
    places = OpenPlaces(no_gateway, no_client, lambda *one: passed.append(one))
    opened = await places.prepare(Settings.model_validate({"listen": [TEXT, TEXT]}))
    places._in_force = opened
    first, second = places.listeners
    assert [(one.text, one.owner) for one in places.offers()] == [(TEXT, None)] * 2
    clients = [
        socket.create_connection((one.address.host, one.address.port)) for one in (first, second)
    ]
    await asyncio.sleep(0.05)
    assert passed == []
    places.accept(True)
    places.accept(True)
    await until(lambda: len(passed) == 2)
    assert {address for address, _ in passed} == {first.address, second.address}
    places.accept(False)
    clients.append(socket.create_connection((first.address.host, first.address.port)))
    await asyncio.sleep(0.05)
    assert len(passed) == 2
    places.close()
    places.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((second.address.host, second.address.port))
    for one in (*clients, *(sock for _, sock in passed)):
        one.close()


async def test_what_arrives_is_served_by_its_place() -> None:
    """And what arrives at a place that is not served any more is closed."""
    arrivals = PassedConnections()
    arrivals.offers = [ListenerOffer(TEXT, None, HERE)]
    listener = arrivals.serve(TEXT, None, Hello)
    assert listener.url == "http://127.0.0.1:4711"
    loop = asyncio.get_running_loop()
    for said in (b"hello", b""):
        client, far = socket.socketpair()
        client.setblocking(False)
        with client:
            arrivals.arrived(HERE, far)
            assert await loop.sock_recv(client, 100) == said
        listener.close()


async def test_a_connection_that_is_being_handed_over_ends_with_its_channel() -> None:
    """The channel closes while connections arrive: each protocol that was given its transport gets
    the end of its connection as well.
    """
    made: list[asyncio.BaseTransport] = []
    lost = 0

    class Counted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            nonlocal lost
            lost += 1

    arrivals = PassedConnections()
    arrivals.offers = [ListenerOffer(TEXT, None, HERE)]
    arrivals.serve(TEXT, None, Counted)

    async def arrive(_kind: str, _message: Message, descriptors: list[int]) -> Message:
        arrivals.arrived(HERE, socket.socket(fileno=descriptors[0]))
        return {}

    async def nothing(_kind: str, _message: Message, _descriptors: list[int]) -> Message:
        return {}

    here, there = socket.socketpair()
    first, second = Channel(here, nothing), Channel(there, arrive)
    pairs = [socket.socketpair() for _ in range(30)]
    for _, far in pairs:
        first.send("connection", {}, [far.fileno()])
        far.close()
    first.close()
    await second.closed
    # The handlers were cancelled in the iteration in which they began.
    await until(lambda: not arrivals._tasks)
    for client, _ in pairs:
        client.close()
    for transport in made:
        cast("asyncio.Transport", transport).abort()
    await until(lambda: lost == len(made), seconds=5)


async def test_each_place_is_served_once() -> None:
    """By what is written and whose it is; where two are written alike, each gets another."""
    arrivals = PassedConnections()
    arrivals.offers = [
        ListenerOffer(TEXT, None, HERE),
        ListenerOffer(TEXT, None, THERE),
        ListenerOffer(TEXT, "acme", HERE),
    ]
    places = GivenPlaces(no_gateway, no_client, arrivals)
    opened = await places.prepare(Settings.model_validate({"listen": [TEXT, TEXT]}))
    assert [one.listener.address for one in opened.values()] == [HERE, THERE]
    with pytest.raises(KeyrelayError, match="does not listen at"):
        arrivals.serve(TEXT, None, Hello)
    # What never came into force is free again.
    places.discard(opened)
    assert arrivals.serve(TEXT, None, Hello).address == HERE
