"""The end of a WebSocket session that we have to end: both sides get a Close frame (1001).

Until then bytes crossed uncounted by frame, and a Close frame may only stand between two frames.
So each direction is looked at from now on until a border between frames is found:

- where nothing has come for a moment, because senders write whole frames;
- at the end of a read that holds nothing but whole frames;
- behind a pause, where a read begins with a frame; that one gets its end first.

A side that never pauses is told all the same when half of the time is over: it then sees a broken
session, which is better than a silent one.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
from typing import Protocol

from proxy.websocket.frame_sync import FrameSync
from proxy.websocket.frames import CLOSE, close_frame

# RFC 6455 section 7.4.1.
_GOING_AWAY = 1001
# Silence (seconds) that stands for a border. A frame that crosses a long way comes in bursts, one
# for each round trip, so it is at least two of those.
_QUIET = 0.02
# The same once something has come that is not whole frames: a large one is under way.
_LONG_QUIET = 0.25
# When a timer is so late (seconds) the loop was busy, and nobody could have been heard.
_LATE = 0.01
# Silence behind which a read may begin with a frame.
_PAUSE = 0.002
# What is left at the end may take so long (seconds) to go out.
_LAST = 1.0
# Linux, struct tcp_info: where the smoothed round-trip time is, in microseconds.
_ROUND_TRIP_AT = 68


class Side(Protocol):
    """One of the two connections, as the relay keeps it.

    full    it takes nothing more for now, so the far side is not read
    silent  it will send nothing more, and the far side was told so
    lost    it is gone
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

    Takes both transports over. A side's answer to the Close frame ends its connection; whoever does
    not answer is dropped when the time is over. A session that one side is just closing by itself
    ends as it would have.
    """

    __slots__ = ("_due", "_half", "_leaving", "_loop", "_timer", "_until")

    def __init__(
        self, client: Side, provider: Side, loop: asyncio.AbstractEventLoop, grace_seconds: float
    ) -> None:
        now = loop.time()
        self._loop = loop
        self._half = now + grace_seconds / 2
        self._until = now + grace_seconds
        self._due = now
        self._timer: asyncio.TimerHandle | None = None
        first = _Leaving(self, client, loop, from_client=True)
        second = _Leaving(self, provider, loop, from_client=False)
        first.far, second.far = second, first
        self._leaving = (first, second)
        for one in self._leaving:
            one.side.transport.set_protocol(one)
        self._look()

    def _look(self) -> None:
        """See how far both are, and when to look again. One timer for a session."""
        now = self._loop.time()
        for one in self._leaving:
            if now - self._due > _LATE:
                one.begin_silence()
            one.look(now, hurry=now >= self._half)
        if now >= self._until:
            for one in self._leaving:
                one.side.close()
            self._timer = self._loop.call_later(_LAST, self._abort)
            return
        again = min(one.look_again(now) for one in self._leaving)
        limit = self._half if now < self._half else self._until
        self._due = min(again, limit)
        self._timer = self._loop.call_at(self._due, self._look)

    def _abort(self) -> None:
        for one in self._leaving:
            one.side.transport.abort()

    def over(self) -> None:
        """Both connections are gone."""
        if self._timer is not None:
            self._timer.cancel()


class _Leaving(asyncio.Protocol):
    """What comes from one side, on its way to the other.

    said    the far side has got its Close frame, ours or that of this side; nothing of this side
            crosses any more
    closed  this side has sent a Close frame or its end
    """

    __slots__ = (
        "_borders",
        "_farewell",
        "_from_client",
        "_last_read",
        "_left_alone",
        "_loop",
        "_quiet",
        "closed",
        "far",
        "said",
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
        self._farewell = graceful_close
        self._loop = loop
        self._from_client = from_client
        self._quiet = max(_QUIET, 2 * _round_trip(side.transport))
        self._last_read = loop.time()
        self._borders = FrameSync(from_client)
        # The far side ends the session by itself: the answer to that crosses as it is.
        self._left_alone = False
        self.side = side
        self.far: _Leaving
        self.said = False
        self.closed = False

    # -- looking for the border ----------------------------------------------------------------

    def look(self, now: float, *, hurry: bool) -> None:
        """Say it if nothing has come for long enough, or if there is a ``hurry``."""
        if self.side.lost:
            return
        if not self._borders.known and self._is_quiet(now):
            self._borders.silence()
            self._say()
        elif hurry:
            self._say()

    def look_again(self, now: float) -> float:
        """When silence may have lasted long enough, if that is still of interest."""
        if self._borders.known or self.side.lost:
            return float("inf")
        due = self._last_read + self._quiet
        return due if due > now else now + self._quiet

    def _is_quiet(self, now: float) -> bool:
        if now - self._last_read < self._quiet or self.side.far.full:
            return False
        # What has come and is not read yet is no silence either.
        poll = select.poll()
        poll.register(self.side.transport.get_extra_info("socket"), select.POLLIN)
        return not poll.poll(0)

    def data_received(self, data: bytes) -> None:
        now = self._loop.time()
        paused = now - self._last_read >= _PAUSE
        self._last_read = now
        frames = self._borders.read(data, paused=paused)
        if frames is None:
            self._quiet = max(self._quiet, _LONG_QUIET)
            if not self.said:
                self.side.data_received(data)
            if self.far.said and self._ends_with_answer(data):
                self._has_closed()
            return
        closing = any(frame.opcode == CLOSE for frame in frames)
        if not self.said:
            # Up to the last border in it; less than nothing if the frame began before.
            whole = len(data) - self._borders.pending
            if self._left_alone or whole < 0:
                self.side.data_received(data)
            else:
                answered = closing and self.far.said
                if answered:
                    # The answer to our own Close frame, which may hold another code, ends here.
                    whole -= frames[-1].size + (6 if self._from_client else 2)
                if whole > 0:
                    self.side.data_received(data[:whole])
                if answered or not closing:
                    self._say()
        if closing:
            self._has_closed()

    def _ends_with_answer(self, data: bytes) -> bool:
        """Whether the last bytes repeat our Close frame, wherever the frames before it begin."""
        mask = data[-6:-2] if self._from_client else None
        return data.endswith(close_frame(_GOING_AWAY, mask=mask))

    # -- saying it -----------------------------------------------------------------------------

    def _say(self) -> None:
        """Tell the far side, unless it has been told or need not be."""
        if self.said or self._left_alone:
            return
        self.said = True
        far = self.side.far
        if not (self.side.silent or far.lost or far.transport.is_closing()):
            # Towards the provider we are the client (RFC 6455 section 5.3).
            mask = os.urandom(4) if self._from_client else None
            far.transport.write(close_frame(_GOING_AWAY, mask=mask))
        self.far.settle()

    def _has_closed(self) -> None:
        """The side's Close frame has come; if the far side was not told, it got that one."""
        self.closed = self.said = True
        if not self.far.said:
            self.far.leave_alone()
        self.settle()
        self.far.settle()

    def leave_alone(self) -> None:
        self._left_alone = True

    def settle(self) -> None:
        """End the connection of a side that has been told and has answered."""
        if self.closed and self.far.said:
            self.side.close()

    # -- what asyncio says ---------------------------------------------------------------------

    def eof_received(self) -> bool:
        self._say()
        self.closed = True
        keep = self.side.eof_received()
        self.settle()
        return keep

    def pause_writing(self) -> None:
        self.side.pause_writing()

    def resume_writing(self) -> None:
        self.side.resume_writing()
        self.far.begin_silence()

    def begin_silence(self) -> None:
        """It was not silent until now: nobody read it."""
        self._last_read = self._loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.side.far.lost:
            self._farewell.over()
            self.side.connection_lost(exc)
            return
        self.side.lost = True
        self._say()
        self.closed = self.said = True
        self.far.settle()


def _round_trip(transport: asyncio.Transport) -> float:
    """Seconds that a packet takes there and back, 0 where the system does not tell."""
    option: int | None = getattr(socket, "TCP_INFO", None)
    sock = transport.get_extra_info("socket")
    if option is None or sock is None or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return 0.0
    info = sock.getsockopt(socket.IPPROTO_TCP, option, _ROUND_TRIP_AT + 4)
    (microseconds,) = struct.unpack_from("=I", info, _ROUND_TRIP_AT)
    return float(microseconds) / 1e6
