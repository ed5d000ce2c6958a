"""WebSockets after the handshake: bytes move between two connections, frames are not looked at.

So compression, fragmentation, pings, close codes and any message size are exactly the provider's.
Each side is read only as fast as the other takes it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable

from .incoming import Incoming
from .parsers import ResponseHead

# RFC 6455 section 1.3.
_ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Once one side has ended, how long the other may take to end as well (seconds).
_ENDING = 30.0


def accepts(incoming: Incoming, head: ResponseHead) -> bool:
    """Whether a 101 answers this very handshake (RFC 6455 section 4.1, items 2 to 4)."""
    key = incoming.headers["Sec-WebSocket-Key"].encode("ascii")
    digest = hashlib.sha1(key + _ACCEPT_GUID, usedforsecurity=False).digest()
    connection = head.headers.get("Connection", "").lower().split(",")
    return (
        head.headers.get("Upgrade", "").lower() == "websocket"
        and "upgrade" in [token.strip() for token in connection]
        and head.headers.getall("Sec-WebSocket-Accept", ()) == [base64.b64encode(digest).decode()]
    )


class Relay:
    """One WebSocket session.

    ``ended`` is called once, when both connections are gone, with the relay, the bytes to the
    provider and those to the client.
    """

    __slots__ = ("_client", "_ended", "_loop", "_provider", "_timer")

    def __init__(
        self,
        client: asyncio.Transport,
        provider: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[Relay, int, int], None],
    ) -> None:
        self._loop = loop
        self._ended = ended
        self._timer: asyncio.TimerHandle | None = None
        self._client = _Side(self, client)
        self._provider = _Side(self, provider)
        self._client.far, self._provider.far = self._provider, self._client

    def start(self, *, from_client: bytes, from_provider: bytes) -> None:
        """Take both transports over and pass on what was already read."""
        for side in (self._client, self._provider):
            side.transport.set_protocol(side)
            side.transport.resume_reading()
        if from_client:
            self._client.data_received(from_client)
        if from_provider:
            self._provider.data_received(from_provider)

    def close(self) -> None:
        """End both sides; what was written still goes out, if it is taken in time."""
        self._client.transport.close()
        self._provider.transport.close()
        self.end_soon()

    def abort(self) -> None:
        """Drop both connections now."""
        self._client.transport.abort()
        self._provider.transport.abort()

    def side_lost(self, side: _Side, exc: Exception | None) -> None:
        """A connection is gone: so must be the other, in the same manner."""
        if not side.far.lost:
            if exc is None:
                side.far.transport.close()
                self.end_soon()
            else:
                side.far.transport.abort()
            return
        if self._timer is not None:
            self._timer.cancel()
        self._ended(self, self._client.moved, self._provider.moved)

    def end_soon(self) -> None:
        """One side has ended. The other gets some time to take what is left and to end as well."""
        if self._timer is None:
            self._timer = self._loop.call_later(_ENDING, self.abort)


class _Side(asyncio.Protocol):
    """One of the two connections.

    moved   how many bytes came from it
    silent  it will send nothing more
    lost    it is gone
    """

    __slots__ = ("_relay", "far", "lost", "moved", "silent", "transport")

    def __init__(self, relay: Relay, transport: asyncio.Transport) -> None:
        self._relay = relay
        self.transport = transport
        self.far: _Side
        self.moved = 0
        self.silent = False
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.moved += len(data)
        self.far.transport.write(data)

    def eof_received(self) -> bool:
        self.silent = True
        far = self.far.transport
        if self.far.silent or not (far.can_write_eof() and self.transport.can_write_eof()):
            # TLS has no half-closed state: the end of one direction is the end.
            return False
        if not far.is_closing():
            far.write_eof()
            self._relay.end_soon()
        return True

    def pause_writing(self) -> None:
        if not self.far.transport.is_closing():
            self.far.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.far.transport.is_closing():
            self.far.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._relay.side_lost(self, exc)
