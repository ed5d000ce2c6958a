"""Fixtures that many tests share."""

from __future__ import annotations

import pytest

from .running import SECRET


@pytest.fixture
def dummy_key(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The environment variable DUMMY_KEY is set; its value."""
    monkeypatch.setenv("DUMMY_KEY", SECRET.decode())
    return SECRET
