"""A browser for each test, the page that it shows, and keyrelay in front of an emulated Hume."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.browser import pages
from tests.browser.inspector_tab import ROUTES, Tab
from tests.browser.webdriver import Browser, chromium
from tests.emulators import HumeEmulator
from tests.support.inspection import Inspected, inspected
from tests.support.keyrelay import Running, preset_keyrelay


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest.fixture
async def site() -> AsyncIterator[pages.Site]:
    """The pages that keyrelay allows, at localhost and at 127.0.0.1."""
    async with pages.site() as site:
        yield site


@pytest.fixture
async def relay(hume: HumeEmulator, site: pages.Site) -> AsyncIterator[Running]:
    routes = {"hume": {"provider": "hume", "upstream": hume.origin}}
    origins = (site.origin(), site.origin("127.0.0.1"))
    async with preset_keyrelay(routes, origins=origins) as running:
        yield running


@pytest.fixture
async def running(
    dummy_key: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Inspected]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    async with inspected(ROUTES) as running:
        yield running


@pytest.fixture
async def tab(browser: Browser, running: Inspected) -> Tab:
    """The inspector, live."""
    tab = Tab(browser)
    await tab.size(1360)
    await tab.open(running.admin.page_url)
    await tab.until("document.querySelector('#link').dataset.state === 'live'")
    return tab
