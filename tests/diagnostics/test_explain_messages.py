"""proxy.diagnostics.explain_messages; what ``explain`` prints of it is tested there."""

from __future__ import annotations

from proxy.diagnostics.explain_messages import explain_messages
from proxy.websocket.message_rules import MessageRules
from tests.support.messages import pointers, set_rules


def test_each_thing_that_is_done_is_a_sentence() -> None:
    """What is set where, and what is removed until then or from the first message."""
    last = "no extension, so no compression, is offered to either side"
    assert list(explain_messages(set_rules("/a", strip=("/b",), secret="<key>"))) == [
        '/a is set to "<key>" in the first message of the client',
        "/b is removed from the client's messages until then",
        last,
    ]
    assert list(explain_messages(MessageRules(None, pointers("/b")))) == [
        "/b is removed from the client's first message",
        last,
    ]
