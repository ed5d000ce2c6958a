"""The command as people run it: a process of its own, whose every word is looked at.

Whatever a test is about, no output may hold a traceback, a warning or a secret's value.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from proxy.config.presets import presets
from tests.support import preloaded

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "proxy")
CANARY = "dummy-canary-5f0c"  # part of every secret that a test puts into the environment
# How the variables of the shipped providers begin; whoever runs the tests may have some.
PREFIXES = ("HUME_", "AIGNE_", "BLOCKLET_", "CAMB_", "INWORLD_")
VARIABLES = ("HUME_API_KEY", "AIGNE_HUB_API_KEY", "CAMB_API_KEY", "INWORLD_API_KEY")
# And those of the whole catalogue.
CATALOGUE = {
    reference.removeprefix("env:")
    for preset in presets().values()
    for secret in preset.secrets.values()
    for reference in secret.references
    if reference.startswith("env:")
}
# A machine with two cores may be busy with other tests.
_PATIENCE_SECONDS = 30.0


def environment(**variables: str) -> dict[str, str]:
    """This process's variables without any of a provider's, and then ``variables``."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PREFIXES) and name not in CATALOGUE
    }
    # The checkout itself, from any directory; a warning is printed as an error would be.
    return {**inherited, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **variables}


def keys() -> dict[str, str]:
    """A canary for every provider that ships."""
    return dict.fromkeys(VARIABLES, CANARY)


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


def keyrelay(
    *arguments: str, cwd: Path | None = None, variables: Mapping[str, str] | None = None
) -> Done:
    """Run a command that ends by itself."""
    return run(*arguments, folder=cwd, variables=environment(**(variables or {})))


def run(
    *arguments: str, folder: Path | None, variables: Mapping[str, str], stdin: bytes = b""
) -> Done:
    """Run a command that ends by itself, with these variables and no others."""
    if preloaded.suits(variables):
        done = preloaded.run(
            arguments, folder=folder, variables=variables, stdin=stdin, seconds=_PATIENCE_SECONDS
        )
    else:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=folder,
            env=variables,
            input=stdin,
            capture_output=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
    result = Done(done.returncode, done.stdout.decode(), done.stderr.decode())
    inspect(result.out, result.err)
    return result


def inspect(*outputs: str) -> None:
    """No traceback, no warning, no secret."""
    for output in outputs:
        assert "Traceback" not in output, output
        assert "Warning" not in output, output
        assert "Exception" not in output, output
        assert CANARY not in output, output


class Process:
    """A command that runs until it is told to stop. ``err`` is what it said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._changed = asyncio.Event()
        self.out = ""
        self.err = ""

    @property
    def urls(self) -> list[str]:
        """Where it listens, as its banner says; the main listener first."""
        return re.findall(r"http://[\d.\[\]:]+:\d+", self.err)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def port(self) -> int:
        return int(self.urls[0].rpartition(":")[2])

    async def read(self) -> None:
        """Take down what it says, until it ends."""
        streams = (("out", self._process.stdout), ("err", self._process.stderr))
        await asyncio.gather(*(self._read(one, name) for name, one in streams if one is not None))

    async def _read(self, stream: asyncio.StreamReader, name: str) -> None:
        taken = b""
        while data := await stream.read(65536):
            taken += data
            setattr(self, name, taken.decode(errors="replace"))
            self._changed.set()

    async def said(self, text: str, *, after: str = "") -> None:
        """Return once it has said ``text`` on stderr, somewhere behind ``after``."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while text not in self.err.partition(after)[2] if after else text not in self.err:
                self._changed.clear()
                await self._changed.wait()

    async def logged(self, lines: int) -> None:
        """Return once it has written that many lines on stdout."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while self.out.count("\n") < lines:
                self._changed.clear()
                await self._changed.wait()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def ended(self, seconds: float = _PATIENCE_SECONDS) -> int:
        """Its exit code."""
        async with asyncio.timeout(seconds):
            return await self._process.wait()


@asynccontextmanager
async def running(
    *arguments: str,
    cwd: Path | None = None,
    variables: Mapping[str, str] | None = None,
    until: str = "keyrelay 0.",
    stdout: int = asyncio.subprocess.PIPE,
    within: Sequence[str] = (),
) -> AsyncIterator[Process]:
    """Run a command that serves; it has said ``until`` when the block begins.

    within  a command that becomes this one, such as setpriv
    """
    child = await asyncio.create_subprocess_exec(
        *within,
        *COMMAND,
        *arguments,
        cwd=cwd,
        env=environment(**(variables or {})),
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
    )
    process = Process(child)
    reading = asyncio.get_running_loop().create_task(process.read())
    try:
        await process.said(until)
        yield process
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
        await reading
    inspect(process.out, process.err)
