"""Issue a provider's short-lived token to a page that connects to the provider directly.

Off unless the route has ``vend: true``. A page gets a token, never a key; the guard has admitted
it. For front ends that in production connect to the provider with tokens from their own server: in
development keyrelay replaces that server.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

from proxy.auth.credential import IssuedToken
from proxy.auth.strategy import Strategy
from proxy.errors import Refusal
from proxy.forwarding.context import ProxyContext
from proxy.http.problem import cors_fields, plain
from proxy.observability.exchange_log import ExchangeRecord
from proxy.routing.route import Route
from proxy.server.connection import ClientConnection

PREFIX = b"/-/token/"


class Vending:
    """Serves one request for a token, as ``RequestListener``."""

    def __init__(
        self,
        client: ClientConnection,
        strategy: Strategy,
        context: ProxyContext,
        record: ExchangeRecord,
        *,
        page: str | None,
    ) -> None:
        self._client = client
        self._context = context
        self._record = record
        self._page = page
        self._task: asyncio.Task[None] = context.spawn(self._serve(strategy))

    async def _serve(self, strategy: Strategy) -> None:
        try:
            issued = await strategy.credential.vend()
        except Refusal as refusal:
            self._record.response_started(refusal.status)
            self._end(refusal.kind)
            self._client.refuse(refusal, origin=self._page)
            return
        fields = b"" if self._page is None else cors_fields(self._page)
        self._record.response_started(200)
        self._end("")
        self._client.write(
            plain(
                200,
                self._document(issued),
                fields=fields,
                content_type=b"application/json",
                close=self._client.must_close,
            )
        )
        self._client.done()

    @staticmethod
    def _document(issued: IssuedToken) -> bytes:
        ends = datetime.now(UTC) + timedelta(seconds=issued.seconds_left)
        document = {
            "token": issued.token.decode("ascii"),
            "expires_in": int(issued.seconds_left),
            "expires_at": ends.isoformat(timespec="seconds").replace("+00:00", "Z"),
        }
        return json.dumps(document).encode() + b"\n"

    def on_request_body(self, data: bytes, *, ended: bool) -> None:
        """Discard the body; it is read so that the connection can be reused."""

    def on_client_disconnect(self) -> None:
        self._task.cancel()
        self._end("client-left")

    def on_client_blocked(self) -> None:
        """Do nothing: the response is short and already written."""

    def on_client_writable(self) -> None:
        """Do nothing, as ``on_client_blocked``."""

    def _end(self, outcome: str) -> None:
        self._record.outcome = outcome
        self._context.exchange_log.finish(self._record)


def vending_strategy(route: Route) -> Strategy:
    """The strategy of a route that can issue tokens. Raises Refusal."""
    if not route.vends:
        raise Refusal(
            403,
            "vending-off",
            f"The route {route.name} issues no tokens.",
            "Set vend: true on the route to issue the provider's short-lived tokens to pages.",
        )
    if route.unready:
        raise Refusal(
            503,
            "route-not-ready",
            f"The route {route.name} has no credential.",
            route.unready,
            proxy_error="proxy_configuration_error",
        )
    for strategy in route.strategies:
        if strategy.credential.vends:
            return strategy
    raise Refusal(
        403,
        "nothing-to-vend",
        f"The route {route.name} uses a key, which is never issued.",
        "Only short-lived tokens are; see the route's auth.",
    )
