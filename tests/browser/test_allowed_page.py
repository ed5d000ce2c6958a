"""A page of an allowed origin in a real browser: everything works, and it never holds a key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.browser.pages import Site
from tests.browser.ticker import TICKS, Ticker
from tests.browser.webdriver import Browser
from tests.emulators import HUME_KEY, HUME_SECRET, HumeEmulator, Recorded, carriers, json_answer
from tests.emulators.carriers import Carrier
from tests.support.keyrelay import Running, preset_keyrelay, static_route, until

pytestmark = pytest.mark.browser

IN_HEADER = Carrier("header", "x-hume-api-key", HUME_KEY)
IN_QUERY = Carrier("query", "api_key", HUME_KEY)
CHAT = "/v0/evi/chat"
POST_JSON = {
    "method": "POST",
    "headers": {"Content-Type": "application/json", "Authorization": "Bearer client-dummy"},
    "body": '{"utterances": [{"text": "Hëllo"}]}',
}


def arrived(hume: HumeEmulator, *targets: str) -> list[Recorded]:
    """What reached Hume: these, each with the one right credential and no mark of a page."""
    assert hume.faults == []
    assert [f"{one.method} {one.path}" for one in hume.requests] == list(targets)
    for one in hume.requests:
        found = carriers.find(one.target, one.headers, hume.harmless_query)
        assert found == [IN_QUERY if one.websocket else IN_HEADER]
        names = {name.lower() for name, _ in one.headers}
        assert not {name for name in names if name.startswith((b"origin", b"referer", b"sec-f"))}
    return hume.requests


@pytest.mark.parametrize(
    ("page", "base"),
    [
        ("localhost", "http://localhost:{port}/hume"),
        ("127.0.0.1", "http://127.0.0.1:{port}/hume"),
        ("localhost", "http://127.0.0.1:{port}/hume"),
        ("localhost", "http://hume.localhost:{port}"),
    ],
    ids=["localhost", "address", "other-host", "own-name"],
)
async def test_everything_works_under_every_name(
    browser: Browser, hume: HumeEmulator, relay: Running, site: Site, page: str, base: str
) -> None:
    """GET, POST with a preflight, and a WebSocket, each with one right credential; dummies and
    the cookies of this machine's other applications stay here."""
    url = base.format(port=relay.port)
    await browser.open(f"{site.origin(page)}/")
    await browser.run("document.cookie = 'session=client-dummy'")

    seen = await browser.call("ask", f"{url}/v0/evi/configs?page_size=1")
    assert (seen["type"], seen["status"]) == ("cors", 200)
    assert json.loads(seen["text"])["configs_page"] == []

    seen = await browser.call("ask", f"{url}/v0/tts", POST_JSON)
    assert seen["status"] == 200
    assert json.loads(seen["text"])["request_id"] == "dummy"

    url = url.replace("http:", "ws:")
    seen = await browser.call("connect", f"{url}{CHAT}?access_token=client-dummy")
    assert seen == {"subprotocol": ""}
    assert json.loads((await browser.call("hear", 1))[0])["type"] == "chat_metadata"

    requests = arrived(hume, "GET /v0/evi/configs", "POST /v0/tts", f"GET {CHAT}")
    assert requests[0].query == "page_size=1"
    assert requests[1].body.decode() == POST_JSON["body"]


async def test_refusals_are_readable(
    browser: Browser, hume: HumeEmulator, relay: Running, site: Site
) -> None:
    """A page reads the provider's refusal with its headers, and ours with the advice in it."""
    hume.answer_next(json_answer(429, {"message": "slow down"}, ("Retry-After", "7")))
    await browser.open(f"{site.origin()}/")
    seen = await browser.call("ask", f"{relay.url}/hume/v0/tts", POST_JSON)
    assert (seen["status"], seen["headers"]["retry-after"]) == (429, "7")
    assert json.loads(seen["text"]) == {"message": "slow down"}
    seen = await browser.call("ask", f"{relay.url}/hume/oauth2-cc/token", POST_JSON)
    assert (seen["status"], seen["headers"]["content-type"]) == (403, "application/problem+json")
    assert "detail" in json.loads(seen["text"])
    arrived(hume, "POST /v0/tts")


async def test_a_fetched_stream_arrives_piece_by_piece(
    browser: Browser, hume: HumeEmulator, relay: Running, site: Site
) -> None:
    """The page has each piece before the provider sends the next one."""
    hume.pieces.hold()
    await browser.open(f"{site.origin()}/")
    assert await browser.call("stream", f"{relay.url}/hume/v0/tts/stream/json", POST_JSON) == 200
    for number in range(len(hume.chunks)):
        hume.pieces.release()
        piece = (await browser.call("hear", number + 1))[number]
        assert json.loads(piece)["chunk_index"] == number
    assert (await browser.call("hear", len(hume.chunks) + 1))[-1] is None
    arrived(hume, "POST /v0/tts/stream/json")


async def test_a_page_that_leaves_ends_the_providers_work(
    browser: Browser, hume: HumeEmulator, relay: Running, site: Site
) -> None:
    """An aborted fetch, and a page that is closed in the middle of one, cost nothing further."""
    for index, leave in enumerate(("leave", "close")):
        hume.pieces.hold()
        await browser.open(f"{site.origin()}/")
        url = f"{relay.url}/hume/v0/tts/stream/json"
        assert await browser.call("stream", url, POST_JSON) == 200
        hume.pieces.release()
        await browser.call("hear", 1)
        if leave == "leave":
            await browser.call("leave")
        else:
            await browser.open("about:blank")
        assert await hume.ended(index, timeout=1) == "client left"


@pytest.fixture
async def ticker(dummy_key: bytes) -> AsyncIterator[Ticker]:
    async with Ticker() as ticker:
        yield ticker


async def test_event_source(browser: Browser, ticker: Ticker, site: Site) -> None:
    """Events arrive one by one; when the provider breaks off, the browser asks for the rest."""
    ticker.pieces.hold()
    routes = {"ticker": static_route(ticker.origin)}
    async with preset_keyrelay(routes, origins=(site.origin(),)) as relay:
        await browser.open(f"{site.origin()}/")
        assert await browser.call("events", f"{relay.url}/ticker/events") == "open"
        for number in range(1, TICKS + 1):
            if number == 3:
                ticker.pieces.cut()
                await ticker.arrived(2)
            ticker.pieces.release()
            assert (await browser.call("hear", number))[-1] == f"tick {number}"
        assert ticker.requests[1].value("Last-Event-ID") == "2"
        assert ticker.faults == []
        await browser.run("open.close()")


async def test_a_socket_talks(
    browser: Browser, hume: HumeEmulator, relay: Running, site: Site
) -> None:
    """Text and bytes go both ways and the page's close code arrives, whatever subprotocols a
    browser's SDK puts its key into; the browser finds one selected that it offered."""
    await browser.open(f"{site.origin()}/")
    await browser.run("document.cookie = 'session=client-dummy'")
    url = f"ws://localhost:{relay.port}/hume{CHAT}"
    long = "🎤" * 50_000
    offers = {
        (): "",
        ("bearer_client-dummy",): "bearer_client-dummy",
        ("bearer_client-dummy", "json"): "json",
        ("json", "bearer_client-dummy"): "json",
    }
    for index, (offered, selected) in enumerate(offers.items()):
        await browser.run("heard.length = 0")
        assert await browser.call("connect", url, offered) == {"subprotocol": selected}
        await browser.call("say", "ünï¢ode")
        await browser.call("sayBytes", [0, 255, 128])
        await browser.call("say", long)
        heard = await browser.call("hear", 4)
        assert json.loads(heard[0])["type"] == "chat_metadata"
        assert heard[1:] == ["ünï¢ode", {"bytes": [0, 255, 128]}, long]
        await browser.call("hangUp", 4321, "enough, thanks")
        closed = (await browser.call("hear", 5))[-1]
        assert closed["code"] == 4321
        assert await hume.ended(index) == "complete"
        request = arrived(hume, *[f"GET {CHAT}"] * (index + 1))[-1]
        assert (request.close_code, request.close_reason) == (4321, "enough, thanks")
        assert request.value("Sec-WebSocket-Protocol") == ("json" if "json" in offered else "")


async def test_a_provider_closes_a_socket(
    browser: Browser, hume: HumeEmulator, relay: Running, site: Site
) -> None:
    """The page learns the provider's code and reason; a connection broken off is no clean end."""
    await browser.open(f"{site.origin()}/")
    url = f"ws://localhost:{relay.port}/hume/v0/tts/stream/input"
    orders = [
        ('{"emulator": "close", "code": 4008, "reason": "too slow"}', 4008, "too slow", True),
        ('{"emulator": "cut"}', 1006, "", False),
    ]
    for order, code, reason, clean in orders:
        await browser.run("heard.length = 0")
        assert await browser.call("connect", url) == {"subprotocol": ""}
        await browser.call("say", order)
        closed = {"code": code, "reason": reason, "clean": clean}
        assert await browser.call("hear", 1) == [closed]
    assert hume.faults == []


async def test_a_provider_refuses_a_socket(
    browser: Browser, hume: HumeEmulator, relay: Running, site: Site
) -> None:
    """A handshake that the provider refuses never opens in the page."""
    hume.answer_next(json_answer(429, {"message": "slow down"}))
    await browser.open(f"{site.origin()}/")
    url = f"ws://localhost:{relay.port}/hume{CHAT}"
    assert await browser.call("connect", url) == {"code": 1006}
    arrived(hume, f"GET {CHAT}")


async def test_a_page_is_handed_a_token(browser: Browser, site: Site, hume_keys: None) -> None:
    """With ``vend`` an allowed page gets the provider's token, which works there without keyrelay;
    no other page gets any, and no key leaves."""
    async with HumeEmulator(strategy="token") as hume:
        route = {"provider": "hume", "upstream": hume.origin, "vend": True}
        async with preset_keyrelay({"hume": route}, origins=(site.origin(),)) as relay:
            await browser.open(f"{site.origin()}/")
            url = f"{relay.url}/-/token/hume"
            seen = await browser.call("ask", url, POST_JSON)
            assert seen["status"] == 200
            assert seen["headers"]["cache-control"] == "no-store"
            issued = json.loads(seen["text"])
            assert [issued["token"]] == [one.value for one in hume.fetched]
            assert 0 < issued["expires_in"] <= 1800
            assert HUME_KEY not in seen["text"]
            assert HUME_SECRET not in seen["text"]

            direct = f"{hume.origin}{CHAT}?access_token={issued['token']}".replace("http", "ws")
            assert await browser.call("connect", direct) == {"subprotocol": ""}

            calls = len(hume.requests)
            await browser.open(f"{site.origin('127.0.0.1')}/")
            for options in ({"method": "POST"}, {"method": "POST", "mode": "no-cors"}):
                seen = await browser.call("ask", url, options)
                assert not seen.get("text")
            assert [one.status for one in relay.app.exchange_log.recent] == [200, 403, 403]
            assert len(hume.requests) == calls
    assert hume.faults == []


async def test_pages_share_the_connections(
    browser: Browser, hume: HumeEmulator, relay: Running, site: Site
) -> None:
    """A browser's many requests at once are all answered, each with its own answer."""
    await browser.open(f"{site.origin()}/")
    script = """
        return Promise.all([...Array(30).keys()].map(
            (number) => ask(`${arguments[0]}/${number}`).then(({text}) => JSON.parse(text).target)))
    """
    async with asyncio.timeout(10):
        seen = await browser.run(script, f"{relay.url}/hume/v0/many")
    assert seen == [f"/v0/many/{number}" for number in range(30)]
    await until(lambda: len(relay.app.exchange_log.recent) == 30)
    assert {one.status for one in relay.app.exchange_log.recent} == {200}
    assert hume.faults == []


async def test_a_page_brings_the_inbound_token(
    browser: Browser, hume: HumeEmulator, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where keyrelay wants a token, a page brings it in ways that a browser has, past a preflight
    that cannot; without it the page may read why, and the token never reaches the provider."""
    token = "client-dummy-inbound-token"
    monkeypatch.setenv("DUMMY_INBOUND", token)
    routes = {"hume": {"provider": "hume", "upstream": hume.origin}}
    settings: dict[str, Any] = {"inbound_token": "env:DUMMY_INBOUND", "origins": (site.origin(),)}
    async with preset_keyrelay(routes, **settings) as relay:
        await browser.open(f"{site.origin()}/")
        url = f"{relay.url}/hume/v0/evi/configs"
        seen = await browser.call("ask", url)
        assert seen["status"] == 401
        assert "inbound token" in json.loads(seen["text"])["detail"]
        socket = f"ws://127.0.0.1:{relay.port}/hume{CHAT}"
        assert await browser.call("connect", socket, ["json"]) == {"code": 1006}
        assert hume.connections == 0

        for headers in ({"Authorization": f"Bearer {token}"}, {"X-Keyrelay-Token": token}):
            seen = await browser.call("ask", url, {"headers": headers})
            assert seen["status"] == 200
        offered = [f"keyrelay.token.{token}", "json"]
        assert await browser.call("connect", socket, offered) == {"subprotocol": "json"}
        assert await browser.call("connect", socket, offered[:1]) == {"subprotocol": offered[0]}
        arrived(hume, *["GET /v0/evi/configs"] * 2, *[f"GET {CHAT}"] * 2)
