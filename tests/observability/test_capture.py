"""Reading along: messages and events as they are, masked, and never at the cost of the session."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from proxy.observability.capture import EventStreamCapture, WebSocketCapture
from tests.support.inspection import MASKER, frame
from tests.support.keyrelay import SECRET

MASK = b"\x01\x02\x03\x04"
Heard = list[tuple[str, str, str, int, bool]]


def taking_down() -> tuple[Heard, Callable[..., None]]:
    heard: Heard = []

    def say(sender: str, kind: str, text: str, size: int, *, cut: bool = False) -> None:
        heard.append((sender, kind, text, size, cut))

    return heard, say


def session(extensions: bytes = b"") -> tuple[Heard, WebSocketCapture]:
    heard, say = taking_down()
    return heard, WebSocketCapture(say, lambda _tap: None, extensions, MASKER)


def stream(coding: str = "") -> tuple[Heard, EventStreamCapture]:
    heard, say = taking_down()
    return heard, EventStreamCapture(say, lambda _stream: None, coding, MASKER)


def test_messages_both_ways() -> None:
    """Text, bytes and control frames, each with its sender and size."""
    heard, tap = session()
    tap.from_client(frame("héllo".encode(), mask=MASK))
    tap.from_provider(frame(bytes(range(100)), opcode=2))
    tap.from_provider(frame(b"p", opcode=9))
    tap.from_client(frame(b"p", opcode=10, mask=MASK))
    tap.from_provider(frame((4321).to_bytes(2) + b"enough", opcode=8))
    tap.from_client(frame(b"", opcode=8, mask=MASK))
    tap.ended()
    assert heard == [
        ("client", "text", "héllo", 6, False),
        ("provider", "binary", bytes(range(64)).hex(" "), 100, True),
        ("provider", "ping", "70", 1, False),
        ("client", "pong", "70", 1, False),
        ("provider", "close", "4321 enough", 8, False),
        ("client", "close", "no code", 0, False),
    ]


def test_secrets_in_messages_are_masked() -> None:
    """Whole, as base64, in pieces of fragments, in binary data, in a close's reason."""
    heard, tap = session()
    tap.from_client(frame(b'{"key": "%b"}' % SECRET, mask=MASK))
    first, rest = frame(b"say " + SECRET[:6]), frame(SECRET[6:], opcode=0)
    tap.from_provider(bytes([first[0] & 0x7F]) + first[1:])
    tap.from_provider(rest)
    tap.from_provider(frame(b"\0" + SECRET, opcode=2))
    tap.from_provider(frame((1008).to_bytes(2) + SECRET, opcode=8))
    stars = "*" * len(SECRET)
    assert [text for _, _, text, _, _ in heard] == [
        f'{{"key": "{stars}"}}',
        f"say {stars}",
        (b"\0" + b"*" * len(SECRET)).hex(" "),
        f"1008 {stars}",
    ]


def test_a_secret_at_the_end_of_what_is_read() -> None:
    """A message that is too long to be read is not cut within a secret."""
    for shown in range(1, len(SECRET)):
        heard, tap = session()
        tap.from_provider(frame(b"x" * (64 * 1024 - shown) + SECRET + b"y" * 9))
        (_, _, text, size, cut) = heard[0]
        assert set(text) == {"x"}
        assert size == 64 * 1024 - shown + len(SECRET) + 9
        assert cut


@given(some.lists(some.text(max_size=300), max_size=8), some.integers(1, 50), some.booleans())
@settings(max_examples=50, deadline=None)
def test_compressed_messages(texts: list[str], size: int, takeover: bool) -> None:
    """What another implementation compresses, cut anywhere, is told as it was."""
    heard, tap = session(
        b"permessage-deflate" + (b"" if takeover else b"; server_no_context_takeover")
    )
    deflate = PerMessageDeflate(not takeover, not takeover, 15, 15)
    data = b"".join(
        Frame(Opcode.TEXT, text.encode()).serialize(mask=False, extensions=[deflate])
        for text in texts
    )
    for at in range(0, len(data), size):
        tap.from_provider(data[at : at + size])
    assert [text for _, _, text, _, _ in heard] == texts


def test_what_cannot_be_read_any_more() -> None:
    """Bytes that are no frames end the reading of that side, which is said once."""
    heard, tap = session()
    tap.from_provider(b"\xff\xff\xff")
    tap.from_provider(frame(b"later"))
    tap.from_client(frame(b"still", mask=MASK))
    assert [(sender, kind) for sender, kind, _, _, _ in heard] == [
        ("keyrelay", "note"),
        ("client", "text"),
    ]
    assert "provider" in heard[0][2]


def test_nobody_watches_any_more() -> None:
    """Reading ends, with a note about it for later."""
    heard, tap = session()
    tap.stop()
    tap.stop()
    tap.from_client(frame(b"unheard", mask=MASK))
    assert [kind for _, kind, _, _, _ in heard] == ["note"]
    told, events = stream()
    events.stop()
    events.feed(b"data: unheard\n\n")
    events.ended()
    assert [kind for _, kind, _, _, _ in told] == ["note"]


@given(some.integers(1, 20), some.sampled_from(["\n\n", "\r\n\r\n", "\r\r"]))
@settings(deadline=None)
def test_events(size: int, between: str) -> None:
    """Each event by itself, wherever the reads cut it and however its lines end; the last one may
    lack its end."""
    line = between[: len(between) // 2]
    events = [f"event: tick{line}data: {number} ü" for number in range(4)]
    data = (between.join(events)).encode()
    heard, told = stream()
    for at in range(0, len(data), size):
        told.feed(data[at : at + size])
    told.ended()
    assert [text for _, _, text, _, _ in heard] == events
    assert {sender for sender, *_ in heard} == {"provider"}


@given(some.integers(1, 60))
@settings(deadline=None)
def test_secrets_in_events_are_masked(size: int) -> None:
    """However a secret is cut into reads."""
    data = b'data: {"key": "' + SECRET + b'"}\n\ndata: ' + SECRET.hex().encode() + b"\n\n"
    heard, told = stream()
    for at in range(0, len(data), size):
        told.feed(data[at : at + size])
    told.ended()
    stars = "*" * len(SECRET)
    assert [text for _, _, text, _, _ in heard] == [
        f'data: {{"key": "{stars}"}}',
        f"data: {stars}{stars}",
    ]


def test_compressed_events() -> None:
    """Events in a coding that can be undone are told; of others it is said why not."""
    heard, told = stream("gzip")
    told.feed(gzip.compress(b"data: one\n\n"))
    told.ended()
    assert [text for _, _, text, _, _ in heard] == ["data: one"]
    for coding, data in (("dcb", b"data: one\n\n"), ("gzip", b"\x1f\x8b no gzip")):
        heard, told = stream(coding)
        told.feed(data)
        told.feed(data)
        told.ended()
        assert [kind for _, kind, _, _, _ in heard] == ["note"]


def test_an_event_without_end() -> None:
    """It is counted, and no more than the beginning of it is kept."""
    heard, told = stream()
    for _ in range(40):
        told.feed(b"x" * 10_000)
    assert len(told._text) <= 64 * 1024 + 3
    told.feed(b"\n\ndata: next\n\n")
    told.ended()
    (_, _, text, size, cut), following = heard
    assert (len(text), size, cut) == (16 * 1024, 400_002, True)
    assert following[2] == "data: next"


def test_a_stream_that_unfolds_to_too_much() -> None:
    """A few bytes that stand for millions are not read on."""
    heard, told = stream("deflate")
    told.feed(zlib.compress(b"\n" * 20_000_000))
    assert [text for _, _, text, _, _ in heard] == ["The decompressed data is too large."]


@pytest.mark.parametrize("kind", ["session", "stream"])
def test_a_failure_within_harms_nobody(kind: str) -> None:
    """If a capture fails, the bytes go on: feeding it never raises."""
    heard: list[str] = []

    def say(sender: str, kind: str, text: str, size: int, *, cut: bool = False) -> None:
        if kind != "note":
            raise RuntimeError("dummy")
        heard.append(text)

    ear: Any
    if kind == "session":
        ear = WebSocketCapture(say, lambda _tap: None, b"", MASKER)
        for _ in range(2):
            ear.from_client(frame(b"a", mask=MASK))
    else:
        ear = EventStreamCapture(say, lambda _stream: None, "", MASKER)
        for _ in range(2):
            ear.feed(b"data: a\n\n")
    ear.ended()
    assert len(heard) == 1
    assert "RuntimeError" in heard[0]
