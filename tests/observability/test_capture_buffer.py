"""What is kept of conversations: the last of it, never more than the bounds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as some

from proxy.observability.capture_buffer import (
    KEPT,
    KEPT_BYTES,
    CapturedMessage,
    Conversation,
    Conversations,
)


def say(
    conversations: Conversations, conversation: Conversation, text: str, times: int = 1
) -> None:
    for _ in range(times):
        place = conversation.count + 1
        said = CapturedMessage(1.0, "client", "text", text, len(text), False, place)
        conversations.add(conversation, said)


def test_the_last_of_a_conversation() -> None:
    """As many messages as are kept, the newest, and how many are missing before them."""
    conversations = Conversations()
    one = conversations.begin(1, "websocket")
    say(conversations, one, "x", KEPT + 20)
    told = one.as_json()
    assert [said["place"] for said in told["messages"]] == list(range(21, KEPT + 21))
    assert (told["count"], told["dropped"]) == (KEPT + 20, 20)


def test_all_together_are_bounded() -> None:
    """The oldest go, whosesoever they are; a conversation that has ended and lost all is gone."""
    conversations = Conversations()
    old = conversations.begin(1, "sse")
    say(conversations, old, "x" * 16_000, 10)
    conversations.end(old)
    new = conversations.begin(2, "websocket")
    say(conversations, new, "y" * 16_000, 300)
    assert conversations.cost <= KEPT_BYTES
    assert conversations.find(1) is None
    assert conversations.find(2) is new
    assert 100 < len(new.messages) < 200


@given(some.lists(some.tuples(some.integers(0, 5), some.integers(0, 60_000)), max_size=300))
@settings(max_examples=30, deadline=None)
def test_the_cost_is_what_is_there(steps: list[tuple[int, int]]) -> None:
    """However they grow and end, what is counted is what is kept."""
    conversations = Conversations()
    every = [conversations.begin(number, "sse") for number in range(6)]
    for number, size in steps:
        say(conversations, every[number], "z" * size)
        if size % 7 == 0:
            conversations.end(every[number])
    kept = [said for one in every for said in one.messages]
    assert conversations.cost == sum(said.cost for said in kept) <= KEPT_BYTES


def test_forgotten() -> None:
    """After all was forgotten, what goes on is kept nowhere."""
    conversations = Conversations()
    one = conversations.begin(1, "sse")
    say(conversations, one, "x")
    conversations.clear()
    say(conversations, one, "y")
    assert (len(conversations), conversations.cost, conversations.find(1)) == (0, 0, None)


def test_many_that_say_little() -> None:
    """What is noted to find the oldest does not outgrow what is kept."""
    conversations = Conversations()
    one = conversations.begin(1, "sse")
    say(conversations, one, "", 5 * KEPT)
    assert len(conversations._order) <= 2 * KEPT
    assert len(one.messages) == KEPT
