"""Smuggling and desync: wherever two parties could disagree on where a message ends, it ends here.

Raw sockets on both sides of a running keyrelay. The provider and the client of these tests read
strictly (RFC 9112), so a byte too much or too little shows as a request or an answer of its own.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config.route import RouteSettings
from proxy.errors import Refusal
from proxy.forwarding.upstream_request import UpstreamRequest
from proxy.http import parser as http_parser
from proxy.http.address import LOOPBACK_NAMES
from proxy.http.request import Request
from proxy.routing.builder import compile_route
from proxy.routing.route import Route
from proxy.routing.route_secrets import ResolvedSecrets
from proxy.routing.router import Router
from proxy.secrets.secret import Secret
from proxy.server.guard import Guard, check_target
from tests.support.keyrelay import (
    SECRET,
    RawClient,
    RawProvider,
    Running,
    both_loops,
    keyrelay,
    proxied,
    proxied_client,
    raw_provider,
    static_route,
    until,
)

HEAD = b" HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /api/x" + HEAD
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
# What an attacker puts where others may see the next request begin.
SMUGGLED = b"GET /api/smuggled" + HEAD + b"\r\n"
LAST = b"GET /api/last" + HEAD + b"Connection: close\r\n\r\n"

Received = tuple[bytes, list[tuple[bytes, bytes]], bytes]


class Strict:
    """A provider that reads as RFC 9112 says and nothing else. ``requests`` has all of them in
    order; ``broken`` counts connections that ended within one.

    answer   gives the answer to a request line, or None to give none
    """

    def __init__(self, answer: Callable[[bytes], bytes | None] = lambda line: OK) -> None:
        self.answer = answer
        self.requests: list[Received] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.broken = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while True:
            head = b""
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                line, fields = fields_of(head)
                body = await content(reader, fields)
            except (asyncio.IncompleteReadError, ConnectionError):
                self.broken += bool(head)
                return
            self.requests.append((line, fields, body))
            if (answer := self.answer(line)) is not None:
                writer.write(answer)

    @property
    def lines(self) -> list[bytes]:
        return [line for line, _, _ in self.requests]


def fields_of(head: bytes) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """First line and fields of a head, each spelt as the RFC's grammar wants."""
    line, *rest = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    fields = []
    for one in rest:
        found = re.fullmatch(rb"([!#-'*+.^-z|~0-9A-Z-]+): ([^\r\n\0]*)", one)
        assert found is not None, head
        fields.append((found[1].lower(), found[2]))
    return line, fields


async def content(reader: asyncio.StreamReader, fields: list[tuple[bytes, bytes]]) -> bytes:
    """The body behind a head, which must say in one way where it ends."""
    framing = [pair for pair in fields if pair[0] in {b"content-length", b"transfer-encoding"}]
    if not framing:
        return b""
    ((name, value),) = framing
    if name == b"content-length":
        assert re.fullmatch(rb"[0-9]+", value)
        return await reader.readexactly(int(value))
    assert value == b"chunked"
    body = b""
    while True:
        size = await reader.readuntil(b"\r\n")
        assert re.fullmatch(rb"[0-9a-f]+\r\n", size), size
        data = await reader.readexactly(int(size, 16) + 2)
        assert data.endswith(b"\r\n")
        if data == b"\r\n":
            return body
        body += data[:-2]


def answers_in(data: bytes, *methods: bytes) -> list[tuple[int, bytes]]:
    """(status, body) of each answer, as a strict client reads them that sent these methods."""
    found = []
    for method in methods:
        if not data:
            break
        head, blank, data = data.partition(b"\r\n\r\n")
        assert blank, data
        line, fields = fields_of(head + blank)
        assert re.fullmatch(rb"HTTP/1\.1 [2-5][0-9]{2} [^\r\n\0]*", line), line
        status, body = int(line[9:12]), b""
        framing = [pair for pair in fields if pair[0] in {b"content-length", b"transfer-encoding"}]
        assert len(framing) <= 1, head
        if method != b"HEAD" and status not in {204, 304}:
            ((name, value),) = framing
            if name == b"content-length":
                length = int(value)
                assert len(data) >= length
                body, data = data[:length], data[length:]
            else:
                body, data = unchunked(data)
        found.append((status, body))
    assert not data, data
    return found


def unchunked(data: bytes) -> tuple[bytes, bytes]:
    """A chunked body, and what is behind it."""
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        assert data[length : length + 2] == b"\r\n"
        chunk, data = data[:length], data[length + 2 :]
        if not chunk:
            return body, data
        body += chunk


@asynccontextmanager
async def between(strict: Strict) -> AsyncIterator[tuple[RawProvider, Running]]:
    """Keyrelay between a test and its provider."""
    async with proxied(strict.serve) as (provider, running):
        yield provider, running


async def everything(port: int, data: bytes) -> bytes:
    """All that keyrelay says to these bytes until it closes; a reset ends it as well."""
    said = b""
    async with await RawClient.to(port) as client:
        client.send(data)
        async with asyncio.timeout(3):
            try:
                while more := await client._reader.read(1 << 16):
                    said += more
            except ConnectionResetError:
                pass
    return said


# -- requests that end in two ways -------------------------------------------------------------

_CONFLICTS = [
    b"Content-Length: 5\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 5",
    b"Transfer-Encoding: chunked\r\nX: y\r\nContent-Length: 0",
    b"Transfer-Encoding: xchunked\r\nContent-Length: 5",
    b"Content-Length: 5\r\nContent-Length: 5",
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Content-Length: 5\r\ncontent-length: 0",
    b"Content-Length: 5, 5",
    b"Content-Length: 5,6",
    b"Content-Length: ,5",
    b"Content-Length: +5",
    b"Content-Length: -5",
    b"Content-Length: -0",
    b"Content-Length: 0x5",
    b"Content-Length: 5h",
    b"Content-Length: 5 0",
    b"Content-Length: 5.0",
    b"Content-Length: 5e0",
    b"Content-Length: 1_0",
    b'Content-Length: "5"',
    b"Content-Length: 5;",
    b"Content-Length: 5\x0b",
    b"Content-Length: \x0c5",
    b"Content-Length: \xa05",
    b"Content-Length: \xd9\xa5",
    b"Content-Length:",
    b"Content-Length: ",
    b"Content-Length : 5",
    b"Content-Length\t: 5",
    b" Content-Length: 5",
    b"Content-Length: 0\r\n 5",
    b"Content-Length:\r\n 5",
    b"Content-Length: 18446744073709551621",
    b"Content-Length: 5\0",
    b"X: y\nContent-Length: 5",
    b"X: y\rContent-Length: 5",
    b"Transfer-Encoding:",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: gzip",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, gzip",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: chunked,",
    b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: chunked;q=1",
    b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding: 'chunked'",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunkedx",
    b"Transfer-Encoding: chunked\x0b",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding: \x00chunked",
    b"Transfer-Encoding: \xa0chunked",
    b"Transfer-Encoding: chunk\xc3\xa9d",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\x0b: chunked",
    b" Transfer-Encoding: chunked",
    b"Transfer-Encoding: x\r\n chunked",
    b"Transfer-Encoding:\r\n chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"X:\r\n Transfer-Encoding: chunked",
]


@pytest.mark.parametrize("fields", _CONFLICTS, ids=lambda fields: ascii(fields)[2:-1])
async def test_a_request_with_ambiguous_framing_reaches_nobody(
    dummy_key: bytes, fields: bytes
) -> None:
    """T23: one refusal, the end of the connection, nothing dialled; what stands behind is neither
    served nor sent on, whichever of the framings it obeys.
    """
    strict = Strict()
    async with between(strict) as (provider, running):
        said = await everything(
            running.port, POST + fields + b"\r\n\r\n0\r\n\r\n" + SMUGGLED + SMUGGLED
        )
        ((status, _),) = answers_in(said, b"POST")
        assert status in {400, 501}
        assert b"\r\nConnection: close\r\n" in said
        assert provider.connections == 0


_LINES = {
    "TE in HTTP/1.0": b"POST /api/x HTTP/1.0\r\nHost: localhost\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n",
    "TE and CL in HTTP/1.0": b"POST /api/x HTTP/1.0\r\nHost: localhost\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n",
    "HTTP/0.9": b"GET /api/x\r\n\r\n",
    "HTTP/0.9, spelt out": b"GET /api/x HTTP/0.9\r\nHost: localhost\r\n\r\n",
    "HTTP/1.2": b"GET /api/x HTTP/1.2\r\nHost: localhost\r\n\r\n",
    "HTTP/1.10": b"GET /api/x HTTP/1.10\r\nHost: localhost\r\n\r\n",
    "HTTP/01.1": b"GET /api/x HTTP/01.1\r\nHost: localhost\r\n\r\n",
    "HTTP/2.0": b"GET /api/x HTTP/2.0\r\nHost: localhost\r\n\r\n",
    "HTTP/2": b"GET /api/x HTTP/2\r\nHost: localhost\r\n\r\n",
    "HTTP/3.0": b"GET /api/x HTTP/3.0\r\nHost: localhost\r\n\r\n",
    "HTTPS/1.1": b"GET /api/x HTTPS/1.1\r\nHost: localhost\r\n\r\n",
    "ICE/1.0": b"GET /api/x ICE/1.0\r\nHost: localhost\r\n\r\n",
    "http/1.1": b"GET /api/x http/1.1\r\nHost: localhost\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "tabs": b"GET\t/api/x\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
    "blank behind": b"GET /api/x HTTP/1.1 \r\nHost: localhost\r\n\r\n",
    "bare LF": b"GET /api/x HTTP/1.1\nHost: localhost\n\n",
    "two targets": b"GET /api/x /api/y HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", _LINES.values(), ids=_LINES.keys())
async def test_a_request_line_has_one_spelling(dummy_key: bytes, request_bytes: bytes) -> None:
    """HTTP/1.1 and 1.0 only, and no chunks in the latter: one refusal, then the end, no dial."""
    strict = Strict()
    async with between(strict) as (provider, running):
        said = await everything(running.port, request_bytes + b"0\r\n\r\n" + SMUGGLED)
        ((status, _),) = answers_in(said, b"GET")
        assert status in {400, 505}
        assert provider.connections == 0


@pytest.mark.xfail(
    strict=True,
    reason="llhttp takes RTSP/1.0 and RTSP/1.1 for HTTP and its binding does not say which it was",
)
async def test_rtsp_is_not_http(dummy_key: bytes) -> None:
    """A request line of another protocol is not corrected into ours (RFC 9112 section 3)."""
    strict = Strict()
    async with between(strict) as (provider, running):
        request = b"GET /api/x RTSP/1.0\r\nHost: localhost\r\n\r\n"
        ((status, _),) = answers_in(await everything(running.port, request), b"GET")
        assert status in {400, 505}
        assert provider.connections == 0


_BAD_CHUNKS = [
    b"x\r\nabc\r\n0\r\n\r\n",
    b"-3\r\nabc\r\n0\r\n\r\n",
    b"+3\r\nabc\r\n0\r\n\r\n",
    b"0x3\r\nabc\r\n0\r\n\r\n",
    b" 3\r\nabc\r\n0\r\n\r\n",
    b"3 \r\nabc\r\n0\r\n\r\n",
    b"3\t;a\r\nabc\r\n0\r\n\r\n",
    b"3\nabc\n0\n\n",
    b"3\r\nabc\n0\r\n\r\n",
    b"3\r\nabcd\r\n0\r\n\r\n",
    b"3\r\nabc0\r\n\r\n",
    b"3;\nabc\r\n0\r\n\r\n",
    b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    b"3;a\0\r\nabc\r\n0\r\n\r\n",
    b'3;a="\r\nabc\r\n0\r\n\r\n',
    b"\r\nabc\r\n0\r\n\r\n",
    b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    b"3\r\nabc\r\n0\r\nbad trailer\r\n\r\n",
    b"3\r\nabc\r\n0\r\n X: y\r\n\r\n",
    b"3\r\nabc\r\n0\r\nX: a\0\r\n\r\n",
    b"3\r\nabc\r\n0\r\nContent-Length: 40\r\n\r\n",
    b"3\r\nabc\r\n0\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"3\r\nabc\r\n0\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    b"3\r\nabc\r\n0\r\n" + b"X: y\r\n" * 300 + b"\r\n",
]


@pytest.mark.parametrize("body", _BAD_CHUNKS, ids=lambda body: ascii(body)[2:40])
@pytest.mark.parametrize("apart", [False, True], ids=["with the head", "behind the head"])
async def test_bad_chunks_never_make_a_whole_request(
    dummy_key: bytes, body: bytes, apart: bool
) -> None:
    """Malformed chunks and trailers: the provider never sees that body end, nor anything that
    stands behind it, and the connection ends.
    """
    strict = Strict()
    async with between(strict) as (provider, running):
        if not apart:
            said = await everything(running.port, CHUNKED + body + SMUGGLED)
            ((status, _),) = answers_in(said, b"POST")
            assert status in {400, 431}
            assert provider.connections == 0
            return
        async with await RawClient.to(running.port) as client:
            client.send(CHUNKED + b"1\r\nz\r\n")
            await until(lambda: b"\r\n1\r\nz\r\n" in provider.received or strict.writers)
            client.send(body + SMUGGLED)
            with pytest.raises(ConnectionResetError):
                await client.rest()
        await until(lambda: strict.broken == 1)
        assert strict.requests == []


@both_loops
@pytest.mark.parametrize("cut", [b"", b"3\r\nabc\r\n", b"3\r\nabc\r\n0\r\n", b"5\r\nabc"])
async def test_a_body_without_its_end_stays_without(dummy_key: bytes, cut: bytes) -> None:
    """A client that leaves before the last chunk: the provider sees a broken request."""
    strict = Strict()
    async with between(strict) as (_, running):
        async with await RawClient.to(running.port) as client:
            client.send(CHUNKED + b"1\r\nz\r\n" + cut)
            await until(lambda: strict.writers)
            client.close()
        await until(lambda: strict.broken == 1)
        assert strict.requests == []


_TAKEN = {
    "CL": (POST + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    "CL, blanks around": (POST + b"Content-Length:\t 5 \t\r\n\r\nhello", b"hello"),
    "CL, zeros before": (POST + b"Content-Length: 005\r\n\r\nhello", b"hello"),
    "CL named by Connection": (
        POST + b"Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
    ),
    "TE named by Connection": (
        POST + b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\n\r\n",
        b"hello",
    ),
    "a twin of TE": (
        POST + b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"0\r\n\r\n",
    ),
    "a twin of CL": (
        POST + b"Content_Length: 0\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
    ),
    "TE of this hop": (POST + b"TE: trailers, chunked\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
    "CHUNKED": (POST + b"Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
    "extensions": (CHUNKED + b'5;a;b=c;d="e"\r\nhello\r\n0;x\r\n\r\n', b"hello"),
    "a long extension": (CHUNKED + b"5;" + b"x" * 70_000 + b"\r\nhello\r\n0\r\n\r\n", b"hello"),
    "zeros before a size": (CHUNKED + b"0" * 40 + b"5\r\nhello\r\n000\r\n\r\n", b"hello"),
    "many chunks": (CHUNKED + b"1\r\nx\r\n" * 500 + b"0\r\n\r\n", b"x" * 500),
    "a request in a body": (
        POST + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
        SMUGGLED,
    ),
    "a request in a chunk": (
        CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED),
        SMUGGLED,
    ),
    "blank lines before": (b"\r\n\r\n" + POST + b"Content-Length: 5\r\n\r\nhello", b"hello"),
}


@pytest.mark.parametrize(("request_bytes", "body"), _TAKEN.values(), ids=_TAKEN.keys())
async def test_a_request_is_framed_once(
    dummy_key: bytes, request_bytes: bytes, body: bytes
) -> None:
    """What is taken arrives with one framing (``Strict`` sees to it), its very body and no
    trailers; the next request is the next request, or none is served behind chunks.
    """
    strict = Strict()
    chunks = b"\r\ntransfer-encoding:" in request_bytes.lower()
    async with between(strict) as (_, running):
        said = await everything(running.port, request_bytes + LAST)
        lines, bodies = [b"POST /x HTTP/1.1", b"GET /last HTTP/1.1"], [body, b""]
        count = 1 if chunks else 2
        assert answers_in(said, *[b"POST", b"GET"][:count]) == [(200, b"ok")] * count
        assert strict.lines == lines[:count]
        assert [one for _, _, one in strict.requests] == bodies[:count]
        for _, fields, _ in strict.requests:
            assert fields.count((b"x-api-key", SECRET)) == 1
            assert not {b"x", b"transfer_encoding", b"content_length", b"te"} & dict(fields).keys()


@both_loops
async def test_a_trickled_request_is_the_same_request(dummy_key: bytes) -> None:
    """Byte for byte in reads of their own: no cut changes where a message ends."""
    strict = Strict()
    async with between(strict) as (_, running), await RawClient.to(running.port) as client:
        for byte in _TAKEN["extensions"][0]:
            client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert answers_in(await client.rest(), b"POST") == [(200, b"ok")]
        assert [body for _, _, body in strict.requests] == [b"hello"]


@pytest.mark.parametrize("apart", [False, True], ids=["at once", "one after the other"])
async def test_trailers_are_left_out(dummy_key: bytes, apart: bool) -> None:
    """RFC 9112 section 7.1.2: trailers are not merged into the request that they belong to."""
    strict = Strict()
    async with between(strict) as (_, running), await RawClient.to(running.port) as client:
        client.send(CHUNKED)
        if apart:
            await until(lambda: strict.writers)
        client.send(b"5\r\nhello\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n")
        assert (await client.answer())[0] == 200
        ((_, fields, body),) = strict.requests
        assert body == b"hello"
        assert not {b"x-a", b"x-b"} & dict(fields).keys()


@pytest.mark.parametrize("apart", [False, True], ids=["pipelined", "one after the other"])
async def test_a_trailer_is_no_field_of_the_next_request(dummy_key: bytes, apart: bool) -> None:
    """T23: behind a proxy that shares connections the next request is another client's, which
    would get fields that the first client chose.
    """
    strict = Strict()
    async with between(strict) as (_, running), await RawClient.to(running.port) as client:
        first = CHUNKED + b"5\r\nhello\r\n0\r\nX-Smuggled: 1\r\n\r\n"
        client.send(first if apart else first + LAST)
        _, head, _ = await client.answer()
        if b"\r\nConnection: close\r\n" not in head:
            if apart:
                client.send(LAST)
            await client.rest()
        assert all(b"x-smuggled" not in dict(fields) for _, fields, _ in strict.requests)


@both_loops
async def test_pipelined_requests_of_all_kinds(dummy_key: bytes) -> None:
    """A hundred requests at once: each arrives whole, in order, one at a time, and gets its own
    answer, those of keyrelay's own in their places.
    """
    strict = Strict(
        lambda line: (
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(line)
            + (b"" if line.startswith(b"HEAD") else line)
        )
    )
    sent: list[tuple[bytes, bytes]] = []
    data = b""
    expected: list[tuple[int, bytes]] = []
    for number in range(100):
        method, framing, body = (
            (b"GET", b"", b""),
            (b"POST", b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED),
            (b"PUT", b"Content-Length: 2\r\n", b"hi"),
            (b"HEAD", b"", b""),
            (b"GET", b"", b""),
        )[number % 5]
        path = b"/nowhere" if number % 5 == 4 else b"/api/%d" % number
        data += method + b" " + path + HEAD + framing + b"\r\n" + body
        sent.append((method, path))
        line = b"%b /%d HTTP/1.1" % (method, number)
        expected.append((200, b"" if method == b"HEAD" else line))
    async with between(strict) as (provider, running):
        said = await everything(running.port, data + LAST)
        found = answers_in(said, *[method for method, _ in sent], b"GET")
        for position, (method, path) in enumerate(sent):
            if path == b"/nowhere":
                assert found[position][0] == 404, (method, path)
            else:
                assert found[position] == expected[position]
        assert len(found) == 101
        served = [(method, path) for method, path in sent if path != b"/nowhere"]
        assert strict.lines == [
            *(b"%b %b HTTP/1.1" % (one, path.removeprefix(b"/api")) for one, path in served),
            b"GET /last HTTP/1.1",
        ]
        assert [body for line, _, body in strict.requests if line.startswith(b"PUT")] == [
            b"hi"
        ] * 20
        assert provider.connections == 1


@both_loops
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_the_rest_of_a_body_is_no_request(dummy_key: bytes, framing: str) -> None:
    """An answer before the body has ended: what still comes of it is not taken for a request, and
    neither connection is used again.
    """
    strict = Strict()
    early = Strict()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if strict.writers:
            await strict.serve(reader, writer)
            return
        strict.writers.append(writer)
        early.requests.append((await reader.readuntil(b"\r\n\r\n"), [], b""))
        writer.write(OK)
        early.requests.append((await reader.read(), [], b""))

    async with proxied_client(serve) as (_, running, client):
        length = framing == "length"
        client.send(POST + b"Content-Length: 999\r\n\r\n" if length else CHUNKED)
        status, head, body = await client.answer()
        assert (status, body) == (200, b"ok")
        assert b"\r\nConnection: close\r\n" in head
        client.send(SMUGGLED if length else b"0\r\n\r\n" + SMUGGLED)
        assert await client.rest() == b""
        assert answers_in(await everything(running.port, LAST), b"GET") == [(200, b"ok")]
        assert strict.lines == [b"GET /last HTTP/1.1"]
        assert not any(b"smuggled" in seen for seen, _, _ in early.requests)


@pytest.mark.parametrize(
    "fields",
    [
        b"Expect: 100-continue\r\nExpect: 100-continue\r\n",
        b"Expect: 100-continue\r\n",
        b"Expect: 100-Continue\r\n",
    ],
)
async def test_expectations_end_here(dummy_key: bytes, fields: bytes) -> None:
    """One 100 at most, ours; the provider's own is left out, and no expectation reaches it."""
    strict = Strict(lambda line: b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    async with between(strict) as (_, running), await RawClient.to(running.port) as client:
        client.send(POST + fields + b"Content-Length: 2\r\n\r\n")
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hi" + LAST)
        assert answers_in(await client.rest(), b"POST", b"GET") == [(200, b"ok")] * 2
        assert all(b"expect" not in dict(sent) for _, sent, _ in strict.requests)


@pytest.mark.parametrize(
    "expectation", [b"200-ok", b"100-continue, x", b"", b"100-continue;x", b" 100 -continue"]
)
@pytest.mark.parametrize("length", [0, len(SMUGGLED)])
async def test_a_refused_expectation_smuggles_nothing(
    dummy_key: bytes, expectation: bytes, length: int
) -> None:
    """417 before the body: should it come all the same, it is no request."""
    strict = Strict()
    async with between(strict) as (_, running):
        request = POST + b"Expect: %b\r\nContent-Length: %d\r\n\r\n" % (expectation, length)
        said = await everything(running.port, request + SMUGGLED[:length] + LAST)
        statuses = [status for status, _ in answers_in(said, b"POST", b"GET")]
        assert statuses in ([417, 200], [417])
        assert b"GET /smuggled HTTP/1.1" not in strict.lines


_HANDSHAKE = (
    b"GET /api/socket" + HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: %b\r\n\r\n"
)
_REFUSALS = {
    "426": b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n",
    "200": OK,
    "101 with another key": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n",
    "101 to another protocol": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
    b"Upgrade: h2c\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    "101 without a word": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
}


@both_loops
@pytest.mark.parametrize("answer", _REFUSALS.values(), ids=_REFUSALS.keys())
@pytest.mark.parametrize("version", [b"13", b"777"])
async def test_no_tunnel_without_a_websocket(
    dummy_key: bytes, answer: bytes, version: bytes
) -> None:
    """A handshake that failed opens no way through which a client speaks to the provider itself:
    what it sends behind it reaches nobody.
    """
    strict = Strict(lambda line: answer)
    async with between(strict) as (provider, running):
        said = await everything(running.port, _HANDSHAKE % version + SMUGGLED)
        assert len(answers_in(said, b"GET")) == 1
        assert not said.startswith(b"HTTP/1.1 101")
        assert strict.lines == (
            [] if version == b"777" else [b"GET /socket?api_key=%b HTTP/1.1" % SECRET]
        )
        assert provider.connections == len(strict.lines)


# -- answers that end in two ways --------------------------------------------------------------

_200 = b"HTTP/1.1 200 OK\r\n"
_FAULTY = [
    _200 + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    _200 + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    _200 + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    _200 + b"Content-Length: 2\r\nContent-Length: 42\r\n\r\nok" + OK,
    _200 + b"Content-Length: 2, 2\r\n\r\nok",
    _200 + b"Content-Length: +2\r\n\r\nok",
    _200 + b"Content-Length: -2\r\n\r\nok",
    _200 + b"Content-Length: 0x2\r\n\r\nok",
    _200 + b"Content-Length: 2 2\r\n\r\nok",
    _200 + b"Content-Length: 2;\r\n\r\nok",
    _200 + b"Content-Length: 2\x0b\r\n\r\nok",
    _200 + b"Content-Length: \xb2\r\n\r\nok",
    _200 + b"Content-Length:\r\n\r\nok",
    _200 + b"Content-Length\t: 2\r\n\r\nok",
    _200 + b"Content-Length: 1\r\n 2\r\n\r\nok",
    _200 + b"Content-Length: 18446744073709551618\r\n\r\nok",
    _200 + b"Transfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    _200 + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    _200 + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    _200 + b"Transfer-Encoding: chunked, gzip\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    _200 + b"Transfer-Encoding: identity\r\n\r\nok",
    _200 + b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
    _200 + b"Transfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    _200 + b"Transfer-Encoding: chunked\x0b\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    _200 + b"Transfer-Encoding: \x0bchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    _200 + b"Transfer-Encoding: chunked,\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    _200 + b"Transfer-Encoding: ,chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    _200 + b"Transfer-Encoding:\r\n\r\nok",
    _200 + b"Transfer-Encoding : chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    _200 + b"Transfer-Encoding: x\r\n chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    _200 + b" Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nok",
    _200 + b"X: y\rTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 0200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"<html>an answer of HTTP/0.9</html>\n",
    _200 + b"Transfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n",
    _200 + b"Transfer-Encoding: chunked\r\n\r\n+2\r\nok\r\n0\r\n\r\n",
    _200 + b"Transfer-Encoding: chunked\r\n\r\n 2\r\nok\r\n0\r\n\r\n",
    _200 + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok0\r\n\r\n",
    _200 + b"Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\nok\r\n0\r\n\r\n",
    _200 + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nContent-Length: 9\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + OK,
    b"HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\n\r\n" + OK,
    b"HTTP/1.1 104 Dummy\r\nContent-Length: 6\r\n\r\npoison" + OK,
    b"HTTP/1.1 104 Dummy\r\nContent-Length: 999999999\r\n\r\npoison",
    b"HTTP/1.1 150 Dummy\r\nContent-Length: %d\r\n\r\n" % len(POISON) + POISON + OK,
    b"HTTP/1.1 199 Dummy\r\nTransfer-Encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n" + OK,
]


@pytest.mark.parametrize("answer", _FAULTY, ids=lambda answer: ascii(answer)[2:70])
async def test_an_answer_with_ambiguous_framing_reaches_nobody(
    dummy_key: bytes, answer: bytes
) -> None:
    """T24: the client gets one 502 and nothing of the answer; its next request goes out on another
    connection and gets its own answer.
    """
    strict = Strict(lambda line: OK if b"last" in line else answer)
    async with between(strict) as (provider, running):
        said = await everything(running.port, b"GET /api/x" + HEAD + b"\r\n" + LAST)
        (first, _), last = answers_in(said, b"GET", b"GET")
        assert (first, last) == (502, (200, b"ok"))
        assert b"poison" not in said
        assert provider.connections == 2


async def test_no_blank_behind_the_name_of_a_field(dummy_key: bytes) -> None:
    """RFC 9112 section 5.1: it would reach the client beside our framing, for some clients to see
    and for some not.
    """
    strict = Strict(lambda line: _200 + b"Content-Length : 2\r\n\r\nok")
    async with between(strict) as (_, running):
        ((status, _),) = answers_in(await everything(running.port, LAST), b"GET")
        assert status == 502


_WHOLE = {
    "CL, blanks around": (_200 + b"Content-Length:\t 2 \t\r\n\r\nok", 1),
    "CL, folded": (_200 + b"Content-Length:\r\n 2\r\n\r\nok", 1),
    "CL named by Connection": (
        _200 + b"Connection: content-length\r\nContent-Length: 2\r\n\r\nok",
        1,
    ),
    "a twin of CL": (_200 + b"Content_Length: 0\r\nContent-Length: 2\r\n\r\nok", 1),
    "a twin of TE": (_200 + b"Transfer_Encoding: chunked\r\nContent-Length: 2\r\n\r\nok", 1),
    "CHUNKED": (_200 + b"Transfer-Encoding: CHUNKED\r\n\r\n2\r\nok\r\n0\r\n\r\n", 1),
    "TE named by Connection": (
        _200 + b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\n\r\n",
        1,
    ),
    "extensions": (_200 + b"Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0;z\r\n\r\n", 1),
    "trailers": (
        _200 + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: t\r\n"
        b"Set-Cookie: a=b\r\n\r\n",
        1,
    ),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 2),
    "bare LF": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 2),
    "an answer behind it": (OK + POISON, 2),
    "a part of one behind it": (OK + b"H", 2),
    "a blank line behind it": (OK + b"\r\n", 2),
    "100": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 1),
    "many 100": (b"HTTP/1.1 100 Continue\r\n\r\n" * 1000 + OK, 1),
    "100 with a length": (b"HTTP/1.1 100 Continue\r\nContent-Length: 40\r\n\r\n" + OK, 1),
    "102": (b"HTTP/1.1 102 Processing\r\nContent-Length: 40\r\n\r\n" + OK, 1),
    "103": (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nSet-Cookie: a=b\r\n\r\n" + OK, 1),
    "103 with chunks": (
        b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n" + OK,
        1,
    ),
    "104": (b"HTTP/1.1 104 Dummy\r\n\r\n" + OK, 1),
    "199": (b"HTTP/1.1 199 Dummy\r\nX: y\r\n\r\n" + OK, 1),
    "an offer to upgrade": (
        _200 + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok",
        1,
    ),
}


@pytest.mark.parametrize(("answer", "connections"), _WHOLE.values(), ids=_WHOLE.keys())
@pytest.mark.parametrize("in_pieces", [False, True], ids=["at once", "in pieces"])
async def test_an_answer_is_framed_once(
    dummy_key: bytes, answer: bytes, connections: int, in_pieces: bool
) -> None:
    """What is taken arrives with one framing, no trailers and nothing that stood before or behind
    it, in whatever pieces it comes; a connection with something behind is not used again.
    """
    strict = Strict(lambda line: None)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b"last" not in await reader.readuntil(b"\r\n\r\n"):
            for byte in answer if in_pieces and len(answer) < 1000 else [None]:
                writer.write(answer if byte is None else bytes([byte]))
                await asyncio.sleep(0)
        writer.write(OK)

    strict.serve = serve  # type: ignore[method-assign]
    async with between(strict) as (provider, running):
        async with await RawClient.to(running.port) as client:
            client.send(b"GET /api/x" + HEAD + b"Connection: close\r\n\r\n")
            said = await client.rest()
        assert answers_in(said, b"GET") == [(200, b"ok")]
        assert b"railer" not in said
        assert b"Cookie" not in said
        await until(lambda: in_pieces or provider.connections)
        assert answers_in(await everything(running.port, LAST), b"GET") == [(200, b"ok")]
        if not in_pieces:
            assert provider.connections == connections


@both_loops
@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", _200 + b"Content-Length: 2\r\n\r\n"),
        (b"HEAD", _200 + b"Transfer-Encoding: chunked\r\n\r\n"),
        (b"HEAD", _200 + b"\r\n"),
        (b"HEAD", b"HTTP/1.1 404 Not Found\r\nContent-Length: 999\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 999\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("late", [b"", b"ok", b"2\r\nok\r\n0\r\n\r\n", POISON])
async def test_answers_without_a_body_have_none(
    dummy_key: bytes, method: bytes, answer: bytes, late: bytes
) -> None:
    """HEAD, 204 and 304 end with their head; a body that comes later is no response."""
    strict = Strict(lambda line: OK if b"last" in line else answer)
    async with between(strict) as (_, running), await RawClient.to(running.port) as client:
        client.send(method + b" /api/x" + HEAD + b"\r\n")
        ((status, _),) = answers_in(await client.head(), method)
        assert status == int(answer[9:12])
        if late:
            strict.writers[0].write(late)
            await until(lambda: running.app.pools["api"].idle == 0)
        client.send(LAST)
        assert answers_in(await client.rest(), b"GET") == [(200, b"ok")]


async def test_a_204_announces_no_body(dummy_key: bytes) -> None:
    """A 204 with a Content-Length goes on without it: some clients would wait for the body, or
    take the next answer for it.
    """
    strict = Strict(lambda line: b"HTTP/1.1 204 No Content\r\nContent-Length: 40\r\n\r\n")
    async with between(strict) as (_, running):
        said = await everything(running.port, LAST)
        assert answers_in(said, b"GET") == [(204, b"")]
        assert b"content-length" not in said.lower()


_BROKEN = {
    "no last chunk": (b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b""),
    "half a last chunk": (b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"0\r\n"),
    "a bad size": (b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"zz\r\n" + POISON),
    "a chunk too long": (b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"2\r\nok!\r\n"),
    "a bad trailer": (b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"0\r\nbad\0\r\n\r\n"),
    "too short": (b"Content-Length: 3\r\n\r\nok", b""),
}


@both_loops
@pytest.mark.parametrize(("begun", "rest"), _BROKEN.values(), ids=_BROKEN.keys())
async def test_an_answer_without_its_end_stays_without(
    dummy_key: bytes, begun: bytes, rest: bytes
) -> None:
    """T25: the client sees what there was, never an end, and nothing of what stood behind."""
    go_on = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_200 + begun)
        await go_on.wait()
        writer.write(rest)

    async with proxied_client(serve) as (_, _, client):
        client.send(b"GET /api/x" + HEAD + b"\r\n" + LAST)
        assert b"200 OK" in await client.head()
        go_on.set()
        said = await client.rest()
        assert b"ok" in said
        assert not said.endswith(b"0\r\n\r\n")
        assert b"poison" not in said
        assert b"HTTP/1.1" not in said


# -- bytes that nobody asked for ---------------------------------------------------------------


class Peers:
    """A client and a provider whose sockets the test writes to at the moment of its choice, with
    no turn of the loop in between.
    """

    def __init__(self, client: socket.socket, listener: socket.socket) -> None:
        self.client = client
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self.provider: socket.socket

    async def accept(self) -> bytes:
        """Take keyrelay's next connection, and the request on it."""
        async with asyncio.timeout(3):
            self.provider, _ = await self._loop.sock_accept(self._listener)
            self.provider.setblocking(False)
            return await self._loop.sock_recv(self.provider, 65536)

    async def answer(self, data: bytes = OK) -> bytes:
        await self._loop.sock_sendall(self.provider, data)
        async with asyncio.timeout(3):
            return await self._loop.sock_recv(self.client, 65536)


@asynccontextmanager
async def peers() -> AsyncIterator[tuple[Peers, Running]]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    upstream = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with listener:
        async with keyrelay({"api": static_route(upstream)}) as running:
            client = socket.create_connection(("127.0.0.1", running.port))
            with client:
                client.setblocking(False)
                one = Peers(client, listener)
                try:
                    yield one, running
                finally:
                    one.provider.close()


GET = b"GET /api/x" + HEAD + b"\r\n"


@both_loops
@pytest.mark.parametrize(
    "stale", [POISON, b"HTTP/1.1 100 Continue\r\n\r\n", b"x", b"\r\n", POISON[:20]]
)
@pytest.mark.parametrize("when", ["before", "with, request first", "with, bytes first"])
async def test_stale_bytes_are_no_answer(dummy_key: bytes, stale: bytes, when: str) -> None:
    """Bytes that came on a kept connection before the next request was sent on it: that request
    goes out on another connection and gets its own answer, even if loop and request saw no turn in
    between (RFC 9112 section 9.2).
    """
    async with peers() as (both, running):
        both.client.send(GET)
        await both.accept()
        assert await both.answer() == OK
        first = both.provider
        with first:
            if when == "with, request first":
                both.client.send(GET)
            first.send(stale)
            if when == "before":
                await until(lambda: running.app.pools["api"].idle == 0)
            if when != "with, request first":
                both.client.send(GET)
            assert (await both.accept()).startswith(b"GET /x HTTP/1.1\r\n")
            assert await both.answer() == OK


@both_loops
@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_a_provider_that_hung_up_meanwhile(dummy_key: bytes, method: bytes) -> None:
    """A kept connection that ended before the request was sent is not used for it, so that even a
    request that cannot be repeated is served.
    """
    async with peers() as (both, _):
        both.client.send(GET)
        await both.accept()
        assert await both.answer() == OK
        both.client.send(method + b" /api/x" + HEAD + b"Content-Length: 0\r\n\r\n")
        both.provider.close()
        assert (await both.accept()).startswith(method + b" /x HTTP/1.1\r\n")
        assert await both.answer() == OK


@both_loops
@pytest.mark.parametrize("packets", [1, 2])
async def test_bytes_behind_an_answer_are_not_the_next_one(dummy_key: bytes, packets: int) -> None:
    """After: a second answer behind the first, in its packet or in the next one, is not that of a
    request which waited for the first to end.
    """
    async with peers() as (both, _):
        both.client.send(GET + GET)
        assert (await both.accept()).count(b"GET /x") == 1
        with both.provider as first:
            for data in [OK + POISON] if packets == 1 else [OK, POISON]:
                first.send(data)
            assert (await both.accept()).count(b"GET /x") == 1
            said = await both.answer()
            while said.count(b"HTTP/1.1 200 OK") < 2:
                said += await asyncio.get_running_loop().sock_recv(both.client, 65536)
            assert said == OK + OK


# -- what was checked is what is sent ----------------------------------------------------------

_BITS = [
    *(
        b"/",
        b"//",
        b"/.",
        b"/..",
        b"/./",
        b"%2e",
        b"%2E%2e",
        b"%252e",
        b"..;",
        b";a=b",
        b"\\",
        b"%5c",
    ),
    *(b"#", b"?", b"??", b"&", b"=", b"%", b"%zz", b"%00", b"\0", b"%0d%0a", b"\r\n", b"\n", b"\r"),
    *(b" ", b"\t", b"\x0b", b"\x7f", b"\xff", b"\xc3\xa9", b"%c3%a9", b"@", b":", b":80", b"[::1]"),
    *(
        b"evil.test",
        b"@evil.test",
        b"http://evil.test",
        b"//evil.test",
        b"https:",
        b"*",
        b"a",
        b"Z",
    ),
    *(
        b" HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        b" HTTP/1.1",
        b"~",
        b"+",
        b"'",
        b'"',
        b"<",
        b"{",
        b"|",
    ),
]
_STARTS = [
    *(b"/api", b"/api", b"/api", b"/api/", b"/api/v1", b"/API", b"/%61pi", b"//api", b"api", b"*"),
    *(b"http://localhost/api", b"HTTP://localhost/api", b"http://evil.test/api", b"localhost:443"),
    *(b"http://localhost@evil.test/api", b"/apix", b"/ap", b"", b"/-/health", b"\\api", b"?/api"),
]


def random_targets(count: int) -> list[bytes]:
    """Targets as an attacker would write them, the same in each run."""
    chance = random.Random(20261121)
    return [
        chance.choice(_STARTS) + b"".join(chance.choices(_BITS, k=chance.randint(0, 7)))
        for _ in range(count)
    ]


def compiled(upstream: str, placement: dict[str, str]) -> Route:
    route = RouteSettings.model_validate(
        {"upstream": upstream, "secrets": {"key": "env:DUMMY_KEY"}, "auth": [placement]}
    )
    return compile_route("api", route, ResolvedSecrets({"key": (Secret("key", SECRET),)}, {}))


ROUTES = [
    compiled("https://api.acme.test", {"header": "X-Api-Key", "value": "{key}"}),
    compiled("https://api.acme.test:8443/v2", {"query": "key", "value": "{key}"}),
    compiled("https://api.acme.test/v2", {"path": "/bot{key}"}),
]


def sent_for(message: bytes, route: Route) -> tuple[bytes, bytes] | None:
    """What the guard admitted (the target) and what would be sent (the head), None if refused."""
    loop = asyncio.new_event_loop()
    try:
        messages, _, _ = http_parser.request_parser(loop).feed_data(message)
    except http_parser.HttpProcessingError:
        return None
    finally:
        loop.close()
    if not messages:
        return None
    request = http_parser.request(messages[0][0])
    table = Router([route])
    try:
        host, _ = Guard(LOOPBACK_NAMES | table.hosts, frozenset()).admit(request)
        if request.target == b"*":
            return None
        match = table.find(host, request)
        strategy = match.route.strategy_for(request, match.rest)
    except Refusal:
        return None
    injection = strategy.credential.ready(websocket=False)
    assert injection is not None
    return request.target, UpstreamRequest(request, match.rest, route.rules).render(injection)


def inspect(target: bytes, head: bytes, route: Route) -> None:
    """The head leads to the route's host and to the very path and query that were admitted."""
    line, fields = fields_of(head)
    method, sent, version = line.split(b" ")
    assert (method, version) == (b"GET", b"HTTP/1.1")
    assert [value for name, value in fields if name == b"host"] == [route.rules.host]
    assert head.count(SECRET) == 1
    base = route.rules.base_path
    assert sent.startswith(base)
    rest = sent[len(base) :]
    for credential in (b"/bot" + SECRET, b"?key=" + SECRET, b"&key=" + SECRET):
        rest = rest.replace(credential, b"")
    admitted = re.sub(rb"\A/+", b"/", target.removeprefix(b"/api"))
    if not base and not admitted.startswith(b"/"):
        admitted = b"/" + admitted  # no target is without a path
    assert rest in {admitted, admitted.removesuffix(b"?")}
    # What arrives would be admitted as it is: nothing in it means something else than before.
    sent_path = sent.partition(b"?")[0]
    assert not sent_path.startswith(b"//")
    check_target(Request.of("GET", sent.decode("ascii"), []))


def test_ten_thousand_targets_lead_to_the_configured_host() -> None:
    """T22: through parser, guard, routes and outgoing, whatever the target and the placement."""
    admitted = 0
    for number, target in enumerate(random_targets(10_000)):
        route = ROUTES[number % len(ROUTES)]
        found = sent_for(b"GET " + target + HEAD + b"\r\n", route)
        if found is not None:
            inspect(*found, route)
            admitted += 1
    assert admitted > 500


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(_BITS) | st.binary(max_size=3), max_size=8).map(b"".join),
    st.sampled_from(_STARTS),
    st.sampled_from(ROUTES),
)
def test_what_was_checked_is_what_is_sent(rest: bytes, start: bytes, route: Route) -> None:
    """T21: the target that the guard admitted is byte for byte that of the client and that of the
    request that leaves; no step in between reads it in another way.
    """
    request = b"GET " + start + rest + HEAD + b"\r\n"
    found = sent_for(request, route)
    if found is not None:
        assert found[0] in request
        inspect(*found, route)


@both_loops
async def test_hundreds_of_targets_through_sockets(dummy_key: bytes) -> None:
    """The same over real connections: each request that arrives was written by the client, byte
    for byte, and bears the provider's host and one credential.
    """
    strict = Strict()
    async with (
        raw_provider(strict.serve) as provider,
        keyrelay({"api": static_route(provider.url + "/v2")}) as running,
    ):
        for target in random_targets(400):
            strict.requests.clear()
            sent = b"GET " + target + HEAD + b"Connection: close\r\n\r\n"
            said = await everything(running.port, sent)
            assert said.startswith(b"HTTP/1.1 ")
            for line, fields, body in strict.requests:
                method, path, version = line.split(b" ")
                assert (method, version, body) == (b"GET", b"HTTP/1.1", b"")
                # Slashes that follow the prefix are made one.
                folded = re.sub(rb"(?<=/api)/+", b"/", sent)
                assert b"/api" + path.removeprefix(b"/v2") in folded
                hosts = [value for name, value in fields if name == b"host"]
                assert hosts == [b"127.0.0.1:%d" % provider.port]
                assert [value for _, value in fields].count(SECRET) == 1
