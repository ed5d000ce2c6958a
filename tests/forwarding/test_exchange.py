"""Requests on their way to a provider and answers on their way back, over real connections."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.auth.injection import Injection
from proxy.forwarding.upstream_request import UpstreamRequest
from proxy.http import parser as http_parser
from tests.support.certificates import Authority
from tests.support.keyrelay import (
    SECRET,
    RawClient,
    Running,
    Serve,
    answering,
    both_loops,
    exchange,
    keyrelay,
    proxied,
    proxied_client,
    raw_provider,
    read_head,
    request_id_line,
    reset,
    static_route,
    until,
)

pytestmark = both_loops

HEAD = b" HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /api/x" + HEAD + b"\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MEBIBYTE = 1 << 20


async def read_body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The body behind a request's head, byte for byte, its chunks included."""
    fields = {
        name.lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    if b"transfer-encoding" not in fields:
        return await reader.readexactly(int(fields.get(b"content-length", 0)))
    body = b""
    while True:
        size = await reader.readuntil(b"\r\n")
        body += size + await reader.readexactly(int(size, 16) + 2)
        if int(size, 16) == 0:
            return body


def unchunked(body: bytes) -> bytes:
    content = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        content, body = content + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return content


class Recording:
    """A provider that keeps every request as (head, body) and answers each with the next of
    ``answers``, the last one again and again. An answer of None closes the connection.
    """

    def __init__(self, *answers: bytes | None) -> None:
        self._answers = list(answers or (OK,))
        self.requests: list[tuple[bytes, bytes]] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        while True:
            try:
                head = await read_head(reader)
                self.requests.append((head, await read_body(reader, head)))
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            if answer is None:
                return
            writer.write(answer)


def problem(answer: bytes) -> dict[str, Any]:
    """The problem that an answer of keyrelay's own holds."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nContent-Type: application/problem+json\r\n" in head
    assert re.search(rb"\r\nProxy-Status: keyrelay; error=[a-z_]+; details=\"[a-z-]+\"\r\n", head)
    assert b"\r\nCache-Control: no-store\r\n" in head
    document = json.loads(body)
    assert isinstance(document, dict)
    assert document["status"] == int(answer[9:12])
    return document


def expire(running: Running, seconds: float) -> None:
    """What the ticker does, ``seconds`` from now."""
    now = asyncio.get_running_loop().time() + seconds
    for pool in running.app.pools.values():
        pool.expire(now)


# -- the request, byte for byte ----------------------------------------------------------------

_SEGMENT = st.text("abzAZ09-._~!$&'()*+,;=:@%/", max_size=12).map(
    lambda text: "/" + re.sub(r"[./%]+", "-", text)
)
_TARGETS = st.builds(
    lambda segments, query: "/api" + "".join(segments) + ("" if query is None else "?" + query),
    st.lists(_SEGMENT, max_size=3),
    st.none() | st.text("ab=&%+?/:@!'", max_size=16),
)
_FIELDS = st.lists(
    st.tuples(
        st.sampled_from(["X-A", "x-a", "Accept", "ACCEPT-encoding", "User-Agent-2", "Via", "TE"]),
        st.binary(max_size=12).map(lambda value: re.sub(rb"[\x00-\x1f\x7f]", b"-", value).strip()),
    ),
    max_size=6,
)
_BODIES = st.one_of(
    st.none(),
    st.binary(max_size=300).map(lambda body: [body]),
    st.lists(st.binary(min_size=1, max_size=200), max_size=4),
)


@st.composite
def _requests(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A request as a client may write it, and the content of its body."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]))
    data = f"{method} {draw(_TARGETS)}".encode() + HEAD
    for name, value in draw(_FIELDS):
        data += name.encode() + b": " + value + b"\r\n"
    body = draw(_BODIES)
    if body is None:
        return data + b"\r\n", b""
    content = b"".join(body)
    if draw(st.booleans()):
        return data + b"Content-Length: %d\r\n\r\n" % len(content) + content, content
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in body if one)
    return data + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n", content


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(_requests(), min_size=1, max_size=6))
async def test_the_provider_gets_what_was_rendered(
    dummy_key: bytes, requests: list[tuple[bytes, bytes]]
) -> None:
    """Whatever a client writes, what reaches the provider is the rendered head with a request id,
    and the body, to the byte, request by request, on one connection. (One of the client's ends with
    chunks.)
    """
    recording = Recording()
    async with (
        raw_provider(recording.serve) as provider,
        keyrelay({"api": static_route(f"{provider.url}/base")}) as running,
    ):
        rules = running.app.routes[0].rules
        injection = Injection(headers=b"X-Api-Key: " + dummy_key + b"\r\n")
        left = list(requests)
        while left:
            chunked = [b"Transfer-Encoding: chunked" in data for data, _ in left]
            together = left[: chunked.index(True) + 1 if True in chunked else None]
            del left[: len(together)]
            async with await RawClient.to(running.port) as client:
                client.send(b"".join(data for data, _ in together))
                for data, content in together:
                    status, _, _ = await client.answer()
                    assert status == 200
                    head, body = recording.requests.pop(0)
                    parser = http_parser.request_parser(asyncio.get_running_loop())
                    request = http_parser.request(parser.feed_data(data)[0][0][0])
                    # Leading slashes behind the prefix become one; the rest of the path stays.
                    rest = re.sub(rb"^/+", b"/", request.path.removeprefix(b"/api"))
                    added = request_id_line(head)
                    assert head == UpstreamRequest(request, rest, rules, added).render(injection)
                    assert (unchunked(body) if request.chunked else body) == content
        assert provider.connections == 1


async def test_nothing_is_added_to_a_request(dummy_key: bytes) -> None:
    """No Accept, no User-Agent, no Via: the provider sees the client's fields, its own Host, a
    request id and the credential.
    """
    recording = Recording()
    async with proxied(recording.serve) as (provider, running):
        await exchange(running.port, b"GET /api/x?y=%20" + HEAD + b"x-Odd:  a b \r\n\r\n")
        head = recording.requests[0][0]
        assert head == (
            b"GET /x?y=%%20 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nx-Odd: a b\r\n%bX-Api-Key: %b\r\n\r\n"
            % (provider.port, request_id_line(head), SECRET)
        )


@pytest.mark.parametrize(
    ("fields", "crosses"),
    [
        (b"X-Request-Id: client-1\r\n", True),
        (b"x-request-id:  A.b_c~1:/+=@-  \r\n", True),
        (b"X-Request-Id: " + b"a" * 128 + b"\r\n", True),
        (b"", False),
        (b"X-Request-Id:\r\n", False),
        (b"X-Request-Id: " + b"a" * 129 + b"\r\n", False),
        (b"X-Request-Id: client 1\r\n", False),
        (b"X-Request-Id: client-1, 2\r\n", False),
        (b"X-Request-Id: client-\xe9\r\n", False),
        (b"X_Request_Id: client-1\r\n", False),
    ],
)
async def test_a_request_has_one_id(dummy_key: bytes, fields: bytes, crosses: bool) -> None:
    """The client's if it is a valid one, else a new one for each request: one line behind the
    client's fields, and the same in an answer of ours.
    """
    given = fields.partition(b":")[2].strip()
    recording = Recording(OK, OK, None)
    async with proxied(recording.serve) as (_, running):
        request = b"POST /api/x" + HEAD + fields + b"Content-Length: 0\r\n\r\n"
        answers = [await exchange(running.port, request) for _ in range(3)]
        heads = [head for head, _ in recording.requests]
        ids = [request_id_line(head) for head in heads]
        for head, line in zip(heads, ids, strict=True):
            end = b"\r\nContent-Length: 0\r\n%bX-Api-Key: %b\r\n\r\n" % (line, SECRET)
            assert head.endswith(end)
        assert answers[2].startswith(b"HTTP/1.1 502 ")
        assert request_id_line(answers[2]) == ids[-1]
        assert (set(ids) == {b"X-Request-Id: %b\r\n" % given}) is crosses
        assert len(set(ids)) == (1 if crosses else len(ids))


async def test_one_connection_for_many_requests(dummy_key: bytes) -> None:
    """Clients that come one after another share a connection to the provider."""
    async with proxied(answering(OK)) as (provider, running):
        for _ in range(3):
            assert (await exchange(running.port, GET)).endswith(b"ok")
        assert provider.connections == 1


async def test_routes_share_no_connection(dummy_key: bytes) -> None:
    """Two routes to one provider have connections of their own, as they have credentials."""
    async with (
        raw_provider(answering(OK)) as provider,
        keyrelay(
            {"api": static_route(provider.url), "other": static_route(provider.url)}
        ) as running,
    ):
        for path in (b"/api", b"/other", b"/api", b"/other"):
            await exchange(running.port, b"GET " + path + HEAD + b"\r\n")
        assert provider.connections == 2


# -- streaming ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "frame"),
    [
        (b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n"),
        (b"Content-Length: 30\r\n", b"%.0s%b"),
        (b"", b"%.0s%b"),
    ],
    ids=["chunked", "length", "until close"],
)
async def test_a_response_streams(dummy_key: bytes, head: bytes, frame: bytes) -> None:
    """Each piece of an answer reaches the client before the provider has sent the next."""
    go_on = asyncio.Event()
    piece = b"data: x\r\n\r"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + head + b"\r\n")
        for _ in range(3):
            writer.write(
                b"%x\r\n%b\r\n" % (len(piece), piece) if frame.startswith(b"%x") else piece
            )
            await go_on.wait()
            go_on.clear()
        if frame.startswith(b"%x"):
            writer.write(b"0\r\n\r\n")

    async with proxied_client(serve) as (_, _, client):
        client.send(GET)
        said = await client.head()
        chunked = b"Transfer-Encoding: chunked\r\n" in said
        assert chunked is (head != b"Content-Length: 30\r\n")
        expected = b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece
        for _ in range(3):
            assert await client.exactly(len(expected)) == expected
            go_on.set()
        if chunked:
            assert await client.exactly(5) == b"0\r\n\r\n"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_request_streams_while_its_response_does(dummy_key: bytes, chunked: bool) -> None:
    """Each piece of a body reaches the provider before the client has sent the next, and an answer
    that begins before the body ends reaches the client.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n")
        for _ in range(3):
            piece = await reader.readexactly(9 if chunked else 4)
            writer.write(piece[3:7] if chunked else piece)
        if chunked:
            assert await reader.readexactly(5) == b"0\r\n\r\n"

    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 12"
    async with proxied_client(serve) as (_, _, client):
        client.send(b"POST /api" + HEAD + framing + b"\r\n\r\n")
        assert b"Connection: close\r\n" in await client.head()
        for piece in (b"abcd", b"efgh", b"ijkl"):
            client.send(b"4\r\n" + piece + b"\r\n" if chunked else piece)
            assert await client.exactly(4) == piece
        if chunked:
            client.send(b"0\r\n\r\n")
        assert await client.rest() == b""


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_slow_reader_slows_the_provider(dummy_key: bytes, framing: str) -> None:
    """While a client does not read, only so much is taken from the provider; then all of it comes,
    unchanged.
    """
    total, piece = 64 * MEBIBYTE, bytes(range(256)) * 1024
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_head(reader)
        if framing == "length":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while sent < total:
            writer.write(piece if framing == "length" else b"40000\r\n" + piece + b"\r\n")
            await writer.drain()
            sent += len(piece)
        if framing == "chunked":
            writer.write(b"0\r\n\r\n")
        await reader.read()

    async with proxied_client(serve) as (_, running, client):
        client.send(GET)
        await client.head()
        assert await stalled(lambda: sent) < total // 2
        expire(running, 3600)  # a slow client is no silent provider
        received = 0
        while received < total:
            data = await (client.exactly(MEBIBYTE) if framing == "length" else client.chunk())
            place = received % 256
            assert data == (piece * 5)[place : place + len(data)]
            received += len(data)
        if framing == "chunked":
            assert await client.chunk() == b""


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("warm", [False, True], ids=["new connection", "kept connection"])
async def test_a_slow_provider_slows_the_client(dummy_key: bytes, framing: str, warm: bool) -> None:
    """While a provider does not read, only so much is taken from the client; then all of it arrives
    unchanged.
    """
    total, piece = 64 * MEBIBYTE, bytes(range(256)) * 1024
    read_on = asyncio.Event()
    received = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        if warm:
            await read_head(reader)
            writer.write(OK)
        await read_head(reader)
        await read_on.wait()
        while received < total:
            if framing == "chunked":
                size = int(await reader.readuntil(b"\r\n"), 16)
                data = (await reader.readexactly(size + 2))[:-2]
            else:
                data = await reader.read(MEBIBYTE)
            place = received % 256
            assert data == (piece * 5)[place : place + len(data)]
            received += len(data)
        writer.write(OK)

    async with proxied_client(serve) as (_, _, client):
        if warm:
            client.send(GET)
            await client.answer()
        if framing == "length":
            head = b"POST /api" + HEAD + b"Content-Length: %d\r\n\r\n" % total
        else:
            head = b"POST /api" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
        sent = 0

        async def send() -> None:
            nonlocal sent
            client.send(head)
            while sent < total:
                client.send(piece if framing == "length" else b"40000\r\n" + piece + b"\r\n")
                await client.writer.drain()
                sent += len(piece)
            if framing == "chunked":
                client.send(b"0\r\n\r\n")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            assert await stalled(lambda: sent) < total // 2
            read_on.set()
        assert (await client.answer())[2] == b"ok"
        assert received == total


async def stalled(progress: Callable[[], int]) -> int:
    """What ``progress`` says once it has stopped changing."""
    seen, now = -1, 0
    while seen != now or now == 0:
        seen = now
        await asyncio.sleep(0.03)
        now = progress()
    return now


# -- answers that break off --------------------------------------------------------------------

BROKEN = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    "until close": b"HTTP/1.1 200 OK\r\n\r\nhalf",
}


def breaking_off(framing: str, go_on: asyncio.Event) -> Serve:
    """Sends a part of a response, and resets the connection when ``go_on`` is set."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(BROKEN[framing])
        await go_on.wait()
        reset(writer)

    return serve


@pytest.mark.parametrize("framing", BROKEN)
async def test_a_provider_that_breaks_off(dummy_key: bytes, framing: str) -> None:
    """An answer that breaks off reaches the client as far as it came, and is visibly broken there:
    its length is not met, its last chunk is missing.
    """
    go_on = asyncio.Event()
    async with proxied_client(breaking_off(framing, go_on)) as (_, running, client):
        client.send(GET)
        head = await client.head()
        if framing == "length":
            assert b"Content-Length: 99\r\n" in head
            assert await client.exactly(4) == b"half"
        else:
            assert b"Transfer-Encoding: chunked\r\n" in head
            assert await client.chunk() == b"half"
        go_on.set()
        assert await client.rest() == b""
        await until(lambda: len(running.app.exchange_log.recent) == 1)
        noted = running.app.exchange_log.recent[0]
        assert (noted.status, noted.received) == (200, 4)
        assert noted.outcome == "http_response_incomplete"


@pytest.mark.parametrize("framing", BROKEN)
async def test_http_1_0_sees_a_broken_response(dummy_key: bytes, framing: str) -> None:
    """A client of HTTP/1.0 knows no chunks: only a reset tells it that the answer is not whole."""
    go_on = asyncio.Event()
    async with proxied_client(breaking_off(framing, go_on)) as (_, _, client):
        client.send(b"GET /api HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert b"chunked" not in await client.head()
        assert await client.exactly(4) == b"half"
        go_on.set()
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_http_1_0_gets_whole_responses(dummy_key: bytes) -> None:
    """A chunked answer goes to a client of HTTP/1.0 without chunks; the connection ends it."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    async with proxied(answering(chunked)) as (_, running):
        request = b"GET /api HTTP/1.0\r\nHost: localhost\r\n\r\n"
        said = await exchange(running.port, request, until_close=True)
        assert said == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"


async def test_a_response_that_ends_with_its_connection(dummy_key: bytes) -> None:
    """An unframed answer becomes a chunked one, so that its end can be told from a broken one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nok")

    async with proxied_client(serve) as (_, _, client):
        client.send(GET)
        assert b"Connection: close" not in await client.head()
        assert [await client.chunk(), await client.chunk()] == [b"ok", b""]
        client.send(GET)
        assert b" 200 OK\r\n" in await client.head()


# -- kept connections that went away -----------------------------------------------------------


@pytest.mark.parametrize(
    ("request_bytes", "repeated"),
    [
        (GET, True),
        (b"HEAD /api" + HEAD + b"\r\n", True),
        (b"PUT /api" + HEAD + b"Content-Length: 2\r\n\r\nhi", True),
        (b"DELETE /api" + HEAD + b"\r\n", True),
        (b"POST /api" + HEAD + b"Content-Length: 2\r\n\r\nhi", False),
        (b"PATCH /api" + HEAD + b"Content-Length: 2\r\n\r\nhi", False),
        (
            b"POST /api" + HEAD + b"Idempotency-Key: dummy\r\nContent-Length: 2\r\n\r\nhi",
            True,
        ),
        (
            b"PUT /api" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            True,
        ),
    ],
)
async def test_a_kept_connection_that_was_closed(
    dummy_key: bytes, request_bytes: bytes, repeated: bool
) -> None:
    """A request that met a connection being closed is sent again, whole, on a new one, if that does
    no more than sending it once; otherwise the client is told.
    """
    recording = Recording(OK, None, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    async with proxied_client(recording.serve) as (provider, _, client):
        client.send(GET)
        await client.answer()
        client.send(request_bytes)
        status, head, body = await client.answer()
        _, first, *again = recording.requests
        if repeated:
            assert status == 200
            assert again == [first]
            assert provider.connections == 2
        else:
            assert problem(head + body)["status"] == 502
            assert b"error=connection_terminated" in head
            assert again == []


async def test_a_request_is_sent_again_only_once(dummy_key: bytes) -> None:
    """A provider that hangs up on the new connection as well is not asked a third time."""
    recording = Recording(OK, None)
    async with proxied(recording.serve) as (provider, running):
        await exchange(running.port, GET)
        said = await exchange(running.port, GET)
        assert problem(said)["status"] == 502
        assert len(recording.requests) == 3
        assert provider.connections == 2


async def test_a_new_connection_that_is_closed(dummy_key: bytes) -> None:
    """Where a provider hangs up on a new connection, the request was refused, not missed."""
    recording = Recording(None)
    async with proxied(recording.serve) as (_, running):
        assert problem(await exchange(running.port, GET))["status"] == 502
        assert len(recording.requests) == 1


async def test_a_request_with_a_partial_response_is_not_repeated(dummy_key: bytes) -> None:
    """Once a byte of an answer has come the provider has seen the request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(OK)
        await read_head(reader)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async with proxied(serve) as (provider, running):
        await exchange(running.port, GET)
        assert problem(await exchange(running.port, GET))["status"] == 502
        assert provider.connections == 1


# -- what crosses unchanged --------------------------------------------------------------------


async def test_coded_responses_stay_coded(dummy_key: bytes) -> None:
    """Nothing is unpacked on the way, be it a bomb; the client gets the provider's very bytes."""
    bomb = gzip.compress(bytes(64 * MEBIBYTE), 9)
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nVary: Accept-Encoding\r\n"
        b"Content-Length: %d\r\n\r\n" % len(bomb)
    ) + bomb
    async with proxied(answering(answer)) as (_, running):
        assert await exchange(running.port, GET) == answer


@pytest.mark.parametrize(
    ("coding", "body", "detail"),
    [
        ("dcb", b"dummy", "body left out: content coding unsupported (dcb)"),
        ("gzip", b"\x1f\x8b\x08broken", "body left out: content coding malformed"),
    ],
)
async def test_an_error_whose_coding_cannot_be_undone(
    dummy_key: bytes, coding: str, body: bytes, detail: str
) -> None:
    """The client gets the provider's status and a body that says what is missing; the log, too."""
    answer = f"HTTP/1.1 429 Slow Down\r\nContent-Encoding: {coding}\r\nContent-Length: {len(body)}"
    async with (
        raw_provider(answering(answer.encode() + b"\r\n\r\n" + body)) as provider,
        keyrelay({"api": static_route(provider.url)}) as running,
        await RawClient.to(running.port) as client,
    ):
        client.send(GET)
        assert (await client.head()).startswith(b"HTTP/1.1 429 Slow Down\r\n")
        assert json.loads(await client.chunk())["error"]["type"] == "body-left-out"
        assert await client.chunk() == b""
        noted = running.app.exchange_log.recent[0]
        assert (noted.status, noted.outcome) == (429, "")
        assert noted.log_detail.startswith(detail)


async def test_codings_that_cannot_be_undone_are_not_asked_for(dummy_key: bytes) -> None:
    """The provider gets the client's list without them, on every line; the rest is unchanged."""
    recording = Recording(OK)
    fields = b"accept-Encoding: gzip, compress, br\r\nAccept-Encoding: dcz\r\nX-A: 1\r\n\r\n"
    async with (
        raw_provider(recording.serve) as provider,
        keyrelay({"api": static_route(provider.url)}) as running,
    ):
        await exchange(running.port, b"GET /api" + HEAD + fields)
    expected = b"accept-Encoding: gzip, br\r\nAccept-Encoding: identity\r\nX-A: 1\r\n"
    assert expected in recording.requests[0][0]


async def test_coded_requests_stay_coded(dummy_key: bytes) -> None:
    """Nor is anything unpacked on the way to the provider."""
    bomb = gzip.compress(bytes(MEBIBYTE), 9)
    recording = Recording()
    async with proxied(recording.serve) as (_, running):
        request = b"POST /api" + HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        await exchange(running.port, request % len(bomb) + bomb)
        head, body = recording.requests[0]
        assert body == bomb
        assert b"\r\nContent-Encoding: gzip\r\n" in head


async def test_fields_of_responses(dummy_key: bytes) -> None:
    """Order, case, repetition, odd bytes and the reason cross; what is about the provider's
    connection does not, nor do interim answers and trailers.
    """
    answer = (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        b"HTTP/1.1 299 Quite \xc3\xa9 Fine\r\nx-B: 2\r\nX-A: \xff\r\nx-b: 3\r\nSet-Cookie: a=b\r\n"
        b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nAlt-Svc: h3\r\n"
        b"Trailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n"
    )
    async with proxied(answering(answer)) as (_, running):
        request = b"GET /api" + HEAD + b"Connection: close\r\n\r\n"
        assert await exchange(running.port, request, until_close=True) == (
            b"HTTP/1.1 299 Quite \xc3\xa9 Fine\r\nx-B: 2\r\nX-A: \xff\r\nx-b: 3\r\n"
            b"Set-Cookie: a=b\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"2\r\nok\r\n0\r\n\r\n"
        )


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 12\r\nETag: x\r\n\r\n"),
    ],
)
async def test_responses_without_a_body(dummy_key: bytes, method: bytes, answer: bytes) -> None:
    """They cross as they are, and both connections serve the next request."""
    async with proxied_client(answering(answer)) as (provider, _, client):
        for _ in range(2):
            client.send(method + b" /api" + HEAD + b"\r\n")
            assert await client.head() == answer
        assert provider.connections == 1


async def test_a_response_to_head_without_length(dummy_key: bytes) -> None:
    """It crosses as it is, too, and does not become a chunked one."""
    answer = b"HTTP/1.1 200 OK\r\nETag: x\r\n\r\n"
    async with proxied_client(answering(answer)) as (_, _, client):
        for _ in range(2):
            client.send(b"HEAD /api" + HEAD + b"\r\n")
            assert await client.head() == answer


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(dummy_key: bytes, status: int) -> None:
    """A redirect goes to the client, which has no credential to lose; where it points within the
    provider, it points into the route afterwards.
    """
    elsewhere = Recording()
    async with raw_provider(elsewhere.serve) as other:
        foreign = b"HTTP/1.1 %d Go\r\nLocation: %b/x\r\nContent-Length: 0\r\n\r\n" % (
            status,
            other.url.encode(),
        )
        own = b"HTTP/1.1 %d Go\r\nLocation: /y?z\r\nContent-Length: 0\r\n\r\n" % status
        recording = Recording(foreign, own)
        async with proxied(recording.serve) as (_, running):
            request = b"POST /api/a" + HEAD + b"Content-Length: 2\r\n\r\nhi"
            assert await exchange(running.port, request) == foreign
            said = await exchange(running.port, request)
            assert b"\r\nLocation: /api/y?z\r\n" in said
            assert len(recording.requests) == 2
            assert other.connections == 0


# -- one answer never becomes another ----------------------------------------------------------


LED = "redirects to {0}; if that is the provider, set upstream: https://{0}"


@pytest.mark.parametrize(
    ("location", "note"),
    [
        ("https://api.dummy.test/v2?key=1", LED.format("api.dummy.test")),
        ("//user:dummy@cdn.dummy.test:444/x", LED.format("cdn.dummy.test:444")),
        ("https://b\u00fccher.test/", "redirects to another host"),
        ("/v2", ""),
        ("v2", ""),
        ("mailto:dummy@dummy.test", ""),
    ],
)
async def test_a_redirect_to_another_host_is_noted(
    dummy_key: bytes, location: str, note: str
) -> None:
    """Clients follow it without the credential: log and inspector name the host, nothing more."""
    head = f"HTTP/1.1 308 Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    async with (
        raw_provider(answering(head.encode())) as provider,
        keyrelay({"api": static_route(provider.url)}) as running,
    ):
        await exchange(running.port, GET)
        assert running.app.exchange_log.recent[0].log_detail == note


async def test_unsolicited_responses_are_not_delivered(dummy_key: bytes) -> None:
    """A second answer, sent with the first or while the connection is idle, is not the answer to
    the next request.
    """
    poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    recording = Recording(OK + poison, OK)
    async with proxied(recording.serve) as (provider, running):
        assert (await exchange(running.port, GET)).endswith(b"\r\nok")
        assert (await exchange(running.port, GET)).endswith(b"\r\nok")
        assert provider.connections == 2
        idle = running.app.pools["api"]
        assert idle.idle == 1
        recording.writers[1].write(poison)
        await until(lambda: idle.idle == 0)
        assert (await exchange(running.port, GET)).endswith(b"\r\nok")
        assert provider.connections == 3


_PARTS = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 204 No Content\r\n", b"HTTP/1.1 304 Not Modified\r\n"),
        *(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200 O\0K\r\n"),
        *(b"HTTP/1.1 101 Switching Protocols\r\n", b"HTTP/1.1 200 O\rK\r\n", b"HTTP/1.1 200\n"),
        *(b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"),
        *(
            b"Transfer-Encoding: gzip, chunked\r\n",
            b"X: a\r\n b\r\n",
            b"X: a\0b\r\n",
            b"X: a\rb\r\n",
        ),
        *(b"Connection: close\r\n", b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"X: \xff\n"),
        *(b"X : a\r\n", b": a\r\n", b"X\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\0"),
        *(b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n", b"3\r\nab", b"zz\r\n"),
        *(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",),
    ]
)


def messages(data: bytes, *, head_only: bool) -> Iterator[bytes]:
    """The answers in ``data`` as a strict client reads them: each whole but the last, perhaps."""
    while data:
        head, blank, data = data.partition(b"\r\n\r\n")
        assert blank
        status, *lines = head.split(b"\r\n")
        assert re.fullmatch(rb"HTTP/1\.1 [2-5][0-9]{2} [^\r\n\0]*", status), head
        for line in lines:
            assert re.fullmatch(rb"[!#-'*+.^-z|~0-9A-Z-]+: [^\r\n\0]*", line), head
        fields = {line.partition(b":")[0].lower() for line in lines}
        yield status
        if head_only or status[9:12] in {b"204", b"304"}:
            continue
        if b"transfer-encoding" in fields:
            assert b"content-length" not in fields
            while data:
                size, _, data = data.partition(b"\r\n")
                content, data = data[: int(size, 16)], data[int(size, 16) + 2 :]
                if not content:
                    break
        else:
            assert b"content-length" in fields
            (length,) = re.findall(rb"(?i)\ncontent-length: ([0-9]+)", head)
            data = data[int(length) :]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(_PARTS, min_size=1, max_size=9), st.booleans(), st.booleans())
async def test_whatever_a_provider_sends(
    dummy_key: bytes, parts: list[bytes], head_only: bool, in_pieces: bool
) -> None:
    """However a provider abuses the protocol, its client sees at most one answer of its, well
    formed, and nothing behind it.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        for part in parts if in_pieces else [b"".join(parts)]:
            writer.write(part)
            await asyncio.sleep(0)

    async with proxied_client(serve) as (_, _, client):
        method = b"HEAD" if head_only else b"GET"
        client.send(method + b" /api" + HEAD + b"\r\n")
        client.send(method + b" /-/health" + HEAD + b"Connection: close\r\n\r\n")
        said = await client.rest()
        seen = list(messages(said, head_only=head_only))
        assert 1 <= len(seen) <= 2
        if len(seen) == 2:
            assert seen[1] == b"HTTP/1.1 200 OK"
            assert b"X-Content-Type-Options: nosniff" in said


# -- answers of our own ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (None, "connection_terminated"),
        (b"dummy-canary\r\n\r\n", "http_protocol_error"),
        (b"HTTP/1.1 200 OK\r\nX: dummy-canary\0\r\n\r\n", "http_protocol_error"),
        (b"HTTP/1.1 200 dummy-canary\0\r\nContent-Length: 0\r\n\r\n", "http_protocol_error"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "http_protocol_error"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "http_response_transfer_coding",
        ),
    ],
)
async def test_a_faulty_provider(dummy_key: bytes, answer: bytes | None, error: str) -> None:
    """The client gets a 502 that names the fault in RFC 9209's words, and nothing of the answer.
    Its connection serves on.
    """
    recording = Recording(answer, OK)
    async with proxied_client(recording.serve) as (_, running, client):
        client.send(GET)
        status, head, body = await client.answer()
        assert status == problem(head + body)["status"] == 502
        assert b"error=%b;" % error.encode() in head
        assert b"canary" not in head + body
        client.send(GET)
        assert (await client.answer())[2] == b"ok"
        assert running.app.exchange_log.recent[0].outcome == error


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "more than one C"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            "both Content-Length and Transfer-Encoding",
        ),
        (b"HTTP/1.1 200 OK\r\nX-A : a\r\nContent-Length: 2\r\n\r\nok", "a space before the colon"),
        (b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", "contains a space"),
    ],
)
async def test_a_502_names_what_was_not_well_formed(
    dummy_key: bytes, answer: bytes, reason: str
) -> None:
    """In the response, and in the record that log and inspector show."""
    recording = Recording(answer)
    async with proxied_client(recording.serve) as (_, running, client):
        client.send(GET)
        status, _, body = await client.answer()
        assert status == 502
        assert reason.encode() in body
        await until(lambda: running.lines)
        assert reason in running.lines[0]
        assert reason in running.app.exchange_log.recent[0].log_detail


async def test_broken_chunks_are_named_in_the_log(dummy_key: bytes) -> None:
    """Where the response has begun, only the log can have the reason."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        await begun.wait()
        writer.write(b"zz\r\n")
        await reader.read()

    begun = asyncio.Event()
    async with proxied_client(serve) as (_, running, client):
        client.send(GET)
        await client.head()
        begun.set()
        await client.rest()
        record = running.app.exchange_log.recent[0]
        assert record.outcome == "http_protocol_error"
        assert "a chunk size that is no hexadecimal number" in record.log_detail


async def test_a_provider_that_is_not_there(dummy_key: bytes) -> None:
    """A refused connection is a 502 with advice; HEAD gets it without a body."""
    async with raw_provider(answering(OK)) as provider:
        gone = provider.url
    async with keyrelay({"api": static_route(gone)}) as running:
        said = problem(await exchange(running.port, GET))
        assert (said["status"], said["type"]) == (502, "urn:keyrelay:problem:provider-failed")
        assert "nothing listens there" in said["advice"]
        head_only = b"HEAD /api" + HEAD + b"Connection: close\r\n\r\n"
        assert (await exchange(running.port, head_only, until_close=True)).endswith(b"\r\n\r\n")


async def test_a_provider_that_stays_silent(dummy_key: bytes) -> None:
    """A provider that never answers is a 504, one that stops in the middle a broken answer."""
    pieces = [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(pieces.pop(0))
        await reader.read()

    async with proxied_client(serve) as (_, running, client):
        client.send(GET)
        await until(lambda: len(pieces) == 1)
        expire(running, 599)
        await client.nothing()
        expire(running, 601)
        status, head, body = await client.answer()
        assert status == problem(head + body)["status"] == 504
        assert b"error=http_response_timeout;" in head
        client.send(GET)
        await client.head()
        assert await client.exactly(4) == b"half"
        expire(running, 601)
        assert await client.rest() == b""


async def test_a_page_can_read_what_went_wrong(dummy_key: bytes) -> None:
    """An allowed page gets problems of ours and answers of the provider with CORS fields."""
    recording = Recording(None, OK)
    origin = "http://localhost:5173"
    async with proxied(recording.serve, origins=(origin,)) as (_, running):
        request = b"GET /api" + HEAD + f"Origin: {origin}\r\n\r\n".encode()
        for _ in range(2):
            said = await exchange(running.port, request)
            assert f"\r\nAccess-Control-Allow-Origin: {origin}\r\n".encode() in said


# -- clients that leave ------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True], ids=["before the answer", "within the answer"])
async def test_a_client_that_leaves(dummy_key: bytes, begun: bool) -> None:
    """The provider's request ends at once, so that nothing is spent without a client."""
    gone, asked = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        if begun:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        asked.set()
        await reader.read()
        gone.set()

    async with proxied_client(serve) as (_, running, client):
        client.send(GET)
        await asked.wait()
        if begun:
            await client.head()
        client.close()
        async with asyncio.timeout(1):
            await gone.wait()
        await until(lambda: running.app.exchange_log.recent)
        noted = running.app.exchange_log.recent[0]
        assert (noted.outcome, noted.status) == ("client-left", 200 if begun else 0)


async def test_a_client_that_leaves_before_the_provider_is_reached(
    dummy_key: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is still being made is given up."""
    gone = asyncio.Event()

    async def never_shake_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()

    monkeypatch.setenv("SSL_CERT_FILE", str(Authority(tmp_path).file))
    async with (
        raw_provider(never_shake_hands) as provider,
        keyrelay({"api": static_route(provider.url.replace("http:", "https:"))}) as running,
        await RawClient.to(running.port) as client,
    ):
        client.send(GET)
        await until(lambda: provider.connections)
        client.close()
        async with asyncio.timeout(1):
            await gone.wait()
        assert running.app.exchange_log.recent[0].outcome == "client-left"


async def test_a_provider_that_stops_reading(dummy_key: bytes) -> None:
    """An answer before the body's end reaches a client that still sends, whole; the provider is
    sent nothing more.
    """
    gone = asyncio.Event()
    refusal = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nlong"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(refusal)
        try:
            while await reader.read(MEBIBYTE):
                pass
        except ConnectionError:
            writer.close()
        gone.set()

    async with proxied_client(serve) as (_, _, client):
        client.send(b"POST /api" + HEAD + b"Content-Length: %d\r\n\r\n" % (1 << 40))
        client.send(bytes(4 * MEBIBYTE))
        status, head, body = await client.answer()
        assert (status, body) == (413, b"long")
        assert b"\r\nConnection: close\r\n" in head
        async with asyncio.timeout(5):
            await gone.wait()
        assert await client.rest() == b""


# -- TLS ---------------------------------------------------------------------------------------


async def test_over_tls(dummy_key: bytes, trusted: Authority) -> None:
    """Requests and answers of any size cross a TLS connection unchanged, and it is kept."""
    body = bytes(range(256)) * 16_384
    recording = Recording(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    async with proxied(recording.serve, tls=trusted.server("127.0.0.1")) as (provider, running):
        request = b"POST /api" + HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
        for _ in range(2):
            assert (await exchange(running.port, request)).endswith(b"\r\n\r\n" + body)
        assert [sent == body for _, sent in recording.requests] == [True, True]
        assert provider.connections == 1


async def test_over_tls_a_provider_breaks_off(dummy_key: bytes, trusted: Authority) -> None:
    """An answer that breaks off under TLS is broken for the client, too."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(BROKEN["chunked"])

    async with proxied_client(serve, tls=trusted.server("127.0.0.1")) as (_, _, client):
        client.send(GET)
        await client.head()
        assert await client.chunk() == b"half"
        assert await client.rest() == b""


async def test_a_certificate_that_is_not_valid(dummy_key: bytes, trusted: Authority) -> None:
    """The request is not sent; the client is told how to trust an authority of its own."""
    recording = Recording()
    async with proxied(recording.serve, tls=trusted.server("other.example")) as (_, running):
        said = problem(await exchange(running.port, GET))
        assert said["status"] == 502
        assert "SSL_CERT_FILE" in said["advice"]
        assert not recording.requests
