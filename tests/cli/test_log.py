"""``run --log``: the form of the access log, in a pipe and on a terminal, with real processes."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal

import pytest

from tests.support.command import COMMAND, environment, running
from tests.support.keyrelay import client

ARGUMENTS = ("run", "demo", "--listen", "127.0.0.1:0")


async def _ask(port: int) -> None:
    async with client() as http:
        for path in ("/demo/echo/x", "/nowhere", "/nowhere"):
            async with http.get(f"http://127.0.0.1:{port}{path}") as response:
                await response.read()


@pytest.mark.parametrize("arguments", [(), ("--log", "json")], ids=["usual", "json"])
async def test_a_pipe_gets_json(arguments: tuple[str, ...]) -> None:
    """A line is a document, unless text is asked for."""
    async with running(*ARGUMENTS, *arguments, until="try it") as process:
        await _ask(process.port)
        await process.logged(3)
        statuses = [json.loads(line)["status"] for line in process.out.splitlines()]
    assert statuses == [200, 404, 404]


@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one", "workers"])
async def test_text_for_a_pipe(workers: tuple[str, ...]) -> None:
    """Aligned and without colours, with the reasons; of workers as well."""
    async with running(*ARGUMENTS, "--log", "text", *workers, until="try it") as process:
        await _ask(process.port)
        await process.logged(6)
        out = process.out
    assert "\x1b[" not in out
    assert re.search(r"^[0-9:]{8}  200  GET     demo +[0-9]+ ms  /echo/x  ", out, re.MULTILINE)
    assert re.search(r"^[0-9:]{8}  404  GET     -    +[0-9]+ ms  ", out, re.MULTILINE)
    assert out.count("          No route has this path.\n") == 2


@pytest.mark.parametrize("plain", ["", "1"], ids=["colours", "NO_COLOR"])
async def test_a_terminal_gets_text(plain: str) -> None:
    """Failures are yellow, unless NO_COLOR is set; the reason each time, its remedy once."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *ARGUMENTS,
        env=environment(NO_COLOR=plain, TERM="xterm"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=theirs,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(theirs)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            said = (await process.stderr.readuntil(b"try it")).decode()
            await _ask(int(re.findall(r"http://127.0.0.1:([0-9]+)", said)[0]))
            out = ""
            while out.count("No route has this path.") < 2 or out.count("\n") < 6:
                out += (await asyncio.to_thread(os.read, ours, 65536)).decode()
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
        os.close(ours)
    assert (re.search(r"\x1b\[33m[0-9:]{8}  404", out) is None) == bool(plain)
    assert ("\x1b[" in out) == (not plain)
    assert out.count("The routes are: /demo.") == 1
