"""The live inspector in a real browser: it shows exchanges live, and to its own page alone.

Set KEYRELAY_SCREENSHOTS to a directory to look at what the last test sees.
"""

from __future__ import annotations

import base64

import pytest
from websockets.asyncio.client import connect

from proxy.app.status import Reload
from tests.browser import pages
from tests.browser.inspector_tab import CONTRAST, SHOWN, Tab
from tests.browser.webdriver import REBOUND, Browser
from tests.support.inspection import MASKER, Inspected, event_stream, frame
from tests.support.keyrelay import SECRET, client, until

pytestmark = pytest.mark.browser

MASK = b"\x01\x02\x03\x04"


async def test_the_token_leaves_the_address(tab: Tab, running: Inspected) -> None:
    """It is in this tab alone, where a reload finds it; neither in the address nor the history."""
    assert await tab.run("return location.href") == f"{running.url}/"
    await tab.open(f"{running.url}/")
    await tab.until("document.querySelector('#link').dataset.state === 'live'")
    assert await tab.run("return history.state") is None
    assert await tab.run("return localStorage.length + document.cookie.length") == 0


async def test_an_exchange_while_it_happens(tab: Tab, running: Inspected) -> None:
    """It is there as soon as it begins, gets its status, then its end."""
    watched = running.watched
    exchange = watched.begin("/v1/voices", "POST")
    [row] = await tab.rows(1)
    assert row[1:5] == ["POST", "api", "/v1/voices", "…"]
    watched.answer(exchange, 429)
    await tab.until("document.querySelector('.row .status').textContent === '429'")
    assert await tab.run("return document.querySelector('.row.live') !== null")
    exchange.received = 1234
    watched.end(exchange)
    await tab.until("document.querySelector('.row:not(.live)')")
    [row] = await tab.rows(1)
    assert row[9] == "1.2 kB"
    assert await tab.run("return document.querySelector('.row .status').className") == (
        "status tone-warn"
    )


async def test_a_conversation_while_it_happens(tab: Tab, running: Inspected) -> None:
    """Messages of both sides appear in order while the WebSocket is open, with what was said before
    somebody opened it, and no secret."""
    watched = running.watched
    exchange = watched.begin("/v1/chat", websocket=True)
    watched.answer(exchange, 101)
    tap = watched.inspector_hub.tap(exchange, b"", MASKER)
    assert tap is not None
    tap.from_client(frame(b'{"say": "before"}', mask=MASK))
    await tab.rows(1)
    await tab.run("document.querySelector('.row').click()")
    await tab.until("document.querySelectorAll('.message').length === 1")
    tap.from_provider(frame(b"<b>" + SECRET + b"</b>" + base64.b64encode(SECRET)))
    tap.from_client(frame(b"\x00\xff", opcode=2, mask=MASK))
    tap.from_provider(frame((4321).to_bytes(2) + b"enough", opcode=8))
    await tab.until("document.querySelectorAll('.message').length === 4")
    said = await tab.run(
        "return [...document.querySelectorAll('.message pre')].map((one) => one.textContent)"
    )
    stars = "*" * len(SECRET)
    assert said[0] == '{"say": "before"}'
    assert said[1].startswith(f"<b>{stars}</b>***")
    assert said[2:] == ["00 ff  ··", "close 4321 enough"]
    sides = "return [...document.querySelectorAll('.message .arrow')].map((one) => one.title)"
    assert await tab.run(sides) == [f"from the {one}" for one in ("client", "provider") * 2]
    assert await tab.run("return document.querySelector('.messages b')") is None


async def test_an_event_stream_while_it_happens(tab: Tab, running: Inspected) -> None:
    """Events appear one by one; the exchange is shown as a stream."""
    watched = running.watched
    exchange = watched.begin("/v1/stream", "POST")
    stream = watched.inspector_hub.stream(exchange, event_stream(), MASKER)
    assert stream is not None
    watched.answer(exchange)
    await tab.rows(1)
    await tab.run("document.querySelector('.row').click()")
    for number in range(1, 4):
        stream.feed(f"event: delta\ndata: {number}\n\n".encode())
        await tab.until("document.querySelectorAll('.message').length === arguments[0]", number)
    await tab.until("document.querySelector('.row.kind-sse')")
    stream.ended()
    watched.end(exchange)
    await tab.until("document.querySelector('.facts').textContent.includes('event stream')")
    await tab.until("!document.querySelector('.facts').textContent.includes('open')")


async def test_a_session_that_was_open_before(browser: Browser, running: Inspected) -> None:
    """Its messages cannot be read, and the page says why."""
    exchange = running.watched.begin("/v1/chat", websocket=True)
    running.watched.answer(exchange, 101)
    tab = Tab(browser)
    await tab.open(running.admin.page_url)
    await tab.rows(1)
    await tab.run("document.querySelector('.row').click()")
    await tab.until("document.querySelector('.aside')?.textContent.includes('boundaries')")


async def test_the_filter(tab: Tab, running: Inspected) -> None:
    """By column, by text, by their opposite; all words must match."""
    watched = running.watched
    watched.serve("/v1/voices", 200)
    watched.serve("/v1/voices", 404, method="DELETE")
    watched.serve("/v1/speech", 500, method="POST", route="voice")
    watched.begin("/v1/chat", websocket=True, route="voice")
    await tab.rows(4)
    for written, paths in {
        "status:4xx": ["/v1/voices"],
        "status:404": ["/v1/voices"],
        "status:open": ["/v1/chat"],
        "status:failed": ["/v1/speech", "/v1/voices"],
        "route:voice": ["/v1/chat", "/v1/speech"],
        "route:voice method:post": ["/v1/speech"],
        "kind:websocket": ["/v1/chat"],
        "-route:voice": ["/v1/voices", "/v1/voices"],
        "SPEECH": ["/v1/speech"],
        "nothing-like-it": [],
        "": ["/v1/chat", "/v1/speech", "/v1/voices", "/v1/voices"],
    }.items():
        await tab.run(
            "const f = document.querySelector('#filter'); f.value = arguments[0];"
            "f.dispatchEvent(new Event('input'))",
            written,
        )
        await tab.until(SHOWN, paths)
        if not paths:
            assert await tab.run("return document.querySelector('#empty').textContent") == (
                "Nothing matches the filter."
            )


async def test_the_keyboard(tab: Tab, running: Inspected) -> None:
    """Everything can be done with keys, and it can be seen where one is."""
    for number in range(1, 6):
        running.watched.serve(f"/v1/{number}")
    await tab.rows(5)
    chosen = "document.querySelector('.row[aria-selected=true] .path')?.textContent"
    for key, path in (("j", 5), ("j", 4), ("ArrowDown", 3), ("k", 4), ("ArrowUp", 5), ("k", 5)):
        await tab.press(key)
        await tab.until(f"{chosen} === arguments[0]", f"/v1/{path}")
    await tab.press("Enter")
    await tab.until("document.querySelector('#detail h2')?.textContent === 'GET /v1/5'")
    await tab.press("j")
    await tab.until("document.querySelector('#detail h2')?.textContent === 'GET /v1/4'")
    active = "document.querySelector('#list').getAttribute('aria-activedescendant')"
    assert await tab.run(f"return document.getElementById({active}).ariaSelected") == "true"
    await tab.press("Escape")
    await tab.until("document.querySelector('#detail').hidden")
    assert await tab.run("return document.activeElement.id") == "list"
    await tab.press("/")
    assert await tab.run("return document.activeElement.id") == "filter"
    await tab.type("v1/2")
    assert [row[3] for row in await tab.rows(1)] == ["/v1/2"]
    await tab.press("Enter")
    await tab.until(f"{chosen} === '/v1/2'")
    assert await tab.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"


async def test_copying_a_call(tab: Tab, running: Inspected) -> None:
    """What is copied calls keyrelay, quoted for a shell, with no credential in it."""
    await tab.tell(
        "Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"]
    )
    base = running.watched.app.listeners[0].url
    watched = running.watched
    for exchange, command in (
        (watched.serve("/v1/it's"), f"curl --globoff '{base}/api/v1/it'\\''s'"),
        (watched.serve("/v1/[a-z]"), f"curl --globoff '{base}/api/v1/[a-z]'"),
        (watched.serve("/v1", method="DELETE"), f"curl --globoff -X DELETE '{base}/api/v1'"),
        (
            watched.begin("/v1", "POST", sent=9),
            f"curl --globoff -X POST --data-binary @body '{base}/api/v1'",
        ),
    ):
        await tab.until(
            "document.querySelector(`.row[data-number='${arguments[0]}']`)", exchange.number
        )
        await tab.run(
            "document.querySelector(`.row[data-number='${arguments[0]}']`).click()", exchange.number
        )
        await tab.press("c")
        await tab.until("!document.querySelector('#toast').hidden")
        assert await tab.run("return navigator.clipboard.readText()") == command
        assert SECRET.decode() not in command


async def test_pause_and_clear(tab: Tab, running: Inspected) -> None:
    """Paused, the list stands still and says what it has left out; cleared, it begins anew."""
    running.watched.serve("/v1/1")
    await tab.rows(1)
    await tab.run("document.querySelector('#pause').click()")
    running.watched.serve("/v1/2")
    await tab.until("document.querySelector('#count').value === '1, 1 more since'")
    assert len(await tab.rows(1)) == 1
    await tab.run("document.querySelector('#pause').click()")
    await tab.rows(2)
    await tab.run("document.querySelector('#clear').click()")
    await tab.rows(0)
    running.watched.serve("/v1/3")
    assert [row[3] for row in await tab.rows(1)] == ["/v1/3"]


async def test_routes(tab: Tab, running: Inspected) -> None:
    """Which are ready, what the others lack; a reload tells what it found."""
    await tab.until("document.querySelector('#unready').textContent === '1'")
    await tab.run("document.querySelector('#tab-routes').click()")
    assert await tab.run("return document.querySelectorAll('.card').length") == 4
    assert "LATER_API_KEY" in await tab.run("return document.querySelector('.remedy').textContent")
    running.watched.report = Reload(1.0, findings=("routes.yaml:3:1: unknown key <b>",))
    await tab.run("document.querySelector('#reload').click()")
    await tab.until(
        "document.querySelector('.findings li')?.textContent.includes('unknown key <b>')"
    )
    running.watched.report = Reload(2.0, changed=("api has other settings",))
    await tab.run("document.querySelector('#reload').click()")
    await tab.until("document.querySelector('.changes li')?.textContent.includes('other settings')")


async def test_real_traffic(tab: Tab, running: Inspected) -> None:
    """What the built-in provider is really asked for: an answer, events, a WebSocket, each seen
    while it goes on."""
    base = running.watched.app.listeners[0].url
    port = running.watched.app.listeners[0].address.port
    async with client() as session:
        async with session.get(f"{base}/demo/echo/hello") as answer:
            assert answer.status == 200
        await tab.until(SHOWN, ["/echo/hello"])
        async with session.get(f"{base}/demo/sse?n=50&interval_ms=50") as answer:
            await answer.content.readany()
            await tab.until("document.querySelector('.row.kind-sse.live')")
            await tab.run("document.querySelector('.row.kind-sse').click()")
            await tab.until("document.querySelectorAll('.message').length >= 2")
    await tab.until("!document.querySelector('.row.live')")
    async with connect(f"ws://127.0.0.1:{port}/demo/ws", proxy=None) as socket:
        await tab.until("document.querySelector('.row.kind-websocket.live')")
        await tab.run("document.querySelector('.row.kind-websocket').click()")
        await socket.send("Is anybody there?")
        await tab.until(
            "[...document.querySelectorAll('.message.from-client pre')]"
            ".some((one) => one.textContent === 'Is anybody there?')"
        )
        await tab.until("document.querySelector('.message.from-provider')")
    await tab.until("!document.querySelector('.row.live')")


@pytest.mark.parametrize("fragment", ["", "#token=wrong", "#other"])
async def test_a_wrong_token(browser: Browser, running: Inspected, fragment: str) -> None:
    """The page says what is wrong and what to open; the right address then works in this tab."""
    running.watched.serve("/v1/hidden")
    tab = Tab(browser)
    await tab.open(f"{running.url}/{fragment}")
    await tab.until("!document.querySelector('#gate').hidden")
    said = await tab.run("return document.querySelector('#gate').innerText")
    assert "token" in said
    assert f"{running.url}/#token=" in said
    assert await tab.run("return document.querySelectorAll('.row').length") == 0
    await tab.run("location.hash = arguments[0]", f"token={running.token}")
    await tab.rows(1)
    assert await tab.run("return document.querySelector('#gate').hidden")


async def test_a_new_start(tab: Tab, running: Inspected) -> None:
    """When keyrelay ends, the page says so instead of standing still."""
    await running.admin.close()
    await tab.until("document.querySelector('#link').dataset.state === 'lost'")


async def test_foreign_pages(browser: Browser, site: pages.Site, running: Inspected) -> None:
    """A page of any other origin learns nothing, with the token or without; nor can it frame the
    inspector, or read it under a rebound name."""
    running.watched.serve("/v1/hidden")
    port = running.admin.listener.address.port
    await browser.open(f"{site.origin()}/")
    headers = {"Authorization": f"Bearer {running.token}"}
    for host in ("127.0.0.1", "localhost"):
        for path in ("/", "/main.js", "/api/exchanges", "/api/events", "/metrics"):
            for options in ({}, {"headers": headers}, {"mode": "no-cors"}):
                seen = await browser.call("ask", f"http://{host}:{port}{path}", options)
                assert not seen.get("text"), (path, options)
    options = {"method": "POST", "mode": "no-cors"}
    await browser.call("ask", f"{running.url}/api/reload", options)
    assert running.watched.app.reloads.count == 0
    for tag in ("script", "img"):
        assert await browser.call("put", tag, {"src": f"{running.url}/main.js"}) == "error"
    await browser.call("put", "iframe", {"src": running.admin.page_url})
    look = "return document.querySelector('iframe').contentDocument === null"
    assert await browser.run(look) is True
    assert running.watched.inspector_hub.active is False
    await browser.open(f"http://{REBOUND}:{port}/#token={running.token}")
    assert "does not answer under this host name" in await browser.text()


async def test_ten_thousand_exchanges(tab: Tab, running: Inspected) -> None:
    """Neither the document, nor the page's memory, nor the work of a scroll grows with them."""

    async def measured() -> tuple[int, int]:
        await tab.tell("HeapProfiler.collectGarbage")
        found = await tab.tell("Performance.getMetrics")
        values = {one["name"]: one["value"] for one in found["metrics"]}
        return int(values["Nodes"]), int(values["JSHeapUsedSize"])

    await tab.tell("Performance.enable")
    watched = running.watched

    async def serve(first: int, last: int) -> None:
        for number in range(first, last):
            watched.serve(f"/v1/things/{number}?", 200 if number % 7 else 404)
            if number % 250 == 0:
                watched.exchange_log.flush()
                await tab.run("return 0")
        await tab.until(
            "document.querySelector('.row .path') && [...document.querySelectorAll('.row .path')]"
            ".some((one) => one.textContent === arguments[0])",
            f"/v1/things/{last - 1}?",
        )

    await serve(0, 3000)
    nodes, heap = await measured()
    await serve(3000, 13_000)
    later_nodes, later_heap = await measured()
    assert await tab.run("return document.querySelectorAll('*').length") < 1000
    assert later_nodes < nodes + 500
    assert later_heap < heap + 3_000_000
    assert await tab.run("return document.querySelector('#count').value") == "2000"
    # Work instead of time: a jump changes the rows in sight and no others.
    await tab.run(
        """
        window.changes = 0;
        new MutationObserver((records) => { window.changes += records.length; }).observe(
            document.querySelector("#list"),
            { attributes: true, characterData: true, childList: true, subtree: true },
        );
        """
    )
    jumps = range(7919, 10 * 7919, 7919)
    for top in jumps:
        await tab.run("document.querySelector('#list').scrollTop = arguments[0]", top % 59_000)
        await tab.until(
            "document.querySelector(`.row[aria-rowindex='${arguments[0]}']`)",
            top % 59_000 // 30 + 2,
        )
    changes, rows = await tab.run(
        "return [window.changes, document.querySelectorAll('.row').length]"
    )
    assert rows < 80
    # Ten cells, and as many attributes at most.
    assert rows < changes <= len(jumps) * 22 * rows
    await tab.run("document.querySelector('#list').scrollTop = 0")
    await tab.press("j")
    await tab.until("document.querySelector('.row[aria-selected=true]')")


async def test_a_reader_is_not_disturbed(tab: Tab, running: Inspected) -> None:
    """A scrolled list keeps showing the same exchanges while new ones arrive."""
    for number in range(200):
        running.watched.serve(f"/v1/{number}")
    await tab.until("document.querySelector('#count').value === '200'")
    await tab.run("document.querySelector('#list').scrollTop = 1500")
    at = """
        const list = document.querySelector("#list").getBoundingClientRect();
        return document.elementFromPoint(list.left + 300, list.top + 100).closest(".row")
            .querySelector(".path").textContent;
    """
    await tab.until("document.querySelector('.row[aria-rowindex=\"51\"]')")
    before = await tab.run(at)
    for number in range(200, 230):
        running.watched.serve(f"/v1/{number}")
    await tab.until("document.querySelector('#count').value === '230'")
    await tab.until("document.querySelector('#list').scrollTop === 2400")
    assert await tab.run(at) == before


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_it_can_be_read(tab: Tab, running: Inspected, theme: str) -> None:
    """In either theme every text stands out (WCAG 2.2, 1.4.3); nothing is wider than a phone."""
    watched = running.watched
    watched.report = Reload(
        1.0, findings=("routes.yaml:12:5: unknown key upstreem\n    did you mean upstream?",)
    )
    await watched.reload()
    for number, (method, path, status, route) in enumerate(
        [
            ("GET", "/v1/voices", 200, "api"),
            ("POST", "/v1/tts", 201, "voice"),
            ("GET", "/v1/redirected", 302, "api"),
            ("DELETE", "/v1/voices/ba41c0f2-9c8d-4c8e-9a4a-1f2f6f7f6b7e", 404, "api"),
            ("POST", "/v1/tts/stream/json", 429, "voice"),
            (
                "PATCH",
                "/v1/voices/with/a/path/that/is/longer/than/any/column/can/show/at/once",
                500,
                "api",
            ),
            ("GET", "/v1/me", 503, "later"),
        ]
        * 3
    ):
        exchange = watched.begin(path, method, route=route)
        watched.answer(exchange, status)
        exchange.sent, exchange.received = number * 97, 10 ** (number % 7)
        watched.end(exchange, "route-not-ready" if status == 503 else "")
    chat = watched.begin("/v1/evi/chat", websocket=True, route="voice", request_id="01J0DUMMY")
    watched.answer(chat, 101)
    tap = watched.inspector_hub.tap(chat, b"", MASKER)
    assert tap is not None
    tap.from_client(
        frame(
            b'{"type": "settings", "audio": {"encoding": "linear16", "sample_rate": 44100}}',
            mask=MASK,
        )
    )
    tap.from_client(frame(bytes(range(200)), opcode=2, mask=MASK))
    tap.from_provider(
        frame('{"type": "user_message", "text": "Grüße — wie geht es dir?"}'.encode())
    )
    tap.from_provider(frame(b"p", opcode=9))
    tap.from_client(frame(b"p", opcode=10, mask=MASK))
    tap.from_provider(
        frame(b'{"type": "assistant_message", "text": "' + b"lorem ipsum " * 60 + b'"}')
    )
    waiting = watched.begin("/v1/slow")
    await tab.theme(theme)
    await tab.until("document.querySelectorAll('.row').length > 10")
    await until(lambda: watched.exchange_log.open == {chat, waiting})
    for width in (1360, 900, 360):
        await tab.size(width, 760)
        await tab.until("innerWidth === arguments[0]", width)
        await tab.look(f"list-{theme}-{width}")
        assert await tab.run(CONTRAST) == []
        assert await tab.run("return document.documentElement.scrollWidth") <= width
        await tab.run("document.querySelector(`.row.kind-websocket`).click()")
        await tab.until("document.querySelectorAll('.message').length === 6")
        await tab.look(f"detail-{theme}-{width}")
        assert await tab.run(CONTRAST) == []
        await tab.run("document.querySelector('#close').click()")
        await tab.run("document.querySelector('#tab-routes').click()")
        await tab.look(f"routes-{theme}-{width}")
        assert await tab.run(CONTRAST) == []
        assert await tab.run("return document.documentElement.scrollWidth") <= width
        await tab.run("document.querySelector('#tab-traffic').click()")
        await tab.until("document.querySelectorAll('.row').length > 5")
