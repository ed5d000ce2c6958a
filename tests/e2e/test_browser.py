"""Pages in a browser: an allowed origin uses everything, any other gets nothing at all.

The requests are what browsers send; no page is needed to send them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import InvalidStatus

from tests.emulators import HumeEmulator, json_answer
from tests.support.keyrelay import Running, both_loops, client, preset_keyrelay

pytestmark = both_loops

PAGE = "http://localhost:5173"
AGENT = ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537")
FETCH = [
    ("Origin", PAGE),
    ("Referer", f"{PAGE}/"),
    ("Sec-Fetch-Site", "same-site"),
    ("Sec-Fetch-Mode", "cors"),
    ("Sec-Fetch-Dest", "empty"),
    AGENT,
]
SOCKET = [
    ("Origin", PAGE),
    ("Sec-Fetch-Site", "same-site"),
    ("Sec-Fetch-Mode", "websocket"),
    ("Sec-Fetch-Dest", "empty"),
]
PREFLIGHT = [
    *FETCH,
    ("Access-Control-Request-Method", "POST"),
    ("Access-Control-Request-Headers", "authorization,content-type,x-hume-api-key"),
    ("Access-Control-Request-Private-Network", "true"),
]
CHAT = "/hume/v0/evi/chat"


def other(fields: list[tuple[str, str]], origin: str) -> list[tuple[str, str]]:
    """The same request from another page."""
    return [
        (name, origin if name == "Origin" else value) for name, value in fields if name != "Referer"
    ]


@pytest.fixture
async def running(hume: HumeEmulator) -> AsyncIterator[Running]:
    routes = {"hume": {"provider": "hume", "upstream": hume.origin}}
    async with preset_keyrelay(routes, origins=(PAGE,)) as running:
        yield running


# --- an allowed page --------------------------------------------------------------------------


async def test_a_preflight_is_answered_here(hume: HumeEmulator, running: Running) -> None:
    """204 with the exact origin, the method and the headers asked for; the provider hears none."""
    async with client() as http:
        url = f"{running.url}/hume/v0/tts"
        async with http.options(url, headers=PREFLIGHT) as answer:
            assert answer.status == 204
            get = answer.headers.get
            assert get("Access-Control-Allow-Origin") == PAGE
            assert "POST" in get("Access-Control-Allow-Methods", "")
            assert get("Access-Control-Allow-Headers") == PREFLIGHT[-2][1]
            assert get("Access-Control-Allow-Private-Network") == "true"
            assert "Access-Control-Allow-Credentials" not in answer.headers
            assert get("Vary") == "Origin"
    assert hume.connections == 0


async def test_fetch_and_what_it_may_read(hume: HumeEmulator, running: Running) -> None:
    """A page's fetch is authenticated and readable; the provider sees a call of a server."""
    dummy = ("X-Hume-Api-Key", "client-dummy-key")
    async with (
        client() as http,
        http.post(f"{running.url}/hume/v0/tts", json={}, headers=[*FETCH, dummy]) as answer,
    ):
        assert answer.status == 200
        assert answer.headers.getall("Access-Control-Allow-Origin") == [PAGE]
        assert answer.headers["Vary"] == "Origin"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert (await answer.json())["request_id"] == "dummy"
    assert hume.faults == []
    names = {name.lower() for name, _ in hume.requests[0].headers}
    assert not names & {b"origin", b"referer", b"sec-fetch-site", b"sec-fetch-mode"}


async def test_a_page_reads_a_stream_as_it_comes(hume: HumeEmulator, running: Running) -> None:
    """Audio for a page arrives chunk by chunk, as for any client."""
    hume.pieces.hold()
    url = f"{running.url}/hume/v0/tts/stream/file"
    async with client() as http, http.post(url, json={}, headers=FETCH) as answer:
        for piece in hume.chunks:
            hume.pieces.release()
            async with asyncio.timeout(5):
                assert await answer.content.readexactly(len(piece)) == piece


@pytest.mark.parametrize(
    ("query", "subprotocols"),
    [("", []), ("?access_token=client-dummy-token", []), ("?a=b", ["bearer_client-dummy", "json"])],
)
async def test_a_page_opens_a_socket(
    hume: HumeEmulator, running: Running, query: str, subprotocols: list[str]
) -> None:
    """What a browser cannot do by itself: its socket is authenticated, its dummies stay here."""
    async with running.websocket(f"{CHAT}{query}", [*SOCKET, AGENT], subprotocols) as socket:
        assert json.loads(await socket.recv())["type"] == "chat_metadata"
        await socket.send(b"\x00\x01")
        assert await socket.recv() == b"\x00\x01"
        assert socket.subprotocol == ("json" if subprotocols else None)
    assert hume.faults == []
    assert not {b"origin", b"cookie"} & {name.lower() for name, _ in hume.requests[0].headers}


async def test_a_page_may_read_refusals(
    hume: HumeEmulator, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of the provider and of ours carry the same permission, or a page saw only "failed"."""
    hume.answer_next(json_answer(429, {"message": "slow down"}, ("Retry-After", "7")))
    async with client() as http:
        for path, status in (("/hume/v0/x", 429), ("/nowhere", 404), ("/hume/oauth2-cc/x", 403)):
            async with http.get(f"{running.url}{path}", headers=FETCH) as answer:
                assert answer.status == status
                assert answer.headers.getall("Access-Control-Allow-Origin") == [PAGE]


async def test_a_provider_cannot_widen_what_pages_may_do(
    hume: HumeEmulator, running: Running
) -> None:
    """CORS, cookies and what would stick to this machine's localhost are not the provider's say."""
    hume.answer_next(
        json_answer(
            200,
            {},
            ("Access-Control-Allow-Origin", "*"),
            ("Access-Control-Allow-Credentials", "true"),
            ("Set-Cookie", "session=1"),
            ("Strict-Transport-Security", "max-age=1"),
            ("Clear-Site-Data", '"*"'),
            ("Service-Worker-Allowed", "/"),
            ("Content-Security-Policy", "default-src *"),
            ("Cache-Control", "public, max-age=60"),
        )
    )
    async with client() as http, http.get(f"{running.url}/hume/v0/x", headers=FETCH) as answer:
        assert answer.headers.getall("Access-Control-Allow-Origin") == [PAGE]
        assert answer.headers.getall("Content-Security-Policy") == ["sandbox; default-src 'none'"]
        assert "no-store" in answer.headers.getall("Cache-Control")
        for name in (
            "Access-Control-Allow-Credentials",
            "Set-Cookie",
            "Strict-Transport-Security",
            "Clear-Site-Data",
            "Service-Worker-Allowed",
        ):
            assert name not in answer.headers


async def test_node_is_no_browser(hume: HumeEmulator, running: Running) -> None:
    """Node's fetch says Sec-Fetch-Mode and nothing else of the kind: an SDK, let in."""
    headers = [("sec-fetch-mode", "cors"), ("user-agent", "node"), ("accept-language", "*")]
    async with client() as http, http.get(f"{running.url}/hume/v0/x", headers=headers) as answer:
        assert answer.status == 200
        assert "Access-Control-Allow-Origin" not in answer.headers


# --- everybody else ---------------------------------------------------------------------------

FOREIGN = [
    "https://evil.example",
    "null",
    "http://localhost:51730",
    "http://localhost",
    "https://localhost:5173",
    "http://127.0.0.1:5173",
    "http://localhost:5173.evil.example",
    "http://evil.localhost:5173",
    "HTTP://LOCALHOST:5173",
    "",
]


@pytest.mark.parametrize("origin", FOREIGN)
async def test_a_foreign_page_gets_nothing(
    hume: HumeEmulator, running: Running, origin: str
) -> None:
    """Fetch, preflight and socket are refused unreadably, before anything is dialled."""
    async with client() as http:
        for method, fields in (("GET", FETCH), ("POST", FETCH), ("OPTIONS", PREFLIGHT)):
            url = f"{running.url}/hume/v0/x"
            async with http.request(method, url, headers=other(fields, origin)) as answer:
                assert answer.status == 403
                assert not [name for name in answer.headers if name.startswith("Access-Control")]
                assert "browsers.origins" in await answer.text()
    with pytest.raises(InvalidStatus) as refused:
        await running.websocket(CHAT, other(SOCKET, origin)).__aenter__()
    assert refused.value.response.status_code == 403
    assert hume.connections == 0


@pytest.mark.parametrize(
    "fields",
    [
        [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")],
        [("Sec-Fetch-Site", "same-origin")],
        [("Sec-Fetch-Site", "none"), ("Sec-Fetch-Mode", "navigate")],
        [*FETCH[:3], ("Sec-Fetch-Mode", "navigate")],
        [*FETCH[:3], ("Sec-Fetch-Dest", "iframe")],
        [*FETCH[:3], ("Sec-Fetch-Dest", "script")],
        [*FETCH, ("Service-Worker", "script")],
        [AGENT],
        [("Referer", "https://evil.example/page")],
    ],
    ids=["img", "same", "typed", "link", "frame", "script", "worker", "old", "referer"],
)
async def test_a_browser_without_an_allowed_origin_gets_nothing(
    hume: HumeEmulator, running: Running, fields: list[tuple[str, str]]
) -> None:
    """Images, frames, links and workers spend no key, whatever page they are on."""
    async with client() as http, http.get(f"{running.url}/hume/v0/x", headers=fields) as answer:
        assert answer.status == 403
    assert hume.connections == 0


@pytest.mark.parametrize("host", ["evil.example", "0.0.0.0", "localhost.", "hume.localhost.evil"])
async def test_a_rebound_name_gets_nothing(hume: HumeEmulator, running: Running, host: str) -> None:
    """A page whose own name was pointed at 127.0.0.1 needs no CORS; its Host gives it away."""
    for method in ("GET", "POST"):
        async with client() as http:
            headers = {"Host": f"{host}:{running.port}"}
            async with http.request(method, f"{running.url}/hume/v0/x", headers=headers) as answer:
                assert answer.status == 421
    assert hume.connections == 0


async def test_no_page_is_allowed_by_default(
    hume: HumeEmulator,
) -> None:
    """Without browsers.origins even a page on this machine gets nothing."""
    routes = {"hume": {"provider": "hume", "upstream": hume.origin}}
    async with preset_keyrelay(routes) as running, client() as http:
        async with http.get(f"{running.url}/hume/v0/x", headers=FETCH) as answer:
            assert answer.status == 403
        with pytest.raises(InvalidStatus):
            await running.websocket(CHAT, SOCKET).__aenter__()
    assert hume.connections == 0
