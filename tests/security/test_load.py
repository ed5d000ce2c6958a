"""Rows T42 to T44 and T46 to T49: what it may cost, in connections, in calls and in money."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest

from tests.security.scene import (
    CLIENT_SECRET,
    GET,
    HANDSHAKE,
    HOST,
    PAGE,
    SOCKET,
    SWITCHING,
    TOKEN,
    Stage,
    answer,
    problem,
    raw_client,
    routes,
    stage,
    status,
    token_answer,
    values,
)
from tests.support.keyrelay import (
    RawClient,
    Running,
    answering,
    both_loops,
    exchange,
    heads,
    keyrelay,
    raw_provider,
    read_head,
    until,
)

MEBIBYTE = 1 << 20
MINTED = GET.replace(b"/api", b"/minted")


# -- floods ------------------------------------------------------------------------------------


@pytest.mark.seconds
async def test_t42_slow_heads_and_idle_connections(secrets: None) -> None:
    """Both end after their time, however the head dribbles in; one under way stays."""
    hold = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await hold.wait()
        writer.write(answer())
        await reader.read()

    async with raw_provider(serve) as place:
        both = routes(place.url, place.url)
        del both["minted"]
        async with (
            keyrelay(both, head_timeout_seconds=0.05, keepalive_seconds=0.05) as running,
            raw_client(running.port) as slow,
            raw_client(running.port) as idle,
            raw_client(running.port) as busy,
        ):
            busy.send(GET + b"\r\n")
            slow.send(b"GET /api/x HTTP/1.1\r\n")
            for _ in range(3):
                await asyncio.sleep(0.01)
                slow.send(b"X: y\r\n")
            for client in (slow, idle):
                try:
                    assert await client.rest() == b""
                except ConnectionResetError:
                    continue
            hold.set()
            assert (await busy.answer())[0] == 200


@both_loops
async def test_t42_too_many_connections(secrets: None) -> None:
    """One over ``max_connections`` gets a 503 and nothing is dialled for it; when another ends,
    there is room again.
    """
    async with stage(max_connections=3) as one, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw_client(one.port)) for _ in range(3)]
        async with raw_client(one.port) as surplus:
            got = await surplus.rest()
            assert (status(got), values(got, "Connection")) == (503, ["close"])
            assert problem(got) == "too-many-connections"
        one.no_dial()
        clients[0].send(GET + b"\r\n")
        assert (await clients[0].answer())[0] == 200
        clients[1].close()
        await until(lambda: len(one.running.app._clients) < 3)
        assert status(await one.ask(GET)) == 200


@asynccontextmanager
async def silent(**api: Any) -> AsyncIterator[tuple[Running, list[asyncio.StreamWriter]]]:
    """A route whose provider gives no response until the test writes one."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writers.append(writer)
        await reader.read()

    async with raw_provider(serve) as place:
        both = routes(place.url, place.url)
        del both["minted"]
        both["api"].update(api)
        async with keyrelay(both) as running:
            yield running, writers


@both_loops
async def test_t42_too_many_at_once(secrets: None) -> None:
    """One over the route's ``concurrency`` gets a 503 with Retry-After; the others are unharmed,
    and each that ends, in whatever manner, makes room.
    """
    async with silent(concurrency=2) as (running, writers):
        first, second = await RawClient.to(running.port), await RawClient.to(running.port)
        for one in (first, second):
            one.send(GET + b"\r\n")
        await until(lambda: len(writers) == 2)
        got = await exchange(running.port, GET + b"\r\n")
        assert (status(got), problem(got)) == (503, "too-many-at-once")
        assert int(values(got, "Retry-After")[0]) > 0
        assert len(writers) == 2
        writers[0].write(answer())
        writers[1].write(answer())
        assert (await first.answer())[0] == (await second.answer())[0] == 200
        first.send(SOCKET + b"\r\n")
        second.send(GET + b"\r\n")
        await until(lambda: running.app.exchange_log.total == 3)
        first.reset()
        second.reset()
        await until(lambda: running.app.exchange_log.total == 5)
        async with raw_client(running.port) as third:
            third.send(GET + b"\r\n")
            before = len(writers)
            await until(lambda: len(writers) > before)


@both_loops
async def test_t42_too_many_in_a_span(secrets: None) -> None:
    """One over the route's ``rate`` gets a 429 with Retry-After, and costs nothing."""
    async with stage(api={"rate": "2/minute"}, fresh=True) as one:
        for _ in range(2):
            assert status(await one.ask(GET)) == 200
        for request in (GET, SOCKET):
            got = await one.ask(request)
            assert (status(got), problem(got)) == (429, "rate-exceeded")
            assert 0 < int(values(got, "Retry-After")[0]) <= 60
        assert len(one.provider.heads) == 2
        assert status(await one.ask(MINTED)) == 200


@both_loops
async def test_t42_refused_requests_do_not_count(secrets: None) -> None:
    """A foreign page cannot use up the route's rate."""
    async with stage(api={"rate": "1/minute"}) as one:
        for _ in range(5):
            await one.ask_refused(GET + b"Origin: https://evil.test\r\n", 403)
        assert status(await one.ask(GET)) == 200


@both_loops
@pytest.mark.parametrize("chunked", [False, True])
async def test_t42_a_body_that_is_too_large(secrets: None, chunked: bool) -> None:
    """413, at once if its length is announced, else as soon as it is passed."""
    async with stage(api={"max_body_bytes": 10}, fresh=True) as one:
        post = b"POST /api/x HTTP/1.1\r\n" + HOST
        if chunked:
            request = post + b"Transfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n"
        else:
            request = post + b"Content-Length: 11\r\n\r\n"
        async with raw_client(one.port) as client:
            client.send(request)
            code, head, body = await client.answer()
        assert (code, problem(head + body)) == (413, "body-too-large")
        assert one.provider.bodies == []
        small = post + b"Content-Length: 10\r\n\r\n0123456789"
        assert status(await exchange(one.port, small)) == 200


# -- clients that leave ------------------------------------------------------------------------


@both_loops
@pytest.mark.parametrize("begun", ["before the answer", "in the stream", "websocket"])
async def test_t43_a_client_that_leaves_ends_the_provider_s_work(secrets: None, begun: str) -> None:
    """The provider sees its connection end within a second: what is not read is not paid for."""
    ended, started = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        if begun == "in the stream":
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        elif begun == "websocket":
            writer.write(SWITCHING + b"\r\n")
        started.set()
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        ended.set()

    async with raw_provider(serve) as place:
        both = routes(place.url, place.url)
        del both["minted"]
        async with keyrelay(both) as running:
            client = await RawClient.to(running.port)
            client.send((SOCKET if begun == "websocket" else GET) + b"\r\n")
            await started.wait()
            if begun != "before the answer":
                await client.head()
            client.close()
            async with asyncio.timeout(1):
                await ended.wait()


# -- frames ------------------------------------------------------------------------------------


@asynccontextmanager
async def spliced() -> AsyncIterator[tuple[RawClient, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A WebSocket through keyrelay: the client, and the provider's two ends behind its 101."""
    far: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(SWITCHING + b"\r\n")
        far.put_nowait((reader, writer))
        await asyncio.Event().wait()

    async with raw_provider(serve) as place:
        both = routes(place.url, place.url)
        del both["minted"]
        async with keyrelay(both) as running, raw_client(running.port) as client:
            client.send(SOCKET + b"\r\n")
            assert status(await client.head()) == 101
            reader, writer = await far.get()
            yield client, reader, writer


@both_loops
@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"\x88\x82\0\0\0\0\x10\xe1", id="close 4321 of the client"),
        pytest.param(b"\x81\x05hello", id="unmasked"),
        pytest.param(b"\xff\x85\0\0\0\0hello", id="reserved bits and opcode"),
        pytest.param(b"\x01\x82\0\0\0\0he\x80\x83\0\0\0\0llo", id="fragments"),
        pytest.param(
            b"\x82\xff" + (5 * MEBIBYTE).to_bytes(8) + bytes(4 + 5 * MEBIBYTE), id="5 MiB"
        ),
    ],
)
async def test_t44_frames_are_the_two_ends_business(secrets: None, frame: bytes) -> None:
    """Done differently: bytes are spliced, so every frame arrives as it was sent, and who has to
    refuse one (RFC 6455 section 5.1) sees it and can.
    """
    async with spliced() as (client, reader, writer):
        client.send(frame)
        async with asyncio.timeout(10):
            assert await reader.readexactly(len(frame)) == frame
        # Protocol error, as its receiver would say; then text and a close of the provider's own.
        told = b"\x88\x02\x03\xea" + b"\x81\x02ok" + b"\x88\x02\x10\xe1"
        writer.write(told)
        assert await client.exactly(len(told)) == told


@both_loops
@pytest.mark.parametrize(
    "fields",
    [
        HANDSHAKE.replace(b"13", b"8"),
        HANDSHAKE.replace(b"Zg==", b"Zg="),
        HANDSHAKE + b"Content-Length: 5\r\n",
        HANDSHAKE + b"Transfer-Encoding: chunked\r\n",
    ],
)
async def test_t44_the_handshake_is_checked(open_stage: Stage, fields: bytes) -> None:
    """Before the splice everything is: version, key, and that there is no body."""
    await open_stage.refused(GET + fields, 400, 426)


# -- compression -------------------------------------------------------------------------------


@both_loops
async def test_t46_keyrelay_never_compresses(open_stage: Stage) -> None:
    """What came plain goes on plain, to pages as well: no oracle of lengths is made here."""
    text = "a" * 10_000
    open_stage.provider.answer = answer(text, "Content-Type: text/plain")
    accept = b"Accept-Encoding: gzip, br, zstd\r\n"
    for request in (GET + accept, GET + accept + f"Origin: {PAGE}\r\n".encode()):
        got = await open_stage.ask(request)
        assert values(got, "Content-Encoding") == []
        assert got.endswith(text.encode())
    got = await open_stage.ask(GET + accept + b"Origin: https://evil.test\r\n")
    assert status(got) == 403


# -- token endpoints ---------------------------------------------------------------------------

CANARY = "CANARY-dummy-words-of-the-endpoint"
JSON = "Content-Type: application/json"


@both_loops
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (answer(f'"{CANARY}"' + " " * 10 * MEBIBYTE, JSON), 502),
        (token_answer(CANARY, token_type="mac"), 502),
        (token_answer(f"{CANARY}\r\nX-Injected: 1"), 502),
        (answer(f"<p>{CANARY}</p>", "Content-Type: text/html"), 502),
        (answer(f'{{"token": "{CANARY}"', JSON), 502),
        (answer(f'{{"error": "{CANARY}"}}', JSON, status="400 Bad Request"), 503),
        (answer(CANARY, status="500 Internal Server Error"), 503),
    ],
    ids=["10 MiB", "mac", "CRLF", "html", "half", "400", "500"],
)
async def test_t47_a_token_endpoint_that_misbehaves(
    secrets: None, caplog: pytest.LogCaptureFixture, said: bytes, expected: int
) -> None:
    """Closed, with a time to come back unless waiting does not help; its words are repeated
    nowhere, and the provider is not asked without a token.
    """
    async with stage(mint_answer=said) as one:
        got = await one.ask(MINTED)
        assert (status(got), problem(got)) == (expected, "no-token")
        lasting = said.startswith(b"HTTP/1.1 400 ")
        assert len(values(got, "Retry-After")) == (0 if lasting else 1)
        assert all(int(one) >= 1 for one in values(got, "Retry-After"))
        assert one.place.connections == 0
        assert one.token_source.connections == 1
        assert status(await one.ask(GET)) == 200
    written = got.decode() + "".join(one.running.lines) + caplog.text
    for secret in (CANARY, CLIENT_SECRET, one.token_source.url):
        assert secret not in written
    assert sum(" minted " in line for line in "".join(one.running.lines).splitlines()) == 1


@both_loops
@pytest.mark.parametrize("code", [301, 302, 307, 308])
async def test_t47_a_token_endpoint_that_redirects(secrets: None, code: int) -> None:
    """The client's secret goes nowhere else."""
    async with raw_provider(answering(token_answer())) as evil:
        said = answer("", f"Location: {evil.url}/token", status=f"{code} Elsewhere")
        async with stage(mint_answer=said) as one:
            assert status(await one.ask(MINTED)) == 502
        assert evil.connections == 0


@both_loops
async def test_t48_a_provider_that_refuses_every_token(secrets: None) -> None:
    """A hundred requests cause two token calls at most, and one repetition altogether."""
    async with stage(fresh=True) as one:
        one.provider.answer = answer("{}", status="401 Unauthorized")
        for _ in range(10):
            got = await asyncio.gather(*(one.ask(MINTED) for _ in range(10)))
            assert {status(single) for single in got} == {401}
        assert one.token_source.connections <= 2
        # Those that were under way with the first token go out once more with the second.
        assert len(one.provider.heads) <= 110


@both_loops
async def test_t48_a_key_is_not_repeated(open_stage: Stage) -> None:
    """There is nothing to renew: one request, one refusal."""
    open_stage.provider.answer = answer("{}", status="401 Unauthorized")
    assert status(await open_stage.ask(GET)) == 401
    assert len(open_stage.provider.heads) == 1


@both_loops
async def test_t49_a_token_is_its_route_s_alone(secrets: None) -> None:
    """Two routes of one client and one token endpoint, with another scope: two tokens, and neither
    is ever seen on the other route.
    """
    seen: dict[str, set[str]] = {}
    asked: list[bytes] = []

    async def token_source(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        body = await reader.readexactly(int(values(head, "Content-Length")[0]))
        asked.append(body)
        scope = "read" if b"scope=read" in body else "write"
        writer.write(token_answer(f"{TOKEN}-{scope}"))
        await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for head in heads(reader):
            place = head.split(b" ")[1].decode()
            seen.setdefault(place, set()).update(values(head, "Authorization"))
            writer.write(answer())

    async with raw_provider(token_source) as tokens, raw_provider(serve) as place:
        both = {}
        for scope in ("read", "write"):
            route = json.loads(json.dumps(routes(place.url, tokens.url)["minted"]))
            route["auth"][0]["token"]["scope"] = scope
            both[scope] = route
        async with keyrelay(both) as running:
            for _ in range(3):
                for scope in both:
                    request = f"GET /{scope}/{scope} HTTP/1.1\r\n".encode() + HOST + b"\r\n"
                    assert status(await exchange(running.port, request)) == 200
    assert seen == {f"/v1/{scope}": {f"Bearer {TOKEN}-{scope}"} for scope in ("read", "write")}
    assert len(asked) == 2


async def test_t82_a_client_that_sends_no_more_gets_the_response(secrets: None) -> None:
    """The end of the client's sending direction is not its end: it may wait for the response."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await asyncio.sleep(0.2)
        writer.write(answer(b"done"))

    async with raw_provider(serve) as place:
        both = routes(place.url, place.url)
        del both["minted"]
        async with keyrelay(both) as running, await RawClient.to(running.port) as client:
            client.send(GET + b"\r\n")
            client.writer.write_eof()
            assert (await client.rest()).endswith(b"\r\n\r\ndone")
