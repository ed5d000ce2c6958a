"""Every other way in which a real browser can make a request: it gets nothing at all.

Each test sees that the attempt reached keyrelay and was refused there; that the provider was not
dialled; and that the page learnt nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.browser import pages
from tests.browser.webdriver import REBOUND, Browser
from tests.emulators import HumeEmulator
from tests.support.keyrelay import Running, preset_keyrelay, until

pytestmark = pytest.mark.browser

TARGET = "/hume/v0/evi/configs"
CHAT = "/hume/v0/evi/chat"
SIMPLE = {"method": "POST", "headers": {"Content-Type": "text/plain"}, "body": "{}"}
PREFLIGHTED = {"method": "POST", "headers": {"Content-Type": "application/json"}, "body": "{}"}
FAILED = {"failed": "TypeError"}
OPAQUE = {"type": "opaque", "status": 0, "headers": {}, "text": ""}


@pytest.fixture
async def foreign() -> AsyncIterator[pages.Site]:
    """A site on another port, which is not on the allowlist."""
    async with pages.site() as foreign:
        yield foreign


async def refused(relay: Running, hume: HumeEmulator, status: int = 403, times: int = 1) -> None:
    """Keyrelay saw at least so many requests and refused all of them; Hume saw no connection."""
    recent = relay.app.exchange_log.recent
    await until(lambda: len(recent) >= times)
    assert {one.status for one in recent} == {status}
    assert {one.outcome for one in recent} == {
        "browser-not-allowed" if status == 403 else "host-not-allowed"
    }
    assert hume.connections == 0


# Function of the page, its arguments ({http} and {ws} stand for keyrelay), what the page learns.
REQUESTS: dict[str, tuple[str, list[Any], Any]] = {
    "get": ("ask", ["{http}" + TARGET], FAILED),
    "no-cors-get": ("ask", ["{http}" + TARGET, {"mode": "no-cors"}], OPAQUE),
    "simple-post": ("ask", ["{http}" + TARGET, SIMPLE], FAILED),
    "no-cors-post": ("ask", ["{http}" + TARGET, {**SIMPLE, "mode": "no-cors"}], OPAQUE),
    "preflight": ("ask", ["{http}" + TARGET, PREFLIGHTED], FAILED),
    "delete": ("ask", ["{http}" + TARGET, {"method": "DELETE"}], FAILED),
    "token": ("ask", ["{http}/-/token/hume", {"method": "POST"}], FAILED),
    "own-name": ("ask", ["http://hume.localhost:{port}/v0/evi/configs"], FAILED),
    "events": ("events", ["{http}" + TARGET], "error"),
    "socket": ("connect", ["{ws}" + CHAT], {"code": 1006}),
    "socket-bearer": ("connect", ["{ws}" + CHAT, ["bearer_client-dummy"]], {"code": 1006}),
}
BEACON = ("beacon", ["{http}" + TARGET], True)  # it was sent, no more


def filled(value: Any, relay: Running) -> Any:
    """The arguments for this keyrelay."""
    if isinstance(value, list):
        return [filled(one, relay) for one in value]
    if not isinstance(value, str):
        return value
    host = f"localhost:{relay.port}"
    replaced = value.replace("{http}", f"http://{host}").replace("{ws}", f"ws://{host}")
    return replaced.replace("{port}", str(relay.port))


async def test_a_page_on_another_port(
    browser: Browser, hume: HumeEmulator, relay: Running, foreign: pages.Site
) -> None:
    """No fetch of any kind, no beacon, no EventSource, no WebSocket; nothing can be read."""
    await browser.open(f"{foreign.origin()}/")
    for number, name in enumerate([*REQUESTS, "beacon"], 1):
        function, arguments, learnt = REQUESTS.get(name, BEACON)
        assert await browser.call(function, *filled(arguments, relay)) == learnt, name
        await refused(relay, hume, times=number)


async def test_a_sandboxed_frame_of_an_allowed_page(
    browser: Browser, hume: HumeEmulator, relay: Running, site: pages.Site
) -> None:
    """Its origin is null, which any frame can have; it gets nothing though the page around may."""
    await browser.open(f"{site.origin()}/")
    for number, (name, (function, arguments, learnt)) in enumerate(REQUESTS.items(), 1):
        seen = await browser.call("sandboxed", function, *filled(arguments, relay))
        assert seen == learnt, name
        await refused(relay, hume, times=number)
    assert "'null'" in {one.log_detail for one in relay.app.exchange_log.recent}


ELEMENTS: dict[str, dict[str, object]] = {
    "img": {"src": "{url}"},
    "script": {"src": "{url}"},
    "link": {"rel": "stylesheet", "href": "{url}"},
    "audio": {"src": "{url}", "preload": "auto"},
    "iframe": {"src": "{url}"},
    "embed": {"src": "{url}"},
    "object": {"data": "{url}"},
}


@pytest.mark.parametrize("allowed", [True, False], ids=["allowed", "foreign"])
async def test_elements_of_a_page(
    browser: Browser,
    hume: HumeEmulator,
    relay: Running,
    site: pages.Site,
    foreign: pages.Site,
    allowed: bool,
) -> None:
    """Images, scripts, styles, sounds, frames: they name no origin, so not even those of an
    allowed page get anything; a frame shows our refusal and cannot be looked into."""
    await browser.open(f"{(site if allowed else foreign).origin()}/")
    for number, (tag, attributes) in enumerate(ELEMENTS.items(), 1):
        url = f"http://localhost:{relay.port}{TARGET}?{tag}"
        given = {key: url if value == "{url}" else value for key, value in attributes.items()}
        seen = await browser.call("put", tag, given)
        # Frames tell nobody how they fared.
        assert seen == ("load" if tag in {"iframe", "embed"} else "error"), tag
        await refused(relay, hume, times=number)
    look = "return document.querySelector('iframe').contentDocument === null"
    assert await browser.run(look) is True


async def test_elements_that_name_their_origin(
    browser: Browser, hume: HumeEmulator, relay: Running, foreign: pages.Site
) -> None:
    """With ``crossorigin`` an element names its page's origin, which is a foreign one."""
    await browser.open(f"{foreign.origin()}/")
    for number, tag in enumerate(("img", "script", "audio"), 1):
        url = f"http://localhost:{relay.port}{TARGET}?{tag}"
        given = {"crossOrigin": "anonymous", "src": url}
        assert await browser.call("put", tag, given) == "error", tag
        await refused(relay, hume, times=number)


async def test_a_script_of_an_allowed_page(
    browser: Browser, hume: HumeEmulator, relay: Running, site: pages.Site
) -> None:
    """A provider's answer never runs as a script or module of a page, allowed as it may be."""
    await browser.open(f"{site.origin()}/")
    url = f"http://localhost:{relay.port}{TARGET}"
    for number, kind in enumerate(({"crossOrigin": "anonymous"}, {"type": "module"}), 1):
        assert await browser.call("put", "script", {**kind, "src": url}) == "error"
        await refused(relay, hume, times=number)


async def test_a_form(
    browser: Browser, hume: HumeEmulator, relay: Running, site: pages.Site, foreign: pages.Site
) -> None:
    """A form that is sent to a route, by whatever page and wherever its answer goes, spends
    nothing."""
    url = f"http://localhost:{relay.port}{TARGET}"
    ways = itertools.product((site, foreign), ("GET", "POST"), ("", "below"))
    for number, (page, method, frame) in enumerate(ways, 1):
        await browser.open(f"{page.origin()}/")
        await browser.call("submit", f"{url}?{number}", method, frame)
        await refused(relay, hume, times=number)


async def test_a_navigation(
    browser: Browser, hume: HumeEmulator, relay: Running, site: pages.Site
) -> None:
    """A user that types a route's address, or follows a link to it, sees keyrelay's response."""
    for base in ("localhost:{}/hume", "127.0.0.1:{}/hume", "hume.localhost:{}"):
        url = f"http://{base.format(relay.port)}/v0/evi/configs"
        seen = len(relay.app.exchange_log.recent)
        await browser.open(url)
        assert "serves no pages" in await browser.text()
        await refused(relay, hume, times=seen + 1)
        await browser.open(f"{site.origin()}/")
        seen = len(relay.app.exchange_log.recent)
        await browser.call("visit", url)
        await refused(relay, hume, times=seen + 1)


async def taking_over(
    browser: Browser, hume: HumeEmulator, host: str, *, listed: bool = True
) -> AsyncIterator[tuple[Running, str]]:
    """Keyrelay on the port from which the browser's page came: they are of one origin.

    This is what rebinding a name comes down to, and a page that some other program served at
    keyrelay's port before. The page's own origin is even an allowed one if it is ``listed``.
    """
    async with pages.site() as site:
        origin = site.origin(host)
        await browser.open(f"{origin}/")
    settings: dict[str, Any] = {"listen": f"127.0.0.1:{site.port}", "origins": (origin,) * listed}
    routes = {"hume": {"provider": "hume", "upstream": hume.origin}}
    async with preset_keyrelay(routes, **settings) as relay:
        yield relay, origin


@pytest.fixture
async def rebound(browser: Browser, hume: HumeEmulator) -> AsyncIterator[tuple[Running, str]]:
    async for taken in taking_over(browser, hume, REBOUND):
        yield taken


async def test_a_rebound_name(
    browser: Browser, hume: HumeEmulator, rebound: tuple[Running, str]
) -> None:
    """A page whose own name leads here needs no CORS and may read everything; it is refused by
    the name, in HTTP and WebSocket alike, even if its origin is on the allowlist."""
    relay, origin = rebound
    requests = [{}, SIMPLE, PREFLIGHTED, {"method": "DELETE"}, {"mode": "no-cors"}]
    for number, options in enumerate(requests, 1):
        seen = await browser.call("ask", f"{origin}{TARGET}", options)
        assert (seen["type"], seen["status"]) == ("basic", 421)
        await refused(relay, hume, 421, times=number)
    socket = origin.replace("http", "ws") + CHAT
    assert await browser.call("connect", socket) == {"code": 1006}
    assert await browser.call("events", f"{origin}{TARGET}") == "error"
    assert await browser.call("put", "img", {"src": f"{origin}{TARGET}?img"}) == "error"
    await browser.open(f"{origin}{TARGET}")
    assert "does not serve this host name" in await browser.text()
    await refused(relay, hume, 421, times=len(requests) + 4)


@pytest.fixture
async def inside(browser: Browser, hume: HumeEmulator) -> AsyncIterator[tuple[Running, str]]:
    async for taken in taking_over(browser, hume, "localhost"):
        yield taken


async def test_workers_of_the_same_origin(
    browser: Browser, hume: HumeEmulator, inside: tuple[Running, str]
) -> None:
    """No answer becomes a service worker, which would see all later traffic, nor any worker."""
    relay, origin = inside
    assert await browser.call("register", f"{origin}/hume/worker.js") == "TypeError"
    await refused(relay, hume, times=1)
    for number, shared in enumerate((False, True), 2):
        seen = await browser.call("work", f"{origin}/hume/v0/worker.js?{shared}", shared)
        assert seen == "error"
        await refused(relay, hume, times=number)


async def test_a_page_of_the_same_origin_is_refused_unless_listed(
    browser: Browser, hume: HumeEmulator
) -> None:
    """Its GET names no Origin, but the browser proves of which one it is by other fields."""
    async for relay, origin in taking_over(browser, hume, "localhost", listed=False):
        for options in ({}, {"referrerPolicy": "no-referrer"}):
            seen = await browser.call("ask", f"{origin}{TARGET}", options)
            assert (seen["type"], seen["status"]) == ("basic", 403)
        await refused(relay, hume, times=2)


async def test_a_page_of_the_same_origin_is_served_if_listed(
    browser: Browser, inside: tuple[Running, str]
) -> None:
    """As behind a dev server's proxy: with a Referer, and by Host without one."""
    _, origin = inside
    for options in ({}, {"referrerPolicy": "no-referrer"}):
        seen = await browser.call("ask", f"{origin}{TARGET}", options)
        assert (seen["type"], seen["status"]) == ("basic", 200)
