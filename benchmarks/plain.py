"""The proxy that everybody writes with aiohttp, as a measure: `-m benchmarks.plain PORT NAME=URL…`.

One ClientSession, headers copied, chunks pumped, WebSocket messages pumped. It has no guard, no
journal and no care; that is the point.
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web

from benchmarks.configs import KEY, KEY_HEADER

_HOP_BY_HOP = {"connection", "host", "keep-alive", "transfer-encoding", "upgrade"}
_HANDSHAKE = {"sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions"}
_BLOCK_BYTES = 64 * 1024


class Plain:
    """Forwards what comes; ``origins`` by prefix."""

    def __init__(self, session: aiohttp.ClientSession, origins: dict[str, str]) -> None:
        self._session = session
        self._origins = origins

    async def handle(self, request: web.Request) -> web.StreamResponse:
        url = self._origins[request.match_info["name"]] + "/" + request.match_info["rest"]
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
        headers[KEY_HEADER] = KEY
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._socket(request, url, headers)
        body = request.content if request.can_read_body else None
        async with self._session.request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as answer:
            response = web.StreamResponse(status=answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    response.headers[name] = value
            await response.prepare(request)
            async for block in answer.content.iter_any():
                await response.write(block)
            await response.write_eof()
            return response

    async def _socket(
        self, request: web.Request, url: str, headers: dict[str, str]
    ) -> web.StreamResponse:
        for name in [name for name in headers if name.lower() in _HANDSHAKE]:
            del headers[name]
        async with self._session.ws_connect(url, headers=headers) as far:
            near = web.WebSocketResponse()
            await near.prepare(request)
            pumps = [
                asyncio.get_running_loop().create_task(pump)
                for pump in (_pump(near, far), _pump(far, near))
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            await near.close()
            return near


async def _pump(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
    sink: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> None:
    async for message in source:
        if message.type is aiohttp.WSMsgType.BINARY:
            await sink.send_bytes(message.data)
        elif message.type is aiohttp.WSMsgType.TEXT:
            await sink.send_str(message.data)


async def main() -> None:
    port, *named = sys.argv[1:]
    origins = dict(one.split("=", 1) for one in named)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        read_bufsize=_BLOCK_BYTES,
    ) as session:
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{name}/{rest:.*}", Plain(session, origins).handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(port), backlog=4096).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(main())
