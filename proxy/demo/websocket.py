"""The demo provider's WebSocket: it echoes until the client closes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable
from typing import Final

from proxy.websocket.captured_messages import Message, MessageReader
from proxy.websocket.frames import Opcode, frame_bytes
from proxy.websocket.handshake import ACCEPT_GUID

CLOSE_CODE: Final = 4321  # in the range that RFC 6455 section 7.4.2 leaves to private use

_MESSAGE_BYTES: Final = 16 * 1024 * 1024  # as one message is held in memory before it is echoed
_CLOSE_SECONDS: Final = 5.0  # how long the client may take to respond to a Close frame
# RFC 6455 section 7.4.1.
_GOING_AWAY, _PROTOCOL_ERROR, _NOT_UTF8, _TOO_BIG = 1001, 1002, 1007, 1009


def accept_value(key: str) -> str:
    """The ``Sec-WebSocket-Accept`` of a handshake (RFC 6455 section 4.2.2)."""
    digest = hashlib.sha1(key.encode("ascii") + ACCEPT_GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


class EchoSocket(asyncio.Protocol):
    """One WebSocket session, from the bytes behind the handshake on.

    ``ended`` is called once its connection is closed.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[EchoSocket], None],
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._ended = ended
        self._reader = MessageReader(True, limit=_MESSAGE_BYTES)
        self._closing: asyncio.TimerHandle | None = None

    def start(self, greeting: str, early: bytes) -> None:
        """Take over the transport, greet, and read the bytes that have arrived already."""
        self._transport.set_protocol(self)
        self._send(Opcode.TEXT, greeting.encode())
        if early:
            self.data_received(early)

    def close(self, code: int = _GOING_AWAY, reason: bytes = b"") -> None:
        """Begin the closing handshake. A second call does nothing."""
        if self._closing is None and not self._transport.is_closing():
            self._send(Opcode.CLOSE, code.to_bytes(2) + reason)
            self._closing = self._loop.call_later(_CLOSE_SECONDS, self._transport.abort)

    def abort(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    # -- asyncio.Protocol callbacks ------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        for message in self._reader.feed(data):
            if self._transport.is_closing():
                return
            self._take(message)
        if self._reader.broken:
            self.close(_PROTOCOL_ERROR)
            self._transport.close()

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closing is not None:
            self._closing.cancel()
        self._ended(self)

    def _take(self, message: Message) -> None:
        if message.kind == "close":
            if self._closing is None:
                self._send(Opcode.CLOSE, message.data[:2])
            self._transport.close()
        elif self._closing is not None:
            pass  # behind the Close frame nothing may be sent
        elif message.kind == "ping":
            self._send(Opcode.PONG, message.data)
        elif message.truncated:
            self.close(_TOO_BIG)
        elif message.kind == "binary":
            self._send(Opcode.BINARY, message.data)
        elif message.data == b"close":
            self.close(CLOSE_CODE, b"you asked for it")
        elif message.kind == "text":
            if _is_utf8(message.data):
                self._send(Opcode.TEXT, message.data)
            else:
                self.close(_NOT_UTF8)

    def _send(self, opcode: Opcode, payload: bytes) -> None:
        self._transport.write(frame_bytes(opcode, payload, mask=None))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
