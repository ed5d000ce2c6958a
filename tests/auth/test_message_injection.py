"""proxy.auth.message_injection."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.auth.message_injection import message_rule
from proxy.config.message_placement import MessageSettings
from proxy.websocket.json_edit import ANY
from proxy.websocket.message_rules import SendMessage, SetMembers

VALUES = {"key": 'dummy "quoted" ü'.encode()}


def settings(**fields: Any) -> MessageSettings:
    return MessageSettings.model_validate(fields)


def test_a_value_becomes_a_json_string() -> None:
    """With the escapes that JSON needs, and as one member for each placement."""
    both = [settings(set=f"/{name}", value="v {key}", when={"a": 1}, within=2) for name in "xy"]
    found = message_rule(both, VALUES)
    assert isinstance(found.place, SetMembers)
    assert [(str(pointer), text) for pointer, text in found.place.members] == [
        ("/x", r'"v dummy \"quoted\" ü"'),
        ("/y", r'"v dummy \"quoted\" ü"'),
    ]
    assert (found.place.when, found.within) == ({"a": 1}, 2)


@pytest.mark.parametrize(
    ("send", "text", "own"),
    [
        ({"t": "a", "k": "{key}"}, r'{"t":"a","k":"dummy \"quoted\" ü"}', {"t": "a"}),
        ({"k": "{key}"}, r'{"k":"dummy \"quoted\" ü"}', {"k": ANY}),
        ({"d": {"k": "x{key}"}}, r'{"d":{"k":"xdummy \"quoted\" ü"}}', {"d": {"k": ANY}}),
        (
            {"o": 2, "d": {"k": "{key}", "l": [1, "{{"]}, "n": None},
            r'{"o":2,"d":{"k":"dummy \"quoted\" ü","l":[1,"{"]},"n":null}',
            {"o": 2, "n": None},
        ),
    ],
)
def test_a_message_is_sent(send: Any, text: str, own: Any) -> None:
    """Its strings are templates; the client's own one is known by the members without a secret, or
    by their names if all have one.
    """
    found = message_rule([settings(send=send, after={"b": 1})], VALUES)
    assert isinstance(found.place, SendMessage)
    assert (found.place.text, found.place.own) == (text, own)


def test_a_value_that_is_no_text_is_refused() -> None:
    """A message is JSON in UTF-8; the error has no value."""
    with pytest.raises(ValueError, match="not text in UTF-8") as caught:
        message_rule([settings(set="/k", value="{key}")], {"key": b"dummy\xff"})
    assert "dummy" not in str(caught.value)
