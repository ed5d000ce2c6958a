"""The servers, started once and all together; and the minute in which all is side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from .authorization_servers import KINDS, Server, running
from .side_by_side import Figures, side_by_side

LIFETIMES = (4, 3600)


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[tuple[str, int], Server]]:
    """Every server, with access tokens of 4 s and of an hour, by name and lifetime."""
    with running((kind, lifetime) for kind in KINDS for lifetime in LIFETIMES) as started:
        yield started


@pytest.fixture(scope="session")
def figures(
    servers: dict[tuple[str, int], Server], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Figures]:
    """What came of two processes with two routes each, for every server, lifetime and grant."""
    folder: Path = tmp_path_factory.mktemp("side_by_side")
    return asyncio.run(side_by_side(servers.values(), folder))
