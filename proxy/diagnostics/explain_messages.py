"""What keyrelay would do with the first messages of a WebSocket, in words.

The rules are those of a route whose secrets have been replaced by their names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from proxy.websocket.json_edit import ANY, Json
from proxy.websocket.message_rules import MessageRule, MessageRules, SendMessage


def explain_messages(rules: MessageRules) -> Iterator[str]:
    """Yield a sentence for each thing that is done."""
    placement = rules.placement
    if placement is not None:
        yield from _placed(placement)
    which = "first message" if placement is None else "messages until then"
    for pointer in rules.strip:
        yield f"{pointer} is removed from the client's {which}"
    yield "no extension, so no compression, is offered to either side"


def _placed(placement: MessageRule) -> Iterator[str]:
    place, within = placement.place, placement.within
    first = "the first message" if within == 1 else f"one of the first {within} messages"
    if isinstance(place, SendMessage):
        yield f"keyrelay sends {place.text}"
        yield f"after {first} of the provider, with {_members(place.after)}"
        yield f"a message of the client with {_members(place.own)} is not forwarded"
    else:
        which = f", with {_members(place.when)}" if place.when else ""
        for pointer, value in place.members:
            yield f"{pointer} is set to {value} in {first} of the client{which}"
    for code in sorted(placement.refused.close):
        yield f"a Close frame with code {code} refuses the credential"
    if placement.refused.message is not None:
        yield f"a message with {_members(placement.refused.message)} refuses the credential"


def _members(expected: Json) -> str:
    return json.dumps(expected, ensure_ascii=False, default=_any)


def _any(value: object) -> str:
    assert value is ANY, "the other values are of JSON"
    return "any value"
