"""A page of Vite's development server whose requests reach keyrelay through ``server.proxy``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.browser import pages
from tests.browser.ticker import TICKS, Ticker
from tests.browser.vite import Vite, free_port, vite
from tests.browser.webdriver import Browser
from tests.emulators import HumeEmulator
from tests.support.keyrelay import Running, preset_keyrelay, static_route, until

pytestmark = pytest.mark.browser

CONFIGS = "/hume/v0/evi/configs"
CHAT = "/hume/v0/evi/chat"
POST_JSON = {"method": "POST", "headers": {"Content-Type": "application/json"}, "body": "{}"}
# Resolves once the page runs this version of the module, with the time at which it was opened.
VERSION = """
const [wanted] = arguments;
return new Promise((resolve) => {
  (function look() {
    if (window.version === wanted) resolve(window.opened);
    else setTimeout(look, 5);
  })();
});
"""


@dataclass(frozen=True, slots=True)
class Development:
    """The development server and the keyrelay behind it."""

    server: Vite
    relay: Running


@asynccontextmanager
async def developing(
    folder: Path, hume: HumeEmulator, ticker: Ticker, *, listed: bool = True, **proxied: object
) -> AsyncIterator[Development]:
    """``proxied`` are Vite's settings for the paths of the routes, besides target and ``ws``."""
    port = free_port()
    routes = {
        "hume": {"provider": "hume", "upstream": hume.origin},
        "ticker": static_route(ticker.origin),
    }
    origins = (f"http://localhost:{port}" if listed else "http://localhost:1",)
    async with preset_keyrelay(routes, origins=origins) as relay:
        settings = {"target": relay.url, "ws": True, **proxied}
        async with vite(folder, port, {f"/{name}": settings for name in routes}) as server:
            yield Development(server, relay)


@pytest.fixture
async def ticker(dummy_key: bytes) -> AsyncIterator[Ticker]:
    async with Ticker() as ticker:
        yield ticker


@pytest.mark.parametrize("change_origin", [False, True], ids=["own-host", "change-origin"])
async def test_a_page_behind_vites_proxy(
    browser: Browser, hume: HumeEmulator, ticker: Ticker, tmp_path: Path, change_origin: bool
) -> None:
    """GET, POST, a streamed body piece by piece, events and a WebSocket
    work by paths of the page's own server, which replaces a module while the socket is open."""
    async with developing(tmp_path, hume, ticker, changeOrigin=change_origin) as development:
        server = development.server
        await browser.open(f"{server.origin}/")
        opened = await browser.run(VERSION, "one")
        for options in ({}, POST_JSON):
            seen = await browser.call("ask", CONFIGS, options)
            assert (seen["type"], seen["status"]) == ("basic", 200), seen
        # Without a Referer only Host is left, which changeOrigin replaces by keyrelay's.
        seen = await browser.call("ask", CONFIGS, {"referrerPolicy": "no-referrer"})
        assert seen["status"] == (403 if change_origin else 200)

        # The development server sends a header section with the first piece of its body.
        hume.pieces.hold(passing=1)
        assert await browser.call("stream", "/hume/v0/tts/stream/json", POST_JSON) == 200
        for number in range(len(hume.chunks)):
            piece = (await browser.call("hear", number + 1))[number]
            assert json.loads(piece)["chunk_index"] == number
            hume.pieces.release()
        assert (await browser.call("hear", len(hume.chunks) + 1))[-1] is None

        await browser.run("heard.length = 0")
        assert await browser.call("events", "/ticker/events") == "open"
        ticks = [f"tick {number}" for number in range(1, TICKS + 1)]
        assert await browser.call("hear", TICKS) == ticks
        await browser.run("open.close()")

        await browser.run("heard.length = 0")
        socket = f"{server.origin.replace('http', 'ws')}{CHAT}"
        assert await browser.call("connect", socket) == {"subprotocol": ""}
        server.write_module("two")
        assert await browser.run(VERSION, "two") == opened
        await browser.call("say", "ünï¢ode")
        heard = await browser.call("hear", 2)
        assert json.loads(heard[0])["type"] == "chat_metadata"
        assert heard[1] == "ünï¢ode"
    assert hume.faults == ticker.faults == []


async def test_other_pages_gain_nothing_by_vites_proxy(
    browser: Browser, hume: HumeEmulator, ticker: Ticker, tmp_path: Path
) -> None:
    """A page of another port or host reaches the development server, which passes its requests on;
    keyrelay refuses them, GET and EventSource included, and no provider is contacted."""
    async with (
        developing(tmp_path, hume, ticker, changeOrigin=True) as development,
        pages.site() as foreign,
    ):
        server, recent = development.server, development.relay.app.exchange_log.recent
        sent = 0
        for page in (foreign.origin(), foreign.origin("127.0.0.1")):
            await browser.open(f"{page}/")
            for options in (
                {"mode": "no-cors"},
                {"mode": "no-cors", "referrerPolicy": "no-referrer"},
                {"mode": "no-cors", "method": "POST", "body": "{}"},
            ):
                await browser.call("ask", f"{server.origin}{CONFIGS}", options)
                sent += 1
            assert await browser.call("events", f"{server.origin}/ticker/events") == "error"
            sent += 1
            socket = f"{server.origin.replace('http', 'ws')}{CHAT}"
            assert await browser.call("connect", socket) == {"code": 1006}
            sent += 1
        await until(lambda: len(recent) >= sent)
        assert {(one.status, one.outcome) for one in recent} == {(403, "browser-not-allowed")}
        assert hume.connections == ticker.connections == 0


@pytest.mark.parametrize(
    ("listed", "proxied"),
    [(False, {}), (True, {"rewriteWsOrigin": True, "changeOrigin": True})],
    ids=["not-listed", "rewritten-origin"],
)
async def test_a_refused_page_behind_vites_proxy(
    browser: Browser,
    hume: HumeEmulator,
    ticker: Ticker,
    tmp_path: Path,
    listed: bool,
    proxied: dict[str, object],
) -> None:
    """The refusal names the cause; an Origin that Vite rewrites is not listed."""
    async with developing(tmp_path, hume, ticker, listed=listed, **proxied) as development:
        server, relay = development.server, development.relay
        await browser.open(f"{server.origin}/")
        await browser.run(VERSION, "one")
        socket = f"{server.origin.replace('http', 'ws')}{CHAT}"
        async with asyncio.timeout(60):
            assert await browser.call("connect", socket) == {"code": 1006}
        seen = await browser.call("ask", CONFIGS)
        if listed:
            assert seen["status"] == 200
        else:
            assert seen["status"] == 403
            assert "dev server's proxy" in json.loads(seen["text"])["detail"]
        assert relay.app.exchange_log.recent[0].outcome == "browser-not-allowed"
    assert hume.faults == []
