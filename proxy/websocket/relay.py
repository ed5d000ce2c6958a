"""Relay the bytes of a WebSocket session between two connections without parsing frames.

Compression, fragmentation, pings, close codes and message sizes are thus preserved end to end. Each
side is read only as fast as the other is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from proxy.websocket.closing import GracefulClose

# Maximum time between the ends of the two sides (seconds).
_ENDING = 30.0


class Tap(Protocol):
    """Receives a copy of all relayed bytes, in order. Its methods must not raise.

    ``note`` describes what the proxy did with the last message of the client. ``ended`` is called
    once, when both connections are closed.
    """

    def from_client(self, data: bytes) -> None: ...
    def from_provider(self, data: bytes) -> None: ...
    def note(self, text: str) -> None: ...
    def ended(self) -> None: ...


class Relay:
    """One WebSocket session.

    ``ended`` is called once, when both connections are closed, with the relay, the number of bytes
    sent to the provider and of those sent to the client. ``tap`` receives a copy of all bytes.
    """

    __slots__ = ("_client", "_ended", "_graceful_close", "_loop", "_provider", "_tap", "_timer")

    def __init__(
        self,
        client: asyncio.Transport,
        provider: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[Relay, int, int], None],
        tap: Tap | None = None,
    ) -> None:
        self._loop = loop
        self._ended = ended
        self._tap = tap
        self._timer: asyncio.TimerHandle | None = None
        self._graceful_close: GracefulClose | None = None
        self._client = self.new_side(client, from_client=True)
        self._provider = self.new_side(provider, from_client=False)
        self._client.far, self._provider.far = self._provider, self._client

    def new_side(self, transport: asyncio.Transport, *, from_client: bool) -> RelaySide:
        """A side that forwards bytes as they are, copied to the tap if there is one."""
        if self._tap is None:
            return RelaySide(self, transport)
        copy = self._tap.from_client if from_client else self._tap.from_provider
        return _TappedSide(self, transport, copy)

    def start(
        self, *, from_client: bytes, from_provider: bytes, client_ended: bool = False
    ) -> None:
        """Take over both transports and forward the bytes that were already read.

        ``client_ended``: the client has ended its sending direction behind them.
        """
        for side in (self._client, self._provider):
            side.transport.set_protocol(side)
            side.transport.resume_reading()
        if from_client:
            self._client.data_received(from_client)
        if from_provider:
            self._provider.data_received(from_provider)
        if client_ended and not self._client.eof_received():
            self._client.close()

    @property
    def moved(self) -> tuple[int, int]:
        """Bytes received from the client and from the provider so far."""
        return self._client.moved, self._provider.moved

    def close_gracefully(self, grace_seconds: float) -> None:
        """End the session within ``grace_seconds`` with Close frames to both sides (``closing``).

        Returns immediately. ``ended`` is called at the end, at the latest a second after the grace
        period. Does nothing if one side is closed: the session is already ending.
        """
        if self._graceful_close is None and not (self._client.lost or self._provider.lost):
            self._graceful_close = GracefulClose(
                self._client, self._provider, self._loop, grace_seconds
            )

    def abort(self) -> None:
        """Abort both connections."""
        self._client.transport.abort()
        self._provider.transport.abort()

    def side_lost(self, side: RelaySide, exc: Exception | None) -> None:
        """Close the other connection after the end of one, in the same manner."""
        if not side.far.lost:
            if exc is None:
                side.far.close()
                self.end_soon()
            else:
                side.far.transport.abort()
            return
        if self._timer is not None:
            self._timer.cancel()
        if self._tap is not None:
            self._tap.ended()
        self._ended(self, *self.moved)

    def end_soon(self) -> None:
        """Give the other side time to receive the remaining bytes and to end as well."""
        if self._timer is None:
            self._timer = self._loop.call_later(_ENDING, self.abort)


class RelaySide(asyncio.Protocol):
    """One of the two connections.

    moved   number of bytes received from it
    full    its write buffer is full, so the other side is not read
    silent  it has ended its sending direction
    lost    it is closed
    """

    __slots__ = ("_relay", "far", "full", "lost", "moved", "silent", "transport")

    def __init__(self, relay: Relay, transport: asyncio.Transport) -> None:
        self._relay = relay
        self.transport = transport
        self.far: RelaySide
        self.moved = 0
        self.full = False
        self.silent = False
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.moved += len(data)
        self.far.transport.write(data)

    def eof_received(self) -> bool:
        self.silent = True
        far = self.far.transport
        if self.far.silent or not (far.can_write_eof() and self.transport.can_write_eof()):
            # TLS has no half-closed state: the end of one direction ends both.
            return False
        if not far.is_closing():
            far.write_eof()
            self._relay.end_soon()
        return True

    def pause_writing(self) -> None:
        self.full = True
        if not self.far.transport.is_closing():
            self.far.transport.pause_reading()

    def resume_writing(self) -> None:
        self.full = False
        if not self.far.transport.is_closing():
            self.far.transport.resume_reading()

    def close(self) -> None:
        """End the connection once everything is written.

        At most once: a second ``close`` of asyncio's TLS transports detaches them from their
        connection, and ``abort`` has no effect afterwards, or raises AttributeError in 3.11.2.
        """
        if not self.transport.is_closing():
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._relay.side_lost(self, exc)


class _TappedSide(RelaySide):
    """A side that copies received bytes to the tap."""

    __slots__ = ("_copy",)

    def __init__(
        self, relay: Relay, transport: asyncio.Transport, copy: Callable[[bytes], None]
    ) -> None:
        super().__init__(relay, transport)
        self._copy = copy

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._copy(data)
