"""Frames out of bytes. Another implementation, websockets, writes what is read here."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close
from websockets.frames import Frame as Foreign
from websockets.frames import Opcode as ForeignOpcode

from proxy.websocket.frames import CloseCode, Frame, FrameReader, Opcode, close_frame, masked
from tests.support.frames import compressed, cut

CONTROL = [ForeignOpcode.CLOSE, ForeignOpcode.PING, ForeignOpcode.PONG]
DATA = [ForeignOpcode.CONT, ForeignOpcode.TEXT, ForeignOpcode.BINARY]

payloads = st.one_of(st.binary(max_size=200), st.integers(0, 70_000).map(bytes))
frames = st.one_of(
    st.builds(Foreign, st.sampled_from(CONTROL), st.binary(max_size=125)),
    st.builds(Foreign, st.sampled_from(DATA), payloads, fin=st.booleans()),
    st.builds(Foreign, st.sampled_from(DATA[1:]), payloads, fin=st.booleans(), rsv1=st.just(True)),
)


def written(frame: Foreign, *, mask: bool) -> bytes:
    data = bytes(replace(frame, rsv1=False).serialize(mask=mask))
    return compressed(data) if frame.rsv1 else data


@given(st.lists(frames, max_size=5), st.lists(st.integers(0)), st.booleans(), st.integers(0, 300))
def test_frames_come_out_as_they_went_in(
    sent: list[Foreign], frame_sync: list[int], mask: bool, limit: int
) -> None:
    """Whatever the reads, each frame comes once, in order, with as much payload as is kept."""
    reader = FrameReader(mask, limit=limit)
    pieces = cut(b"".join(written(one, mask=mask) for one in sent), frame_sync)
    got = [frame for piece in pieces for frame in reader.feed(piece)]
    assert got == [
        Frame(Opcode(one.opcode), one.fin, one.rsv1, bytes(one.data)[:limit], len(one.data))
        for one in sent
    ]
    assert [one.truncated for one in got] == [len(one.data) > limit for one in sent]
    assert reader.broken == ""
    assert reader.pending == 0


@given(frames, st.booleans(), st.data())
def test_pending_counts_from_the_frame_boundary(
    sent: Foreign, mask: bool, data: st.DataObject
) -> None:
    """Amid a frame, ``pending`` is how long ago the last border was; complete, it is none."""
    reader = FrameReader(mask)
    whole = written(sent, mask=mask)
    size = data.draw(st.integers(0, len(whole)))
    before = reader.feed(written(Foreign(ForeignOpcode.PING, b"x"), mask=mask) + whole[:size])
    assert len(before) == (1 if size < len(whole) else 2)
    assert reader.pending == size % len(whole)


@given(st.binary(), st.booleans(), st.lists(st.integers(0), max_size=3))
def test_any_bytes_can_be_read(data: bytes, mask: bool, frame_sync: list[int]) -> None:
    """No bytes make it fail, and how they are read makes no difference."""
    at_once, in_pieces = FrameReader(mask, limit=9), FrameReader(mask, limit=9)
    frames = at_once.feed(data)
    assert frames == [one for piece in cut(data, frame_sync) for one in in_pieces.feed(piece)]
    assert at_once.broken == in_pieces.broken
    if at_once.broken:
        assert at_once.feed(written(Foreign(ForeignOpcode.PING, b""), mask=mask)) == []


@pytest.mark.parametrize(
    ("data", "mask", "why"),
    [
        (b"\x91\x00", False, "reserved"),
        (b"\xa1\x00", False, "reserved"),
        (b"\x83\x00", False, "reserved"),
        (b"\x8b\x00", False, "reserved"),
        (b"\xc0\x00", False, "compression"),
        (b"\xc9\x00", False, "compression"),
        (b"\x09\x00", False, "control"),
        (b"\x89\x7e", False, "control"),
        (b"\x81\x80", False, "masked"),
        (b"\x81\x00", True, "an unmasked frame"),
        (b"\x81\x7e\x00\x7d", False, "length"),
        (b"\x81\x7f" + (0xFFFF).to_bytes(8), False, "length"),
        (b"\x81\x7f" + (1 << 63).to_bytes(8), False, "length"),
        (b'{"text": "hello"}', False, "reserved"),
        (b"HTTP/1.1 200 OK\r\n", True, ""),
    ],
)
def test_what_is_no_frame(data: bytes, mask: bool, why: str) -> None:
    """Bytes that no WebSocket peer may send are recognised from their first ones."""
    reader = FrameReader(mask)
    assert reader.feed(data) == []
    assert why in reader.broken
    assert reader.broken


def test_a_large_frame_costs_no_memory() -> None:
    """Of a frame of 100 MB only the beginning is kept; the rest is counted."""
    size, piece = 100_000_000, bytes(100_000)
    reader = FrameReader(False, limit=1000)
    reader.feed(b"\x82\x7f" + size.to_bytes(8))
    tracemalloc.start()
    try:
        got = [frame for _ in range(size // len(piece)) for frame in reader.feed(piece)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert got == [Frame(Opcode.BINARY, True, False, bytes(1000), size)]
    assert peak < 100_000


@pytest.mark.parametrize("mask", [None, b"\x01\x02\x03\x04"])
def test_a_close_frame(mask: bytes | None) -> None:
    """What is written as a Close frame is one to others, with its code, masked or not."""
    (frame,) = FrameReader(mask is not None, limit=125).feed(
        close_frame(CloseCode.GOING_AWAY, mask=mask)
    )
    assert frame.opcode is Opcode.CLOSE
    assert Close.parse(frame.payload) == Close(1001, "")


@given(st.binary(max_size=100), st.binary(min_size=4, max_size=4))
def test_masking_twice_is_nothing(payload: bytes, mask: bytes) -> None:
    """As section 5.3 of RFC 6455 has it: octet by octet, the same both ways."""
    once = masked(payload, mask)
    assert list(once) == [byte ^ mask[place % 4] for place, byte in enumerate(payload)]
    assert masked(once, mask) == payload
