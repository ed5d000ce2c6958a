"""Inworld through keyrelay: Basic or session tokens, SDP for WebRTC, tokens that browsers offer."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import InvalidStatus
from yarl import URL

from tests.emulators import INWORLD_PORTAL, InworldEmulator, Recorded, json_answer
from tests.support.keyrelay import Running, both_loops, client, events, preset_keyrelay

pytestmark = both_loops

DUMMY_PORTAL = base64.b64encode(b"client-dummy-key:client-dummy-secret").decode()
BASIC = ("Authorization", f"Basic {DUMMY_PORTAL}")
BEARER = ("Authorization", "Bearer client-dummy-jwt")
REALTIME = "/inworld/api/v1/realtime/session?key=session-7&protocol=realtime"
OFFER = b"v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"


@pytest.fixture
async def inworld(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[InworldEmulator]:
    monkeypatch.setenv("INWORLD_API_KEY", INWORLD_PORTAL)
    async with InworldEmulator(accepts=["basic", "session"]) as emulator:
        yield emulator


@pytest.fixture(params=["shipped", "key-only"])
def pinned(request: pytest.FixtureRequest) -> dict[str, str]:
    """The preset as it ships, and the route that says to use the key and no tokens."""
    return {} if request.param == "shipped" else {"strategy": "api_key"}


@pytest.fixture
async def running(inworld: InworldEmulator, pinned: dict[str, str]) -> AsyncIterator[Running]:
    route = {"provider": "inworld", "upstream": inworld.origin, **pinned}
    async with preset_keyrelay({"inworld": route}) as running:
        yield running


def asked(inworld: InworldEmulator) -> list[Recorded]:
    """What clients asked for: all but the calls by which keyrelay mints."""
    return [one for one in inworld.requests if not one.path.endswith("/token:generate")]


@pytest.mark.parametrize(
    "headers",
    [[], [BASIC], [BEARER], [BASIC, BEARER], [("Proxy-Authorization", "Basic client-dummy")]],
    ids=["none", "basic", "jwt", "both", "proxy"],
)
async def test_rest_takes_whatever_key_a_client_insists_on(
    inworld: InworldEmulator, running: Running, headers: list[tuple[str, str]]
) -> None:
    """Inworld sees Basic with the portal's string, once; repeated parameters stay in order."""
    target = "/voices/v1/voices?languages=en&languages=de-DE&filter=a%20%3D%20%22b%22"
    url = URL(f"{running.url}/inworld{target}", encoded=True)
    async with client() as http, http.get(url, headers=headers) as answer:
        assert answer.status == 200
        assert await answer.json() == {"voices": []}
    assert inworld.faults == []
    (recorded,) = asked(inworld)
    assert recorded.target == target
    assert recorded.values("Authorization") == [f"Basic {INWORLD_PORTAL}"]


async def test_speech_arrives_line_by_line(inworld: InworldEmulator, running: Running) -> None:
    """Each line of voice:stream is there before the next may be sent; the colon in the path too."""
    inworld.pieces.hold()
    url = URL(f"{running.url}/inworld/tts/v1/voice:stream", encoded=True)
    async with client() as http, http.post(url, json={}, headers=[BASIC]) as answer:
        assert answer.status == 200
        for piece in inworld.chunks:
            inworld.pieces.release()
            async with asyncio.timeout(5):
                line = json.loads(await answer.content.readline())
            assert base64.b64decode(line["result"]["audioContent"]) == piece
        assert await answer.content.read() == b""
    assert asked(inworld)[0].target == "/tts/v1/voice:stream"
    assert inworld.faults == []


async def test_the_router_s_events_arrive_one_by_one(
    inworld: InworldEmulator, running: Running
) -> None:
    """The OpenAI-compatible router: each delta before the next, then [DONE]."""
    inworld.pieces.hold()
    url = f"{running.url}/inworld/v1/chat/completions"
    request = {"model": "dummy", "stream": True, "messages": []}
    async with client() as http, http.post(url, json=request, headers=[BEARER]) as answer:
        assert answer.content_type == "text/event-stream"
        seen = await events(answer, inworld.pieces)
    assert len(seen) == 5
    assert inworld.faults == []


async def test_webrtc_offers_and_answers_are_exchanged(
    inworld: InworldEmulator, running: Running
) -> None:
    """ICE servers, then an SDP offer as text and as JSON: each gets the answer to this offer."""
    base = f"{running.url}/inworld/v1/realtime"
    async with client() as http:
        async with http.get(f"{base}/ice-servers", headers=[BEARER]) as answer:
            assert "ice_servers" in await answer.json()
        sdp = {"Content-Type": "application/sdp"}
        async with http.post(f"{base}/calls", data=OFFER, headers=sdp) as answer:
            assert (answer.status, answer.content_type) == (200, "application/sdp")
            text = await answer.read()
            assert text.startswith(b"v=0\r\no=- ")
        async with http.post(f"{base}/calls", json={"sdp": OFFER.decode()}) as answer:
            told = await answer.json()
            assert told["sdp"].encode() == text
            assert told["id"] == "dummy-call"
    assert asked(inworld)[1].body == OFFER
    assert inworld.faults == []


@pytest.mark.parametrize(
    ("headers", "offered", "seen", "selected"),
    [
        ([], [], [], None),
        ([BASIC], [], [], None),
        ([], ["bearer_client-dummy-token"], [], "bearer_client-dummy-token"),
        ([], ["realtime", "bearer_client-dummy-token"], ["realtime"], "realtime"),
        ([BEARER], ["bearer_client-dummy-token", "a", "b"], ["a", "b"], "a"),
    ],
    ids=["none", "basic", "browser", "second", "first"],
)
async def test_realtime_sockets_lose_the_token_and_keep_a_subprotocol(
    inworld: InworldEmulator,
    running: Running,
    pinned: dict[str, str],
    headers: list[tuple[str, str]],
    offered: list[str],
    seen: list[str],
    selected: str | None,
) -> None:
    """No token of a client crosses, in no place; the client still gets one that it offered.

    ``key`` in the query is a session's name, which passes.
    """
    async with running.websocket(REALTIME, headers, offered) as socket:
        assert socket.subprotocol == selected
        created = json.loads(await socket.recv())
        assert created["session"]["id"] == "session-7"
        await socket.send(b"\x00" * 1000)
        assert await socket.recv() == b"\x00" * 1000
    (recorded,) = asked(inworld)
    assert inworld.faults == []
    assert recorded.target == REALTIME.removeprefix("/inworld")
    credential = f"Basic {INWORLD_PORTAL}" if pinned else f"Bearer {inworld.fetched[0].value}"
    assert recorded.values("Authorization") == [credential]
    assert len(inworld.fetched) == (0 if pinned else 1)
    assert recorded.value("Sec-WebSocket-Protocol") == ", ".join(seen)


@pytest.mark.parametrize(
    "path", ["/tts/v1/voice:streamBidirectional", "/stt/v1/transcribe:streamBidirectional"]
)
async def test_speech_sockets_are_authenticated(
    inworld: InworldEmulator, running: Running, path: str
) -> None:
    """These sockets say 101 even to strangers and refuse inside; ours are let in."""
    async with running.websocket(f"/inworld{path}", [BEARER]) as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
    assert inworld.faults == []


async def test_a_refusal_inside_a_socket_passes_as_it_is(
    inworld: InworldEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a wrong key Inworld stays silent after its 101; nothing is made up in between."""
    monkeypatch.setenv("INWORLD_API_KEY", "ZHVtbXktd3Jvbmc=")
    route = {"provider": "inworld", "upstream": inworld.origin, "strategy": "api_key"}
    async with preset_keyrelay({"inworld": route}) as running:
        with pytest.raises(InvalidStatus) as refused:
            await running.websocket(REALTIME).__aenter__()
        assert refused.value.response.status_code == 403
        told = json.loads(refused.value.response.body or b"")
        assert told["message"] == 'API key does not exist or was deleted: "ZHVt***"'
        async with running.websocket("/inworld/tts/v1/voice:streamBidirectional") as socket:
            await socket.send("hello")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(socket.recv(), 0.05)


@pytest.mark.parametrize(
    "path",
    [
        "/auth/v1/tokens",
        "/auth/v1/tokens/token:generate",
        "/auth/v1/TOKENS/",
        "/auth/v1/token%73",
        "/auth//v1/tokens",
        "/v1/sessionTokens/token:generate",
        "/v1/sessionTokens/token%3Agenerate",
        "/v1/%73essionTokens/token:generate",
    ],
)
async def test_no_client_mints_a_token_for_itself(
    inworld: InworldEmulator, running: Running, path: str
) -> None:
    """With a Basic key attached any client could obtain tokens; those endpoints are denied."""
    url = URL(f"{running.url}/inworld{path}", encoded=True)
    async with client() as http, http.post(url, json={"single_use": True}) as answer:
        assert answer.status == 403
        assert "The request matches deny " in await answer.text()
    # At most the one call that keyrelay makes for itself, and not by way of the route.
    assert inworld.faults == []
    assert len(inworld.requests) == len(inworld.fetched) <= 1


async def test_inworld_s_own_refusal_is_not_changed(
    inworld: InworldEmulator, running: Running
) -> None:
    """WWW-Authenticate and the body of a 401 are Inworld's business; SDKs read them."""
    refusal = json_answer(
        401, {"code": 16}, ("WWW-Authenticate", "authentication is required"), ("X-Trace", "1")
    )
    inworld.answer_next(refusal, path="/voices")
    async with client() as http, http.get(f"{running.url}/inworld/voices/v1/voices") as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "authentication is required"
        assert answer.headers["X-Trace"] == "1"
        assert await answer.read() == refusal.body
