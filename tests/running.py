"""Keyrelay and raw peers on loopback, for tests that talk to it over real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from proxy.app import App
from proxy.settings import Settings

SECRET = b"dummy-real-key"


@dataclass
class Running:
    """A keyrelay that runs: ``url`` and ``port`` of its main listener, lines of its access log."""

    app: App
    lines: list[str]

    @property
    def url(self) -> str:
        return self.app.listeners[0].url

    @property
    def port(self) -> int:
        return self.app.listeners[0].address.port


@asynccontextmanager
async def keyrelay(
    routes: dict[str, Any], *, origins: tuple[str, ...] = (), **settings: Any
) -> AsyncIterator[Running]:
    """Keyrelay on a free port with these routes, as they would stand in YAML."""
    lines: list[str] = []
    document = {
        "listen": ["127.0.0.1:0"],
        "browsers": {"origins": origins},
        "drain_seconds": 0,
        "routes": routes,
        **settings,
    }
    async with App(Settings.model_validate(document), write_log=lines.append) as app:
        yield Running(app, lines)


def static_route(upstream: str, **more: Any) -> dict[str, Any]:
    """A route to ``upstream`` with one key: a header for HTTP, a query parameter for WebSocket.

    The secret comes from the environment variable DUMMY_KEY; see the fixture ``dummy_key``.
    """
    return {
        "upstream": upstream,
        "secrets": {"key": "env:DUMMY_KEY"},
        "auth": [
            {
                "name": "key",
                "http": {"header": "X-Api-Key", "value": "{key}"},
                "websocket": {"query": "api_key", "value": "{key}"},
            }
        ],
        **more,
    }


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class RawProvider:
    """A provider that says exactly what a test tells it, and keeps every byte that it got.

    ``connections`` counts those accepted: zero proves that nothing was dialled.
    """

    serve: Serve
    connections: int = 0
    received: bytearray = field(default_factory=bytearray)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def raw_provider(serve: Serve) -> AsyncIterator[RawProvider]:
    """Run ``serve`` for each connection, until the block ends."""
    provider = RawProvider(serve)
    tasks: set[asyncio.Task[Any]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        provider.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    provider.port = server.sockets[0].getsockname()[1]
    try:
        yield provider
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answering(*answers: bytes) -> Serve:
    """Reads a head, sends the next of ``answers``; the last one again and again."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                await read_head(reader)
            except asyncio.IncompleteReadError:
                return
            writer.write(left.pop(0) if len(left) > 1 else left[0])
            await writer.drain()

    return serve


async def read_head(reader: asyncio.StreamReader) -> bytes:
    """A message's head with its blank line. IncompleteReadError at the end of the connection."""
    return await reader.readuntil(b"\r\n\r\n")


async def exchange(port: int, request: bytes, *, until_close: bool = False) -> bytes:
    """Send bytes to keyrelay on a connection of its own; the answer's bytes.

    Reads one answer with a Content-Length, or all there is ``until_close``.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            if until_close:
                return await reader.read()
            head = await read_head(reader)
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            return head + await reader.readexactly(length)
    finally:
        writer.close()
