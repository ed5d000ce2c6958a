"""Peers that vanish without a trace: every wait for them ends, and what can be repeated is."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.net.conftest import RELAY, RELAY_FOR_CLIENTS, RELAY_LATER, TOKEN, Network
from tests.support.keyrelay import answering, read_head, until
from tests.support.upstream_connection import OK

pytestmark = [pytest.mark.net, pytest.mark.timeout(60)]

MEBIBYTE = 1 << 20


def request(method: str = "GET", fields: bytes = b"", body: bytes = b"") -> bytes:
    head = f"{method} /api/x HTTP/1.1\r\nHost: {RELAY_FOR_CLIENTS}\r\nX-Keyrelay-Token: {TOKEN}\r\n"
    return head.encode() + fields + b"Content-Length: %d\r\n\r\n" % len(body) + body


def change_address(network: Network) -> None:
    """As a change of VPN or Wi-Fi does: the provider does not reach the old address any more."""
    network.provider.ip("route", "add", "blackhole", f"{RELAY}/32")
    device = "relay-provider"
    network.relay.ip("address", "add", f"{RELAY_LATER}/24", "dev", device)
    network.relay.ip("route", "change", "192.0.2.0/24", "dev", device, "src", RELAY_LATER)


async def test_a_repeatable_request_leaves_a_dead_connection(network: Network) -> None:
    """A GET on a kept connection that leads nowhere is sent again on a new one within seconds."""
    async with (
        network.serving(answering(OK)) as provider,
        network.relaying(provider, dead_peer_seconds=60) as running,
        network.calling(running) as client,
    ):
        client.send(request())
        assert (await client.answer())[0] == 200
        change_address(network)
        began = time.monotonic()
        client.send(request())
        await until(lambda: provider.connections == 2, seconds=15)
        assert (await client.answer())[0] == 200
        assert time.monotonic() - began < 15


async def test_a_request_that_cannot_be_repeated_ends(network: Network) -> None:
    """A POST on a dead connection is not sent twice; it fails once its peer counts as gone."""
    async with (
        network.serving(answering(OK)) as provider,
        network.relaying(provider) as running,
        network.calling(running) as client,
    ):
        client.send(request())
        assert (await client.answer())[0] == 200
        network.relay.unplug(network.provider)
        client.send(request("POST", body=b"dummy"))
        await until(lambda: len(running.lines) == 2, seconds=20)
        assert (await client.answer())[0] == 504
        assert provider.connections == 1
        assert running.app.exchange_log.recent[-1].outcome == "connection_timeout"


async def test_a_response_that_is_awaited(network: Network) -> None:
    """A provider that vanishes while it computes: the request is acknowledged, then nothing."""
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        asked.set()
        await reader.read()

    async with (
        network.serving(serve) as provider,
        network.relaying(provider) as running,
        network.calling(running) as client,
    ):
        client.send(request("POST"))
        await asked.wait()
        network.relay.unplug(network.provider)
        await until(lambda: running.lines, seconds=20)
        assert (await client.answer())[0] == 504


async def test_a_response_that_streams(network: Network) -> None:
    """A provider that vanishes within its response: the client gets an incomplete one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndummy\r\n")
        await reader.read()

    async with (
        network.serving(serve) as provider,
        network.relaying(provider) as running,
        network.calling(running) as client,
    ):
        client.send(request())
        await client.head()
        assert await client.chunk() == b"dummy"
        network.relay.unplug(network.provider)
        assert await client.rest() == b""
        assert running.app.exchange_log.recent[0].outcome == "http_response_incomplete"


async def test_a_websocket_whose_provider_vanishes(network: Network) -> None:
    """An idle WebSocket ends for the client, too."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(SWITCHING)
        await reader.read()

    async with (
        network.serving(serve) as provider,
        network.relaying(provider) as running,
        network.calling(running) as client,
    ):
        client.send(HANDSHAKE)
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        network.relay.unplug(network.provider)
        await until(lambda: running.lines, seconds=20)
        await client.rest()


HANDSHAKE = request(
    fields=b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
# The pair of key and response of RFC 6455 section 1.3.
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


async def test_a_client_that_vanishes(network: Network) -> None:
    """The provider's request ends with it, so that no more is computed."""
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        network.relay.unplug(network.client)
        await reader.read()
        gone.set()

    async with (
        network.serving(serve) as provider,
        network.relaying(provider, dead_peer_seconds=1) as running,
        network.calling(running) as client,
    ):
        client.send(request())
        async with asyncio.timeout(20):
            await gone.wait()
        await until(lambda: running.lines)
        assert running.app.exchange_log.recent[0].outcome == "client-left"


async def test_a_client_that_pauses_is_not_gone(network: Network) -> None:
    """A client that does not read for longer than the limit gets the rest of its response."""
    body = bytes(16 * MEBIBYTE)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await reader.read()

    async with (
        network.serving(serve) as provider,
        network.relaying(provider, dead_peer_seconds=2) as running,
        network.calling(running) as client,
    ):
        client.send(request())
        await client.head()
        await asyncio.sleep(5)  # the pause itself
        assert await client.exactly(len(body)) == body
