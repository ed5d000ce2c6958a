"""Parse WebSocket frames (RFC 6455 section 5, RFC 7692).

The relay forwards bytes without parsing them. Three components parse: the inspector while it has
subscribers, the graceful close, which needs frame boundaries, and the first messages of a session
whose credential is in one of them. Pure, without I/O. Memory and work are bounded for any size of a
frame or message; unavailable content is reported as such.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Opcode(enum.IntEnum):
    """Type of a frame (RFC 6455 section 11.8)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(enum.IntEnum):
    """Status codes of a Close frame that the proxy sends (RFC 6455 section 7.4.1)."""

    GOING_AWAY = 1001
    """The endpoint is going away, as at a shutdown."""
    POLICY_VIOLATION = 1008
    """The client's messages have no place for the credential."""
    INTERNAL_ERROR = 1011
    """The provider's messages prevent that the credential is placed."""


_FIN, _RSV1, _RSV_OTHERS, _CONTROL = 0x80, 0x40, 0x30, 0x08
_OPCODES = {int(opcode): opcode for opcode in Opcode}
# Longest payload of a control frame, and of a length in 7 bits.
_SHORT = 125
# Longest reason of a Close frame, behind its code.
_LONGEST_REASON = _SHORT - 2


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. ``payload`` is unmasked and may be a prefix of its ``size`` bytes."""

    opcode: Opcode
    fin: bool
    rsv1: bool
    payload: bytes
    size: int

    @property
    def control(self) -> bool:
        """Whether it is a control frame, which may occur between the fragments of a message."""
        return bool(self.opcode & _CONTROL)

    @property
    def truncated(self) -> bool:
        """Whether ``payload`` is shorter than the frame's payload."""
        return len(self.payload) < self.size


class FrameReader:
    """Splits the bytes of one direction into frames.

    masked  whether they are a client's (RFC 6455 section 5.1)
    limit   bytes of each payload that are kept; the rest is counted

    ``broken`` is the reason why the bytes are invalid, "" while they are valid; parsing stops at an
    error. The order of frames is checked by ``MessageReader``: parsing may begin at any frame.
    """

    __slots__ = ("_head", "_kept", "_left", "_masked", "_size", "broken", "limit")

    def __init__(self, masked: bool, *, limit: int = 0) -> None:
        self._masked = masked
        self.limit = limit
        self._head = bytearray()
        self._kept = bytearray()
        self._size = -1  # of the current payload; -1 while its header is incomplete
        self._left = 0
        self.broken = ""

    @property
    def pending(self) -> int:
        """Number of bytes of an incomplete frame so far; 0 between two frames."""
        return len(self._head) + (self._size - self._left if self._size >= 0 else 0)

    @property
    def missing(self) -> int:
        """Number of payload bytes that the frame still needs, according to its header."""
        return self._left

    @property
    def begun(self) -> tuple[Opcode, int] | None:
        """Opcode and payload size of an incomplete frame; None while its header is incomplete."""
        return None if self._size < 0 else (_OPCODES[self._head[0] & 0x0F], self._size)

    @property
    def unfinished(self) -> bytes:
        """The bytes of an incomplete frame as received, if its payload is within the limit."""
        return bytes(self._head + self._kept)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete."""
        frames: list[Frame] = []
        at = 0
        while at < len(data):
            frame, at = self.feed_one(data, at)
            if frame is None:
                break
            frames.append(frame)
        return frames

    def feed_one(self, data: bytes, at: int) -> tuple[Frame | None, int]:
        """The first frame that the bytes from ``at`` complete, and the position behind it.

        None without one: all bytes are consumed, or they are invalid.
        """
        while at < len(data) and not self.broken:
            if self._size < 0:
                at = self._read_head(data, at)
            else:
                end = min(at + self._left, len(data))
                room = self.limit - len(self._kept)
                if room > 0:
                    self._kept += data[at : min(end, at + room)]
                self._left -= end - at
                at = end
            if self._size >= 0 and not self._left:
                return self._end(), at
        return None, at

    def _read_head(self, data: bytes, at: int) -> int:
        """Consume the bytes of the header from ``data``; the position behind them."""
        head = self._head
        wanted = 2 if len(head) < 2 else self._head_size()
        end = at + wanted - len(head)
        head += data[at:end]
        if len(head) >= wanted:
            if wanted == 2:
                self.broken = self._fault()
            if not self.broken and len(head) == self._head_size():
                self._begin()
        return min(end, len(data))

    def _head_size(self) -> int:
        length = self._head[1] & 0x7F
        return 2 + {126: 2, 127: 8}.get(length, 0) + (4 if self._masked else 0)

    def _fault(self) -> str:
        """The error in a frame's first two bytes, "" if there is none."""
        first, second = self._head
        opcode = first & 0x0F
        if first & _RSV_OTHERS or opcode not in _OPCODES:
            return "reserved bits or an unknown opcode"
        if first & _RSV1 and opcode not in {Opcode.TEXT, Opcode.BINARY}:
            return "compression of a control or continuation frame"
        if opcode & _CONTROL and (not first & _FIN or second & 0x7F > _SHORT):
            return "a fragmented or too long control frame"
        if bool(second & 0x80) is not self._masked:
            return "an unmasked frame" if self._masked else "a masked frame"
        return ""

    def _begin(self) -> None:
        """Decode the length of a complete header. Only its shortest encoding is valid."""
        length = self._head[1] & 0x7F
        if length <= _SHORT:
            self._size = self._left = length
            return
        size = int.from_bytes(self._head[2 : 4 if length == 126 else 10])
        if size <= _SHORT or (length == 127 and not 0xFFFF < size < 1 << 63):
            self.broken = "a length not in its shortest encoding"
            return
        self._size = self._left = size

    def _end(self) -> Frame:
        first = self._head[0]
        payload = bytes(self._kept)
        if self._masked:
            payload = masked(payload, bytes(self._head[-4:]))
        frame = Frame(
            _OPCODES[first & 0x0F], bool(first & _FIN), bool(first & _RSV1), payload, self._size
        )
        self._head.clear()
        self._kept.clear()
        self._size = -1
        return frame


def frame_bytes(opcode: Opcode, payload: bytes, *, mask: bytes | None, fin: bool = True) -> bytes:
    """A frame with its payload. A client's needs a ``mask`` of four random bytes."""
    size = len(payload)
    first, flag = opcode | (_FIN if fin else 0), 0 if mask is None else 0x80
    if size <= _SHORT:
        head = bytes((first, flag | size))
    elif size <= 0xFFFF:
        head = bytes((first, flag | 126)) + size.to_bytes(2)
    else:
        head = bytes((first, flag | 127)) + size.to_bytes(8)
    return head + payload if mask is None else head + mask + masked(payload, mask)


def close_frame(code: CloseCode, *, mask: bytes | None, reason: str = "") -> bytes:
    """A Close frame (RFC 6455 section 5.5.1). A client's needs a ``mask`` of four random bytes.

    ``reason`` is ASCII, and cut to the size that a control frame allows.
    """
    text = reason.encode("ascii")[:_LONGEST_REASON]
    return frame_bytes(Opcode.CLOSE, code.to_bytes(2) + text, mask=mask)


def masked(payload: bytes, mask: bytes) -> bytes:
    """Mask or unmask ``payload``, which is the same operation (RFC 6455 section 5.3)."""
    size = len(payload)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(size)
