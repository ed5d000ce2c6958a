"""OpenAI's Python SDK, which people use for every provider whose API looks like OpenAI's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import MISSING, PATIENCE_SECONDS
from tests.clients.realtime import REALTIME_KEY, RealtimeEmulator
from tests.clients.routed import DUMMY, Routed, routed
from tests.emulators import AIGNE_KEY, INWORLD_PORTAL, AigneEmulator, InworldEmulator, json_answer
from tests.emulators.carriers import Carrier
from tests.support.keyrelay import both_loops

pytestmark = [
    pytest.mark.clients,
    both_loops,
    # How the SDK uses the WebSocket library; its maker's affair.
    pytest.mark.filterwarnings(
        r"ignore:connect\(\) must be used as a context manager:DeprecationWarning"
    ),
]

MESSAGES = [{"role": "user", "content": "Hello"}]
QUESTION = {"model": "dummy-model", "messages": MESSAGES}


@pytest.fixture(scope="module")
def sdk() -> Any:
    return pytest.importorskip("openai", reason=MISSING)


@pytest.fixture
async def inworld(tmp_path: Path) -> AsyncIterator[Routed]:
    header = Carrier("header", "authorization", f"Basic {INWORLD_PORTAL}")
    # The router takes the key alone; without a session token every call is a client's.
    said = {"provider": "inworld", "strategy": "api_key"}
    async with routed(
        "inworld",
        InworldEmulator(accepts=("basic",)),
        tmp_path,
        http=header,
        key=INWORLD_PORTAL,
        route=said,
    ) as one:
        yield one


@pytest.fixture
async def aigne(tmp_path: Path) -> AsyncIterator[Routed]:
    header = Carrier("header", "authorization", f"Bearer {AIGNE_KEY}")
    async with routed("aigne-hub", AigneEmulator(), tmp_path, http=header, key=AIGNE_KEY) as one:
        yield one


@pytest.fixture
async def realtime(tmp_path: Path) -> AsyncIterator[Routed]:
    """A route without a preset, as a user writes one for an API that has none."""
    header = Carrier("header", "authorization", f"Bearer {REALTIME_KEY}")
    said = {"auth": [{"header": "Authorization", "value": "Bearer {api_key}"}]}
    async with routed(
        "openai", RealtimeEmulator(), tmp_path, http=header, key=REALTIME_KEY, route=said
    ) as one:
        yield one


def asynchronous(sdk: Any, url: str) -> Any:
    return sdk.AsyncOpenAI(api_key=DUMMY, base_url=url, timeout=PATIENCE_SECONDS)


def synchronous(sdk: Any, url: str) -> Any:
    """Its calls block, so that they run in a thread beside the loop of keyrelay."""
    return sdk.OpenAI(api_key=DUMMY, base_url=url, timeout=PATIENCE_SECONDS)


async def test_a_completion(sdk: Any, inworld: Routed) -> None:
    """Answers and lists come back, and what the SDK sends beside its key arrives."""
    async with asynchronous(sdk, f"{inworld.url}/v1") as client:
        completion = await client.chat.completions.create(**QUESTION)
        assert completion.choices[0].message.content == "Hello, this is a dummy."
        assert [model async for model in client.models.list()] == []
    arrived = inworld.arrived("POST /v1/chat/completions", "GET /v1/models")
    assert arrived[0].json() == QUESTION
    assert arrived[0].value("X-Stainless-Lang") == "python"
    assert arrived[0].value("Accept-Encoding")


async def test_a_completion_synchronously(sdk: Any, inworld: Routed) -> None:
    """The synchronous client's calls and streams work as well, over one connection."""

    def calls() -> tuple[str, str]:
        with synchronous(sdk, f"{inworld.url}/v1") as client:
            whole = client.chat.completions.create(**QUESTION)
            parts = client.chat.completions.create(stream=True, **QUESTION)
            streamed = "".join(part.choices[0].delta.content for part in parts)
            return whole.choices[0].message.content, streamed

    assert await asyncio.to_thread(calls) == ("Hello, this is a dummy.",) * 2
    inworld.arrived(*["POST /v1/chat/completions"] * 2)
    assert inworld.provider.connections == 1


async def test_events_come_as_they_are_made(sdk: Any, inworld: Routed) -> None:
    """The SDK has the first event while the provider holds the second back."""
    inworld.provider.pieces.hold(passing=1)
    async with asyncio.timeout(10), asynchronous(sdk, f"{inworld.url}/v1") as client:
        stream = await client.chat.completions.create(stream=True, **QUESTION)
        assert (await anext(stream)).choices[0].delta.content == "Hello"
        await inworld.provider.pieces.reached()
        inworld.provider.pieces.open()
        rest = [event.choices[0].delta.content async for event in stream]
    assert rest == [", this ", "is a ", "dummy."]
    inworld.arrived("POST /v1/chat/completions")


@asynccontextmanager
async def begun(sdk: Any, inworld: Routed) -> AsyncIterator[Any]:
    """The SDK's stream after its first event; the provider holds the second back."""
    inworld.provider.pieces.hold(passing=1)
    async with asyncio.timeout(10), asynchronous(sdk, f"{inworld.url}/v1") as client:
        stream = await client.chat.completions.create(stream=True, **QUESTION)
        await anext(stream)
        yield stream


async def test_a_stream_that_is_left_ends_at_the_provider(sdk: Any, inworld: Routed) -> None:
    """Closing the SDK's stream after its first event ends the provider's request."""
    async with begun(sdk, inworld) as stream:
        await stream.close()
        assert await inworld.provider.ended(0) == "client left"


async def test_a_stream_that_breaks_is_an_error(sdk: Any, inworld: Routed) -> None:
    """A provider that breaks off in the middle is no end of an answer: the SDK raises."""
    async with begun(sdk, inworld) as stream:
        inworld.provider.pieces.cut()
        with pytest.raises(sdk.APIConnectionError):
            await anext(stream)


async def test_a_compressed_answer_is_left_as_it_is(sdk: Any, inworld: Routed) -> None:
    """The SDK asks for compression, the provider compresses, the SDK reads it."""
    answer = json_answer(200, {"object": "list", "data": [{"id": "dummy-model"}]}).gzipped()
    inworld.provider.answer_next(answer)
    async with asynchronous(sdk, f"{inworld.url}/v1") as client:
        raw = await client.models.with_raw_response.list()
    assert raw.headers["content-encoding"] == "gzip"
    assert [model.id for model in raw.parse().data] == ["dummy-model"]
    assert "gzip" in inworld.arrived("GET /v1/models")[0].value("Accept-Encoding")


async def test_retries_are_the_sdks_own(sdk: Any, inworld: Routed) -> None:
    """A 429 with its Retry-After reaches the SDK, which asks again; keyrelay does not."""
    limit = json_answer(429, {"error": {"message": "slow down"}}, ("Retry-After-Ms", "1"))
    inworld.provider.answer_next(limit, times=2)
    async with asynchronous(sdk, f"{inworld.url}/v1").with_options(max_retries=1) as client:
        with pytest.raises(sdk.RateLimitError) as raised:
            await client.chat.completions.create(**QUESTION)
    assert raised.value.response.headers["retry-after-ms"] == "1"
    arrived = inworld.arrived(*["POST /v1/chat/completions"] * 2)
    assert [one.value("X-Stainless-Retry-Count") for one in arrived] == ["0", "1"]


async def test_keyrelays_own_refusal_is_readable(sdk: Any, inworld: Routed) -> None:
    """What keyrelay itself refuses is the SDK's error of that status, with keyrelay's words."""
    async with asynchronous(sdk, f"{inworld.url}/auth/v1") as client:
        with pytest.raises(sdk.PermissionDeniedError) as raised:
            await client.post("/tokens", cast_to=object, body={"single_use": True})
    assert raised.value.response.headers["content-type"] == "application/problem+json"
    assert raised.value.status_code == 403
    assert (raised.value.code, raised.value.type) == ("path-not-allowed", "invalid_request_error")
    assert "keyrelay: " in raised.value.message
    assert inworld.provider.connections == 0


@pytest.mark.parametrize("own_listener", [False, True])
async def test_a_hub_at_both_of_its_addresses(
    sdk: Any, aigne: Routed, *, own_listener: bool
) -> None:
    """AIGNE's hub answers below the route's path and at the address of its own."""
    base = aigne.own_url if own_listener else aigne.url
    async with asynchronous(sdk, f"{base}/app/api/v2") as client:
        raw = await client.chat.completions.with_raw_response.create(**QUESTION)
    assert raw.status_code == 200
    assert json.loads(raw.text) == {"role": "assistant", "content": "Hello, this is a dummy."}
    (arrived,) = aigne.arrived("POST /app/api/v2/chat/completions")
    assert arrived.json() == QUESTION


async def test_a_hubs_events(sdk: Any, aigne: Routed) -> None:
    """AIGNE's events are not quite OpenAI's; they come through as they are, one by one."""
    aigne.provider.pieces.hold(passing=1)
    async with (
        asyncio.timeout(10),
        asynchronous(sdk, f"{aigne.own_url}/app/api/v2") as client,
        client.chat.completions.with_streaming_response.create(
            stream=True, extra_headers={"Accept": "text/event-stream"}, **QUESTION
        ) as answer,
    ):
        lines = answer.iter_lines()
        first = await anext(lines)
        assert first == 'data: {"delta":{"role":"assistant","content":"Hello"}}'
        await aigne.provider.pieces.reached()
        aigne.provider.pieces.open()
        rest = [line async for line in lines if line]
    assert len(rest) == 8
    assert rest[-1] == "data: [DONE]"
    aigne.arrived("POST /app/api/v2/chat/completions")


async def test_a_realtime_socket(sdk: Any, realtime: Routed) -> None:
    """The SDK's realtime connection works on the route's base URL alone, with any size."""
    event = {"type": "input_audio_buffer.append", "audio": "A" * 2_000_000}
    async with asyncio.timeout(10), asynchronous(sdk, f"{realtime.url}/v1") as client:
        async with client.realtime.connect(model="dummy model") as connection:
            assert (await connection.recv()).type == "session.created"
            await connection.send(event)
            assert json.loads(await connection.recv_bytes()) == event
        assert await realtime.provider.ended(0) == "complete"
    (arrived,) = realtime.arrived("GET /v1/realtime?model=dummy+model")
    assert arrived.close_code == 1000


async def test_a_realtime_socket_of_the_synchronous_client(sdk: Any, realtime: Routed) -> None:
    """The synchronous realtime connection works as well."""

    def talk() -> tuple[str, Any]:
        with (
            synchronous(sdk, f"{realtime.url}/v1") as client,
            client.realtime.connect(model="dummy") as connection,
        ):
            greeting = connection.recv()
            connection.send({"type": "response.create"})
            return greeting.type, json.loads(connection.recv_bytes())

    assert await asyncio.to_thread(talk) == ("session.created", {"type": "response.create"})
    assert await realtime.provider.ended(0) == "complete"
    realtime.arrived("GET /v1/realtime?model=dummy")


async def test_a_refused_realtime_socket(sdk: Any, realtime: Routed) -> None:
    """The provider's refusal of the handshake is what the SDK raises."""
    exceptions = pytest.importorskip("websockets.exceptions")
    realtime.provider.answer_next(json_answer(429, {"error": {"message": "slow down"}}))
    async with asynchronous(sdk, f"{realtime.url}/v1") as client:
        with pytest.raises(exceptions.InvalidStatus) as raised:
            await client.realtime.connect(model="dummy").enter()
    assert raised.value.response.status_code == 429
    realtime.arrived("GET /v1/realtime?model=dummy")
