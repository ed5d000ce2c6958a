"""A headless Chromium, driven over ChromeDriver's HTTP interface (W3C WebDriver)."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp

REBOUND: Final = "evil.test"
"""A name that this browser resolves to 127.0.0.1, as a rebound one is."""

_START_SECONDS = 120.0  # a cold start on a busy machine
_SCRIPT_SECONDS = 60.0
_STARTS = 5

_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    # Nothing but the tests asks for anything: no updates, no accounts, no look-ups.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-features=BackForwardCache",  # it keeps a page's requests when the page is left
    "--no-proxy-server",
    f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1",
)


class BrowserError(Exception):
    """What the browser or its driver could not do."""


class Browser:
    """One running browser with one window."""

    def __init__(self, http: aiohttp.ClientSession, session: str) -> None:
        self._http = http
        self._session = session

    async def open(self, url: str) -> None:
        """Navigate as by the address bar; returns when the page is loaded."""
        await self._command("url", {"url": url})

    async def call(self, function: str, *arguments: object) -> Any:
        """Call a function of the page and wait for what it promises."""
        script = "return window[arguments[0]](...arguments[1])"
        return await self.run(script, function, arguments)

    async def run(self, script: str, *arguments: object) -> Any:
        """Run the body of a function in the page; waits for a promise."""
        return await self._command("execute/sync", {"script": script, "args": arguments})

    async def text(self) -> str:
        """What the document shows, whatever it is."""
        shown = await self.run("return document.documentElement.textContent")
        assert isinstance(shown, str)
        return shown

    async def ask(self, name: str) -> Any:
        """What the driver knows of the session, such as ``window/handles``."""
        return await _ask(self._http, "GET", f"{self._session}/{name}")

    async def enter(self, window: str) -> None:
        """Go on in another tab."""
        await self._command("window", {"handle": window})

    async def _command(self, name: str, content: dict[str, object]) -> Any:
        return await _ask(self._http, "POST", f"{self._session}/{name}", content)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start a browser with a new, empty profile; end it and leave nothing behind.

    The environment's CHROMIUM and CHROMEDRIVER name other programs than those. Raises
    BrowserError, saying what to do, if they are missing.
    """
    binary, driver = _program("chromium"), _program("chromedriver")
    with tempfile.TemporaryDirectory(prefix="keyrelay-", ignore_cleanup_errors=True) as folder:
        async with (
            _started(driver, folder) as port,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_START_SECONDS)) as http,
        ):
            base = f"http://127.0.0.1:{port}/session"
            session = f"{base}/{await _begin(http, base, binary, folder)}"
            try:
                yield Browser(http, session)
            finally:
                await _ask(http, "DELETE", session)


@asynccontextmanager
async def _started(driver: str, folder: str) -> AsyncIterator[int]:
    """The port of a ChromeDriver that runs."""
    places = dict.fromkeys(("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), folder)
    for attempt in range(_STARTS):
        process = await asyncio.create_subprocess_exec(
            driver,
            "--port=0",
            env={**os.environ, **places},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            port = await _port(process, last=attempt == _STARTS - 1)
            if port is not None:
                yield port
                return
        finally:
            if process.returncode is None:
                process.terminate()
            await process.communicate()


def _program(name: str) -> str:
    program = shutil.which(os.environ.get(name.upper()) or name)
    if program is None:
        raise BrowserError(
            f"{name} is missing: make test-browser installs it where apt-get may be used; "
            f"elsewhere set {name.upper()} to the program's path"
        )
    return program


async def _port(process: asyncio.subprocess.Process, *, last: bool) -> int | None:
    """The port in the driver's output; None if it took one for IPv6 that is in use for IPv4."""
    assert process.stdout is not None
    said = b""
    async with asyncio.timeout(_START_SECONDS):
        while line := await process.stdout.readline():
            said += line
            if found := re.search(rb"successfully on port (\d+)", line):
                return int(found[1])
    if b"Address already in use" in said and not last:
        return None
    raise BrowserError(f"chromedriver did not start: {said.decode(errors='replace')}")


async def _begin(http: aiohttp.ClientSession, base: str, binary: str, folder: str) -> str:
    """A new session's name."""
    flags = [*_FLAGS, f"--user-data-dir={folder}/profile"]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium has none for root
    wanted = {
        "browserName": "chrome",
        "goog:chromeOptions": {"binary": binary, "args": flags},
        "timeouts": {
            "script": int(_SCRIPT_SECONDS * 1000),
            "pageLoad": int(_SCRIPT_SECONDS * 1000),
        },
    }
    begun = await _ask(http, "POST", base, {"capabilities": {"alwaysMatch": wanted}})
    return str(begun["sessionId"])


async def _ask(
    http: aiohttp.ClientSession, method: str, url: str, content: object | None = None
) -> Any:
    async with http.request(method, url, json=content) as answer:
        value = (await answer.json())["value"]
    if answer.status != 200:
        raise BrowserError(f"{value['error']}: {value['message']}")
    return value
