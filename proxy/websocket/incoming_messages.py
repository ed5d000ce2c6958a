"""Assemble the messages of one direction that is parsed, and encode what is forwarded.

In contrast to ``captured_messages``, which shows a copy, the frames are kept: they are what is
forwarded.
"""

from __future__ import annotations

import os
import sys

from proxy.websocket.frames import CloseCode, Frame, FrameReader, Opcode, frame_bytes
from proxy.websocket.json_edit import Json, JsonEditError, parse_json

_CONTROL = 0x08


class Failure(Exception):
    """The session ends with a Close frame. ``reason`` is fixed text, without any message."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class IncomingMessages:
    """The frames of one direction, and the message that is being assembled.

    The reader keeps all of a payload, because the size in its header is checked after each read.
    """

    __slots__ = ("_size", "closed", "count", "frames", "reader")

    def __init__(self, *, masked: bool) -> None:
        self.reader = FrameReader(masked, limit=sys.maxsize)
        self.frames: list[Frame] = []
        self.count = 0
        self.closed = False
        self._size = 0

    def add(self, frame: Frame) -> str:
        """Add a data frame. Returns why it cannot follow, "" if it can."""
        if (frame.opcode is Opcode.CONTINUATION) is not bool(self.frames):
            return "fragments of messages in the wrong order"
        if frame.rsv1:
            return "compression that was not negotiated"
        self.frames.append(frame)
        self._size += frame.size
        return ""

    @property
    def message(self) -> tuple[Opcode | None, int]:
        """Type of the message that has begun, None between two, and its size in bytes so far.

        The current frame counts with the size that its header states.
        """
        begun = self.reader.begun
        if begun is not None and begun[0] & _CONTROL:
            begun = None
        opcode = self.frames[0].opcode if self.frames else begun and begun[0]
        return opcode, self._size + (begun[1] if begun is not None else 0)

    def take(self) -> tuple[list[Frame], bytes]:
        """The frames of the message so far, and their content. The next message begins."""
        frames, self.frames, self._size = self.frames, [], 0
        return frames, b"".join(one.payload for one in frames)


def refuse(reason: str) -> Failure:
    """The failure due to the client's messages."""
    return Failure(CloseCode.POLICY_VIOLATION, reason)


def fail(reason: str) -> Failure:
    """The failure due to the provider's messages."""
    return Failure(CloseCode.INTERNAL_ERROR, reason)


def cut_off(*, by_client: bool) -> Failure:
    """The failure due to a peer that ended its direction before the credential was placed."""
    if by_client:
        return refuse("the client ended the connection before the credential was placed")
    return fail("the provider ended the connection before the credential was placed")


def parse_client_message(content: bytes) -> tuple[str, Json]:
    """The text of a client's message, and its value. Raises Failure."""
    try:
        text = content.decode("utf-8")
        return text, parse_json(text)
    except UnicodeDecodeError:
        raise refuse("the message is not UTF-8") from None
    except JsonEditError as error:
        raise refuse(str(error)) from None


def parse_provider_message(content: bytes) -> Json:
    """The value of a provider's message; None if it is no JSON."""
    try:
        return parse_json(content.decode("utf-8"))
    except ValueError:
        return None


def text_frame(text: str) -> bytes:
    """A message to the provider, in one frame."""
    return frame_bytes(Opcode.TEXT, text.encode(), mask=os.urandom(4))


def encode_frames(frames: list[Frame], content: bytes, *, masked: bool) -> bytes:
    """The frames, with ``content`` in place of their payloads, which have the same sizes."""
    encoded, at = bytearray(), 0
    for frame in frames:
        mask = os.urandom(4) if masked else None
        payload = content[at : at + frame.size]
        encoded += frame_bytes(frame.opcode, payload, mask=mask, fin=frame.fin)
        at += frame.size
    return bytes(encoded)
