"""Frames marked as compressed, and bytes in pieces as a connection might read them."""

from __future__ import annotations

from itertools import pairwise


def cut(data: bytes, frame_sync: list[int]) -> list[bytes]:
    """The same bytes in pieces, as they might be read."""
    places = sorted({0, len(data), *(border % (len(data) + 1) for border in frame_sync)})
    return [data[begin:end] for begin, end in pairwise(places)]


def compressed(frame: bytes) -> bytes:
    """The same frame, marked as a compressed one, which the library does not do unasked."""
    return bytes([frame[0] | 0x40]) + frame[1:]
