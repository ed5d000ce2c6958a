"""Four keyrelays, each a process of its own, one of which is killed while it holds a lock."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.command import Process, running
from tests.support.keyrelay import exchange, until
from tests.support.redis_server import needs_redis, redis_process
from tests.support.rotating_service import VARIABLES, rotating_service, routes

pytestmark = needs_redis


async def statuses(processes: Sequence[Process], route: str) -> Counter[int]:
    """Status codes of a request to each, all at once."""
    get = f"GET /{route}/api HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    responses = await asyncio.gather(*(exchange(one.port, get) for one in processes))
    return Counter(int(one[9:12]) for one in responses)


@pytest.mark.seconds
@pytest.mark.timeout(400)
async def test_four_processes(tmp_path: Path) -> None:
    """They cause one call for each token, after the start and after a revocation. One that is
    killed during its call holds the others up until its lock has ended, which is not renewed any
    more: one of them makes one call then, and every request is served. No refresh token comes
    twice.
    """
    async with (
        rotating_service() as service,
        redis_process(tmp_path) as redis,
        AsyncExitStack() as stack,
    ):
        document = {
            "listen": "127.0.0.1:0",
            "drain_seconds": 0,
            "tokens": {"share": redis.url},
            "routes": routes(service.origin),
        }
        file = tmp_path / "routes.yaml"
        file.write_text(json.dumps(document))
        # One after the other: a busy machine does not start four in the time that one may take.
        processes = [
            await stack.enter_async_context(running("run", "-c", str(file), variables=VARIABLES))
            for _ in range(4)
        ]
        for calls in (1, 2):
            assert await statuses(processes, "plain") == {200: 4}
            assert await statuses(processes, "plain") == {200: 4}
            assert service.calls["plain"] == calls
            service.revoke()
        while await statuses(processes, "rotating") != {200: 4}:  # noqa: ASYNC110  no event
            await asyncio.sleep(0.1)
        assert service.reused == 0
        service.revoke()
        service.gate.clear()
        loop = asyncio.get_running_loop()
        lost = loop.create_task(statuses(processes[:1], "plain"))
        await until(lambda: service.calls["plain"] == 3)
        waiting = loop.create_task(statuses(processes[1:], "plain"))
        processes[0].signal(signal.SIGKILL)
        await processes[0].ended()
        await asyncio.gather(lost, return_exceptions=True)
        (lock,) = [name for name in await redis.keys() if name.endswith(":lock")]
        assert 0 < await redis.command("PTTL", lock) <= 3000
        assert service.calls["plain"] == 3
        service.gate.set()
        assert await waiting == {200: 3}
        assert service.calls["plain"] == 4
        assert await statuses(processes[1:], "plain") == {200: 3}
        assert service.calls["plain"] == 4


@pytest.mark.seconds
@pytest.mark.timeout(400)
async def test_workers_share_through_their_supervisor(tmp_path: Path) -> None:
    """Two supervised workers and a keyrelay alone have one token, which the supervisor or the other
    one obtained, and redeem a refresh token once.
    """
    async with (
        rotating_service() as service,
        redis_process(
            tmp_path, "--requirepass", "dummy-password", password="dummy-password"
        ) as redis,
        AsyncExitStack() as stack,
    ):
        document = {
            "listen": "127.0.0.1:0",
            "drain_seconds": 0,
            "tokens": {"share": redis.url, "password": "env:DUMMY_PASSWORD"},
            "routes": routes(service.origin),
        }
        file = tmp_path / "routes.yaml"
        file.write_text(json.dumps(document))
        variables = {**VARIABLES, "DUMMY_PASSWORD": "dummy-password"}
        processes = [
            await stack.enter_async_context(
                running("run", "-c", str(file), *more, variables=variables)
            )
            for more in (("--workers", "2"), ())
        ]
        for calls in (1, 2):
            for _ in range(3):
                assert await statuses(processes, "plain") == {200: 2}
            assert service.calls["plain"] == calls
            service.revoke()
        while await statuses(processes, "rotating") != {200: 2}:  # noqa: ASYNC110  no event
            await asyncio.sleep(0.1)
        assert service.reused == 0
