"""AIGNE Hub through keyrelay: bearer, event streams, and a listener of its own for its SDK."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from yarl import URL

from tests.emulators import AIGNE_KEY, AigneEmulator
from tests.support.keyrelay import Running, both_loops, client, events, preset_keyrelay

pytestmark = both_loops

BEARER = ("Authorization", "Bearer client-dummy-key")
# What the npm package sends beside its key; it is no credential and has to arrive.
CLIENT_DID = ("x-aigne-hub-client-did", "@aigne/aigne-hub:laptop")
EVENTS = ("Accept", "text/event-stream")
COMPLETIONS = {"messages": [{"role": "user", "content": "hello"}], "stream": True}


@pytest.fixture
async def aigne(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AigneEmulator]:
    monkeypatch.setenv("AIGNE_HUB_API_KEY", AIGNE_KEY)
    async with AigneEmulator() as emulator:
        yield emulator


@pytest.fixture
async def running(aigne: AigneEmulator) -> AsyncIterator[Running]:
    route = {"provider": "aigne-hub", "upstream": aigne.origin, "listen": "127.0.0.1:0"}
    async with preset_keyrelay({"aigne": route}) as running:
        yield running


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([], ""),
        ([BEARER], ""),
        ([("Cookie", "login_token=client-dummy-token; theme=dark")], ""),
        ([], "&access_token=client-dummy-token"),
        ([BEARER, ("Cookie", "login_token=client-dummy-token")], "&access_token=client-dummy"),
        ([("authorization", "Bearer client-dummy"), BEARER], ""),
    ],
    ids=["none", "sdk", "cookie", "query", "everywhere", "twice"],
)
async def test_the_hub_never_finds_a_second_token(
    aigne: AigneEmulator, running: Running, headers: list[tuple[str, str]], query: str
) -> None:
    """The hub answers 400 if it finds two tokens; it sees one, in Authorization."""
    url = URL(f"{running.url}/aigne/app/api/v2/status?a=1{query}", encoded=True)
    async with client() as http, http.get(url, headers=[*headers, CLIENT_DID]) as answer:
        assert answer.status == 200
    assert aigne.faults == []
    recorded = aigne.requests[0]
    assert recorded.target == "/app/api/v2/status?a=1"
    assert recorded.values("Authorization") == [f"Bearer {AIGNE_KEY}"]
    assert recorded.value("x-aigne-hub-client-did") == CLIENT_DID[1]


async def test_its_sdk_works_at_a_listener_of_the_route_s_own(
    aigne: AigneEmulator, running: Running
) -> None:
    """The SDK drops a base URL's path: at the root it finds the mount point, then the models."""
    own = running.app.listeners[1]
    assert own.route == "aigne"
    async with client() as http:
        async with http.get(f"{own.url}/__blocklet__.js?type=json", headers=[CLIENT_DID]) as answer:
            assert answer.status == 200
            mount = (await answer.json())["componentMountPoints"][0]["mountPoint"]
        chat = f"{own.url}{mount}/api/v2/chat"
        async with http.post(chat, json={}, headers=[BEARER, CLIENT_DID, EVENTS]) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            assert b'{"delta":{"text":{"text":"Hello"}}}' in await answer.read()
    assert [one.target for one in aigne.requests] == [
        "/__blocklet__.js?type=json",
        "/app/api/v2/chat",
    ]
    # The description is public; the key that it was given as well did no harm.
    assert aigne.faults == []


async def test_events_arrive_one_by_one(aigne: AigneEmulator, running: Running) -> None:
    """Each event of a completion is there before the hub is let to send the next."""
    aigne.pieces.hold()
    url = f"{running.url}/aigne/app/api/v2/chat/completions"
    async with (
        client() as http,
        http.post(url, json=COMPLETIONS, headers=[BEARER, EVENTS]) as answer,
    ):
        assert answer.content_type == "text/event-stream"
        seen = await events(answer, aigne.pieces)
    assert json.loads(seen[0].removeprefix(b"data: ")) == {
        "delta": {"role": "assistant", "content": "Hello"}
    }
    assert aigne.faults == []


async def test_plain_chunks_arrive_one_by_one(aigne: AigneEmulator, running: Running) -> None:
    """Without Accept the hub streams plain text; every word of it comes as it is sent."""
    aigne.pieces.hold()
    url = f"{running.url}/aigne/app/api/v2/chat/completions"
    async with client() as http, http.post(url, json=COMPLETIONS, headers=[BEARER]) as answer:
        assert answer.content_type == "text/plain"
        for word in (b"Hello", b", ", b"this "):
            aigne.pieces.release()
            async with asyncio.timeout(5):
                assert await answer.content.readexactly(len(word)) == word
        aigne.pieces.open()
        assert await answer.read() == b"is a dummy."
    assert aigne.faults == []


async def test_a_refusal_that_comes_as_200_passes_unchanged(
    aigne: AigneEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub reports a refused key as an event in a 200; status and bytes stay as they are."""
    monkeypatch.setenv("AIGNE_HUB_API_KEY", "blocklet-dummy-wrong")
    routes = {"aigne": {"provider": "aigne-hub", "upstream": aigne.origin}}
    async with preset_keyrelay(routes) as running, client() as http:
        url = f"{running.url}/aigne/app/api/v2/chat/completions"
        async with http.post(url, json=COMPLETIONS, headers=[EVENTS]) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            assert await answer.read() == b'data: {"error":"User not authenticated"}\n\n'
        async with http.post(url, json=COMPLETIONS) as answer:
            assert answer.status == 401
            assert await answer.json() == {"error": "User not authenticated"}
    assert [fault.partition(": ")[2] for fault in aigne.faults] == ["the key is wrong"] * 2
