"""proxy.config.message_placement."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from proxy.config.message_placement import MessageSettings, check_pointer
from proxy.errors import ConfigValueError


def test_templates_of_a_message_that_is_sent() -> None:
    """Every string of it, at any depth, by its path."""
    message = MessageSettings.model_validate(
        {"send": {"a": "x", "b": {"c": [1, "{key}"]}, "d": None}, "after": {"e": 1}}
    )
    assert message.templates == {("send", "a"): "x", ("send", "b", "c", 1): "{key}"}


def test_the_template_of_a_member_that_is_set() -> None:
    """One, at ``value``."""
    message = MessageSettings.model_validate({"set": "/a", "value": "Bot {key}"})
    assert message.templates == {("value",): "Bot {key}"}


@pytest.mark.parametrize("text", ["", "a", "/a~", "/~2b"])
def test_pointers(text: str) -> None:
    """A pointer names a member, with a slash before each name."""
    check_pointer("/a/0/b~1c")
    with pytest.raises(ConfigValueError, match="JSON pointer"):
        check_pointer(text)


@pytest.mark.parametrize("send", [{"params": ["{key}"]}, {"a": {"b": [1]}, "c": []}])
def test_a_message_that_cannot_be_told_from_others(send: dict[str, Any]) -> None:
    """The client's own one would be any: none of its messages would be forwarded."""
    with pytest.raises(ValidationError, match="taken for its own"):
        MessageSettings.model_validate({"send": send, "after": {"type": "ask"}})
