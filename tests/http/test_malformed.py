"""What is not well-formed is named by kind, and none of the message's bytes is repeated."""

from __future__ import annotations

import asyncio

import pytest

from proxy.http import malformed
from proxy.http import parser as http_parser

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: 2\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
BOTH = "both Content-Length and Transfer-Encoding"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (OK + LENGTH + b"Content-Length: 3\r\n\r\n", "more than one Content-Length"),
        (OK + LENGTH + LENGTH + b"\r\n", "more than one Content-Length"),
        (OK + b"Content-Length: canary\r\n\r\n", "a Content-Length that is no number"),
        (OK + b"Content-Length: 2, 2\r\n\r\n", "a Content-Length that is no number"),
        (OK + b"Content-Length: -1\r\n\r\n", "a Content-Length that is no number"),
        (OK + b"Content-Length:\r\n\r\n", "a Content-Length without a value"),
        (OK + b"Content-Length: %b\r\n\r\n" % (b"9" * 30), "a Content-Length that is too large"),
        (OK + LENGTH + CHUNKED + b"\r\n", BOTH),
        (OK + CHUNKED + LENGTH + b"\r\n", BOTH),
        (OK + b"X-Canary : a\r\n\r\n", "a space before the colon of a header field"),
        (OK + b"X-Canary\t: it's\r\n\r\n", "a space before the colon of a header field"),
        (OK + b"X-Canary\r\n\r\n", "a header line without a colon"),
        (OK + b": canary\r\n\r\n", "a header field without a name"),
        (OK + b"X(Canary): a\r\n\r\n", "a header field name with an invalid character"),
        (OK + b"X-A: canary\0\r\n\r\n", "a control character in a header field"),
        (OK + b"X-A: canary\rb\r\n\r\n", "a CR inside a header field"),
        (OK + CHUNKED + b"\r\ncanary\r\n", "a chunk size that is no hexadecimal number"),
        (OK + CHUNKED + b"\r\n2\r\ncanary", "a chunk that does not end where its size says"),
        (OK + b"A: canary\r\n" * 300 + b"\r\n", "too many header fields"),
        (OK + b"A: %b\r\n\r\n" % (b"canary" * 20_000), "a line that is too long"),
        (b"HTTP/1.1 20 canary\r\n\r\n", "a status code that is not three digits"),
        (b"HTTP/1.1 2000 canary\r\n\r\n", "a status code that is not three digits"),
        (b"HTTP/2 200 canary\r\n\r\n", "an HTTP version other than 1.0 and 1.1"),
        (b"<html>canary\r\n\r\n", "no HTTP status line at the beginning"),
        (b"220 canary\r\n", "no HTTP status line at the beginning"),
    ],
)
async def test_the_reason_names_the_kind(data: bytes, expected: str) -> None:
    """Each kind has its words, with the installed parser, and nothing of the message in them."""
    loop = asyncio.get_running_loop()
    parser = http_parser.response_parser(loop, head_only=False)
    with pytest.raises(http_parser.HttpProcessingError) as caught:
        parser.feed_data(data)
    assert malformed.reason(caught.value) == expected
    assert "canary" not in expected.lower()


async def test_a_request_that_is_not_well_formed_is_told_what_is_not() -> None:
    """The refusal of a request names the kind too."""
    parser = http_parser.request_parser(asyncio.get_running_loop())
    with pytest.raises(http_parser.HttpProcessingError) as caught:
        parser.feed_data(b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n")
    refusal = http_parser.refusal(caught.value)
    assert (refusal.status, refusal.kind) == (400, "bad-request")
    assert refusal.detail.endswith(": a space before the colon of a header field.")
