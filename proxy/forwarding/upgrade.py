"""Switch from a WebSocket handshake to the session: the 101 response and the relay.

After the 101 response the connections belong to ``Relay``; the exchange is released, and
``Opening`` keeps what is needed until a credential in a message is placed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from proxy.auth.credential import Credential
from proxy.auth.injection import Injection
from proxy.forwarding.context import ProxyContext
from proxy.forwarding.downstream_response import ResponseRewriter
from proxy.http.response import ResponseHead
from proxy.observability.exchange_log import ExchangeRecord
from proxy.routing.route import Route
from proxy.server.connection import ClientConnection
from proxy.upstream.connection import UpstreamConnection
from proxy.websocket.first_messages import FirstMessages
from proxy.websocket.message_rules import MessageRules
from proxy.websocket.opening import OpeningRelay
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
    opening: Opening | None = None,
) -> None:
    """Splice the two connections. ``early`` are the bytes that arrived behind the 101 response.

    With ``opening`` the first messages are parsed before.
    """
    from_client = client.take_early_bytes()
    client.detach()
    provider = connection.detach()
    relay = (
        Relay(client.transport, provider, context.loop, ended, tap)
        if opening is None
        else opening.relay(client.transport, provider, context.loop, ended, tap)
    )
    context.relays.add(relay)
    ended.record.session = relay
    relay.start(from_client=from_client, from_provider=early, client_ended=client.half_closed)


class Opening:
    """A session whose first messages are parsed, and what becomes of its credential.

    Released once the credential has been placed, and accepted or refused.
    """

    __slots__ = ("_credential", "_injection", "_record", "_rules")

    def __init__(
        self,
        rules: MessageRules,
        record: ExchangeRecord,
        credential: Credential,
        injection: Injection,
    ) -> None:
        self._rules = rules
        self._record = record
        self._credential = credential
        self._injection = injection

    @classmethod
    def required(
        cls,
        route: Route,
        record: ExchangeRecord,
        credential: Credential,
        injection: Injection,
    ) -> Opening | None:
        """The opening of a session on this route; None if its messages need not be parsed."""
        strip = route.rules.message_members
        if injection.message is None and not strip:
            return None
        return cls(MessageRules(injection.message, strip), record, credential, injection)

    def relay(
        self,
        client: asyncio.Transport,
        provider: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        ended: SessionEnd,
        tap: Tap | None,
    ) -> Relay:
        """The relay that parses the first messages."""
        messages = FirstMessages(self._rules, self._injection.redactor)
        return OpeningRelay(
            client,
            provider,
            loop,
            ended,
            tap,
            messages=messages,
            listener=self,
            seconds=self._rules.seconds,
        )

    def on_failure(self, reason: str) -> None:
        self._record.outcome = "no-credential-message"
        self._record.log_detail = reason

    def on_rejection(self, how: str) -> None:
        self._record.outcome = "credential-refused"
        self._record.log_detail = f"the provider refused the credential by {how}"
        self._credential.on_rejection(self._injection)


class SessionEnd:
    """Callback for the end of a WebSocket session.

    References nothing else: the exchange, with parsers, heads and copies, is released for the hours
    that a session may last.
    """

    __slots__ = ("_context", "_leave", "record")

    def __init__(
        self, context: ProxyContext, record: ExchangeRecord, leave: Callable[[], None] | None
    ) -> None:
        self._context = context
        self.record = record
        self._leave = leave

    def __call__(self, relay: Relay, sent: int, received: int) -> None:
        self._context.relays.discard(relay)
        self.record.session = None
        self.record.sent, self.record.received = sent, received
        if self._leave is not None:
            self._leave()
        self._context.exchange_log.finish(self.record)
