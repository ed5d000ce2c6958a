"""Incremental decoders for the content codings of a response body that must be inspected.

A few compressed bytes can expand to gigabytes, so no decoder accumulates output: each yields pieces
of bounded size, lazily.
"""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, final

try:
    from compression import zstd  # Python 3.14
except ImportError:
    try:
        from backports import zstd
    except ImportError:
        zstd = None

try:
    import brotli  # type: ignore[import-untyped]
except ImportError:
    brotli = None

PIECE: Final = 65_536  # maximum size of a decoded piece in bytes

# Codings of one body, one over another; more than these are a mistake or a bomb.
_MAX_CODINGS = 4
# Names that stand for no coding at all: of wrong or old fields, and of charsets.
_NO_CODING = re.compile(
    r"identity|none|binary|8bit|7bit|utf-?8|utf-?16(le|be)?|(us-?)?ascii|iso-?8859-?\d+|latin-?1"
    r"|(windows|cp)-?125\d|shift[-_]?jis|euc-[a-z]+|gbk|gb2312|gb18030|big5|koi8-[ru]"
    r"|aws-chunked|chunked"
)
# The shortest beginning (bytes) by which plain text is told from coded data.
_RECOGNISABLE = 8
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# RFC 9659: what a zstd decoder for HTTP must support, and a bound for what it allocates (2^23).
_ZSTD_WINDOW_LOG = 23

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

    Supported are gzip, x-gzip, deflate, zstd and br, in any combination, each with its package:
    brotli 1.2 or later for br, and before Python 3.14 backports.zstd for zstd. Names that are no
    codings, such as ``none`` or a charset, count as identity. A body that is plain text despite
    its coding is passed on unchanged; so a coding may be listed more often than it was applied.
    """
    codings = _codings(content_encoding)
    if len(codings) > _MAX_CODINGS or not all(map(_can_decode, codings)):
        return None
    if not codings:
        return _Identity()
    decoders = [_MaybePlain(_DECODERS[coding]()) for coding in reversed(codings)]
    return decoders[0] if len(decoders) == 1 else _Chain(decoders)


def without_undecodable(accept_encoding: str) -> str:
    """The value of ``Accept-Encoding`` without the codings that ``decoder`` does not support.

    ``identity`` if none is left: without the field a server may use any (RFC 9110 section 12.5.3).
    """
    members = [member.strip() for member in accept_encoding.split(",") if member.strip()]
    kept = [member for member in members if _may_accept(member)]
    return accept_encoding if len(kept) == len(members) else ", ".join(kept) or "identity"


def _codings(content_encoding: str) -> list[str]:
    names = (name.strip().lower() for name in content_encoding.split(","))
    return [name for name in names if name and not _NO_CODING.fullmatch(name)]


def _can_decode(coding: str) -> bool:
    match coding:
        case "br":
            # Earlier versions of brotli cannot bound the size of their output.
            return brotli is not None and hasattr(brotli.Decompressor, "can_accept_more_data")
        case "zstd":
            return zstd is not None
        case _:
            return coding in _DECODERS


def _may_accept(member: str) -> bool:
    """Whether a member of ``Accept-Encoding`` asks for nothing that cannot be decoded."""
    coding, _, weight = member.partition(";")
    name = coding.strip().lower()
    # Weight 0 excludes a coding (RFC 9110 section 12.4.2).
    excluded = re.fullmatch(r"\s*[qQ]=0(\.0*)?\s*", weight) is not None
    return excluded or name == "identity" or _can_decode(name)


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


@final
class _Zstd:
    """A sequence of frames (RFC 8878 section 3.1)."""

    __slots__ = ("_frame",)

    def __init__(self) -> None:
        self._frame: Any = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data or self._frame is not None:
            if self._frame is None:
                self._frame = zstd.ZstdDecompressor(
                    options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
                )
            try:
                piece: bytes = self._frame.decompress(data, max_length=PIECE)
            except zstd.ZstdError:
                raise ValueError("zstd data is malformed") from None
            data = b""
            if piece:
                yield piece
            if self._frame.eof:
                data, self._frame = self._frame.unused_data, None
            elif self._frame.needs_input:
                return

    def finish(self) -> None:
        if self._frame is not None:
            raise ValueError("zstd data is incomplete")


@final
class _MaybePlain:
    """Decodes, unless the body begins as plain text: some servers name a coding and apply none."""

    __slots__ = ("_decoder", "_undecided")

    def __init__(self, coded: Decoder) -> None:
        self._decoder = coded
        self._undecided = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._undecided and data:
            self._undecided = False
            if _is_text(data[: 8 * _RECOGNISABLE]):
                self._decoder = _Identity()
        return self._decoder.feed(data)

    def finish(self) -> None:
        self._decoder.finish()


@final
class _Chain:
    """Undoes several codings, the one applied last first (RFC 9110 section 8.4)."""

    __slots__ = ("_decoders",)

    def __init__(self, decoders: Sequence[Decoder]) -> None:
        self._decoders = decoders

    def feed(self, data: bytes) -> Iterator[bytes]:
        pieces = self._decoders[0].feed(data)
        for one in self._decoders[1:]:
            pieces = _fed(one, pieces)
        return pieces

    def finish(self) -> None:
        for one in self._decoders:
            one.finish()


def _fed(one: Decoder, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield from one.feed(piece)


def _is_text(beginning: bytes) -> bool:
    if len(beginning) < _RECOGNISABLE or _BINARY.search(beginning):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning)
    except UnicodeDecodeError:
        return False
    return True


def _cut(data: bytes) -> Iterator[bytes]:
    return (data[at : at + PIECE] for at in range(0, len(data), PIECE))


_DECODERS: Final[Mapping[str, Callable[[], Decoder]]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Deflate,
    "zstd": _Zstd,
    "br": _Brotli,
}
