"""Fixtures of the tests with a Redis server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.redis_server import RedisProcess, redis_process


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisProcess]:
    """A Redis server of the test's own, on loopback."""
    async with redis_process(tmp_path) as server:
        yield server
