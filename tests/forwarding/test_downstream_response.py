"""A provider's answer as a client gets it: fields, framing, and the credential blotted out."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import zlib

import pytest

from proxy.forwarding.downstream_response import LAST_CHUNK, LEFT_OUT, ResponseRewriter, chunk
from proxy.http import parser as http_parser
from proxy.http.framing import BodyFraming
from proxy.http.request import Request
from proxy.secrets.redaction import Redactor

SECRET = b"dummy-key-0123456789"


def rewriter(
    answer: bytes,
    *,
    method: str = "GET",
    version: tuple[int, int] = (1, 1),
    page: str | None = None,
    mask_all: bool = False,
) -> ResponseRewriter:
    """What becomes of the head of ``answer``; its body does not matter."""
    loop = asyncio.new_event_loop()
    try:
        parser = http_parser.response_parser(loop, head_only=method == "HEAD")
        messages, _, _ = parser.feed_data(answer)
    finally:
        loop.close()
    request = Request.of(method, "/x", [("Host", "localhost")])
    request.version = version
    return ResponseRewriter(
        http_parser.response_head(messages[0][0]),
        request,
        page=page,
        rewrite_url=lambda _name, value: b"/mounted" + value,
        redactor=Redactor([SECRET]),
        mask_all=mask_all,
    )


def answer(status: str, *fields: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *fields, "")).encode()


def test_a_length_is_passed_on_and_so_are_bytes() -> None:
    """A body of known length crosses as it comes, with its length."""
    one = rewriter(answer("200 Fine", "Content-Length: 4", "X-A: b"))
    assert one.head() == b"HTTP/1.1 200 Fine\r\nContent-Length: 4\r\nX-A: b\r\n\r\n"
    assert one.part(b"ab") + one.end(b"cd") == b"abcd"
    assert one.framing is not BodyFraming.UNTIL_CLOSE


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "X-Until: close"])
def test_without_a_length_chunks_are_made(framing: str) -> None:
    """Chunks are made anew for each read, also where the provider just closes."""
    one = rewriter(answer("200 OK", framing))
    assert b"\r\nTransfer-Encoding: chunked\r\n" in one.head()
    assert one.part(b"abc") == b"3\r\nabc\r\n"
    assert one.part(b"") == b""
    assert one.end(b"") == LAST_CHUNK


def test_http_1_0_gets_no_chunks() -> None:
    """A client of HTTP/1.0 gets the bare body, whose end is the connection's."""
    one = rewriter(answer("200 OK", "Transfer-Encoding: chunked"), version=(1, 0))
    assert one.framing is BodyFraming.UNTIL_CLOSE
    assert b"chunked" not in one.head()
    assert one.end(b"abc") == b"abc"


@pytest.mark.parametrize(
    ("method", "status"),
    [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")],
)
def test_a_response_without_a_body_gets_no_framing(method: str, status: str) -> None:
    """RFC 9112 section 6.3: these have no body whatever their fields say."""
    one = rewriter(answer(status, "X-A: b"), method=method)
    assert b"chunked" not in one.head()
    assert one.end(b"") == b""


def test_further_fields_come_last() -> None:
    """What only the connection knows is said behind the provider's fields."""
    one = rewriter(answer("200 OK", "Content-Length: 0"))
    assert one.head(b"Connection: close\r\n").endswith(b"0\r\nConnection: close\r\n\r\n")


def test_a_page_gets_what_protects_the_shared_origin() -> None:
    """For a page the provider's CORS and cookies go and ours come."""
    one = rewriter(
        answer("200 OK", "Content-Length: 0", "Set-Cookie: a=b", "Access-Control-Allow-Origin: *"),
        page="http://localhost:5173",
    )
    head = one.head()
    assert b"Set-Cookie" not in head
    assert head.count(b"Access-Control-Allow-Origin: ") == 1
    assert b"Access-Control-Allow-Origin: http://localhost:5173\r\n" in head
    assert b"no-store" in head


def test_a_location_is_relocated() -> None:
    """The client is told where it can follow without leaving the route."""
    assert b"Location: /mounted/next\r\n" in rewriter(answer("302 Found", "Location: /next")).head()


def test_the_credential_is_redacted_in_every_head() -> None:
    """A debug endpoint that repeats the request's fields shows stars, as many as bytes."""
    head = rewriter(answer("200 OK", f"X-Seen: {SECRET.decode()}", "Content-Length: 0")).head()
    assert SECRET not in head
    assert b"X-Seen: " + b"*" * len(SECRET) + b"\r\n" in head


def test_the_credential_is_redacted_in_errors_only() -> None:
    """An error page that quotes the request is masked, its length kept; others are passed on."""
    bad = rewriter(answer("400 Bad", f"Content-Length: {len(SECRET) + 4}"))
    out = bad.part(b"<" + SECRET[:7]) + bad.part(SECRET[7:] + b">") + bad.end(b"!!")
    assert out == b"<" + b"*" * len(SECRET) + b">!!"
    fine = rewriter(answer("200 OK", f"Content-Length: {len(SECRET)}"))
    assert fine.end(SECRET) == SECRET


def test_every_body_is_redacted_if_the_route_has_mask_bodies() -> None:
    """``mask_bodies`` looks into answers that are no errors as well."""
    one = rewriter(answer("200 OK", f"Content-Length: {len(SECRET)}"), mask_all=True)
    assert one.end(SECRET) == b"*" * len(SECRET)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(b"<" + SECRET + b">", mtime=0)),
        ("deflate", zlib.compress(b"<" + SECRET + b">")),
    ],
    ids=["gzip", "deflate"],
)
def test_a_compressed_error_is_redacted(coding: str, body: bytes) -> None:
    """It is passed on without its coding, since its length is another one then."""
    one = rewriter(answer("400 Bad", f"Content-Encoding: {coding}", f"Content-Length: {len(body)}"))
    head = one.head()
    assert b"Content-Encoding" not in head
    assert b"Content-Length" not in head
    out = one.part(body[:5]) + one.end(body[5:])
    assert SECRET not in out
    assert b"*" * len(SECRET) in out
    assert out.endswith(LAST_CHUNK)


def test_several_codings_are_not_taken_for_one() -> None:
    """A coding said on two lines is undone, though the first line is harmless."""
    body = gzip.compress(SECRET)
    one = rewriter(
        answer(
            "400 Bad", "Content-Encoding: identity", "Content-Encoding: gzip", "Content-Length: 9"
        )
    )
    assert one.end(body) == chunk(b"*" * len(SECRET)) + LAST_CHUNK


def test_a_credential_of_digits_does_not_redact_the_length() -> None:
    """Framing is not text: a length that holds the digits of a secret stays the length."""
    loop_free = answer("200 OK", "X-Seen: dummy-key-0123456789", "Content-Length: 3")
    head = rewriter(loop_free).head()
    assert head.endswith(b"Content-Length: 3\r\n\r\n")
    assert SECRET not in head


@pytest.mark.parametrize(
    ("coding", "body", "reason"),
    [
        ("dcb", b"whatever", "unsupported (dcb)"),
        ("gzip", gzip.compress(SECRET, mtime=0)[:-9], "malformed: gzip data is incomplete"),
        ("gzip", b"\x1f\x8b" + bytes(20), "malformed: compressed data is malformed"),
        ("br, dcz", b"", "unsupported (br, dcz)"),
    ],
)
def test_what_cannot_be_decoded_is_left_out(coding: str, body: bytes, reason: str) -> None:
    """It cannot be searched for the credential, so a text that says so takes its place."""
    one = rewriter(answer("400 Bad", f"Content-Encoding: {coding}", f"Content-Length: {len(body)}"))
    assert one.head().startswith(b"HTTP/1.1 400 Bad\r\n")
    out = one.end(body)
    assert out == chunk(LEFT_OUT) + LAST_CHUNK
    assert json.loads(LEFT_OUT)["error"]["type"] == "body-left-out"
    assert one.left_out == reason


def test_what_is_broken_behind_its_beginning_is_an_error() -> None:
    """What has been passed on cannot be replaced any more."""
    body = gzip.compress(random.Random(1).randbytes(100_000))
    one = rewriter(answer("400 Bad", "Content-Encoding: gzip"))
    assert one.part(body[:50_000])
    with pytest.raises(ValueError, match="incomplete"):
        one.end(b"")
    assert one.left_out == ""


def test_a_bomb_is_refused() -> None:
    """An error that decompresses without end is refused, not buffered."""
    bomb = zlib.compress(b"\0" * (64 * 1024 * 1024))
    one = rewriter(answer("400 Bad", "Content-Encoding: deflate", f"Content-Length: {len(bomb)}"))
    with pytest.raises(ValueError, match="too large"):
        one.part(bomb)


def test_an_empty_chunk_is_never_made() -> None:
    """A chunk of no bytes would end the body."""
    assert chunk(b"") == b""
