"""Where the page of these tests is served from: ``page.html``, at every path."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

_PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Site:
    """A web server on 127.0.0.1. ``origin`` is what the browser calls a page of it."""

    port: int

    def origin(self, host: str = "localhost") -> str:
        return f"http://{host}:{self.port}"


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    """Serve the page on a free port. Once the block has ended, another server may have the port."""

    async def serve(_request: web.BaseRequest) -> web.Response:
        return web.Response(text=_PAGE, content_type="text/html")

    runner = web.ServerRunner(web.Server(serve, access_log=None), shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Site(runner.addresses[0][1])
    finally:
        await runner.cleanup()
