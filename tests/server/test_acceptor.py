"""Connections are accepted as plain sockets, while the acceptor is not paused."""

from __future__ import annotations

import asyncio
import socket

from proxy.http.address import ListenAddress
from proxy.server.acceptor import Acceptor
from tests.support.keyrelay import until


async def test_connections_are_passed_on_unless_paused() -> None:
    """Those that come during a pause wait, and none is lost."""
    listening = socket.create_server(("127.0.0.1", 0))
    address = ListenAddress("127.0.0.1", listening.getsockname()[1], None)
    passed: list[socket.socket] = []
    acceptor = Acceptor(address, listening, lambda _address, one: passed.append(one))
    clients = []

    async def connect() -> None:
        loop = asyncio.get_running_loop()
        client = socket.socket()
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", address.port))
        clients.append(client)

    await connect()
    await asyncio.sleep(0.05)
    assert passed == []
    acceptor.begin()
    acceptor.begin()
    await until(lambda: len(passed) == 1)
    acceptor.rest()
    await connect()
    await asyncio.sleep(0.05)
    assert len(passed) == 1
    acceptor.begin()
    await until(lambda: len(passed) == 2)
    acceptor.close()
    acceptor.close()
    for one in [*clients, *passed]:
        one.close()


async def test_a_pause_within_a_turn_ends_it() -> None:
    """The receiver may pause the acceptor: no further connection is accepted then."""
    listening = socket.create_server(("127.0.0.1", 0))
    address = ListenAddress("127.0.0.1", listening.getsockname()[1], None)
    passed: list[socket.socket] = []
    clients = [socket.create_connection(("127.0.0.1", address.port)) for _ in range(3)]

    def take(_address: ListenAddress, one: socket.socket) -> None:
        passed.append(one)
        acceptor.rest()

    acceptor = Acceptor(address, listening, take)
    acceptor.begin()
    await until(lambda: len(passed) == 1)
    await asyncio.sleep(0.05)
    assert len(passed) == 1
    acceptor.close()
    for one in [*clients, *passed]:
        one.close()
