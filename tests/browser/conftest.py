"""A browser for each test, the page that it shows, and keyrelay in front of an emulated Hume."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.browser import pages
from tests.browser.webdriver import Browser, chromium
from tests.emulators import HumeEmulator
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
