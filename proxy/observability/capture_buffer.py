"""What was said in WebSockets and event streams while somebody watched: the last of it, bounded.

Only what has been masked comes in here. It is kept in memory, for the inspector alone, and
forgotten when nobody watches any more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

KEPT = 500
"""Messages that are kept of one conversation."""

KEPT_BYTES = 2 * 1024 * 1024
"""How much is kept of all conversations together, about."""

# What one message costs beside its text, about (bytes).
_OVERHEAD = 300

Sender = Literal["client", "provider", "keyrelay"]


@dataclass(frozen=True, slots=True)
class CapturedMessage:
    """One message, event or control frame, as it may be shown.

    at      seconds since the epoch
    sender  keyrelay says why something cannot be shown
    kind    text, binary, ping, pong, close, event, note
    text    of binary data the first bytes in hex
    size    bytes of the whole
    cut     whether ``text`` is not all of it
    place   counts what was said in this conversation, from 1
    """

    at: float
    sender: Sender
    kind: str
    text: str
    size: int
    cut: bool
    place: int

    def as_json(self) -> dict[str, Any]:
        """As the page gets it."""
        return {
            "at": self.at,
            "sender": self.sender,
            "kind": self.kind,
            "text": self.text,
            "size": self.size,
            "cut": self.cut,
            "place": self.place,
        }

    @property
    def cost(self) -> int:
        """Bytes of memory, about."""
        return len(self.text) + _OVERHEAD


@dataclass(slots=True, eq=False)
class Conversation:
    """One exchange's messages. ``kind`` is ``websocket`` or ``sse``.

    said     the last of them
    count    how many there were
    """

    number: int
    kind: str
    said: deque[CapturedMessage] = field(default_factory=deque)
    count: int = 0
    ended: bool = False

    def as_json(self) -> dict[str, Any]:
        """As the page gets it."""
        return {
            "count": self.count,
            "dropped": self.count - len(self.said),
            "messages": [one.as_json() for one in self.said],
        }


class Conversations:
    """All of them. When they grow too large the oldest messages go, whosesoever they are."""

    def __init__(self) -> None:
        self._by_number: dict[int, Conversation] = {}
        # Whose each message is, oldest first.
        self._order: deque[tuple[Conversation, CapturedMessage]] = deque()
        self._cost = 0

    def __len__(self) -> int:
        return len(self._by_number)

    @property
    def cost(self) -> int:
        """Bytes that are kept, about."""
        return self._cost

    def begin(self, number: int, kind: str) -> Conversation:
        """The conversation of the exchange of that number."""
        conversation = self._by_number[number] = Conversation(number, kind)
        return conversation

    def find(self, number: int) -> Conversation | None:
        """None if nobody watched when it began, or all of it had to go."""
        return self._by_number.get(number)

    def add(self, conversation: Conversation, said: CapturedMessage) -> None:
        """Keep what was said."""
        conversation.count = said.place
        if self._by_number.get(conversation.number) is not conversation:
            return  # all were forgotten since it began
        conversation.said.append(said)
        self._order.append((conversation, said))
        self._cost += said.cost
        if len(conversation.said) > KEPT:
            self._cost -= conversation.said.popleft().cost
        while self._cost > KEPT_BYTES or len(self._order) > 2 * len(self._by_number) * KEPT:
            self._drop_oldest()

    def end(self, conversation: Conversation) -> None:
        """Nothing more will be said; what was stays for a while."""
        conversation.ended = True
        self._tidy(conversation)

    def clear(self) -> None:
        """Forget everything."""
        self._by_number.clear()
        self._order.clear()
        self._cost = 0

    def _drop_oldest(self) -> None:
        conversation, said = self._order.popleft()
        # It may have gone already, as the oldest of its own conversation.
        if conversation.said and conversation.said[0] is said:
            conversation.said.popleft()
            self._cost -= said.cost
            self._tidy(conversation)

    def _tidy(self, conversation: Conversation) -> None:
        if conversation.ended and not conversation.said:
            self._by_number.pop(conversation.number, None)
