"""A WebSocket at an emulator: it greets, echoes, closes as it was closed, and takes orders.

A text message that is a JSON object beginning with the member "emulator" is an order:

    {"emulator": "close", "code": 4321, "reason": "…"}    close the WebSocket
    {"emulator": "text", "bytes": 5000000}                send a text message of that size
    {"emulator": "binary", "bytes": 5000000}              send a binary message of that size
    {"emulator": "ping"}                                  send a ping
    {"emulator": "cut"}                                   break the connection off
"""

from __future__ import annotations

import json
from typing import Any

from aiohttp import WSCloseCode, web

from tests.emulators import carriers
from tests.emulators.answers import Recorded
from tests.emulators.gate import Changes


class Socket:
    """The emulator's side of one WebSocket."""

    def __init__(self, recorded: Recorded, changes: Changes) -> None:
        offered = carriers.subprotocols(recorded.value("Sec-WebSocket-Protocol"))
        # autoclose would answer 1000 whatever the code was; 0 is no limit.
        self._socket = web.WebSocketResponse(protocols=offered[:1], max_msg_size=0, autoclose=False)
        self._recorded = recorded
        self._changes = changes

    async def accept(self, request: web.BaseRequest) -> web.WebSocketResponse:
        """Answer the handshake with 101 and the first of the subprotocols offered."""
        await self._socket.prepare(request)
        self._recorded.status = 101
        self._changes.notify()
        return self._socket

    async def say(self, content: object) -> None:
        """Send ``content`` as JSON text."""
        await self._socket.send_str(json.dumps(content))

    async def close(self, code: int, reason: str) -> None:
        """Close, and wait for the client's close."""
        await self._socket.close(code=code, message=reason.encode())
        self._recorded.close_code = self._socket.close_code

    async def receive(self) -> str | bytes | None:
        """The next message. None: the client closed, which was answered with its own code."""
        message = await self._socket.receive()
        if message.type in (web.WSMsgType.TEXT, web.WSMsgType.BINARY):
            data: str | bytes = message.data
            self._recorded.messages.append(data)
            self._changes.notify()
            return data
        if message.type is web.WSMsgType.CLOSE:
            self._recorded.close_code = message.data or 1005  # RFC 6455 section 7.1.5: none given
            self._recorded.close_reason = message.extra or ""
            await self._socket.close(code=message.data or 1000)
        elif self._socket.close_code == WSCloseCode.ABNORMAL_CLOSURE:
            self._recorded.outcome = "client left"
        return None

    async def echo(self) -> bool:
        """Echo until one side closes. False: a message ordered to break off."""
        while (message := await self.receive()) is not None:
            if isinstance(message, bytes):
                await self._socket.send_bytes(message)
            elif not message.startswith('{"emulator"'):
                await self._socket.send_str(message)
            elif not await self._obey(json.loads(message)):
                return False
        return True

    async def _obey(self, order: dict[str, Any]) -> bool:
        match order["emulator"]:
            case "close":
                await self.close(int(order.get("code", 1000)), str(order.get("reason", "")))
            case "text":
                await self._socket.send_str("t" * int(order["bytes"]))
            case "binary":
                await self._socket.send_bytes(b"\xb1" * int(order["bytes"]))
            case "ping":
                await self._socket.ping(b"emulator")
            case "cut":
                return False
            case other:
                raise ValueError(f"the emulator has no order {other!r}")
        return True
