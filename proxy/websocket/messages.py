"""WebSocket messages: fragments put together, and compressed ones (RFC 7692) unfolded.

For the inspector. Bounded: whatever comes, a message takes a limited amount of memory and time.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

from proxy.websocket.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, FrameReader

Kind = Literal["text", "binary", "ping", "pong", "close"]

_KINDS: dict[int, Kind] = {
    TEXT: "text",
    BINARY: "binary",
    PING: "ping",
    PONG: "pong",
    CLOSE: "close",
}
# RFC 7692 section 7.2.2: what the sender cut off the end of each compressed message.
_TAIL = b"\x00\x00\xff\xff"
# A message is inflated so far (bytes), most of it thrown away, to keep what later ones refer to.
# A few kilobytes can stand for many megabytes.
_MOST_INFLATED = 16 * 1024 * 1024
_STEP = 64 * 1024


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
