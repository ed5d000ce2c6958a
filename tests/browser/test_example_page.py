"""The example page in a real browser, unbuilt, against keyrelay with the example's own routes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from tests.browser.webdriver import Browser
from tests.emulators import HUME_KEY, json_answer
from tests.support.conversation import GREETING, ConversingHume
from tests.support.keyrelay import preset_keyrelay

pytestmark = pytest.mark.browser

PAGE = Path(__file__).parents[2] / "examples" / "browser"

# Resolves with the text of an element once it holds what is wanted.
SHOWN = """
const [selector, wanted] = arguments;
const element = document.querySelector(selector);
return new Promise((resolve, reject) => {
  const deadline = Date.now() + 10000;
  (function look() {
    const text = element.textContent.trim();
    if (text.includes(wanted)) resolve(text);
    else if (Date.now() > deadline) reject(new Error(`${selector} shows: ${text}`));
    else setTimeout(look, 5);
  })();
});
"""
SUBMIT = """
const [id, text] = arguments;
const form = document.getElementById(id);
form.elements.text.value = text;
form.requestSubmit();
"""
DRAWN = """
const canvas = document.getElementById("level");
const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
return data.reduce((sum, one) => sum + (one > 0), 0);
"""


@pytest.fixture
async def hume(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ConversingHume]:
    monkeypatch.setenv("HUME_API_KEY", HUME_KEY)
    async with ConversingHume(strategy="key") as emulator:
        yield emulator


@pytest.fixture
async def page(browser: Browser, hume: ConversingHume) -> AsyncIterator[Browser]:
    """The browser, with the page open."""

    async def index(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(PAGE / "index.html")

    application = web.Application()
    application.router.add_get("/", index)
    application.router.add_static("/", PAGE)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        origin = f"http://localhost:{runner.addresses[0][1]}"
        routes = yaml.safe_load((PAGE / "routes.yaml").read_text())["routes"]
        routes["hume"]["upstream"] = hume.origin
        async with preset_keyrelay(routes, origins=(origin,)) as relay:
            await browser.open(f"{origin}/?relay={relay.url}")
            yield browser
    finally:
        await runner.cleanup()


async def test_a_conversation_appears(page: Browser, hume: ConversingHume) -> None:
    """What is said reaches EVI, also before the socket is open; what EVI says is shown."""
    await page.run(SUBMIT, "chat", "Hello, who are you?")
    shown = await page.run(SHOWN, "#messages", GREETING)
    assert shown.startswith("Hello, who are you?")
    assert await page.run(SHOWN, "#chat-state", "connected") == "connected"
    await page.run(SUBMIT, "chat", "fail")
    await page.run(SHOWN, "#messages", "dummy failure")
    await page.run("document.getElementById('hang-up').click()")
    await page.run(SHOWN, "#chat-state", "closed (1000)")
    [chat] = hume.requests
    assert [json.loads(one)["text"] for one in chat.messages] == ["Hello, who are you?", "fail"]
    assert hume.faults == []

    await page.run(SUBMIT, "chat", "Again")
    await page.run(SHOWN, "#messages", "Again")
    assert len(hume.requests) == 2


async def test_speech_is_heard_while_it_arrives(page: Browser, hume: ConversingHume) -> None:
    """Each piece is counted, played and drawn before the next one is sent, to the last byte."""
    # Full scale, and the first piece ends within a sample.
    hume.chunks = [b"\xff\x7f" * 2000 + b"\xff", b"\x7f" + b"\xff\x7f" * 1000, b"\xff\x7f" * 500]
    hume.pieces.hold()
    before = await page.run(DRAWN)
    await page.run(SUBMIT, "speech", "Nobody had to give me a key.")
    await hume.pieces.reached()
    hume.pieces.release()
    await page.run(SHOWN, "#speech-state", "4000 bytes")
    drawn = await page.run(DRAWN)
    assert drawn > before
    hume.pieces.release()
    await page.run(SHOWN, "#speech-state", "6002 bytes")
    hume.pieces.open()
    await page.run(SHOWN, "#speech-state", "7002 bytes, complete")
    posts = [one for one in hume.requests if one.method == "POST"]
    assert len(posts) == 1
    said = json.loads(posts[0].body)
    assert said["utterances"][0]["text"] == "Nobody had to give me a key."
    assert said["format"] == {"type": "pcm"}
    assert hume.faults == []


async def test_speech_can_be_stopped(page: Browser, hume: ConversingHume) -> None:
    """Stop ends the provider's stream as well, not just the sound."""
    hume.pieces.hold()
    await page.run(SUBMIT, "speech", "A long story.")
    await hume.pieces.reached()
    hume.pieces.release()
    await page.run(SHOWN, "#speech-state", "4096 bytes")
    await page.run("document.getElementById('stop').click()")
    await page.run(SHOWN, "#speech-state", "4096 bytes, stopped")
    assert await hume.ended(0) == "client left"


async def test_a_refusal_is_shown(page: Browser, hume: ConversingHume) -> None:
    """The provider's status, or the words of keyrelay, where the sound would have been."""
    hume.answer_next(json_answer(429, {"error": "dummy"}))
    await page.run(SUBMIT, "speech", "Too much.")
    assert await page.run(SHOWN, "#speech-state", "429") == "429 from Hume"
    hume.answer_next(json_answer(200, {}), times=100)
    for _ in range(60):
        await page.run(SUBMIT, "speech", "Too often.")
    await page.run(SHOWN, "#speech-state", "rate")
