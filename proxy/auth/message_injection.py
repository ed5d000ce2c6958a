"""Render placements in WebSocket messages: secret values as JSON texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from proxy.config.message_placement import MessageSettings
from proxy.config.template import parse_template
from proxy.websocket.json_edit import ANY, Json, parse_pointer
from proxy.websocket.message_rules import MessageRule, Refused, SendMessage, SetMembers


def message_rule(settings: Sequence[MessageSettings], values: Mapping[str, bytes]) -> MessageRule:
    """Return the placement of a credential in the first messages of a WebSocket.

    settings  one message that is sent, or members of one message of the client, which have the same
              settings but for pointer and value

    Raises ValueError, without the value, if a value is not text.
    """
    first = settings[0]
    refused = Refused(frozenset(first.refused.close), first.refused.message)
    if first.send is not None:
        text = json.dumps(_rendered(first.send, values), ensure_ascii=False, separators=(",", ":"))
        place = SendMessage(text, first.after, _own(first.send))
        return MessageRule(place, first.within, refused)
    members = tuple(
        (parse_pointer(one.set), json.dumps(_text(one.value, values), ensure_ascii=False))
        for one in settings
        if one.set is not None and one.value is not None
    )
    return MessageRule(SetMembers(members, first.when), first.within, refused)


def _text(template: str, values: Mapping[str, bytes]) -> str:
    try:
        return parse_template(template).render(values).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("a value for a message is not text in UTF-8") from None


def _rendered(value: Json, values: Mapping[str, bytes]) -> Json:
    """The message with its templates rendered."""
    match value:
        case str():
            return _text(value, values)
        case Mapping():
            return {name: _rendered(one, values) for name, one in value.items()}
        case list() | tuple():
            return [_rendered(one, values) for one in value]
    return value


def _own(message: Mapping[str, Json]) -> Json:
    """Members by which a client's own such message is recognised: those that name no secret.

    If all of them do, the names of the members.
    """
    return _pattern(message, secrets=False) or _pattern(message, secrets=True)


def _pattern(value: Mapping[str, Json], *, secrets: bool) -> dict[str, Json]:
    """The members to be compared; with ``secrets`` those with a secret too, as any value."""
    pattern: dict[str, Json] = {}
    for name, one in value.items():
        if isinstance(one, Mapping):
            if inner := _pattern(one, secrets=secrets):
                pattern[name] = inner
        elif isinstance(one, list | tuple):
            continue  # in a pattern it would mean one of its values
        elif not (isinstance(one, str) and parse_template(one).names):
            pattern[name] = _rendered(one, {})
        elif secrets:
            pattern[name] = ANY
    return pattern
