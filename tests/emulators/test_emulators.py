"""The emulated providers themselves: what they record, what they refuse, what a test can steer."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict
from yarl import URL

from tests.emulators import (
    AIGNE_KEY,
    CAMB_KEY,
    HUME_KEY,
    HUME_SECRET,
    INWORLD_KEY,
    INWORLD_PORTAL,
    INWORLD_SECRET,
    AigneEmulator,
    CambEmulator,
    CambRealtimeEmulator,
    Emulator,
    HumeEmulator,
    InworldEmulator,
    json_answer,
    redirect,
)
from tests.support.certificates import Authority

HUME = {"X-Hume-Api-Key": HUME_KEY}
AIGNE = {"Authorization": f"Bearer {AIGNE_KEY}"}
CAMB = {"x-api-key": CAMB_KEY}
INWORLD = {"Authorization": f"Basic {INWORLD_PORTAL}"}
SPEECH = "/v0/tts/stream/file"
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
}
OFFER = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session


@asynccontextmanager
async def calling(
    emulator: Emulator,
    client: aiohttp.ClientSession,
    method: str,
    target: str,
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    body: bytes | None = None,
) -> AsyncIterator[aiohttp.ClientResponse]:
    """One request whose target goes out exactly as written."""
    url = URL(emulator.origin + target, encoded=True)
    pairs = CIMultiDict(headers)
    async with client.request(
        method, url, headers=pairs, data=body, allow_redirects=False
    ) as answer:
        yield answer


async def status(
    emulator: Emulator, client: aiohttp.ClientSession, method: str, target: str, *more: Any
) -> int:
    """The status of one request, whose headers and body may be given as for ``calling``."""
    async with calling(emulator, client, method, target, *more) as answer:
        return answer.status


# --- recording --------------------------------------------------------------------------------


async def test_a_request_is_recorded_byte_for_byte(client: aiohttp.ClientSession) -> None:
    """Target, header order and spelling, and the body are there as they came."""
    target = "/v0/x%2Fy/a:b?q=1+2&q=%20&&e%5B0%5D=%C3%A9"
    headers = [("X-b", "2"), ("x-A", "1"), ("X-Hume-Api-Key", HUME_KEY), ("X-b", "3")]
    body = bytes(range(256)) * 1000
    async with HumeEmulator() as hume:
        assert hume.connections == 0
        assert await status(hume, client, "PUT", target, headers, body) == 200
        recorded = hume.requests[0]
        assert recorded.target == target
        assert recorded.query == "q=1+2&q=%20&&e%5B0%5D=%C3%A9"
        ours = [pair for pair in recorded.headers if pair[0].lower().startswith(b"x-")]
        assert ours == [(name.encode(), value.encode()) for name, value in headers]
        assert recorded.body == body[: 64 * 1024]
        assert recorded.body_length == len(body)
        assert recorded.body_sha256 == hashlib.sha256(body).hexdigest()
        assert (recorded.status, await hume.ended(0)) == (200, "complete")
        assert (hume.faults, hume.connections, hume.open) == ([], 1, 1)
        assert recorded.value("X-B") == "2, 3"


async def test_a_wrong_host_is_a_fault(client: aiohttp.ClientSession) -> None:
    """A Host that is not the provider's own is refused, unless the test said it is right."""
    async with HumeEmulator(hosts=["api.example"]) as hume:
        headers = {**HUME, "Host": "127.0.0.1:1"}
        assert await status(hume, client, "GET", "/v0/x", headers) == 421
        assert "Host" in hume.faults.pop()
        assert await status(hume, client, "GET", "/v0/x", {**HUME, "Host": "api.example"}) == 200


async def test_tls_is_served_and_failed_handshakes_count(
    client: aiohttp.ClientSession, authority: Authority
) -> None:
    """With a context the origin is https; a client that distrusts it still has connected."""
    trusting = ssl.create_default_context(cafile=authority.file)
    async with CambEmulator(ssl_context=authority.server("127.0.0.1")) as camb:
        assert camb.origin.startswith("https://")
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await client.get(f"{camb.origin}/apis/x", headers=CAMB)
        assert (camb.connections, camb.requests) == (1, [])
        async with client.get(f"{camb.origin}/apis/x", headers=CAMB, ssl=trusting) as answer:
            assert answer.status == 200
        assert camb.connections == 2


# --- strictness -------------------------------------------------------------------------------

HUME_FAULT = {"fault": {"faultstring": "Invalid ApiKey"}}
UNAUTHENTICATED = {"error": "User not authenticated"}
CAMB_REFUSAL = {"error": "Invalid API key", "status": 401}
DUMMY_BASIC = base64.b64encode(b"client-dummy:x").decode()


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/v0/x", []),
        ("/v0/x", [("X-Hume-Api-Key", "dummy-wrong")]),
        ("/v0/x", [("X-Hume-Api-Key", HUME_KEY)] * 2),
        ("/v0/x", [*HUME.items(), ("X_Hume_Api_Key", HUME_KEY)]),
        ("/v0/x", [*HUME.items(), ("Authorization", "Bearer other")]),
        ("/v0/x", [*HUME.items(), ("api-key", "other")]),
        ("/v0/x", [*HUME.items(), ("Cookie", "a=b")]),
        ("/v0/x", [*HUME.items(), ("X-Anything", "my client-dummy key")]),
        ("/v0/x", [*HUME.items(), ("X-Anything", f"Basic {DUMMY_BASIC}")]),
        (f"/v0/x?api_key={HUME_KEY}", []),
        ("/v0/x?api_key=other", HUME.items()),
        ("/v0/x?a=b&%61pi_key=other", HUME.items()),
        ("/v0/x?apiKey=other", HUME.items()),
        ("/v0/x?accessToken=other", HUME.items()),
        ("/v0/x?anything=client%2Ddummy", HUME.items()),
        ("/v0/client-dummy", HUME.items()),
        ("/v0/x", [("Authorization", f"Bearer {HUME_KEY}")]),
    ],
)
async def test_hume_takes_one_key_in_its_header(
    client: aiohttp.ClientSession, target: str, headers: list[tuple[str, str]]
) -> None:
    """Anything but exactly one right key, and nothing of the client's, is a fault."""
    async with HumeEmulator() as hume:
        async with calling(hume, client, "GET", target, list(headers)) as answer:
            assert answer.status == 401
            assert await answer.json() == HUME_FAULT
        assert len(hume.faults) == 1


@pytest.mark.parametrize(
    ("target", "headers", "expected"),
    [
        (f"/v0/evi/chat?api_key={HUME_KEY}", {}, 101),
        ("/v0/evi/chat", HUME, 401),
        (f"/v0/evi/chat?api_key={HUME_KEY}", HUME, 401),
        (f"/v0/evi/chat?api_key={HUME_KEY}&apiKey=other", {}, 401),
        (f"/v0/evi/chat?apiKey={HUME_KEY}", {}, 401),
        (f"/v0/evi/chat?api_key={HUME_KEY}", {"Sec-WebSocket-Protocol": "bearer_x"}, 401),
        ("/v1/expression/run", HUME, 101),
        (f"/v1/expression/run?api_key={HUME_KEY}", {}, 401),
        (f"/v0/nowhere?api_key={HUME_KEY}", {}, 404),
    ],
)
async def test_hume_sockets_take_the_key_in_the_query(
    client: aiohttp.ClientSession, target: str, headers: dict[str, str], expected: int
) -> None:
    """On api.hume.ai a socket's key is in the query alone; on the newer host in the header."""
    async with HumeEmulator() as hume:
        assert await status(hume, client, "GET", target, HANDSHAKE | headers) == expected
        assert bool(hume.faults) == (expected != 101)
        assert hume.requests[0].websocket


async def test_humes_newer_host_has_its_own_refusal(client: aiohttp.ClientSession) -> None:
    """The paths of api.cloud.hume.ai answer in that host's words."""
    async with HumeEmulator() as hume, calling(hume, client, "GET", "/v1/expression/x") as answer:
        assert (answer.status, (await answer.json())["message"]) == (401, "Unauthorized")


async def token_source(
    hume: HumeEmulator,
    client: aiohttp.ClientSession,
    body: bytes = b"grant_type=client_credentials",
    secret: str = HUME_SECRET,
) -> tuple[int, dict[str, object]]:
    """Ask for a Hume token."""
    basic = base64.b64encode(f"{HUME_KEY}:{secret}".encode()).decode()
    headers = {
        "Authorization": f"Basic {basic}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    async with calling(hume, client, "POST", "/oauth2-cc/token", headers, body) as answer:
        return answer.status, await answer.json()


async def test_hume_tokens_serve_evi_and_tts_until_they_expire(
    client: aiohttp.ClientSession,
) -> None:
    """A token is taken in its documented places and paths only, and as long as it lives."""
    clock = Clock()
    async with HumeEmulator(strategy="token", lifetime_seconds=100, clock=clock) as hume:
        code, content = await token_source(hume, client)
        assert (code, content["token_type"], content["expires_in"]) == (200, "Bearer", 100)
        token = str(content["access_token"])
        bearer = {"Authorization": f"Bearer {token}"}
        socket = f"/v0/evi/chat?access_token={token}"
        assert await status(hume, client, "GET", "/v0/evi/configs", bearer) == 200
        assert await status(hume, client, "GET", socket, HANDSHAKE) == 101
        assert await status(hume, client, "GET", "/v0/batch/jobs", HUME) == 200
        assert hume.faults == []
        assert await status(hume, client, "GET", "/v0/evi/configs", HUME) == 401
        assert await status(hume, client, "GET", "/v0/batch/jobs", bearer) == 401
        assert await status(hume, client, "GET", "/v0/evi/chat", {**HANDSHAKE, **bearer}) == 401
        clock.now += 100
        assert await status(hume, client, "GET", "/v0/evi/configs", bearer) == 401
        assert hume.faults[-1].endswith("the token has expired")
        await token_source(hume, client)
        bearer = {"Authorization": f"Bearer {hume.fetched[-1].value}"}
        assert await status(hume, client, "GET", "/v0/evi/configs", bearer) == 200
        hume.revoke()
        assert await status(hume, client, "GET", "/v0/evi/configs", bearer) == 401


async def test_humes_strategy_key_refuses_tokens(client: aiohttp.ClientSession) -> None:
    """With strategy="key" a token that Hume gave out is a fault nevertheless."""
    async with HumeEmulator(strategy="key", expires_in_text=True) as hume:
        _, content = await token_source(hume, client)
        assert content["expires_in"] == "1800"
        bearer = {"Authorization": f"Bearer {content['access_token']}"}
        assert await status(hume, client, "GET", "/v0/evi/configs", bearer) == 401


async def test_humes_token_endpoint_is_strict(client: aiohttp.ClientSession) -> None:
    """The wrong secret or another grant gives no token; several requests can be held."""
    async with HumeEmulator() as hume:
        assert (await token_source(hume, client, secret="dummy-wrong"))[0] == 401
        assert (await token_source(hume, client, b"grant_type=password"))[0] == 400
        assert (len(hume.fetched), len(hume.faults)) == (0, 2)
        hume.minting.hold()
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(token_source(hume, client)) for _ in range(2)]
            await hume.minting.reached(2)
            hume.minting.release(2)
        assert [task.result()[0] for task in asking] == [200, 200]
        assert len({token.value for token in hume.fetched}) == 2


@pytest.mark.parametrize(
    ("headers", "query", "body", "expected"),
    [
        (AIGNE, "", b"{}", 200),
        ({}, "", b"{}", 401),
        ({"Authorization": "Bearer dummy-wrong"}, "", b"{}", 401),
        ({"Authorization": f"bearer {AIGNE_KEY}"}, "", b"{}", 401),
        ({"Authorization": AIGNE_KEY}, "", b"{}", 401),
        ({"Cookie": f"login_token={AIGNE_KEY}"}, "", b"{}", 401),
        ({**AIGNE, "Cookie": "login_token=other"}, "", b"{}", 400),
        (AIGNE, f"?access_token={AIGNE_KEY}", b"{}", 400),
        (AIGNE, "", json.dumps({"access_token": AIGNE_KEY}).encode(), 400),
    ],
)
async def test_aigne_takes_one_bearer(
    client: aiohttp.ClientSession,
    headers: dict[str, str],
    query: str,
    body: bytes,
    expected: int,
) -> None:
    """One bearer is right, none is 401, several places are the hub's 400."""
    async with AigneEmulator() as aigne:
        target = f"/app/api/v2/image{query}"
        async with calling(aigne, client, "POST", target, headers, body) as answer:
            assert answer.status == expected
            if expected == 401:
                assert await answer.json() == UNAUTHENTICATED
            elif expected == 400:
                assert await answer.text() == "Access token found in multiple locations"
        assert bool(aigne.faults) == (expected != 200)


async def test_aigne_refuses_an_event_stream_with_200(client: aiohttp.ClientSession) -> None:
    """Where an event stream is preferred the refusal is an event in a 200; a fault as well."""
    async with AigneEmulator() as aigne:
        accept = {"Accept": "text/event-stream"}
        async with calling(aigne, client, "POST", "/app/api/v2/chat", accept, b"{}") as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            assert await answer.read() == b'data: {"error":"User not authenticated"}\n\n'
        assert len(aigne.faults) == 1


async def test_aigne_describes_itself_to_anybody(client: aiohttp.ClientSession) -> None:
    """The blocklet's description is public and names the mount point."""
    async with AigneEmulator(mount_point="/") as aigne:
        for headers in ({}, AIGNE):
            target = "/__blocklet__.js?type=json"
            async with calling(aigne, client, "GET", target, headers) as answer:
                mounts = (await answer.json(content_type=None))["componentMountPoints"]
                assert mounts[0]["mountPoint"] == "/"


async def test_aigne_streams_deltas_of_its_own_form(client: aiohttp.ClientSession) -> None:
    """Completions are whole, plain chunks, or SSE, as body and Accept ask for."""
    plain = {"messages": [{"role": "user", "content": "hi"}]}
    streamed = json.dumps({**plain, "stream": True}).encode()
    sse = {**AIGNE, "Accept": "text/event-stream"}
    target = "/api/v1/chat/completions"
    async with AigneEmulator() as aigne:
        body = json.dumps(plain).encode()
        async with calling(aigne, client, "POST", target, AIGNE, body) as answer:
            whole = (await answer.json())["content"]
        async with calling(aigne, client, "POST", target, AIGNE, streamed) as answer:
            assert await answer.text() == whole
        async with calling(aigne, client, "POST", target, sse, streamed) as answer:
            events = (await answer.text()).strip().split("\n\n")
        assert events[-1] == "data: [DONE]"
        assert json.loads(events[0].removeprefix("data: "))["delta"]["role"] == "assistant"
        async with calling(aigne, client, "POST", "/app/api/v2/chat", sse, b"{}") as answer:
            assert (await answer.text()).startswith('data: {"delta":{"text":{"text":"Hello"}}}\n\n')
        assert await status(aigne, client, "POST", target, AIGNE, b"{}") == 400


@pytest.mark.parametrize(
    ("target", "headers", "expected"),
    [
        ("/apis/x", CAMB, 200),
        ("/apis/x", {}, 401),
        ("/apis/x", {"x-api-key": "dummy-wrong"}, 401),
        ("/apis/x", {**CAMB, "Authorization": "Bearer other"}, 401),
        (f"/apis/x?api_key={CAMB_KEY}", {}, 401),
        ("/apis/live-tts/ws", {**HANDSHAKE, **CAMB}, 101),
        (f"/apis/live-tts/ws?api_key={CAMB_KEY}", HANDSHAKE, 101),
        (f"/apis/live-tts/ws?api_key={CAMB_KEY}", {**HANDSHAKE, **CAMB}, 401),
        ("/apis/transcription/listen", {**HANDSHAKE, **CAMB}, 101),
        (f"/apis/transcription/listen?api_key={CAMB_KEY}", HANDSHAKE, 401),
        ("/elsewhere", CAMB, 404),
    ],
)
async def test_camb_takes_one_key(
    client: aiohttp.ClientSession, target: str, headers: dict[str, str], expected: int
) -> None:
    """The header everywhere; the query for live-tts alone; never both."""
    async with CambEmulator() as camb:
        async with calling(camb, client, "GET", target, headers) as answer:
            assert answer.status == expected
            if expected == 401:
                assert await answer.json() == CAMB_REFUSAL
        assert bool(camb.faults) == (expected >= 400)


@pytest.mark.parametrize(
    ("headers", "key", "is_right"),
    [
        (CAMB, None, True),
        (CAMB, "client-dummy-in-band", True),
        ({}, CAMB_KEY, True),
        ({}, "client-dummy-in-band", False),
        ({}, None, False),
    ],
)
async def test_cambs_realtime_header_wins_over_the_first_message(
    client: aiohttp.ClientSession, headers: dict[str, str], key: str | None, is_right: bool
) -> None:
    """A right header makes the key in session.update unimportant; without one it counts."""
    update = {"type": "session.update", "session": {}}
    if key is not None:
        update["auth"] = {"api_key": key}
    async with CambRealtimeEmulator() as camb:
        url = f"{camb.origin}/v1/realtime?mode=fast"
        async with client.ws_connect(url, headers=headers) as socket:
            await socket.send_json(update)
            greeting = await socket.receive_json()
            assert greeting["type"] == ("session.created" if is_right else "error")
        assert bool(camb.faults) == (not is_right)


async def test_cambs_live_tts_closes_on_a_bad_first_frame(client: aiohttp.ClientSession) -> None:
    """4400 is the documented close code."""
    async with CambEmulator() as camb:
        async with client.ws_connect(f"{camb.origin}/apis/live-tts/ws", headers=CAMB) as socket:
            await socket.send_str("no JSON")
            message = await socket.receive()
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4400)
        async with client.ws_connect(f"{camb.origin}/apis/live-tts/ws", headers=CAMB) as socket:
            await socket.send_str("{}")
            assert await socket.receive_json() == {"type": "ready"}


@pytest.mark.parametrize(
    ("target", "headers", "expected", "words"),
    [
        ("/voices/v1/voices?languages=a&languages=b", INWORLD, 200, "voices"),
        ("/voices/v1/voices", {}, 401, "SESSION_TOKEN_INVALID"),
        ("/voices/v1/voices", {"x-api-key": INWORLD_PORTAL}, 401, "SESSION_TOKEN_INVALID"),
        ("/voices/v1/voices", {"Authorization": "Basic Zm9vYmFy"}, 403, 'deleted: \\"Zm9v***'),
        ("/voices/v1/voices", {"Authorization": f"Bearer {INWORLD_PORTAL}"}, 403, "***"),
        ("/voices/v1/voices", {**INWORLD, "api-key": "x"}, 401, "authentication is required"),
        ("/voices/v1/voices?key=session", INWORLD, 200, "voices"),
        ("/tts/v1/voice:stream", {}, 401, '{"error":{"code":16'),
        ("/v1/chat/completions", {}, 401, "Unauthorized"),
        ("/v1/realtime/ice-servers", INWORLD, 200, "ice_servers"),
        ("/v1/realtime/ice-servers", {"Authorization": f"Bearer {INWORLD_PORTAL}"}, 200, "stun:"),
        ("/elsewhere", INWORLD, 404, "not found"),
    ],
)
async def test_inworld_takes_the_portals_string(
    client: aiohttp.ClientSession, target: str, headers: dict[str, str], expected: int, words: str
) -> None:
    """Basic with the portal's string, as it is; refusals as they were seen at Inworld."""
    async with InworldEmulator() as inworld:
        async with calling(inworld, client, "GET", target, headers) as answer:
            assert answer.status == expected
            assert words in await answer.text()
            assert ("WWW-Authenticate" in answer.headers) == (
                expected == 401 and words != "Unauthorized"
            )
        assert bool(inworld.faults) == (expected != 200)


MINTS = {
    "/auth/v1/tokens/token:generate": (
        "api-engine.inworld.ai",
        "ai.inworld.engine.WorldEngine/GenerateToken",
        {"key": INWORLD_KEY, "resources": []},
    ),
    "/v1/sessionTokens/token:generate": (
        "api.inworld.ai",
        "ai.inworld.engine.v1.SessionTokens/GenerateSessionToken",
        {"api_key": INWORLD_KEY},
    ),
}


def signature(path: str, *, key: str, secret: str, date_time: str, nonce: str) -> str:
    """The IW1 header for a mint, written a second time and apart from the emulator's."""
    host, method, _ = MINTS[path]
    value = b"IW1" + secret.encode()
    for part in [date_time, host, method, nonce, "iw1_request"]:
        value = hmac.new(value, part.encode(), "sha256").digest()
    return (
        f"IW1-HMAC-SHA256 ApiKey={key},DateTime={date_time},Nonce={nonce},Signature={value.hex()}"
    )


@pytest.mark.parametrize(
    ("path", "tail"),
    [
        (
            "/auth/v1/tokens/token:generate",
            "bd1f75b6b8a901b1a46887c5393d08807d8d703515146249a8f3886c4d2323e5",
        ),
        (
            "/v1/sessionTokens/token:generate",
            "07abde29a3d105a69e0b8a56f744a44ac850784630e84a3530c78c3f521556a4",
        ),
    ],
)
async def test_inworlds_mints_verify_the_worked_example(
    client: aiohttp.ClientSession, path: str, tail: str
) -> None:
    """The signature that two other implementations agree on is right here too, once."""
    header = (
        "IW1-HMAC-SHA256 ApiKey=dummy-key,DateTime=20261121120000,"
        f"Nonce=0123456789a,Signature={tail}"
    )
    assert header == signature(
        path,
        key="dummy-key",
        secret="dummy-secret",
        date_time="20261121120000",
        nonce="0123456789a",
    )
    member = "key" if path.startswith("/auth") else "api_key"
    body = json.dumps({member: "dummy-key"}).encode()
    async with InworldEmulator(key="dummy-key", secret="dummy-secret", clock=Clock()) as inworld:
        headers = {"Authorization": header}
        assert await status(inworld, client, "POST", path, headers, body) == 200
        assert await status(inworld, client, "POST", path, headers, body) == 403
        assert inworld.faults[-1].endswith("the nonce was used before")


@pytest.mark.parametrize("path", MINTS)
async def test_inworlds_session_tokens_live_until_they_expire(
    client: aiohttp.ClientSession, path: str
) -> None:
    """A minted token serves as a bearer, realtime included, until its expirationTime."""
    clock = Clock()
    async with InworldEmulator(accepts=["session"], lifetime_seconds=600, clock=clock) as inworld:
        header = signature(
            path,
            key=INWORLD_KEY,
            secret=INWORLD_SECRET,
            date_time="20261121120000",
            nonce="0123456789a",
        )
        body = json.dumps(MINTS[path][2]).encode()
        headers = {"Authorization": header}
        async with calling(inworld, client, "POST", path, headers, body) as answer:
            content = await answer.json()
        assert content["expirationTime"] == "2026-11-21T12:10:00Z"
        bearer = {"Authorization": f"Bearer {content['token']}"}
        realtime = "/api/v1/realtime/session?key=s1&protocol=realtime"
        assert await status(inworld, client, "POST", "/tts/v1/voice", bearer) == 200
        assert await status(inworld, client, "GET", realtime, HANDSHAKE | bearer) == 101
        assert inworld.faults == []
        assert await status(inworld, client, "POST", "/tts/v1/voice", INWORLD) == 401
        clock.now += 600
        async with calling(inworld, client, "POST", "/tts/v1/voice", bearer) as answer:
            assert (answer.status, "TOKEN_EXPIRED" in await answer.text()) == (401, True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"secret": "dummy-wrong"}, "the signature is wrong"),
        ({"key": "dummy-other"}, "signed for another key"),
        ({"date_time": "20261121110000"}, "signed at another time"),
        ({"nonce": "0123"}, "exactly formed"),
    ],
)
async def test_inworlds_mint_refuses_bad_signatures(
    client: aiohttp.ClientSession, changes: dict[str, str], reason: str
) -> None:
    """Another secret, key, time or form: 403 with Inworld's words."""
    parts = {
        "key": INWORLD_KEY,
        "secret": INWORLD_SECRET,
        "date_time": "20261121120000",
        "nonce": "0123456789a",
    }
    path = "/v1/sessionTokens/token:generate"
    headers = {"Authorization": signature(path, **(parts | changes))}
    async with InworldEmulator(clock=Clock()) as inworld:
        async with calling(inworld, client, "POST", path, headers, b"{}") as answer:
            assert answer.status == 403
            assert (await answer.json())["message"] == "invalid authorization signature"
        assert reason in inworld.faults[0]


async def test_inworlds_one_time_tokens_are_used_up(client: aiohttp.ClientSession) -> None:
    """One request each, failed ones included; never for realtime; minted with the key only."""
    body = b'{"single_use":true,"ttl":"300s"}'
    realtime = "/api/v1/realtime/session?key=s1&protocol=realtime"
    async with InworldEmulator() as inworld:
        for target, handshake, expected in (
            ("/voices/v1/voices", {}, 200),
            (realtime, HANDSHAKE, 401),
        ):
            async with calling(inworld, client, "POST", "/auth/v1/tokens", INWORLD, body) as answer:
                token = (await answer.json())["accessToken"]
            headers = {**handshake, "Authorization": f"Bearer {token}"}
            assert await status(inworld, client, "GET", target, headers) == expected
            assert await status(inworld, client, "GET", target, headers) == 403
        bearer = {"Authorization": f"Bearer {inworld.fetched[0].value}"}
        assert await status(inworld, client, "POST", "/auth/v1/tokens", bearer, body) == 403


async def test_inworlds_speech_sockets_refuse_after_the_101(
    client: aiohttp.ClientSession,
) -> None:
    """Without a credential an error frame follows the 101; with a wrong one there is silence."""
    target = "/tts/v1/voice:streamBidirectional"
    async with InworldEmulator() as inworld:
        async with client.ws_connect(inworld.origin + target) as socket:
            assert (await socket.receive_json())["error"]["code"] == 16
        wrong = {"Authorization": "Basic Zm9vYmFy"}
        async with client.ws_connect(inworld.origin + target, headers=wrong) as socket:
            await socket.send_str("hello")
            await socket.close(code=4001)
        assert await inworld.ended(1) == "complete"
        assert (inworld.requests[1].close_code, len(inworld.faults)) == (4001, 2)


async def test_inworlds_realtime_needs_both_parameters(client: aiohttp.ClientSession) -> None:
    """key= is the session and no credential; without it or protocol= there is a 400."""
    path = "/api/v1/realtime/session"
    headers = HANDSHAKE | INWORLD
    async with InworldEmulator() as inworld:
        assert await status(inworld, client, "GET", f"{path}?key=s1", headers) == 400
        assert await status(inworld, client, "GET", f"{path}?protocol=realtime", headers) == 400
        good = f"{inworld.origin}{path}?key=s1&protocol=realtime"
        async with client.ws_connect(good, headers=INWORLD) as socket:
            created = {"type": "session.created", "session": {"id": "s1"}}
            assert await socket.receive_json() == created


async def test_inworld_answers_sdp_offers(client: aiohttp.ClientSession) -> None:
    """An offer as text gets text, one in JSON gets JSON, and both the same description."""
    path = "/v1/realtime/calls"
    as_text = {**INWORLD, "Content-Type": "application/sdp"}
    as_json = {**INWORLD, "Content-Type": "application/json"}
    async with InworldEmulator() as inworld:
        async with calling(inworld, client, "POST", path, as_text, OFFER) as answer:
            assert answer.content_type == "application/sdp"
            description = await answer.text()
        body = json.dumps({"sdp": OFFER.decode(), "session": {}}).encode()
        async with calling(inworld, client, "POST", path, as_json, body) as answer:
            assert (await answer.json())["sdp"] == description
        assert inworld.requests[0].body == OFFER
        assert await status(inworld, client, "POST", path, as_json, b"{}") == 400


async def test_inworld_streams_lines_and_events(client: aiohttp.ClientSession) -> None:
    """Speech is JSON per line; the router speaks OpenAI's format, streamed and whole."""
    async with InworldEmulator() as inworld:
        path = "/tts/v1/voice:stream"
        async with calling(inworld, client, "POST", path, INWORLD, b"{}") as answer:
            lines = [json.loads(line) for line in (await answer.text()).splitlines()]
        audio = [base64.b64decode(line["result"]["audioContent"]) for line in lines]
        assert audio == list(inworld.chunks)
        path, body = "/v1/chat/completions", b'{"stream":true}'
        async with calling(inworld, client, "POST", path, INWORLD, body) as answer:
            assert (await answer.text()).endswith("data: [DONE]\n\n")
        async with calling(inworld, client, "POST", path, INWORLD, b"{}") as answer:
            assert (await answer.json())["choices"][0]["message"]["role"] == "assistant"


# --- steering ---------------------------------------------------------------------------------


async def test_pieces_come_as_the_test_releases_them(client: aiohttp.ClientSession) -> None:
    """The head comes at once; piece k arrives while piece k+1 has not been sent."""
    async with HumeEmulator() as hume:
        hume.pieces.hold()
        async with calling(hume, client, "POST", SPEECH, HUME, b"{}") as answer:
            assert answer.headers["Transfer-Encoding"] == "chunked"
            for number, chunk in enumerate(hume.chunks):
                assert hume.pieces.passed == number
                hume.pieces.release()
                assert await answer.content.readexactly(len(chunk)) == chunk
            assert await answer.content.read() == b""
        assert await hume.ended(0) == "complete"


async def test_a_client_that_leaves_is_noticed(client: aiohttp.ClientSession) -> None:
    """The exchange of a client that goes away in mid-stream ends as that."""
    async with CambEmulator() as camb:
        camb.pieces.hold()
        body = b'{"text":"x"}'
        async with calling(camb, client, "POST", "/apis/tts-stream", CAMB, body) as answer:
            await camb.pieces.reached()
            with pytest.raises(TimeoutError, match="request 0 ended"):
                await camb.ended(0, timeout=0.01)
            answer.close()
        assert await camb.ended(0) == "client left"
        await camb.connected(0)


async def test_a_stream_can_be_cut(client: aiohttp.ClientSession) -> None:
    """cut() breaks the connection off without an end."""
    async with CambEmulator() as camb:
        camb.pieces.hold()
        body = b'{"text":"x"}'
        async with calling(camb, client, "POST", "/apis/tts-stream", CAMB, body) as answer:
            camb.pieces.release()
            await answer.content.readexactly(4096)
            camb.pieces.cut()
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.content.read()
        assert await camb.ended(0) == "cut"
        assert await status(camb, client, "GET", "/apis/x", CAMB) == 200


async def test_uploads_can_be_held(client: aiohttp.ClientSession) -> None:
    """While uploads are held nothing of the body is read."""
    async with CambEmulator() as camb:
        camb.uploads.hold()
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(
                status(camb, client, "POST", "/apis/x", CAMB, bytes(1_000_000))
            )
            recorded = await camb.arrived(1)
            await camb.uploads.reached()
            assert recorded.body_length == 0
            camb.uploads.release()
            await camb.uploads.sent(1)
            assert 0 < recorded.body_length < 1_000_000
            camb.uploads.open()
        assert sending.result() == 200
        assert recorded.body_length == 1_000_000


async def test_a_body_may_be_announced(client: aiohttp.ClientSession) -> None:
    """Expect: 100-continue is answered before the body is read."""
    async with CambEmulator() as camb:
        headers = {**CAMB, "Expect": "100-continue"}
        assert await status(camb, client, "POST", "/apis/x", headers, b"body") == 200
        assert camb.requests[0].body == b"body"


async def test_answers_can_be_scripted(client: aiohttp.ClientSession) -> None:
    """Refusals, redirects and compressed answers come when asked for, for the right path."""
    async with HumeEmulator() as hume, CambEmulator() as foreign:
        limited = json_answer(429, {"error": "slow down"}, ("Retry-After", "7"))
        hume.answer_next(limited, path="/v0/evi/")
        hume.answer_next(redirect(f"{hume.origin}/v0/y"))
        hume.answer_next(redirect(f"{foreign.origin}/apis/x", 307))
        hume.answer_next(json_answer(200, {"a": "b" * 1000}).gzipped())
        async with calling(hume, client, "GET", "/v0/x", HUME) as answer:
            assert (answer.status, answer.headers["Location"]) == (302, f"{hume.origin}/v0/y")
        async with calling(hume, client, "GET", "/v0/evi/x", HUME) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
        async with calling(hume, client, "GET", "/v0/x", HUME) as answer:
            assert (answer.status, answer.headers["Location"]) == (307, f"{foreign.origin}/apis/x")
        async with calling(hume, client, "GET", "/v0/x", HUME) as answer:
            assert answer.headers["Content-Encoding"] == "gzip"
            assert json.loads(gzip.decompress(await answer.read())) == {"a": "b" * 1000}
        assert (hume.faults, foreign.connections) == ([], 0)


@pytest.mark.parametrize("code", [401, 403, 429])
async def test_a_handshake_can_be_refused_as_plain_http(
    client: aiohttp.ClientSession, code: int
) -> None:
    """A scripted answer to a WebSocket handshake is an HTTP answer with its body."""
    async with HumeEmulator() as hume:
        hume.answer_next(json_answer(code, {"error": "scripted"}))
        target = f"/v0/evi/chat?api_key={HUME_KEY}"
        async with calling(hume, client, "GET", target, HANDSHAKE) as answer:
            assert (answer.status, await answer.json()) == (code, {"error": "scripted"})
        assert hume.faults == []


@asynccontextmanager
async def chat(
    hume: HumeEmulator, client: aiohttp.ClientSession, protocols: tuple[str, ...] = ()
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A WebSocket to Hume's EVI, past its greeting."""
    url = f"{hume.origin}/v0/evi/chat?api_key={HUME_KEY}"
    async with client.ws_connect(url, protocols=protocols, max_msg_size=0) as socket:
        assert (await socket.receive_json())["type"] == "chat_metadata"
        yield socket


async def test_sockets_echo_and_select_the_first_subprotocol(
    client: aiohttp.ClientSession,
) -> None:
    """Text comes back as text, binary; the close code is the client's own."""
    async with HumeEmulator() as hume:
        async with chat(hume, client, ("one", "two")) as socket:
            assert socket.protocol == "one"
            await socket.send_str("é")
            assert await socket.receive_str() == "é"
            await socket.send_bytes(b"\xff\x00")
            assert await socket.receive_bytes() == b"\xff\x00"
            await socket.close(code=4002, message=b"enough")
        assert await hume.ended(0) == "complete"
        recorded = hume.requests[0]
        assert recorded.messages == ["é", b"\xff\x00"]
        assert (recorded.close_code, recorded.close_reason) == (4002, "enough")
        assert recorded.status == 101


async def test_sockets_take_orders(client: aiohttp.ClientSession) -> None:
    """Large messages, a ping, a close with any code and reason."""
    async with HumeEmulator() as hume, chat(hume, client) as socket:
        size = 6 * 1024 * 1024
        await socket.send_json({"emulator": "binary", "bytes": size})
        assert len(await socket.receive_bytes()) == size
        await socket.send_json({"emulator": "text", "bytes": size})
        assert len(await socket.receive_str()) == size
        await socket.send_json({"emulator": "ping"})
        await socket.send_json({"emulator": "close", "code": 4321, "reason": "bye"})
        message = await socket.receive()
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4321)
        assert message.extra == "bye"


async def test_a_socket_can_be_cut(client: aiohttp.ClientSession) -> None:
    """The order cut ends the connection without a close frame."""
    async with HumeEmulator() as hume:
        async with chat(hume, client) as socket:
            await socket.send_json({"emulator": "cut"})
            await socket.receive()
            assert socket.close_code == 1006
        assert await hume.ended(0) == "cut"


async def test_a_socket_whose_client_vanishes_is_noticed(client: aiohttp.ClientSession) -> None:
    """Without a close frame the exchange ends as one whose client left."""
    async with HumeEmulator() as hume, chat(hume, client) as socket:
        socket.get_extra_info("socket").shutdown(2)
        assert await hume.ended(0) == "client left"


async def test_leaving_the_emulator_ends_what_runs(client: aiohttp.ClientSession) -> None:
    """A test that stops in the middle leaves no exchange waiting."""
    async with CambEmulator() as camb:
        camb.pieces.hold()
        body = b'{"text":"x"}'
        answer = await client.post(f"{camb.origin}/apis/tts-stream", headers=CAMB, data=body)
        await camb.pieces.reached()
    assert camb.requests[0].outcome == "stopped"
    answer.close()
