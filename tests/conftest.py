"""Fixtures that many tests share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import hypothesis
import pytest
import uvloop

from tests.emulators import HUME_KEY, HUME_SECRET, HumeEmulator
from tests.support.certificates import Authority
from tests.support.command import PREFIXES
from tests.support.keyrelay import SECRET

# A deadline per example measures how busy the machine is. In CI the examples are the same each
# time, as in the profile that Hypothesis has for it.
hypothesis.settings.register_profile("busy", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("busy")

_LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Asyncio's own loop; both for tests with the mark ``running.both_loops``."""
    if any("loop_factories" in mark.kwargs for mark in item.iter_markers("asyncio")):
        return _LOOPS
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A certificate authority of the test's own."""
    return Authority(tmp_path)


@pytest.fixture
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority that this machine trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


@pytest.fixture
async def hume(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HumeEmulator]:
    """An emulated Hume that accepts the key of HUME_API_KEY."""
    monkeypatch.setenv("HUME_API_KEY", HUME_KEY)
    async with HumeEmulator(strategy="key") as emulator:
        yield emulator


@pytest.fixture
def hume_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hume's API key and its secret key are set, of which keyrelay obtains tokens."""
    monkeypatch.setenv("HUME_API_KEY", HUME_KEY)
    monkeypatch.setenv("HUME_SECRET_KEY", HUME_SECRET)


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No provider's variable is set, whatever the environment: a test sets what it needs."""
    for name in list(os.environ):
        if name.startswith(PREFIXES):
            monkeypatch.delenv(name)


@pytest.fixture
def dummy_key(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The environment variable DUMMY_KEY is set; its value."""
    monkeypatch.setenv("DUMMY_KEY", SECRET.decode())
    return SECRET
