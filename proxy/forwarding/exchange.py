"""One request on its way to the provider, and the answer on its way back.

Everything happens in callbacks, in the turn of the loop in which bytes arrived: a read on one side
is one write on the other. Only what has to wait, a token or a new connection, runs in a task.
Nothing is buffered beyond one read; a side that cannot take more stops the other from being read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.auth.injection import Injection
from proxy.auth.strategy import Strategy
from proxy.errors import Refusal, UpstreamFailure
from proxy.forwarding.context import ProxyContext
from proxy.forwarding.downstream_response import LAST_CHUNK, ResponseRewriter, chunk
from proxy.forwarding.upgrade import SessionEnd, answer, begin, heard
from proxy.forwarding.upstream_request import UpstreamRequest
from proxy.http.problem import as_refusal, body_too_large
from proxy.http.request import Request
from proxy.http.response import ResponseHead
from proxy.observability.capture import EventStreamCapture
from proxy.observability.exchange_log import ExchangeRecord
from proxy.routing.limits import ExchangeLimits
from proxy.server.connection import ClientConnection
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.pool import Pool
from proxy.websocket.handshake import accepts

# Bodies up to this size (bytes) are kept until the answer begins, in case a token is refused or a
# kept connection turns out to be closed.
_REPLAY_LIMIT = 64 * 1024
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


class ProxyExchange:
    """Serves one request, between a ``RequestListener`` and a ``ResponseListener``.

    client    where the request came from and the answer goes
    outgoing  the request, still without its credential
    page      origin of the page that asks, None for any other program
    relocate  what the client may follow instead of a ``Location``
    note      the journal's record of this exchange
    bounds    what the route lets it do
    """

    __slots__ = (
        "_around",
        "_bounds",
        "_client",
        "_connection",
        "_copy",
        "_crossing",
        "_events",
        "_incoming",
        "_injection",
        "_note",
        "_outgoing",
        "_page",
        "_pool",
        "_relocate",
        "_replays",
        "_request_ended",
        "_strategy",
        "_task",
        "_unsent",
        "finished",
    )

    def __init__(
        self,
        client: ClientConnection,
        request: Request,
        upstream_request: UpstreamRequest,
        strategy: Strategy,
        pool: Pool,
        around: ProxyContext,
        note: ExchangeRecord,
        *,
        page: str | None,
        rewrite_location: Callable[[bytes], bytes],
        bounds: ExchangeLimits,
    ) -> None:
        self._client = client
        self._incoming = request
        self._outgoing = upstream_request
        self._strategy = strategy
        self._pool = pool
        self._around = around
        self._note = note
        self._page = page
        self._relocate = rewrite_location
        self._bounds = bounds
        self._connection: UpstreamConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._injection: Injection | None = None
        self._unsent = b""
        # The body so far, as long as the request might have to be sent again.
        self._copy: bytes | None = None
        self._replays = 0
        self._request_ended = False
        self._crossing: ResponseRewriter | None = None
        # Whoever reads along, while somebody watches.
        self._events: EventStreamCapture | None = None
        self.finished = False

    # -- the request ---------------------------------------------------------------------------

    def begin(self, body: bytes, *, ended: bool) -> None:
        """Send the request, at once if a credential and a connection are ready."""
        self._note.sent = len(body)
        self._unsent = self._framed(body, ended=ended)
        self._request_ended = ended
        if ended or self._strategy.renewable:
            self._keep(self._unsent)
        injection = self._strategy.ready(websocket=self._incoming.websocket)
        connection = self._pool.take() if injection is not None else None
        if injection is not None and connection is not None:
            self._send(connection, injection)
        else:
            self._prepare()

    def on_request_body(self, data: bytes, *, ended: bool) -> None:
        """More of the request's body has come from the client."""
        self._note.sent += len(data)
        limit = self._bounds.max_body_bytes
        if limit is not None and self._note.sent > limit:
            self._too_large()
            return
        self._request_ended = ended
        framed = self._framed(data, ended=ended)
        if self._copy is not None:
            self._keep(self._copy + framed)
        if self._connection is not None:
            self._connection.send_more(framed, ended=ended)
        elif self._crossing is None:
            self._unsent += framed

    def _keep(self, framed: bytes) -> None:
        """Keep the body for a replay while its content, without framing, is small enough."""
        self._copy = framed if self._note.sent <= _REPLAY_LIMIT else None

    def _framed(self, data: bytes, *, ended: bool) -> bytes:
        """RFC 9112 section 7.1, if the client sent chunks: they are made anew for each read."""
        if not self._incoming.chunked:
            return data
        return chunk(data) + (LAST_CHUNK if ended else b"")

    def _prepare(self, *, fresh: bool = False) -> None:
        if not self._request_ended:
            self._client.pause_reading()
        self._task = self._around.spawn(self._connect(fresh=fresh))

    async def _connect(self, *, fresh: bool) -> None:
        """Wait for what was not ready, then send. ``fresh`` asks for a new connection."""
        try:
            injection = await self._strategy.obtain(websocket=self._incoming.websocket)
            connection = None if fresh else self._pool.take()
            if connection is None:
                connection = await self._pool.dial()
        except UpstreamFailure as failure:
            self._fail(failure)
        except Refusal as refusal:
            self._refuse(refusal)
        except Exception:
            # A fault of ours: the client gets an answer, whoever looks at the log the place.
            self._fail(UpstreamFailure("proxy_internal_error", "Keyrelay failed at this request."))
            raise
        else:
            self._task = None
            if not self._request_ended:
                # Before sending: the provider may be full at once, and pause it again.
                self._client.resume_reading()
            self._send(connection, injection)

    def _send(self, connection: UpstreamConnection, injection: Injection) -> None:
        self._connection = connection
        self._injection = injection
        unsent, self._unsent = self._unsent, b""
        connection.send(
            self,
            self._outgoing.render(injection) + unsent,
            ended=self._request_ended,
            head_only=self._incoming.method == "HEAD",
            upgrading=self._incoming.websocket,
        )

    def _replay(self, *, fresh: bool = False) -> None:
        """Send the whole request once more."""
        assert self._copy is not None
        self._connection = None
        self._unsent = self._copy
        self._prepare(fresh=fresh)

    def on_upstream_blocked(self) -> None:
        if not self._request_ended:
            self._client.pause_reading()

    def on_upstream_drained(self) -> None:
        if not self._request_ended:
            self._client.resume_reading()

    # -- the answer ----------------------------------------------------------------------------

    def on_response_start(self, head: ResponseHead, body: bytes, *, ended: bool) -> None:
        """The head of the provider's answer, with what came of its body."""
        if self._strategy.renewable and self._mends(head.code):
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
        rewriter = self._crossed(head)
        passed = None if rewriter is None else self._passed(rewriter, body, ended=ended)
        if rewriter is None or passed is None:
            self._fail(UpstreamFailure("http_protocol_error", "The provider's answer is invalid."))
            return
        self._crossing = rewriter
        self._copy = None
        self._note.response_started(head.code)
        self._note.received += len(body)
        if self._around.inspector_hub.active:
            self._watched(head, body)
        if rewriter.unframed:
            self._client.keep_alive = False
        close = self._client.must_close
        data = rewriter.head(b"Connection: close\r\n") if close else rewriter.head()
        if close:
            self._client.keep_alive = False
        if ended:
            self._finish(data + passed)
        else:
            self._client.write(data + passed)

    def on_response_body(self, body: bytes, *, ended: bool) -> None:
        """More of the answer's body."""
        assert self._crossing is not None
        self._note.received += len(body)
        if self._events is not None:
            self._events.feed(body)
        data = self._passed(self._crossing, body, ended=ended)
        if data is None:
            if self._connection is not None:
                self._connection.abort()
            self.on_upstream_error(
                UpstreamFailure("http_response_content_coding", "The provider's answer is broken.")
            )
        elif ended:
            self._connection = None
            self._finish(data)
        elif data:
            self._client.write(data)

    def _watched(self, head: ResponseHead, body: bytes) -> None:
        """Somebody watches: tell of the answer, and let events be read along."""
        assert self._injection is not None
        inspector_hub = self._around.inspector_hub
        inspector_hub.response_started(self._note)
        self._events = inspector_hub.stream(self._note, head, self._injection.redactor)
        if self._events is not None:
            self._events.feed(body)

    @staticmethod
    def _passed(rewriter: ResponseRewriter, body: bytes, *, ended: bool) -> bytes | None:
        """A part of the body as it goes to the client; None if it cannot."""
        try:
            return rewriter.end(body) if ended else rewriter.part(body)
        except ValueError:
            return None

    def _finish(self, data: bytes) -> None:
        if data:
            self._client.write(data)
        self._end("")
        self._client.done(close=not self._request_ended)

    def _mends(self, status: int) -> bool:
        """Whether another credential may mend this answer, and the request can be repeated."""
        assert self._injection is not None
        return (
            self._strategy.refused(self._injection, status)
            and self._request_ended
            and self._copy is not None
            and self._replays < self._strategy.replays
        )

    def _crossed(self, head: ResponseHead) -> ResponseRewriter | None:
        """The answer for this client; None if it cannot be passed on."""
        assert self._injection is not None
        try:
            return ResponseRewriter(
                head,
                self._incoming,
                page=self._page,
                rewrite_location=self._relocate,
                redactor=self._injection.redactor,
                mask_all=self._bounds.mask_bodies,
            )
        except ValueError:
            return None

    def _open_session(self, head: ResponseHead, early: bytes) -> None:
        """The provider agreed to the WebSocket: pass its answer on, then only bytes."""
        connection, self._connection = self._connection, None
        assert connection is not None
        assert self._injection is not None
        rewriter = self._crossed(head)
        if rewriter is None or not accepts(self._incoming, head):
            connection.abort()
            self._fail(
                UpstreamFailure(
                    "http_upgrade_failed", "The provider's WebSocket answer is invalid."
                )
            )
            return
        self._note.response_started(101)
        self._client.write(answer(rewriter, head, self._outgoing.kept_subprotocols))
        begin(
            self._client,
            connection,
            self._around,
            SessionEnd(self._around, self._note, self._bounds.leave),
            early=early,
            tap=heard(self._around, self._note, head, self._injection.redactor),
        )

    # -- when it goes wrong --------------------------------------------------------------------

    def on_upstream_error(self, failure: UpstreamFailure) -> None:
        """The connection to the provider is gone before the answer was complete."""
        connection, self._connection = self._connection, None
        if self._crossing is not None:
            self._end(failure.proxy_error)
            # Bytes that were passed on may still go out; the missing end tells the client. One that
            # speaks HTTP/1.0 takes any clean end for the end, so it gets a reset.
            if self._incoming.version == (1, 1):
                self._client.close_after_flush()
            else:
                self._client.abort()
        elif (
            connection is not None
            and not (connection.fresh or connection.answered)
            and self._may_repeat()
        ):
            # A kept connection that the provider had just closed: nobody has read the request
            # (RFC 9110 section 9.2.2), so it goes out once more, on a new connection.
            self._replay(fresh=True)
        else:
            self._fail(failure)

    def _may_repeat(self) -> bool:
        """Whether sending the request twice does no more than sending it once."""
        request = self._incoming
        safe = request.method in _IDEMPOTENT or "Idempotency-Key" in request.headers
        return safe and self._request_ended and self._copy is not None

    def on_client_disconnect(self) -> None:
        """The client is gone: so is the provider's request, at once."""
        if self._task is not None:
            self._task.cancel()
        self._drop_connection()
        self._end("client-left")

    def on_client_blocked(self) -> None:
        if self._connection is not None:
            self._connection.pause_reading()

    def on_client_drained(self) -> None:
        if self._connection is not None:
            self._connection.resume_reading()

    def _drop_connection(self) -> None:
        """End the provider's side now; it will tell nothing more."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def _fail(self, failure: UpstreamFailure) -> None:
        self._refuse(as_refusal(failure))

    def _refuse(self, refusal: Refusal) -> None:
        self._drop_connection()
        self._note.response_started(refusal.status)
        self._end(refusal.proxy_error)
        self._client.refuse(refusal, origin=self._page, head_only=self._incoming.method == "HEAD")

    def _too_large(self) -> None:
        """A body without announced length went over the route's bound while it was streamed."""
        if self._task is not None:
            self._task.cancel()
        if self._crossing is None:
            self._refuse(body_too_large(self._note.route))
            return
        self._drop_connection()
        self._end("body-too-large")
        self._client.abort()

    def _end(self, outcome: str) -> None:
        if not self.finished:
            self.finished = True
            if self._events is not None:
                self._events.ended()
            if self._bounds.leave is not None:
                self._bounds.leave()
            self._note.outcome = outcome
            self._around.exchange_log.finish(self._note)
