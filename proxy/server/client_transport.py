"""The transport of a client connection: its state, its deadline, and the ways in which it ends."""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
from typing import Protocol

from proxy.server.peer_credentials import is_gone

# A client that still sends an unwanted body is read until it pauses this long, and at most so long
# (seconds), so that it can receive the response before a reset (RFC 9112 section 9.6).
LINGER_SECONDS = 5.0
_LINGER_MOST = 30.0
# How long keyrelay's end waits for the closing alert of a client (seconds).
_ALERT_SECONDS = 1.0
NEVER = float("inf")
# SO_LINGER, on, with zero seconds: closing the socket sends a reset.
_RESET = struct.pack("ii", 1, 0)


class ClientState(enum.Enum):
    """State of a client connection."""

    OPEN = "open"
    """Requests are parsed."""
    BLOCKED = "blocked"
    """The client has not received the previous responses; no further request begins."""
    CLOSING = "closing"
    """No further request begins; received bytes are discarded."""


# Module constants, because the state is compared on every read.
OPEN = ClientState.OPEN
BLOCKED = ClientState.BLOCKED
CLOSING = ClientState.CLOSING


class Timeouts(Protocol):
    """``head_seconds`` limits the arrival of a request's head, ``keepalive_seconds`` idle time.

    ``dead_peer_seconds``: how long a client may be gone; see ``dead_peers.detect_dead_peer``.
    """

    @property
    def head_seconds(self) -> float: ...
    @property
    def keepalive_seconds(self) -> float: ...
    @property
    def dead_peer_seconds(self) -> float: ...


class ClientTransport(asyncio.Protocol):
    """What a client connection knows of its transport. Base of ``ClientConnection``.

    deadline     in the loop's time; see ``ClientConnection.expire``
    half_closed  whether the client has ended its sending direction, and is due responses
    secure       whether the transport is TLS, which has no half-closed state
    """

    __slots__ = (
        "_abort_at",
        "_linger_end",
        "_loop",
        "_reading_paused",
        "_state",
        "_times",
        "deadline",
        "half_closed",
        "secure",
        "transport",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, times: Timeouts) -> None:
        self._loop = loop
        self._times = times
        self._state = OPEN
        self._reading_paused = False
        self.half_closed = False
        self.secure = False
        self._linger_end = NEVER
        self._abort_at: float | None = None
        self.deadline = NEVER
        self.transport: asyncio.Transport

    @property
    def can_reset(self) -> bool:
        """Whether ``abort`` shows the client an error: a unix socket's end is always clean."""
        sock = self.transport.get_extra_info("socket")
        return bool(sock.family != socket.AF_UNIX)

    def _is_gone(self) -> bool:
        """Whether a client that has ended its sending direction receives no more either."""
        return is_gone(self.transport)

    def pause_reading(self) -> None:
        """Stop reading until ``resume_reading``; TCP flow control blocks the client."""
        if not self._reading_paused and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._reading_paused and not self.transport.is_closing():
            self._reading_paused = False
            self.transport.resume_reading()

    def close_after_flush(self) -> None:
        """As ``abort``, but flush what was written before. Only for framed responses."""
        self._state = CLOSING
        self._close()

    def _close(self) -> None:
        """Close the transport, at most once: see ``websocket.relay.RelaySide.close``."""
        if not self.transport.is_closing():
            self.transport.close()

    def abort(self) -> None:
        """Reset the connection so that the client sees an incomplete response, not a clean end."""
        self._state = CLOSING
        if not self.transport.is_closing():
            # A response without framing ends with the connection: only a reset marks an error.
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def _end_unused(self, now: float) -> None:
        """End a connection on which no response is due, over TLS with a closing alert.

        ``now`` is the loop's time. Another call, seconds later, does not wait for the client's.
        """
        if self.secure and not self.transport.is_closing():
            self.deadline = now + LINGER_SECONDS
            self._state = CLOSING
            self.transport.close()
        else:
            self._state = CLOSING
            self.transport.abort()

    def end_closing(self) -> None:
        """Over TLS, do not wait for the client's closing alert: it may never read ours.

        Aborts a second after the first call, when what was written has long been sent.
        """
        if not self.secure:
            return
        now = self._loop.time()
        if self._abort_at is None:
            self._abort_at = now + _ALERT_SECONDS
        elif now >= self._abort_at:
            self.transport.abort()

    def _linger(self, *, complete: bool = False) -> None:
        """End the sending direction and discard received bytes until the client pauses.

        ``complete``: nothing is expected that could be discarded.
        """
        self._state = CLOSING
        if self.half_closed or (self.secure and complete):
            self._close()
        elif not self.transport.is_closing():
            now = self._loop.time()
            self.deadline = now + LINGER_SECONDS
            self._linger_end = now + _LINGER_MOST
            self.resume_reading()
            # A closing alert would end both directions. The response has a length or is chunked.
            if not self.secure:
                self.transport.write_eof()
