"""What keyrelay is for, whatever the provider: streams, uploads, ends, redirects, missing keys.

Beside this there is a file for each provider, one for WebSockets, one for browsers, one for bytes.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from yarl import URL

from tests.emulators import (
    CAMB_KEY,
    HUME_KEY,
    AigneEmulator,
    Answer,
    CambEmulator,
    HumeEmulator,
    InworldEmulator,
    json_answer,
    redirect,
)
from tests.support.keyrelay import (
    Running,
    both_loops,
    client,
    connection,
    exchange,
    preset_keyrelay,
    raw_provider,
    read_head,
    reset,
)

pytestmark = both_loops

GONE_SECONDS = 1.0  # in which a provider has to notice that the client left
SPEAK = b"POST /hume/v0/tts/stream/file HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
GET = b"GET /hume/v0/evi/configs HTTP/1.1\r\nHost: localhost\r\n\r\n"
KEYS = ("HUME_API_KEY", "AIGNE_HUB_API_KEY", "CAMB_API_KEY", "INWORLD_API_KEY")


async def broken_off(reader: asyncio.StreamReader) -> bytes:
    """What still came until the connection ended, by a reset or by its end."""
    async with asyncio.timeout(5):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


# --- content ----------------------------------------------------------------------------------


async def test_compressed_answers_are_not_touched(hume: HumeEmulator, running: Running) -> None:
    """Accept-Encoding reaches the provider, and what it compressed reaches the client as it is."""
    answer = json_answer(200, {"text": "hello " * 100}).gzipped()
    hume.answer_next(answer)
    encodings = {"Accept-Encoding": "gzip;q=0.9, deflate, br"}
    url = f"{running.url}/hume/v0/evi/configs"
    async with client() as http, http.get(url, headers=encodings) as seen:
        assert seen.headers["Content-Encoding"] == "gzip"
        assert seen.headers["Content-Length"] == str(len(answer.body))
        assert await seen.read() == answer.body
    assert hume.requests[0].values("Accept-Encoding") == [encodings["Accept-Encoding"]]


async def test_nothing_is_made_up_that_the_client_did_not_say(
    hume: HumeEmulator, running: Running
) -> None:
    """No Accept-Encoding, User-Agent, Accept or Via: the head holds Host, a request id and the key,
    no more.
    """
    assert (await exchange(running.port, GET)).startswith(b"HTTP/1.1 200 OK\r\n")
    names = [name for name, _ in hume.requests[0].headers]
    assert names == [b"Host", b"X-Request-Id", b"X-Hume-Api-Key"]


async def test_compressed_uploads_are_not_touched(hume: HumeEmulator, running: Running) -> None:
    """A body that the client compressed is neither inflated nor given another length."""
    body = gzip.compress(b"hello " * 1000)
    head = b"POST /hume/v0/batch HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\n"
    head += b"Content-Length: %d\r\n\r\n" % len(body)
    assert (await exchange(running.port, head + body)).startswith(b"HTTP/1.1 200 OK\r\n")
    recorded = hume.requests[0]
    assert (recorded.body, recorded.value("Content-Encoding")) == (body, "gzip")


async def test_a_head_request_keeps_its_length_and_has_no_body(
    hume: HumeEmulator, running: Running
) -> None:
    """HEAD is answered with the provider's fields and nothing behind them; the next one works."""
    async with connection(running.port) as (reader, writer):
        hume.answer_next(Answer(200, b"x" * 1234))
        writer.write(GET.replace(b"GET", b"HEAD") + GET)
        assert b"Content-Length: 1234\r\n" in await read_head(reader)
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_requests_share_a_connection_to_the_provider(
    hume: HumeEmulator, running: Running
) -> None:
    """Ten requests of ten clients, one after another, need one connection to the provider."""
    for _ in range(10):
        await exchange(running.port, GET)
    assert (len(hume.requests), hume.connections, hume.faults) == (10, 1, [])


# --- redirects --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(
    hume: HumeEmulator, running: Running, elsewhere: str, status: int
) -> None:
    """A foreign Location passes untouched; no second request goes there, nor to the provider."""
    location = f"{elsewhere}/apis/x?a=%20b#c"
    hume.answer_next(redirect(location, status))
    async with (
        client() as http,
        http.post(f"{running.url}/hume/v0/x", data=b"body", allow_redirects=False) as answer,
    ):
        assert (answer.status, answer.headers["Location"]) == (status, location)
    assert len(hume.requests) == 1


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        ("{origin}/v0/evi/configs?page=2", "/hume/v0/evi/configs?page=2"),
        ("{origin}/v0/x?api_key=dummy-hume-key&page=%202#top", "/hume/v0/x?page=%202#top"),
        ("/v0/x", "/hume/v0/x"),
        ("{origin}", "/hume"),
        ("next?page=2", "/hume/v0/next?page=2"),
    ],
)
async def test_a_location_of_the_provider_stays_in_the_route(
    hume: HumeEmulator, running: Running, location: str, seen: str
) -> None:
    """A client that follows comes back through keyrelay, and gets no key in the URL."""
    hume.answer_next(redirect(location.format(origin=hume.origin)))
    url = f"{running.url}/hume/v0/x"
    async with client() as http, http.get(url, allow_redirects=False) as answer:
        assert answer.headers["Location"] == seen


async def test_a_client_that_follows_gets_there(hume: HumeEmulator, running: Running) -> None:
    """An SDK that follows redirects, with its dummy in hand, ends up authenticated."""
    hume.answer_next(redirect(f"{hume.origin}/v0/evi/configs", 307))
    headers = {"X-Hume-Api-Key": "client-dummy-key"}
    async with client() as http, http.get(f"{running.url}/hume/v0/x", headers=headers) as answer:
        assert (answer.status, len(answer.history)) == (200, 1)
    assert [one.path for one in hume.requests] == ["/v0/x", "/v0/evi/configs"]
    assert hume.faults == []


# --- uploads ----------------------------------------------------------------------------------


async def test_uploads_arrive_piece_by_piece(hume: HumeEmulator, running: Running) -> None:
    """The provider has each piece of a body before the client sends the next: chunks."""

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(8):
            yield bytes([number]) * 1000
            await hume.uploads.sent(number + 1)
            assert hume.requests[0].body_length == (number + 1) * 1000

    url = f"{running.url}/hume/v0/tts/voices"
    async with client() as http, http.post(url, data=pieces()) as answer:
        assert (await answer.json())["body_length"] == 8000
    assert hume.requests[0].values("Transfer-Encoding") == ["chunked"]
    assert hume.requests[0].values("Content-Length") == []


async def test_uploads_of_known_length_arrive_piece_by_piece(
    hume: HumeEmulator, running: Running
) -> None:
    """The same with a Content-Length, over a connection that has to be dialled first."""
    async with connection(running.port) as (reader, writer):
        writer.write(b"PUT /hume/v0/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000\r\n\r\n")
        for number in range(4):
            await hume.arrived(1)
            writer.write(bytes([number]) * 1000)
            await hume.uploads.sent(number + 1)
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200 OK\r\n")
        assert hume.requests[0].body == b"".join(bytes([number]) * 1000 for number in range(4))


async def test_a_slow_provider_slows_the_upload_down(hume: HumeEmulator, running: Running) -> None:
    """A provider that takes nothing stops the client; nothing piles up in between."""
    hume.uploads.hold()
    async with connection(running.port) as (reader, writer):
        total = 64 * 1024 * 1024
        writer.write(
            b"PUT /hume/v0/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % total
        )
        sent = 0
        stuck = False
        while not stuck and sent < total:
            writer.write(bytes(1024 * 1024))
            sent += 1024 * 1024
            try:
                await asyncio.wait_for(writer.drain(), 0.05)
            except TimeoutError:
                stuck = True
        # The kernel's buffers of two connections are all there is.
        assert sent < 32 * 1024 * 1024
        hume.uploads.open()
        while sent < total:
            writer.write(bytes(1024 * 1024))
            sent += 1024 * 1024
            await writer.drain()
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200 OK\r\n")
        assert hume.requests[0].body_length == total


async def test_an_answer_may_come_before_the_upload_has_ended(
    hume: HumeEmulator, running: Running
) -> None:
    """A provider that refuses early is heard early; the client need not send it all."""
    hume.answer_next(Answer(413, b"too large", early=True))
    async with connection(running.port) as (reader, writer):
        writer.write(b"PUT /hume/v0/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\nx")
        head = await read_head(reader)
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"Connection: close\r\n" in head
        assert await broken_off(reader) == b"too large"


@asynccontextmanager
async def first_piece(
    hume: HumeEmulator, running: Running
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection on which the first piece of a chunked response has come, and no other is let."""
    hume.pieces.hold()
    async with connection(running.port) as (reader, writer):
        writer.write(SPEAK)
        assert b"Transfer-Encoding: chunked\r\n" in await read_head(reader)
        hume.pieces.release()
        await reader.readuntil(hume.chunks[0])
        yield reader, writer


# --- the client leaves ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_a_stream_ends_when_its_client_leaves(
    hume: HumeEmulator, running: Running, how: str
) -> None:
    """The provider stops within a second: audio without a listener is not paid for."""
    async with first_piece(hume, running) as (_, writer):
        writer.close() if how == "closed" else reset(writer)
        assert await hume.ended(0, GONE_SECONDS) == "client left"


@pytest.mark.parametrize("framing", [b"Content-Length: 9000", b"Transfer-Encoding: chunked"])
async def test_an_upload_ends_when_its_client_leaves(
    hume: HumeEmulator, running: Running, framing: bytes
) -> None:
    """Half a body is not taken for a whole one; the provider sees that the client is gone."""
    async with connection(running.port) as (_, writer):
        head = b"PUT /hume/v0/x HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n" % framing
        writer.write(head + b"5\r\nhello\r\n")
        await hume.uploads.sent(1)
        writer.close()
        assert await hume.ended(0, GONE_SECONDS) == "client left"


async def test_waiting_for_an_answer_ends_when_the_client_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A provider that has not answered yet is let go as well."""
    monkeypatch.setenv("HUME_API_KEY", HUME_KEY)
    asked, gone = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        asked.set()
        await broken_off(reader)
        gone.set()

    async with raw_provider(serve) as provider:
        routes = {"hume": {"provider": "hume", "upstream": provider.url}}
        async with (
            preset_keyrelay(routes) as running,
            connection(running.port) as (_, writer),
        ):
            writer.write(GET)
            async with asyncio.timeout(5):
                await asked.wait()
            writer.close()
            async with asyncio.timeout(GONE_SECONDS):
                await gone.wait()


async def test_a_client_that_reads_slowly_slows_the_provider_down(
    hume: HumeEmulator, running: Running
) -> None:
    """What a client does not take is not piled up; when it leaves, the provider notices."""
    hume.chunks = [bytes(1024 * 1024)] * 64
    async with connection(running.port) as (reader, writer):
        writer.write(SPEAK)
        await read_head(reader)
        # The provider gets on until the kernel's buffers are full, then no further.
        before = -1
        while before != hume.pieces.passed:
            before = hume.pieces.passed
            await asyncio.sleep(0.05)
        assert hume.pieces.passed < 32
        writer.transport.abort()
        assert await hume.ended(0, GONE_SECONDS) == "client left"


# --- the provider breaks off ------------------------------------------------------------------


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_a_stream_that_breaks_off_never_looks_complete(
    hume: HumeEmulator, running: Running, how: str
) -> None:
    """What came is passed on; the last chunk, which would be an end, is not made up."""
    async with first_piece(hume, running) as (reader, _):
        if how == "closed":
            hume.pieces.cut()
        else:
            hume.drop_connections()
        assert await broken_off(reader) in {b"", b"\r\n"}


async def test_sdks_notice_a_stream_that_breaks_off(hume: HumeEmulator, running: Running) -> None:
    """An HTTP library raises instead of returning the half."""
    hume.pieces.hold()
    async with client() as http, http.post(f"{running.url}/hume/v0/tts/stream/file") as answer:
        hume.pieces.release(3)
        hume.pieces.cut()
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf",
    ],
    ids=["length", "chunked", "until-close"],
)
async def test_half_an_answer_never_looks_complete(
    monkeypatch: pytest.MonkeyPatch, head: bytes, version: bytes
) -> None:
    """Whatever the framing on either side: a provider's reset is no clean end at the client."""
    monkeypatch.setenv("HUME_API_KEY", HUME_KEY)
    passed_on = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(head)
        async with asyncio.timeout(5):
            await passed_on.wait()
        reset(writer)

    async with raw_provider(serve) as provider:
        routes = {"hume": {"provider": "hume", "upstream": provider.url}}
        async with (
            preset_keyrelay(routes) as running,
            connection(running.port) as (reader, writer),
        ):
            writer.write(GET.replace(b"1.1", version))
            seen = await read_head(reader) + await reader.readuntil(b"half")
            passed_on.set()
            if b"Content-Length: 100" in seen:
                assert len(await broken_off(reader)) < 96
            elif b"Transfer-Encoding: chunked" in seen:
                assert b"0\r\n\r\n" not in await broken_off(reader)
            else:
                # Here the end of the connection is the end of the body: only a reset tells.
                async with asyncio.timeout(5):
                    with pytest.raises(ConnectionResetError):
                        await reader.read()


async def test_a_provider_that_hangs_up_unanswered_is_a_502(
    hume: HumeEmulator, running: Running
) -> None:
    """The client gets a problem of ours that says whose fault it is, not an empty answer."""
    hume.uploads.cut()
    post = b"POST /hume/v0/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"
    head, _, body = (await exchange(running.port, post)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 502 ")
    assert b"Proxy-Status: keyrelay; error=connection_terminated" in head
    assert json.loads(body)["detail"] == "The provider closed the connection without a response."
    assert len(hume.requests) == 1


async def test_a_provider_that_is_not_there_is_a_502(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens: a problem that says so, without the upstream's address."""
    monkeypatch.setenv("HUME_API_KEY", HUME_KEY)
    async with HumeEmulator() as gone:
        origin = gone.origin
    async with preset_keyrelay({"hume": {"provider": "hume", "upstream": origin}}) as running:
        answer = await exchange(running.port, GET)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"error=connection_refused" in answer
    assert origin.rpartition(":")[2].encode() not in answer


# --- missing keys -----------------------------------------------------------------------------


async def test_a_missing_key_is_a_503_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each route says what to set, dials nothing, and the others serve meanwhile."""
    for key in KEYS:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("CAMB_API_KEY", CAMB_KEY)
    async with (
        HumeEmulator() as hume,
        AigneEmulator() as aigne,
        InworldEmulator() as inworld,
        CambEmulator() as camb,
    ):
        routes = {
            "hume": {"provider": "hume", "upstream": hume.origin},
            "aigne": {"provider": "aigne-hub", "upstream": aigne.origin},
            "inworld": {"provider": "inworld", "upstream": inworld.origin},
            "camb": {"provider": "camb", "upstream": camb.origin},
            "demo": {"provider": "demo"},
        }
        async with preset_keyrelay(routes) as running, client() as http:
            for route, variable in (
                ("hume", "HUME_API_KEY"),
                ("aigne", "AIGNE_HUB_API_KEY"),
                ("inworld", "INWORLD_API_KEY"),
            ):
                headers = {"Authorization": "Bearer client-dummy-key"}
                async with http.get(f"{running.url}/{route}/v0/x", headers=headers) as answer:
                    assert answer.status == 503
                    assert answer.content_type == "application/problem+json"
                    # A key may be known under further names, which follow.
                    assert (await answer.json())["advice"].startswith(f"set {variable}")
            async with http.get(f"{running.url}/camb/apis/list-voices") as answer:
                assert answer.status == 200
            async with http.get(f"{running.url}/demo/echo/x") as answer:
                assert answer.status == 200
        assert hume.connections + aigne.connections + inworld.connections == 0


async def test_a_route_has_an_origin_of_its_own(hume: HumeEmulator, running: Running) -> None:
    """Under <route>.localhost the route is at the root, and Locations stay there."""
    hume.answer_next(redirect(f"{hume.origin}/v0/evi/configs"))
    url = URL(f"{running.url}/v0/x")
    headers = {"Host": f"hume.localhost:{running.port}"}
    async with (
        client() as http,
        http.get(url, headers=headers, allow_redirects=False) as answer,
    ):
        assert answer.headers["Location"] == "/v0/evi/configs"
    assert hume.requests[0].value("Host") == hume.origin.removeprefix("http://")
    assert hume.faults == []


async def test_the_access_log_has_no_secret_and_no_query(
    hume: HumeEmulator, running: Running
) -> None:
    """One line per exchange, with the path and without what clients put behind it."""
    await exchange(running.port, GET.replace(b"configs", b"configs?api_key=client-dummy-key&q=1"))
    async with running.websocket("/hume/v0/evi/chat?api_key=client-dummy-key&q=1") as socket:
        await socket.recv()
    await hume.ended(1)
    for _ in range(100):
        running.app.exchange_log.flush()
        if len("".join(running.lines).splitlines()) == 2:
            break
        await asyncio.sleep(0.01)
    text = "".join(running.lines)
    assert [line.split()[1:4] for line in text.splitlines()] == [
        ["hume", "GET", "/v0/evi/configs"],
        ["hume", "WS", "/v0/evi/chat"],
    ]
    assert HUME_KEY not in text
    assert "client-dummy" not in text
    assert "?" not in text
