"""Providers that respond to an upload before its end, and close: the response reaches the client.

A connection that is closed with unread bytes is reset. What arrived before the reset is there to be
read, also when the next write fails first.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.early_provider import early_provider
from tests.support.keyrelay import RawClient, both_loops, keyrelay, static_route, until

pytestmark = both_loops

UPLOADS = 50
KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE
PIECE = 64 * KIBIBYTE
HEAD = b" HTTP/1.1\r\nHost: localhost\r\n"


def early(status: int, size: int = 200) -> bytes:
    """A response with a body of this size, of a server that closes the connection."""
    return b"HTTP/1.1 %d Early\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
        status,
        size,
        b"e" * size,
    )


async def upload(client: RawClient, size: int, *, chunked: bool) -> None:
    """Send a body in pieces, as far as the connection takes it."""
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    client.send(b"POST /api/up" + HEAD + framing + b"\r\n\r\n")
    piece = b"%x\r\n%b\r\n" % (PIECE, bytes(PIECE)) if chunked else bytes(PIECE)
    try:
        for _ in range(size // PIECE):
            client.send(piece)
            await client.writer.drain()
        if chunked:
            client.send(b"0\r\n\r\n")
            await client.writer.drain()
    except ConnectionError:
        # A client may see the end of the connection before its body is sent.
        return


async def responses(
    port: int, *, size: int = MEBIBYTE, chunked: bool = False, reads_late: bool = False
) -> list[tuple[int, int]]:
    """Status and size of the response to each of many uploads on connections of their own."""
    found = []
    for _ in range(UPLOADS):
        async with await RawClient.to(port) as client, asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(upload(client, size, chunked=chunked))
            if reads_late:
                await sending
            status, _, body = await client.answer()
            found.append((status, len(body)))
    return found


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("reads", [0, 100 * KIBIBYTE], ids=["head", "some"])
@pytest.mark.parametrize("status", [401, 413])
async def test_an_early_response_reaches_the_client(
    dummy_key: bytes, status: int, reads: int, chunked: bool
) -> None:
    """Every time, with its body, whether the provider read none or some of the upload."""
    with early_provider(early(status), reads=reads) as provider:
        async with keyrelay({"api": static_route(provider.url)}) as running:
            found = await responses(running.port, chunked=chunked)
    assert found == [(status, 200)] * UPLOADS


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [200, 40 * KIBIBYTE])
async def test_an_early_response_over_tls_reaches_the_client(
    dummy_key: bytes, trusted: Authority, size: int, chunked: bool
) -> None:
    """Also what is still to be decrypted when the connection is reset."""
    with early_provider(early(413, size), tls=trusted.server("127.0.0.1")) as provider:
        async with keyrelay({"api": static_route(provider.url)}) as running:
            found = await responses(running.port, chunked=chunked)
    assert found == [(413, size)] * UPLOADS


@pytest.mark.parametrize("status", [403, 415, 429, 503])
async def test_a_client_that_reads_late_gets_an_early_response(
    dummy_key: bytes, status: int
) -> None:
    """Clients that read nothing before their whole body is sent get the response, too."""
    with early_provider(early(status, 40 * KIBIBYTE)) as provider:
        async with keyrelay({"api": static_route(provider.url)}) as running:
            found = await responses(running.port, reads_late=True)
    assert found == [(status, 40 * KIBIBYTE)] * UPLOADS


@pytest.mark.parametrize("size", [40 * KIBIBYTE, 200 * KIBIBYTE, MEBIBYTE])
async def test_an_early_response_to_a_body_sent_at_once(dummy_key: bytes, size: int) -> None:
    """A body that is complete at keyrelay, and waits to be written, makes no difference."""
    request = b"PUT /api/up" + HEAD + b"Content-Length: %d\r\n\r\n" % size + bytes(size)
    with early_provider(early(413)) as provider:
        async with keyrelay({"api": static_route(provider.url)}) as running:
            for _ in range(UPLOADS):
                async with await RawClient.to(running.port) as client:
                    client.send(request)
                    assert (await client.answer())[0] == 413


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize(
    "framing",
    [b"Connection: close\r\n\r\ngone", b"Transfer-Encoding: chunked\r\n\r\n4\r\ngone\r\n"],
)
async def test_an_early_response_that_is_cut(
    dummy_key: bytes, trusted: Authority, framing: bytes, tls: bool
) -> None:
    """What came of a response without its end reaches the client, marked as incomplete."""
    context = trusted.server("127.0.0.1") if tls else None
    with early_provider(b"HTTP/1.1 413 Early\r\n" + framing, tls=context) as provider:
        async with keyrelay({"api": static_route(provider.url)}) as running:
            for count in range(UPLOADS):
                async with await RawClient.to(running.port) as client, asyncio.TaskGroup() as tasks:
                    tasks.create_task(upload(client, MEBIBYTE, chunked=False))
                    assert (await client.head()).startswith(b"HTTP/1.1 413 Early\r\n")
                    assert await client.chunk() == b"gone"
                    assert await client.rest() == b""
                    await until(lambda: len(running.lines) > count)  # noqa: B023
            outcomes = {one.outcome for one in running.app.exchange_log.recent}
    assert outcomes == {"http_response_incomplete"}


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("status", [401, 403, 429])
async def test_an_early_response_to_a_handshake(
    dummy_key: bytes, trusted: Authority, status: int, tls: bool
) -> None:
    """A WebSocket handshake that is refused before the frames behind it are read."""
    context = trusted.server("127.0.0.1") if tls else None
    handshake = (
        b"GET /api/up" + HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ZHVtbXktZHVtbXktZHVtbQ==\r\n\r\n"
    )
    with early_provider(early(status), tls=context) as provider:
        async with keyrelay({"api": static_route(provider.url)}) as running:
            for _ in range(UPLOADS):
                async with await RawClient.to(running.port) as client:
                    client.send(handshake + b"\x82\x84\0\0\0\0data" * 100)
                    assert (await client.answer())[0] == status


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_no_descriptor_stays(dummy_key: bytes, trusted: Authority) -> None:
    """After early responses keyrelay has as many open descriptors as before."""
    with early_provider(early(413), tls=trusted.server("127.0.0.1")) as provider:
        async with keyrelay({"api": static_route(provider.url)}) as running:
            before = open_descriptors()
            await responses(running.port)
            await until(lambda: open_descriptors() <= before)
