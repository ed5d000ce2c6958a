"""What a start imports. Counts and names, because times differ between machines."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from tests.support.command import COMMAND, ROOT, environment

# At most this many modules until the first response, of every package and the standard library.
# With Python 3.11 it is 553; a newer one has some more of its own.
_MODULES = 600
# None of these serves the shipped routes: other commands, the client and server of aiohttp, what
# signs and seals, further processes, metrics and traces.
_UNUSED = (
    "aiohttp.client",
    "aiohttp.connector",
    "aiohttp.web",
    "cryptography",
    "jwt",
    "keyring",
    "limits",
    "multiprocessing",
    "opentelemetry",
    "prometheus_client",
    "proxy.admin.server",
    "proxy.auth.tokens.client",
    "proxy.auth.tokens.factory",
    "proxy.cli.admin",
    "proxy.cli.config",
    "proxy.cli.doctor",
    "proxy.cli.explain",
    "proxy.cli.seal",
    "proxy.diagnostics",
    "proxy.process.supervisor",
    "proxy.process.worker",
    "proxy.secrets.keyring",
    "proxy.secrets.sealing",
)


def unused(modules: Sequence[str]) -> list[str]:
    """Those of ``modules`` that a start with the shipped routes does not need."""
    return [one for one in modules if any(f"{one}.".startswith(f"{name}.") for name in _UNUSED)]


def unmeasured() -> dict[str, str]:
    """An environment without measurement of coverage, which imports modules of its own."""
    return {name: text for name, text in environment().items() if not name.startswith("COV")}


async def started(directory: Path, *arguments: str) -> asyncio.subprocess.Process:
    """The command, which reports its imports to standard error."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-X", "importtime"),
        *COMMAND[1:],
        *arguments,
        cwd=directory,
        env=unmeasured(),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


def imported(report: str) -> list[str]:
    """The modules of a report of ``-X importtime``."""
    return re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", report, re.MULTILINE)


async def test_run_imports_what_the_shipped_routes_need(tmp_path: Path) -> None:
    """Until the first response through a route, ``run`` imports none of the modules that other
    settings or commands need, and not more in number than the budget.
    """
    text = (ROOT / "config/routes.yaml").read_text(encoding="utf-8")
    text = re.sub(r"(listen:) 127\.0\.0\.1:\d+", r"\1 127.0.0.1:0", text)
    (tmp_path / "routes.yaml").write_text(text, encoding="utf-8")
    process = await started(tmp_path, "run", "-c", "routes.yaml")
    assert process.stderr is not None
    try:
        async with asyncio.timeout(120):
            report = ""
            while "inspector  off" not in report:
                report += (await process.stderr.readline()).decode()
            url = re.findall(r"http://127\.0\.0\.1:\d+", report)[0]
            async with (
                aiohttp.ClientSession() as client,
                client.get(f"{url}/demo/echo/hello") as response,
            ):
                assert response.status == 200
            process.send_signal(signal.SIGTERM)
            report += (await process.stderr.read()).decode()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    modules = imported(report)
    assert "proxy.demo.provider" in modules, "the report is of the whole start"
    assert unused(modules) == []
    assert len(modules) < _MODULES


async def test_exec_imports_what_the_shipped_routes_need(tmp_path: Path) -> None:
    """``exec`` with the shipped routes is as sparing."""
    process = await started(tmp_path, "exec", "--", sys.executable, "-c", "pass")
    async with asyncio.timeout(120):
        _, report = await process.communicate()
    modules = imported(report.decode())
    assert "proxy.demo.provider" in modules, "the report is of the whole start"
    assert unused(modules) == []
    assert len(modules) < _MODULES
