"""Responses with interim ones, chunks, trailers or no length, cut anywhere."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import UpstreamFailure
from proxy.http.framing import CHUNKED, LENGTH, NONE, UNTIL_CLOSE, BodyFraming
from proxy.upstream.interfaces import UpstreamState
from proxy.upstream.response_parser import BegunResponse, ResponseParser

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LOOP = asyncio.new_event_loop()
LOOP.close()


def parser(*, head_only: bool = False) -> ResponseParser:
    return ResponseParser(LOOP, head_only=head_only)


def pieces(data: bytes, places: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return (data[a:b] for a, b in itertools.pairwise(edges) if a != b)


@given(places=st.lists(st.integers(0, 400), max_size=12))
def test_a_chunked_response_in_any_pieces(places: list[int]) -> None:
    """Interim responses are dropped, the content is whole, and the end is found."""
    data = CONTINUE + HINTS + CHUNKED_HEAD + b"5\r\ndummy\r\n3;x=1\r\nkey\r\n0\r\nX-T: 1\r\n\r\n"
    one = parser()
    begun: BegunResponse | None = None
    content, ended = b"", False
    for piece in pieces(data, places):
        assert not ended
        if begun is None:
            begun = one.begin(piece)
            if begun is not None:
                content, ended = begun.body, begun.framing is NONE
        else:
            more, ended, _ = one.chunks(piece)
            content += more
    assert begun is not None
    assert (begun.head.code, content, ended) == (200, b"dummykey", True)


@pytest.mark.parametrize(
    ("fields", "head_only", "framing"),
    [
        (b"Content-Length: 9\r\n", False, LENGTH),
        (b"Transfer-Encoding: chunked\r\n", False, CHUNKED),
        (b"", False, UNTIL_CLOSE),
        (b"Content-Length: 9\r\n", True, NONE),
        (b"Content-Length: 0\r\n", False, NONE),
    ],
)
def test_the_framing_of_a_body(fields: bytes, head_only: bool, framing: BodyFraming) -> None:
    """As RFC 9112 section 6.3 has it."""
    begun = parser(head_only=head_only).begin(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n")
    assert begun is not None
    assert begun.framing is framing
    assert begun.exact == (framing is NONE)


def test_a_protocol_switch_keeps_what_follows() -> None:
    """The first bytes of the other protocol."""
    begun = parser().begin(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\x81\x00")
    assert begun is not None
    assert (begun.head.code, begun.body) == (101, b"\x81\x00")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nX: a\x01b\r\n\r\n", "http_protocol_error"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "http_response_transfer"),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "http_response_transfer"),
        (CONTINUE * 20_000, "http_response_header_section_size"),
        (b"dummy\r\n\r\n", "http_protocol_error"),
    ],
)
def test_what_is_not_well_formed(data: bytes, error: str) -> None:
    """The type is RFC 9209's."""
    with pytest.raises(UpstreamFailure) as caught:
        parser().begin(data)
    assert caught.value.proxy_error.startswith(error)


def test_trailers_are_bounded() -> None:
    """As header sections are: a trailer section without end is refused."""
    one = parser()
    one.begin(CHUNKED_HEAD)
    one.chunks(b"0\r\n")
    trailer = b"X-T: " + b"x" * 8_000 + b"\r\n"
    for _ in range(32):
        one.chunks(trailer)
    with pytest.raises(UpstreamFailure, match="256 KiB"):
        one.chunks(trailer)


def test_states_have_names() -> None:
    """For debuggers and failure messages."""
    assert [one.value for one in UpstreamState] == ["idle", "awaiting", "receiving", "closed"]
