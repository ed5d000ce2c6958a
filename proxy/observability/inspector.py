"""Live inspector: publishes exchanges as they happen to its subscriptions.

Without subscriptions the data path tests one attribute. A subscription never slows the data path:
events that it does not fetch in time are counted and dropped, so memory is bounded. Bodies are not
read, except server-sent events and WebSocket messages, which are redacted before they are kept.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from proxy.http.response import ResponseHead
from proxy.observability.capture import EventStreamCapture, OnMessage, WebSocketCapture
from proxy.observability.capture_buffer import CapturedMessage, Conversation, Conversations, Sender
from proxy.observability.exchange_log import ExchangeRecord
from proxy.secrets.redaction import Redactor

MAX_SUBSCRIPTIONS = 8
"""Each subscription costs CPU for every exchange."""

# Maximum queue of one subscription: events, and bytes of messages in them.
_QUEUED = 4096
_QUEUED_BYTES = 4 * 1024 * 1024
# Seconds that capturing continues after the last subscription ends: a page that is reloaded
# subscribes again at once, and shows what it showed before.
_LINGER_SECONDS = 20.0

Event = tuple[str, dict[str, Any]]
"""Name and JSON data of an event."""


class TooManySubscriptions(Exception):
    """The maximum number of subscriptions is open."""


class Subscription:
    """One subscriber's queue. ``describe`` renders an exchange as JSON when it is fetched."""

    def __init__(self, describe: Callable[[ExchangeRecord], dict[str, Any]]) -> None:
        self._describe = describe
        self._queue: deque[tuple[str, ExchangeRecord | dict[str, Any], int]] = deque()
        self._bytes = 0
        self._dropped = 0
        self._available = asyncio.Event()
        self.closed = False

    def offer(self, name: str, what: ExchangeRecord | dict[str, Any], cost: int = 0) -> None:
        """Queue an event of ``cost`` bytes; count and drop it if the queue is full."""
        if self._dropped or len(self._queue) >= _QUEUED or self._bytes + cost > _QUEUED_BYTES:
            # Drop all events after the first dropped one, so that there is a single gap.
            self._dropped += 1
        else:
            self._queue.append((name, what, cost))
            self._bytes += cost
        self._available.set()

    def close(self) -> None:
        """Mark the end of the events."""
        self.closed = True
        self._available.set()

    async def take(self, seconds: float) -> list[Event]:
        """Return the events since the last call; wait at most ``seconds`` for the first.

        The last event is ``gap`` if events were dropped. Cancellation loses no events.
        """
        if not self._available.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._available.wait()
            except TimeoutError:
                return []
        self._available.clear()
        queue, self._queue, self._bytes = self._queue, deque(), 0
        events = [
            (name, self._describe(what) if isinstance(what, ExchangeRecord) else what)
            for name, what, _ in queue
            if not _outdated(name, what)
        ]
        if self._dropped:
            events.append(("gap", {"lost": self._dropped}))
            self._dropped = 0
        return events


class InspectorHub:
    """Passes events of the data path to all subscriptions, and captures messages.

    redactors  returns the redactors of a route's credentials by the route's name: clients may know
               a credential and put it into a path
    active     whether there are subscriptions; if False the data path publishes nothing
    """

    def __init__(self, redactors: Callable[[str], Iterable[Redactor]] = lambda _route: ()) -> None:
        self._redactors = redactors
        self.active = False
        self._subscriptions: set[Subscription] = set()
        self._conversations = Conversations()
        self._stop_timer: asyncio.TimerHandle | None = None
        self._captures: set[WebSocketCapture | EventStreamCapture] = set()

    # -- called by the data path ---------------------------------------------------------------

    def begun(self, exchange: ExchangeRecord) -> None:
        """Publish the start of an exchange."""
        self._publish("begun", exchange)

    def response_started(self, exchange: ExchangeRecord) -> None:
        """Publish the start of an exchange's response."""
        self._publish("answered", exchange)

    def ended(self, batch: Sequence[ExchangeRecord]) -> None:
        """Publish the end of exchanges. An observer of the exchange log."""
        if self.active:
            for exchange in batch:
                self._publish("ended", exchange)

    def tap(
        self, exchange: ExchangeRecord, extensions: bytes, redactor: Redactor
    ) -> WebSocketCapture | None:
        """Return a capture of a WebSocket that opens now; None without subscriptions.

        extensions  the value of ``Sec-WebSocket-Extensions`` in the provider's response
        redactor    redacts the credential of the handshake
        """
        if not self.active:
            return None
        conversation = self._conversations.begin(exchange.number, "websocket")
        capture = WebSocketCapture(
            self._on_message(conversation), self._on_end(conversation), extensions, redactor
        )
        self._captures.add(capture)
        return capture

    def stream(
        self, exchange: ExchangeRecord, head: ResponseHead, redactor: Redactor
    ) -> EventStreamCapture | None:
        """Return a capture of a response that starts now; None unless it is an event stream."""
        if not self.active or not head.is_event_stream:
            return None
        exchange.event_stream = True
        coding = b", ".join(head.values(b"content-encoding")).decode("latin-1")
        conversation = self._conversations.begin(exchange.number, "sse")
        capture = EventStreamCapture(
            self._on_message(conversation), self._on_end(conversation), coding, redactor
        )
        self._captures.add(capture)
        return capture

    # -- called by the admin server ------------------------------------------------------------

    def subscribe(self) -> Subscription:
        """Open a subscription; the caller must ``unsubscribe``. Raises TooManySubscriptions."""
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise TooManySubscriptions
        if self._stop_timer is not None:
            self._stop_timer.cancel()
            self._stop_timer = None
        subscription = Subscription(self.describe)
        self._subscriptions.add(subscription)
        self.active = True
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription. Captured messages are cleared soon after the last one ended."""
        self._subscriptions.discard(subscription)
        if not self._subscriptions and self._stop_timer is None:
            loop = asyncio.get_running_loop()
            self._stop_timer = loop.call_later(_LINGER_SECONDS, self.stop)

    def stop(self) -> None:
        """Close all subscriptions, stop all captures, and clear captured messages."""
        if self._stop_timer is not None:
            self._stop_timer.cancel()
            self._stop_timer = None
        for subscription in self._subscriptions:
            subscription.close()
        self._subscriptions.clear()
        self.active = False
        for capture in self._captures:
            capture.stop()
        self._captures.clear()
        self._conversations.clear()

    def conversation(self, exchange: ExchangeRecord) -> Conversation | None:
        """Return the captured messages of an exchange; None if it was not captured."""
        return self._conversations.find(exchange.number)

    def describe(self, exchange: ExchangeRecord) -> dict[str, Any]:
        """Return an exchange as JSON for the page. Times in milliseconds; null until known."""
        sent, received = exchange.moved
        return {
            "number": exchange.number,
            "route": exchange.route,
            "method": exchange.method,
            "path": self._redacted(exchange.route, exchange.path),
            "kind": exchange.kind,
            "strategy": exchange.strategy,
            "status": exchange.status,
            "outcome": exchange.outcome,
            "note": self._redacted(exchange.route, exchange.log_detail),
            "request_id": self._redacted(exchange.route, exchange.request_id),
            "started": exchange.started,
            "first_byte_ms": None if exchange.first_byte < 0 else exchange.first_byte * 1000,
            "duration_ms": exchange.duration * 1000 if exchange.duration > 0 else None,
            "sent": sent,
            "received": received,
            "open": exchange.duration <= 0,
            "problem": {"detail": exchange.problem[0], "advice": exchange.problem[1]}
            if exchange.problem[0]
            else None,
        }

    def detail(self, exchange: ExchangeRecord) -> dict[str, Any] | None:
        """Return what keyrelay did for an exchange; None if it was not recorded."""
        detail = exchange.detail
        if detail is None:
            return None
        total = exchange.duration if exchange.duration > 0 else time.perf_counter() - exchange.began
        found = detail.as_json(total, exchange.first_byte)
        redacted: dict[str, Any] = self._redact_all(exchange.route, found)
        return redacted

    def _redact_all(self, route: str, value: Any) -> Any:
        """Redact every text of a JSON value that something in a message has determined."""
        if isinstance(value, str):
            return self._redacted(route, value)
        if isinstance(value, dict):
            return {name: self._redact_all(route, one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._redact_all(route, one) for one in value]
        return value

    def _redacted(self, route: str, text: str) -> str:
        if not text:
            return text
        data = text.encode("utf-8", "replace")
        for redactor in self._redactors(route):
            data = redactor.redact(data)
        return data.decode("utf-8", "replace")

    # -- internal --------------------------------------------------------------------------------

    def _publish(self, name: str, exchange: ExchangeRecord) -> None:
        for subscription in self._subscriptions:
            subscription.offer(name, exchange)

    def _on_message(self, conversation: Conversation) -> OnMessage:
        """Return a callback that records messages of a conversation and publishes them."""

        def record(sender: Sender, kind: str, text: str, size: int, *, cut: bool = False) -> None:
            message = CapturedMessage(
                time.time(), sender, kind, text, size, cut, conversation.count + 1
            )
            self._conversations.add(conversation, message)
            origin = {"number": conversation.number, "conversation": conversation.kind}
            for subscription in self._subscriptions:
                subscription.offer("message", origin | message.as_json(), message.cost)

        return record

    def _on_end(
        self, conversation: Conversation
    ) -> Callable[[WebSocketCapture | EventStreamCapture], None]:
        def end(capture: WebSocketCapture | EventStreamCapture) -> None:
            self._captures.discard(capture)
            self._conversations.end(conversation)

        return end


def _outdated(name: str, what: ExchangeRecord | dict[str, Any]) -> bool:
    """Return whether ``ended`` follows in the queue with all the data: most exchanges are short."""
    return isinstance(what, ExchangeRecord) and name != "ended" and what.duration > 0
