"""Hume through keyrelay, with the preset that ships: a key or a token, where Hume documents it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Literal, cast

import pytest
from yarl import URL

from tests.emulators import HUME_KEY, HUME_SECRET, HumeEmulator, json_answer
from tests.support.keyrelay import Running, both_loops, client, preset_keyrelay

pytestmark = both_loops

HEADER = ("X-Hume-Api-Key", "client-dummy-key")
BEARER = ("Authorization", "Bearer client-dummy-token")


@pytest.fixture(params=["key", "token"])
def credential(request: pytest.FixtureRequest) -> Literal["key", "token"]:
    """With the key alone, and with the secret beside it that makes it a token."""
    return cast(Literal["key", "token"], request.param)


@pytest.fixture
async def hume(
    monkeypatch: pytest.MonkeyPatch, credential: Literal["key", "token"]
) -> AsyncIterator[HumeEmulator]:
    monkeypatch.setenv("HUME_API_KEY", HUME_KEY)
    if credential == "token":
        monkeypatch.setenv("HUME_SECRET_KEY", HUME_SECRET)
    async with HumeEmulator(strategy=credential) as emulator:
        yield emulator


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([], ""),
        ([HEADER], ""),
        ([BEARER], ""),
        ([("X-API-Key", "client-dummy-key")], ""),
        ([HEADER, BEARER, ("Cookie", "session=client-dummy-cookie")], ""),
        ([("X_Hume_Api_Key", "client-dummy-key")], ""),
        ([HEADER], "&api_key=client-dummy-key"),
        ([], "&access_token=client-dummy-token"),
    ],
    ids=["none", "sdk", "token", "swift", "all", "underscore", "query", "query-token"],
)
async def test_rest_takes_whatever_key_a_client_insists_on(
    hume: HumeEmulator, running: Running, headers: list[tuple[str, str]], query: str
) -> None:
    """Hume sees one credential, ours, and nothing of the client's dummy."""
    target = f"/v0/evi/configs?page_size=1&name=a+b%20c{query}"
    async with (
        client() as http,
        http.get(URL(f"{running.url}/hume{target}", encoded=True), headers=headers) as answer,
    ):
        assert answer.status == 200
        assert "configs_page" in await answer.json()
    assert hume.faults == []
    (recorded,) = hume.asked
    assert recorded.target == "/v0/evi/configs?page_size=1&name=a+b%20c"
    tokens = [f"Bearer {one.value}" for one in hume.fetched]
    assert recorded.values("Authorization") == tokens
    assert recorded.values("X-Hume-Api-Key") == ([] if tokens else [HUME_KEY])


async def test_speech_arrives_chunk_by_chunk(hume: HumeEmulator, running: Running) -> None:
    """A client has heard each chunk of audio before Hume is let to send the next."""
    hume.pieces.hold()
    async with (
        client() as http,
        http.post(f"{running.url}/hume/v0/tts/stream/file", json={}, headers=[HEADER]) as answer,
    ):
        assert (answer.status, answer.content_type) == (200, "audio/mpeg")
        for piece in hume.chunks:
            hume.pieces.release()
            async with asyncio.timeout(5):
                assert await answer.content.readexactly(len(piece)) == piece
        assert await answer.content.read() == b""
    assert (hume.faults, await hume.ended(hume.asked[0].index)) == ([], "complete")


async def test_json_lines_arrive_line_by_line(hume: HumeEmulator, running: Running) -> None:
    """Each line of /v0/tts/stream/json is there before Hume is let to send the next."""
    hume.pieces.hold()
    async with (
        client() as http,
        http.post(f"{running.url}/hume/v0/tts/stream/json", json={}, headers=[HEADER]) as answer,
    ):
        for number in range(len(hume.chunks)):
            hume.pieces.release()
            async with asyncio.timeout(5):
                assert json.loads(await answer.content.readline())["chunk_index"] == number
        assert await answer.content.read() == b""
    assert hume.faults == []


@pytest.mark.parametrize(
    ("headers", "query", "kept"),
    [
        ([], "", ""),
        ([HEADER], "?config_id=cfg+1%26x&s%5Bid%5D=a+b", "config_id=cfg+1%26x&s%5Bid%5D=a+b"),
        ([HEADER], "?fernSdkVersion=0.16.0&api_key=client-dummy-key", "fernSdkVersion=0.16.0"),
        ([], "?api_key=client-dummy-key&s=a%20b", "s=a%20b"),
        ([BEARER], "?access_token=client-dummy-token", ""),
        ([("X-API-Key", "client-dummy-key")], "?apiKey=client-dummy-key&x=1", "x=1"),
        ([], "?accessToken=client-dummy-token&x=1", "x=1"),
        ([], "?apikey=client-dummy-key&&x", "&x"),
        ([], "?x=1&%61pi%5Fkey=client-dummy-key", "x=1"),
    ],
    ids=[
        "none",
        "python",
        "node",
        "browser",
        "token",
        "swift",
        "swift-token",
        "2022",
        "escaped",
    ],
)
async def test_a_socket_gets_the_key_in_its_query_whatever_the_client_did(
    hume: HumeEmulator, running: Running, headers: list[tuple[str, str]], query: str, kept: str
) -> None:
    """One credential, ours, last in a query that is otherwise the client's byte for byte."""
    async with running.websocket(f"/hume/v0/evi/chat{query}", headers) as socket:
        assert json.loads(await socket.recv())["type"] == "chat_metadata"
        await socket.send("hello")
        assert await socket.recv() == "hello"
        await socket.send(b"\x00\xff")
        assert await socket.recv() == b"\x00\xff"
    assert hume.faults == []
    ours = f"access_token={hume.fetched[0].value}" if hume.fetched else f"api_key={HUME_KEY}"
    assert hume.asked[0].query == f"{kept}&{ours}".removeprefix("" if kept else "&")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/oauth2-cc/token", 403),
        ("/OAuth2-cc/Token/", 403),
        ("/%6fauth2-cc//token", 403),
        ("/%256fauth2-cc/token", 403),
        ("/oauth2-cc;x/token", 403),
        ("//oauth2-cc/token", 403),
        ("/v0/../oauth2-cc/token", 400),
    ],
)
async def test_no_client_mints_a_token_for_itself(
    hume: HumeEmulator, running: Running, path: str, status: int
) -> None:
    """The token endpoint is out of reach however its path is spelt; nothing is dialled."""
    async with (
        client() as http,
        http.post(
            URL(f"{running.url}/hume{path}", encoded=True),
            data={"grant_type": "client_credentials"},
        ) as answer,
    ):
        assert answer.status == status
        assert answer.content_type == "application/problem+json"
    # At most the one call that keyrelay makes for itself, and not by way of the route.
    assert hume.faults == []
    assert len(hume.requests) == len(hume.fetched) <= 1


async def test_hume_s_own_refusals_and_retry_after_reach_the_client(
    hume: HumeEmulator, running: Running
) -> None:
    """429 is not retried here, SDKs do that: status, Retry-After and body pass, once asked."""
    hume.answer_next(json_answer(429, {"message": "slow down"}, ("Retry-After", "7")), path="/v0/")
    async with client() as http, http.get(f"{running.url}/hume/v0/evi/configs") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
        assert await answer.json() == {"message": "slow down"}
    assert len(hume.asked) == 1


async def test_a_wrong_key_is_hume_s_401_not_ours(
    hume: HumeEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a wrong key in the environment the client gets Hume's own answer, untouched."""
    monkeypatch.delenv("HUME_SECRET_KEY", raising=False)
    monkeypatch.setenv("HUME_API_KEY", "dummy-wrong-key")
    routes = {"hume": {"provider": "hume", "upstream": hume.origin}}
    async with (
        preset_keyrelay(routes) as running,
        client() as http,
        http.get(f"{running.url}/hume/v0/evi/configs") as answer,
    ):
        assert answer.status == 401
        assert await answer.json() == {"fault": {"faultstring": "Invalid ApiKey"}}
        assert "Proxy-Status" not in answer.headers
    assert len(hume.faults) == 1
