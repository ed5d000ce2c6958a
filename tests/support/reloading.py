"""A keyrelay whose files a test changes while it runs, and a provider that changes its keys."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from proxy.app.app import App
from proxy.app.reload import Reloader
from proxy.app.status import Reload
from proxy.auth.credential import SecretState
from proxy.clock import Clock
from proxy.config import loader
from tests.support.keyrelay import Running, static_route

LOOK_SECONDS = 0.02
UNAUTHORIZED = b'{"error": "dummy provider knows no such key"}'


# -- the provider ------------------------------------------------------------------------------


@dataclass
class KeyedProvider:
    """Takes the keys in ``accepts``, refuses all others, and keeps what it got.

    HTTP: ``X-Api-Key`` or a bearer token; echoes the body. ``/slow`` answers in two halves, the
    second one when ``go_on`` is set. WebSocket: ``api_key`` or ``access_token``; echoes messages.
    ``POST /token`` gives ``dummy-token-N`` for a client secret in ``clients`` (Basic), which
    ``accepts`` knows from then on.

    asked    each request: method, path, key, body; a handshake's method is ``WS``
    fetched  the client secret of each call for a token
    open     connections that are open now
    """

    accepts: set[str] = field(default_factory=set)
    clients: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, str, bytes]] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    server: web.Server | None = None

    @property
    def open(self) -> int:
        assert self.server is not None
        return len(self.server.connections)

    @property
    def keys(self) -> list[str]:
        """The key of each request, in order."""
        return [key for _, _, key, _ in self.asked]

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        if request.path == "/token":
            return self._token(request)
        websocket = request.headers.get("Upgrade", "").lower() == "websocket"
        key = request.headers.get("X-Api-Key") or request.query.get("api_key")
        key = key or request.headers.get("Authorization", "").removeprefix("Bearer ")
        key = key or request.query.get("access_token", "")
        self.asked.append(("WS" if websocket else request.method, request.path, key, body))
        if key not in self.accepts:
            return web.Response(
                status=401,
                body=UNAUTHORIZED,
                content_type="application/json",
                headers={"WWW-Authenticate": "Bearer", "X-Provider": "dummy"},
            )
        if websocket:
            return await self._echo(request)
        if request.path == "/slow":
            return await self._slow(request)
        return web.Response(body=body or b"ok")

    async def _echo(self, request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
        return socket

    async def _slow(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"first ")
        await self.go_on.wait()
        await answer.write(b"second")
        await answer.write_eof()
        return answer

    def _token(self, request: web.BaseRequest) -> web.Response:
        encoded = request.headers["Authorization"].removeprefix("Basic ")
        secret = base64.b64decode(encoded).decode().partition(":")[2]
        self.fetched.append(secret)
        if secret not in self.clients:
            return web.json_response({"error": "invalid_client"}, status=401)
        token = f"dummy-token-{len(self.fetched)}"
        self.accepts.add(token)
        answer = {"access_token": token, "token_type": "bearer", "expires_in": 3600}
        return web.json_response(answer)


@asynccontextmanager
async def keyed_provider(
    *accepts: str, clients: Iterable[str] = (), port: int = 0
) -> AsyncIterator[KeyedProvider]:
    """A provider on loopback that takes these keys, until the block ends."""
    provider = KeyedProvider(set(accepts), set(clients))
    provider.server = web.Server(provider.handle, access_log=None)
    runner = web.ServerRunner(provider.server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield provider
    finally:
        provider.go_on.set()
        await runner.cleanup()


def token_route(
    upstream: str, secret: Any, client_id: str = "env:DUMMY_CLIENT_ID", **more: Any
) -> dict[str, Any]:
    """A route whose credential is a token that its upstream gives for a client secret."""
    return {
        "upstream": upstream,
        "spares": 0,
        "secrets": {"client_id": client_id, "client_secret": secret},
        "auth": [
            {
                "name": "token",
                "token": {
                    "type": "oauth2_client_credentials",
                    "url": "/token",
                    "client_id": "{client_id}",
                    "client_secret": "{client_secret}",
                },
                "http": {"header": "Authorization", "value": "Bearer {token}"},
                "websocket": {"query": "access_token", "value": "{token}"},
            }
        ],
        **more,
    }


def rotated_route(upstream: str, *references: str, **more: Any) -> dict[str, Any]:
    """``static_route`` with these values of its key, the first to be used."""
    return static_route(upstream, **{"secrets": {"key": list(references)}, **more})


# -- keyrelay ----------------------------------------------------------------------------------


def put(file: Path, text: str, mode: int = 0o600) -> None:
    """Give a file another content in one step, as careful programs do."""
    new = file.with_name(f".{file.name}.new")
    new.write_text(text)
    new.chmod(mode)
    new.replace(file)


@dataclass
class Changing(Running):
    """A keyrelay on a routes file; ``said`` has the lines for the operator.

    document  what the routes file holds; change it and ``write`` it
    """

    reloader: Reloader
    file: Path
    document: dict[str, Any]
    said: list[str]

    def write(self) -> None:
        """Replace the routes file by ``document``."""
        put(self.file, json.dumps(self.document))

    async def reload(self) -> Reload:
        """Read everything anew, as after SIGHUP."""
        return await self.reloader.reload()

    async def reload_document(self) -> Reload:
        """The same after ``write``."""
        self.write()
        return await self.reload()

    async def change(self, **routes: Any) -> Reload:
        """Replace or add routes, remove those that are None, and reload."""
        for name, route in routes.items():
            if route is None:
                del self.document["routes"][name]
            else:
                self.document["routes"][name] = route
        return await self.reload_document()

    def secrets(self, route: str = "api") -> tuple[SecretState, ...]:
        """What the first strategy of a route says of its secrets."""
        (found,) = [one for one in self.app.routes if one.name == route]
        state = found.strategies[0].credential.state()
        return () if state is None else state.secrets


@asynccontextmanager
async def changing(
    folder: Path, routes: dict[str, Any], *, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[Changing]:
    """Keyrelay on a free port with these routes in a file. It reloads when it is told to."""
    document = {"listen": "127.0.0.1:0", "drain_seconds": 0, "routes": routes, **settings}
    file = folder / "routes.yaml"
    # JSON is YAML.
    put(file, json.dumps(document))
    lines: list[str] = []
    said: list[str] = []
    app = App(loader.load(file), write_log=lines.append, clock=clock, warn=said.append)
    load = partial(loader.load, file)
    files = partial(loader.files, file)
    reloader = Reloader(app, load, files, said.append, poll_seconds=LOOK_SECONDS)
    async with app:
        yield Changing(app, lines, reloader, file, document, said)


@asynccontextmanager
async def watched(changing: Changing) -> AsyncIterator[None]:
    """The files are watched until the block ends."""
    watching = asyncio.get_running_loop().create_task(changing.reloader.watch())
    try:
        yield
    finally:
        ended = watching.done()
        watching.cancel()
        await asyncio.wait({watching})
        assert not ended, f"watching ended by itself: {watching!r}"


def sockets() -> int:
    """How many sockets this process has open."""
    count = 0
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  only names are wanted
        try:
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")  # noqa: PTH115
        except FileNotFoundError:
            continue  # the one by which the directory was read
    return count
