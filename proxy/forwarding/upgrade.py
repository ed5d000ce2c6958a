"""Switch from a WebSocket handshake to the session: the 101 response and the relay.

After the 101 response the connections belong to ``Relay``; the exchange is released.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.forwarding.context import ProxyContext
from proxy.forwarding.downstream_response import ResponseRewriter
from proxy.http.response import ResponseHead
from proxy.observability.exchange_log import ExchangeRecord
from proxy.server.connection import ClientConnection
from proxy.upstream.connection import UpstreamConnection
from proxy.websocket.relay import Relay, Tap


def switching_response(
    rewriter: ResponseRewriter, head: ResponseHead, withheld: Sequence[bytes]
) -> bytes:
    """The 101 response for the client. ``withheld`` are offered subprotocols not forwarded.

    After an offer of a key as subprotocol, browsers and strict clients require that one of their
    offers is selected (RFC 6455 section 4.1).
    """
    more = [b"Upgrade: websocket\r\nConnection: Upgrade\r\n"]
    if withheld and not head.values(b"sec-websocket-protocol"):
        more.append(b"Sec-WebSocket-Protocol: %b\r\n" % withheld[0])
    return rewriter.head(*more)


def start_session(
    client: ClientConnection,
    connection: UpstreamConnection,
    context: ProxyContext,
    ended: SessionEnd,
    *,
    early: bytes,
    tap: Tap | None,
) -> None:
    """Splice the two connections. ``early`` are the bytes that arrived behind the 101 response."""
    from_client = client.take_early_bytes()
    client.detach()
    relay = Relay(client.transport, connection.detach(), context.loop, ended, tap)
    context.relays.add(relay)
    relay.start(from_client=from_client, from_provider=early)


class SessionEnd:
    """Callback for the end of a WebSocket session.

    References nothing else: the exchange, with parsers, heads and copies, is released for the hours
    that a session may last.
    """

    __slots__ = ("_context", "_leave", "_record")

    def __init__(
        self, context: ProxyContext, record: ExchangeRecord, leave: Callable[[], None] | None
    ) -> None:
        self._context = context
        self._record = record
        self._leave = leave

    def __call__(self, relay: Relay, sent: int, received: int) -> None:
        self._context.relays.discard(relay)
        self._record.sent, self._record.received = sent, received
        if self._leave is not None:
            self._leave()
        self._context.exchange_log.finish(self._record)
