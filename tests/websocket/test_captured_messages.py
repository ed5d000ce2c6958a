"""Messages out of bytes, compressed ones too. Another implementation, websockets, writes them."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from proxy.websocket.captured_messages import Deflate, Message, MessageReader, negotiated_deflate
from tests.support.frames import compressed, cut

LIMIT = 10_000
MEBIBYTE = 1 << 20

# The same words again and again, so that messages refer to earlier ones.
texts = st.lists(st.sampled_from(["hello ", "world ", "audio", '{"type": "x"}', "ü"])).map("".join)
contents = st.one_of(texts, st.binary(max_size=100), st.integers(0, 300).map(bytes))


class Sender:
    """One end of a session, which writes with the library's own compression."""

    def __init__(
        self, *, mask: bool, compressed: bool, forgets: bool = False, bits: int = 15
    ) -> None:
        self._mask = mask
        self._extensions = [PerMessageDeflate(False, forgets, 15, bits)] if compressed else []

    def message(self, content: str | bytes, parts: int = 1) -> bytes:
        data = content.encode() if isinstance(content, str) else content
        opcode = Opcode.TEXT if isinstance(content, str) else Opcode.BINARY
        step = len(data) // parts + 1
        pieces = [data[at : at + step] for at in range(0, step * parts, step)]
        written = b""
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            written += self.frame(Frame(opcode if not number else Opcode.CONT, piece, fin=last))
            if not last:
                # A control frame may come between.
                written += self.frame(Frame(Opcode.PING, b"between"))
        return written

    def frame(self, frame: Frame) -> bytes:
        return bytes(frame.serialize(mask=self._mask, extensions=self._extensions))


def kind(content: str | bytes) -> str:
    return "text" if isinstance(content, str) else "binary"


def of(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


@given(
    st.lists(st.tuples(contents, st.integers(1, 4)), max_size=6),
    st.lists(st.integers(0), max_size=8),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(9, 15),
)
def test_messages_come_out_as_they_went_in(
    sent: list[tuple[str | bytes, int]],
    frame_sync: list[int],
    mask: bool,
    deflated: bool,
    forgets: bool,
    bits: int,
) -> None:
    """Whatever the reads, fragments, windows and agreements: kind and content of every message."""
    sender = Sender(mask=mask, compressed=deflated, forgets=forgets, bits=bits)
    deflate = Deflate(
        client_no_context_takeover=forgets and mask,
        server_no_context_takeover=forgets and not mask,
    )
    reader = MessageReader(mask, limit=LIMIT, deflate=deflate if deflated else None)
    data = b"".join(sender.message(content, parts) for content, parts in sent)
    got = [one for piece in cut(data, frame_sync) for one in reader.feed(piece)]
    assert reader.broken == ""
    pings = [one for one in got if one.kind == "ping"]
    assert [one.data for one in pings] == [b"between"] * sum(parts - 1 for _, parts in sent)
    assert [(one.kind, one.data, one.size, one.truncated) for one in got if one not in pings] == [
        (kind(content), of(content), len(of(content)), False) for content, _ in sent
    ]


@given(st.binary(), st.booleans(), st.booleans())
def test_any_bytes_can_be_read(data: bytes, mask: bool, deflated: bool) -> None:
    """No bytes make it fail, not even as the content of a compressed message."""
    reader = MessageReader(mask, limit=9, deflate=Deflate() if deflated else None)
    reader.feed(data)
    sender = Sender(mask=mask, compressed=False)
    reader = MessageReader(mask, limit=9, deflate=Deflate())
    reader.feed(compressed(sender.frame(Frame(Opcode.TEXT, data))))
    assert reader.broken == ""


def test_control_frames() -> None:
    """Pings, pongs and the end are messages of their own, with what they hold."""
    sender = Sender(mask=False, compressed=True)
    reader = MessageReader(False, limit=LIMIT, deflate=Deflate())
    data = b"".join(
        sender.frame(Frame(opcode, b"\x03\xe8end"))
        for opcode in (Opcode.PING, Opcode.PONG, Opcode.CLOSE)
    )
    assert reader.feed(data) == [
        Message(kind, b"\x03\xe8end", 5, 5) for kind in ("ping", "pong", "close")
    ]


def test_a_long_message_is_kept_in_part() -> None:
    """Only the beginning is kept, in however many parts it came; its size is still known."""
    sender = Sender(mask=True, compressed=False)
    reader = MessageReader(True, limit=1000)
    content = bytes(range(256)) * 4096
    for parts in (1, 7, 3000):
        got = [one for one in reader.feed(sender.message(content, parts)) if one.kind == "binary"]
        assert got == [Message("binary", content[:1000], MEBIBYTE, MEBIBYTE)]
        assert got[0].truncated


def test_a_message_that_inflates_beyond_the_limit() -> None:
    """It is inflated on, to nowhere, so that its size is known and the next one can be read."""
    sender = Sender(mask=False, compressed=True)
    reader = MessageReader(False, limit=LIMIT, deflate=Deflate())
    (long,) = reader.feed(sender.message(bytes(MEBIBYTE)))
    assert (len(long.data), long.size, long.truncated) == (LIMIT, MEBIBYTE, True)
    assert long.wire < 2000
    (next_one,) = reader.feed(sender.message("hello"))
    assert (next_one.data, next_one.unreadable) == (b"hello", False)


@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize("how", ["wire", "bomb"])
def test_after_a_message_that_was_cut(how: str, forgets: bool) -> None:
    """What refers to a message that was not read whole cannot be read, and is said not to be; where
    messages stand for themselves, the next one can.
    """
    sender = Sender(mask=False, compressed=True, forgets=forgets)
    deflate = Deflate(server_no_context_takeover=forgets)
    reader = MessageReader(False, limit=20_000, deflate=deflate)
    if how == "wire":
        # Nothing to compress in it.
        content = b"".join(zlib.crc32(b"%d" % number).to_bytes(4) for number in range(10_000))
    else:
        content = bytes(20 * MEBIBYTE)
    (long,) = reader.feed(sender.message(content))
    assert long.truncated
    assert not long.unreadable
    assert long.data == content[: len(long.data)]
    assert len(long.data) > 10_000
    (next_one,) = reader.feed(sender.message("hello hello"))
    assert next_one.unreadable is not forgets
    assert next_one.truncated is not forgets
    assert next_one.data == (b"hello hello" if forgets else b"")
    # What is not compressed can always be read.
    plain = Sender(mask=False, compressed=False)
    (last,) = reader.feed(plain.message("plain"))
    assert last == Message("text", b"plain", 5, 5)


def test_a_last_block() -> None:
    """A sender may mark its block as the last one (RFC 7692 section 7.2.3.4)."""
    packer = zlib.compressobj(wbits=-15)
    payload = packer.compress(b"Hello") + packer.flush() + b"\x00"
    frame = compressed(Sender(mask=False, compressed=False).message(payload))
    for forgets in (True, False):
        deflate = Deflate(server_no_context_takeover=forgets)
        reader = MessageReader(False, limit=LIMIT, deflate=deflate)
        first, second = reader.feed(frame * 2)
        assert (first.data, first.size, first.truncated) == (b"Hello", 5, False)
        assert second.unreadable is not forgets


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x80\x00", "order"),
        (b"\x01\x00\x81\x00", "order"),
        (b"\xc1\x00", "compression"),
    ],
)
def test_what_are_no_messages(data: bytes, why: str) -> None:
    """Frames that do not follow one another, or are compressed unasked, end the reading."""
    sender = Sender(mask=False, compressed=False)
    reader = MessageReader(False, limit=LIMIT)
    assert reader.feed(sender.message("before") + data) == [Message("text", b"before", 6, 6)]
    assert why in reader.broken
    assert reader.feed(sender.message("after")) == []


@pytest.mark.parametrize(
    ("answer", "deflate"),
    [
        ("", None),
        ("x-other; a=b", None),
        ("permessage-deflate", Deflate()),
        ("Permessage-Deflate; server_max_window_bits=10", Deflate()),
        (
            'x-other, permessage-deflate;server_no_context_takeover; client_max_window_bits="12"',
            Deflate(server_no_context_takeover=True),
        ),
        (
            "permessage-deflate; client_no_context_takeover ;server_no_context_takeover",
            Deflate(server_no_context_takeover=True, client_no_context_takeover=True),
        ),
    ],
)
def test_what_was_agreed(answer: str, deflate: Deflate | None) -> None:
    """The provider's answer says whether there is compression, and whether messages refer back."""
    assert negotiated_deflate(answer) == deflate
