"""One worker, as its supervisor sees it. What real ones do is in test_workers."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.config.settings import Settings
from proxy.process.ipc import Message
from proxy.process.worker_config import WorkerConfig
from proxy.process.worker_process import WorkerProcess, lock_file

HANDOVER = WorkerConfig(Settings(), {}, None, ())


async def nothing(_kind: str, _message: Message, _descriptors: list[int]) -> Message:
    return {}


async def start(
    script: str, *arguments: str, environment: Mapping[str, str] = os.environ
) -> WorkerProcess:
    """A program that is told the number of its descriptor as the last argument."""
    command = (sys.executable, "-c", script, *arguments)
    return await WorkerProcess.start(0, 2, command, nothing, environment)


async def test_how_it_ended_is_said() -> None:
    """By itself or by a signal; what it is told then does not arrive."""
    one = await start("raise SystemExit(3)")
    assert await one.ended() == "ended with exit code 3"
    assert one.gone
    assert not one.send("end", {"seconds": 0})
    assert await one.take(lambda: HANDOVER) == "it has ended"
    assert await one.snapshot() == {}
    two = await start("import time; time.sleep(60)")
    two.kill()
    assert await two.ended() == "was ended by SIGKILL"
    two.kill()
    await two.retire(0)


async def test_a_program_that_is_not_there_is_an_error_of_the_system() -> None:
    """Which the supervisor tells."""
    with pytest.raises(FileNotFoundError):
        await WorkerProcess.start(0, 2, ("/none/such",), nothing, os.environ)


async def test_it_has_no_terminal_and_no_other_descriptor() -> None:
    """Ctrl-C is the supervisor's, and nothing is inherited but the channel."""
    script = (
        "import os, socket, sys; sock = socket.socket(fileno=int(sys.argv[1])); "
        "assert os.getsid(0) == os.getpid(); "
        "left = {int(one) for one in os.listdir('/proc/self/fd')} - {0, 1, 2, sock.fileno()}; "
        "raise SystemExit(len(left) - 1)"  # the directory itself
    )
    other = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(other, True)
    assert await (await start(script)).ended() == "ended with exit code 0"
    os.close(other)


async def test_it_has_the_variables_that_it_is_given(tmp_path: Path) -> None:
    """And none of the supervisor's beside."""
    script = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    given = {"DUMMY_GIVEN": "1", "LC_ALL": "C.UTF-8"}
    one = await start(script, str(tmp_path / "environment"), environment=given)
    assert await one.ended() == "ended with exit code 0"
    assert json.loads((tmp_path / "environment").read_text()) == given


async def test_one_that_does_not_listen_is_killed_in_the_end() -> None:
    """It gets the time for what is in flight, and some seconds."""
    one = await start("import time; time.sleep(60)")
    stuck = [one.stuck]
    assert one.send("fill", {"x": "x" * 1_000_000})
    stuck.append(one.stuck)
    assert stuck == [False, True]
    began = asyncio.get_running_loop().time()
    await one.retire(-4.5)
    assert asyncio.get_running_loop().time() - began < 3
    assert await one.ended() == "was ended by SIGKILL"


def test_the_lock_s_file_has_no_name() -> None:
    """Nothing is left behind, and no other program can find it."""
    descriptor = lock_file()
    assert os.fstat(descriptor).st_nlink == 0
    os.close(descriptor)
