"""A client, keyrelay and a provider on three hosts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from typing import Any

import pytest

from tests.net.hosts import Host, isolate
from tests.support.keyrelay import RawClient, RawProvider, Running, Serve, keyrelay, static_route

TOKEN = "dummy-inbound-token"
RELAY_FOR_CLIENTS, CLIENT = "198.51.100.1", "198.51.100.2"
RELAY, RELAY_LATER, PROVIDER = "192.0.2.1", "192.0.2.3", "192.0.2.2"


@dataclass
class Network:
    """The hosts. The test itself runs on ``relay``."""

    client: Host
    relay: Host
    provider: Host

    @asynccontextmanager
    async def serving(self, serve: Serve) -> AsyncIterator[RawProvider]:
        """Run ``serve`` on the provider's host for each connection."""
        raw = RawProvider(serve)
        writers: list[asyncio.StreamWriter] = []

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            raw.connections += 1
            writers.append(writer)
            try:
                await serve(reader, writer)
            except (asyncio.IncompleteReadError, OSError):
                writer.close()

        with self.provider.entered():
            sock = socket.create_server((PROVIDER, 0))
        raw.port = sock.getsockname()[1]
        server = await asyncio.start_server(accepted, sock=sock)
        try:
            yield raw
        finally:
            server.close()
            for writer in writers:
                writer.transport.abort()
            await asyncio.sleep(0)

    @asynccontextmanager
    async def relaying(
        self, provider: RawProvider, *, dead_peer_seconds: float = 4
    ) -> AsyncIterator[Running]:
        """Keyrelay between the two networks."""
        route = static_route(
            f"http://{PROVIDER}:{provider.port}", allow_plaintext=True, allow_private=True
        )
        async with keyrelay(
            {"api": route},
            listen=[f"{RELAY_FOR_CLIENTS}:0"],
            inbound_token="env:DUMMY_TOKEN",
            dead_peer_seconds=dead_peer_seconds,
        ) as running:
            yield running

    @asynccontextmanager
    async def calling(self, running: Running) -> AsyncIterator[RawClient]:
        """A connection from the client's host to keyrelay."""
        with self.client.entered():
            sock = socket.create_connection((RELAY_FOR_CLIENTS, running.port), timeout=30)
        async with RawClient(*await asyncio.open_connection(sock=sock)) as client:
            yield client


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, dummy_key: Any) -> Iterator[Network]:
    """The hosts, linked. Skipped with the reason where the machine allows no namespaces."""
    try:
        isolate()
    except OSError as error:
        pytest.skip(f"no network namespaces here: {error}")
    monkeypatch.setenv("DUMMY_TOKEN", TOKEN)
    with ExitStack() as stack:
        client, relay, provider = (
            stack.enter_context(closing(Host(name))) for name in ("client", "relay", "provider")
        )
        relay.link(client, RELAY_FOR_CLIENTS, CLIENT)
        relay.link(provider, RELAY, PROVIDER)
        stack.enter_context(relay.entered())
        yield Network(client, relay, provider)
