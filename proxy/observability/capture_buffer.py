"""Bounded buffer of captured WebSocket messages and server-sent events.

Holds only redacted messages, in memory, for the inspector; it is cleared when the inspector has no
subscribers.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

KEPT = 500
"""Maximum messages kept of one conversation."""

KEPT_BYTES = 2 * 1024 * 1024
"""Approximate bytes kept of all conversations together."""

# Approximate memory of one message besides its text (bytes).
_OVERHEAD = 300

Sender = Literal["client", "provider", "keyrelay"]


@dataclass(frozen=True, slots=True)
class CapturedMessage:
    """One redacted message, event or control frame.

    at      seconds since the epoch
    sender  keyrelay for notes on what cannot be shown
    kind    text, binary, ping, pong, close, event, note
    text    the text, or the first bytes of binary data in hex
    size    bytes of the whole message
    cut     whether ``text`` is incomplete
    place   number of the message in its conversation, from 1
    """

    at: float
    sender: Sender
    kind: str
    text: str
    size: int
    cut: bool
    place: int

    def as_json(self) -> dict[str, Any]:
        """Return the JSON representation for the inspector page."""
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
        """Approximate bytes of memory."""
        return len(self.text) + _OVERHEAD


@dataclass(slots=True, eq=False)
class Conversation:
    """The messages of one exchange. ``kind`` is ``websocket`` or ``sse``.

    messages  the most recent messages
    count     number of all messages
    """

    number: int
    kind: str
    messages: deque[CapturedMessage] = field(default_factory=deque)
    count: int = 0
    ended: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the JSON representation for the inspector page."""
        return {
            "count": self.count,
            "dropped": self.count - len(self.messages),
            "messages": [message.as_json() for message in self.messages],
        }


class Conversations:
    """All conversations. The oldest messages of any conversation are dropped over the limit."""

    def __init__(self) -> None:
        self._by_number: dict[int, Conversation] = {}
        # Each message with its conversation, oldest first.
        self._order: deque[tuple[Conversation, CapturedMessage]] = deque()
        self._cost = 0

    def __len__(self) -> int:
        return len(self._by_number)

    @property
    def cost(self) -> int:
        """Approximate bytes kept."""
        return self._cost

    def begin(self, number: int, kind: str) -> Conversation:
        """Begin the conversation of the exchange with that number."""
        conversation = self._by_number[number] = Conversation(number, kind)
        return conversation

    def find(self, number: int) -> Conversation | None:
        """Return the conversation; None if it was not captured, or all of it was dropped."""
        return self._by_number.get(number)

    def add(self, conversation: Conversation, message: CapturedMessage) -> None:
        """Add a message to its conversation."""
        conversation.count = message.place
        if self._by_number.get(conversation.number) is not conversation:
            return  # the buffer was cleared since the conversation began
        conversation.messages.append(message)
        self._order.append((conversation, message))
        self._cost += message.cost
        if len(conversation.messages) > KEPT:
            self._cost -= conversation.messages.popleft().cost
        while self._cost > KEPT_BYTES or len(self._order) > 2 * len(self._by_number) * KEPT:
            self._drop_oldest()

    def end(self, conversation: Conversation) -> None:
        """End a conversation; its messages stay until they are dropped."""
        conversation.ended = True
        self._remove_if_empty(conversation)

    def clear(self) -> None:
        """Remove all conversations."""
        self._by_number.clear()
        self._order.clear()
        self._cost = 0

    def _drop_oldest(self) -> None:
        conversation, message = self._order.popleft()
        # The message may be dropped already, as the oldest of its own conversation.
        if conversation.messages and conversation.messages[0] is message:
            conversation.messages.popleft()
            self._cost -= message.cost
            self._remove_if_empty(conversation)

    def _remove_if_empty(self, conversation: Conversation) -> None:
        if conversation.ended and not conversation.messages:
            self._by_number.pop(conversation.number, None)
