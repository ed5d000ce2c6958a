"""Inworld: the key for REST, session tokens for realtime, and keys that can do nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from yarl import URL

from tests.emulators import (
    INWORLD_KEY,
    INWORLD_PORTAL,
    INWORLD_SECRET,
    InworldEmulator,
    Recorded,
    json_answer,
)
from tests.emulators.signature import DOCUMENTED_MINT, SAMPLE_MINT
from tests.support.clock import ManualClock
from tests.support.keyrelay import Running, both_loops, client, preset_keyrelay, until

pytestmark = both_loops

DUMMY = base64.b64encode(b"client-dummy-key:client-dummy-secret").decode()
DUMMIES = [("Authorization", f"Basic {DUMMY}"), ("Cookie", "a=client-dummy-cookie")]
OFFER = b"v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
REALTIME = "/inworld/api/v1/realtime/session?key=session-7&protocol=realtime"
SPEECH = ["/tts/v1/voice:streamBidirectional", "/stt/v1/transcribe:streamBidirectional"]
REST = [
    ("GET", "/voices/v1/voices?filter=a%20b"),
    ("POST", "/tts/v1/voice"),
    ("POST", "/tts/v1/voice:stream"),
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
]
HOURS = 4 * 3600

# A route of one's own, which says ``variant`` and takes the key in its two parts.
SAMPLE = {
    "secrets": {"key": "env:INWORLD_KEY", "secret": "env:INWORLD_SECRET"},
    "auth": [
        {
            "name": "session",
            "paths": ["/v1/realtime/**", "/api/v1/realtime/**", *SPEECH],
            "token": {
                "type": "inworld",
                "key": "{key}",
                "secret": "{secret}",
                "variant": "sample",
                "workspace": "workspaces/dummy",
                "refused": [401, 403],
            },
            "header": "Authorization",
            "value": "Bearer {token}",
        },
        {"name": "api_key", "header": "Authorization", "value": "Basic {api_key}"},
    ],
}


@pytest.fixture(params=["session", "sample"])
def variant(request: pytest.FixtureRequest) -> str:
    """Which call mints: the preset's, or the other one that Inworld has."""
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture
def more(variant: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the route says beside the preset."""
    monkeypatch.setenv("INWORLD_API_KEY", INWORLD_PORTAL)
    if variant == "session":
        return {}
    monkeypatch.setenv("INWORLD_KEY", INWORLD_KEY)
    monkeypatch.setenv("INWORLD_SECRET", INWORLD_SECRET)
    return SAMPLE


class Inworld(InworldEmulator):
    """The emulator, telling keyrelay's own calls from those of clients."""

    @property
    def asked(self) -> list[Recorded]:
        return [one for one in self.requests if not one.path.endswith("/token:generate")]

    @property
    def calls(self) -> list[str]:
        return [one.path for one in self.requests if one.path.endswith("/token:generate")]


@pytest.fixture
async def inworld(clock: ManualClock) -> AsyncIterator[Inworld]:
    async with Inworld(
        accepts=["basic", "session"], lifetime_seconds=HOURS, clock=clock.wall
    ) as emulator:
        yield emulator


@pytest.fixture
async def running(
    inworld: Inworld, clock: ManualClock, more: dict[str, Any]
) -> AsyncIterator[Running]:
    route = {"provider": "inworld", "upstream": inworld.origin, **more}
    async with preset_keyrelay({"inworld": route}, clock=clock) as running:
        await until(lambda: has_token(running))
        yield running


def has_token(running: Running) -> bool:
    return running.app.routes[0].strategies[0].credential.describe().startswith("token ")


async def ask(running: Running, method: str, path: str, **more: Any) -> tuple[int, bytes]:
    url = URL(f"{running.url}/inworld{path}", encoded=True)
    async with client() as http, http.request(method, url, headers=DUMMIES, **more) as answer:
        return answer.status, await answer.read()


async def call(running: Running) -> bytes:
    """WebRTC signalling: an offer, and the answer to it."""
    url = f"{running.url}/inworld/v1/realtime/calls"
    headers = [*DUMMIES, ("Content-Type", "application/sdp")]
    async with client() as http, http.post(url, data=OFFER, headers=headers) as answer:
        assert answer.status == 200
        return await answer.read()


async def realtime(running: Running) -> None:
    async with running.websocket(REALTIME, DUMMIES, ["bearer_client-dummy", "x"]) as socket:
        assert json.loads(await socket.recv())["session"]["id"] == "session-7"
        assert socket.subprotocol == "x"


async def test_what_gets_the_key_and_what_a_token(
    inworld: Inworld, running: Running, variant: str
) -> None:
    """REST the portal's string, realtime and speech sockets a session token, by one call."""
    for method, path in REST:
        assert (await ask(running, method, path))[0] == 200
    assert {one.value("Authorization") for one in inworld.asked} == {f"Basic {INWORLD_PORTAL}"}

    count = len(inworld.asked)
    assert (await ask(running, "GET", "/v1/realtime/ice-servers"))[0] == 200
    assert (await call(running)).startswith(b"v=0\r\n")
    await realtime(running)
    for path in SPEECH:
        async with running.websocket(f"/inworld{path}", DUMMIES) as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
    bearer = f"Bearer {inworld.fetched[0].value}"
    assert [one.values("Authorization") for one in inworld.asked[count:]] == [[bearer]] * 5
    assert inworld.calls == [SAMPLE_MINT if variant == "sample" else DOCUMENTED_MINT]
    assert inworld.faults == []


async def test_the_call_by_which_tokens_are_minted(
    inworld: Inworld, running: Running, variant: str
) -> None:
    """Signed, not with the key as it is; the secret is nowhere in it."""
    recorded = inworld.requests[0]
    assert recorded.value("Authorization").startswith("IW1-HMAC-SHA256 ApiKey=dummy-inworld-key,")
    body = {"key": INWORLD_KEY, "resources": ["workspaces/dummy"]}
    assert recorded.json() == (body if variant == "sample" else {"api_key": INWORLD_KEY})
    whole = recorded.target.encode() + b"".join(map(b"".join, recorded.headers)) + recorded.body
    assert INWORLD_SECRET.encode() not in whole
    assert INWORLD_PORTAL.encode() not in whole


async def test_session_tokens_are_renewed(
    inworld: Inworld, running: Running, clock: ManualClock
) -> None:
    """Five minutes before the moment that ``expirationTime`` names, and signed anew."""
    await clock.advance(HOURS - 361)
    assert len(inworld.calls) == 1
    await clock.advance(62)
    await inworld.minting.sent(2)
    await clock.advance(HOURS - 600)
    await realtime(running)
    assert inworld.asked[0].value("Authorization") == f"Bearer {inworld.fetched[1].value}"
    first, second = (one.value("Authorization") for one in inworld.requests[:2])
    assert first != second
    assert inworld.faults == []


async def test_a_403_is_a_refusal(inworld: Inworld, running: Running) -> None:
    """Inworld says 403 to tokens that it does not know: one call, and the request once more."""
    inworld.revoke()
    await realtime(running)
    assert [one.status for one in inworld.asked] == [403, 101]
    assert len(inworld.calls) == 2
    sent = [one.value("Authorization") for one in inworld.asked]
    assert sent == [f"Bearer {one.value}" for one in inworld.fetched]


async def test_an_offer_that_is_refused_is_made_again(inworld: Inworld, running: Running) -> None:
    """Also where the request has a body."""
    inworld.revoke()
    assert (await call(running)).startswith(b"v=0\r\n")
    assert [(one.status, one.path) for one in inworld.asked] == [
        (403, "/v1/realtime/calls"),
        (200, "/v1/realtime/calls"),
    ]
    assert inworld.asked[1].body == OFFER
    assert len(inworld.calls) == 2


@pytest.mark.parametrize("variant", ["session"], indirect=True)
async def test_a_403_to_the_key_is_inworld_s(inworld: Inworld, running: Running) -> None:
    """A key is not mended by asking again: the answer passes as it is, once."""
    inworld.answer_next(json_answer(403, {"code": 7, "message": "no"}), path="/voices")
    status, body = await ask(running, "GET", "/voices/v1/voices")
    assert (status, json.loads(body)) == (403, {"code": 7, "message": "no"})
    assert (len(inworld.asked), len(inworld.calls)) == (1, 1)


# --- keys for realtime only -------------------------------------------------------------------


@pytest.fixture
async def strict(clock: ManualClock) -> AsyncIterator[Inworld]:
    """As Inworld is to a key that may mint session tokens and nothing else."""
    async with Inworld(accepts=["session"], lifetime_seconds=HOURS, clock=clock.wall) as emulator:
        yield emulator


async def test_keys_for_realtime_only(
    strict: Inworld, clock: ManualClock, more: dict[str, Any]
) -> None:
    """``strategy: session``: realtime is served, all else is refused here with the reason."""
    route = {"provider": "inworld", "upstream": strict.origin, "strategy": "session", **more}
    async with preset_keyrelay({"inworld": route}, clock=clock) as running:
        assert (await ask(running, "GET", "/v1/realtime/ice-servers"))[0] == 200
        await call(running)
        await realtime(running)
        served = len(strict.requests)
        for method, path in REST:
            status, body = await ask(running, method, path)
            problem = json.loads(body)
            assert (status, problem["type"]) == (403, "urn:keyrelay:problem:no-strategy")
            assert problem["detail"].endswith("it uses session.")
            assert "strategy" in problem["advice"]
        with pytest.raises(InvalidStatus) as refused:
            await running.websocket("/inworld/llm/v1/socket").__aenter__()
        assert refused.value.response.status_code == 403
        assert json.loads(refused.value.response.body or b"")["detail"].endswith("uses session.")
    assert len(strict.requests) == served
    assert (len(strict.calls), strict.faults) == (1, [])
