"""Exchanges as they happen, for whoever watches: the live inspector's source.

While nobody watches, the data path tests one attribute and nothing else happens. Somebody who
watches never slows it down: what a watcher does not fetch in time is counted and left out, so
memory is bounded whatever passes. Bodies are not looked at, save events and WebSocket messages,
which are masked before they are put anywhere.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from proxy.http.response import ResponseHead
from proxy.observability.capture import EventStreamCapture, Say, WebSocketCapture
from proxy.observability.capture_buffer import CapturedMessage, Conversation, Conversations, Sender
from proxy.observability.exchange_log import ExchangeRecord
from proxy.secrets.redaction import Redactor

# How many may watch at once: each costs CPU for every exchange.
_MOST_WATCHERS = 8
# What waits for one watcher: things that happened, and bytes of messages in them.
_QUEUED = 4096
_QUEUED_BYTES = 4 * 1024 * 1024
# How long watching goes on after the last has left (seconds): a page that is loaded anew comes back
# at once, and what it showed is still there.
_LINGER_SECONDS = 20.0

Event = tuple[str, dict[str, Any]]
"""Its name and what it says, JSON-able."""


class TooManyWatchers(Exception):
    """Nobody else can watch now."""


class Subscription:
    """One who watches. ``tell`` makes of an exchange what may be shown, when it is fetched."""

    def __init__(self, tell: Callable[[ExchangeRecord], dict[str, Any]]) -> None:
        self._tell = tell
        self._waiting: deque[tuple[str, ExchangeRecord | dict[str, Any], int]] = deque()
        self._bytes = 0
        self._lost = 0
        self._something = asyncio.Event()
        self.closed = False

    def offer(self, name: str, what: ExchangeRecord | dict[str, Any], cost: int = 0) -> None:
        """Something happened. Counted and left out if too much waits already."""
        if self._lost or len(self._waiting) >= _QUEUED or self._bytes + cost > _QUEUED_BYTES:
            # Everything behind the first that is lost is lost as well, so that a gap is one gap.
            self._lost += 1
        else:
            self._waiting.append((name, what, cost))
            self._bytes += cost
        self._something.set()

    def close(self) -> None:
        """Nothing more will come."""
        self.closed = True
        self._something.set()

    async def take(self, seconds: float) -> list[Event]:
        """What happened since the last call, waiting for something at most so long.

        Ends with ``gap`` if something is missing. Cancelling is safe: nothing is lost by it.
        """
        if not self._something.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._something.wait()
            except TimeoutError:
                return []
        self._something.clear()
        waiting, self._waiting, self._bytes = self._waiting, deque(), 0
        events = [
            (name, self._tell(what) if isinstance(what, ExchangeRecord) else what)
            for name, what, _ in waiting
            if not _outdated(name, what)
        ]
        if self._lost:
            events.append(("gap", {"lost": self._lost}))
            self._lost = 0
        return events


class InspectorHub:
    """The hub: gets what happens from the data path, hands it to everybody who watches.

    maskers  what knows the credentials of a route, by its name: a client may have one of them, and
             put it into a path
    active   whether somebody watches. False: nothing needs to be told
    """

    def __init__(self, redactors: Callable[[str], Iterable[Redactor]] = lambda _route: ()) -> None:
        self._maskers = redactors
        self.active = False
        self._watchers: set[Subscription] = set()
        self._conversations = Conversations()
        self._resting: asyncio.TimerHandle | None = None
        self._taps: set[WebSocketCapture | EventStreamCapture] = set()

    # -- the data path -------------------------------------------------------------------------

    def begun(self, exchange: ExchangeRecord) -> None:
        """An exchange has begun."""
        self._tell("begun", exchange)

    def answered(self, exchange: ExchangeRecord) -> None:
        """The head of its answer is on its way to the client."""
        self._tell("answered", exchange)

    def ended(self, batch: Sequence[ExchangeRecord]) -> None:
        """A sink of the journal."""
        if self.active:
            for exchange in batch:
                self._tell("ended", exchange)

    def tap(
        self, exchange: ExchangeRecord, extensions: bytes, redactor: Redactor
    ) -> WebSocketCapture | None:
        """What reads along in a WebSocket that opens now; None if nobody watches.

        extensions  the value of ``Sec-WebSocket-Extensions`` in the provider's answer
        masker      knows the credential that the handshake bore
        """
        if not self.active:
            return None
        conversation = self._conversations.begin(exchange.number, "websocket")
        tap = WebSocketCapture(
            self._say(conversation), self._forget(conversation), extensions, redactor
        )
        self._taps.add(tap)
        return tap

    def stream(
        self, exchange: ExchangeRecord, head: ResponseHead, redactor: Redactor
    ) -> EventStreamCapture | None:
        """What reads along in an answer that begins now; None if it is no stream of events."""
        kind = b", ".join(head.values(b"content-type")).partition(b";")[0].strip().lower()
        if not self.active or kind != b"text/event-stream":
            return None
        conversation = self._conversations.begin(exchange.number, "sse")
        coding = b", ".join(head.values(b"content-encoding")).decode("latin-1")
        stream = EventStreamCapture(
            self._say(conversation), self._forget(conversation), coding, redactor
        )
        self._taps.add(stream)
        return stream

    # -- whoever watches -----------------------------------------------------------------------

    def watch(self) -> Subscription:
        """Begin to watch; the caller owes a ``leave``. Raises TooManyWatchers."""
        if len(self._watchers) >= _MOST_WATCHERS:
            raise TooManyWatchers
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        watcher = Subscription(self.told)
        self._watchers.add(watcher)
        self.active = True
        return watcher

    def leave(self, watcher: Subscription) -> None:
        """Watch no more. What was heard is forgotten soon after the last has left."""
        self._watchers.discard(watcher)
        if not self._watchers and self._resting is None:
            loop = asyncio.get_running_loop()
            self._resting = loop.call_later(_LINGER_SECONDS, self.rest)

    def rest(self) -> None:
        """Stop watching now and forget what was heard. Whoever still watches is told to leave."""
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        for watcher in self._watchers:
            watcher.close()
        self._watchers.clear()
        self.active = False
        for tap in self._taps:
            tap.rest()
        self._taps.clear()
        self._conversations.clear()

    def kind(self, exchange: ExchangeRecord) -> str:
        """``http``, ``sse`` or ``websocket``."""
        if exchange.websocket:
            return "websocket"
        conversation = self._conversations.find(exchange.number)
        return "http" if conversation is None else conversation.kind

    def conversation(self, exchange: ExchangeRecord) -> Conversation | None:
        """What was heard of it, None if nobody watched when it began."""
        return self._conversations.find(exchange.number)

    def told(self, exchange: ExchangeRecord) -> dict[str, Any]:
        """An exchange as the page gets it. Times in milliseconds; null for what is not yet."""
        return {
            "number": exchange.number,
            "route": exchange.route,
            "method": exchange.method,
            "path": self._blotted(exchange.route, exchange.path),
            "kind": self.kind(exchange),
            "strategy": exchange.strategy,
            "status": exchange.status,
            "outcome": exchange.outcome,
            "note": self._blotted(exchange.route, exchange.log_detail),
            "request_id": self._blotted(exchange.route, exchange.request_id),
            "started": exchange.started,
            "first_byte_ms": None if exchange.first_byte < 0 else exchange.first_byte * 1000,
            "duration_ms": exchange.duration * 1000 if exchange.duration > 0 else None,
            "sent": exchange.sent,
            "received": exchange.received,
            "open": exchange.duration <= 0,
        }

    def _blotted(self, route: str, text: str) -> str:
        if not text:
            return text
        data = text.encode("utf-8", "replace")
        for redactor in self._maskers(route):
            data = redactor.mask(data)
        return data.decode("utf-8", "replace")

    # -- within ----------------------------------------------------------------------------------

    def _tell(self, name: str, exchange: ExchangeRecord) -> None:
        for watcher in self._watchers:
            watcher.offer(name, exchange)

    def _say(self, conversation: Conversation) -> Say:
        """What takes down what is said there, and lets every watcher know."""

        def say(sender: Sender, kind: str, text: str, size: int, *, cut: bool = False) -> None:
            said = CapturedMessage(
                time.time(), sender, kind, text, size, cut, conversation.count + 1
            )
            self._conversations.add(conversation, said)
            told = {"number": conversation.number, "conversation": conversation.kind}
            for watcher in self._watchers:
                watcher.offer("message", told | said.as_json(), said.cost)

        return say

    def _forget(
        self, conversation: Conversation
    ) -> Callable[[WebSocketCapture | EventStreamCapture], None]:
        def forget(ear: WebSocketCapture | EventStreamCapture) -> None:
            self._taps.discard(ear)
            self._conversations.end(conversation)

        return forget


def _outdated(name: str, what: ExchangeRecord | dict[str, Any]) -> bool:
    """Whether a later event in the queue says the same and more: most exchanges are short."""
    return isinstance(what, ExchangeRecord) and name != "ended" and what.duration > 0
