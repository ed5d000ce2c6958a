"""Content codings of an answer that has to be read, taken off piece by piece.

A few bytes can stand for gigabytes, so nothing here gathers: what comes out is handed over in
pieces of bounded size, and made only when it is asked for.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final, Protocol, final

try:
    import brotli  # type: ignore[import-untyped]
except ImportError:
    brotli = None

PIECE: Final = 65_536  # bytes of a piece at most

_GZIP = 16 + zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS


class Decoder(Protocol):
    """What undoes the coding of one body."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Pieces of at most PIECE bytes. They are to be taken before the next call.

        Raises ValueError, in the middle of it, when ``data`` is not what the coding promises or
        goes on after its end. What was handed over until then was right.
        """

    def finish(self) -> None:
        """Say that nothing follows. Raises ValueError if the body broke off before its end.

        A body of no bytes at all is whole: answers without content name a coding too.
        """


def decoder(content_encoding: str) -> Decoder | None:
    """A decoder for the value of ``Content-Encoding``; None for what cannot be decoded here.

    Known are identity (also as an empty value), gzip, x-gzip, deflate and, where the package
    brotli is 1.2 or later, br. Several codings on top of each other are not taken off.
    """
    codings = [coding.strip().lower() for coding in content_encoding.split(",") if coding.strip()]
    match codings:
        case [] | ["identity"]:
            return _Identity()
        case ["gzip" | "x-gzip"]:
            return _Gzip()
        case ["deflate"]:
            return _Deflate()
        # Earlier versions cannot bound what they give.
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
    """Members one after another (RFC 1952 section 2.2)."""

    __slots__ = ("_member",)

    def __init__(self) -> None:
        self._member: _Inflating | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data or self._member:
            self._member = self._member or _Inflating(_GZIP)
            yield from self._member.feed(data)
            if not self._member.ended:
                return
            data = self._member.rest
            self._member = None

    def finish(self) -> None:
        if self._member:
            raise ValueError("the gzip data breaks off")


@final
class _Deflate:
    """The zlib format (RFC 9110 section 8.4.1.2), or bare deflate data as some servers have it."""

    __slots__ = ("_stream",)

    def __init__(self) -> None:
        self._stream: _Inflating | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._stream is None:
            if not data:
                return
            # RFC 1950 section 2.2. Bare data can begin so only with padding that nobody writes.
            wrapped = data[0] & 0x0F == 8
            self._stream = _Inflating(zlib.MAX_WBITS if wrapped else _RAW)
        yield from self._stream.feed(data)
        if self._stream.rest:
            raise ValueError("the deflate data goes on after its end")

    def finish(self) -> None:
        if self._stream and not self._stream.ended:
            raise ValueError("the deflate data breaks off")


@final
class _Inflating:
    """One stream of zlib's. ``rest`` is what came after its end."""

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
                raise ValueError("the compressed data is broken") from None
            data = self._engine.unconsumed_tail
            self.ended = self._engine.eof
            self.rest = self._engine.unused_data
            if piece:
                yield piece
            # A full piece may not have been all that zlib had to say.
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
                # The limit is where it stops to take more memory: it may give somewhat more.
                pieces: bytes = self._engine.process(data, output_buffer_limit=PIECE)
            except brotli.error:
                raise ValueError("the brotli data is broken") from None
            yield from _cut(pieces)
            if not pieces:
                return
            data = b""

    def finish(self) -> None:
        if self._begun and not self._engine.is_finished():
            raise ValueError("the brotli data breaks off")


def _cut(data: bytes) -> Iterator[bytes]:
    return (data[at : at + PIECE] for at in range(0, len(data), PIECE))
