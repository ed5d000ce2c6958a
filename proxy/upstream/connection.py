"""One connection to a provider: send requests, parse responses, one at a time.

Bytes that arrive on an idle connection belong to no request. As the next response they would assign
one request's response to another (RFC 9112 section 9.2), so such a connection is closed.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from typing import cast

from proxy.errors import UpstreamFailure
from proxy.http import dead_peers, keep_alive
from proxy.http.framing import CHUNKED, LENGTH, NONE, UNTIL_CLOSE
from proxy.http.response import ResponseHead, parse_simple_head
from proxy.upstream import failures
from proxy.upstream.interfaces import Owner, ResponseListener, UpstreamState
from proxy.upstream.response_parser import ResponseParser
from proxy.upstream.unread import Leftover, has_close_notify, leftover_of, unread_poll

_NEVER = float("inf")
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
        "_head_only",
        "_leftover",
        "_listener",
        "_loop",
        "_owner",
        "_parser",
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
        self._parser: ResponseParser | None = None
        self._poll: select.poll | None = None
        self._remaining = 0
        # Of the response body that is being received; NONE outside a body.
        self._framing = NONE
        self._clean_end = False
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
            self._leftover = leftover_of(self.transport)

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
        dead_peers.detect_dead_peer(transport, self._dead_peer_seconds)

    def eof_received(self) -> None:
        """Note how the provider ended its side; the transport closes itself."""
        tls: ssl.SSLObject | None = self.transport.get_extra_info("ssl_object")
        self._clean_end = tls is None or has_close_notify(tls)

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
            self._fail(failures.incomplete())
        elif dead_peers.is_gone(exc):
            self._fail(failures.unreachable())
        else:
            self._fail(
                failures.closed(),
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
        parser = self._parser
        if parser is None:
            parser = self._parser = ResponseParser(self._loop, head_only=self._head_only)
        self.state = _RECEIVING
        if self._framing is not CHUNKED:
            self._parse_head(listener, parser, data)
            return
        try:
            body, ended, exact = parser.chunks(data)
        except UpstreamFailure as failure:
            self._fail(failure)
            return
        if ended:
            self._end(body, exact=exact)
        elif body:
            listener.on_response_body(body, ended=False)

    def _parse_head(self, listener: ResponseListener, parser: ResponseParser, data: bytes) -> None:
        try:
            begun = parser.begin(data)
        except UpstreamFailure as failure:
            self._fail(failure)
            return
        if begun is None:
            return
        head, body, framing, exact = begun
        if head.code == 101:
            if self._upgrading and not self.transport.is_closing():
                listener.on_response_start(head, body, ended=False)
            else:
                self._fail(failures.unasked_switch())
            return
        self._close_after = head.closing
        self._keep_alive(head)
        if framing is NONE:
            self._end(body, head, exact=exact)
            return
        self._framing = framing
        if framing is LENGTH:
            assert head.length is not None
            self._remaining = head.length - len(body)
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
        self._parser = None
        self._framing = NONE
        self._remaining = 0
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

    def _fail(self, failure: UpstreamFailure, *, unread: bool = False) -> None:
        listener = self._listener
        self.abort()
        if listener is not None:
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
                and dead_peers.unacknowledged(self.transport)
            ):
                self._fail(failures.unreachable(), unread=True)
        elif listener is None:
            self.abort()
        elif self.state is _RECEIVING:
            self._fail(failures.stopped())
        else:
            # Never as ``unread``: the provider may be processing the request.
            self._fail(failures.silent())
