"""Vite's development server, whose ``server.proxy`` leads a part of its paths to keyrelay.

It serves the page of these tests with a module that Vite replaces while the page is open. It is the
Vite of examples/browser, which `make test-browser` installs.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[2] / "examples" / "browser"
_VITE = _ROOT / "node_modules" / "vite" / "bin" / "vite.js"
_PAGE = Path(__file__).with_name("page.html")
_START_SECONDS = 120.0
# The page's variable `version` follows the module; `opened` is lost when the page is loaded anew.
_MODULE = """\
export const version = {version};
window.version = version;
window.opened ??= performance.timeOrigin;
import.meta.hot.accept((module) => {{ window.version = module.version; }});
"""


@dataclass(frozen=True, slots=True)
class Vite:
    """A server that runs. ``origin`` is that of its pages."""

    folder: Path
    port: int

    @property
    def origin(self) -> str:
        return f"http://localhost:{self.port}"

    def write_module(self, version: str) -> None:
        """Replace the module, as an editor does that saves it."""
        text = _MODULE.format(version=json.dumps(version))
        (self.folder / "live.js").write_text(text, encoding="utf-8")


def free_port() -> int:
    """A port of 127.0.0.1 and ::1 that is free now."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as sock:
        return int(sock.getsockname()[1])


@asynccontextmanager
async def vite(folder: Path, port: int, proxied: dict[str, object]) -> AsyncIterator[Vite]:
    """Serve at ``port``; ``proxied`` is ``server.proxy`` of Vite's settings."""
    node = shutil.which("node")
    assert node is not None, "node is missing"
    assert _VITE.exists(), "Vite is missing: make test-browser installs it"
    server = Vite(folder, port)
    server.write_module("one")
    page = _PAGE.read_text(encoding="utf-8")
    module = '<script type="module" src="/live.js"></script>\n'
    (folder / "index.html").write_text(page + module, encoding="utf-8")
    settings = {
        "root": str(folder),
        "cacheDir": str(folder / "cache"),
        "server": {"port": port, "strictPort": True, "proxy": proxied},
    }
    config = folder / "vite.config.mjs"
    config.write_text(f"export default {json.dumps(settings)};\n", encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        node,
        str(_VITE),
        "--config",
        str(config),
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", "CI": "true"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        await _listening(process, port)
        yield server
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def _listening(process: asyncio.subprocess.Process, port: int) -> None:
    assert process.stdout is not None
    printed = b""
    async with asyncio.timeout(_START_SECONDS):
        while line := await process.stdout.readline():
            printed += line
            if f"http://localhost:{port}/".encode() in line:
                return
    raise AssertionError(f"Vite did not start: {printed.decode(errors='replace')}")
