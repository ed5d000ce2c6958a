"""Settings of a placement in a WebSocket message: a member that is set, or a message that is sent.

``websocket.first_messages`` applies them. Imports neither aiohttp nor asyncio.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import Field, JsonValue, model_validator

from proxy.config.fields import Node, checked_by
from proxy.config.template import parse_template
from proxy.errors import ConfigValueError
from proxy.websocket.json_edit import parse_pointer

_Members = Mapping[str, JsonValue]


def check_pointer(text: str) -> None:
    """Check a JSON pointer to a member (RFC 6901)."""
    try:
        parse_pointer(text)
    except ValueError:
        raise ConfigValueError(
            "invalid JSON pointer",
            "write a slash before each name: /api_key or /auth/api_key; ~1 is a slash in a name",
        ) from None


def message_templates(value: JsonValue) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the strings of a message, each with its path. All of them are templates."""
    match value:
        case str():
            yield (), value
        case dict():
            for name, one in value.items():
                for path, text in message_templates(one):
                    yield (name, *path), text
        case list():
            for index, one in enumerate(value):
                for path, text in message_templates(one):
                    yield (index, *path), text


def _has_scalar(message: Mapping[str, JsonValue]) -> bool:
    """Whether a member outside a list tells a message from others."""
    return any(
        _has_scalar(one) if isinstance(one, dict) else not isinstance(one, list)
        for one in message.values()
    )


class MessageRefused(Node):
    """How the provider refuses a credential in a message."""

    close: tuple[Annotated[int, Field(ge=1000, le=4999, strict=True)], ...] = Field(
        default=(), description="Codes of its Close frame, such as 4004. None by default."
    )
    message: _Members | None = Field(
        default=None,
        description="Members of its message, such as `{type: auth_invalid}`. None by default.",
    )


class MessageSettings(Node):
    """A credential in a WebSocket message: `set` in the client's, or `send` one of keyrelay's own.

    In `when`, `after` and `refused` a list means one of its values; objects are compared member by
    member.
    """

    set: Annotated[str, checked_by(check_pointer)] | None = Field(
        default=None,
        description="JSON pointer to the member of the client's message that is the credential, "
        "such as `/api_key`. It is replaced, or added.",
    )
    value: Annotated[str, checked_by(parse_template)] | None = Field(
        default=None, description="With `set`: string with the names of secrets in braces."
    )
    when: _Members = Field(
        default={},
        description="With `set`: members by which the message is recognised, such as "
        "`{type: auth}`. None by default: any object.",
    )
    send: _Members | None = Field(
        default=None,
        description="The message that keyrelay sends; its strings may name secrets in braces. The "
        "client's own one, with the same other members, is not forwarded.",
    )
    after: _Members | None = Field(
        default=None,
        description="With `send`: members by which the provider's message is recognised after "
        "which it is sent, such as `{type: auth_required}`.",
    )
    within: int = Field(
        default=1,
        ge=1,
        le=100,
        strict=True,
        description="Among how many first messages of client and provider those messages are. 1 by "
        "default. So many messages of the provider are parsed afterwards too, for `refused`.",
    )
    refused: MessageRefused = Field(
        default=MessageRefused(),
        description="How the provider refuses the credential, by a Close frame or a message. The "
        "next session then gets another one. Nothing by default.",
    )

    @model_validator(mode="after")
    def _has_one_form(self) -> MessageSettings:
        if (self.set is None) is (self.send is None):
            raise ConfigValueError(
                "a message is either set or sent",
                'write {set: /api_key, value: "{key}"}; or send: and after:',
            )
        form, needed, absent = (
            ("set", "value", {"send", "after"})
            if self.send is None
            else ("send", "after", {"set", "value", "when"})
        )
        if not getattr(self, needed):
            raise ConfigValueError(f'"{needed}" is missing', f"add {needed}: beside {form}:")
        if surplus := self.model_fields_set & absent:
            raise ConfigValueError(
                f"{form}: has a key of the other form beside it",
                f"remove {' and '.join(sorted(surplus))}",
            )
        for text in self.templates.values():
            parse_template(text)
        if self.send is not None and not _has_scalar(self.send):
            raise ConfigValueError(
                "every message of the client would be taken for its own one",
                "send: needs a member outside a list, such as type: auth",
            )
        return self

    @property
    def templates(self) -> dict[tuple[str | int, ...], str]:
        """The templates by their path below ``message`` in the YAML."""
        if self.send is None:
            return {("value",): self.value or ""}
        return {("send", *path): text for path, text in message_templates(dict(self.send))}


def check_messages(messages: Sequence[MessageSettings]) -> None:
    """Check the message placements of one strategy. Raises ConfigValueError."""
    first, *others = messages
    pointers = [one.set + "/" for one in messages if one.set is not None]
    if any(one != other and one.startswith(other) for one in pointers for other in pointers):
        raise ConfigValueError("a member that is set is in another one", "keep one of them")
    for one in others:
        if first.send is not None or one.send is not None:
            raise ConfigValueError(
                "a strategy sends one message", "keep one of the placements with message:"
            )
        if (one.when, one.within, one.refused) != (first.when, first.within, first.refused):
            raise ConfigValueError(
                "the members that are set are in two messages",
                "write the same when:, within: and refused: for each",
            )
