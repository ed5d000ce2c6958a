"""What the service manager is told, at a real socket of its kind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.process.systemd import READY, keep_watch, notify, reloading, stopping
from tests.support.command import keyrelay, running


@dataclass
class Manager:
    """A service manager's end. ``place`` is what it puts into NOTIFY_SOCKET."""

    sock: socket.socket
    place: str

    def heard(self) -> str:
        """The next datagram."""
        return self.sock.recv(4096).decode()


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        if request.param == "path":
            place = str(tmp_path / "notify")
            sock.bind(place)
        else:
            sock.bind("")  # Linux chooses a free abstract name
            place = "@" + sock.getsockname()[1:].decode()
        monkeypatch.setenv("NOTIFY_SOCKET", place)
        yield Manager(sock, place)


def test_a_state_is_one_datagram(manager: Manager) -> None:
    """What is told arrives whole, whichever kind of address the manager has."""
    warnings: list[str] = []
    notify(READY, warnings.append)
    notify(reloading(), warnings.append)
    assert manager.heard() == "READY=1"
    before, _, stamp = manager.heard().partition("\nMONOTONIC_USEC=")
    assert before == "RELOADING=1"
    assert 0 <= time.monotonic_ns() // 1000 - int(stamp) < 10_000_000
    assert warnings == []


def test_the_end_may_take_as_long_as_it_was_given(manager: Manager) -> None:
    """The manager learns of drain_seconds, so that it does not kill before they are over."""
    notify(stopping(2.5), pytest.fail)
    assert manager.heard() == "STOPPING=1\nEXTEND_TIMEOUT_USEC=7500000"


def test_nobody_is_told_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NOTIFY_SOCKET, or with an empty one, nothing happens."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify(READY, pytest.fail)
    monkeypatch.setenv("NOTIFY_SOCKET", "")
    notify(READY, pytest.fail)


def test_a_manager_that_is_gone_is_mentioned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line reports it; the caller goes on."""
    monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/gone")
    warnings: list[str] = []
    notify(READY, warnings.append)
    assert warnings == [
        f"Cannot notify the service manager ({tmp_path}/gone): No such file or directory"
    ]


async def test_the_watchdog_hears_twice_in_its_time(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Again and again while the loop turns, until it is cancelled."""
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    task = asyncio.get_running_loop().create_task(keep_watch(pytest.fail))
    heard = [await asyncio.to_thread(manager.heard) for _ in range(3)]
    task.cancel()
    assert heard == ["WATCHDOG=1"] * 3


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"},
    ],
)
async def test_no_watchdog_no_task(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the manager does not ask this process for it, it returns at once."""
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    async with asyncio.timeout(1):
        await keep_watch(pytest.fail)


def test_other_commands_tell_nothing(manager: Manager) -> None:
    """A health check that runs within the service does not say that it is ready."""
    assert keyrelay("providers", variables={"NOTIFY_SOCKET": manager.place}).code == 0
    manager.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.heard()


async def test_a_run_is_told_from_its_start_to_its_end(manager: Manager) -> None:
    """READY once it serves, RELOADING and READY around a reload, STOPPING before the drain."""
    variables = {"NOTIFY_SOCKET": manager.place}
    listen = ("--listen", "127.0.0.1:0")
    async with running("run", "demo", *listen, variables=variables) as process:
        assert await asyncio.to_thread(manager.heard) == "READY=1"
        process.signal(signal.SIGHUP)
        assert (await asyncio.to_thread(manager.heard)).startswith("RELOADING=1\n")
        assert await asyncio.to_thread(manager.heard) == "READY=1"
        process.signal(signal.SIGTERM)
        told = await asyncio.to_thread(manager.heard)
        assert told == "STOPPING=1\nEXTEND_TIMEOUT_USEC=15000000"
        assert await process.ended() == 0


async def test_a_reload_that_is_refused_is_over_all_the_same(
    manager: Manager, tmp_path: Path
) -> None:
    """A manager that was told of a reload hears READY again, with the old configuration."""
    path = tmp_path / "routes.yaml"
    path.write_text("listen: 127.0.0.1:0\nroutes: {demo: {provider: demo}}\n")
    variables = {"NOTIFY_SOCKET": manager.place}
    async with running("run", "-c", str(path), variables=variables) as process:
        assert await asyncio.to_thread(manager.heard) == "READY=1"
        path.write_text("routes: {demo: {provider: dmeo}}\n")
        process.signal(signal.SIGHUP)
        assert (await asyncio.to_thread(manager.heard)).startswith("RELOADING=1\n")
        assert await asyncio.to_thread(manager.heard) == "READY=1"
        await process.said("the old one goes on serving")


async def test_a_run_keeps_the_watch_that_is_asked_for(manager: Manager) -> None:
    """The manager that set WATCHDOG_USEC hears of it while keyrelay serves."""
    variables = {"NOTIFY_SOCKET": manager.place, "WATCHDOG_USEC": "50000"}
    listen = ("--listen", "127.0.0.1:0")
    async with running("run", "demo", *listen, variables=variables):
        heard = [await asyncio.to_thread(manager.heard) for _ in range(3)]
        assert heard == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]
