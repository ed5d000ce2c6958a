"""CAMB.AI's Python SDK through the routes `camb` and `camb-realtime`."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import MISSING
from tests.clients.routed import DUMMY, Routed, routed
from tests.emulators import CAMB_KEY, CambEmulator, CambRealtimeEmulator, json_answer, redirect
from tests.emulators.carriers import Carrier
from tests.support.keyrelay import both_loops

pytestmark = [pytest.mark.clients, both_loops]

HEADER = Carrier("header", "x-api-key", CAMB_KEY)
RECORDING = bytes(range(256)) * 2048


@pytest.fixture(scope="module")
def sdk() -> Any:
    return pytest.importorskip("camb.client", reason=MISSING)


@pytest.fixture(scope="module")
def realtime(sdk: Any) -> Any:
    return pytest.importorskip("camb.realtime")


@pytest.fixture(scope="module")
def transcription(sdk: Any) -> Any:
    """The part of the SDK that wants a library of the system as soon as it is imported."""
    try:
        return pytest.importorskip("camb.live_transcription")
    except OSError as error:
        pytest.skip(f"{error} (on Debian and Ubuntu: apt-get install libportaudio2)")


@pytest.fixture
async def camb(tmp_path: Path) -> AsyncIterator[Routed]:
    async with routed("camb", CambEmulator(), tmp_path, http=HEADER) as one:
        yield one


@pytest.fixture
async def sockets(tmp_path: Path) -> AsyncIterator[Routed]:
    async with routed("camb-realtime", CambRealtimeEmulator(), tmp_path, http=HEADER) as one:
        yield one


@pytest.fixture
def client(sdk: Any, camb: Routed, http: Any) -> Any:
    return sdk.AsyncCambAI(api_key=DUMMY, base_url=f"{camb.url}/apis", httpx_client=http)


@pytest.fixture
def blocking(sdk: Any, camb: Routed, blocking_http: Any) -> Any:
    """Its calls block, so that they run in a thread beside the loop of keyrelay."""
    return sdk.CambAI(api_key=DUMMY, base_url=f"{camb.url}/apis", httpx_client=blocking_http)


async def test_rest(client: Any, camb: Routed) -> None:
    """Lists come back and an upload arrives whole, each with the real key."""
    voices = await client.voice_cloning.list_voices()
    assert voices[0]["id"] == 147320
    languages = await client.languages.get_source_languages(run_id=7)
    assert languages[0].short_name == "en-us"
    camb.provider.answer_next(json_answer(200, {"voice_id": 5}), path="/apis/create-custom-voice")
    made = await client.voice_cloning.create_custom_voice(
        voice_name="dummy", gender=1, file=("dummy.wav", RECORDING)
    )
    assert made.voice_id == 5
    arrived = camb.arrived(
        "GET /apis/list-voices",
        "GET /apis/source-languages?run_id=7",
        "POST /apis/create-custom-voice",
    )
    assert arrived[2].body_length == int(arrived[2].value("Content-Length"))
    assert arrived[2].body_length > len(RECORDING)
    assert RECORDING[:1024] in arrived[2].body


async def test_rest_synchronously(blocking: Any, camb: Routed) -> None:
    """The synchronous client's calls arrive with the real key as well, over one connection."""

    def calls() -> tuple[Any, Any]:
        return blocking.voice_cloning.list_voices(), blocking.languages.get_target_languages()

    voices, languages = await asyncio.to_thread(calls)
    assert voices[0]["id"] == 147320
    assert languages[0].id == 1
    camb.arrived("GET /apis/list-voices", "GET /apis/target-languages")
    assert camb.provider.connections == 1


async def test_speech_is_streamed_as_it_is_made(client: Any, camb: Routed) -> None:
    """The SDK has the first piece while the provider holds the second back."""
    camb.provider.pieces.hold(passing=1)
    speech = client.text_to_speech.tts(
        text="Hello", language="en-us", voice_id=147320, request_options={"chunk_size": 4096}
    )
    async with asyncio.timeout(10):
        assert await anext(speech) == camb.provider.chunks[0]
        await camb.provider.pieces.reached()
        camb.provider.pieces.open()
        rest = b"".join([chunk async for chunk in speech])
    assert rest == b"".join(camb.provider.chunks[1:])
    (arrived,) = camb.arrived("POST /apis/tts-stream")
    assert arrived.json() == {"text": "Hello", "language": "en-us", "voice_id": 147320}


async def test_speech_is_streamed_to_the_synchronous_client(blocking: Any, camb: Routed) -> None:
    """The synchronous client gets every byte of a stream."""

    def call() -> bytes:
        return b"".join(blocking.text_to_speech.tts(text="Hello", language="en-us", voice_id=1))

    assert await asyncio.to_thread(call) == b"".join(camb.provider.chunks)
    camb.arrived("POST /apis/tts-stream")


async def test_a_header_with_an_underscore_passes(sdk: Any, camb: Routed, http: Any) -> None:
    """`tts_provider`, which the SDK adds on wish, reaches the provider as it is."""
    client = sdk.AsyncCambAI(
        api_key=DUMMY, base_url=f"{camb.url}/apis", httpx_client=http, tts_provider="dummy"
    )
    await client.languages.get_source_languages()
    (arrived,) = camb.arrived("GET /apis/source-languages")
    assert arrived.values("tts_provider") == ["dummy"]


async def test_a_redirect_stays_within_the_route(client: Any, camb: Routed) -> None:
    """The SDK follows redirects; one to the provider's own origin leads through keyrelay again."""
    there = f"{camb.provider.origin}/apis/list-voices?page=2"
    camb.provider.answer_next(redirect(there, 307))
    voices = await client.voice_cloning.list_voices()
    assert voices[0]["id"] == 147320
    camb.arrived("GET /apis/list-voices", "GET /apis/list-voices?page=2")


async def test_refusals_reach_the_sdk(client: Any, camb: Routed) -> None:
    """The provider's 422 is the SDK's own error for it, with the provider's words."""
    errors = pytest.importorskip("camb.errors")
    problem = {"loc": ["body", "text"], "msg": "Field required", "type": "missing"}
    camb.provider.answer_next(json_answer(422, {"detail": [problem]}))
    with pytest.raises(errors.UnprocessableEntityError) as raised:
        await client.languages.get_source_languages()
    assert raised.value.body.detail[0].msg == "Field required"
    camb.arrived("GET /apis/source-languages")


async def test_a_realtime_session(realtime: Any, sockets: Routed) -> None:
    """The session begins although its first message holds a dummy: the header wins at CAMB.AI."""
    events: asyncio.Queue[tuple[Any, Any]] = asyncio.Queue()
    closed: list[Any] = []
    async with asyncio.timeout(10):
        session = await realtime.connect(
            DUMMY, base_url=sockets.url, source_language="en-US", target_language="de-DE"
        )
        session.on_any(lambda kind, event: events.put_nowait((kind, event)))
        session.on(realtime.ServerEventType.CLOSED, closed.append)
        async with session:
            await session.wait_until_ready()
            kind, event = await events.get()
            assert kind is realtime.ServerEventType.SESSION_CREATED
            assert (event.session.mode, event.session.target_language) == ("fast", "de-DE")
            await session.send_audio(RECORDING)
            kind, event = await events.get()
            assert kind == "input_audio_buffer.append"
            assert base64.b64decode(event["audio"]) == RECORDING
        assert await sockets.provider.ended(0) == "complete"
    assert [event.code for event in closed] == [1000]
    (arrived,) = sockets.arrived("GET /v1/realtime?mode=fast")
    assert json.loads(arrived.messages[0])["auth"] == {"api_key": DUMMY}
    assert arrived.close_code == 1000


async def test_a_refused_session_is_the_providers_answer(realtime: Any, sockets: Routed) -> None:
    """A refusal of the handshake reaches the SDK as that status, not as a socket that closes."""
    sockets.provider.answer_next(json_answer(403, {"error": "no permission", "status": 403}))
    with pytest.raises(realtime.RealtimeConnectError, match="403"):
        await realtime.connect(
            DUMMY, base_url=sockets.url, source_language="en-US", target_language="de-DE"
        )
    sockets.arrived("GET /v1/realtime?mode=fast")


async def test_a_live_transcription(transcription: Any, sockets: Routed) -> None:
    """Audio goes out in binary, the dummy in the SDK's header gives way, events come back."""
    events: asyncio.Queue[Any] = asyncio.Queue()
    async with asyncio.timeout(10):
        session = await transcription.connect(DUMMY, base_url=sockets.url, language="de-de")
        session.on_any(lambda kind, event: events.put_nowait(kind))
        async with session:
            await session.wait_until_ready()
            assert await events.get() is transcription.ServerMessageType.READY
            await session.send_audio(RECORDING)
            await session.keep_alive()
            assert await events.get() == "KeepAlive"
        assert await sockets.provider.ended(0) == "complete"
    (arrived,) = sockets.arrived(
        "GET /streaming-transcription/listen"
        "?model=boli-v5&language=de-de&encoding=linear16&sample_rate=16000&channels=1"
    )
    assert arrived.messages[0] == RECORDING
    assert [json.loads(text)["type"] for text in arrived.messages[1:]] == [
        "KeepAlive",
        "CloseStream",
    ]
