"""aiohttp's HTTP/1.1 parsers, and all aiohttp internals that the data path depends on.

The parsers are bindings to llhttp: strict for requests, lenient for responses. A test covers each
assumption about them, so that an incompatible aiohttp fails the tests.

A parser puts a message's body into a stream object made for coroutines. Each read is parsed and the
stream emptied in the same iteration of the event loop, so its own flow control is unused.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any, Protocol, cast

from multidict import CIMultiDictProxy

from proxy.errors import KeyrelayError, Refusal
from proxy.http import malformed
from proxy.http.aiohttp_parser import (
    BadHttpMethod,
    HttpProcessingError,
    HttpRequestParser,
    HttpResponseParser,
    InvalidURLError,
    LineTooLong,
)
from proxy.http.request import RawHeaders, Request
from proxy.http.response import ResponseHead

__all__ = [
    "Body",
    "HttpProcessingError",
    "ParsedResponse",
    "RequestHead",
    "refusal",
    "request",
    "request_parser",
    "require_c_parser",
    "response_head",
    "response_parser",
]

# Maximum length of a line and of a field in bytes. Some clients put tokens and whole prompts into
# the query; the default of nginx is 8 KiB, that of Node 16 KiB for the whole header section.
_MAX_LINE = 16 * 1024
_MAX_FIELDS = 128
# Providers send long cookies and content security policies, and are more trusted than clients.
_MAX_RESPONSE_LINE = 64 * 1024
# RFC 9110 section 5.5: characters that no field value contains, besides CR and LF.
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# The stream object never holds more than one read, so this limit is never reached.
_NO_LIMIT = 1 << 30


class RequestHead(Protocol):
    """A message of the request parser."""

    method: str
    path: str
    version: tuple[int, int]
    headers: CIMultiDictProxy[str]
    raw_headers: RawHeaders
    should_close: bool
    upgrade: bool
    chunked: bool


class ParsedResponse(Protocol):
    """A message of the response parser."""

    code: int
    reason: str
    version: tuple[int, int]
    headers: CIMultiDictProxy[str]
    raw_headers: RawHeaders
    should_close: bool
    chunked: bool


class Body(Protocol):
    """The body parsed so far, without its framing."""

    def read_nowait(self, n: int = -1) -> bytes: ...
    def is_eof(self) -> bool: ...


Messages = tuple[Sequence[tuple[Any, Body]], bool, bytes]


class Parser(Protocol):
    """``feed_data`` returns (messages begun, whether the protocol changed, trailing bytes)."""

    def feed_data(self, data: bytes) -> Messages: ...


class RequestParser(Parser, Protocol):
    """Stops after each message; ``message_consumed`` resumes it."""

    def message_consumed(self) -> None: ...


class _NoFlowControl:
    """Replaces the protocol that the stream object would pause."""

    _reading_paused = False
    connected = True

    def pause_reading(self) -> None:
        raise AssertionError("a body was not emptied after each read")

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Called at the end of each body; does nothing, because nothing is ever paused."""


_NO_FLOW_CONTROL = cast(Any, _NoFlowControl())


def require_c_parser() -> None:
    """Raise KeyrelayError if aiohttp uses its Python parsers, which accept what llhttp rejects."""
    if HttpRequestParser.__module__ != "aiohttp._http_parser":
        raise KeyrelayError(
            "aiohttp runs without its C extensions here, and its Python parser accepts malformed "
            "requests; install a binary wheel of aiohttp and unset AIOHTTP_NO_EXTENSIONS"
        )


def request_parser(loop: asyncio.AbstractEventLoop) -> RequestParser:
    """A parser for all requests of one client connection."""
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
    """A parser for one response. ``head_only``: the response to HEAD, which has no body."""
    return cast(
        Parser,
        HttpResponseParser(
            _NO_FLOW_CONTROL,
            loop,
            _NO_LIMIT,
            max_line_size=_MAX_RESPONSE_LINE,
            max_field_size=_MAX_RESPONSE_LINE,
            max_headers=_MAX_FIELDS * 2,
            response_with_body=not head_only,
            read_until_eof=True,
            auto_decompress=False,
        ),
    )


def request(head: RequestHead) -> Request:
    """Convert a parser message to ``Request``."""
    return Request(
        head.method,
        head.path.encode("utf-8", "surrogateescape"),
        head.raw_headers,
        head.headers,
        version=head.version,
        chunked=head.chunked,
        websocket=head.upgrade and head.headers.get("Upgrade", "").lower() == "websocket",
    )


def response_head(message: ParsedResponse) -> ResponseHead:
    """Convert a parser message to ``ResponseHead``.

    Raises ValueError, with a constant text, for CR, LF and other control characters in a field, and
    for a space in a field name. The response parser is lenient, and such a line must not become a
    second field at the client, nor a Content-Length that only some clients accept (RFC 9112
    section 5.1).
    """
    lines = []
    for name, value in message.raw_headers:
        if b" " in name:
            raise ValueError("a header field name contains a space")
        lines.append(b"%b: %b\r\n" % (name, value))
    fields = b"\n" + b"".join(lines)
    count = len(lines)
    if fields.count(b"\r") != count or fields.count(b"\n") != count + 1 or _CONTROL.search(fields):
        raise ValueError("a header field contains CR, LF or NUL, or another control character")
    reason = message.reason.encode("utf-8", "surrogateescape")
    if _CONTROL.search(reason):
        raise ValueError("the reason phrase contains NUL or another control character")
    length = message.headers.get("Content-Length")
    return ResponseHead(
        message.code,
        reason,
        fields,
        None if length is None else int(length),
        closing=message.should_close,
    )


def refusal(error: HttpProcessingError) -> Refusal:
    """The refusal for a parser error, without the error's message, which quotes the request."""
    if isinstance(error, LineTooLong):
        return Refusal(431, "head-too-large", "A line of the request's head is over 16 KiB.")
    if isinstance(error, BadHttpMethod):
        return Refusal(400, "bad-method", "This is no HTTP request; keyrelay speaks plain HTTP.")
    if isinstance(error, InvalidURLError):
        return Refusal(400, "bad-target", "The request target is not a plain absolute path.")
    if "Too many headers" in error.message:
        return Refusal(431, "head-too-large", "The request has more than 128 header fields.")
    return Refusal(
        400, "bad-request", f"The request is not well-formed HTTP/1.1: {malformed.reason(error)}."
    )
