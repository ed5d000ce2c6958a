"""Forward one request to the provider and its response to the client.

All work happens in callbacks, in the iteration of the event loop in which bytes arrive: one read on
one connection is one write on the other. Only waiting for a token or a new connection runs in a
task. At most one read is buffered; a blocked connection pauses reading from the other.
"""

from __future__ import annotations

from proxy.auth.strategy import Strategy
from proxy.errors import Refusal, UpstreamFailure
from proxy.forwarding import exchange_failures
from proxy.forwarding.context import ProxyContext
from proxy.forwarding.downstream_response import ResponseRewriter
from proxy.forwarding.inspection import (
    capture_events,
    capture_session,
    note_replay,
    note_response,
    note_unread,
)
from proxy.forwarding.request_side import RequestSide
from proxy.forwarding.upgrade import Opening, SessionEnd, start_session, switching_response
from proxy.http.framing import UNTIL_CLOSE
from proxy.http.problem import as_refusal, body_too_large, unframed_response
from proxy.http.request import Request
from proxy.http.response import ResponseHead
from proxy.observability.capture import EventStreamCapture
from proxy.observability.exchange_log import ExchangeRecord
from proxy.routing.route_service import RouteService
from proxy.routing.router import Match
from proxy.routing.url_rewriter import REDIRECTS, redirect_note
from proxy.server.connection import ClientConnection
from proxy.websocket.handshake import accepts


class ProxyExchange(RequestSide):
    """Serves one request, as ``RequestListener`` and ``ResponseListener``.

    Parameters as of ``RequestSide``; ``page`` is the origin of the requesting page, None for a
    program.
    """

    __slots__ = ("_challenged", "_events", "_page", "_replays", "finished")

    def __init__(
        self,
        client: ClientConnection,
        request: Request,
        match: Match,
        route_service: RouteService,
        strategy: Strategy,
        context: ProxyContext,
        record: ExchangeRecord,
        *,
        page: str | None,
    ) -> None:
        super().__init__(client, request, match, route_service, strategy, context, record)
        self._page = page
        self._replays = 0
        # Whether the provider has asked for its nonce in a proof (RFC 9449 section 9).
        self._challenged = False
        # Captures server-sent events while the inspector has subscribers.
        self._events: EventStreamCapture | None = None
        self.finished = False

    # -- the response --------------------------------------------------------------------------

    def on_response_start(self, head: ResponseHead, body: bytes, *, ended: bool) -> None:
        """Forward the head of the response and the part of the body that arrived with it."""
        if self._record.detail is not None:
            note_response(self._record.detail, head)
        if self._credential.renewable and self._report_and_check_replay(head):
            if self._record.detail is not None:
                note_replay(self._record.detail, head.code)
            if not ended:
                self._drop_connection()
            self._replays += 1
            self._replay()
            return
        if head.code == 101:
            self._open_session(head, body)
            return
        if ended:
            self._connection = None
        try:
            rewriter = self._rewriter_for(head)
        except UpstreamFailure as failure:
            self._fail(failure)
            return
        if rewriter.framing is UNTIL_CLOSE and not ended and not self._client.can_reset:
            self._refuse(unframed_response())
            return
        rewritten = self._rewrite(rewriter, body, ended=ended)
        if rewritten is None:
            self._fail(exchange_failures.invalid_head())
            return
        if head.code in REDIRECTS:
            location = b"".join(head.values(b"location")[:1])
            self._record.log_detail = redirect_note(self._match.route, location)
        self._rewriter = rewriter
        self._replay_body = None
        self._record.response_started(head.code)
        self._record.received += len(body)
        if head.length is None:
            # Event streams have no Content-Length, so most responses cost no search.
            self._record.event_stream = head.is_event_stream
        hub = self._context.inspector_hub
        if hub.active:
            assert self._injection is not None
            redactor = self._injection.redactor
            self._events = capture_events(hub, self._record, head, body, redactor)
        if rewriter.framing is UNTIL_CLOSE:
            self._client.keep_alive = False
        close = self._client.must_close
        data = rewriter.head(b"Connection: close\r\n") if close else rewriter.head()
        if close:
            self._client.keep_alive = False
        if ended:
            self._finish(data + rewritten)
        else:
            self._client.write(data + rewritten)

    def on_response_body(self, body: bytes, *, ended: bool) -> None:
        """Forward a part of the response body."""
        assert self._rewriter is not None
        self._record.received += len(body)
        if self._events is not None:
            self._events.feed(body)
        data = self._rewrite(self._rewriter, body, ended=ended)
        if data is None:
            if self._connection is not None:
                self._connection.abort()
            self.on_upstream_error(exchange_failures.malformed_body())
        elif ended:
            self._connection = None
            self._finish(data)
        elif data:
            self._client.write(data)

    @staticmethod
    def _rewrite(rewriter: ResponseRewriter, body: bytes, *, ended: bool) -> bytes | None:
        """A part of the body for the client; None if its content coding is malformed."""
        try:
            return rewriter.end(body) if ended else rewriter.part(body)
        except ValueError:
            return None

    def _finish(self, data: bytes) -> None:
        if self._rewriter is not None and self._rewriter.left_out:
            self._record.log_detail = f"body left out: content coding {self._rewriter.left_out}"
        if data:
            self._client.write(data)
        self._end("")
        self._client.done(close=not self._request_ended)

    def _report_and_check_replay(self, head: ResponseHead) -> bool:
        """Whether a new credential may change this response, and the request can be repeated."""
        injection = self._injection
        assert injection is not None
        proof = injection.proof
        if proof is not None and proof.take_challenge(
            head.values(b"dpop-nonce"), head.values(b"www-authenticate")
        ):
            # The token itself was not refused.
            again, self._challenged = not self._challenged, True
        else:
            again = self._credential.on_response(injection, head.code)
        return (
            again
            and self._request_ended
            and self._replay_body is not None
            and self._replays < self._credential.replays
        )

    def _rewriter_for(self, head: ResponseHead) -> ResponseRewriter:
        """The rewriter for a response. Raises UpstreamFailure if its head cannot be forwarded."""
        assert self._injection is not None
        try:
            return ResponseRewriter(
                head,
                self._request,
                page=self._page,
                rewrite_url=self._match.url_rewriter(
                    self._request, head.code, self._context.own_ports, tls=self._client.secure
                ),
                url_fields=self._match.route.rules.url_fields,
                redactor=self._injection.redactor,
                mask_all=self._route_service.limits.mask_bodies,
            )
        except ValueError:
            raise exchange_failures.invalid_head() from None

    def _open_session(self, head: ResponseHead, early: bytes) -> None:
        """Forward the 101 response, then relay bytes."""
        connection, self._connection = self._connection, None
        assert connection is not None
        assert self._injection is not None
        try:
            rewriter = self._rewriter_for(head)
            opening = Opening.required(
                self._match.route, self._record, self._credential, self._injection
            )
            if not accepts(self._request, head, extensible=opening is None):
                raise exchange_failures.invalid_handshake()
        except UpstreamFailure as failure:
            connection.abort()
            self._fail(failure)
            return
        self._record.response_started(101)
        self._client.write(
            switching_response(rewriter, head, self._upstream_request.withheld_subprotocols)
        )
        hub, redactor = self._context.inspector_hub, self._injection.redactor
        start_session(
            self._client,
            connection,
            self._context,
            SessionEnd(self._context, self._record, self._route_service.limits.leave),
            early=early,
            tap=capture_session(hub, self._record, head, redactor),
            opening=opening,
        )

    # -- errors --------------------------------------------------------------------------------

    def on_upstream_error(self, failure: UpstreamFailure, *, unread: bool = False) -> None:
        """End the exchange: the provider's connection failed before the end of the response."""
        self._connection = None
        if self._rewriter is not None:
            self._record.log_detail = failure.detail
            self._end(failure.proxy_error)
            # Written bytes are flushed; the missing end of the framing marks the error. An HTTP/1.0
            # client accepts any clean end, so its connection is reset.
            if self._request.version != (1, 1):
                self._client.abort()
            elif self._request_ended:
                self._client.close_after_flush()
            else:
                self._client.done(close=True)
        elif unread and self.repeatable:
            # The pooled connection was closed without reading the request, or is dead (RFC 9110
            # section 9.2.2), so the request is sent again on a new connection.
            if self._record.detail is not None:
                note_unread(self._record.detail)
            self._replay(fresh=True)
        else:
            self._fail(failure)

    @property
    def repeatable(self) -> bool:
        """Whether the request may be sent again: it is idempotent, and complete at hand."""
        return self._request.idempotent and self._request_ended and self._replay_body is not None

    def on_client_disconnect(self) -> None:
        """Abort the provider's request: the client disconnected."""
        if self._task is not None:
            self._task.cancel()
        self._drop_connection()
        self._end("client-left")

    def on_client_blocked(self) -> None:
        if self._connection is not None:
            self._connection.pause_reading()

    def on_client_writable(self) -> None:
        if self._connection is not None:
            self._connection.resume_reading()

    def _drop_connection(self) -> None:
        """Abort the provider's connection; it calls this listener no more."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def _fail(self, failure: UpstreamFailure) -> None:
        self._refuse(as_refusal(failure))

    def _refuse(self, refusal: Refusal) -> None:
        self._drop_connection()
        self._record.response_started(refusal.status)
        self._record.problem = refusal.detail, refusal.advice
        if self._record.detail is not None:
            self._record.detail.responded()
        if refusal.log_detail:
            self._record.log_detail = refusal.log_detail
        self._end(refusal.kind if refusal.kind == "no-token" else refusal.proxy_error)
        self._client.refuse(refusal, origin=self._page, head_only=self._request.method == "HEAD")

    def _too_large(self) -> None:
        """Refuse a streamed body without Content-Length that exceeds the route's limit."""
        if self._task is not None:
            self._task.cancel()
        if self._rewriter is None:
            self._refuse(body_too_large(self._record.route))
            return
        self._drop_connection()
        self._end("body-too-large")
        self._client.abort()

    def _end(self, outcome: str) -> None:
        if not self.finished:
            self.finished = True
            if self._events is not None:
                self._events.ended()
            if self._route_service.limits.leave is not None:
                self._route_service.limits.leave()
            self._record.outcome = outcome
            self._context.exchange_log.finish(self._record)
