"""Graceful close of a WebSocket session by the proxy: both sides get a Close frame (1001).

The relay does not parse frames, and a Close frame may be inserted between two frames only. From now
on each direction is therefore parsed until a frame boundary is found:

- after a moment without data, because senders write whole frames;
- at the end of a read that consists of whole frames;
- behind a pause, where a read begins with a frame; the end of that frame is forwarded first.

A direction without a pause gets its Close frame anyway after half of the grace period: the peer
then sees a protocol error, which is better than a connection that ends without notice.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import Protocol

from proxy.upstream.unread import has_unread
from proxy.websocket.frame_sync import FrameSync
from proxy.websocket.frames import CloseCode, Opcode, close_frame

# Time without data (seconds) that indicates a frame boundary. Over a long distance a frame arrives
# in bursts, one per round trip, so the actual value is at least two round trips.
_QUIET = 0.02
# The same after data that is not whole frames: a large frame is in progress.
_LONG_QUIET = 0.25
# A timer this late (seconds) means a busy loop, which could not have read any data.
_LATE = 0.01
# Pause (seconds) after which a read may begin with a frame.
_PAUSE = 0.002
# Time (seconds) for flushing the write buffers at the end.
_FLUSH_SECONDS = 1.0
# Offset of the smoothed round-trip time, in microseconds, in Linux's struct tcp_info.
_ROUND_TRIP_AT = 68


class Side(Protocol):
    """One of the two connections, as the relay represents it.

    full    its write buffer is full, so the other side is not read
    silent  it has ended its sending direction, and the other side got that end
    lost    it is closed
    """

    transport: asyncio.Transport
    full: bool
    silent: bool
    lost: bool

    @property
    def far(self) -> Side: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool: ...
    def close(self) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...


class GracefulClose:
    """Ends one session within ``grace_seconds``.

    Takes over both transports. A peer's Close frame in response ends its connection; a peer without
    one is disconnected at the end of the grace period. A session that a peer is already closing
    ends as without the proxy.
    """

    __slots__ = ("_closing", "_due", "_half", "_loop", "_timer", "_until")

    def __init__(
        self, client: Side, provider: Side, loop: asyncio.AbstractEventLoop, grace_seconds: float
    ) -> None:
        now = loop.time()
        self._loop = loop
        self._half = now + grace_seconds / 2
        self._until = now + grace_seconds
        self._due = now
        self._timer: asyncio.TimerHandle | None = None
        first = _ClosingDirection(self, client, loop, from_client=True)
        second = _ClosingDirection(self, provider, loop, from_client=False)
        first.far, second.far = second, first
        self._closing = (first, second)
        for one in self._closing:
            one.side.transport.set_protocol(one)
        self._check()

    def _check(self) -> None:
        """Check both directions and schedule the next check. One timer per session."""
        now = self._loop.time()
        for one in self._closing:
            if now - self._due > _LATE:
                one.restart_silence()
            one.check(now, force=now >= self._half)
        if now >= self._until:
            for one in self._closing:
                one.side.close()
            self._timer = self._loop.call_later(_FLUSH_SECONDS, self._abort)
            return
        due = min(one.next_check(now) for one in self._closing)
        limit = self._half if now < self._half else self._until
        self._due = min(due, limit)
        self._timer = self._loop.call_at(self._due, self._check)

    def _abort(self) -> None:
        for one in self._closing:
            one.side.transport.abort()

    def over(self) -> None:
        """Cancel the timer: both connections are closed."""
        if self._timer is not None:
            self._timer.cancel()


class _ClosingDirection(asyncio.Protocol):
    """The direction from one side to the other, until both have closed.

    close_sent  the far side has got a Close frame, the proxy's or that of this side; nothing more
                is forwarded to it
    closed      this side has sent a Close frame or ended its connection
    """

    __slots__ = (
        "_frame_sync",
        "_from_client",
        "_graceful_close",
        "_last_read",
        "_loop",
        "_quiet",
        "_unchanged",
        "close_sent",
        "closed",
        "far",
        "side",
    )

    def __init__(
        self,
        graceful_close: GracefulClose,
        side: Side,
        loop: asyncio.AbstractEventLoop,
        *,
        from_client: bool,
    ) -> None:
        self._graceful_close = graceful_close
        self._loop = loop
        self._from_client = from_client
        self._quiet = max(_QUIET, 2 * _round_trip(side.transport))
        self._last_read = loop.time()
        self._frame_sync = FrameSync(from_client)
        # The far side ends the session itself: the Close frame in response is forwarded unchanged.
        self._unchanged = False
        self.side = side
        self.far: _ClosingDirection
        self.close_sent = False
        self.closed = False

    # -- finding a frame boundary --------------------------------------------------------------

    def check(self, now: float, *, force: bool) -> None:
        """Send the Close frame after enough time without data, or immediately with ``force``."""
        if self.side.lost:
            return
        if not self._frame_sync.known and self._is_quiet(now):
            self._frame_sync.silence()
            self._send_close()
        elif force:
            self._send_close()

    def next_check(self, now: float) -> float:
        """When the time without data may suffice (loop time); infinity if no longer needed."""
        if self._frame_sync.known or self.side.lost:
            return float("inf")
        due = self._last_read + self._quiet
        return due if due > now else now + self._quiet

    def _is_quiet(self, now: float) -> bool:
        if now - self._last_read < self._quiet or self.side.far.full:
            return False
        # Unread data means that the direction is not quiet.
        return not has_unread(self.side.transport)

    def data_received(self, data: bytes) -> None:
        now = self._loop.time()
        paused = now - self._last_read >= _PAUSE
        self._last_read = now
        frames = self._frame_sync.read(data, paused=paused)
        if frames is None:
            self._quiet = max(self._quiet, _LONG_QUIET)
            if not self.close_sent:
                self.side.data_received(data)
            if self.far.close_sent and self._ends_with_response(data):
                self._received_close()
            return
        closing = any(frame.opcode is Opcode.CLOSE for frame in frames)
        if not self.close_sent:
            # Forward up to the last boundary in it; negative if the frame began before.
            whole = len(data) - self._frame_sync.pending
            if self._unchanged or whole < 0:
                self.side.data_received(data)
            else:
                response = closing and self.far.close_sent
                if response:
                    # The response to the proxy's Close frame, which may have another code, ends
                    # here.
                    whole -= frames[-1].size + (6 if self._from_client else 2)
                if whole > 0:
                    self.side.data_received(data[:whole])
                if response or not closing:
                    self._send_close()
        if closing:
            self._received_close()

    def _ends_with_response(self, data: bytes) -> bool:
        """Whether the last bytes echo the proxy's Close frame, without a known boundary."""
        mask = data[-6:-2] if self._from_client else None
        return data.endswith(close_frame(CloseCode.GOING_AWAY, mask=mask))

    # -- closing -------------------------------------------------------------------------------

    def _send_close(self) -> None:
        """Send a Close frame to the far side, unless it has got one or needs none."""
        if self.close_sent or self._unchanged:
            return
        self.close_sent = True
        far = self.side.far
        if not (self.side.silent or far.lost or far.transport.is_closing()):
            # Frames to the provider are masked: the proxy is its client (RFC 6455 section 5.3).
            mask = os.urandom(4) if self._from_client else None
            far.transport.write(close_frame(CloseCode.GOING_AWAY, mask=mask))
        self.far.settle()

    def _received_close(self) -> None:
        """Handle this side's Close frame; a far side without one got it forwarded."""
        self.closed = self.close_sent = True
        if not self.far.close_sent:
            self.far.keep_unchanged()
        self.settle()
        self.far.settle()

    def keep_unchanged(self) -> None:
        self._unchanged = True

    def settle(self) -> None:
        """Close the connection of a side that has got and sent a Close frame."""
        if self.closed and self.far.close_sent:
            self.side.close()

    # -- asyncio.Protocol callbacks ------------------------------------------------------------

    def eof_received(self) -> bool:
        self._send_close()
        self.closed = True
        keep = self.side.eof_received()
        self.settle()
        return keep

    def pause_writing(self) -> None:
        self.side.pause_writing()

    def resume_writing(self) -> None:
        self.side.resume_writing()
        self.far.restart_silence()

    def restart_silence(self) -> None:
        """Restart the measurement: the direction was not read until now."""
        self._last_read = self._loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.side.far.lost:
            self._graceful_close.over()
            self.side.connection_lost(exc)
            return
        self.side.lost = True
        self._send_close()
        self.closed = self.close_sent = True
        self.far.settle()


def _round_trip(transport: asyncio.Transport) -> float:
    """The round-trip time of the connection in seconds, 0 if the system does not report it."""
    option: int | None = getattr(socket, "TCP_INFO", None)
    sock = transport.get_extra_info("socket")
    if option is None or sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return 0.0
    info = sock.getsockopt(socket.IPPROTO_TCP, option, _ROUND_TRIP_AT + 4)
    (microseconds,) = struct.unpack_from("=I", info, _ROUND_TRIP_AT)
    return float(microseconds) / 1e6
