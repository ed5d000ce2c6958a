"""The quick reader of heads: never more lenient than aiohttp's parser, nor of another mind."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Callable
from contextlib import closing

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.errors import KeyrelayError
from proxy.http import parser as http_parser
from proxy.http.response import ResponseHead, parse_simple_head, self_check

LINE = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: 2\r\n"


def head(*fields: bytes, line: bytes = LINE) -> bytes:
    """A head of these field lines, each with its line end."""
    return b"".join((line, *fields, b"\r\n"))


def pairs(fields: bytes) -> list[tuple[bytes, bytes]]:
    """Names and values of a head's fields, in their order."""
    assert fields.startswith(b"\n")
    lines = [line.split(b":", 1) for line in fields[1:].split(b"\r\n")[:-1]]
    return [(name, value.strip(b" \t")) for name, value in lines]


def parsed(data: bytes) -> tuple[ResponseHead, bytes, bool]:
    """The same by aiohttp's parser: the head, what there is of the body, whether it has ended.

    Raises HttpProcessingError, or ValueError.
    """
    with closing(asyncio.new_event_loop()) as loop:
        messages, _, tail = http_parser.response_parser(loop, head_only=False).feed_data(data)
        ((message, body),) = messages
        assert not tail
        assert message.version == (1, 1)
        return http_parser.response_head(message), body.read_nowait(), body.is_eof()


def same_as_parsed(data: bytes) -> bool:
    """Whether ``parse_simple_head`` gives a head at all; if so, it is what the parser says."""
    found = parse_simple_head(data)
    if found is None:
        return False
    quick, size = found
    assert quick.length is not None
    body = data[size:][: quick.length]
    slow, begun, ended = parsed(data[:size] + body)
    assert (quick.code, quick.reason, quick.length) == (slow.code, slow.reason, slow.length)
    assert quick.closing is slow.closing
    assert pairs(quick.fields) == pairs(slow.fields)
    assert (begun, ended) == (body, len(body) == quick.length)
    for name, _ in pairs(quick.fields):
        assert quick.values(name.lower()) == slow.values(name.lower())
    return True


# -- what it takes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        head(LENGTH) + b"ok",
        head(LENGTH) + b"o",
        head(LENGTH),
        head(b"content-length:2\r\n") + b"ok",
        head(b"Content-Length: 0\r\n"),
        head(b"Content-Length: 999999999999999\r\n") + b"ok",
        head(LENGTH, line=b"HTTP/1.1 404 \r\n") + b"no",
        head(LENGTH, line=b"HTTP/1.1 500 Some \t\xff reason \r\n") + b"no",
        head(LENGTH, b"Connection: close\r\n") + b"ok",
        head(LENGTH, b"connection:Close \r\n") + b"ok",
        head(b"CONNECTION: \tkeep-alive\r\n", LENGTH) + b"ok",
        head(b"Keep-Alive: timeout=5\r\n", LENGTH, b"Upgrade: h2c\r\n") + b"ok",
        head(b"X:\r\n", LENGTH, b"X: \t \r\n", b"x:a: b \t\r\n", b"X_y: \xff\xc3\xa9\r\n") + b"ok",
        head(b"Content-Encoding: gzip\r\n", LENGTH, b"Trailer: X\r\n") + b"ok",
        head(LENGTH, *[b"X: a\r\n"] * 127) + b"ok",
        head(LENGTH, b"X: " + b"a" * 16_000 + b"\r\n") + b"ok",
    ],
)
def test_ordinary_heads_are_taken(data: bytes) -> None:
    """A head with a length and nothing odd about it is read here, as the parser would read it."""
    assert same_as_parsed(data)


def test_a_head_and_where_its_body_begins() -> None:
    """Everything about the head, and its size in bytes."""
    found = parse_simple_head(head(b"X: a\r\n", LENGTH, b"Connection: close\r\n") + b"ok")
    assert found is not None
    quick, size = found
    assert (quick.code, quick.reason, quick.length, quick.closing) == (200, b"OK", 2, True)
    assert quick.fields == b"\nX: a\r\nContent-Length: 2\r\nConnection: close\r\n"
    assert size == len(head(b"X: a\r\n", LENGTH, b"Connection: close\r\n"))


# -- what it leaves to the parser --------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        LINE,
        head(LENGTH)[:-1],
        head(LENGTH)[:-2],
        head(),
        head(b"X: a\r\n"),
        head(LENGTH, LENGTH),
        head(LENGTH, b"content-length: 3\r\n"),
        head(b"Content-Length: 2, 2\r\n"),
        head(b"Content-Length:\r\n"),
        head(b"Content-Length: \r\n"),
        head(b"Content-Length: +2\r\n"),
        head(b"Content-Length: -2\r\n"),
        head(b"Content-Length: 0x2\r\n"),
        head(b"Content-Length: 2 \r\n"),
        head(b"Content-Length:  2\r\n"),
        head(b"Content-Length:\t2\r\n"),
        head(b"Content-Length: 2_0\r\n"),
        head(b"Content-Length: \xb2\r\n"),
        head(b"Content-Length: \xd9\xa2\r\n"),
        head(b"Content-Length: 1000000000000000\r\n"),
        head(b"Content-Length : 2\r\n"),
        head(b"Content_Length: 2\r\n"),
        head(b"X: a\r\n Content-Length: 2\r\n"),
        head(b"Transfer-Encoding: chunked\r\n"),
        head(LENGTH, b"transfer-ENCODING:\r\n"),
        head(b"Transfer-Encoding: identity\r\n", LENGTH),
        head(LENGTH, b"Connection: upgrade\r\n"),
        head(LENGTH, b"Connection: close, X\r\n"),
        head(LENGTH, b"Connection:\r\n"),
        head(LENGTH, b"Connection: close\r\n", b"Connection: close\r\n"),
        head(LENGTH, b"Connection: keep-alive\r\n", b"Connection: close\r\n"),
        head(LENGTH, b"Proxy-Connection: close\r\n"),
        head(LENGTH, b"X: a\r\n b\r\n"),
        head(LENGTH, b"X: a\r\n\tb\r\n"),
        head(LENGTH, b" X: a\r\n"),
        head(LENGTH, b"X : a\r\n"),
        head(LENGTH, b"X\t: a\r\n"),
        head(LENGTH, b"X Y: a\r\n"),
        head(LENGTH, b": a\r\n"),
        head(LENGTH, b"X\r\n"),
        head(LENGTH, b"X: a\n"),
        head(LENGTH, b"X: a\r"),
        head(LENGTH, b"X: a\rb\r\n"),
        head(LENGTH, b"X: a\nb: c\r\n"),
        head(LENGTH, b"X: a\0b\r\n"),
        head(LENGTH, b"X: a\x01b\r\n"),
        head(LENGTH, b"X: a\x7fb\r\n"),
        head(LENGTH, b"X\xff: a\r\n"),
        head(LENGTH, b"X\0: a\r\n"),
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\n",
        b"\r\n" + head(LENGTH),
        head(LENGTH, line=b"HTTP/1.0 200 OK\r\n"),
        head(LENGTH, line=b"HTTP/1.10 200 OK\r\n"),
        head(LENGTH, line=b"HTTP/1.2 200 OK\r\n"),
        head(LENGTH, line=b"HTTP/2.0 200 OK\r\n"),
        head(LENGTH, line=b"http/1.1 200 OK\r\n"),
        head(LENGTH, line=b"HTTP/1.1  200 OK\r\n"),
        head(LENGTH, line=b"HTTP/1.1\t200 OK\r\n"),
        head(LENGTH, line=b"HTTP/1.1 200\r\n"),
        head(LENGTH, line=b"HTTP/1.1 200OK\r\n"),
        head(LENGTH, line=b"HTTP/1.1 20 OK\r\n"),
        head(LENGTH, line=b"HTTP/1.1 2000 OK\r\n"),
        head(LENGTH, line=b"HTTP/1.1 +20 OK\r\n"),
        head(LENGTH, line=b"HTTP/1.1 \xb2\xb2\xb2 OK\r\n"),
        head(LENGTH, line=b"HTTP/1.1 000 OK\r\n"),
        head(LENGTH, line=b"HTTP/1.1 600 OK\r\n"),
        head(LENGTH, line=b"HTTP/1.1 200 O\0K\r\n"),
        head(LENGTH, line=b"HTTP/1.1 200 O\rK\r\n"),
        head(LENGTH, line=b"HTTP/1.1 100 Continue\r\n"),
        head(LENGTH, line=b"HTTP/1.1 101 Switching Protocols\r\n"),
        head(LENGTH, line=b"HTTP/1.1 204 No Content\r\n"),
        head(LENGTH, line=b"HTTP/1.1 205 Reset Content\r\n"),
        head(LENGTH, line=b"HTTP/1.1 304 Not Modified\r\n"),
        head(LENGTH, *[b"X: a\r\n"] * 256),
        head(LENGTH, b"X: " + b"a" * 65_536 + b"\r\n"),
        head(LENGTH, b"X" * 65_536 + b": a\r\n"),
        head(LENGTH, line=b"HTTP/1.1 200 " + b"a" * 65_536 + b"\r\n"),
    ],
    ids=lambda data: repr(data[:60]),
)
def test_whatever_is_odd_is_left_to_the_parser(data: bytes) -> None:
    """Not whole, without a length of its own, or in any spelling but the ordinary one."""
    assert parse_simple_head(data) is None
    assert parse_simple_head(data + b"ok") is None


# -- of one mind -------------------------------------------------------------------------------

_NAMES = st.sampled_from(
    [
        *(b"Content-Length", b"content-length", b"Transfer-Encoding", b"Connection", b"connection"),
        *(b"Proxy-Connection", b"Keep-Alive", b"Upgrade", b"Trailer", b"TE", b"X", b"x-B", b"X_b"),
        *(b"Content-Type", b"Content-Encoding", b"Set-Cookie", b"Location", b"Date", b"Host"),
        *(b"Content-Lengt", b"Content-Length ", b" Content-Length", b"\xff", b"X\0", b""),
    ]
)
_VALUES = st.one_of(
    st.sampled_from(
        [
            *(b"0", b"2", b"3", b"007", b"+2", b"2 ", b" 2", b"2, 2", b"0x2", b"9" * 15, b"9" * 20),
            *(b"close", b"Close", b"keep-alive", b"close, x", b"x, close", b"upgrade", b"gzip"),
            *(b"chunked", b"gzip, chunked", b"identity", b"websocket", b"a\r\n b", b"a\r\nX: b"),
        ]
    ),
    st.binary(max_size=8),
    st.integers(0, 40).map(lambda number: b"%d" % number),
)
_BLANKS = st.sampled_from([b"", b" ", b" ", b" ", b"\t", b"  ", b" \t"])
_ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"\r\n\r\n"])
_LINES = st.one_of(
    st.just(LINE),
    st.tuples(
        st.sampled_from([b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/1.2", b"http/1.1", b"ICY"]),
        st.integers(0, 999).map(lambda number: b"%03d" % number),
        st.one_of(st.sampled_from([b"OK", b"", b" ", b"Not Found"]), st.binary(max_size=6)),
    ).map(lambda parts: b"%b %b %b\r\n" % parts),
)


@st.composite
def _messages(draw: st.DrawFn) -> bytes:
    """A head and some of a body; mostly well-formed, with one or two things wrong."""
    fields = draw(st.lists(st.tuples(_NAMES, _BLANKS, _VALUES, _BLANKS, _ENDS), max_size=6))
    lines = [b"%b:%b%b%b%b" % field for field in fields]
    if draw(st.booleans()):
        lines.insert(draw(st.integers(0, len(lines))), b"Content-Length: 5\r\n")
    data = bytearray(head(*lines, line=draw(_LINES)) + draw(st.binary(max_size=6)))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(data) - 1))
        byte = draw(st.sampled_from([*b"\r\n\t \0:,0259\x7f\xff-_"]))
        draw(st.sampled_from([data.insert, data.__setitem__]))(at, byte)
    return bytes(data)


@settings(max_examples=1500, deadline=None)
@given(_messages())
@example(head(LENGTH, b"Proxy-Connection: close\r\n") + b"ok")
@example(head(LENGTH, *[b"X: a\r\n"] * 300) + b"ok")
def test_what_it_takes_the_parser_takes_in_the_same_way(data: bytes) -> None:
    """Status, reason, fields, length, border of the body and end of the connection are the same."""
    same_as_parsed(data)


@settings(max_examples=500, deadline=None)
@given(
    st.integers(200, 599).filter(lambda code: code not in {204, 205, 304}),
    st.binary(max_size=10).map(lambda one: bytes(set(one) - set(range(32)) - {127})),
    st.lists(
        st.tuples(
            st.sampled_from([b"X", b"x-b", b"Content-Type", b"Set-Cookie", b"Vary"]),
            _BLANKS,
            st.binary(max_size=20).map(lambda one: bytes(set(one) - set(range(32)) - {127})),
            _BLANKS,
        ),
        max_size=8,
    ),
    st.integers(0, 30),
)
def test_what_is_ordinary_is_always_taken(
    code: int, reason: bytes, fields: list[tuple[bytes, bytes, bytes, bytes]], length: int
) -> None:
    """Whatever is in reason and values: the quick way is the usual one."""
    lines = [b"%b:%b%b%b\r\n" % field for field in fields]
    lines.append(b"Content-Length: %d\r\n" % length)
    assert same_as_parsed(head(*lines, line=b"HTTP/1.1 %d %b\r\n" % (code, reason)) + b"a" * length)


# -- the interpreter ---------------------------------------------------------------------------


def test_the_self_check_passes_here() -> None:
    """This interpreter's regular expressions read heads as intended."""
    assert self_check() is None


@pytest.mark.parametrize("most", [0, 50])
def test_the_self_check_warns_where_ordinary_heads_are_not_read(most: int) -> None:
    """None at all, or none of many fields: a warning with the version of Python."""

    def declines(data: bytes) -> tuple[ResponseHead, int] | None:
        return parse_simple_head(data) if data.count(b"\n") < most else None

    warning = self_check(declines)
    assert warning is not None
    assert platform.python_version() in warning


def test_the_self_check_refuses_an_interpreter_that_reads_malformed_heads() -> None:
    """Such a match would be a hole, not a loss of speed."""

    def lenient(data: bytes) -> tuple[ResponseHead, int] | None:
        return parse_simple_head(data.replace(b" :", b":"))

    with pytest.raises(KeyrelayError, match="malformed"):
        self_check(lenient)


# -- time --------------------------------------------------------------------------------------

HOSTILE: dict[str, Callable[[int], bytes]] = {
    "empty fields": lambda size: LINE + b"a:\r\n" * (size // 4),
    "a name without end": lambda size: LINE + b"a" * size,
    "colons": lambda size: LINE + b":" * size,
    "a value without end": lambda size: LINE + b"a:" + b" " * size,
    "a reason without end": lambda size: b"HTTP/1.1 200 " + b"a" * size,
    "line feeds": lambda size: LINE + b"\n" * size,
    "returns": lambda size: LINE + b"a:b" + b"\r" * size,
    "lengths": lambda size: head(b"Content-Length: 1\r\n" * (size // 19)),
    "nearly lengths": lambda size: head(LENGTH, b"X: \ncontent-length:\r\n" * (size // 21)),
    "connections": lambda size: head(LENGTH, b"Connection: close\r\n" * (size // 19)),
    "a length of digits": lambda size: head(b"Content-Length: " + b"1" * size + b"\r\n"),
    "blanks around a length": lambda size: head(b"Content-Length: " + b" " * size + b"1\r\n"),
}


def taken(data: bytes) -> float:
    """The shortest of some times that it takes (seconds)."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        parse_simple_head(data)
        times.append(time.perf_counter() - began)
    return min(times)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_heads_take_no_longer_than_their_size(name: str) -> None:
    """64 KiB take a few milliseconds at most, and no more than in proportion to 8 KiB."""
    short, long = (HOSTILE[name](size) for size in (8 * 1024, 64 * 1024))
    assert taken(long) < 0.02
    # Squared it would be 64 times; a machine that is busy may double it.
    assert taken(long) < 24 * taken(short) + 0.001


# -- values ------------------------------------------------------------------------------------


def test_values_of_a_field() -> None:
    """All of one name in any case, in order, without the blanks around them; of none an empty
    list. A field whose name only begins or ends alike is another one.
    """
    fields = b"\nX-A: 1\r\nx-a:\t 2 \r\nX-AB: 3\r\nB-X-A: 4\r\nX-A:\r\nC: x-a: 5\r\n"
    one = ResponseHead(200, b"OK", fields, None, closing=False)
    assert one.values(b"x-a") == [b"1", b"2", b""]
    assert one.values(b"c") == [b"x-a: 5"]
    assert one.values(b"a") == []
    assert ResponseHead(200, b"", b"\n", None, closing=False).values(b"x-a") == []
