"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.emulators import HumeEmulator
from tests.support.clock import ManualClock
from tests.support.keyrelay import Running, preset_keyrelay


@pytest.fixture
def clock() -> ManualClock:
    """The clock of keyrelay and of the emulated provider."""
    return ManualClock()


@pytest.fixture
async def running(hume: HumeEmulator) -> AsyncIterator[Running]:
    """A keyrelay before the emulated Hume."""
    routes = {"hume": {"provider": "hume", "upstream": hume.origin}}
    async with preset_keyrelay(routes) as running:
        yield running


@pytest.fixture
async def elsewhere() -> AsyncIterator[str]:
    """The origin of another provider, with which no connection may be made."""
    async with HumeEmulator() as foreign:
        yield foreign.origin
        assert foreign.connections == 0
