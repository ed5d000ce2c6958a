"""From a WebSocket's handshake to its session: what the client is told, and who goes on.

The provider has agreed. Afterwards bytes move in ``relay``, and of the forward nothing stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.forwarding.context import ProxyContext
from proxy.forwarding.downstream_response import ResponseRewriter
from proxy.http.response import ResponseHead
from proxy.observability.exchange_log import ExchangeRecord
from proxy.secrets.redaction import Redactor
from proxy.server.connection import ClientConnection
from proxy.upstream.connection import UpstreamConnection
from proxy.websocket.relay import Relay, Tap


def answer(rewriter: ResponseRewriter, head: ResponseHead, kept: Sequence[bytes]) -> bytes:
    """The 101 for the client. ``kept`` are the subprotocols that it offered and that stayed here.

    Where it offered a key as subprotocol, browsers and strict clients insist that one of their
    offers is selected (RFC 6455 section 4.1).
    """
    more = [b"Upgrade: websocket\r\nConnection: Upgrade\r\n"]
    if kept and not head.values(b"sec-websocket-protocol"):
        more.append(b"Sec-WebSocket-Protocol: %b\r\n" % kept[0])
    return rewriter.head(*more)


def heard(
    around: ProxyContext, note: ExchangeRecord, head: ResponseHead, redactor: Redactor
) -> Tap | None:
    """Who reads along in the session, if somebody watches."""
    inspector_hub = around.inspector_hub
    if not inspector_hub.active:
        return None
    inspector_hub.response_started(note)
    extensions = b", ".join(head.values(b"sec-websocket-extensions"))
    return inspector_hub.tap(note, extensions, redactor)


def begin(
    client: ClientConnection,
    connection: UpstreamConnection,
    around: ProxyContext,
    ended: SessionEnd,
    *,
    early: bytes,
    tap: Tap | None,
) -> None:
    """Splice the two connections. ``early`` came behind the provider's answer."""
    from_client = client.take_early_bytes()
    client.detach()
    relay = Relay(client.transport, connection.detach(), around.loop, ended, tap)
    around.relays.add(relay)
    relay.start(from_client=from_client, from_provider=early)


class SessionEnd:
    """What is left to do when a WebSocket session is over.

    Holds that and nothing more: the forward, with parsers, heads and copies, is not needed for the
    hours that a session may last.
    """

    __slots__ = ("_around", "_leave", "_note")

    def __init__(
        self, around: ProxyContext, note: ExchangeRecord, leave: Callable[[], None] | None
    ) -> None:
        self._around = around
        self._note = note
        self._leave = leave

    def __call__(self, relay: Relay, sent: int, received: int) -> None:
        self._around.relays.discard(relay)
        self._note.sent, self._note.received = sent, received
        if self._leave is not None:
            self._leave()
        self._around.exchange_log.finish(self._note)
