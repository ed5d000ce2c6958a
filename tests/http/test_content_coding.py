"""Content codings are taken off piece by piece, and only whole bodies count as whole."""

from __future__ import annotations

import gzip
import itertools
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.content_coding import PIECE, Decoder, decoder, without_undecodable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ROOT = Path(__file__).resolve().parents[2]


def raw_deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return engine.compress(data) + engine.flush()


def brotlied(data: bytes) -> bytes:
    coded: bytes = brotli.compress(data, quality=5)
    return coded


def zstandard(data: bytes) -> bytes:
    coded: bytes = zstd.compress(data)
    return coded


# (value of Content-Encoding, what makes such a body)
CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "identity": ("identity", bytes),
    "none": ("", bytes),
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", brotlied),
    "zstd": ("zstd", zstandard),
    "two": ("zstd, gzip", lambda data: gzip.compress(zstandard(data))),
    "twice": ("gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
    "charset": ("utf-8, gzip", gzip.compress),
}
COMPRESSED = [name for name in CODINGS if name not in {"identity", "none"}]


def built(name: str) -> tuple[Decoder, Callable[[bytes], bytes]]:
    value, encode = CODINGS[name]
    one = decoder(value)
    assert one is not None
    return one, encode


def fed(one: Decoder, *chunks: bytes) -> bytes:
    return b"".join(piece for chunk in chunks for piece in one.feed(chunk))


@pytest.mark.parametrize("name", CODINGS)
@given(
    data=st.one_of(st.binary(max_size=300), st.integers(0, 200_000).map(bytes)),
    places=st.lists(st.integers(0, 400), max_size=8),
)
def test_what_was_coded_comes_out(name: str, data: bytes, places: list[int]) -> None:
    """However the coded body is cut, the content comes out, in pieces of bounded size."""
    one, encode = built(name)
    coded = encode(data)
    edges = [0, *sorted(place % (len(coded) + 1) for place in places), len(coded)]
    out: list[bytes] = []
    for start, end in itertools.pairwise(edges):
        out += one.feed(coded[start:end])
    one.finish()
    assert b"".join(out) == data
    assert all(0 < len(piece) <= PIECE for piece in out)


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 7])
@pytest.mark.parametrize("pattern", [b"\0", b"ab", bytes(range(256))], ids=["zeros", "ab", "all"])
def test_full_pieces_lose_nothing(name: str, pattern: bytes, size: int) -> None:
    """Content that just fills its pieces is whole, also when all of it came in one chunk."""
    one, encode = built(name)
    data = pattern * (size // len(pattern) + 1)
    assert fed(one, encode(data[:size])) == data[:size]
    one.finish()


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_bomb_costs_no_memory(name: str) -> None:
    """Tens of megabytes from a few kilobytes: a piece at a time is all that exists."""
    one, encode = built(name)
    size = 30_000_000
    coded = encode(bytes(size))
    assert len(coded) < 50_000
    tracemalloc.start()
    try:
        came = sum(map(len, one.feed(coded)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    one.finish()
    assert came == size
    assert peak < 1_000_000


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_body_that_breaks_off_is_not_whole(name: str) -> None:
    """Any end before the end of the coding is an error, whatever came out before it."""
    _, encode = built(name)
    coded = encode(b"dummy content " * 20)
    for size in range(1, len(coded)):
        one, _ = built(name)
        fed(one, coded[:size])
        with pytest.raises(ValueError, match="incomplete"):
            one.finish()


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_body_that_is_not_coded_is_refused(name: str) -> None:
    """A wrong Content-Encoding is an error, not content."""
    one, _ = built(name)
    with pytest.raises(ValueError, match=r"malformed|continues"):
        fed(one, b"\xff\xfe\0no coding" * 20)


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("apart", [False, True])
def test_nothing_may_follow_the_end(name: str, apart: bool) -> None:
    """Bytes after the end of the coding are refused, whether in its last chunk or in another."""
    one, encode = built(name)
    coded = encode(b"dummy")
    with pytest.raises(ValueError, match=r"malformed|continues"):
        fed(one, *([coded, b"more of it"] if apart else [coded + b"more of it"]))


@pytest.mark.parametrize("name", CODINGS)
def test_no_body_is_a_whole_body(name: str) -> None:
    """An answer without content may name a coding."""
    one, _ = built(name)
    assert fed(one, b"") == b""
    one.finish()


def test_gzip_may_have_several_members() -> None:
    """RFC 1952 section 2.2: one after another they are one content, in one chunk or in many."""
    coded = gzip.compress(b"dummy ") + gzip.compress(b"") + gzip.compress(b"content")
    for size in (1, 7, len(coded)):
        one, _ = built("gzip")
        assert fed(one, *(coded[at : at + size] for at in range(0, len(coded), size))) == (
            b"dummy content"
        )
        one.finish()


@pytest.mark.parametrize("level", range(-1, 10))
@pytest.mark.parametrize("window", [9, 12, 15])
def test_zlib_is_distinguished_from_raw_deflate(level: int, window: int) -> None:
    """Whatever window and level a server chose, its deflate is understood either way."""
    for bits in (window, -window):
        engine = zlib.compressobj(level, wbits=bits)
        coded = engine.compress(b"dummy content") + engine.flush()
        one, _ = built("zlib")
        assert fed(one, coded) == b"dummy content"
        one.finish()


@pytest.mark.parametrize(
    "value", ["GZIP", " gzip ", "gzip,", "X-Gzip", "Identity", "BR", "Deflate"]
)
def test_names_are_read_as_http_has_them(value: str) -> None:
    """RFC 9110 sections 5.6.1 and 8.4.1: any case, blanks and empty members of the list."""
    assert decoder(value) is not None


@pytest.mark.parametrize("value", ["compress", "dcb", "*", "gzip, compress", "gzip, " * 5])
def test_an_unsupported_coding_has_no_decoder(value: str) -> None:
    """An unknown coding, also among others, or very many, give no decoder rather than a guess."""
    assert decoder(value) is None


@pytest.mark.parametrize(
    "value",
    [
        "none",
        "identity, identity",
        "UTF-8",
        "iso-8859-1",
        "utf8, identity",
        "binary",
        "aws-chunked",
    ],
)
def test_what_is_no_coding_changes_nothing(value: str) -> None:
    """Names that servers write into the field by mistake."""
    one = decoder(value)
    assert one is not None
    plain = gzip.compress(b"dummy")
    assert fed(one, plain) == plain
    one.finish()


@pytest.mark.parametrize(
    ("value", "encode"),
    [
        ("gzip, gzip", gzip.compress),
        ("br, br", brotlied),
        ("deflate,deflate", zlib.compress),
        ("zstd, zstd, zstd", zstandard),
    ],
)
def test_a_coding_listed_too_often(value: str, encode: Callable[[bytes], bytes]) -> None:
    """A coding that two servers list, and one applied, is undone once."""
    one = decoder(value)
    assert one is not None
    assert fed(one, encode(b'{"error": "dummy"}')) == b'{"error": "dummy"}'
    one.finish()


@pytest.mark.parametrize("name", COMPRESSED)
def test_plain_text_stays_as_it_is(name: str) -> None:
    """Error pages often keep the field of the body that they replace."""
    one, _ = built(name)
    text = '{"error": "größer"}'.encode() * 20
    assert fed(one, text[:50], text[50:]) == text
    one.finish()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("gzip, deflate, br, zstd", "gzip, deflate, br, zstd"),
        ("gzip,deflate;q=0.5", "gzip,deflate;q=0.5"),
        ("gzip, compress, deflate, br", "gzip, deflate, br"),
        ("dcb, dcz", "identity"),
        ("*", "identity"),
        ("gzip, *;q=0.1", "gzip"),
        ("identity;q=1, *;q=0", "identity;q=1, *;q=0"),
        ("", ""),
    ],
)
def test_what_cannot_be_undone_is_not_asked_for(value: str, expected: str) -> None:
    """Codings, and the wildcard that means any; what is excluded stays so."""
    assert without_undecodable(value) == expected


def test_without_packages_less_is_asked_for() -> None:
    """What this installation cannot undo."""
    code = (
        "import sys; sys.modules['brotli'] = None\n"
        "sys.modules['backports.zstd'] = sys.modules['compression'] = None\n"
        "from proxy.http.content_coding import decoder, without_undecodable\n"
        "assert without_undecodable('gzip, br, zstd') == 'gzip'\n"
        "assert decoder('zstd') is None"
    )
    run_python(code)


def test_without_brotli_there_is_no_br() -> None:
    """Where the package is missing all else works, and br is said not to."""
    code = (
        "import sys; sys.modules['brotli'] = None\n"
        "from proxy.http.content_coding import decoder\n"
        "assert decoder('br') is None and decoder('gzip') is not None"
    )
    run_python(code)


def run_python(code: str) -> None:
    """Run a program in a process of its own; it may write nothing to stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
