"""Takes the inspector's picture of the README: `python -m docs.pictures.screenshot`.

Runs keyrelay with the built-in provider and headless Chromium, makes some exchanges, opens a
WebSocket in the inspector, and writes inspector.png. Needs what `make test-browser` needs.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import tempfile
from pathlib import Path

import aiohttp
from websockets.asyncio.client import connect

from tests.browser.webdriver import Browser, chromium

PICTURE = Path(__file__).with_name("inspector.png")
SIZE = {"width": 1200, "height": 700, "deviceScaleFactor": 1, "mobile": False}
ROUTES = """\
listen: 127.0.0.1:{port}
admin: {{listen: 127.0.0.1:{admin}}}
routes:
  demo: {{provider: demo}}
  voice: {{provider: demo}}
  narrow: {{provider: demo, allow: [GET /echo/**]}}
"""
START_SECONDS = 60.0


async def exchanges(base: str) -> None:
    """Requests of several kinds, some of them refused."""
    async with aiohttp.ClientSession() as http:
        for method, path in (
            ("GET", "/demo/echo/models"),
            ("POST", "/demo/echo/completions"),
            ("GET", "/narrow/echo/voices"),
            ("DELETE", "/narrow/echo/voices/1"),
            ("GET", "/demo/sse"),
            ("GET", "/nothing/here"),
        ):
            data = b'{"input": "Hello"}' if method == "POST" else None
            async with http.request(method, base + path, data=data) as response:
                await response.read()


async def picture(browser: Browser, admin: str, token: str, base: str) -> bytes:
    """The inspector with a WebSocket opened, as PNG."""

    async def devtools(command: str, **parameters: object) -> object:
        content: dict[str, object] = {"cmd": command, "params": parameters}
        return await browser._command("goog/cdp/execute", content)

    await devtools("Emulation.setDeviceMetricsOverride", **SIZE)
    await browser.open(f"{admin}/#token={token}")
    await asyncio.sleep(2)
    await exchanges(base)
    async with connect(f"{base.replace('http', 'ws')}/voice/ws", proxy=None) as socket:
        await socket.recv()
        await asyncio.sleep(1)
        await browser.run("document.querySelector('.row').click()")
        await asyncio.sleep(1)
        for number in range(3):
            text = {"type": "user_input", "text": f"Message {number + 1}"}
            await socket.send(json.dumps(text))
            await socket.recv()
        await asyncio.sleep(1)
        shot = await devtools("Page.captureScreenshot", format="png")
    assert isinstance(shot, dict)
    return base64.b64decode(shot["data"])


async def free_ports() -> tuple[int, int]:
    """Two ports of loopback that were free a moment ago."""
    servers = [
        await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, start_serving=False)
        for _ in range(2)
    ]
    first, second = (int(server.sockets[0].getsockname()[1]) for server in servers)
    for server in servers:
        server.close()
    return first, second


async def main() -> None:
    """Write the picture."""
    port, admin = await free_ports()
    base = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "routes.yaml")
        config.write_text(ROUTES.format(port=port, admin=admin), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", "run", "--config", str(config)),
            env={**os.environ, "XDG_RUNTIME_DIR": folder},
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            runtime = Path(folder, "keyrelay", f"admin-{admin}.json")
            async with asyncio.timeout(START_SECONDS):
                while not runtime.exists():
                    await asyncio.sleep(0.1)
            token = json.loads(runtime.read_text(encoding="utf-8"))["token"]
            async with chromium() as browser:
                PICTURE.write_bytes(
                    await picture(browser, f"http://127.0.0.1:{admin}", token, base)
                )
        finally:
            process.terminate()
            await process.wait()


if __name__ == "__main__":
    asyncio.run(main())
