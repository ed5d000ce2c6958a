"""Frames found again in the middle of a stream."""

from __future__ import annotations

import base64
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from proxy.websocket.frame_sync import FrameSync

payloads = st.one_of(st.binary(min_size=1, max_size=300), st.integers(1, 70_000).map(bytes))
messages = st.builds(Frame, st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.PING]), payloads)


def written(frame: Frame, *, mask: bool) -> bytes:
    if frame.opcode is Opcode.PING:
        frame = Frame(Opcode.PING, frame.data[:125])
    return bytes(frame.serialize(mask=mask))


@given(st.lists(messages, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_a_read_of_whole_frames(sent: list[Frame], mask: bool, paused: bool) -> None:
    """A read that is nothing but whole frames has a border at its end, whenever it comes."""
    frame_sync = FrameSync(mask)
    frames = frame_sync.read(b"".join(written(one, mask=mask) for one in sent), paused=paused)
    assert frames is not None
    assert [int(one.opcode) for one in frames] == [int(one.opcode) for one in sent]
    assert frame_sync.known
    assert frame_sync.pending == 0


@given(messages, st.booleans(), st.data())
def test_the_beginning_of_a_frame(sent: Frame, mask: bool, data: st.DataObject) -> None:
    """A read that begins a frame is one behind a pause only, and then followed to its end."""
    whole = written(sent, mask=mask)
    size = data.draw(st.integers(1, len(whole) - 1))
    assert FrameSync(mask).read(whole[:size], paused=False) is None
    frame_sync = FrameSync(mask)
    assert frame_sync.read(whole[:size], paused=True) == []
    assert frame_sync.pending == size
    ended = frame_sync.read(whole[size:] + whole[:1], paused=False)
    assert ended is not None
    assert len(ended) == 1
    assert frame_sync.pending == 1


def test_silence() -> None:
    """After silence the next byte begins a frame, whatever it is part of; if it is not one after
    all, the border is looked for again.
    """
    frame_sync = FrameSync(False)
    frame_sync.silence()
    assert frame_sync.read(b"\x00\x7e", paused=False) == []
    assert frame_sync.pending == 2
    frame_sync.silence()
    assert frame_sync.read(b"{", paused=True) == []
    assert frame_sync.read(b'"', paused=True) is None
    assert frame_sync.pending == 0
    assert frame_sync.read(b"\x81\x01x", paused=False) is not None


SPEECH = b"".join(
    (place * place % 2001 - 1000).to_bytes(2, "little", signed=True) for place in range(50_000)
)
CONTENTS = {
    "silence": bytes(100_000),
    "quiet": b"\x01\x00" * 50_000,
    "empty messages": b"\x81\x00" * 50_000,
    "silence, 8 bits": b"\x80" * 100_000,
    "silence, mu-law": b"\xff" * 100_000,
    "silence, A-law": b"\xd5" * 100_000,
    "speech": SPEECH,
    "base64": base64.b64encode(SPEECH),
    "json": json.dumps(
        {"audio": base64.b64encode(SPEECH).decode(), "is": list(range(999))}
    ).encode(),
}


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("name", CONTENTS)
def test_content_is_not_taken_for_frames(name: str, paused: bool) -> None:
    """The middle of a large frame is not a border, whichever byte a read begins with."""
    content = CONTENTS[name]
    for at in range(2000):
        assert FrameSync(False).read(content[at : at + 16_384], paused=paused) is None


@pytest.mark.parametrize("mask", [False, True])
def test_random_content(mask: bool) -> None:
    """Compressed or masked content may be anything: behind a pause it is mistaken rarely, and else
    practically never.
    """
    content = random.Random(1).randbytes(40_000)
    reads = [content[at : at + 4096] for at in range(30_000)]
    mistaken = [
        sum(FrameSync(mask).read(read, paused=paused) is not None for read in reads)
        for paused in (True, False)
    ]
    assert mistaken[0] <= len(reads) / 1000
    assert mistaken[1] == 0
