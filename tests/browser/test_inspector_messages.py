"""The inspector in a real browser: messages as people read them, and the order of the list."""

from __future__ import annotations

import base64
import json

import pytest

from proxy.observability.capture import WebSocketCapture
from tests.browser.inspector_tab import SHOWN, Tab
from tests.support.inspection import MASKER, Inspected, event_stream, frame

pytestmark = pytest.mark.browser

MASK = b"\x01\x02\x03\x04"
AUDIO = base64.b64encode(bytes(range(256)) * 8).decode()
TEXTS = "[...document.querySelectorAll('.message:not([hidden]) pre')].map((p) => p.textContent)"
LABELS = "[...document.querySelectorAll('.message .label')].map((one) => one.textContent)"


async def opened(tab: Tab, running: Inspected) -> WebSocketCapture:
    """A WebSocket that is open in the page."""
    exchange = running.watched.begin("/v1/chat", websocket=True)
    running.watched.answer(exchange, 101)
    tap = running.watched.inspector_hub.tap(exchange, b"", MASKER)
    assert tap is not None
    await tab.rows(1)
    await tab.run("document.querySelector('.row').click()")
    return tap


async def test_json_and_audio(tab: Tab, running: Inspected) -> None:
    """JSON is indented and has its type as a label; audio in Base64 is folded until it is wanted;
    what is copied is the message as it was."""
    await tab.tell(
        "Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"]
    )
    tap = await opened(tab, running)
    message = json.dumps({"type": "audio_output", "id": "dummy", "data": AUDIO})
    tap.from_provider(frame(message.encode()))
    tap.from_client(frame(b'{"type": "pause"}', mask=MASK))
    tap.from_provider(frame(b'{"type": "cut", "text": "' + b"lorem " * 5000 + b'"}'))
    await tab.until("document.querySelectorAll('.message').length === 3")
    assert await tab.run(f"return {LABELS}") == ["audio_output", "pause", "cut"]
    first, second, third = await tab.run(f"return {TEXTS}")
    assert first.startswith('{\n  "type": "audio_output",\n')
    assert "(Base64, 2.0 kB)" in first
    assert AUDIO not in first
    assert second == '{"type": "pause"}'
    assert third.endswith(" …")
    await tab.run("document.querySelector('.message button[aria-expanded=false]').click()")
    await tab.until(f"{TEXTS}[0].includes(arguments[0])", AUDIO)
    await tab.run("document.querySelector('.copy-message').click()")
    await tab.until("!document.querySelector('#toast').hidden")
    assert await tab.run("return navigator.clipboard.readText()") == message


async def test_bytes(tab: Tab, running: Inspected) -> None:
    """Binary messages are in hex beside their ASCII."""
    tap = await opened(tab, running)
    tap.from_client(frame(b"RIFF\x00\x01\x02\x03WAVEfmt ", opcode=2, mask=MASK))
    await tab.until("document.querySelectorAll('.message').length === 1")
    assert await tab.run(f"return {TEXTS}") == [
        "52 49 46 46 00 01 02 03  RIFF····\n57 41 56 45 66 6d 74 20  WAVEfmt "
    ]


async def test_events(tab: Tab, running: Inspected) -> None:
    """The name of an event, else the type in its data, is its label."""
    exchange = running.watched.begin("/v1/stream")
    stream = running.watched.inspector_hub.stream(exchange, event_stream(), MASKER)
    assert stream is not None
    running.watched.answer(exchange)
    await tab.rows(1)
    await tab.run("document.querySelector('.row').click()")
    stream.feed(b'event: delta\ndata: {"type": "other"}\n\ndata: {"type": "inner"}\n\ndata: x\n\n')
    await tab.until("document.querySelectorAll('.message').length === 3")
    assert await tab.run(f"return {LABELS}") == ["delta", "inner"]


async def test_search_and_direction(tab: Tab, running: Inspected) -> None:
    """Both apply together, to messages that arrive later too; the count says how many match."""
    tap = await opened(tab, running)
    tap.from_client(frame(b"one apple", mask=MASK))
    tap.from_provider(frame(b"two apples"))
    tap.from_provider(frame(b"a pear"))
    await tab.until("document.querySelectorAll('.message').length === 3")
    choose = """
        const [selector, value] = arguments;
        const field = document.querySelector(selector);
        field.value = value;
        field.dispatchEvent(new Event(field.tagName === "SELECT" ? "change" : "input"));
    """
    await tab.run(choose, ".message-search", "APPLE")
    assert await tab.run(f"return {TEXTS}") == ["one apple", "two apples"]
    await tab.run(choose, ".message-side", "provider")
    assert await tab.run(f"return {TEXTS}") == ["two apples"]
    assert await tab.run("return document.querySelector('.message-count').textContent") == "1 of 3"
    tap.from_client(frame(b"apple again", mask=MASK))
    tap.from_provider(frame(b"last apple"))
    await tab.until("document.querySelectorAll('.message').length === 5")
    assert await tab.run(f"return {TEXTS}") == ["two apples", "last apple"]


async def test_the_order(tab: Tab, running: Inspected) -> None:
    """The list is sorted by what is chosen, also as exchanges arrive."""
    watched = running.watched

    def serve(path: str, status: int, received: int) -> None:
        exchange = watched.begin(path, received=received)
        watched.answer(exchange, status)
        watched.end(exchange)

    serve("/a", 200, 10)
    serve("/b", 500, 5)
    serve("/c", 404, 500)
    await tab.until(SHOWN, ["/c", "/b", "/a"])
    for order, paths in (
        ("status", ["/b", "/c", "/a"]),
        ("largest", ["/c", "/a", "/b"]),
        ("", ["/c", "/b", "/a"]),
    ):
        await tab.run(
            "const s = document.querySelector('#sort'); s.value = arguments[0];"
            "s.dispatchEvent(new Event('change'))",
            order,
        )
        await tab.until(SHOWN, paths)
    await tab.run(
        "const s = document.querySelector('#sort'); s.value = 'largest';"
        "s.dispatchEvent(new Event('change'))"
    )
    serve("/d", 200, 50)
    await tab.until(SHOWN, ["/c", "/d", "/a", "/b"])


@pytest.mark.parametrize("where", [".message-search", ".message-side", "#sort"])
async def test_keys_in_fields(tab: Tab, running: Inspected, where: str) -> None:
    """Keys of a field of the page are the field's: no letter closes, moves or copies."""
    await opened(tab, running)
    await tab.run("document.querySelector(arguments[0]).focus()", where)
    for key in ("j", "c", "k"):
        await tab.press(key)
    assert await tab.run("return document.querySelector('#toast').hidden")
    await tab.press("Escape")
    assert await tab.run("return document.activeElement.id") == "list"
