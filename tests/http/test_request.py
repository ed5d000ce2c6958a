"""The request as it came: what is derived from its bytes, and that nothing is decoded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.http.request import Request


def announcing(*, chunked: bool = False, length: str | None = None) -> Request:
    fields = [] if length is None else [("Content-Length", length)]
    return Request(
        "POST",
        b"/",
        tuple((name.encode(), value.encode()) for name, value in fields),
        CIMultiDictProxy(CIMultiDict(fields)),
        chunked=chunked,
    )


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a/b", b"/a/b", None),
        ("/a?", b"/a", b""),
        ("/a?b", b"/a", b"b"),
        ("/a?b?c=?", b"/a", b"b?c=?"),
        ("/?/x", b"/", b"/x"),
        ("/%2F%3f;x=1:y", b"/%2F%3f;x=1:y", None),
        ("*", b"*", None),
    ],
)
def test_target_is_split_at_its_first_question_mark(
    target: str, path: bytes, query: bytes | None
) -> None:
    """The path ends at the first ``?``; no ``?`` and an empty query are two things."""
    request = Request.of("GET", target, [])
    assert (request.target, request.path, request.query) == (target.encode(), path, query)


@given(st.binary(max_size=60))
def test_every_byte_of_a_target_is_kept(target: bytes) -> None:
    """Path and query together are the target, whatever bytes it has."""
    request = Request("GET", target, (), CIMultiDictProxy(CIMultiDict()))
    query = b"" if request.query is None else b"?" + request.query
    assert request.path + query == request.target == target


def test_a_new_target_replaces_all_of_the_old_one() -> None:
    """After an absolute-form target was replaced, nothing remembers it."""
    request = Request.of("GET", "http://localhost/a?b", [])
    request.set_target(b"/c")
    assert (request.target, request.path, request.query) == (b"/c", b"/c", None)


@pytest.mark.parametrize(
    ("length", "chunked", "expected"),
    [
        (None, False, False),
        ("0", False, False),
        ("00", False, False),
        ("5", False, True),
        ("10", False, True),
        (None, True, True),
    ],
)
def test_body_is_announced_by_length_or_chunks(
    length: str | None, chunked: bool, expected: bool
) -> None:
    """A body is there if a Content-Length above zero or chunks announce it."""
    assert announcing(chunked=chunked, length=length).has_body is expected


def test_text_becomes_the_same_request_as_bytes() -> None:
    """``of`` keeps the order, the case and the repetitions of fields, and looks them up without."""
    fields = [("X-B", "1"), ("x-a", "ä"), ("X-B", "2")]
    request = Request.of("PATCH", "/x", fields, websocket=True)
    assert request.raw_headers == ((b"X-B", b"1"), (b"x-a", "ä".encode()), (b"X-B", b"2"))
    assert request.headers.getall("x-b") == ["1", "2"]
    assert request.headers["X-A"] == "ä"
    assert (request.method, request.websocket, request.version) == ("PATCH", True, (1, 1))
