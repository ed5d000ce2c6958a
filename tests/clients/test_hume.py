"""Hume's Python SDK through the route `hume`, its asynchronous and its synchronous client."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any

import pydantic
import pytest

from tests.clients.conftest import MISSING
from tests.clients.routed import DUMMY, Routed, routed
from tests.emulators import HUME_KEY, HumeEmulator, json_answer
from tests.emulators.carriers import Carrier
from tests.support.keyrelay import both_loops

pytestmark = [
    pytest.mark.clients,
    both_loops,
    # What the SDK uses of the WebSocket library; its maker's affair.
    pytest.mark.filterwarnings("ignore:websockets.legacy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings(
        "ignore:websockets.exceptions.InvalidStatusCode is deprecated:DeprecationWarning"
    ),
]

UPLOAD = bytes(range(256)) * 4096


@pytest.fixture(scope="module")
def sdk() -> Any:
    return pytest.importorskip("hume", reason=MISSING)


@pytest.fixture
async def hume(tmp_path: Path) -> AsyncIterator[Routed]:
    header = Carrier("header", "x-hume-api-key", HUME_KEY)
    query = Carrier("query", "api_key", HUME_KEY)
    async with routed(
        "hume", HumeEmulator(strategy="key"), tmp_path, http=header, websocket=query
    ) as one:
        yield one


@pytest.fixture
def client(sdk: Any, hume: Routed, http: Any) -> Any:
    return sdk.AsyncHumeClient(api_key=DUMMY, base_url=hume.url, httpx_client=http)


@pytest.fixture
def blocking(sdk: Any, hume: Routed, blocking_http: Any) -> Any:
    """Its calls block, so that they run in a thread beside the loop of keyrelay."""
    return sdk.HumeClient(api_key=DUMMY, base_url=hume.url, httpx_client=blocking_http)


def utterances(sdk: Any) -> list[Any]:
    return [sdk.tts.PostedUtterance(text="Hello, dummy.")]


async def joined(stream: AsyncIterable[bytes]) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def test_rest(client: Any, hume: Routed) -> None:
    """Lists, a change and a deletion arrive as the SDK meant them, with the real key."""
    configs = await client.empathic_voice.configs.list_configs(page_size=1)
    assert configs.items == []
    chats = await client.empathic_voice.chats.list_chats(ascending_order=True)
    assert chats.response.page_number == 0
    await client.empathic_voice.prompts.update_prompt_name("a b/c", name="dummy")
    await client.empathic_voice.tools.delete_tool("dummy")
    arrived = hume.arrived(
        "GET /v0/evi/configs?page_number=0&page_size=1",
        "GET /v0/evi/chats?page_number=0&ascending_order=true",
        "PATCH /v0/evi/prompts/a%20b/c",
        "DELETE /v0/evi/tools/dummy",
    )
    assert arrived[2].json() == {"name": "dummy"}


async def test_rest_synchronously(blocking: Any, hume: Routed) -> None:
    """The synchronous client's calls arrive with the real key as well, over one connection."""

    def calls() -> list[Any]:
        return [
            blocking.empathic_voice.configs.list_configs(page_size=1).items,
            blocking.empathic_voice.chats.list_chats().items,
        ]

    assert await asyncio.to_thread(calls) == [[], []]
    hume.arrived("GET /v0/evi/configs?page_number=0&page_size=1", "GET /v0/evi/chats?page_number=0")
    assert hume.provider.connections == 1


async def test_speech_as_json_and_as_a_file(client: Any, sdk: Any, hume: Routed) -> None:
    """Speech comes back whole, in both forms."""
    spoken = await client.tts.synthesize_json(utterances=utterances(sdk))
    assert base64.b64decode(spoken.generations[0].audio) == hume.provider.chunks[0]
    file = await joined(client.tts.synthesize_file(utterances=utterances(sdk)))
    assert file == b"".join(hume.provider.chunks)
    arrived = hume.arrived("POST /v0/tts", "POST /v0/tts/file")
    assert arrived[0].json() == {"utterances": [{"text": "Hello, dummy."}]}


async def test_speech_is_streamed_as_it_is_made(client: Any, sdk: Any, hume: Routed) -> None:
    """The SDK has the first piece while the provider holds the second back, in both forms."""
    hume.provider.pieces.hold(passing=1)
    file = client.tts.synthesize_file_streaming(
        utterances=utterances(sdk), request_options={"chunk_size": 4096}
    )
    async with asyncio.timeout(10):
        assert await anext(file) == hume.provider.chunks[0]
        await hume.provider.pieces.reached()
        hume.provider.pieces.open()
        assert await joined(file) == b"".join(hume.provider.chunks[1:])
        hume.provider.pieces.hold(passing=1)
        snippets = client.tts.synthesize_json_streaming(utterances=utterances(sdk))
        first = await anext(snippets)
        assert base64.b64decode(first.audio) == hume.provider.chunks[0]
        await hume.provider.pieces.reached()
        hume.provider.pieces.open()
        rest = [snippet async for snippet in snippets]
    assert [one.chunk_index for one in rest] == [1, 2, 3, 4, 5, 6, 7]
    assert rest[-1].is_last_chunk
    hume.arrived("POST /v0/tts/stream/file", "POST /v0/tts/stream/json")


async def test_speech_is_streamed_to_the_synchronous_client(
    blocking: Any, sdk: Any, hume: Routed
) -> None:
    """The synchronous client gets every byte of a stream and every line."""

    def calls() -> tuple[bytes, list[Any]]:
        file = blocking.tts.synthesize_file_streaming(utterances=utterances(sdk))
        lines = blocking.tts.synthesize_json_streaming(utterances=utterances(sdk))
        return b"".join(file), list(lines)

    file, lines = await asyncio.to_thread(calls)
    assert file == b"".join(hume.provider.chunks)
    assert len(lines) == len(hume.provider.chunks)
    hume.arrived("POST /v0/tts/stream/file", "POST /v0/tts/stream/json")


async def test_a_stream_that_is_left_ends_at_the_provider(
    client: Any, sdk: Any, hume: Routed
) -> None:
    """Leaving the SDK's stream after its first piece ends the provider's request."""
    hume.provider.pieces.hold(passing=1)
    stream = client.tts.synthesize_file_streaming(utterances=utterances(sdk))
    async with asyncio.timeout(10):
        await anext(stream)
        await stream.aclose()
    assert await hume.provider.ended(0) == "client left"


async def test_a_stream_that_breaks_is_an_error(client: Any, sdk: Any, hume: Routed) -> None:
    """A provider that breaks off in the middle is no end of speech: the SDK raises."""
    httpx = pytest.importorskip("httpx")
    hume.provider.pieces.hold(passing=1)
    stream = client.tts.synthesize_file_streaming(
        utterances=utterances(sdk), request_options={"chunk_size": 4096}
    )
    async with asyncio.timeout(10):
        assert await anext(stream) == hume.provider.chunks[0]
        hume.provider.pieces.cut()
        with pytest.raises(httpx.RemoteProtocolError):
            await joined(stream)


async def test_an_upload_arrives_whole(client: Any, hume: Routed) -> None:
    """A multipart upload with the bytes of a recording reaches the provider unchanged."""
    report = await joined(client.tts.convert_voice_file(audio=("dummy.wav", UPLOAD, "audio/wav")))
    (arrived,) = hume.arrived("POST /v0/tts/voice_conversion/file")
    boundary = arrived.value("Content-Type").removeprefix("multipart/form-data; boundary=")
    head, _, _ = arrived.body.partition(UPLOAD[:512])
    tail = f"\r\n--{boundary}--\r\n".encode()
    assert head.startswith(f"--{boundary}\r\n".encode())
    assert arrived.body_sha256 == hashlib.sha256(head + UPLOAD + tail).hexdigest()
    assert json.loads(report)["body_sha256"] == arrived.body_sha256


async def test_refusals_reach_the_sdk(client: Any, sdk: Any, hume: Routed) -> None:
    """What the provider answers is what the SDK raises: status, body, Retry-After; asked once."""
    errors = pytest.importorskip("hume.core.api_error")
    limit = json_answer(429, {"message": "slow down"}, ("Retry-After", "7"))
    hume.provider.answer_next(limit)
    with pytest.raises(errors.ApiError) as raised:
        await client.empathic_voice.configs.list_configs(request_options={"max_retries": 0})
    assert (raised.value.status_code, raised.value.body) == (429, {"message": "slow down"})
    assert raised.value.headers["retry-after"] == "7"
    hume.arrived("GET /v0/evi/configs?page_number=0")


async def test_a_chat(client: Any, sdk: Any, hume: Routed) -> None:
    """EVI's socket: the query arrives byte for byte, events pass both ways, then the close."""
    voice = sdk.empathic_voice
    result = voice.ToolResponseMessage(tool_call_id="dummy", content="x" * 300_000)
    async with asyncio.timeout(10):
        async with client.empathic_voice.chat.connect(
            config_id="dummy 1&2", session_settings={"custom_session_id": "über 1"}
        ) as socket:
            greeting = await socket.recv()
            assert greeting.type == "chat_metadata"
            await socket.send_publish(voice.AudioInput(data="A" * 300_000))
            await hume.provider.changes.until(
                lambda: len(hume.provider.requests[0].messages) == 1, "the event arrived"
            )
        assert await hume.provider.ended(0) == "complete"
        async with client.empathic_voice.chat.connect() as socket:
            assert (await socket.recv()).type == "chat_metadata"
            await socket.send_publish(result)
            assert await socket.recv() == result
        assert await hume.provider.ended(1) == "complete"
    arrived = hume.arrived(
        "GET /v0/evi/chat?config_id=dummy+1%262"
        "&session_settings%5Bcustom_session_id%5D=%C3%BCber+1&api_key={credential}",
        "GET /v0/evi/chat?api_key={credential}",
    )
    assert json.loads(arrived[0].messages[0]) == {"type": "audio_input", "data": "A" * 300_000}
    assert [one.close_code for one in arrived] == [1000, 1000]


async def test_a_chat_of_the_synchronous_client(blocking: Any, sdk: Any, hume: Routed) -> None:
    """The synchronous socket works too, and a key that it was told to put into the query goes."""
    voice = sdk.empathic_voice
    result = voice.ToolResponseMessage(tool_call_id="dummy", content="done")

    def chat() -> tuple[str, Any]:
        with blocking.empathic_voice.chat.connect(api_key=DUMMY, config_id="dummy") as socket:
            greeting = socket.recv()
            socket.send_publish(result)
            return greeting.type, socket.recv()

    assert await asyncio.to_thread(chat) == ("chat_metadata", result)
    assert await hume.provider.ended(0) == "complete"
    hume.arrived("GET /v0/evi/chat?config_id=dummy&api_key={credential}")


async def test_speech_over_a_socket(client: Any, sdk: Any, hume: Routed) -> None:
    """The TTS socket carries text out, binary audio of any size back, and the provider's close."""
    exceptions = pytest.importorskip("websockets.exceptions")
    text = sdk.tts.PublishTts(text="Hello, dummy.", flush=True)
    async with (
        asyncio.timeout(10),
        client.tts.stream_input.connect(version="2", format_type="mp3") as socket,
    ):
        await socket.send_publish(text)
        await socket.send_publish(sdk.tts.PublishTts(emulator="binary", bytes=900_000))
        with pytest.raises(pydantic.ValidationError):
            await socket.recv()  # its own text, which the emulator echoes and Hume never sends
        assert await socket.recv() == b"\xb1" * 900_000
        order = sdk.tts.PublishTts(emulator="close", code=4321, reason="dummy is over")
        await socket.send_publish(order)
        with pytest.raises(exceptions.ConnectionClosedError) as raised:
            await socket.recv()
    assert (raised.value.rcvd.code, raised.value.rcvd.reason) == (4321, "dummy is over")
    (arrived,) = hume.arrived(
        "GET /v0/tts/stream/input?format_type=mp3&version=2&api_key={credential}"
    )
    assert json.loads(arrived.messages[0]) == {"text": "Hello, dummy.", "flush": True}


async def test_a_refused_handshake_is_the_providers_answer(client: Any, hume: Routed) -> None:
    """A 401 to the handshake reaches the SDK as that status, not as a socket that closes."""
    errors = pytest.importorskip("hume.core.api_error")
    hume.provider.answer_next(json_answer(401, {"fault": {"faultstring": "Invalid ApiKey"}}))
    with pytest.raises(errors.ApiError) as raised:
        async with client.empathic_voice.chat.connect():
            pass
    assert raised.value.status_code == 401
    assert raised.value.body == "Websocket initialized with invalid credentials."
    hume.arrived("GET /v0/evi/chat?api_key={credential}")
