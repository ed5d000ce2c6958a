"""Where frames begin in bytes of which nobody has kept track.

The bytes of a WebSocket cross in reads of any size. Which of them begins a frame is not known until
a read is convincing, or nothing has come for so long that no frame can be under way.
"""

from __future__ import annotations

from proxy.websocket.frames import CONTINUATION, Frame, FrameReader

# A read is looked through in pieces of so many bytes, so that most of what is not frames is given
# up at once.
_PROBE = 1024
# A frame of more than so many bytes is not one, but content that looks like its head.
_LARGEST = 1 << 30


class FrameSync:
    """Follows the frames of one direction from the first border that it finds.

    masked  whether they come from a client
    """

    __slots__ = ("_masked", "_reader")

    def __init__(self, masked: bool) -> None:
        self._masked = masked
        self._reader: FrameReader | None = None

    @property
    def known(self) -> bool:
        """Whether it is known where a frame begins."""
        return self._reader is not None

    @property
    def pending(self) -> int:
        """How many bytes have come since the last border, if one is known."""
        return 0 if self._reader is None else self._reader.pending

    def silence(self) -> None:
        """Nothing has come for long enough: the next byte begins a frame."""
        self._reader = FrameReader(self._masked)

    def read(self, data: bytes, *, paused: bool) -> list[Frame] | None:
        """The frames that end in these bytes, of which there is at least one; None while no border
        is known. ``paused`` says that they came behind a short silence, which is a hint.
        """
        if self._reader is None:
            return self._seek(data, paused=paused)
        frames = self._reader.feed(data)
        if not self._reader.broken:
            return frames
        # What looked like a border was none.
        self._reader = None
        return None

    def _seek(self, data: bytes, *, paused: bool) -> list[Frame] | None:
        """The same if this read begins with a frame: it holds nothing that cannot be frames, and
        either ends with one too or came behind a pause. Of reads that begin with any byte of random
        content one in thousands is mistaken for such.
        """
        reader = FrameReader(self._masked)
        frames: list[Frame] = []
        if data[0] & 0x0F == CONTINUATION:
            return None
        for at in range(0, len(data), _PROBE):
            found = reader.feed(data[at : at + _PROBE])
            # Recorded silence, all zeros, can be read as empty parts of a message.
            if reader.broken or not all(
                one.control or (one.size and one.opcode != CONTINUATION) for one in found
            ):
                return None
            frames += found
        if reader.pending and (not paused or reader.missing > _LARGEST):
            return None
        self._reader = reader
        return frames
