"""Several keyrelays that share tokens through a real redis-server: each a whole one, with
connections of its own. Beside this: ``_processes``, with each in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from proxy.app.app import App
from proxy.app.status import snapshot
from proxy.cli.status_table import rendered
from proxy.config import loader
from proxy.observability.metrics import exposition
from tests.support.keyrelay import exchange, until
from tests.support.redis_server import RedisProcess, needs_redis, redis_process
from tests.support.rotating_service import VARIABLES, RotatingService, rotating_service, routes

pytestmark = needs_redis


class Fleet:
    """Keyrelays with equal routes."""

    def __init__(
        self, service: RotatingService, redis: RedisProcess, stack: AsyncExitStack
    ) -> None:
        self._service = service
        self._redis = redis
        self._stack = stack
        self.apps: list[App] = []
        self.said: list[list[str]] = []

    async def start(self, count: int = 4, **tokens: Any) -> None:
        document = {
            "listen": "127.0.0.1:0",
            "drain_seconds": 0,
            "tokens": {"share": self._redis.url, **tokens},
            "routes": routes(self._service.origin),
        }
        settings = loader.load_text(json.dumps(document), "routes.yaml")
        for _ in range(count):
            said: list[str] = []
            app = await self._stack.enter_async_context(App(settings, warn=said.append))
            self.apps.append(app)
            self.said.append(said)

    async def responses(self, route: str) -> list[bytes]:
        """What a request to each of them brings, all at once."""
        get = f"GET /{route}/api HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        ports = [one.listeners[0].address.port for one in self.apps]
        return await asyncio.gather(*(exchange(port, get) for port in ports))

    async def statuses(self, route: str, times: int = 1) -> Counter[int]:
        """Status codes of as many requests to each."""
        found: Counter[int] = Counter()
        for _ in range(times):
            found.update(int(one[9:12]) for one in await self.responses(route))
        return found

    async def serves_again(self, route: str) -> None:
        """Wait until every one of them responds with 200."""
        async with asyncio.timeout(60):
            while set(await self.statuses(route)) != {200}:  # noqa: ASYNC110  no event for it
                await asyncio.sleep(0.2)

    def shared(self) -> list[dict[str, Any]]:
        """What the status of each has of it."""
        return [snapshot(one)["shared_tokens"] for one in self.apps]

    def about(self, number: int) -> list[str]:
        """The lines of one keyrelay about Redis."""
        return [line for line in self.said[number] if line.startswith("tokens.share:")]


@pytest.fixture
async def service() -> AsyncIterator[RotatingService]:
    async with rotating_service() as service:
        yield service


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisProcess]:
    # It writes what it has before it answers, so that a killed one starts with it again.
    async with redis_process(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture
async def fleet(
    service: RotatingService, redis: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Fleet]:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    async with AsyncExitStack() as stack:
        yield Fleet(service, redis, stack)


async def test_one_token_for_all(fleet: Fleet, service: RotatingService) -> None:
    """Four cause one token request, and so does each revocation; no request fails."""
    await fleet.start()
    for calls in (1, 2, 3):
        assert await fleet.statuses("plain", 3) == {200: 12}
        assert service.calls["plain"] == calls
        service.revoke()
    # A newcomer takes over what the others have.
    assert await fleet.statuses("plain") == {200: 4}
    await fleet.start(1)
    assert await fleet.statuses("plain") == {200: 5}
    assert service.calls["plain"] == 4
    assert sum(one["put"] for one in fleet.shared()) >= 4
    assert all(one["usable"] and one["alone"] == 0 for one in fleet.shared())


@pytest.mark.seconds
async def test_renewals_are_those_of_one(fleet: Fleet, service: RotatingService) -> None:
    """Of a token that lives five seconds each renewal is one call, after 3.8 seconds at least."""
    service.lifetime = 5.0
    loop = asyncio.get_running_loop()
    began = loop.time()
    await fleet.start()
    while service.calls["plain"] < 4:
        assert set(await fleet.statuses("plain")) == {200}
        await asyncio.sleep(0.05)
        assert loop.time() - began < 120
    assert service.calls["plain"] <= 2 + (loop.time() - began) / 3.8


async def test_lost_keys(fleet: Fleet, redis: RedisProcess, service: RotatingService) -> None:
    """What Redis lost costs nothing while the token serves, and one call for all afterwards."""
    await fleet.start()
    assert await fleet.statuses("plain") == {200: 4}
    await redis.flush()
    assert await fleet.statuses("plain", 2) == {200: 8}
    assert service.calls["plain"] == 1
    service.revoke()
    assert await fleet.statuses("plain", 2) == {200: 8}
    assert service.calls["plain"] == 2


async def test_redis_is_gone(fleet: Fleet, redis: RedisProcess, service: RotatingService) -> None:
    """Each obtains its own token, no request fails; status and metrics show it, and one line
    reports each change.
    """
    await fleet.start()
    assert await fleet.statuses("plain") == {200: 4}
    await redis.kill()
    service.revoke()
    assert await fleet.statuses("plain", 3) == {200: 12}
    assert service.calls["plain"] == 5
    for number, app in enumerate(fleet.apps):
        (line,) = fleet.about(number)
        assert line.startswith("tokens.share: Redis cannot be reached; each keyrelay obtains its")
        shown = snapshot(app)
        assert "! tokens.share: Redis cannot be reached, for" in rendered(shown, 200)
        assert b"\nkeyrelay_shared_tokens_usable 0.0\n" in exposition(shown)
        assert b"\nkeyrelay_shared_tokens_alone_total 1.0\n" in exposition(shown)
    await redis.start()
    await until(lambda: all(len(fleet.about(one)) == 2 for one in range(4)), seconds=60)
    assert "Redis can be used again, after" in fleet.about(0)[1]
    service.revoke()
    assert await fleet.statuses("plain", 3) == {200: 12}
    assert service.calls["plain"] == 6
    assert b"\nkeyrelay_shared_tokens_usable 1.0\n" in exposition(snapshot(fleet.apps[0]))


async def test_redis_stands_still(
    fleet: Fleet, redis: RedisProcess, service: RotatingService
) -> None:
    """A frozen server is the same as none: every request is served, each by a token of its own."""
    await fleet.start()
    assert await fleet.statuses("plain") == {200: 4}
    redis.freeze()
    try:
        service.revoke()
        assert await fleet.statuses("plain", 3) == {200: 12}
    finally:
        redis.thaw()
    assert service.calls["plain"] == 5


async def test_redis_is_gone_from_the_start(
    fleet: Fleet, redis: RedisProcess, service: RotatingService
) -> None:
    """Keyrelay starts without it; with ``fail`` its response has the reason, until it is back."""
    await redis.kill()
    await fleet.start(1)
    assert await fleet.statuses("plain") == {200: 1}
    await fleet.start(1, when_down="fail")
    _, response = await fleet.responses("plain")
    assert response.startswith(b"HTTP/1.1 503 ")
    assert b"tokens are shared through Redis: Redis cannot be reached" in response
    assert b"Retry-After: 1\r\n" in response
    assert any(line.endswith("no token is obtained until then") for line in fleet.about(1))
    await redis.start()
    await fleet.serves_again("plain")


async def test_a_refresh_token_is_redeemed_once(
    fleet: Fleet, redis: RedisProcess, service: RotatingService
) -> None:
    """Four with one rotating refresh token: each is redeemed once, by one of them, also while
    Redis stands still or is killed, when nothing is redeemed. What it had serves afterwards.
    """
    await fleet.start()
    assert await fleet.statuses("rotating", 2) == {200: 8}
    assert len(service.redeemed) == 1
    for turns in (2, 3):
        service.revoke()
        await fleet.serves_again("rotating")
        assert len(service.redeemed) == turns
    redis.freeze()
    service.revoke()
    assert await fleet.statuses("rotating") == {503: 4}
    redis.thaw()
    await fleet.serves_again("rotating")
    redeemed = len(service.redeemed)
    await redis.kill()
    service.revoke()
    # 401 where a token was replaced often just before.
    assert set(await fleet.statuses("rotating")) <= {401, 503}
    assert len(service.redeemed) == redeemed
    await redis.start()
    await fleet.serves_again("rotating")
    # A newcomer begins with what the others have, not with the spent token of the configuration.
    await fleet.start(1)
    await fleet.serves_again("rotating")
    assert service.reused == 0


async def test_a_refresh_token_that_redis_lost(
    fleet: Fleet, redis: RedisProcess, service: RotatingService
) -> None:
    """The token in use serves on; then requests are refused with what to do, and the spent token of
    the configuration is not redeemed again.
    """
    await fleet.start(2)
    await fleet.serves_again("rotating")
    await redis.flush()
    assert await fleet.statuses("rotating") == {200: 2}
    service.revoke()
    for response in await fleet.responses("rotating"):
        assert response.startswith(b"HTTP/1.1 503 ")
        assert b"Redis has lost the refresh token" in response
    assert len(service.redeemed) == 1


async def test_no_secret_is_shown(
    fleet: Fleet, redis: RedisProcess, service: RotatingService
) -> None:
    """Neither Redis nor status, metrics and messages have a token or a secret."""
    await fleet.start(1)
    assert await fleet.statuses("plain") == {200: 1}
    assert await fleet.statuses("rotating") == {200: 1}
    await redis.kill()
    service.revoke()
    await fleet.statuses("rotating")
    await redis.start()
    kept = await redis.keys()
    assert len([name for name in kept if "{" in name]) >= 2
    shown = snapshot(fleet.apps[0])
    seen = f"{shown}{rendered(shown, 100)}{exposition(shown).decode()}{fleet.said}{list(kept)}"
    for secret in ("dummy-access", "dummy-refresh", "dummy-client"):
        assert secret not in seen
        assert not any(secret.encode() in value for value in kept.values())


async def test_secrets_that_could_be_guessed(
    fleet: Fleet, service: RotatingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token made from a short secret is not shared, with a line that has the remedy; with the
    explicit key it is, by those that have the same one. A short refresh token is not served.
    """
    monkeypatch.setenv("DUMMY_SECRET", "short")
    monkeypatch.setenv("DUMMY_REFRESH", "short")
    await fleet.start(2)
    assert await fleet.statuses("plain") == {200: 2}
    assert service.calls["plain"] == 2
    assert any("plain: its tokens are not shared:" in line for line in fleet.said[0])
    assert all(b"set tokens.key" in one for one in await fleet.responses("rotating"))
    monkeypatch.setenv("DUMMY_KEY", "dummy-key-of-keyrelays")
    await fleet.start(2, key="env:DUMMY_KEY")
    monkeypatch.setenv("DUMMY_KEY", "dummy-key-of-other-keyrelays")
    await fleet.start(1, key="env:DUMMY_KEY")
    assert await fleet.statuses("plain") == {200: 5}
    assert service.calls["plain"] == 4
