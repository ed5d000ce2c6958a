"""Incremental decoders for the content codings of a response body that must be inspected.

A few compressed bytes can expand to gigabytes, so no decoder accumulates output: each yields pieces
of bounded size, lazily.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final, Protocol, final

try:
    import brotli  # type: ignore[import-untyped]
except ImportError:
    brotli = None

PIECE: Final = 65_536  # maximum size of a decoded piece in bytes

_GZIP = 16 + zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS


class Decoder(Protocol):
    """Decodes one body."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield decoded pieces of at most PIECE bytes. Exhaust the iterator before the next call.

        The iterator raises ValueError if ``data`` is malformed or continues after the end of the
        coded data. Pieces yielded before the error are valid.
        """

    def finish(self) -> None:
        """End the body. Raises ValueError if the coded data is incomplete.

        An empty body is complete: responses without content may have a Content-Encoding too.
        """


def decoder(content_encoding: str) -> Decoder | None:
    """A decoder for the value of ``Content-Encoding``; None for an unsupported coding.

    Supported are identity (also as an empty value), gzip, x-gzip, deflate and, with the package
    brotli 1.2 or later, br. More than one coding is unsupported.
    """
    codings = [coding.strip().lower() for coding in content_encoding.split(",") if coding.strip()]
    match codings:
        case [] | ["identity"]:
            return _Identity()
        case ["gzip" | "x-gzip"]:
            return _Gzip()
        case ["deflate"]:
            return _Deflate()
        # Earlier versions of brotli cannot bound the size of their output.
        case ["br"] if brotli is not None and hasattr(brotli.Decompressor, "can_accept_more_data"):
            return _Brotli()
    return None


@final
class _Identity:
    __slots__ = ()

    def feed(self, data: bytes) -> Iterator[bytes]:
        return _cut(data)

    def finish(self) -> None:
        return


@final
class _Gzip:
    """A sequence of gzip members (RFC 1952 section 2.2)."""

    __slots__ = ("_member",)

    def __init__(self) -> None:
        self._member: _Inflater | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data or self._member:
            self._member = self._member or _Inflater(_GZIP)
            yield from self._member.feed(data)
            if not self._member.ended:
                return
            data = self._member.rest
            self._member = None

    def finish(self) -> None:
        if self._member:
            raise ValueError("gzip data is incomplete")


@final
class _Deflate:
    """The zlib format (RFC 9110 section 8.4.1.2), or raw deflate data, which some servers send."""

    __slots__ = ("_stream",)

    def __init__(self) -> None:
        self._stream: _Inflater | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._stream is None:
            if not data:
                return
            # RFC 1950 section 2.2. Raw data begins like this only with padding, which no encoder
            # writes.
            wrapped = data[0] & 0x0F == 8
            self._stream = _Inflater(zlib.MAX_WBITS if wrapped else _RAW)
        yield from self._stream.feed(data)
        if self._stream.rest:
            raise ValueError("deflate data continues after its end")

    def finish(self) -> None:
        if self._stream and not self._stream.ended:
            raise ValueError("deflate data is incomplete")


@final
class _Inflater:
    """Decodes one zlib stream. ``rest`` holds the bytes after its end."""

    __slots__ = ("_engine", "ended", "rest")

    def __init__(self, window: int) -> None:
        self._engine = zlib.decompressobj(window)
        self.ended = False
        self.rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self.ended:
            self.rest += data
        while not self.ended:
            try:
                piece = self._engine.decompress(data, PIECE)
            except zlib.error:
                raise ValueError("compressed data is malformed") from None
            data = self._engine.unconsumed_tail
            self.ended = self._engine.eof
            self.rest = self._engine.unused_data
            if piece:
                yield piece
            # After a full piece zlib may have more output pending.
            if not data and len(piece) < PIECE:
                return


@final
class _Brotli:
    """RFC 7932."""

    __slots__ = ("_begun", "_engine")

    def __init__(self) -> None:
        self._engine = brotli.Decompressor()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._begun = self._begun or bool(data)
        while True:
            try:
                # The limit stops further allocation; the output may exceed it somewhat.
                pieces: bytes = self._engine.process(data, output_buffer_limit=PIECE)
            except brotli.error:
                raise ValueError("brotli data is malformed") from None
            yield from _cut(pieces)
            if not pieces:
                return
            data = b""

    def finish(self) -> None:
        if self._begun and not self._engine.is_finished():
            raise ValueError("brotli data is incomplete")


def _cut(data: bytes) -> Iterator[bytes]:
    return (data[at : at + PIECE] for at in range(0, len(data), PIECE))
