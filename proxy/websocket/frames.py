"""WebSocket frames and messages, read from a copy of the bytes (RFC 6455 section 5, RFC 7692).

A session's bytes cross without anybody looking at them. This is for the two who have to look: the
inspector while somebody watches, and the farewell, which needs to know where a frame ends. Pure:
nothing is awaited, sent or answered. Memory and work are bounded, whatever the size of a frame or
message; what cannot be known any more is said to be so, never guessed.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

Kind = Literal["text", "binary", "ping", "pong", "close"]

_KINDS: dict[int, Kind] = {
    TEXT: "text",
    BINARY: "binary",
    PING: "ping",
    PONG: "pong",
    CLOSE: "close",
}
_FIN, _RSV1, _RSV_OTHERS, _CONTROL = 0x80, 0x40, 0x30, 0x08
_OPCODES = frozenset({CONTINUATION, *_KINDS})
# Longest payload of a control frame, and of a length in 7 bits.
_SHORT = 125
# RFC 7692 section 7.2.2: what the sender cut off the end of each compressed message.
_TAIL = b"\x00\x00\xff\xff"
# A message is inflated so far (bytes), most of it thrown away, to keep what later ones refer to.
# A few kilobytes can stand for many megabytes.
_MOST_INFLATED = 16 * 1024 * 1024
_STEP = 64 * 1024


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. ``payload`` is unmasked and may be only the beginning of its ``size`` bytes."""

    opcode: int
    fin: bool
    rsv1: bool
    payload: bytes
    size: int

    @property
    def control(self) -> bool:
        """Whether it is one of those that may come between the parts of a message."""
        return bool(self.opcode & _CONTROL)

    @property
    def truncated(self) -> bool:
        """Whether the payload was longer than what was kept of it."""
        return len(self.payload) < self.size


class FrameReader:
    """Cuts the bytes of one direction into frames.

    masked  whether they come from a client (RFC 6455 section 5.1)
    limit   so many bytes of each payload are kept, the rest is counted

    ``broken`` says why these bytes are no frames, "" while they are; nothing is read after that.
    Which frame may follow which is for ``MessageReader``: reading may begin at any frame.
    """

    __slots__ = ("_head", "_kept", "_left", "_limit", "_masked", "_size", "broken")

    def __init__(self, masked: bool, *, limit: int = 0) -> None:
        self._masked = masked
        self._limit = limit
        self._head = bytearray()
        self._kept = bytearray()
        self._size = -1  # of the payload under way; -1 while its head is not complete
        self._left = 0
        self.broken = ""

    @property
    def pending(self) -> int:
        """How many bytes have come of a frame that is not complete; 0 between two frames."""
        return len(self._head) + (self._size - self._left if self._size >= 0 else 0)

    @property
    def missing(self) -> int:
        """How many bytes of payload that frame still needs, as far as its head tells."""
        return self._left

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that these bytes complete."""
        frames: list[Frame] = []
        at = 0
        while at < len(data) and not self.broken:
            if self._size < 0:
                at = self._read_head(data, at)
            else:
                end = min(at + self._left, len(data))
                room = self._limit - len(self._kept)
                if room > 0:
                    self._kept += data[at : min(end, at + room)]
                self._left -= end - at
                at = end
            if self._size >= 0 and not self._left:
                frames.append(self._end())
        return frames

    def _read_head(self, data: bytes, at: int) -> int:
        """Take from ``data`` what the head needs; where the rest begins."""
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
        """What is wrong with a frame's first two bytes."""
        first, second = self._head
        opcode = first & 0x0F
        if first & _RSV_OTHERS or opcode not in _OPCODES:
            return "reserved bits or an unknown opcode"
        if first & _RSV1 and opcode not in {TEXT, BINARY}:
            return "a compressed frame that cannot be one"
        if opcode & _CONTROL and (not first & _FIN or second & 0x7F > _SHORT):
            return "a control frame in parts or too long"
        if bool(second & 0x80) is not self._masked:
            return "a frame without mask" if self._masked else "a masked frame"
        return ""

    def _begin(self) -> None:
        """The head is complete: read the length. Only its shortest form is one."""
        length = self._head[1] & 0x7F
        if length <= _SHORT:
            self._size = self._left = length
            return
        size = int.from_bytes(self._head[2 : 4 if length == 126 else 10])
        if size <= _SHORT or (length == 127 and not 0xFFFF < size < 1 << 63):
            self.broken = "a length in the wrong form"
            return
        self._size = self._left = size

    def _end(self) -> Frame:
        first = self._head[0]
        payload = bytes(self._kept)
        if self._masked:
            payload = masked(payload, bytes(self._head[-4:]))
        frame = Frame(first & 0x0F, bool(first & _FIN), bool(first & _RSV1), payload, self._size)
        self._head.clear()
        self._kept.clear()
        self._size = -1
        return frame


@dataclass(frozen=True, slots=True)
class Deflate:
    """What was agreed on compression. Windows of any size are read the same way."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False


def agreed(answer: str) -> Deflate | None:
    """The compression that a provider's ``Sec-WebSocket-Extensions`` agrees to, None for none.

    RFC 7692 section 7.1. ``answer`` is the field's value, those of several fields joined by commas.
    """
    for extension in answer.split(","):
        name, *parameters = (part.strip().lower() for part in extension.split(";"))
        if name == "permessage-deflate":
            return Deflate(
                "server_no_context_takeover" in parameters,
                "client_no_context_takeover" in parameters,
            )
    return None


@dataclass(frozen=True, slots=True)
class Message:
    """One message, or one control frame.

    data        content, inflated; no more than the reader's limit
    size        of the whole content in bytes, as far as it was looked at
    wire        bytes of payload that it took
    unreadable  it is compressed, and an earlier message that it may refer to was not read whole, or
                it is itself no valid compressed data: there is no content to show
    """

    kind: Kind
    data: bytes
    size: int
    wire: int
    unreadable: bool = False

    @property
    def truncated(self) -> bool:
        """Whether ``data`` is only the beginning, or nothing, of the content."""
        return len(self.data) < self.size


class MessageReader:
    """Puts the frames of one direction together to messages.

    masked   whether they come from a client
    limit    so many bytes of each message are kept, before and after it is inflated
    deflate  what the handshake agreed on

    ``broken`` says why these bytes are no WebSocket messages, "" while they are.
    """

    __slots__ = ("_begun", "_frames", "_inflater", "_limit", "_order", "_payload", "_wire")

    def __init__(self, masked: bool, *, limit: int, deflate: Deflate | None = None) -> None:
        self._frames = FrameReader(masked, limit=limit)
        self._limit = limit
        self._inflater: _Inflater | None = None
        if deflate is not None:
            forgets = (
                deflate.client_no_context_takeover if masked else deflate.server_no_context_takeover
            )
            self._inflater = _Inflater(limit, forgets=forgets)
        self._begun: Frame | None = None
        self._payload = bytearray()
        self._wire = 0
        self._order = ""

    @property
    def broken(self) -> str:
        return self._order or self._frames.broken

    def feed(self, data: bytes) -> list[Message]:
        """The messages that these bytes complete."""
        messages: list[Message] = []
        if self._order:
            return messages
        for frame in self._frames.feed(data):
            if frame.control:
                kind = _KINDS[frame.opcode]
                messages.append(Message(kind, frame.payload, frame.size, frame.size))
                continue
            self._order = self._fault(frame)
            if self._order:
                break
            if self._begun is None:
                self._begun = frame
            self._payload += frame.payload[: self._limit - len(self._payload)]
            self._wire += frame.size
            if frame.fin:
                messages.append(self._end(self._begun))
        return messages

    def _fault(self, frame: Frame) -> str:
        if (frame.opcode == CONTINUATION) is (self._begun is None):
            return "the parts of messages in the wrong order"
        if frame.rsv1 and self._inflater is None:
            return "compression that was not agreed on"
        return ""

    def _end(self, first: Frame) -> Message:
        payload, wire = bytes(self._payload), self._wire
        self._begun = None
        self._payload.clear()
        self._wire = 0
        kind = _KINDS[first.opcode]
        if not first.rsv1:
            return Message(kind, payload, wire, wire)
        assert self._inflater is not None
        content = self._inflater.inflate(payload, whole=len(payload) == wire)
        if content is None:
            return Message(kind, b"", wire, wire, unreadable=True)
        data, size = content
        return Message(kind, data, size, wire)


class _Inflater:
    """Inflates the messages of one direction.

    ``forgets``: each message stands for itself (no context takeover); else each may refer to those
    before, and one that was not read whole is the last that can be.
    """

    __slots__ = ("_forgets", "_limit", "_lost", "_zlib")

    def __init__(self, limit: int, *, forgets: bool) -> None:
        self._limit = limit
        self._forgets = forgets
        self._lost = False
        # A window of 15 bits reads what any smaller one has written.
        self._zlib = zlib.decompressobj(-15)

    def inflate(self, payload: bytes, *, whole: bool) -> tuple[bytes, int] | None:
        """The beginning of the content and the size of all of it; None if it cannot be told.

        Of a payload that is not ``whole`` what is there is inflated. The size is then what came of
        it and one more: it is longer than can be told.
        """
        if self._lost:
            return None
        if self._forgets:
            self._zlib = zlib.decompressobj(-15)
        kept, size = bytearray(), 0
        rest = payload + _TAIL if whole else payload
        ended = False
        try:
            while not ended and size < _MOST_INFLATED:
                piece = self._zlib.decompress(rest, _STEP)
                kept += piece[: self._limit - len(kept)]
                size += len(piece)
                rest = self._zlib.unconsumed_tail
                # A full piece may be followed by more even if all input is taken.
                ended = self._zlib.eof or not (rest or len(piece) == _STEP)
        except zlib.error:
            self._lost = not self._forgets
            return None
        if not (whole and ended):
            self._lost = not self._forgets
            return bytes(kept), size + 1
        # The last block may say that it is the last (RFC 7692 section 7.2.3.4); zlib then stops.
        self._lost = self._zlib.eof and not self._forgets
        return bytes(kept), size


def close_frame(code: int, *, mask: bytes | None) -> bytes:
    """A Close frame (RFC 6455 section 5.5.1). A client's has a ``mask`` of four random bytes."""
    payload = code.to_bytes(2)
    if mask is None:
        return b"\x88\x02" + payload
    return b"\x88\x82" + mask + masked(payload, mask)


def masked(payload: bytes, mask: bytes) -> bytes:
    """RFC 6455 section 5.3; masking and unmasking are the same."""
    size = len(payload)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(size)
