"""Fixtures of the acceptance list."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.security.scene import CLIENT_SECRET, INBOUND, KEY, PAGE, Stage, stage


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that the routes of the stage read."""
    monkeypatch.setenv("DUMMY_KEY", KEY)
    monkeypatch.setenv("DUMMY_ID", "dummy-client")
    monkeypatch.setenv("DUMMY_SECRET", CLIENT_SECRET)
    monkeypatch.setenv("DUMMY_INBOUND", INBOUND)


@pytest.fixture
async def open_stage(secrets: None) -> AsyncIterator[Stage]:
    """Keyrelay as it is by default, but that one page may come in."""
    async with stage(origins=(PAGE,)) as one:
        yield one
