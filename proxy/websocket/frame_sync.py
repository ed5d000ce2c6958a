"""Resynchronise to frame boundaries in an unparsed WebSocket byte stream.

Reads have any size, and none of them need begin with a frame. A boundary is found when a read
parses as frames, or after a time without data in which no frame can be in progress.
"""

from __future__ import annotations

from proxy.websocket.frames import Frame, FrameReader, Opcode

# A read is parsed in pieces of this size (bytes), so that most non-frames are rejected early.
_PROBE = 1024
# A larger frame (bytes) is content that resembles a frame header.
_MAX_FRAME = 1 << 30


class FrameSync:
    """Parses the frames of one direction from the first boundary that it finds.

    masked  whether the frames are a client's
    """

    __slots__ = ("_masked", "_reader")

    def __init__(self, masked: bool) -> None:
        self._masked = masked
        self._reader: FrameReader | None = None

    @property
    def known(self) -> bool:
        """Whether a frame boundary is known."""
        return self._reader is not None

    @property
    def pending(self) -> int:
        """Number of bytes since the last boundary, 0 if none is known."""
        return 0 if self._reader is None else self._reader.pending

    def silence(self) -> None:
        """Assume a boundary before the next byte, after enough time without data."""
        self._reader = FrameReader(self._masked)

    def read(self, data: bytes, *, paused: bool) -> list[Frame] | None:
        """The frames that end in these bytes, of which there is at least one.

        None while no boundary is known. ``paused``: the bytes arrived after a short pause, which
        hints at a boundary.
        """
        if self._reader is None:
            return self._seek(data, paused=paused)
        frames = self._reader.feed(data)
        if not self._reader.broken:
            return frames
        # The assumed boundary was wrong.
        self._reader = None
        return None

    def _seek(self, data: bytes, *, paused: bool) -> list[Frame] | None:
        """The frames of a read that begins with a frame, else None.

        Such a read consists of valid frames only, and either ends with one too or arrived after a
        pause. Of reads of random content, one in thousands is accepted wrongly.
        """
        reader = FrameReader(self._masked)
        frames: list[Frame] = []
        if data[0] & 0x0F == Opcode.CONTINUATION:
            return None
        for at in range(0, len(data), _PROBE):
            found = reader.feed(data[at : at + _PROBE])
            # Digital silence, all zeros, parses as empty continuation frames.
            if reader.broken or not all(
                one.control or (one.size and one.opcode is not Opcode.CONTINUATION) for one in found
            ):
                return None
            frames += found
        if reader.pending and (not paused or reader.missing > _MAX_FRAME):
            return None
        self._reader = reader
        return frames
