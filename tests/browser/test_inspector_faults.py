"""The inspector in a real browser: what it shows while things happen at the same time."""

from __future__ import annotations

import pytest

from proxy.observability.capture import EventStreamCapture
from tests.browser import pages
from tests.browser.inspector_tab import Tab
from tests.browser.webdriver import Browser
from tests.support.inspection import MASKER, Inspected, event_stream, frame

pytestmark = pytest.mark.browser

MASK = b"\x01\x02\x03\x04"
TEXTS = "[...document.querySelectorAll('.message pre')].map((one) => one.textContent).join()"
# Responses with a detail wait until the test lets them go, or fail then.
DELAYED = """
    const fetched = window.fetch;
    const [fails] = arguments;
    window.fetch = async (path, options) => {
        const response = await fetched(path, options);
        if (/exchanges.[0-9]/.test(path)) {
            await new Promise((resolve) => { window.letGo = resolve; });
            if (fails) throw new TypeError("not reached");
        }
        return response;
    };
"""


@pytest.mark.parametrize("fails", [False, True])
async def test_messages_before_the_detail_arrives(
    tab: Tab, running: Inspected, *, fails: bool
) -> None:
    """Messages that arrive while the page waits for the earlier ones follow behind those, or stand
    alone if those cannot be had."""
    watched = running.watched
    exchange = watched.begin("/v1/chat", websocket=True)
    watched.answer(exchange, 101)
    tap = watched.inspector_hub.tap(exchange, b"", MASKER)
    assert tap is not None
    tap.from_client(frame(b"one", mask=MASK))
    await tab.rows(1)
    await tab.run(DELAYED, fails)
    await tab.run("document.querySelector('.row').click()")
    await tab.until("window.letGo")
    tap.from_client(frame(b"two", mask=MASK))
    # A later exchange shows that the message before it has reached the page.
    watched.begin("/v1/later")
    await tab.rows(2)
    await tab.run("window.letGo()")
    await tab.until(f"{TEXTS} === arguments[0]", "two" if fails else "one,two")
    tap.from_client(frame(b"three", mask=MASK))
    await tab.until(f"{TEXTS} === arguments[0]", "two,three" if fails else "one,two,three")


@pytest.mark.parametrize("websocket", [True, False])
async def test_opened_before_the_response(tab: Tab, running: Inspected, *, websocket: bool) -> None:
    """An exchange without a response yet shows its messages later, and the page stays live."""
    watched = running.watched
    exchange = watched.begin("/v1/chat", websocket=websocket)
    await tab.rows(1)
    await tab.run(DELAYED, False)
    await tab.run("document.querySelector('.row').click()")
    # The detail is from before the response, and arrives after the first message.
    await tab.until("window.letGo")
    capture = (
        watched.inspector_hub.tap(exchange, b"", MASKER)
        if websocket
        else watched.inspector_hub.stream(exchange, event_stream(), MASKER)
    )
    assert capture is not None
    watched.answer(exchange, 101 if websocket else 200)
    for count, text in enumerate((b"data: 1", b"data: 2", b"data: 3"), 1):
        if isinstance(capture, EventStreamCapture):
            capture.feed(text + b"\n\n")
        else:
            capture.from_provider(frame(text))
        if count == 1:
            watched.begin("/v1/then")
            await tab.rows(2)
            await tab.run("window.letGo()")
        await tab.until("document.querySelectorAll('.message').length === arguments[0]", count)
    watched.serve("/v1/later")
    await tab.rows(3)
    assert await tab.run("return document.querySelector('#link').dataset.state") == "live"


async def test_an_event_stream_stays_one(tab: Tab, running: Inspected) -> None:
    """After its messages were discarded, and with an end that nobody saw."""
    watched = running.watched
    exchange = watched.begin("/v1/stream")
    stream = watched.inspector_hub.stream(exchange, event_stream(), MASKER)
    assert stream is not None
    watched.answer(exchange)
    await tab.until("document.querySelector('.row.kind-sse')")
    await tab.open("about:blank")
    watched.inspector_hub.stop()  # as after 20 seconds without a page
    stream.ended()
    watched.end(exchange)
    await tab.open(running.admin.page_url)
    [row] = await tab.rows(1)
    assert row[1] == "GET ⇣"
    await tab.run("document.querySelector('.row').click()")
    await tab.until("document.querySelector('.facts')?.textContent.includes('event stream')")


async def test_a_link_on_another_page(
    browser: Browser, site: pages.Site, running: Inspected
) -> None:
    """The printed address, clicked on a page of another site, opens the inspector; the token is
    neither in the address bar nor known to that page."""
    for target in ("", "_blank"):
        await browser.open(f"{site.origin()}/")
        await browser.run(
            """
            const link = document.createElement("a");
            [link.href, link.target, link.textContent] = [arguments[0], arguments[1], "inspector"];
            document.body.prepend(link);
            """,
            running.admin.page_url,
            target,
        )
        tab = Tab(browser)
        before = await tab.windows()
        await tab.click("a")
        if target:
            await tab.new_window(before)
        await tab.until("document.querySelector('#link')?.dataset.state === 'live'")
        assert await tab.run("return location.href") == f"{running.url}/"
        assert await tab.run("return window.opener") is None


async def test_the_newest_message_stays_in_view(tab: Tab, running: Inspected) -> None:
    """The pane follows as messages of any height arrive, unless the reader has scrolled; the line
    above them is never painted over."""
    watched = running.watched
    exchange = watched.begin("/v1/chat", websocket=True)
    watched.answer(exchange, 101)
    tap = watched.inspector_hub.tap(exchange, b"", MASKER)
    assert tap is not None
    await tab.rows(1)
    await tab.run("document.querySelector('.row').click()")

    async def say(first: int, last: int) -> None:
        for number in range(first, last):
            tap.from_provider(frame(b"%d " % number + b"word " * (number % 9 * 40)))
        await tab.until("document.querySelectorAll('.message').length === arguments[0]", last)

    visible = """
        (() => {
            const pane = document.querySelector(".messages-scroll").getBoundingClientRect();
            const last = document.querySelector(".message:last-child").getBoundingClientRect();
            return last.bottom <= pane.bottom + 1 && last.top < pane.bottom;
        })()
    """
    await say(0, 40)
    await tab.until(visible)
    await say(40, 80)
    await tab.until(visible)
    head = await tab.run(
        """
        const head = document.querySelector(".messages-head").getBoundingClientRect();
        const found = [];
        for (let x = head.left + 4; x < head.right; x += 10) {
            found.push(document.elementFromPoint(x, head.top + head.height / 2));
        }
        return found.every((one) => one.closest(".messages-head"));
        """
    )
    assert head
    await tab.run("document.querySelector('.messages-scroll').scrollTop = 0")
    await tab.until("!document.querySelector('.newest').hidden")
    await say(80, 90)
    assert await tab.run("return document.querySelector('.messages-scroll').scrollTop") == 0
    await tab.run("document.querySelector('.newest').click()")
    await tab.until(visible)
    await say(90, 100)
    await tab.until(visible)


async def test_a_route_whose_every_call_failed(tab: Tab, running: Inspected) -> None:
    """Its card is not green, and has the reasons; one call that succeeds makes it so again."""
    watched = running.watched
    watched.end(watched.begin("/v1", status=503), "no-token")
    watched.end(watched.begin("/v1", status=404))
    watched.end(watched.begin("/v1", status=200), "http_response_incomplete")
    watched.serve("/v1", 200, route="voice")
    await tab.run("document.querySelector('#tab-routes').click()")
    state = """
        [...document.querySelectorAll(".card")].find((one) =>
            one.querySelector("h3").textContent === arguments[0]).querySelector(".state")
    """
    await tab.until(f"{state}.textContent === 'every call failed'", "api")
    await tab.until(f"{state}.textContent === 'ready'", "voice")
    card = await tab.run(f"return {state.strip()}.closest('.card').innerText", "api")
    for reason in ("1 no-token", "1 http_response_incomplete", "1 by the provider"):
        assert reason in card
    watched.serve("/v1", 201)
    await tab.until(f"{state}.textContent === 'ready'", "api")


async def test_the_bytes_of_an_open_socket(tab: Tab, running: Inspected) -> None:
    """They are counted while it is open, in the list and in its detail."""

    class Session:
        moved = (0, 0)

    watched = running.watched
    exchange = watched.begin("/v1/chat", websocket=True)
    watched.answer(exchange, 101)
    session = exchange.session = Session()
    cells = "[...document.querySelector('.row').children].slice(8).map((one) => one.textContent)"
    await tab.until(f"document.querySelector('.row') && {cells}.join() === '0 B,0 B'")
    await tab.run("document.querySelector('.row').click()")
    session.moved = (1500, 2_500_000)
    await tab.until(f"{cells}.join() === '1.5 kB,2.5 MB'")
    await tab.until("document.querySelector('.facts').textContent.includes('2.5 MB')")


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_the_focus_ring(tab: Tab, running: Inspected, theme: str) -> None:
    """Where the keyboard is can be seen on all sides, over the rows, on every control."""
    for number in range(60):
        running.watched.serve(f"/v1/{number}")
    await tab.theme(theme)
    await tab.until("document.querySelectorAll('.row').length > 20")
    await tab.press("/")
    await tab.press("Enter")
    await tab.press("j")
    accent = await tab.run(
        "return getComputedStyle(document.querySelector('.listing'), '::after').borderTopColor"
    )
    box = await tab.run(
        """
        const box = document.querySelector(".listing").getBoundingClientRect();
        return [box.left, box.top, box.right, box.bottom];
        """
    )
    left, top, right, bottom = box
    middle, centre = (top + bottom) / 2, (left + right) / 2
    picture = await tab.pixels()
    # The edges may lie between two pixels.
    for x, y in ((left, middle), (right - 1, middle), (centre, top + 1), (centre, bottom - 1)):
        assert picture.at(x, y) == accent, (x, y)
    for control in ("#tab-traffic", "#filter", "#pause"):
        await tab.run("document.querySelector(arguments[0]).focus()", control)
        ring = "return getComputedStyle(document.querySelector(arguments[0])).outlineStyle"
        assert await tab.run(ring, control) == "solid"
