"""Client connections: parse requests one after another, write responses.

Parses with aiohttp's strict parser and passes each request on in the same iteration of the event
loop; independent of routes and credentials. One request is in progress at a time; pipelined bytes
(RFC 9112 section 9.3.2) wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from proxy.errors import Refusal
from proxy.http import dead_peers
from proxy.http import parser as http_parser
from proxy.http.problem import problem
from proxy.http.request import Request
from proxy.http.request_id import request_id
from proxy.server import wrong_protocol
from proxy.server.client_transport import (
    BLOCKED,
    CLOSING,
    LINGER_SECONDS,
    NEVER,
    OPEN,
    ClientTransport,
    Timeouts,
)
from proxy.server.connection_limit import MAX_REFUSED, ConnectionLimit
from proxy.server.head_limits import MAX_HEAD_BYTES, HeadBudget, HeadTooLarge, head_too_large

# Bytes that may wait behind a request in progress before reading stops. Reading continues up to
# this limit so that a disconnect of the client is noticed.
_BACKLOG = 64 * 1024
# Maximum idle time within a request's body (seconds): long, for microphones that pause.
_BODY_SILENCE = 300.0
_BLANK_LINE = b"\r\n\r\n"


class RequestListener(Protocol):
    """Receives the body of one request and the events of its client connection."""

    def on_request_body(self, data: bytes, *, ended: bool) -> None: ...
    def on_client_disconnect(self) -> None: ...
    def on_client_blocked(self) -> None: ...
    def on_client_writable(self) -> None: ...


Handle = Callable[[Request, "ClientConnection", bytes, bool], RequestListener | None]


class ClientConnection(ClientTransport):
    """One accepted connection.

    handle      called for each request with the part of its body that has arrived. Responds at once
                (``write`` and ``done``, or ``refuse``) and returns None, or returns a listener that
                will call ``write`` and ``done``
    on_malformed  called with the refusal, and its request ID, of bytes that are no request
    limit       decides whether the connection is served at all; None admits every connection
    request_id  ID of the current request, for generated responses
    """

    __slots__ = (
        "_alone",
        "_backlog",
        "_body",
        "_exchange",
        "_full",
        "_handle",
        "_head_bytes",
        "_heads",
        "_last",
        "_limit",
        "_on_malformed",
        "_parser",
        "_pumping",
        "_registry",
        "keep_alive",
        "request_id",
    )

    def __init__(
        self,
        handle: Handle,
        registry: set[ClientConnection],
        times: Timeouts,
        loop: asyncio.AbstractEventLoop,
        limit: ConnectionLimit | None = None,
        on_malformed: Callable[[Refusal, str], None] | None = None,
    ) -> None:
        super().__init__(loop, times)
        self._handle = handle
        self._on_malformed = on_malformed
        self._limit = limit
        self._heads = HeadBudget() if limit is None else limit.heads
        # Bytes of the incomplete header section, taken from ``_heads``.
        self._head_bytes = 0
        self._registry = registry
        self._parser = http_parser.request_parser(loop)
        self._exchange: RequestListener | None = None
        self._body: http_parser.Body | None = None
        self._backlog = b""
        self._alone = False
        self._pumping = False
        self._full = False
        self._last = False
        self.keep_alive = True
        self.request_id = ""

    # -- asyncio.Protocol callbacks ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._limit is not None:
            refusal = self._limit.check(self.transport, len(self._registry))
            if refusal is not None:
                self._refuse_connection(refusal, self._limit.refused)
                return
        dead_peers.detect_dead_peer(transport, self._times.dead_peer_seconds, may_pause=True)
        self._registry.add(self)
        self.deadline = self._loop.time() + self._times.keepalive_seconds

    def _refuse_connection(self, refusal: Refusal, registry: set[ClientConnection]) -> None:
        """Refuse the connection before any read."""
        self._registry = registry
        if len(registry) >= MAX_REFUSED:
            self.abort()
            return
        registry.add(self)
        self.transport.write(problem(refusal, close=True, request_id=request_id(None)))
        self._linger()

    def connection_lost(self, exc: Exception | None) -> None:
        self._registry.discard(self)
        self._state = CLOSING
        self._release_head()
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.on_client_disconnect()

    def data_received(self, data: bytes) -> None:
        if self._state is CLOSING:
            self.deadline = min(self._loop.time() + LINGER_SECONDS, self._linger_end)
            return
        if self._state is BLOCKED or (self._exchange is not None and self._body is None):
            self._backlog += data
            if len(self._backlog) > _BACKLOG:
                self.pause_reading()
            return
        self._pump(data)

    def eof_received(self) -> bool:
        """The client has ended its sending direction: keep the connection if responses are due.

        It may wait for them (RFC 1122 section 4.2.2.13), or may be gone: then ``expire`` notices it
        within a second where the system can tell, elsewhere a write fails.
        """
        due = self._exchange is not None or self._state is BLOCKED
        if not due or self._state is CLOSING or self._body is not None or self._is_gone():
            # Of an incomplete request nothing more arrives.
            return False
        self.half_closed = True
        if self._alone and not self._backlog:
            self.keep_alive = False
        return True

    def pause_writing(self) -> None:
        self._full = True
        if self._exchange is not None:
            self._exchange.on_client_blocked()

    def resume_writing(self) -> None:
        self._full = False
        if self._exchange is not None:
            self._exchange.on_client_writable()
        elif self.deadline != NEVER:
            # A blocked write is not idle time: the timeout begins now.
            seconds = LINGER_SECONDS if self._state is CLOSING else self._times.keepalive_seconds
            self.deadline = self._loop.time() + seconds
        if self._state is BLOCKED:
            self._continue()

    # -- reading -------------------------------------------------------------------------------

    def _pump(self, data: bytes) -> None:
        """Parse until a request is in progress or no bytes are left."""
        self._pumping = True
        try:
            while True:
                messages, _, _ = self._parser.feed_data(data)
                if self._body is not None:
                    self._read_body(self._body)
                if not messages:
                    if self._exchange is None and data:
                        self._hold_head(len(data))
                    break
                head, body = messages[0]
                # If a head without a body ends with the read, nothing has arrived behind it. A read
                # that begins with a line end may contain another request's blank line.
                end = data.find(_BLANK_LINE) + len(_BLANK_LINE)
                if self._head_bytes + end > MAX_HEAD_BYTES:
                    raise head_too_large()
                self._release_head()
                self._alone = end == len(data) and body.is_eof() and data[0] not in b"\r\n"
                self._begin(head, body)
                if self._exchange is not None or self._state is not OPEN:
                    break
                self._parser.message_consumed()
                data = b""
        except http_parser.HttpProcessingError as error:
            self._malformed(wrong_protocol.refusal(data) or http_parser.refusal(error))
        except HeadTooLarge as error:
            self._malformed(error.refusal)
        finally:
            self._pumping = False
        if self._exchange is None and self._state is not CLOSING and data:
            # An incomplete head has a deadline, which further bytes do not extend.
            self.deadline = min(self.deadline, self._loop.time() + self._times.head_seconds)

    def _hold_head(self, size: int) -> None:
        """Count a part of a header section. Raises HeadTooLarge beyond a bound."""
        self._head_bytes += size
        self._heads.take(size)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise head_too_large()

    def _release_head(self) -> None:
        if self._head_bytes:
            self._heads.give_back(self._head_bytes)
            self._head_bytes = 0

    def _begin(self, head: http_parser.RequestHead, body: http_parser.Body) -> None:
        request = http_parser.request(head)
        ended = body.is_eof()
        self._body = None if ended else body
        # No request may follow where the parser would misread it: after an offer to change the
        # protocol (h2c, WebSocket) or CONNECT it drops bytes, and it treats the last trailer of a
        # chunked body as the first field of the next request, which may be of another client.
        self.keep_alive = request.version == (1, 1) and not (
            head.should_close or head.upgrade or head.chunked or self._last
        )
        self.deadline = NEVER if ended else self._loop.time() + _BODY_SILENCE
        self._exchange = self._handle(request, self, body.read_nowait(), ended)

    def _read_body(self, body: http_parser.Body) -> None:
        data, ended = body.read_nowait(), body.is_eof()
        self.deadline = NEVER if ended else self._loop.time() + _BODY_SILENCE
        if ended:
            self._body = None
        if self._exchange is not None and (data or ended):
            self._exchange.on_request_body(data, ended=ended)

    def _malformed(self, refusal: Refusal) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            # The body of the request in progress is malformed, so its end is unknown.
            exchange.on_client_disconnect()
            self.abort()
        else:
            self.request_id = request_id(None)
            if self._on_malformed is not None:
                self._on_malformed(refusal, self.request_id)
            self.transport.write(problem(refusal, close=True, request_id=self.request_id))
            # The old parser may hold much of a header section while the connection lingers.
            self._parser = http_parser.request_parser(self._loop)
            self._release_head()
            self.done(close=True)

    def take_early_bytes(self) -> bytes:
        """Bytes that arrived behind a WebSocket handshake. The parser is unusable afterwards."""
        _, _, tail = self._parser.feed_data(b"")
        backlog, self._backlog = self._backlog, b""
        return tail + backlog

    # -- for the request listener --------------------------------------------------------------

    @property
    def must_close(self) -> bool:
        """Whether the connection ends after this response, which then needs Connection: close."""
        return self._body is not None or not self.keep_alive

    def write(self, data: bytes) -> None:
        """Send a part of the response. The transport buffers; see ``on_client_blocked``."""
        self.transport.write(data)

    def refuse(
        self, refusal: Refusal, *, origin: str | None = None, head_only: bool = False
    ) -> None:
        """Respond with a problem, from within ``handle`` or for an exchange that has failed."""
        close = self.must_close
        response = problem(
            refusal,
            origin=origin,
            head_only=head_only,
            close=close,
            request_id=self.request_id,
        )
        self.transport.write(response)
        self.done(close=close)

    def done(self, *, close: bool = False) -> None:
        """End the response: continue with the next request, or close.

        ``close`` is for ends that the client did not request: it may still be sending.
        """
        self._exchange = None
        if self._state is CLOSING:
            return
        if close or self._body is not None:
            self._linger(complete=self._body is None)
        elif not self.keep_alive:
            self.close_after_flush()
        else:
            self.deadline = self._loop.time() + self._times.keepalive_seconds
            if self._full:
                # No further request begins before the client has received the previous responses.
                self._state = BLOCKED
                self.pause_reading()
            elif not self._pumping:
                self._continue()

    def _continue(self) -> None:
        """Parse the bytes that arrived behind the last request."""
        self._state = OPEN
        self._parser.message_consumed()
        backlog, self._backlog = self._backlog, b""
        if self._reading_paused:
            self.resume_reading()
        if backlog or not self._alone:
            self._pump(backlog)
        if self.half_closed and self._exchange is None and self._state is OPEN:
            self.close_after_flush()

    def abort(self) -> None:
        self._exchange = None
        super().abort()

    def close_after_flush(self) -> None:
        self._exchange = None
        super().close_after_flush()

    def close_when_idle(self) -> None:
        """Begin no further request; close after the response of the one in progress.

        A refused connection that lingers keeps its deadline.
        """
        self.keep_alive = False
        if self._exchange is None and self._state is not CLOSING:
            # Also in BLOCKED: the bytes behind the last request are not parsed any more.
            self.close_after_flush()

    def finish_soon(self) -> None:
        """Let the response in progress, or else the next one, be the last. It announces that."""
        self._last = True
        self.keep_alive = False

    def detach(self) -> None:
        """Release the connection: another protocol takes over the transport."""
        self._registry.discard(self)
        self._exchange = None
        self._state = CLOSING

    def pause_reading(self) -> None:
        if not self._reading_paused and self._body is not None:
            self.deadline = NEVER
        super().pause_reading()

    def resume_reading(self) -> None:
        if self._reading_paused and self._body is not None:
            self.deadline = self._loop.time() + _BODY_SILENCE
        super().resume_reading()

    # -- for the owner of the registry ---------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether no request is in progress."""
        return self._exchange is None

    @property
    def expects_request(self) -> bool:
        """Whether a request is due: the connection's first, or one whose head is incomplete."""
        return not self.request_id or self._head_bytes > 0

    def expire(self, now: float) -> None:
        """Close if the deadline has passed, or the client is gone. ``now`` is the loop's time."""
        if self.half_closed and self._is_gone():
            self.transport.abort()
        elif now < self.deadline or self._full:
            return  # A blocked write is not idle time; TCP detects dead peers.
        elif self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            exchange.on_client_disconnect()
            self.abort()
        else:
            # Between requests, within a head, or lingering: no response is due.
            self._end_unused(now)
