"""Connections to providers: when one is used again, how an answer ends, what counts as broken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from proxy.http.address import Origin
from proxy.upstream.connection import CLOSED, UpstreamConnection
from proxy.upstream.dialer import Dialer
from proxy.upstream.pool import Pool
from tests.support.keyrelay import (
    RawProvider,
    answering,
    both_loops,
    raw_provider,
    read_head,
    until,
)
from tests.support.upstream_connection import OK, REQUEST, Answer, send

pytestmark = both_loops

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
IDLE_SECONDS, SILENCE_SECONDS = 50.0, 600.0


class Scripted:
    """A provider that sends what the test puts in ``pieces``, a piece each time; None closes."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        await read_head(reader)
        while (piece := await self.pieces.get()) is not None:
            writer.write(piece)

    def send(self, *pieces: bytes | None) -> None:
        for piece in pieces:
            self.pieces.put_nowait(piece)


@asynccontextmanager
async def pool_of(
    provider: RawProvider, *, idle_seconds: float = IDLE_SECONDS
) -> AsyncIterator[Pool]:
    origin = Origin("http", "127.0.0.1", provider.port)
    loop = asyncio.get_running_loop()
    pool = Pool(
        Dialer(origin, connect_seconds=5),
        loop,
        idle_seconds=idle_seconds,
        silence_seconds=SILENCE_SECONDS,
    )
    try:
        yield pool
    finally:
        pool.close()
        await asyncio.sleep(0.002)


class Counted(asyncio.Protocol):
    """Stands before a connection and counts the bytes that it has read."""

    def __init__(self, connection: UpstreamConnection) -> None:
        self.received = 0
        self.eof_received = connection.eof_received  # type: ignore[method-assign]
        self.connection_lost = connection.connection_lost  # type: ignore[method-assign]
        self.pause_writing = connection.pause_writing  # type: ignore[method-assign]
        self.resume_writing = connection.resume_writing  # type: ignore[method-assign]
        self._connection = connection
        connection.transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self._connection.data_received(data)

    async def until(self, count: int, answer: Answer) -> None:
        """Until so many bytes have been read, or the answer is over."""
        await until(lambda: self.received == count or answer.over)


async def in_pieces(*pieces: bytes | None, head_only: bool = False) -> tuple[Answer, bool]:
    """The answer to one request that comes in these pieces, each in a read of its own, and whether
    the connection was kept.
    """
    script = Scripted()
    async with raw_provider(script.serve) as provider, pool_of(provider) as pool:
        connection = await pool.dial()
        counted = Counted(connection)
        answer = send(connection, head_only=head_only)
        sent = 0
        for piece in pieces:
            script.send(piece)
            sent += len(piece or b"")
            await counted.until(sent, answer)
        await answer.until_over()
        return answer, pool.idle == 1


# -- uploads -----------------------------------------------------------------------------------


async def test_an_aborted_upload_ends_for_the_provider() -> None:
    """At once: nothing that serves to read an early response keeps the connection open."""
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read()
        gone.set()

    async with raw_provider(serve) as provider, pool_of(provider) as pool:
        connection = await pool.dial()
        send(connection, b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n", ended=False)
        connection.abort()
        async with asyncio.timeout(30):
            await gone.wait()


# -- keeping connections -----------------------------------------------------------------------


async def test_a_connection_is_used_again() -> None:
    """After a whole answer the connection waits for the next request, and is fresh no more."""
    async with raw_provider(answering(OK)) as provider, pool_of(provider) as pool:
        assert pool.take() is None
        first = await pool.dial()
        assert first.fresh
        for _ in range(3):
            answer = await send(first).until_over()
            assert (answer.status, answer.body) == (200, b"ok")
            assert pool.idle == 1
            assert pool.take() is first
            assert not first.fresh
        assert provider.connections == 1


async def test_the_one_used_last_comes_first() -> None:
    """Of several idle connections the one used last is handed out first, so that the rest age."""
    async with raw_provider(answering(OK)) as provider, pool_of(provider) as pool:
        connections = [await pool.dial() for _ in range(3)]
        for connection in connections:
            await send(connection).until_over()
        assert [pool.take() for _ in range(4)] == [*reversed(connections), None]


async def test_unused_connections_are_dropped() -> None:
    """Idle ones are closed, the one that serves a request is not."""
    async with raw_provider(answering(OK)) as provider, pool_of(provider) as pool:
        idle, busy = await pool.dial(), await pool.dial()
        await send(idle).until_over()
        pool.drop_unused()
        assert (pool.idle, pool.take()) == (0, None)
        assert (await send(busy).until_over()).status == 200


async def test_idle_connections_age() -> None:
    """An unused connection is closed after its time and never handed out again."""
    async with raw_provider(answering(OK)) as provider, pool_of(provider) as pool:
        await send(await pool.dial()).until_over()
        now = asyncio.get_running_loop().time()
        pool.expire(now + IDLE_SECONDS - 1)
        assert pool.idle == 1
        pool.expire(now + IDLE_SECONDS + 1)
        assert pool.take() is None
        await until(lambda: pool.idle == 0)


async def test_no_idle_time_keeps_none() -> None:
    """With an idle time of zero each request has a connection of its own."""
    async with raw_provider(answering(OK)) as provider, pool_of(provider, idle_seconds=0) as pool:
        for number in range(2):
            assert (await send(await pool.dial()).until_over()).body == b"ok"
            assert pool.take() is None
            assert provider.connections == number + 1


@pytest.mark.parametrize("extra", [OK, b"x", b"\r\n"])
async def test_bytes_on_an_idle_connection_close_it(extra: bytes) -> None:
    """What a provider sends unasked is never the answer to the next request."""
    script = Scripted()
    async with raw_provider(script.serve) as provider, pool_of(provider) as pool:
        script.send(OK)
        connection = await pool.dial()
        await send(connection).until_over()
        assert pool.idle == 1
        script.send(extra)
        await until(lambda: connection.state is CLOSED)
        assert pool.take() is None


async def test_a_provider_that_hangs_up_is_forgotten() -> None:
    """An idle connection that the provider closes is not handed out."""
    script = Scripted()
    async with raw_provider(script.serve) as provider, pool_of(provider) as pool:
        script.send(OK)
        await send(await pool.dial()).until_over()
        script.send(None)
        await until(lambda: pool.idle == 0)
        assert pool.take() is None


@pytest.mark.parametrize(
    "answer_bytes",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    ],
)
async def test_connections_that_are_not_kept(answer_bytes: bytes) -> None:
    """A connection is not used again if the provider says close, speaks HTTP/1.0, or writes heads
    so oddly that their end cannot be told for sure.
    """
    answer, kept = await in_pieces(answer_bytes)
    assert (answer.body, answer.error, kept) == (b"ok", "", False)


@pytest.mark.parametrize(
    "pieces",
    [
        (OK[:-1], b"k" + OK),
        (OK[:-1], b"kx"),
        (OK + OK,),
        (b"HTTP/1.1 204 No Content\r\n\r\n" + OK,),
        (CHUNKED, b"2\r\nok\r\n0\r\n\r\n" + OK),
        (CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + OK,),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 47\r\n\r\n" + OK,),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",),
    ],
)
async def test_a_response_with_something_behind_it(pieces: tuple[bytes, ...]) -> None:
    """An answer that is followed by more than itself is passed on, and its connection closed."""
    answer, kept = await in_pieces(*pieces)
    assert answer.ended
    assert answer.body in {b"ok", b""}
    assert not kept


@pytest.mark.parametrize("pieces", [(OK + b"x",)])
async def test_garbage_behind_a_response(pieces: tuple[bytes, ...]) -> None:
    """Garbage in the very packet of an answer makes the answer untrustworthy."""
    answer, kept = await in_pieces(*pieces)
    assert (answer.error, kept) == ("http_protocol_error", False)


async def test_an_early_response_does_not_keep_its_connection() -> None:
    """Where the answer ends before the request does, the rest of the request has nowhere to go."""
    async with raw_provider(answering(OK)) as provider, pool_of(provider) as pool:
        connection = await pool.dial()
        head = b"POST / HTTP/1.1\r\nHost: dummy\r\nContent-Length: 5\r\n\r\n"
        answer = await send(connection, head + b"ab", ended=False).until_over()
        assert answer.body == b"ok"
        assert connection.state is CLOSED
        assert pool.take() is None


async def test_a_request_not_taken_does_not_keep_its_connection() -> None:
    """Nor where the provider answers without having read the request: what waits to be sent would
    stand before the next one. It may still read it, for as long as it may be silent.
    """
    script = Scripted()
    async with raw_provider(script.serve) as provider, pool_of(provider) as pool:
        script.send(OK)
        connection = await pool.dial()
        size = 64 << 20
        head = b"POST / HTTP/1.1\r\nHost: dummy\r\nContent-Length: %d\r\n\r\n" % size
        answer = send(connection, head + bytes(size))
        assert answer.full
        await answer.until_over()
        assert pool.take() is None
        lost = asyncio.get_running_loop().time() + SILENCE_SECONDS + 1
        pool.expire(lost - 2)
        await asyncio.sleep(0.002)
        assert connection in pool._open
        pool.expire(lost)
        await until(lambda: connection not in pool._open)


async def test_reading_goes_on_after_a_pause() -> None:
    """A connection that was paused for a slow client reads again when it is given back."""
    async with raw_provider(answering(OK)) as provider, pool_of(provider) as pool:
        connection = await pool.dial()
        await send(connection).until_over()
        assert pool.take() is connection
        answer = send(connection)
        connection.pause_reading()
        connection.pause_reading()
        pool.expire(1e9)
        connection.send_more(b"", ended=True)
        pool.expire(asyncio.get_running_loop().time() + SILENCE_SECONDS + 1)
        assert not answer.over
        connection.resume_reading()
        assert (await answer.until_over()).body == b"ok"
        assert pool.take() is connection
        assert connection.transport.is_reading()


# -- how an answer ends ------------------------------------------------------------------------

TEXT = b"hello, world"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n"
WHOLE = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n", TEXT),
    "chunked": (CHUNKED, b"5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nX-Trailer: 1\r\n\r\n"),
    "interim first": (
        INTERIM + b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n",
        TEXT,
    ),
}


@pytest.mark.parametrize(("head", "body"), WHOLE.values(), ids=WHOLE.keys())
async def test_whole_responses(head: bytes, body: bytes) -> None:
    """However an answer is cut into packets, its body is complete; its connection is kept, unless
    the blank line behind the last chunk came in two.
    """
    data = head + body
    cuts = [(data,), (head, body), (head[:-2], head[-2:] + body[:3], body[3:])]
    cuts.append(tuple(data[place : place + 1] for place in range(len(data))))
    for pieces in cuts:
        answer, kept = await in_pieces(*pieces)
        assert (answer.status, answer.body, answer.error) == (200, TEXT, "")
        assert kept or (pieces[-1] == b"\n" and body is not TEXT)


async def test_a_response_until_the_end_of_the_connection() -> None:
    """Without framing the end of the connection is the end of the answer."""
    answer, kept = await in_pieces(b"HTTP/1.1 200 OK\r\n\r\nhello", b", world", None)
    assert (answer.body, answer.ended, kept) == (TEXT, True, False)


async def test_a_response_until_the_end_may_be_broken() -> None:
    """Unless the connection is reset: then it is broken."""
    script = Scripted()
    async with raw_provider(script.serve) as provider, pool_of(provider) as pool:
        script.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        connection = await pool.dial()
        answer = send(connection, REQUEST + b"unread", ended=False)
        await until(lambda: answer.body)
        # With something unread, closing a socket resets the connection.
        connection.send_more(bytes(1 << 20), ended=False)
        await until(lambda: not connection.transport.get_write_buffer_size() or answer.full)
        script.writers[0].transport.abort()
        assert (await answer.until_over()).error == "http_response_incomplete"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n",
        CHUNKED,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 12\r\nETag: x\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
    ],
)
async def test_responses_without_a_body(head: bytes) -> None:
    """An answer to HEAD, a 204 and a 304 end with their head, whatever they announce; the
    connection is kept.
    """
    answer, kept = await in_pieces(head, head_only=b" 200 " in head)
    assert (answer.body, answer.ended, answer.calls, kept) == (b"", True, 1, True)


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello", None),
        (CHUNKED + b"5\r\nhello\r\n", None),
        (CHUNKED + b"5\r\nhello\r\n0\r\n", None),
        (CHUNKED + b"c\r\nhello", None),
    ],
)
async def test_truncated_responses(pieces: tuple[bytes | None, ...]) -> None:
    """An answer whose announced end does not come is broken, after what there was of it."""
    answer, kept = await in_pieces(*pieces)
    assert (answer.status, answer.body) == (200, b"hello")
    assert (answer.error, kept) == ("http_response_incomplete", False)


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ((None,), "connection_terminated"),
        ((b"HTTP/1.1 200 OK\r\nContent-", None), "http_response_incomplete"),
        ((b"HTTP/1.1 100 Continue\r\n\r\n", None), "http_response_incomplete"),
        ((b"dummy\r\n\r\n",), "http_protocol_error"),
        ((b"SSH-2.0-dummy\r\n",), "http_protocol_error"),
        ((b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",), "http_protocol_error"),
        (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",),
            "http_protocol_error",
        ),
        (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",),
            "http_protocol_error",
        ),
        ((CHUNKED + b"dummy\r\n",), "http_protocol_error"),
        (
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",),
            "http_response_transfer_coding",
        ),
        (
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",),
            "http_response_transfer_coding",
        ),
        (
            (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",),
            "http_protocol_error",
        ),
        ((b"HTTP/1.1 101 Switching Protocols\r\n\r\n",), "http_protocol_error"),
    ],
)
async def test_responses_that_are_none(pieces: tuple[bytes | None, ...], error: str) -> None:
    """No answer, half an answer, ambiguous framing, codings and an unasked 101 are failures of the
    provider, each with its name in RFC 9209.
    """
    answer, kept = await in_pieces(*pieces)
    assert (answer.head, answer.error, kept) == (None, error, False)


async def test_broken_chunks_after_a_good_start() -> None:
    """Malformed framing further on breaks an answer that has begun."""
    answer, _ = await in_pieces(CHUNKED + b"5\r\nhello\r\n", b"dummy\r\n")
    assert (answer.body, answer.error) == (b"hello", "http_protocol_error")


async def test_a_101_that_was_asked_for() -> None:
    """It comes with what followed it in the packet, and the transport is handed over."""
    script = Scripted()
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: dummy\r\n\r\n"
    async with raw_provider(script.serve) as provider, pool_of(provider) as pool:
        script.send(switching + b"early")
        connection = await pool.dial()
        answer = send(connection, upgrading=True)
        await until(lambda: answer.head)
        assert (answer.status, answer.body, answer.ended) == (101, b"early", False)
        transport = connection.detach()
        pool.expire(1e9)
        pool.close()
        assert not transport.is_closing()
        transport.abort()


# -- silence -----------------------------------------------------------------------------------


async def test_a_provider_that_does_not_respond() -> None:
    """Silence is counted from the last byte sent, and ends the connection."""
    script = Scripted()
    async with raw_provider(script.serve) as provider, pool_of(provider) as pool:
        connection = await pool.dial()
        answer = send(connection, ended=False)
        now = asyncio.get_running_loop().time()
        pool.expire(now + SILENCE_SECONDS - 1)
        assert not answer.over
        pool.expire(now + SILENCE_SECONDS + 1)
        assert answer.error == "http_response_timeout"
        assert answer.failure is not None
        assert answer.failure.timed_out
        assert connection.state is CLOSED


async def test_a_provider_that_stops_responding() -> None:
    """Silence within an answer is told apart from silence before it."""
    script = Scripted()
    async with raw_provider(script.serve) as provider, pool_of(provider) as pool:
        script.send(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello")
        answer = send(await pool.dial())
        await until(lambda: answer.body == b"hello")
        pool.expire(asyncio.get_running_loop().time() + SILENCE_SECONDS + 1)
        assert answer.error == "connection_read_timeout"


async def test_closing_the_pool_drops_everything() -> None:
    """Idle and busy connections are gone, and no response is delivered any more."""
    script = Scripted()
    async with raw_provider(script.serve) as provider, pool_of(provider) as pool:
        script.send(OK)
        idle, busy = await pool.dial(), await pool.dial()
        await send(idle).until_over()
        answer = send(busy)
        pool.close()
        assert pool.take() is None
        assert idle.state is CLOSED
        assert busy.state is CLOSED
        await asyncio.sleep(0.002)
        assert not answer.over
