"""What is not well-formed in a message, from the parser's error, in constant texts.

The parser's own message quotes the message's bytes, which may hold a credential; none of it is
repeated. Sections of RFC 9112.
"""

from __future__ import annotations

import ast
import re

from proxy.http.abnf import NAME_CHARS
from proxy.http.aiohttp_parser import HttpProcessingError, LineTooLong

# Beginnings of the texts of llhttp and of aiohttp around it. The first that the error's message
# contains is taken; ``test_malformed`` shows that the installed version still has them.
_REASONS = (
    ("Duplicate Content-Length", "more than one Content-Length"),
    ("Invalid character in Content-Length", "a Content-Length that is no number"),
    ("Empty Content-Length", "a Content-Length without a value"),
    ("Content-Length overflow", "a Content-Length that is too large"),
    ("Transfer-Encoding can't be present", "both Content-Length and Transfer-Encoding"),
    ("Content-Length can't be present", "both Content-Length and Transfer-Encoding"),
    ("Missing expected LF after header value", "a CR inside a header field"),
    ("Missing expected CR after header value", "a line end without CR"),
    ("Invalid HTTP header", "a control character in a header field"),
    ("Invalid header value char", "a control character in a header field"),
    ("Unexpected space after start line", "a space before the first header field"),
    ("Invalid character in chunk size", "a chunk size that is no hexadecimal number"),
    ("Invalid character in chunk extensions", "an invalid chunk extension"),
    ("Chunk size overflow", "a chunk size that is too large"),
    ("Expected LF after chunk", "a chunk that does not end where its size says"),
    ("Missing expected CR after chunk", "a chunk line without CR"),
    ("Missing expected LF after chunk", "a chunk that does not end where its size says"),
    ("Too many headers", "too many header fields"),
    ("Invalid HTTP version", "an HTTP version other than 1.0 and 1.1"),
    ("Expected dot", "an HTTP version other than 1.0 and 1.1"),
    ("Invalid major version", "an invalid HTTP version"),
    ("Invalid minor version", "an invalid HTTP version"),
    ("Invalid status code", "a status code that is not three digits"),
    ("Invalid response status", "a status code that is not three digits"),
    ("Expected HTTP/, RTSP/ or ICE/", "no HTTP status line at the beginning"),
    ("Missing expected LF after", "a line end without LF"),
    ("Missing expected CR after", "a line end without CR"),
)
# The offending line, as the parser quotes it.
_QUOTED = re.compile(r"\n {2,}(b(?:'[^\n]*'|\"[^\n]*\"))(?:\n|\Z)")
_SPACE_BEFORE_COLON = re.compile(rf"[{NAME_CHARS}]+[ \t]+:".encode())


def reason(error: HttpProcessingError) -> str:
    """What is not well-formed, as a noun phrase without any byte of the message."""
    if isinstance(error, LineTooLong):
        return "a line that is too long"
    for text, phrase in _REASONS:
        if text in error.message.partition("\n\n")[0]:
            return phrase
    if "Invalid header token" in error.message:
        return _field_line(error.message)
    return "something other than HTTP/1.1"


def _field_line(message: str) -> str:
    """What is wrong with the name of a header field."""
    quoted = _QUOTED.search(message)
    line = ast.literal_eval(quoted[1]) if quoted else b":"
    if b":" not in line:
        return "a header line without a colon"
    if line.startswith(b":"):
        return "a header field without a name"
    if _SPACE_BEFORE_COLON.match(line):
        return "a space before the colon of a header field"
    return "a header field name with an invalid character"
