"""The request's side of an exchange: credential, connection and body, on to the provider."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod

from proxy.auth.injection import Injection
from proxy.auth.strategy import Strategy
from proxy.errors import Refusal, UpstreamFailure
from proxy.forwarding import exchange_failures
from proxy.forwarding.context import ProxyContext
from proxy.forwarding.downstream_response import LAST_CHUNK, ResponseRewriter, chunk
from proxy.forwarding.inspection import note_connection, note_request
from proxy.forwarding.upstream_request import UpstreamRequest
from proxy.http.request import Request
from proxy.observability.exchange_log import ExchangeRecord
from proxy.routing.route_service import RouteService
from proxy.routing.router import Match
from proxy.server.connection import ClientConnection
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.interfaces import ResponseListener

# Bodies up to this size (bytes) are kept until the response begins, in case a token is refused or a
# pooled connection is found closed.
_REPLAY_LIMIT = 64 * 1024


class RequestSide(ResponseListener):
    """Sends one request, and sends it again if need be. ``ProxyExchange`` has the rest.

    client         connection of the client
    match          the route of the request, and the path behind its prefix
    route_service  connections and limits of that route; has counted the request
    strategy       injects the credential
    record         the record of this exchange in the exchange log
    """

    __slots__ = (
        "_client",
        "_connection",
        "_context",
        "_credential",
        "_injection",
        "_match",
        "_record",
        "_replay_body",
        "_request",
        "_request_ended",
        "_rewriter",
        "_route_service",
        "_task",
        "_unsent",
        "_upstream_request",
    )

    def __init__(
        self,
        client: ClientConnection,
        request: Request,
        match: Match,
        route_service: RouteService,
        strategy: Strategy,
        context: ProxyContext,
        record: ExchangeRecord,
    ) -> None:
        self._client = client
        self._request = request
        self._match = match
        self._route_service = route_service
        self._credential = strategy.credential
        self._context = context
        self._record = record
        added = b"X-Request-Id: %b\r\n" % record.request_id.encode("ascii")
        if context.tracer is not None:
            added += context.tracer.begin(request, record, match.route.origin)
        self._upstream_request = UpstreamRequest(request, match.rest, match.route.rules, added)
        self._connection: UpstreamConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._injection: Injection | None = None
        self._unsent = b""
        # The body so far, as long as the request may have to be sent again.
        self._replay_body: bytes | None = None
        self._request_ended = False
        # Of the response, once it has begun.
        self._rewriter: ResponseRewriter | None = None

    @abstractmethod
    def _fail(self, failure: UpstreamFailure) -> None:
        """End the exchange: there is no connection to the provider."""

    @abstractmethod
    def _refuse(self, refusal: Refusal) -> None:
        """End the exchange with a refusal."""

    @abstractmethod
    def _too_large(self) -> None:
        """End the exchange: the body exceeds the route's limit."""

    def begin(self, body: bytes, *, ended: bool) -> None:
        """Send the request, immediately if a credential and a connection are ready."""
        self._record.sent = len(body)
        self._unsent = self._framed(body, ended=ended)
        self._request_ended = ended
        if ended or self._credential.renewable:
            self._keep(self._unsent)
        credential = self._credential
        injection = credential.ready(websocket=self._request.websocket)
        if not ended and credential.revocable:
            # It cannot be sent again once it has grown: the credential has to be certain.
            injection = None
        connection = self._route_service.pool.take() if injection is not None else None
        if injection is not None and connection is not None:
            if self._record.detail is not None:
                note_connection(self._record.detail, connection)
            self._send(connection, injection)
        else:
            self._prepare()

    def on_request_body(self, data: bytes, *, ended: bool) -> None:
        """Forward a part of the request body."""
        self._record.sent += len(data)
        limit = self._route_service.limits.max_body_bytes
        if limit is not None and self._record.sent > limit:
            self._too_large()
            return
        self._request_ended = ended
        framed = self._framed(data, ended=ended)
        if self._replay_body is not None:
            self._keep(self._replay_body + framed)
        if self._connection is not None:
            self._connection.send_more(framed, ended=ended)
        elif self._rewriter is None:
            self._unsent += framed

    def _keep(self, framed: bytes) -> None:
        """Keep the body for a replay while its content, without framing, is within the limit."""
        self._replay_body = framed if self._record.sent <= _REPLAY_LIMIT else None

    def _framed(self, data: bytes, *, ended: bool) -> bytes:
        """``data`` as a new chunk if the request is chunked (RFC 9112 section 7.1), else as is."""
        if not self._request.chunked:
            return data
        return chunk(data) + (LAST_CHUNK if ended else b"")

    def _prepare(self, *, fresh: bool = False) -> None:
        if not self._request_ended:
            self._client.pause_reading()
        self._task = self._context.spawn(self._connect(fresh=fresh))

    async def _connect(self, *, fresh: bool) -> None:
        """Wait for credential and connection, then send. ``fresh`` requires a new connection."""
        detail = self._record.detail
        try:
            began = time.perf_counter()
            injection = await self._credential.obtain(
                websocket=self._request.websocket, certain=not self._request_ended
            )
            if detail is not None:
                detail.token_waited(time.perf_counter() - began)
            connection = None if fresh else self._route_service.pool.take()
            if detail is not None:
                note_connection(detail, connection)
            if connection is None:
                connection = await self._route_service.pool.dial(
                    None if detail is None else detail.dial
                )
        except UpstreamFailure as failure:
            self._fail(failure)
        except Refusal as refusal:
            self._refuse(refusal)
        except Exception:
            # An internal error: the client gets a response, the log the traceback.
            self._fail(exchange_failures.internal_error())
            raise
        else:
            self._task = None
            if not self._request_ended:
                # Before sending, which may block the provider's connection and pause it again.
                self._client.resume_reading()
            self._send(connection, injection)

    def _send(self, connection: UpstreamConnection, injection: Injection) -> None:
        self._connection = connection
        self._injection = injection
        unsent, self._unsent = self._unsent, b""
        if self._record.detail is not None:
            note_request(
                self._record,
                self._request,
                self._upstream_request,
                self._match.route,
                self._credential,
                injection,
            )
        connection.send(
            self,
            self._upstream_request.render(injection) + unsent,
            ended=self._request_ended,
            head_only=self._request.method == "HEAD",
            upgrading=self._request.websocket,
        )

    def _replay(self, *, fresh: bool = False) -> None:
        """Send the whole request once more."""
        assert self._replay_body is not None
        self._connection = None
        self._unsent = self._replay_body
        self._prepare(fresh=fresh)

    def on_upstream_blocked(self) -> None:
        if not self._request_ended:
            self._client.pause_reading()

    def on_upstream_drained(self) -> None:
        if not self._request_ended:
            self._client.resume_reading()
