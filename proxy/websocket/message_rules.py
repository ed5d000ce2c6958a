"""Rules for the first messages of a WebSocket session: where a credential is placed in them."""

from __future__ import annotations

from dataclasses import dataclass, field

from proxy.websocket.json_edit import Json, Pointer

# Time (seconds) from the 101 response until the credential has been placed.
_PLACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, repr=False)
class SetMembers:
    """The credential is set in a message of the client. Contains secret bytes: never printed.

    members  pointers, each with the JSON text of its value
    when     members by which the message is recognised; empty for any message
    """

    members: tuple[tuple[Pointer, str], ...]
    when: Json


@dataclass(frozen=True, slots=True, repr=False)
class SendMessage:
    """The proxy sends the message with the credential. Contains secret bytes: never printed.

    text   the JSON text that is sent
    after  members by which the provider's message is recognised that it responds to
    own    members by which the client's own message is recognised, which is not forwarded
    """

    text: str
    after: Json
    own: Json


@dataclass(frozen=True, slots=True, repr=False)
class Refused:
    """How the provider refuses the credential after it has been placed.

    close    codes of its Close frame
    message  members of its message; None if no message does
    """

    close: frozenset[int] = frozenset()
    message: Json = None


@dataclass(frozen=True, slots=True, repr=False)
class MessageRule:
    """A credential in the first messages of a session, rendered. Never printed.

    within  number of messages that are parsed: of the client until the credential is placed, of
            the provider until it asks for the credential, and after it has been placed
    """

    place: SetMembers | SendMessage
    within: int = 1
    refused: Refused = field(default_factory=Refused)


@dataclass(frozen=True, slots=True, repr=False)
class MessageRules:
    """What happens to the first messages of a session. Never printed.

    placement  where the credential is placed; None if only members are removed, which then
               concerns the client's first message
    strip      members that are removed from each message of the client that is parsed
    seconds    time until the credential has been placed
    """

    placement: MessageRule | None
    strip: tuple[Pointer, ...] = ()
    seconds: float = _PLACE_SECONDS
