"""One connection to a provider: send requests, parse responses, one at a time.

Bytes that arrive on an idle connection belong to no request. As the next response they would assign
one request's response to another (RFC 9112 section 9.2), so such a connection is closed.
"""

from __future__ import annotations

import asyncio
import enum
import select
import ssl
from typing import Protocol, cast

from proxy import tcp
from proxy.errors import UpstreamFailure
from proxy.http import keep_alive, malformed
from proxy.http import parser as http_parser
from proxy.http.framing import CHUNKED, LENGTH, NONE, UNTIL_CLOSE
from proxy.http.response import ResponseHead, parse_simple_head
from proxy.upstream.leftover import Leftover
from proxy.upstream.unread import unread_poll

_NEVER = float("inf")
_BLANK_LINE = b"\r\n\r\n"
_VERSIONS = frozenset({(1, 0), (1, 1)})
# Bytes of a response's header sections, those of interim responses included, and of its trailers.
_MAX_HEAD_BYTES = 256 * 1024
# A reused connection that the provider had closed before it received the request shows it within a
# round trip. Later than this (seconds), the provider may have processed the request.
_UNREAD_WITHIN = 5.0
# A reused connection that has not acknowledged a request after this time (seconds, of several
# retransmissions) leads nowhere any more.
_ACKNOWLEDGED_WITHIN = 5.0
# How a connection ends that the provider closed or reset; with any other error, such as ETIMEDOUT,
# the fate of the request is unknown.
_CLOSED_BY_PROVIDER = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)
# Size of a complete request (bytes) that the kernel takes at once: no later write of it can fail.
_ONE_WRITE = 16 * 1024


class ResponseListener(Protocol):
    """Receives the response to the request that it sent on a connection.

    ``ended`` is set for the last bytes of a response; the connection is then back in the pool.
    """

    @property
    def repeatable(self) -> bool:
        """Whether the request may be sent again: it is idempotent, and complete at hand."""

    def on_response_start(self, head: ResponseHead, body: bytes, *, ended: bool) -> None: ...
    def on_response_body(self, body: bytes, *, ended: bool) -> None: ...
    def on_upstream_error(self, failure: UpstreamFailure, *, unread: bool = False) -> None:
        """The connection failed. ``unread``: a reused one, without a response.

        The provider had closed it without reading the request, or cannot be reached by it.
        """

    def on_upstream_blocked(self) -> None: ...
    def on_upstream_drained(self) -> None: ...


class Owner(Protocol):
    """Keeps connections between requests."""

    def give_back(self, connection: UpstreamConnection) -> None:
        """Take back a connection after the clean end of a response, for another request."""

    def forget(self, connection: UpstreamConnection) -> None:
        """Drop a connection that is closed or has another owner."""


class UpstreamState(enum.Enum):
    """State of a connection to a provider."""

    IDLE = "idle"
    """No request is in progress."""
    AWAITING = "awaiting"
    """A request was sent; no byte of its response has arrived."""
    RECEIVING = "receiving"
    """A part of the response has arrived."""
    CLOSED = "closed"
    """The connection is closed, or released to another protocol."""


# Module constants, because the state changes with every request.
_IDLE = UpstreamState.IDLE
_AWAITING = UpstreamState.AWAITING
_RECEIVING = UpstreamState.RECEIVING
CLOSED = UpstreamState.CLOSED


class UpstreamConnection(asyncio.Protocol):
    """One connection to a provider, serving one request at a time.

    state     see ``UpstreamState``
    fresh     until the end of the first response
    reusable_seconds  how long after the last response the provider keeps it, less a margin
    deadline  in the loop's time, see ``expire``
    """

    __slots__ = (
        "_clean_end",
        "_close_after",
        "_dead_peer_seconds",
        "_framing",
        "_head_bytes",
        "_head_only",
        "_head_tail",
        "_leftover",
        "_listener",
        "_loop",
        "_owner",
        "_parser",
        "_payload",
        "_poll",
        "_reading_paused",
        "_remaining",
        "_request_ended",
        "_requests_left",
        "_sent_at",
        "_silence",
        "_upgrading",
        "deadline",
        "fresh",
        "reusable_seconds",
        "state",
        "transport",
    )

    def __init__(
        self,
        owner: Owner,
        loop: asyncio.AbstractEventLoop,
        silence_seconds: float,
        dead_peer_seconds: float = 0,
    ) -> None:
        self._owner = owner
        self._loop = loop
        self._silence = silence_seconds
        self._dead_peer_seconds = dead_peer_seconds
        self._listener: ResponseListener | None = None
        self._parser: http_parser.Parser | None = None
        self._payload: http_parser.Body | None = None
        self._poll: select.poll | None = None
        self._remaining = 0
        # Of the response body that is being received; NONE outside a body.
        self._framing = NONE
        self._clean_end = False
        # Bytes of the current header sections so far, and the last three of them.
        self._head_bytes = 0
        self._head_tail = b""
        self._head_only = False
        # While a write of the request may fail before its response is read.
        self._leftover: Leftover | None = None
        self._upgrading = False
        self._close_after = False
        self._requests_left = keep_alive.UNLIMITED
        self.reusable_seconds = keep_alive.UNLIMITED
        self._request_ended = True
        self._reading_paused = False
        self._sent_at = 0.0
        self.state = _IDLE
        self.fresh = True
        self.deadline = _NEVER
        self.transport: asyncio.Transport

    # -- sending -------------------------------------------------------------------------------

    def send(
        self,
        listener: ResponseListener,
        data: bytes,
        *,
        ended: bool,
        head_only: bool = False,
        upgrading: bool = False,
    ) -> None:
        """Send a request's head and the available part of its body, in one write.

        ``ended``: the body is complete. ``head_only``: the response has no body (HEAD).
        ``upgrading``: the request asks for a protocol switch.
        """
        self._listener = listener
        self._request_ended = ended
        self._head_only = head_only
        self._upgrading = upgrading
        self.state = _AWAITING
        self._sent_at = self._loop.time()
        self.deadline = self._sent_at + self._silence
        if not ended or len(data) > _ONE_WRITE:
            self._hold_leftover()
        self.transport.write(data)

    def send_more(self, data: bytes, *, ended: bool) -> None:
        """Send a further part of the request body."""
        self._request_ended = ended
        if not self._reading_paused:
            self.deadline = self._loop.time() + self._silence
        if data:
            self.transport.write(data)

    def pause_reading(self) -> None:
        """Stop reading until ``resume_reading``; the client's delay is not idle time."""
        if not self._reading_paused and not self.transport.is_closing():
            self._reading_paused = True
            self.deadline = _NEVER
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._reading_paused and not self.transport.is_closing():
            self._reading_paused = False
            self.deadline = self._loop.time() + self._silence
            self.transport.resume_reading()

    def has_unread(self) -> bool:
        """Whether bytes, or the end, have arrived that the event loop has not read yet.

        They arrived before the next request, so they cannot belong to its response.
        """
        if self._poll is None:
            self._poll = unread_poll(self.transport)
        return bool(self._poll.poll(0))

    def abort(self) -> None:
        """Abort the connection; the listener is not called again."""
        self._listener = None
        self.state = CLOSED
        self._release_leftover()
        self.transport.abort()

    def detach(self) -> asyncio.Transport:
        """Release the transport to another protocol permanently, after a 101 response."""
        self._listener = None
        self.state = CLOSED
        self._release_leftover()
        self._owner.forget(self)
        return self.transport

    def _hold_leftover(self) -> None:
        """Keep received bytes readable in case a write fails."""
        if self._leftover is None and not self.transport.is_closing():
            try:
                self._leftover = Leftover(self.transport)
            except OSError:
                # Without a free descriptor a response before a reset may be lost, nothing else.
                self._leftover = None

    def _release_leftover(self) -> None:
        if self._leftover is not None:
            self._leftover.close()
            self._leftover = None

    def _read_leftover(self) -> None:
        """Read what arrived before the reset. A response that it ends is complete."""
        leftover, self._leftover = self._leftover, None
        if leftover is None:
            return
        try:
            for data in leftover.read():
                if self._listener is None:
                    break
                self.data_received(data)
        finally:
            leftover.close()

    # -- asyncio.Protocol callbacks ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        tcp.detect_dead_peer(transport, self._dead_peer_seconds)

    def eof_received(self) -> None:
        """Note how the provider ended its side; the transport closes itself."""
        tls: ssl.SSLObject | None = self.transport.get_extra_info("ssl_object")
        self._clean_end = tls is None or _has_close_notify(tls)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._listener is not None and isinstance(exc, _CLOSED_BY_PROVIDER):
            self._read_leftover()
        self._release_leftover()
        state, self.state = self.state, CLOSED
        self._owner.forget(self)
        if self._listener is None:
            return
        if self._framing is UNTIL_CLOSE and exc is None and self._clean_end:
            self._end(b"", exact=False)
        elif state is _RECEIVING:
            self._fail("http_response_incomplete", "The provider's response is incomplete.")
        elif tcp.is_gone(exc):
            self._fail("connection_timeout", "The provider cannot be reached.", timed_out=True)
        else:
            self._fail(
                "connection_terminated",
                "The provider closed the connection without a response.",
                unread=not self.fresh
                and (exc is None or isinstance(exc, _CLOSED_BY_PROVIDER))
                and self._loop.time() - self._sent_at < _UNREAD_WITHIN,
            )

    def pause_writing(self) -> None:
        if self._listener is not None:
            self._listener.on_upstream_blocked()

    def resume_writing(self) -> None:
        if self._listener is not None:
            self._listener.on_upstream_drained()

    def data_received(self, data: bytes) -> None:
        listener = self._listener
        if listener is None:
            self.abort()
            return
        self.deadline = self._loop.time() + self._silence
        if self._remaining:
            # A body of known length is counted, not parsed.
            left = self._remaining - len(data)
            if left > 0:
                self._remaining = left
                listener.on_response_body(data, ended=False)
            else:
                self._end(data[: self._remaining], exact=left == 0)
        elif self._framing is UNTIL_CLOSE:
            listener.on_response_body(data, ended=False)
        elif (
            self._parser is not None
            or self._head_only
            or (simple := parse_simple_head(data)) is None
            or not self._begin_simple(listener, *simple, data)
        ):
            self._parse(listener, data)

    # -- reading the response ------------------------------------------------------------------

    def _begin_simple(
        self, listener: ResponseListener, head: ResponseHead, size: int, data: bytes
    ) -> bool:
        """Begin a response with a known length. False if more bytes arrived than that."""
        assert head.length is not None
        left = size + head.length - len(data)
        if left < 0:
            return False
        self.state = _RECEIVING
        self._close_after = head.closing
        self._keep_alive(head)
        if left:
            self._framing = LENGTH
            self._remaining = left
            listener.on_response_start(head, data[size:], ended=False)
        else:
            self._end(data[size:], head, exact=True)
        return True

    def _parse(self, listener: ResponseListener, data: bytes) -> None:
        if self._parser is None:
            self._parser = http_parser.response_parser(self._loop, head_only=self._head_only)
        self.state = _RECEIVING
        try:
            if self._payload is not None:
                self._parse_body(listener, self._parser, self._payload, data)
            else:
                self._parse_head(listener, self._parser, data)
        except http_parser.HttpProcessingError as error:
            self._malformed(malformed.reason(error))

    def _parse_body(
        self,
        listener: ResponseListener,
        parser: http_parser.Parser,
        payload: http_parser.Body,
        data: bytes,
    ) -> None:
        """Parse a part of a chunked body."""
        messages, _, _ = parser.feed_data(data)
        body = payload.read_nowait()
        if payload.is_eof():
            self._end(body, exact=not messages and data.endswith(_BLANK_LINE))
        elif body:
            self._head_bytes = 0
            listener.on_response_body(body, ended=False)
        else:
            # Of a trailer section, or of the line before a chunk.
            self._count_head(len(data))

    def _parse_head(
        self, listener: ResponseListener, parser: http_parser.Parser, data: bytes
    ) -> None:
        """Parse one header section at a time.

        Bytes behind a response that has no body thus do not make the response malformed.
        """
        left = data
        while left:
            section, left = self._split_section(left)
            if not self._count_head(len(section)):
                return
            messages, _, tail = parser.feed_data(section)
            for position, (message, payload) in enumerate(messages, 1):
                try:
                    head = http_parser.response_head(message)
                except ValueError as error:
                    self._malformed(str(error))
                    return
                if head.code == 101:
                    self._switch(listener, head, tail + left)
                    return
                # Interim responses may be dropped (RFC 9110 section 15.2).
                if head.code >= 200:
                    last = position == len(messages) and not left
                    if left and not payload.is_eof():
                        last = not parser.feed_data(left)[0]
                    self._begin(listener, message, head, payload, data, last=last)
                    return
                if head.code < 100 or payload.read_nowait() or not payload.is_eof():
                    # An interim response has no body (RFC 9112 section 6.3).
                    self._fail("http_protocol_error", "The provider's interim response is invalid.")
                    return

    def _split_section(self, data: bytes) -> tuple[bytes, bytes]:
        """``data`` up to the end of the current header section, and the rest."""
        known = self._head_tail
        end = (known + data).find(_BLANK_LINE)
        if end < 0:
            self._head_tail = (known + data[-3:])[-3:]
            return data, b""
        self._head_tail = b""
        size = end + len(_BLANK_LINE) - len(known)
        return data[:size], data[size:]

    def _count_head(self, size: int) -> bool:
        """Count bytes of header and trailer sections. False, and failed, beyond the bound."""
        self._head_bytes += size
        if self._head_bytes <= _MAX_HEAD_BYTES:
            return True
        self._fail(
            "http_response_header_section_size",
            "The header section of the provider's response is over 256 KiB.",
        )
        return False

    def _switch(self, listener: ResponseListener, head: ResponseHead, early: bytes) -> None:
        if self._upgrading and not self.transport.is_closing():
            listener.on_response_start(head, early, ended=False)
        else:
            self._fail("http_protocol_error", "The provider switched protocols without a request.")

    def _begin(
        self,
        listener: ResponseListener,
        message: http_parser.ParsedResponse,
        head: ResponseHead,
        payload: http_parser.Body,
        data: bytes,
        *,
        last: bool,
    ) -> None:
        """Begin a parsed response: determine the framing of its body (RFC 9112 section 6.3)."""
        if message.version not in _VERSIONS:
            self._fail("http_protocol_error", "The provider does not speak HTTP/1.1.")
            return
        codings = [coding.lower() for coding in head.values(b"transfer-encoding")]
        if codings and (message.version == (1, 0) or codings != [b"chunked"]):
            # In HTTP/1.0 a transfer coding means faulty framing (RFC 9112 section 6.1).
            self._fail("http_response_transfer_coding", "The provider used a transfer coding.")
            return
        self._close_after = head.closing
        self._keep_alive(head)
        body = payload.read_nowait()
        if payload.is_eof():
            rest = _BLANK_LINE if codings else _BLANK_LINE + body
            self._end(body, head, exact=last and data.endswith(rest))
            return
        if codings:
            self._framing = CHUNKED
            self._payload = payload
        elif head.length is not None:
            self._framing = LENGTH
            self._remaining = head.length - len(body)
        else:
            self._framing = UNTIL_CLOSE
        listener.on_response_start(head, body, ended=False)

    def _keep_alive(self, head: ResponseHead) -> None:
        """Take over the provider's Keep-Alive limits; ``max`` may be constant, so it is counted."""
        self.reusable_seconds, requests = keep_alive.limits(head)
        self._requests_left = min(self._requests_left - 1, requests)
        if self._requests_left <= 0 or self.reusable_seconds <= 0:
            self._close_after = True

    def _end(self, body: bytes, head: ResponseHead | None = None, *, exact: bool) -> None:
        """End the response. ``exact``: no bytes follow it, so the connection is reusable."""
        listener, self._listener = self._listener, None
        assert listener is not None
        self._parser = self._payload = None
        self._framing = NONE
        self._remaining = self._head_bytes = 0
        self._head_tail = b""
        if self._leftover is not None:
            self._release_leftover()
        if (
            exact
            and self._request_ended
            and not self._close_after
            # A provider that has not read the whole request may never read the next one.
            and not self.transport.get_write_buffer_size()
        ):
            self.state = _IDLE
            self.fresh = False
            self.resume_reading()
            self._owner.give_back(self)
        else:
            self.state = CLOSED
            self.deadline = self._loop.time() + self._silence
            if not self.transport.is_closing():  # closing it twice would leave ``abort`` no hold
                self.transport.close()
        if head is None:
            listener.on_response_body(body, ended=True)
        else:
            listener.on_response_start(head, body, ended=True)

    def _malformed(self, what: str) -> None:
        """Fail the request. ``what`` is a constant text, without any byte of the response."""
        self._fail(
            "http_protocol_error", f"The provider's response is not well-formed HTTP: {what}."
        )

    def _fail(
        self, proxy_error: str, detail: str, *, timed_out: bool = False, unread: bool = False
    ) -> None:
        listener = self._listener
        self.abort()
        if listener is not None:
            failure = UpstreamFailure(proxy_error, detail, timed_out=timed_out)
            listener.on_upstream_error(failure, unread=unread)

    def expire(self, now: float) -> None:
        """Fail the request if the deadline has passed. ``now`` is the loop's time."""
        listener = self._listener
        if now < self.deadline:
            if (
                self.state is _AWAITING
                and not self.fresh
                and now - self._sent_at >= _ACKNOWLEDGED_WITHIN
                and listener is not None
                and listener.repeatable
                and tcp.unacknowledged(self.transport)
            ):
                self._fail("connection_timeout", "The provider cannot be reached.", unread=True)
        elif listener is None:
            self.abort()
        elif self.state is _RECEIVING:
            self._fail("connection_read_timeout", "The provider stopped sending.", timed_out=True)
        else:
            # Never as ``unread``: the provider may be processing the request.
            self._fail("http_response_timeout", "The provider did not respond.", timed_out=True)


def _has_close_notify(tls: ssl.SSLObject) -> bool:
    """Whether TLS was ended by its closing alert.

    Without the alert anyone on the path may have cut the stream off, and a body that ends with the
    connection is incomplete (RFC 9112 section 9.8).
    """
    try:
        return not tls.read(1)
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False
