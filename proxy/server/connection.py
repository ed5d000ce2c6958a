"""Connections from clients: requests in, one after another, answers out.

Reads with aiohttp's strict parser, hands each request on in the same turn of the loop, and knows
nothing of routes or credentials. One request is under way at a time; what a client sends behind it
(pipelining, RFC 9112 section 9.3.2) waits.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Protocol, cast

from proxy.errors import Refusal
from proxy.http import parser as http_parser
from proxy.http.problem import problem
from proxy.http.request import Request, request_id

# Bytes that may wait behind a request under way before reading stops. Reading goes on that long so
# that a client which leaves is noticed.
_BACKLOG = 64 * 1024
# A client that still sends a body nobody wants is read this long (seconds), so that it can take the
# answer before the connection is reset under it (RFC 9112 section 9.6).
_LINGER = 5.0
# Silence within a request's body (seconds). Long, for microphones that pause; not endless, for
# clients that vanished.
_BODY_SILENCE = 300.0
# Connections that may linger with a refusal at once. Those beyond are reset: whoever opens so many
# reads no answers.
_MOST_TURNED_AWAY = 64
_NEVER = float("inf")
_BLANK_LINE = b"\r\n\r\n"
# SO_LINGER, on, with zero seconds: closing the socket sends a reset.
_RESET = struct.pack("ii", 1, 0)


class RequestListener(Protocol):
    """Who serves a request and is told of the client. The record of it is ``journal.Exchange``."""

    def on_request_body(self, data: bytes, *, ended: bool) -> None: ...
    def on_client_disconnect(self) -> None: ...
    def on_client_blocked(self) -> None: ...
    def on_client_drained(self) -> None: ...


Handle = Callable[[Request, "ClientConnection", bytes, bool], RequestListener | None]


class Timeouts(Protocol):
    """``head_seconds`` for a request's head to arrive, ``keepalive_seconds`` between requests."""

    @property
    def head_seconds(self) -> float: ...
    @property
    def keepalive_seconds(self) -> float: ...


class AdmissionPolicy:
    """Which connections may stay: so many at the same time, and none that ``refusal`` is against.

    Decided before anything of them is read. ``turned_away`` are those that get a refusal and then
    have a few seconds to take it; WebSockets are not counted once they are open.
    """

    def __init__(
        self,
        max_connections: int,
        refusal: Callable[[asyncio.BaseTransport], Refusal | None] | None = None,
    ) -> None:
        self.max_connections = max_connections
        self.refusal = refusal
        self.turned_away: set[ClientConnection] = set()

    def look(self, transport: asyncio.Transport, connections: int) -> Refusal | None:
        """Why this connection cannot stay beside ``connections`` others, None if it can."""
        if connections >= self.max_connections:
            return Refusal(
                503,
                "too-many-connections",
                f"Keyrelay keeps {self.max_connections} connections at a time.",
                "Try again, close unused connections, or raise max_connections in the routes file.",
                proxy_error="connection_limit_reached",
                headers=(("Retry-After", "1"),),
            )
        return None if self.refusal is None else self.refusal(transport)


class ClientConnection(asyncio.Protocol):
    """One accepted connection.

    ``handle`` is called for each request with what of its body is there. It answers at once
    (``answer``) and returns None, or returns an Exchange that will call ``write`` and ``done``.
    ``entrance`` says whether the connection may stay at all; None lets all in. ``request_id`` names
    the current request in answers of ours.
    """

    __slots__ = (
        "_alone",
        "_backlog",
        "_body",
        "_closing",
        "_entrance",
        "_exchange",
        "_full",
        "_handle",
        "_loop",
        "_parser",
        "_pumping",
        "_reading_paused",
        "_registry",
        "_times",
        "_waiting",
        "deadline",
        "keep_alive",
        "request_id",
        "transport",
    )

    def __init__(
        self,
        handle: Handle,
        registry: set[ClientConnection],
        times: Timeouts,
        loop: asyncio.AbstractEventLoop,
        admission: AdmissionPolicy | None = None,
    ) -> None:
        self._handle = handle
        self._entrance = admission
        self._registry = registry
        self._times = times
        self._loop = loop
        self._parser = http_parser.request_parser(loop)
        self._exchange: RequestListener | None = None
        self._body: http_parser.Body | None = None
        self._backlog = b""
        self._alone = False
        self._pumping = False
        self._closing = False
        self._reading_paused = False
        self._full = False
        self._waiting = False
        self.keep_alive = True
        self.request_id = ""
        self.deadline = _NEVER
        self.transport: asyncio.Transport

    # -- what asyncio says ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._entrance is not None:
            refusal = self._entrance.look(self.transport, len(self._registry))
            if refusal is not None:
                self._turn_away(refusal, self._entrance.turned_away)
                return
        self._registry.add(self)
        self.deadline = self._loop.time() + self._times.keepalive_seconds

    def _turn_away(self, refusal: Refusal, registry: set[ClientConnection]) -> None:
        """Refuse the connection before anything of it is read."""
        self._registry = registry
        if len(registry) >= _MOST_TURNED_AWAY:
            self.abort()
            return
        registry.add(self)
        self.transport.write(problem(refusal, close=True, request_id=request_id(None)))
        self._linger()

    def connection_lost(self, exc: Exception | None) -> None:
        self._registry.discard(self)
        self._closing = True
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.on_client_disconnect()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self._waiting or (self._exchange is not None and self._body is None):
            self._backlog += data
            if len(self._backlog) > _BACKLOG:
                self.pause_reading()
            return
        self._pump(data)

    def pause_writing(self) -> None:
        self._full = True
        if self._exchange is not None:
            self._exchange.on_client_blocked()

    def resume_writing(self) -> None:
        self._full = False
        if self._exchange is not None:
            self._exchange.on_client_drained()
        elif self.deadline != _NEVER:
            # It was slow to take the answer, not silent: its time begins now.
            seconds = _LINGER if self._closing else self._times.keepalive_seconds
            self.deadline = self._loop.time() + seconds
        if self._waiting:
            self._go_on()

    # -- reading -------------------------------------------------------------------------------

    def _pump(self, data: bytes) -> None:
        """Parse on, until a request is under way or nothing is left."""
        self._pumping = True
        try:
            while True:
                messages, _, _ = self._parser.feed_data(data)
                if self._body is not None:
                    self._read_body(self._body)
                if not messages:
                    break
                head, body = messages[0]
                # Where a head without a body ends with the read, nothing can have come behind it.
                # A read that begins with a line end may hold another request's blank line.
                end = data.find(_BLANK_LINE) + len(_BLANK_LINE)
                self._alone = end == len(data) and body.is_eof() and data[0] not in b"\r\n"
                self._begin(head, body)
                if self._exchange is not None or self._closing or self._waiting:
                    break
                self._parser.message_consumed()
                data = b""
        except http_parser.HttpProcessingError as error:
            self._malformed(http_parser.refusal(error))
        finally:
            self._pumping = False
        if self._exchange is None and not self._closing and data:
            # A head that has begun must be complete in time; more of it does not prolong that.
            self.deadline = min(self.deadline, self._loop.time() + self._times.head_seconds)

    def _begin(self, head: http_parser.RequestHead, body: http_parser.Body) -> None:
        request = http_parser.request(head)
        ended = body.is_eof()
        self._body = None if ended else body
        # Nothing may follow where the parser would get it wrong: after an offer to change the
        # protocol (h2c, WebSocket) or CONNECT it loses bytes, and the last trailer of a chunked
        # body it takes for the first field of the next request, which may be somebody else's.
        self.keep_alive = request.version == (1, 1) and not (
            head.should_close or head.upgrade or head.chunked
        )
        self.deadline = _NEVER if ended else self._loop.time() + _BODY_SILENCE
        self._exchange = self._handle(request, self, body.read_nowait(), ended)

    def _read_body(self, body: http_parser.Body) -> None:
        data, ended = body.read_nowait(), body.is_eof()
        self.deadline = _NEVER if ended else self._loop.time() + _BODY_SILENCE
        if ended:
            self._body = None
        if self._exchange is not None and (data or ended):
            self._exchange.on_request_body(data, ended=ended)

    def _malformed(self, refusal: Refusal) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            # The body of a request under way went wrong: there is no telling where it ends.
            exchange.on_client_disconnect()
            self.abort()
        else:
            self.transport.write(problem(refusal, close=True, request_id=request_id(None)))
            self.done(close=True)

    def take_early_bytes(self) -> bytes:
        """Bytes that came behind a WebSocket handshake. The parser is done for afterwards."""
        _, _, tail = self._parser.feed_data(b"")
        backlog, self._backlog = self._backlog, b""
        return tail + backlog

    # -- what an exchange may do ---------------------------------------------------------------

    @property
    def must_close(self) -> bool:
        """Whether the connection ends with the current answer, which then has to say so."""
        return self._body is not None or not self.keep_alive

    def write(self, data: bytes) -> None:
        """Send a part of the answer. The transport buffers; see ``on_client_blocked``."""
        self.transport.write(data)

    def refuse(
        self, refusal: Refusal, *, origin: str | None = None, head_only: bool = False
    ) -> None:
        """Answer with a problem, from within ``handle`` or for an exchange that has failed."""
        close = self.must_close
        answer = problem(
            refusal,
            origin=origin,
            head_only=head_only,
            close=close,
            request_id=self.request_id,
        )
        self.transport.write(answer)
        self.done(close=close)

    def done(self, *, close: bool = False) -> None:
        """The answer is complete: go on with the next request, or close.

        ``close`` is for ends that the client did not ask for: it may still be sending.
        """
        self._exchange = None
        if self._closing:
            return
        if close or self._body is not None:
            self._linger()
        elif not self.keep_alive:
            self._closing = True
            self.transport.close()
        else:
            self.deadline = self._loop.time() + self._times.keepalive_seconds
            if self._full:
                self._wait()
            elif not self._pumping:
                self._go_on()

    def _wait(self) -> None:
        """Begin no further request before the client has taken the answers that it has."""
        self._waiting = True
        self.pause_reading()

    def _go_on(self) -> None:
        """Take up what came behind the last request."""
        self._waiting = False
        self._parser.message_consumed()
        backlog, self._backlog = self._backlog, b""
        self.resume_reading()
        if backlog or not self._alone:
            self._pump(backlog)

    def _linger(self) -> None:
        """End our side and swallow what still comes, for a while: see _LINGER."""
        self._closing = True
        if not self.transport.is_closing():
            self.deadline = self._loop.time() + _LINGER
            self.resume_reading()
            self.transport.write_eof()

    def abort(self) -> None:
        """Break the connection so that the client sees a broken answer, never a clean end."""
        self._closing = True
        self._exchange = None
        if not self.transport.is_closing():
            # An answer without framing ends where the connection ends: only a reset tells.
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def close_after_flush(self) -> None:
        """As ``abort``, but what was written before still goes out. Only for framed answers."""
        self._closing = True
        self._exchange = None
        self.transport.close()

    def close_when_idle(self) -> None:
        """Begin no further request; the answer to one that is under way is the last.

        Who has been refused already, and lingers, is left to his time.
        """
        self.keep_alive = False
        if self._exchange is None and not self._closing:
            # What came behind the last request would be begun once the client has its answer.
            self._waiting = False
            self.close_after_flush()

    def detach(self) -> None:
        """The connection is not ours any more: another protocol takes the transport over."""
        self._registry.discard(self)
        self._exchange = None
        self._closing = True

    def pause_reading(self) -> None:
        """Stop reading until ``resume_reading``; TCP tells the client to wait."""
        if not self._reading_paused and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()
            if self._body is not None:
                self.deadline = _NEVER

    def resume_reading(self) -> None:
        if self._reading_paused and not self.transport.is_closing():
            self._reading_paused = False
            self.transport.resume_reading()
            if self._body is not None:
                self.deadline = self._loop.time() + _BODY_SILENCE

    # -- what the listener does ----------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return self._exchange is None

    def expire(self, now: float) -> None:
        """Close if the deadline has passed. ``now`` is the loop's time."""
        if now < self.deadline or self._full:
            # Whoever is slow to take an answer is not silent; TCP finds out if he is gone.
            return
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.on_client_disconnect()
            self.abort()
        else:
            # Between requests, half a head, or lingering: nothing to say that would be heard.
            self._closing = True
            self.transport.abort()
