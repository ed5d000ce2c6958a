"""Assemble WebSocket messages from frames, and decompress them (RFC 7692).

For the inspector. Memory and time for a message are bounded for any input.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

from proxy.websocket.frames import Frame, FrameReader, Opcode

Kind = Literal["text", "binary", "ping", "pong", "close"]

_KINDS: dict[Opcode, Kind] = {
    Opcode.TEXT: "text",
    Opcode.BINARY: "binary",
    Opcode.PING: "ping",
    Opcode.PONG: "pong",
    Opcode.CLOSE: "close",
}
# RFC 7692 section 7.2.2: the bytes that the sender removes from the end of a compressed message.
_TAIL = b"\x00\x00\xff\xff"
# A message is inflated up to this size (bytes), most of it discarded, to maintain the context of
# later messages. A few kilobytes can expand to many megabytes.
_MOST_INFLATED = 16 * 1024 * 1024
_STEP = 64 * 1024


@dataclass(frozen=True, slots=True)
class Deflate:
    """Negotiated compression parameters. The window size does not matter for decompression."""

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False


def negotiated_deflate(extensions: str) -> Deflate | None:
    """The compression that a provider's ``Sec-WebSocket-Extensions`` accepts, None for none.

    RFC 7692 section 7.1. ``extensions`` is the field value, several fields joined by commas.
    """
    for extension in extensions.split(","):
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

    data        content, decompressed; at most the reader's limit
    size        of the whole content in bytes, as far as it was decompressed
    wire        bytes of payload on the connection
    unreadable  content is unavailable: the message is compressed, and either malformed or dependent
                on an earlier message that was not decompressed completely
    """

    kind: Kind
    data: bytes
    size: int
    wire: int
    unreadable: bool = False

    @property
    def truncated(self) -> bool:
        """Whether ``data`` is shorter than the content."""
        return len(self.data) < self.size


class MessageReader:
    """Assembles the frames of one direction into messages.

    masked   whether they are a client's
    limit    bytes of each message that are kept, before and after decompression
    deflate  the negotiated compression

    ``broken`` is the reason why the bytes are no WebSocket messages, "" while they are.
    """

    __slots__ = ("_begun", "_frames", "_inflater", "_limit", "_order", "_payload", "_wire")

    def __init__(self, masked: bool, *, limit: int, deflate: Deflate | None = None) -> None:
        self._frames = FrameReader(masked, limit=limit)
        self._limit = limit
        self._inflater: _Inflater | None = None
        if deflate is not None:
            no_takeover = (
                deflate.client_no_context_takeover if masked else deflate.server_no_context_takeover
            )
            self._inflater = _Inflater(limit, no_takeover=no_takeover)
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
        if (frame.opcode is Opcode.CONTINUATION) is (self._begun is None):
            return "fragments of messages in the wrong order"
        if frame.rsv1 and self._inflater is None:
            return "compression that was not negotiated"
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
    """Decompresses the messages of one direction.

    ``no_takeover``: each message is independent (no context takeover); otherwise each may refer to
    earlier ones, and after an incomplete one no further message can be decompressed.
    """

    __slots__ = ("_context_lost", "_limit", "_no_takeover", "_zlib")

    def __init__(self, limit: int, *, no_takeover: bool) -> None:
        self._limit = limit
        self._no_takeover = no_takeover
        self._context_lost = False
        # A window of 15 bits decompresses data of any smaller window.
        self._zlib = zlib.decompressobj(-15)

    def inflate(self, payload: bytes, *, whole: bool) -> tuple[bytes, int] | None:
        """The beginning of the content and its size; None if it cannot be decompressed.

        Of a payload that is not ``whole`` the available part is decompressed. The size is then that
        of the result plus one, because the actual size is unknown and larger.
        """
        if self._context_lost:
            return None
        if self._no_takeover:
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
                # After a full piece zlib may have more output although all input is consumed.
                ended = self._zlib.eof or not (rest or len(piece) == _STEP)
        except zlib.error:
            self._context_lost = not self._no_takeover
            return None
        if not (whole and ended):
            self._context_lost = not self._no_takeover
            return bytes(kept), size + 1
        # The last block may be marked as final (RFC 7692 section 7.2.3.4); zlib then stops.
        self._context_lost = self._zlib.eof and not self._no_takeover
        return bytes(kept), size
