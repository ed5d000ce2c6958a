"""Log output: in order, never blocking, bounded, with what was dropped counted."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from proxy.process.output import OutputWriter


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe: the end to read, the end to write."""
    reader, writer = os.pipe()
    yield reader, writer
    for one in (reader, writer):
        with suppress(OSError):
            os.close(one)


def read_all(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(descriptor, 65536)
    return data


def test_lines_arrive_in_order(pipe: tuple[int, int]) -> None:
    """Everything that is written arrives, in the order of the calls."""
    output = OutputWriter(pipe[1])
    lines = [f"line {number}\n" for number in range(1000)]
    for line in lines:
        output.write(line)
    assert output.close(30)
    assert read_all(pipe[0], len("".join(lines))).decode() == "".join(lines)


def test_a_reader_that_stops_does_not_block(pipe: tuple[int, int]) -> None:
    """A full pipe: the calls return, the buffer is bounded, what is dropped is counted and reported
    once the reader reads again.
    """
    reported: list[int] = []
    told = threading.Event()

    def report(count: int) -> None:
        reported.append(count)
        told.set()

    output = OutputWriter(pipe[1], limit_bytes=10_000, on_dropped=report)
    line = "x" * 99 + "\n"
    # More than a pipe (64 KiB) and the buffer hold.
    output.write(line * 700)
    for _ in range(500):
        output.write(line)
    assert output.dropped > 0
    assert not output.close(0.1)
    kept = 700 + 500 - output.dropped
    assert read_all(pipe[0], kept * 100) == line.encode() * kept
    assert told.wait(30)
    assert reported == [output.dropped]
    assert output.close(30)


def test_a_reader_that_leaves_is_reported_once(pipe: tuple[int, int]) -> None:
    """After ``| head`` further lines are discarded, and nothing raises."""
    left = threading.Event()
    output = OutputWriter(pipe[1], on_broken=left.set)
    os.close(pipe[0])
    output.write("nobody reads this\n")
    assert left.wait(30)
    output.write("nor this\n")
    assert output.close(30)


def test_closing_is_bounded(pipe: tuple[int, int]) -> None:
    """A reader that never reads delays the end by no more than the time given."""
    output = OutputWriter(pipe[1])
    output.write("x" * 200_000 + "\n")
    before = time.monotonic()
    assert not output.close(0.05)
    assert time.monotonic() - before < 20
