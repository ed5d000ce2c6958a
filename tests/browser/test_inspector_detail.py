"""The inspector in a real browser: what keyrelay did with an exchange, and why one failed."""

from __future__ import annotations

import pytest

from tests.browser.inspector_tab import CONTRAST, Tab
from tests.support.inspection import Inspected
from tests.support.keyrelay import client

pytestmark = pytest.mark.browser

WIDTHS = """
    return [...document.querySelectorAll(".timing .phase")]
        .map((one) => one.getBoundingClientRect().width);
"""
OVERVIEW = "document.querySelector('.overview').innerText"


async def test_what_keyrelay_did(tab: Tab, running: Inspected) -> None:
    """Target, credential with source and fingerprint, removals, connection, safe fields, and the
    phases as a bar with a legend; the names of query parameters alone."""
    base = running.watched.app.listeners[0].url
    async with client() as session:
        headers = {"Authorization": "Bearer dummy-unused"}
        url = f"{base}/demo/echo/x?page=dummy-page"
        async with session.get(url, headers=headers) as response:
            assert response.status == 200
    await tab.until("document.querySelector('.row:not(.live)')")
    await tab.run("document.querySelector('.row').click()")
    await tab.until("document.querySelector('.timing')")
    text = await tab.run(f"return {OVERVIEW}")
    for part in (
        "/echo/x?page=…",
        "new, opened for this request",
        "placed in header ",
        "From",
        "Authorization",
        "application/json",
        "wait for the response",
    ):
        assert part in text, part
    assert "dummy-" not in text
    legend = await tab.run("return document.querySelectorAll('.legend li').length")
    for theme in ("light", "dark"):
        await tab.theme(theme)
        for size in (400, 1280):
            await tab.size(size)
            await tab.until("innerWidth === arguments[0]", size)
            await tab.look(f"overview-{theme}-{size}")
            assert await tab.run(CONTRAST) == []
            assert await tab.run("return document.documentElement.scrollWidth") <= size
    shares = await tab.run(WIDTHS)
    width = await tab.run("return document.querySelector('.timing').getBoundingClientRect().width")
    assert len(shares) == legend > 0
    assert width * 0.9 < sum(shares) <= width


async def test_why_it_failed(tab: Tab, running: Inspected) -> None:
    """A response of keyrelay's own has its reason in a column and its advice in the overview; an
    error of the provider is marked as the provider's."""
    base = running.watched.app.listeners[0].url
    async with client() as session, session.get(f"{base}/later/v1") as response:
        problem = await response.json()
    running.watched.serve("/v1/limited", 429)
    await tab.until("document.querySelectorAll('.row').length === 2")
    rows = await tab.rows(2)
    assert [row[5] for row in rows] == ["provider", "route-not-ready"]
    await tab.run("document.querySelector('[aria-rowindex=\"2\"]').click()")
    await tab.until("document.querySelector('.overview .reason:not([hidden])')")
    what, advice = await tab.run(
        "return [...document.querySelectorAll('.overview .reason p')].map((p) => p.textContent)"
    )
    assert (what, advice) == (problem["detail"], problem["advice"])
    await tab.run("document.querySelector('[aria-rowindex=\"1\"]').click()")
    await tab.until("document.querySelector('.overview .what')?.textContent.includes('rate')")
    await tab.press("/")
    await tab.type("reason:not-ready")
    assert [row[4] for row in await tab.rows(1)] == ["503"]


async def test_it_becomes_more(tab: Tab, running: Inspected) -> None:
    """An exchange that is open in the page has its response fields once they are there."""
    base = running.watched.app.listeners[0].url
    async with client() as session, session.get(f"{base}/demo/sse?n=50&interval_ms=50") as answer:
        await answer.content.readany()
        await tab.until("document.querySelector('.row')")
        await tab.run("document.querySelector('.row').click()")
        await tab.until("document.querySelector('.overview')?.textContent.includes('/sse')")
        await tab.run("document.querySelector('#tab-view-overview').click()")
    await tab.until(f"{OVERVIEW}.includes('The client closed its connection')")
    await tab.until(f"{OVERVIEW}.includes('text/event-stream')")
