"""aiohttp's HTTP/1.1 parsers, and everything of aiohttp's insides that the data path leans on.

They are bindings to llhttp: strict towards clients, lenient towards providers. What is assumed of
them is held by a test each, so that a new aiohttp either passes or says what changed.

A parser puts a message's body into a stream object made for coroutines. Here each read is parsed
and emptied in the same turn of the loop, so the stream's own flow control has nothing to do.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any, Protocol, cast

from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, InvalidURLError, LineTooLong
from aiohttp.http_parser import HttpRequestParser, HttpResponseParser
from multidict import CIMultiDictProxy

from proxy.errors import KeyrelayError, Refusal
from proxy.http.request import RawHeaders, Request
from proxy.http.response import ResponseHead

__all__ = [
    "Body",
    "HttpProcessingError",
    "ParsedAnswer",
    "RequestHead",
    "refusal",
    "request",
    "request_parser",
    "require_c_parser",
    "response_head",
    "response_parser",
]

# Longest line and field in bytes. Some clients put tokens and whole prompts into the query; nginx
# takes 8 KiB by default, Node 16 KiB for the whole head.
_MAX_LINE = 16 * 1024
_MAX_FIELDS = 128
# Providers send long cookies and content-security policies; we trust them more.
_MAX_ANSWER_LINE = 64 * 1024
# RFC 9110 section 5.5: what no field value holds, besides CR and LF.
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# The stream object never holds more than one read, so this limit is never reached.
_NO_LIMIT = 1 << 30


class RequestHead(Protocol):
    """What the request parser says of a message."""

    method: str
    path: str
    version: tuple[int, int]
    headers: CIMultiDictProxy[str]
    raw_headers: RawHeaders
    should_close: bool
    upgrade: bool
    chunked: bool


class ParsedAnswer(Protocol):
    """What the response parser says of a message."""

    code: int
    reason: str
    version: tuple[int, int]
    headers: CIMultiDictProxy[str]
    raw_headers: RawHeaders
    should_close: bool
    chunked: bool


class Body(Protocol):
    """The decoded body so far."""

    def read_nowait(self, n: int = -1) -> bytes: ...
    def is_eof(self) -> bool: ...


Messages = tuple[Sequence[tuple[Any, Body]], bool, bytes]


class Parser(Protocol):
    """``feed_data`` gives (messages begun, whether the protocol changed, bytes behind)."""

    def feed_data(self, data: bytes) -> Messages: ...


class RequestParser(Parser, Protocol):
    """Stops after each message; ``message_consumed`` lets it go on to the next."""

    def message_consumed(self) -> None: ...


class _NoFlowControl:
    """Stands where the stream object wants a protocol to pause."""

    _reading_paused = False
    connected = True

    def pause_reading(self) -> None:
        raise AssertionError("a body was not emptied after each read")

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Called at the end of each body. Nothing was paused."""


_NO_FLOW_CONTROL = cast(Any, _NoFlowControl())


def require_c_parser() -> None:
    """Raises KeyrelayError if aiohttp runs its Python parsers, which take what llhttp refuses."""
    if HttpRequestParser.__module__ != "aiohttp._http_parser":
        raise KeyrelayError(
            "aiohttp runs without its C extensions here, and its Python parser accepts malformed "
            "requests; install a binary wheel of aiohttp and unset AIOHTTP_NO_EXTENSIONS"
        )


def request_parser(loop: asyncio.AbstractEventLoop) -> RequestParser:
    """For one client connection, all its requests."""
    return cast(
        RequestParser,
        HttpRequestParser(
            _NO_FLOW_CONTROL,
            loop,
            _NO_LIMIT,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_LINE,
            max_headers=_MAX_FIELDS,
            auto_decompress=False,
            max_msg_queue_size=1,
        ),
    )


def response_parser(loop: asyncio.AbstractEventLoop, *, head_only: bool) -> Parser:
    """For one answer. ``head_only``: it answers a HEAD and has no body whatever it says."""
    return cast(
        Parser,
        HttpResponseParser(
            _NO_FLOW_CONTROL,
            loop,
            _NO_LIMIT,
            max_line_size=_MAX_ANSWER_LINE,
            max_field_size=_MAX_ANSWER_LINE,
            max_headers=_MAX_FIELDS * 2,
            response_with_body=not head_only,
            read_until_eof=True,
            auto_decompress=False,
        ),
    )


def request(head: RequestHead) -> Request:
    """The parser's message as the rest of keyrelay knows it."""
    return Request(
        head.method,
        head.path.encode("utf-8", "surrogateescape"),
        head.raw_headers,
        head.headers,
        version=head.version,
        chunked=head.chunked,
        websocket=head.upgrade and head.headers.get("Upgrade", "").lower() == "websocket",
    )


def response_head(message: ParsedAnswer) -> ResponseHead:
    """The parser's message as the rest of keyrelay knows it.

    Raises ValueError for what would end its line early, other control characters, and a name with a
    blank behind it: the parser of answers is lenient, and what it let through must not become a
    second field at the client, nor a Content-Length that only some clients see (RFC 9112 section
    5.1).
    """
    lines = []
    for name, value in message.raw_headers:
        if b" " in name:
            raise ValueError("the name of a header field holds a blank")
        lines.append(b"%b: %b\r\n" % (name, value))
    fields = b"\n" + b"".join(lines)
    count = len(lines)
    if fields.count(b"\r") != count or fields.count(b"\n") != count + 1 or _CONTROL.search(fields):
        raise ValueError("a header field holds CR, LF or NUL, or another control character")
    reason = message.reason.encode("utf-8", "surrogateescape")
    if _CONTROL.search(reason):
        raise ValueError("the reason phrase holds NUL or another control character")
    length = message.headers.get("Content-Length")
    return ResponseHead(
        message.code,
        reason,
        fields,
        None if length is None else int(length),
        closing=message.should_close,
    )


def refusal(error: HttpProcessingError) -> Refusal:
    """Why the parser gave up, without its text, which quotes the request."""
    if isinstance(error, LineTooLong):
        return Refusal(431, "head-too-large", "A line of the request's head is over 16 KiB.")
    if isinstance(error, BadHttpMethod):
        return Refusal(400, "bad-method", "This is no HTTP request; keyrelay speaks plain HTTP.")
    if isinstance(error, InvalidURLError):
        return Refusal(400, "bad-target", "The request target is not a plain absolute path.")
    if "Too many headers" in error.message:
        return Refusal(431, "head-too-large", "The request has more than 128 header fields.")
    return Refusal(400, "bad-request", "The request is not well-formed HTTP/1.1.")
