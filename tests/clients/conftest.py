"""What every SDK gets: no proxy from the environment, and an HTTP client that the test closes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.clients import data, namespace
from tests.clients.credentials import HOSTS
from tests.clients.stage import Stage
from tests.clients.stage import stage as set_up

MISSING = "SDKs have an environment of their own: make test-clients"
PATIENCE_SECONDS = 30.0


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but its arguments tells an SDK where to go and with which key."""
    for variable in ("HUME_API_KEY", "CAMB_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "*")


@pytest.fixture
async def http() -> AsyncIterator[Any]:
    """What some SDKs make for themselves but never close; with the settings they make it with."""
    httpx = pytest.importorskip("httpx", reason=MISSING)
    async with httpx.AsyncClient(follow_redirects=True, timeout=PATIENCE_SECONDS) as client:
        yield client


@pytest.fixture
def blocking_http() -> Iterator[Any]:
    """As ``http``, for the synchronous SDKs."""
    httpx = pytest.importorskip("httpx", reason=MISSING)
    with httpx.Client(follow_redirects=True, timeout=PATIENCE_SECONDS) as client:
        yield client


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Keyrelay and every provider, on a network of their own."""
    folder = tmp_path_factory.mktemp("stage")
    namespace.enter(folder, HOSTS)
    routes = {route: None for client in data.clients() for route in client.routes}
    with set_up(folder, list(routes)) as one:
        yield one
