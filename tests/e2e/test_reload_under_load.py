"""Reloads and a rotated key while clients are busy: none of them notices, and nothing piles up."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.command import Process
from tests.support.command import running as process
from tests.support.keyrelay import until
from tests.support.reloading import KeyedProvider, keyed_provider, put, rotated_route

NEW, OLD = "dummy-new-key", "dummy-old-key"
CLIENTS, SOCKETS = 6, 20
MIB = 1024 * 1024


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


class Load:
    """Clients that ask and WebSockets that echo, until they are stopped."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.stopped = False
        self.failures: list[str] = []
        self.done: Counter[str] = Counter()

    async def ask(self, number: int) -> None:
        """One keep-alive connection, one request after the other."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1), timeout=aiohttp.ClientTimeout(total=10)
        ) as session:
            count = 0
            while not self.stopped:
                count += 1
                body = f"dummy {number} {count} ".encode() * (1 + count % 200)
                method, sent = ("POST", body) if count % 2 else ("GET", b"")
                try:
                    async with session.request(method, f"{self.base}/x", data=sent) as answer:
                        got = await answer.read()
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    self.failures.append(f"{method}: {error!r}")
                    continue
                if answer.status != 200 or got != (sent or b"ok"):
                    self.failures.append(f"{method}: {answer.status} {got[:80]!r}")
                self.done["requests"] += 1

    async def echo(self, socket: ClientConnection, number: int) -> None:
        """One WebSocket for the whole time."""
        count = 0
        while not self.stopped:
            count += 1
            text = f"dummy {number} {count}" * (1 + count % 50)
            try:
                await socket.send(text)
                async with asyncio.timeout(10):
                    got = await socket.recv()
            except Exception as error:  # noqa: BLE001  whatever it is, it counts
                self.failures.append(f"WebSocket {number}: {error!r}")
                return
            if got != text:
                self.failures.append(f"WebSocket {number}: another text")
            self.done["messages"] += 1
            await asyncio.sleep(0.01)

    async def handshake(self) -> None:
        """One new WebSocket after the other."""
        while not self.stopped:
            try:
                async with connect(f"{self.base.replace('http', 'ws')}/x", proxy=None) as socket:
                    await socket.send("dummy")
                    assert await socket.recv() == "dummy"
            except Exception as error:  # noqa: BLE001  whatever it is, it counts
                self.failures.append(f"handshake: {error!r}")
            self.done["handshakes"] += 1
            await asyncio.sleep(0.02)


async def reloaded(running: Process, file: Path, document: dict[str, Any]) -> None:
    """Take this configuration, which differs from the one before."""
    said = running.err.count("Reloaded: ")
    put(file, json.dumps(document))
    running.signal(signal.SIGHUP)
    await until(lambda: running.err.count("Reloaded: ") > said, seconds=10)


def documents(provider: KeyedProvider, reloads: int) -> list[dict[str, Any]]:
    """One configuration for each reload: the busy route is another one each time, and so is a
    listener; an unused route comes and goes.
    """
    found = []
    for number in range(reloads + 1):
        references = ("env:DUMMY_NEW", "env:DUMMY_OLD")
        routes = {"api": rotated_route(provider.url, *references, idle_seconds=40 + number % 3)}
        if number % 2:
            routes["more"] = rotated_route(provider.url, *references)
        listen = ["127.0.0.1:0"] * (1 + number % 2)
        found.append({"listen": listen, "routes": routes})
    return found


async def under_load(folder: Path, *, seconds: float, reloads: int, growth: int) -> None:
    """Reload at even intervals. In the middle the provider takes the new key and no other.

    growth  bytes of memory that keyrelay may take beyond what it had after a third of the time
    """
    file = folder / "routes.yaml"
    variables = {"DUMMY_NEW": NEW, "DUMMY_OLD": OLD}
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(keyed_provider(OLD))
        first, *others = documents(provider, reloads)
        put(file, json.dumps(first))
        running = await stack.enter_async_context(
            process("run", "-c", str(file), variables=variables)
        )
        load = Load(f"http://127.0.0.1:{running.port}/api")
        url = f"{load.base.replace('http', 'ws')}/x"
        sockets = [
            await stack.enter_async_context(connect(url, proxy=None)) for _ in range(SOCKETS)
        ]
        warm = 0
        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(load.ask(number))
            for number, socket in enumerate(sockets):
                tasks.create_task(load.echo(socket, number))
            tasks.create_task(load.handshake())
            for number, document in enumerate(others):
                await reloaded(running, file, document)
                await asyncio.sleep(seconds / reloads)
                if number == reloads // 3:
                    warm = resident(running.pid)
                if number == reloads // 2:
                    provider.accepts = {NEW}
                # Nobody needs to remember what was asked.
                provider.asked.clear()
            load.stopped = True
        grown = resident(running.pid) - warm
        assert load.failures == []
        assert load.done["requests"] > 20 * seconds * CLIENTS
        assert load.done["messages"] > 5 * seconds * SOCKETS
        assert load.done["handshakes"] > seconds
        assert set(provider.keys) <= {NEW}
        assert running.err.count("Reloaded: ") == reloads
        assert "the provider refuses env:DUMMY_NEW" in running.err
        assert "the provider refuses env:DUMMY_OLD" in running.err
        assert NEW not in running.err + running.out
        assert OLD not in running.err + running.out
        assert '"status":401' not in running.out.replace(" ", "")
        assert grown < growth, f"{grown / MIB:.1f} MiB more"


@pytest.mark.seconds
async def test_ten_reloads_under_load(tmp_path: Path) -> None:
    """Ten reloads in a few seconds with the key changed at the provider in the middle: no request
    fails, no WebSocket drops, no client sees a 401, and memory stays.
    """
    await under_load(tmp_path, seconds=4, reloads=10, growth=8 * MIB)


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_a_minute_of_reloads_under_load(tmp_path: Path) -> None:
    """The same for a minute, in which what leaks would show: one reload a second."""
    await under_load(tmp_path, seconds=60, reloads=60, growth=4 * MIB)
