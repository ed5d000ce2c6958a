"""What a process with keys refuses to be, and what it closes: each looked at from outside."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from proxy.cli.main import main
from proxy.process.hardening import LEAST_AIOHTTP
from tests.support.command import CANARY, COMMAND, ROOT, Process, environment, keyrelay, running

LISTEN = ("--listen", "127.0.0.1:0")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")


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


def test_every_leak_is_said_at_once(tmp_path: Path) -> None:
    """Two reasons, two findings."""
    variables = {"SSLKEYLOGFILE": str(tmp_path / "log"), "PYTHONASYNCIODEBUG": "1"}
    done = keyrelay("demo", *LISTEN, variables=variables)
    assert done.code == 2
    assert "2 findings" in done.err


@pytest.mark.parametrize("folder", [".", "missing"])
@pytest.mark.parametrize("command", sorted(main.commands))
def test_no_command_opens_the_key_log(tmp_path: Path, command: str, folder: str) -> None:
    """The variable is judged before anything is imported that opens its file, so that the file is
    not made, and one that cannot be made is no traceback.
    """
    log = tmp_path / folder / "log"
    done = keyrelay(command, variables={"SSLKEYLOGFILE": str(log)}, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "SSLKEYLOGFILE" in done.err
    assert list(tmp_path.iterdir()) == []


def test_development_mode_is_refused() -> None:
    """``python -X dev`` is asyncio's debug mode too."""
    done = subprocess.run(
        [COMMAND[0], "-X", "dev", *COMMAND[1:], "demo", *LISTEN],
        env=environment(),
        capture_output=True,
        timeout=30,
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


def core_limits(process: Process) -> list[str]:
    """Soft and hard limit of a core's size, as the system keeps them."""
    text = Path(f"/proc/{process.pid}/limits").read_text(encoding="ascii")
    (line,) = (line for line in text.splitlines() if line.startswith("Max core file size"))
    return line.split()[4:6]


@linux
@pytest.mark.parametrize("command", [("run", "demo"), ("demo",)])
async def test_a_process_with_keys_dumps_no_core(command: tuple[str, ...]) -> None:
    """Neither limit lets one byte of a core be written, and none can be raised again."""
    async with running(*command, *LISTEN) as process:
        assert core_limits(process) == ["0", "0"]


@linux
@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every process")
async def test_its_environment_is_closed() -> None:
    """Another program of the same user cannot read it where keys often are."""
    async with running("demo", *LISTEN) as process:
        path = Path(f"/proc/{process.pid}/environ")
        with pytest.raises(PermissionError):
            await asyncio.to_thread(path.read_bytes)


@linux
async def test_it_stays_open_if_asked_for() -> None:
    """``--debuggable`` leaves the limits, and with them debuggers, as they were."""
    here = [
        "unlimited" if one < 0 else str(one) for one in resource.getrlimit(resource.RLIMIT_CORE)
    ]
    async with running("demo", *LISTEN, "--debuggable") as process:
        assert core_limits(process) == here


@linux
def test_memory_is_sealed_against_the_same_user() -> None:
    """The kernel says of the process that it may not be dumped, which closes /proc and ptrace."""
    code = (
        "import ctypes\n"
        "from proxy.process.hardening import seal_memory\n"
        "get = lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)\n"
        "before = get(); seal_memory(); print(before, get())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(),
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.split() == [b"1", b"0"]
