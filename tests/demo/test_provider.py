"""The built-in provider: what it lets in, what it shows, how its streams end."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import wave
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict
from yarl import URL

from proxy.demo import provider as demo

KEY = b"dummy-demo-key"
KEY_TEXT = KEY.decode()
GOOD = {"X-Demo-Key": KEY_TEXT}


@pytest.fixture
async def base() -> AsyncIterator[str]:
    provider = await demo.start(KEY)
    host, port = provider.address
    yield f"http://{host}:{port}"
    await provider.close()


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_the_index_lists_what_there_is_to_try(
    base: str, client: aiohttp.ClientSession
) -> None:
    """With the key, GET / says what to try, marked as nothing to keep in a cache."""
    async with client.get(f"{base}/", headers=GOOD) as answer:
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "no-store"
        assert "/ws" in (await answer.json())["try"]


@pytest.mark.parametrize(
    ("headers", "query", "words"),
    [
        ([], "", "needs the header X-Demo-Key"),
        ([("X-Demo-Key", "dummy-wrong")], "", "does not hold the demo key"),
        ([("X-Demo-Key", KEY_TEXT)] * 2, "", "2 times"),
        ([("X-Demo-Key", KEY_TEXT)], "?demo_key=dummy-wrong", "must not bring the query"),
        ([("X-Demo-Key", KEY_TEXT)], "?%64emo_key=dummy-wrong", "must not bring the query"),
        ([], f"?demo_key={KEY_TEXT}", "must not bring the query"),
        ([("X-Demo-Key", KEY_TEXT), ("Authorization", "Bearer dummy-wrong")], "", "Authorization"),
        ([("X-Demo-Key", KEY_TEXT), ("Cookie", "a=dummy-wrong")], "", "Cookie"),
        ([("X-Demo-Key", KEY_TEXT), ("Proxy-Authorization", "dummy-wrong")], "", "Proxy-Auth"),
        ([("X-Demo-Key", "dummy-w\u00f6rong")], "", "does not hold the demo key"),
    ],
)
async def test_http_takes_the_key_in_its_header_alone(
    base: str,
    client: aiohttp.ClientSession,
    headers: list[tuple[str, str]],
    query: str,
    words: str,
) -> None:
    """Anything but one right X-Demo-Key is a 401 that says why and repeats no value."""
    url = URL(f"{base}/echo/x{query}", encoded=True)
    async with client.get(url, headers=CIMultiDict(headers)) as answer:
        assert answer.status == 401
        assert "X-Demo-Key" in answer.headers["WWW-Authenticate"]
        text = await answer.text()
    assert words in json.loads(text)["error"]
    assert "dummy-w" not in text
    assert KEY_TEXT not in text


@pytest.mark.parametrize(
    ("headers", "query", "words"),
    [
        ({}, "", "needs the query parameter"),
        ({}, "?demo_key=dummy-wrong", "does not hold"),
        ({}, f"?demo_key={KEY_TEXT}&demo_key={KEY_TEXT}", "2 times"),
        (GOOD, "", "must not bring the header"),
        (GOOD, f"?demo_key={KEY_TEXT}", "must not bring the header"),
        ({"Cookie": "a=b"}, f"?demo_key={KEY_TEXT}", "Cookie"),
    ],
)
async def test_a_websocket_takes_the_key_in_its_query_alone(
    base: str, client: aiohttp.ClientSession, headers: dict[str, str], query: str, words: str
) -> None:
    """A handshake with the key anywhere but once in the query is refused before the 101."""
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    }
    url = URL(f"{base}/ws{query}", encoded=True)
    async with client.get(url, headers=handshake | headers) as answer:
        assert answer.status == 401
        assert words in (await answer.json())["error"]


async def test_echo_shows_what_arrived_and_masks_the_key(
    base: str, client: aiohttp.ClientSession
) -> None:
    """Method, raw target, headers in order and the body come back; the key's value does not."""
    url = URL(f"{base}/echo/a%2Fb//c;d?x=1+2&x=%20{KEY_TEXT}&&y", encoded=True)
    body = f"text with {KEY_TEXT}".encode()
    headers = CIMultiDict([("X-Two", "2"), *GOOD.items(), ("X-One", KEY_TEXT), ("X-Two", "3")])
    async with client.request("PATCH", url, headers=headers, data=body) as answer:
        text = await answer.text()
    shown = json.loads(text)
    assert KEY_TEXT not in text
    assert shown["method"] == "PATCH"
    assert shown["target"] == "/echo/a%2Fb//c;d?x=1+2&x=%20••••&&y"
    ours = [tuple(pair) for pair in shown["headers"] if pair[0].startswith("X-")]
    assert ours == [("X-Two", "2"), ("X-Demo-Key", "••••"), ("X-One", "••••"), ("X-Two", "3")]
    assert shown["body"] == "text with ••••"
    assert shown["body_length"] == len(body)
    assert shown["body_sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("body", [b"", b"\xff\x00", b"x" * 4097, bytes(300_000)])
async def test_echo_only_measures_a_body_that_is_large_or_no_text(
    base: str, client: aiohttp.ClientSession, body: bytes
) -> None:
    """Length and hash tell of every body; only small text is shown."""
    async with client.post(f"{base}/echo/", headers=GOOD, data=body) as answer:
        shown = await answer.json()
    assert shown["body_length"] == len(body)
    assert shown["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert "body" not in shown


async def test_sse_sends_as_many_events_as_were_asked_for(
    base: str, client: aiohttp.ClientSession
) -> None:
    """n= says how many events come, numbered, with the type that browsers need."""
    async with client.get(f"{base}/sse?n=3&interval_ms=0", headers=GOOD) as answer:
        assert answer.content_type == "text/event-stream"
        assert "Content-Length" not in answer.headers
        events = (await answer.text()).rstrip("\n").split("\n\n")
    assert [event.splitlines()[0] for event in events] == ["id: 1", "id: 2", "id: 3"]
    assert json.loads(events[2].splitlines()[2].removeprefix("data: ")) == {"number": 3, "of": 3}


async def test_ndjson_sends_a_document_per_line(base: str, client: aiohttp.ClientSession) -> None:
    """Every line is JSON by itself."""
    async with client.get(f"{base}/ndjson?n=2&interval_ms=0", headers=GOOD) as answer:
        lines = (await answer.text()).splitlines()
    assert [json.loads(line)["number"] for line in lines] == [1, 2]


async def test_audio_is_a_sound_that_plays(base: str, client: aiohttp.ClientSession) -> None:
    """The pieces make up one second of WAV of which every player knows the length."""
    async with client.get(f"{base}/audio?interval_ms=0", headers=GOOD) as answer:
        assert answer.content_type == "audio/wav"
        assert answer.headers["Transfer-Encoding"] == "chunked"
        content = await answer.read()
    with wave.open(io.BytesIO(content)) as sound:
        assert sound.getnframes() == sound.getframerate() == 16_000
        assert any(sound.readframes(16_000))


@pytest.mark.parametrize("path", ["/sse", "/ndjson", "/audio"])
async def test_streams_do_not_wait_for_their_end(
    base: str, client: aiohttp.ClientSession, path: str
) -> None:
    """The first piece is there long before the second is due, and nothing but it."""
    async with client.get(f"{base}{path}?interval_ms=5000", headers=GOOD) as answer:
        first = await asyncio.wait_for(answer.content.readany(), 4)
        assert first
        assert not answer.content.at_eof()


@pytest.mark.parametrize("code", [200, 204, 302, 304, 404, 429, 500, 503, 599])
async def test_status_answers_with_the_status_asked_for(
    base: str, client: aiohttp.ClientSession, code: int
) -> None:
    """The status in the path is the answer's; where waiting helps, Retry-After says how long."""
    async with client.get(f"{base}/status/{code}", headers=GOOD, allow_redirects=False) as answer:
        assert answer.status == code
        assert ("Retry-After" in answer.headers) == (code in (429, 503))


async def test_slow_waits_and_says_so(base: str, client: aiohttp.ClientSession) -> None:
    """The answer tells how long it took its time."""
    async with client.get(f"{base}/slow?seconds=0", headers=GOOD) as answer:
        assert await answer.json() == {"waited_seconds": 0}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/sse?n=0", 400),
        ("/sse?n=101", 400),
        ("/sse?n=many", 400),
        ("/sse?interval_ms=5001", 400),
        ("/slow?seconds=61", 400),
        ("/status/99", 400),
        ("/status/99999999", 400),
        ("/ws", 400),
        ("/nowhere", 404),
    ],
)
async def test_what_is_not_there_is_said_in_json(
    base: str, client: aiohttp.ClientSession, path: str, status: int
) -> None:
    """Wrong parameters and unknown paths get a reason, as JSON."""
    async with client.get(base + path, headers=GOOD) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]


async def test_a_wrong_method_is_told_which_are_right(
    base: str, client: aiohttp.ClientSession
) -> None:
    """A 405 names the methods that the path has."""
    async with client.post(f"{base}/sse", headers=GOOD) as answer:
        assert answer.status == 405
        assert "GET" in answer.headers["Allow"]


async def test_the_websocket_greets_echoes_and_closes(
    base: str, client: aiohttp.ClientSession
) -> None:
    """The greeting shows the handshake without the key; text and binary come back; close closes."""
    url = URL(f"{base}/ws?a=b&demo_key={KEY_TEXT}", encoded=True)
    async with client.ws_connect(url) as socket:
        greeting: dict[str, Any] = json.loads(await socket.receive_str())
        assert greeting["target"] == "/ws?a=b&demo_key=••••"
        await socket.send_str("hello")
        assert await socket.receive_str() == "hello"
        await socket.send_bytes(b"\x00\xff")
        assert await socket.receive_bytes() == b"\x00\xff"
        await socket.send_str("close")
        last = await socket.receive()
        assert (last.type, last.data) == (aiohttp.WSMsgType.CLOSE, 4321)


async def test_the_key_may_be_escaped_in_the_query(
    base: str, client: aiohttp.ClientSession
) -> None:
    """The provider compares decoded names and values, and still shows none of them."""
    url = URL(f"{base}/ws?%64emo_key=%64ummy-demo-key", encoded=True)
    async with client.ws_connect(url) as socket:
        greeting = json.loads(await socket.receive_str())
        assert greeting["target"] == "/ws?%64emo_key=••••"


async def test_closing_ends_streams_and_sockets_soon() -> None:
    """close() does not wait for streams; their clients see the end; closing twice is fine."""
    provider = await demo.start(KEY)
    host, port = provider.address
    async with aiohttp.ClientSession(f"http://{host}:{port}") as client:
        stream = await client.get("/sse?n=100&interval_ms=5000", headers=GOOD)
        await stream.content.readany()
        socket = await client.ws_connect(f"/ws?demo_key={KEY_TEXT}")
        async with asyncio.timeout(5):
            await provider.close()
            with pytest.raises(aiohttp.ClientPayloadError):
                await stream.read()
            await socket.receive()
            assert (await socket.receive()).type in (
                aiohttp.WSMsgType.CLOSED,
                aiohttp.WSMsgType.CLOSE,
            )
        await socket.close()
        await provider.close()


async def test_a_stream_ends_when_its_client_leaves() -> None:
    """A client that leaves in the middle leaves no task of the provider behind."""
    provider = await demo.start(KEY)
    host, port = provider.address
    before = asyncio.all_tasks()
    reader, writer = await asyncio.open_connection(host, port)
    head = f"GET /sse?n=100&interval_ms=5000 HTTP/1.1\r\nHost: x\r\nX-Demo-Key: {KEY_TEXT}\r\n\r\n"
    writer.write(head.encode())
    assert await reader.readuntil(b"id: 1\n")
    serving = asyncio.all_tasks() - before
    assert serving
    writer.close()
    _, still_there = await asyncio.wait(serving, timeout=2)
    assert not still_there
    await provider.close()


async def test_a_socket_answers_pings_and_refuses_bytes_that_are_no_frames(base: str) -> None:
    """A ping gets its pong; a frame without a mask ends the session with 1002."""
    host, _, port = base.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"GET /ws?demo_key={KEY_TEXT} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
    )
    assert b"101" in await reader.readuntil(b"\r\n\r\n")
    head = await reader.readexactly(2)
    size = int.from_bytes(await reader.readexactly(2)) if head[1] == 126 else head[1]
    await reader.readexactly(size)
    writer.write(b"\x89\x82\x00\x00\x00\x00hi")
    assert await reader.readexactly(4) == b"\x8a\x02hi"
    writer.write(b"\x81\x02hi")
    assert await reader.read() == b"\x88\x02\x03\xea"
    writer.close()


async def test_a_head_request_gets_the_fields_alone(base: str) -> None:
    """HEAD gets the length that GET would have, and no content; the connection stays open."""
    async with aiohttp.ClientSession() as client:
        for _ in range(2):
            async with client.head(f"{base}/slow?seconds=0", headers=GOOD) as answer:
                assert answer.status == 200
                assert int(answer.headers["Content-Length"]) > 0
                assert await answer.read() == b""


async def test_a_refused_request_with_a_body_ends_its_connection(
    base: str, client: aiohttp.ClientSession
) -> None:
    """A body that nobody reads is not taken for the next request."""
    async with client.post(f"{base}/nowhere", headers=GOOD, data=bytes(200_000)) as answer:
        assert answer.status == 404
        assert (await answer.json())["error"]
