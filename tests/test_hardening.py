"""What a process with keys refuses to be, and what it closes: each looked at from outside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from proxy.hardening import LEAST_AIOHTTP

from .commands import CANARY, COMMAND, ROOT, Process, environment, keyrelay, running

LISTEN = ("--listen", "127.0.0.1:0")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root's mark on /proc shows with root only")


@pytest.mark.parametrize("command", [("run", "demo"), ("demo",)])
@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("SSLKEYLOGFILE", "/dev/null", "SSLKEYLOGFILE"),
        ("SSLKEYLOGFILE", "", "SSLKEYLOGFILE"),
        ("PYTHONASYNCIODEBUG", "1", "debug mode"),
        ("PYTHONDEVMODE", "1", "debug mode"),
    ],
)
def test_what_leaks_is_refused(
    command: tuple[str, ...], variable: str, value: str, words: str
) -> None:
    """Exit 2 with what to unset, and nothing listens."""
    variables = {variable: value, "HUME_API_KEY": CANARY}
    done = keyrelay(*command, *LISTEN, variables=variables)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert "unset" in done.err
    assert "keyrelay 0." not in done.err


def test_every_leak_is_said_at_once() -> None:
    """Two reasons, two findings."""
    done = keyrelay(
        "demo", *LISTEN, variables={"SSLKEYLOGFILE": "/x", "PYTHONASYNCIODEBUG": "1"}
    )
    assert done.code == 2
    assert "2 findings" in done.err


def test_development_mode_is_refused() -> None:
    """``python -X dev`` is asyncio's debug mode too."""
    done = subprocess.run(
        [COMMAND[0], "-X", "dev", *COMMAND[1:], "demo", *LISTEN],
        env=environment(),
        capture_output=True,
        timeout=10,
        check=False,
    )
    assert done.returncode == 2
    assert b"-X dev" in done.stderr


def test_commands_that_serve_nothing_may_be_debugged() -> None:
    """``check`` sends nothing and holds nothing: it runs as it is told."""
    assert keyrelay("check", variables={"PYTHONASYNCIODEBUG": "1"}).code == 0


def test_the_least_aiohttp_is_that_of_the_package() -> None:
    """What is refused at the start is what could not have been installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (wanted,) = (one for one in project["dependencies"] if one.startswith("aiohttp"))
    found = re.match(r"aiohttp>=(\d+)\.(\d+)\.(\d+),", wanted)
    assert found is not None
    assert tuple(map(int, found.groups())) == LEAST_AIOHTTP


def limits(process: Process) -> str:
    return Path(f"/proc/{process.pid}/limits").read_text()


@linux
@as_root
@pytest.mark.parametrize("command", [("run", "demo"), ("demo",)])
async def test_memory_is_closed(command: tuple[str, ...]) -> None:
    """No core, and /proc shows what only a process has that may not be dumped."""
    async with running(*command, *LISTEN) as process:
        assert re.search(r"Max core file size +0 +0 ", limits(process))
        assert not dumpable(process)


@linux
@as_root
async def test_memory_stays_open_if_asked_for() -> None:
    """``--debuggable`` leaves debuggers and cores as they were."""
    async with running("demo", *LISTEN, "--debuggable") as process:
        assert dumpable(process)


def dumpable(process: Process) -> bool:
    """Whether this user's other programs may look into the process.

    Asked by a program that is another user's for a moment: root may look into everything.
    """
    uid = 65534
    pid = os.fork()
    raise NotImplementedError(uid, pid)
