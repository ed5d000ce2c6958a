"""Frames of the first messages of a session, as bytes, and what they mean."""

from __future__ import annotations

from typing import Any

from proxy.websocket.frames import FrameReader, Opcode, frame_bytes
from proxy.websocket.json_edit import Pointer, parse_pointer
from proxy.websocket.message_rules import (
    MessageRule,
    MessageRules,
    Refused,
    SendMessage,
    SetMembers,
)

MASK = b"\x37\xfa\x21\x3d"


def text(content: str | bytes, *, fin: bool = True, opcode: Opcode = Opcode.TEXT) -> bytes:
    """A frame of a client."""
    data = content if isinstance(content, bytes) else content.encode()
    return frame_bytes(opcode, data, mask=MASK, fin=fin)


def reply(content: str | bytes, *, fin: bool = True, opcode: Opcode = Opcode.TEXT) -> bytes:
    """A frame of a provider."""
    data = content if isinstance(content, bytes) else content.encode()
    return frame_bytes(opcode, data, mask=None, fin=fin)


def frames(data: bytes | bytearray, *, masked: bool) -> list[tuple[Opcode, bool, bytes]]:
    """Type, last-fragment bit and content of the frames in these bytes, which are whole."""
    reader = FrameReader(masked, limit=1 << 30)
    found = reader.feed(bytes(data))
    assert (reader.broken, reader.pending) == ("", 0)
    return [(one.opcode, one.fin, one.payload) for one in found]


def texts(data: bytes | bytearray, *, masked: bool = True) -> list[str]:
    """The contents of frames that are all whole text messages."""
    found = frames(data, masked=masked)
    assert all(one[:2] == (Opcode.TEXT, True) for one in found)
    return [one[2].decode() for one in found]


def set_rules(
    pointer: str = "/key",
    when: Any = None,
    *,
    within: int = 1,
    strip: tuple[str, ...] = (),
    refused: Refused | None = None,
    secret: str = "dummy-real-key",
) -> MessageRules:
    """Rules that set a member of a message of the client."""
    place = SetMembers(((parse_pointer(pointer), f'"{secret}"'),), when or {})
    placement = MessageRule(place, within, refused or Refused())
    return MessageRules(placement, pointers(*strip))


def send_rules(*, within: int = 1, refused: Refused | None = None) -> MessageRules:
    """Rules for a service that asks for the credential, and gets a message of keyrelay's own."""
    place = SendMessage(
        '{"type":"auth","key":"dummy-real-key"}', {"type": "auth_required"}, {"type": "auth"}
    )
    return MessageRules(MessageRule(place, within, refused or Refused()))


def pointers(*names: str) -> tuple[Pointer, ...]:
    """JSON pointers."""
    return tuple(map(parse_pointer, names))
