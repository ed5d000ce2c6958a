"""WebSockets through keyrelay, with a client and a server that are not aiohttp's.

What matters is that neither side can tell keyrelay from a wire, but for the credential.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus

from proxy.websocket.relay import Relay
from tests.support.certificates import Authority
from tests.support.keyrelay import (
    SECRET,
    RawClient,
    both_loops,
    holding,
    proxied,
    proxied_client,
    read_head,
    reset,
    until,
)
from tests.support.websocket import HANDSHAKE, MEBIBYTE, accept, ended, pair, relaying, switching

pytestmark = both_loops

# A whole frame of each direction: text "early", masked with zeros by the client.
FROM_CLIENT = b"\x81\x85\0\0\0\0early"
FROM_PROVIDER = b"\x81\x05early"


async def echo(session: ServerConnection) -> None:
    async for message in session:
        await session.send(message)


# -- messages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_messages_cross(dummy_key: bytes, compression: str | None) -> None:
    """Text and binary messages cross both ways, empty and large ones too, with the compression
    that both sides agreed on.
    """
    messages: list[str | bytes] = ["", "grüße", b"", bytes(range(256)), "x" * 70_000, bytes(70_000)]
    async with (
        relaying(echo) as (running, _),
        running.websocket("/api/chat", compression=compression) as client,
    ):
        assert bool(client.protocol.extensions) is (compression is not None)
        for message in messages:
            await client.send(message)
            assert await client.recv() == message


async def test_a_provider_without_compression(dummy_key: bytes) -> None:
    """Whether frames are compressed is agreed between client and provider alone."""
    async with (
        relaying(echo, compression=None) as (running, _),
        running.websocket("/api/chat") as client,
    ):
        assert client.protocol.extensions == []
        await client.send("hello")
        assert await client.recv() == "hello"


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_a_message_of_20_mebibytes(dummy_key: bytes, compression: str | None) -> None:
    """No size of message is too large."""
    message = bytes(range(256)) * (20 * MEBIBYTE // 256)
    async with (
        relaying(echo) as (running, _),
        running.websocket("/api/chat", compression=compression) as client,
    ):
        await client.send(message)
        assert await client.recv() == message


async def test_fragments_stay_fragments(dummy_key: bytes) -> None:
    """A message in fragments arrives in the same fragments, in both directions."""
    fragments = ["a", "bc", "", "def"]

    async def pieces() -> AsyncIterator[str]:
        for fragment in fragments:
            yield fragment

    async with relaying() as (running, provider), running.websocket("/api/chat") as client:
        session = await provider.session()
        await client.send(pieces())
        # The library ends a streamed message with an empty fragment.
        assert [one async for one in session.recv_streaming()] == [*fragments, ""]
        await session.send(pieces())
        assert [one async for one in client.recv_streaming()] == [*fragments, ""]


async def test_pings_and_pongs(dummy_key: bytes) -> None:
    """A ping from either side is answered by the other side itself, with its payload."""
    async with relaying() as (running, provider), running.websocket("/api/chat") as client:
        session = await provider.session()
        async with asyncio.timeout(5):
            await (await client.ping(b"from the client"))
            await (await session.ping(b"from the provider"))


# -- ends --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "gone"), (4321, "grüße")])
async def test_the_client_closes(dummy_key: bytes, code: int, reason: str) -> None:
    """Code and reason of a client's close reach the provider; both connections end at once."""
    async with relaying() as (running, provider), running.websocket("/api/chat") as client:
        session = await provider.session()
        await client.close(code, reason)
        await session.wait_closed()
        assert (session.close_code, session.close_reason) == (code, reason)
        assert (client.close_code, client.close_reason) == (code, reason)
        await ended(running)


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1011, "over"), (4000, "grüße")])
async def test_the_provider_closes(dummy_key: bytes, code: int, reason: str) -> None:
    """Code and reason of a provider's close reach the client; both connections end at once."""
    async with relaying() as (running, provider), running.websocket("/api/chat") as client:
        session = await provider.session()
        await session.send("last words")
        await session.close(code, reason)
        assert await client.recv() == "last words"
        closed = ConnectionClosedOK if code == 1000 else ConnectionClosedError
        with pytest.raises(closed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (code, reason)
        await ended(running)


async def test_the_provider_disconnects(dummy_key: bytes) -> None:
    """A provider that vanishes without closing leaves the client without a close as well."""
    async with relaying() as (running, provider), running.websocket("/api/chat") as client:
        session = await provider.session()
        session.transport.abort()
        with pytest.raises(ConnectionClosedError):
            await client.recv()
        assert client.close_code == 1006
        await ended(running)


async def test_the_client_disconnects(dummy_key: bytes) -> None:
    """A client that vanishes without closing leaves the provider without a close as well."""
    async with relaying() as (running, provider):
        async with running.websocket("/api/chat") as client:
            session = await provider.session()
            client.transport.abort()
            await session.wait_closed()
        assert session.close_code == 1006
        await ended(running)


@pytest.mark.parametrize("hard", [False, True], ids=["end", "reset"])
@pytest.mark.parametrize("side", ["client", "provider"])
async def test_one_connection_ends_with_the_other(dummy_key: bytes, side: str, hard: bool) -> None:
    """However a connection ends, by its plain end or by a reset, the other one follows."""
    writers: list[asyncio.StreamWriter] = []
    gone = asyncio.Event()

    async def shake_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await read_head(reader)
        writer.write(switching())
        try:
            await reader.read()
        except ConnectionError:
            assert hard
        gone.set()

    async with proxied_client(shake_hands) as (_, running, client):
        client.send(HANDSHAKE)
        await client.head()
        writer = client.writer if side == "client" else writers[0]
        (reset if hard else asyncio.StreamWriter.close)(writer)
        if side == "client":
            async with asyncio.timeout(2):
                await gone.wait()
        else:
            assert await client.rest() == b""
        client.close()
        await ended(running)


async def test_one_direction_may_end_before_the_other(dummy_key: bytes) -> None:
    """The end of one direction is passed on, and the other direction goes on; once it has ended as
    well, everything is over at once.
    """
    received = bytearray()

    async def serve_half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(switching())
        writer.write(b"last words")
        writer.write_eof()
        received.extend(await reader.read())

    async with proxied_client(serve_half) as (_, running, client):
        client.send(HANDSHAKE)
        await client.head()
        assert await client.rest() == b"last words"
        client.send(b"and an answer")
        client.writer.write_eof()
        await ended(running)
        # The provider's task may run after keyrelay has released the session.
        await until(lambda: received == b"and an answer")


async def test_what_was_sent_before_the_end_arrives(dummy_key: bytes) -> None:
    """A provider that sends much and hangs up: all of it reaches a client that reads later."""
    size = 8 * MEBIBYTE

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(switching() + bytes(size))
        await writer.drain()

    async with proxied_client(pour) as (_, running, client):
        client.send(HANDSHAKE)
        await client.head()
        await asyncio.sleep(0.03)
        assert len(await client.rest()) == size
        client.close()
        await ended(running)


async def test_a_session_is_noted(dummy_key: bytes) -> None:
    """When a session is over the journal has one line for it, with the bytes of both directions."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(switching() + FROM_PROVIDER)
        await reader.readexactly(len(FROM_CLIENT))

    async with proxied(reply) as (_, running):
        async with await RawClient.to(running.port) as client:
            client.send(HANDSHAKE + FROM_CLIENT)
            await client.rest()
        await ended(running)
        (noted,) = running.app.exchange_log.recent
        assert (noted.status, noted.websocket, noted.outcome) == (101, True, "")
        assert (noted.sent, noted.received) == (len(FROM_CLIENT), len(FROM_PROVIDER))
        running.app.exchange_log.flush()
        (line,) = running.lines
        assert " api WS /chat 101 " in line


# -- the handshake -----------------------------------------------------------------------------


async def test_the_credential_is_in_the_handshake(dummy_key: bytes) -> None:
    """The provider sees the credential at its place for WebSockets, the client's own fields, and
    nothing that the client brought as a key.
    """
    async with relaying(echo) as (running, provider):
        headers = [("X-Mine", "1"), ("X-Api-Key", "dummy-client"), ("Cookie", "a=b")]
        async with running.websocket("/api/chat?x=%20&api_key=dummy-client", headers) as client:
            await client.send("hello")
            await client.recv()
        (handshake,) = provider.handshakes
        assert handshake.path == f"/v1/chat?x=%20&api_key={SECRET.decode()}"
        assert handshake.headers["X-Mine"] == "1"
        assert handshake.headers.get_all("Host") == [f"127.0.0.1:{provider.port}"]
        assert not {"X-Api-Key", "Cookie", "Origin"} & set(handshake.headers)


async def test_subprotocols(dummy_key: bytes) -> None:
    """The provider chooses among what the client offers, and the client learns its choice."""
    async with (
        relaying(echo, subprotocols=["v2", "v1"]) as (running, provider),
        running.websocket("/api/chat", subprotocols=["v1", "v2"]) as client,
    ):
        assert client.subprotocol in {"v1", "v2"}
        (handshake,) = provider.handshakes
        assert handshake.headers.get_all("Sec-WebSocket-Protocol") == ["v1, v2"]


async def test_a_subprotocol_beside_a_key(dummy_key: bytes) -> None:
    """A key that is offered as a subprotocol stays here; the provider chooses among the rest."""
    async with (
        relaying(echo, subprotocols=["realtime"]) as (running, provider),
        running.websocket(
            "/api/chat",
            subprotocols=["realtime", "openai-insecure-api-key.dummy", "bearer_dummy"],
        ) as client,
    ):
        assert client.subprotocol == "realtime"
        (handshake,) = provider.handshakes
        assert handshake.headers.get_all("Sec-WebSocket-Protocol") == ["realtime"]


async def test_a_key_as_the_only_subprotocol(dummy_key: bytes) -> None:
    """Where nothing is left to offer, the client still gets one of its offers selected, because
    browsers insist on that.
    """
    async with (
        relaying(echo) as (running, provider),
        running.websocket("/api/chat", subprotocols=["bearer_dummy"]) as client,
    ):
        assert client.subprotocol == "bearer_dummy"
        assert "Sec-WebSocket-Protocol" not in provider.handshakes[0].headers
        await client.send("hello")
        assert await client.recv() == "hello"


@pytest.mark.parametrize(
    "status",
    [HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS],
)
async def test_the_provider_refuses(dummy_key: bytes, status: HTTPStatus) -> None:
    """A provider's refusal is the client's answer: its status, its fields, its body."""
    async with relaying(refuse=status) as (running, _):
        with pytest.raises(InvalidStatus) as refused:
            await running.websocket("/api/chat")
        response = refused.value.response
        assert (response.status_code, response.body) == (status, b"dummy refusal")
        assert "Proxy-Status" not in response.headers
        assert not running.app._context.relays


@pytest.mark.parametrize(
    "refusal",
    [
        b"HTTP/1.1 302 Found\r\nLocation: http://other.example/\r\nContent-Length: 0\r\n",
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Length: 0\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
        b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n",
    ],
)
async def test_any_other_response_crosses(dummy_key: bytes, refusal: bytes) -> None:
    """What is no 101 is an answer like any other, redirects included, and ends the connection."""

    async with proxied_client(holding(refusal + b"\r\n")) as (provider, _, client):
        client.send(HANDSHAKE)
        assert await client.rest() == refusal + b"Connection: close\r\n\r\n"
        assert provider.connections == 1


@pytest.mark.parametrize(
    "fields",
    [
        (b"Upgrade: websocket", b"Connection: Upgrade"),
        (b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: dummy"),
        (
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + accept(b"b3RoZXItbm9uY2UtMTIzNA=="),
        ),
        (
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + accept(),
            b"Sec-WebSocket-Accept: " + accept(),
        ),
        (b"Upgrade: h2c", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + accept()),
        (b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + accept()),
        (b"Upgrade: websocket", b"Sec-WebSocket-Accept: " + accept()),
        (b"Upgrade: websocket", b"Connection: x", b"Sec-WebSocket-Accept: " + accept()),
    ],
)
async def test_a_101_for_something_else(dummy_key: bytes, fields: tuple[bytes, ...]) -> None:
    """A 101 that is not the answer to this very handshake is the provider's fault: 502."""

    async with proxied_client(holding(switching(*fields) + FROM_PROVIDER)) as (_, running, client):
        client.send(HANDSHAKE)
        status, head, body = await client.answer()
        assert status == json.loads(body)["status"] == 502
        assert b"error=http_upgrade_failed;" in head
        assert await client.rest() == b""
        assert not running.app._context.relays


async def test_several_tokens_in_connection(dummy_key: bytes) -> None:
    """``Connection`` may say more than Upgrade, in any case."""

    async def shake_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(
            switching(
                b"upgrade: WebSocket",
                b"connection: Keep-Alive, UPGRADE",
                b"sec-websocket-accept: " + accept(),
            )
        )
        await reader.read()

    async with proxied_client(shake_hands) as (_, _, client):
        client.send(HANDSHAKE)
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")


# -- bytes at the wrong moment -----------------------------------------------------------------


async def test_early_frames(dummy_key: bytes) -> None:
    """What follows a handshake in the same packet, on either side, is not lost; nor is what the
    client sends while the provider is still asked. The order stays.
    """
    asked, go_on = asyncio.Event(), asyncio.Event()
    received = bytearray()

    async def serve_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        asked.set()
        await go_on.wait()
        writer.write(switching() + FROM_PROVIDER)
        while len(received) < 3 * len(FROM_CLIENT):
            received.extend(await reader.read(1000))
        writer.write(FROM_PROVIDER)

    async with proxied_client(serve_early) as (_, _, client):
        client.send(HANDSHAKE + FROM_CLIENT)
        await asked.wait()
        client.send(FROM_CLIENT.replace(b"early", b"later"))
        await client.nothing()
        go_on.set()
        await client.head()
        assert await client.exactly(len(FROM_PROVIDER)) == FROM_PROVIDER
        client.send(FROM_CLIENT.replace(b"early", b"final"))
        assert await client.exactly(len(FROM_PROVIDER)) == FROM_PROVIDER
        assert received == b"".join(
            FROM_CLIENT.replace(b"early", word) for word in (b"early", b"later", b"final")
        )


async def test_many_early_frames(dummy_key: bytes) -> None:
    """A client that sends a lot before it is let in is not read further; then all of it arrives."""
    size = 16 * MEBIBYTE
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def serve_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        asked.set()
        await go_on.wait()
        writer.write(switching())
        assert await reader.readexactly(size) == bytes(size)
        writer.write(FROM_PROVIDER)

    async with proxied_client(serve_late) as (_, _, client):
        client.send(HANDSHAKE + bytes(size))
        await asked.wait()
        await client.nothing()
        assert client.writer.transport.get_write_buffer_size()
        go_on.set()
        await client.head()
        assert await client.exactly(len(FROM_PROVIDER)) == FROM_PROVIDER


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("slow", ["client", "provider"])
async def test_the_slow_side_slows_the_other(
    dummy_key: bytes, trusted: Authority, slow: str, secure: bool
) -> None:
    """While one side does not read, only so much is taken from the other; then all arrives."""
    total, piece = 64 * MEBIBYTE, bytes(range(256)) * 1024
    read_on = asyncio.Event()
    sent = received = 0

    async def pour(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while sent < total:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)

    async def swallow(exactly: Callable[[int], Awaitable[bytes]]) -> None:
        nonlocal received
        await read_on.wait()
        while received < total:
            assert await exactly(len(piece)) == piece
            received += len(piece)

    async def serve_it(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(switching())
        await (pour(writer) if slow == "client" else swallow(reader.readexactly))
        await reader.read()

    tls = trusted.server("127.0.0.1") if secure else None
    async with proxied_client(serve_it, tls=tls) as (_, _, client):
        client.send(HANDSHAKE)
        await client.head()
        async with asyncio.TaskGroup() as tasks:
            mine = swallow(client.exactly) if slow == "client" else pour(client.writer)
            tasks.create_task(mine)
            seen = -1
            while seen != sent or not sent:
                seen = sent
                await asyncio.sleep(0.03)
            assert sent < total // 2
            read_on.set()
        await until(lambda: received == total)


# -- somebody watches --------------------------------------------------------------------------


class Watcher:
    """A tap that keeps all it gets."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.ends = 0

    def from_client(self, data: bytes) -> None:
        self.heard.append(("client", data))

    def from_provider(self, data: bytes) -> None:
        self.heard.append(("provider", data))

    def note(self, text: str) -> None:
        raise AssertionError("a session without a credential in its messages has no notes")

    def ended(self) -> None:
        self.ends += 1


async def test_a_tap_gets_all_bytes() -> None:
    """A capture of a session gets a copy of all that crosses, what came early too, and its end
    once; what crosses is no other.
    """
    loop = asyncio.get_running_loop()
    watcher = Watcher()
    ends: list[tuple[int, int]] = []
    async with pair() as (near, client), pair() as (far, provider):
        relay = Relay(
            near,
            far,
            loop,
            lambda _, sent, received: ends.append((sent, received)),
            watcher,
        )
        relay.start(from_client=b"early", from_provider=b"")
        assert await provider.exactly(5) == b"early"
        provider.send(b"answer")
        assert await client.exactly(6) == b"answer"
        client.send(b"more")
        assert await provider.exactly(4) == b"more"
        assert watcher.heard == [
            ("client", b"early"),
            ("provider", b"answer"),
            ("client", b"more"),
        ]
        assert watcher.ends == 0
        client.close()
        assert await provider.rest() == b""
        provider.close()
        await until(lambda: ends)
        assert watcher.ends == 1
        assert ends == [(9, 6)]


# -- TLS ---------------------------------------------------------------------------------------


async def test_over_tls(dummy_key: bytes, trusted: Authority) -> None:
    """Messages, pings, code and reason of the end cross a TLS connection to the provider."""
    async with (
        relaying(tls=trusted.server("127.0.0.1")) as (running, provider),
        running.websocket("/api/chat") as client,
    ):
        session = await provider.session()
        large = bytes(range(256)) * 16_384
        await client.send(large)
        assert await session.recv() == large
        await session.send(large)
        assert await client.recv() == large
        await (await client.ping(b"x"))
        await session.close(4321, "enough")
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (4321, "enough")
        await ended(running)


@pytest.mark.parametrize("side", ["client", "provider"])
async def test_over_tls_one_connection_ends_with_the_other(
    dummy_key: bytes, trusted: Authority, side: str
) -> None:
    """Under TLS as well the end of either connection is the end of the other."""
    async with (
        relaying(tls=trusted.server("127.0.0.1")) as (running, provider),
        running.websocket("/api/chat") as client,
    ):
        session = await provider.session()
        (client if side == "client" else session).transport.abort()
        await client.wait_closed()
        await session.wait_closed()
        assert {client.close_code, session.close_code} == {1006}
        await ended(running)
