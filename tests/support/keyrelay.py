"""Keyrelay and raw peers on loopback, for tests that talk to it over real connections."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from proxy.app.app import App
from proxy.clock import Clock
from proxy.config import loader
from proxy.config.settings import Settings
from tests.emulators.gate import Gate

SECRET = b"dummy-real-key"

# For tests of the data path, which runs on asyncio's own loop and on uvloop's.
both_loops = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])


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

    def websocket(
        self,
        target: str,
        headers: Sequence[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        compression: str | None = "deflate",
    ) -> connect:
        """A WebSocket of a client that is not aiohttp's, so that aiohttp does not judge itself.

        An async context manager; InvalidStatus for a handshake that was refused.
        """
        return connect(
            f"ws://127.0.0.1:{self.port}{target}",
            additional_headers=list(headers),
            subprotocols=[Subprotocol(one) for one in subprotocols] or None,
            compression=compression,
            max_size=None,
            proxy=None,
            open_timeout=30,
            close_timeout=2,
        )


@asynccontextmanager
async def keyrelay(
    routes: dict[str, Any],
    *,
    origins: tuple[str, ...] = (),
    clock: Clock | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """Keyrelay on a free port with these routes, as they would stand in YAML.

    ``clock`` is for tokens; the real one by default.
    """
    lines: list[str] = []
    document = {
        "listen": ["127.0.0.1:0"],
        "browsers": {"origins": origins},
        "drain_seconds": 0,
        "routes": routes,
        **settings,
    }
    checked = Settings.model_validate(document)
    async with App(checked, write_log=lines.append, clock=clock) as app:
        yield Running(app, lines)


@asynccontextmanager
async def preset_keyrelay(
    routes: dict[str, Any],
    *,
    origins: tuple[str, ...] = (),
    clock: Clock | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """As ``keyrelay``, but read as a routes file is: with the presets that ship, and checked."""
    lines: list[str] = []
    document = {
        "listen": "127.0.0.1:0",
        "browsers": {"origins": origins},
        "drain_seconds": 0,
        "routes": routes,
        **settings,
    }
    # JSON is YAML.
    loaded = loader.load_text(json.dumps(document), "routes.yaml")
    async with App(loaded, write_log=lines.append, clock=clock) as app:
        yield Running(app, lines)


def static_route(
    upstream: str, header: str = "X-Api-Key", value: str = "{key}", **more: Any
) -> dict[str, Any]:
    """A route to ``upstream`` with one key: a header for HTTP, a query parameter for WebSocket.

    The secret comes from the environment variable DUMMY_KEY; see the fixture ``dummy_key``.
    """
    return {
        "upstream": upstream,
        # Tests count connections; spares have tests of their own.
        "spares": 0,
        "secrets": {"key": "env:DUMMY_KEY"},
        "auth": [
            {
                "name": "key",
                "http": {"header": header, "value": value},
                "websocket": {"query": "api_key", "value": "{key}"},
            }
        ],
        **more,
    }


@asynccontextmanager
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client that leaves bodies as they came."""
    async with aiohttp.ClientSession(
        auto_decompress=False, timeout=aiohttp.ClientTimeout(total=20)
    ) as session:
        yield session


async def events(response: aiohttp.ClientResponse, pieces: Gate) -> list[bytes]:
    """The events of a completion, each released by the provider when the one before has come."""
    seen: list[bytes] = []
    while not seen or seen[-1] != b"data: [DONE]\n\n":
        pieces.release()
        async with asyncio.timeout(5):
            seen.append(await response.content.readuntil(b"\n\n"))
    assert await response.content.read() == b""
    return seen


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
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"


@asynccontextmanager
async def raw_provider(
    serve: Serve, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RawProvider]:
    """Run ``serve`` for each connection, until the block ends. ``tls`` makes it https."""
    provider = RawProvider(serve, scheme="https" if tls else "http")
    tasks: set[asyncio.Task[Any]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        provider.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            # asyncio reports a cancelled handler as an error; here it is how the block ends.
            with suppress(asyncio.CancelledError):
                await serve(reader, writer)
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=tls)
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
        async for _ in heads(reader):
            writer.write(left.pop(0) if len(left) > 1 else left[0])
            await writer.drain()

    return serve


def holding(response: bytes, closed: asyncio.Event | None = None) -> Serve:
    """Reads a head, sends ``response``, and keeps the connection until the peer closes it; then
    ``closed`` is set.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(response)
        await reader.read()
        if closed is not None:
            closed.set()

    return serve


async def read_head(reader: asyncio.StreamReader) -> bytes:
    """A message's head with its blank line. IncompleteReadError at the end of the connection."""
    return await reader.readuntil(b"\r\n\r\n")


async def heads(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """One head after another, until the connection ends; bodies are for the caller to read."""
    while True:
        try:
            head = await read_head(reader)
        except asyncio.IncompleteReadError:
            return
        yield head


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection off with a reset (RST), which ``abort`` alone is not."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def connection(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw connection to keyrelay, closed at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def exchange(port: int, request: bytes, *, until_close: bool = False) -> bytes:
    """Send bytes to keyrelay on a connection of its own; the answer's bytes.

    Reads one answer with a Content-Length, or all there is ``until_close``.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(60):
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


def request_id_line(message: bytes) -> bytes:
    """The line ``X-Request-Id`` of a head or an answer, which has exactly one, and a valid one."""
    head = message.partition(b"\r\n\r\n")[0] + b"\r\n"
    # Servers may fold ``_`` and ``-``, so a twin would be a second one.
    found: list[bytes] = re.findall(rb"(?<=\n)(?i:X[-_]Request[-_]Id)[^\n]*\n", head)
    assert len(found) == 1, head
    assert re.fullmatch(rb"X-Request-Id: [A-Za-z0-9._~:/+=@-]{1,128}\r\n", found[0]), head
    return found[0]


def without_request_id(message: bytes) -> bytes:
    """A head or an answer without the one ``X-Request-Id`` that it has to have."""
    return message.replace(request_id_line(message), b"", 1)


async def until(condition: Callable[[], object], *, seconds: float = 30) -> None:
    """Wait until a condition without an event holds. TimeoutError if it never does."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(0.001)


class RawClient:
    """A client that sends bytes and reads answers, with no opinion of its own on either."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, port: int) -> RawClient:
        """A connection to this port of loopback, to be closed by the caller."""
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 17))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> bytes:
        """The next answer's head."""
        async with asyncio.timeout(5):
            return await read_head(self._reader)

    async def exactly(self, count: int) -> bytes:
        async with asyncio.timeout(60):
            return await self._reader.readexactly(count)

    async def chunk(self) -> bytes:
        """The next chunk of the answer, empty for the last."""
        async with asyncio.timeout(60):
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            return (await self._reader.readexactly(size + 2))[:-2]

    async def answer(self) -> tuple[int, bytes, bytes]:
        """Status, head and body of the next answer, one with a Content-Length or none."""
        head = await self.head()
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return int(head[9:12]), head, await self.exactly(length)

    async def rest(self) -> bytes:
        """All that comes until the connection ends."""
        async with asyncio.timeout(60):
            return await self._reader.read()

    async def nothing(self) -> None:
        """Nothing comes, and the connection stays."""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.03):
                await self._reader.read(1)

    def reset(self) -> None:
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()

    async def __aenter__(self) -> RawClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.reset()


@asynccontextmanager
async def proxied(
    serve: Serve,
    *,
    tls: ssl.SSLContext | None = None,
    route: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[RawProvider, Running]]:
    """Keyrelay before a raw provider, with one ``static_route`` of the name ``api``.

    ``route`` adds to the route, ``settings`` to the file. Needs the fixture ``dummy_key``.
    """
    async with (
        raw_provider(serve, tls) as provider,
        keyrelay({"api": static_route(provider.url, **(route or {}))}, **settings) as running,
    ):
        yield provider, running


@asynccontextmanager
async def proxied_client(
    serve: Serve, **options: Any
) -> AsyncIterator[tuple[RawProvider, Running, RawClient]]:
    """As ``proxied``, and one raw connection to keyrelay."""
    async with (
        proxied(serve, **options) as (provider, running),
        await RawClient.to(running.port) as client,
    ):
        yield provider, running, client
