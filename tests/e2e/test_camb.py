"""CAMB.AI through keyrelay: one header on two hosts, and a key that a client puts in band."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from websockets.exceptions import ConnectionClosedError
from yarl import URL

from tests.emulators import CAMB_KEY, CambEmulator, CambRealtimeEmulator, json_answer
from tests.support.keyrelay import Running, both_loops, client, preset_keyrelay

pytestmark = both_loops

HEADER = ("x-api-key", "client-dummy-key")
SPEECH = {"text": "hello", "voice_id": 147320}


@pytest.fixture
async def camb(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CambEmulator]:
    monkeypatch.setenv("CAMB_API_KEY", CAMB_KEY)
    async with CambEmulator() as emulator:
        yield emulator


@pytest.fixture
async def realtime() -> AsyncIterator[CambRealtimeEmulator]:
    async with CambRealtimeEmulator() as emulator:
        yield emulator


@pytest.fixture
async def running(camb: CambEmulator, realtime: CambRealtimeEmulator) -> AsyncIterator[Running]:
    routes = {
        "camb": {"provider": "camb", "upstream": camb.origin},
        "camb-realtime": {"provider": "camb-realtime", "upstream": realtime.origin},
    }
    async with preset_keyrelay(routes) as running:
        yield running


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([], ""),
        ([HEADER], ""),
        ([("X-API-KEY", "client-dummy-key"), HEADER], ""),
        ([("X_Api_Key", "client-dummy-key")], ""),
        ([("Authorization", "Bearer client-dummy-key")], ""),
        ([], "?api_key=client-dummy-key"),
        ([HEADER], "?api%5Fkey=client-dummy-key"),
    ],
    ids=["none", "sdk", "twice", "underscore", "bearer", "query", "escaped"],
)
async def test_rest_takes_whatever_key_a_client_insists_on(
    camb: CambEmulator, running: Running, headers: list[tuple[str, str]], query: str
) -> None:
    """CAMB sees its own key in x-api-key, once; a header that has an underscore arrives."""
    url = URL(f"{running.url}/camb/apis/list-voices{query}", encoded=True)
    provider = ("tts_provider", "dummy")
    async with client() as http, http.get(url, headers=[*headers, provider]) as answer:
        assert answer.status == 200
        assert (await answer.json())[0]["id"] == 147320
    assert camb.faults == []
    recorded = camb.requests[0]
    assert recorded.target == "/apis/list-voices"
    assert recorded.values("x-api-key") == [CAMB_KEY]
    assert recorded.values("tts_provider") == ["dummy"]


async def test_speech_arrives_chunk_by_chunk(camb: CambEmulator, running: Running) -> None:
    """A client has heard each chunk of audio before CAMB is let to send the next."""
    camb.pieces.hold()
    url = f"{running.url}/camb/apis/tts-stream"
    async with client() as http, http.post(url, json=SPEECH, headers=[HEADER]) as answer:
        assert (answer.status, answer.content_type) == (200, "audio/wav")
        for piece in camb.chunks:
            camb.pieces.release()
            async with asyncio.timeout(5):
                assert await answer.content.readexactly(len(piece)) == piece
        assert await answer.content.read() == b""
    assert camb.faults == []


async def test_a_file_is_uploaded_as_the_client_framed_it(
    camb: CambEmulator, running: Running
) -> None:
    """A multipart form arrives byte for byte, with its length and its boundary."""
    form = aiohttp.FormData()
    form.add_field("file", bytes(range(256)) * 2000, filename="voice.wav")
    form.add_field("gender", "1")
    url = f"{running.url}/camb/apis/create-custom-voice"
    async with client() as http, http.post(url, data=form, headers=[HEADER]) as answer:
        assert answer.status == 200
        told = await answer.json()
    recorded = camb.requests[0]
    assert recorded.value("Content-Type").startswith("multipart/form-data; boundary=")
    assert recorded.body_length == told["body_length"] > 512_000
    assert camb.faults == []


async def test_a_live_tts_socket_carries_text_and_sound(
    camb: CambEmulator, running: Running
) -> None:
    """The handshake has the header, once; JSON goes one way, binary audio the other."""
    target = "/camb/apis/live-tts/ws?language=en-us&api_key=client-dummy-key"
    async with running.websocket(target, [HEADER]) as socket:
        await socket.send(json.dumps({"type": "start"}))
        assert json.loads(await socket.recv()) == {"type": "ready"}
        await socket.send(json.dumps({"emulator": "binary", "bytes": 70_000}))
        assert await socket.recv() == b"\xb1" * 70_000
    assert camb.faults == []
    assert camb.requests[0].query == "language=en-us"
    assert camb.requests[0].values("x-api-key") == [CAMB_KEY]


async def test_camb_s_own_close_code_reaches_the_client(
    camb: CambEmulator, running: Running
) -> None:
    """A bad first frame is closed by CAMB with 4400; the client sees that code and its reason."""
    async with running.websocket("/camb/apis/live-tts/ws", [HEADER]) as socket:
        await socket.send("no JSON")
        with pytest.raises(ConnectionClosedError):
            await socket.recv()
        assert (socket.close_code, socket.close_reason) == (4400, "bad first frame")


async def test_realtime_removes_an_in_band_dummy(
    realtime: CambRealtimeEmulator, running: Running
) -> None:
    """The Python SDK puts its key into the first message alone; our header authenticates."""
    update = {"type": "session.update", "session": {"language": "en"}}
    sent = {**update, "auth": {"api_key": "client-dummy-key"}}
    async with running.websocket("/camb-realtime/v1/realtime?mode=fast") as socket:
        await socket.send(json.dumps(sent))
        assert json.loads(await socket.recv())["type"] == "session.created"
        audio = bytes(range(256)) * 1024
        await socket.send(audio)
        assert await socket.recv() == audio
    assert realtime.faults == []
    recorded = realtime.requests[0]
    assert recorded.target == "/v1/realtime?mode=fast"
    assert recorded.values("x-api-key") == [CAMB_KEY]
    assert recorded.messages[0] == json.dumps(update)


async def test_transcription_listens_on_both_hosts(
    camb: CambEmulator, realtime: CambRealtimeEmulator, running: Running
) -> None:
    """The page names one host for transcription and the SDK another; either is served."""
    async with running.websocket("/camb/apis/transcription/listen", [HEADER]) as socket:
        await socket.send(b"\x01\x02")
        assert await socket.recv() == b"\x01\x02"
    target = "/camb-realtime/streaming-transcription/listen"
    async with running.websocket(target, [HEADER]) as socket:
        assert json.loads(await socket.recv()) == {"type": "Ready"}
        await socket.send(b"\x01\x02")
        assert await socket.recv() == b"\x01\x02"
    assert camb.faults + realtime.faults == []


async def test_camb_s_own_errors_reach_the_client(camb: CambEmulator, running: Running) -> None:
    """422 in FastAPI's form, and 403: the provider's status and bytes, not ours."""
    async with client() as http:
        async with http.post(f"{running.url}/camb/apis/tts-stream", json={}) as answer:
            assert answer.status == 422
            assert (await answer.json())["detail"][0]["msg"] == "Field required"
        camb.answer_next(json_answer(403, {"error": "no permission", "status": 403}))
        async with http.get(f"{running.url}/camb/apis/source-languages") as answer:
            assert answer.status == 403
            assert await answer.json() == {"error": "no permission", "status": 403}


async def test_a_large_upload_arrives_whole(camb: CambEmulator, running: Running) -> None:
    """Eight MiB, with a length and in chunks: the same bytes at the provider."""
    content = hashlib.sha256(b"seed").digest() * (256 * 1024)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(content), 100_000):
            yield content[at : at + 100_000]

    async with client() as http:
        for body in (io.BytesIO(content), pieces()):
            async with http.put(f"{running.url}/camb/apis/upload", data=body) as answer:
                assert answer.status == 200
                told = await answer.json()
            assert told["body_sha256"] == hashlib.sha256(content).hexdigest()
    assert camb.requests[0].value("Content-Length") == str(len(content))
    assert camb.requests[1].value("Transfer-Encoding") == "chunked"
    assert camb.faults == []
