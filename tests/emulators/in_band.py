"""Services that read the credential from a message: strict ones, of both forms.

A session that does not begin as it has to ends at once, with the code and message of its service.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any, ClassVar

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response


@dataclass
class InBand:
    """One service, and what reached it.

    keys        the credentials that it accepts
    handshakes  its requests
    sessions    the messages of each session, in order
    ends        code and reason with which each session was ended by its client
    """

    keys: set[str]
    handshakes: list[Request] = field(default_factory=list)
    sessions: list[list[str | bytes]] = field(default_factory=list)
    ends: list[tuple[int | None, str | None]] = field(default_factory=list)
    port: int = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def receive(self, socket: ServerConnection, messages: list[str | bytes]) -> Any:
        """The next message, which has to be an object in JSON."""
        message = await socket.recv()
        messages.append(message)
        value = json.loads(message) if isinstance(message, str) else None
        assert isinstance(value, dict)
        return value

    async def admit(self, socket: ServerConnection, messages: list[str | bytes]) -> bool:
        raise NotImplementedError

    async def serve(self, socket: ServerConnection) -> None:
        messages: list[str | bytes] = []
        self.sessions.append(messages)
        try:
            if not await self.admit(socket, messages):
                return
            async for message in socket:
                messages.append(message)
                await socket.send(message)
        except (ConnectionClosed, AssertionError, json.JSONDecodeError):
            await socket.close(4002, "malformed")
        finally:
            await socket.wait_closed()
            self.ends.append((socket.close_code, socket.close_reason))

    @asynccontextmanager
    async def running(self, tls: SSLContext | None = None) -> AsyncIterator[InBand]:
        def process(_socket: ServerConnection, request: Request) -> Response | None:
            self.handshakes.append(request)
            return None

        async with serve(
            self.serve,
            "127.0.0.1",
            0,
            process_request=process,
            max_size=None,
            ping_interval=None,
            close_timeout=2,
            ssl=tls,
        ) as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            yield self


class FirstMessage(InBand):
    """Reads the key from the client's first message, as LMNT does: member X-API-Key."""

    member: ClassVar[str] = "X-API-Key"

    async def admit(self, socket: ServerConnection, messages: list[str | bytes]) -> bool:
        first = await self.receive(socket, messages)
        if first.get(self.member) in self.keys:
            return True
        await socket.send(json.dumps({"error": f"unknown key {first.get(self.member)}"}))
        await socket.close(1008, "invalid key")
        return False


class Asking(InBand):
    """Asks for the token, as Home Assistant does; accepts no message before and beside it."""

    async def admit(self, socket: ServerConnection, messages: list[str | bytes]) -> bool:
        await socket.send('{"type":"auth_required","version":"dummy"}')
        first = await self.receive(socket, messages)
        if first.keys() == {"type", "access_token"} and first["access_token"] in self.keys:
            await socket.send('{"type":"auth_ok"}')
            return True
        await socket.send(
            json.dumps({"type": "auth_invalid", "message": f"no {first.get('access_token')}"})
        )
        await socket.close()
        return False


class Gateway(InBand):
    """Greets, takes heartbeats, and a token with ``op`` 2 or 6, as Discord's gateway does."""

    async def admit(self, socket: ServerConnection, messages: list[str | bytes]) -> bool:
        await socket.send('{"op":10,"d":{"heartbeat_interval":41250}}')
        while (first := await self.receive(socket, messages)).get("op") == 1:
            await socket.send('{"op":11}')
        if first.get("op") in {2, 6} and first["d"].get("token") in self.keys:
            await socket.send('{"op":0,"t":"READY"}')
            return True
        await socket.close(4004, "Authentication failed.")
        return False
