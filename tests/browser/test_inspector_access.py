"""The inspector for everybody: names for screen readers, keys for all that a mouse can do."""

from __future__ import annotations

import json

import pytest

from tests.browser.inspector_tab import Tab
from tests.support.inspection import MASKER, Inspected, frame

pytestmark = pytest.mark.browser

MASK = b"\x01\x02\x03\x04"
# Roles whose name the user needs in order to know what the element does.
NAMED = {
    *("button", "tab", "searchbox", "combobox", "grid", "log", "region", "tabpanel", "tablist"),
    *("complementary", "textbox"),
}


async def test_names_for_screen_readers(tab: Tab, running: Inspected) -> None:
    """Every control and region has a name in the browser's accessibility tree; the table's cells
    and the state of the selection are in it."""
    watched = running.watched
    exchange = watched.begin("/v1/chat", websocket=True)
    watched.answer(exchange, 101)
    tap = watched.inspector_hub.tap(exchange, b"", MASKER)
    assert tap is not None
    tap.from_client(frame(b'{"type": "hello"}', mask=MASK))
    await tab.rows(1)
    await tab.run("document.querySelector('.row').click()")
    await tab.until("document.querySelector('.message')")
    found = await tab.tell("Accessibility.getFullAXTree")
    nodes = [
        (one["role"]["value"], one.get("name", {}).get("value", ""))
        for one in found["nodes"]
        if not one.get("ignored") and "role" in one
    ]
    assert [role for role, name in nodes if role in NAMED and not name] == []
    for expected in (
        ("grid", "Exchanges"),
        ("searchbox", "Filter"),
        ("combobox", "Order"),
        ("button", "Copy message 1"),
        ("tab", "Messages"),
        ("log", "Messages"),
        ("gridcell", "/v1/chat"),
    ):
        assert expected in nodes, expected


async def test_everything_is_reached_by_the_keyboard(tab: Tab, running: Inspected) -> None:
    """Tab goes through every control that can be used, in the order of the page, and each shows
    that it has the focus."""
    watched = running.watched
    exchange = watched.begin("/v1/chat", websocket=True)
    watched.answer(exchange, 101)
    tap = watched.inspector_hub.tap(exchange, b"", MASKER)
    assert tap is not None
    tap.from_client(frame(b"hello", mask=MASK))
    await tab.rows(1)
    await tab.run("document.querySelector('.row').click(); document.activeElement.blur();")
    await tab.until("document.querySelector('.message')")
    reached: list[str] = []
    for _ in range(20):
        await tab.tell("Input.dispatchKeyEvent", type="keyDown", key="Tab", windowsVirtualKeyCode=9)
        await tab.tell("Input.dispatchKeyEvent", type="keyUp", key="Tab", windowsVirtualKeyCode=9)
        name, ring = await tab.run(
            """
            const one = document.activeElement;
            return [one.id || one.className, getComputedStyle(one).outlineStyle];
            """
        )
        if reached and name == reached[0]:
            break
        reached.append(name)
        assert ring == "solid" or name == "", name
    wanted = ["tab-traffic", "filter", "sort", "pause", "clear", "export", "list", "copy", "close"]
    wanted += ["tab-view-messages", "message-search", "message-side", "messages-scroll"]
    wanted += ["small copy-message"]
    assert [name for name in reached if name in wanted] == wanted, reached


async def test_views_by_arrow_keys(tab: Tab, running: Inspected) -> None:
    """The views of an exchange change by arrow keys, and the focus goes along."""
    watched = running.watched
    exchange = watched.begin("/v1/chat", websocket=True)
    watched.answer(exchange, 101)
    await tab.rows(1)
    await tab.run("document.querySelector('.row').click()")
    await tab.run("document.querySelector('#tab-view-messages').focus()")
    await tab.tell(
        "Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft", windowsVirtualKeyCode=37
    )
    await tab.until("document.activeElement.id === 'tab-view-overview'")
    assert await tab.run("return document.querySelector('#view-messages').hidden")
    assert not await tab.run("return document.querySelector('#view-overview').hidden")


async def test_the_export(tab: Tab, running: Inspected) -> None:
    """The button gives the browser an archive with the exchanges that have ended."""
    running.watched.serve("/v1/ended", 404)
    await tab.rows(1)
    await tab.run(
        """
        const real = URL.createObjectURL;
        URL.createObjectURL = (blob) => { window.exported = blob; return real(blob); };
        document.querySelector("#export").click();
        """
    )
    await tab.until("window.exported")
    entries = json.loads(await tab.run("return window.exported.text()"))["log"]["entries"]
    assert [one["response"]["status"] for one in entries] == [404]
