"""Status line and header section of a provider's response, and a fast parser for simple ones.

Most responses are HTTP/1.1 with a Content-Length and nothing unusual. ``parse_simple_head`` parses
those in a few steps and declines all others, which then go through aiohttp's parser. It is never
more lenient than that parser.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable

from proxy.errors import KeyrelayError
from proxy.http.abnf import FIELD_CHARS, NAME_CHARS

# RFC 9112 sections 4 and 5 without obsolete syntax: no line folding, no space before a colon. Line
# ends cannot occur elsewhere, and no byte is matched twice, so matching takes linear time. The
# repetition of lines is not possessive: CPython before 3.11.5 fails to match a possessive one
# within another (gh-106052). Backtracking over a line cannot match either, since the byte after LF
# decides.
_PLAIN = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9]{2}) ([%b]*+)\r((?:\n[%b]++:[%b]*+\r)*\n)\r\n"
    % (FIELD_CHARS.encode(), NAME_CHARS.encode(), FIELD_CHARS.encode())
)
_BODILESS = frozenset({204, 205, 304})
_LENGTH = b"\ncontent-length:"
_CONNECTION = b"\nconnection:"
# Old clients and proxies use it as Connection, and aiohttp's parser evaluates it.
_PROXY_CONNECTION = b"\nproxy-connection:"
# Maximum number of digits of a plausible length; more digits are an attack.
_MAX_DIGITS = 15
# Maximum bytes and fields of a simple head, both below the bounds of aiohttp's parser.
_MAX_BYTES = 16 * 1024
_MAX_FIELDS = 128


class ResponseHead:
    """Status line and header section of a response.

    code     the status code
    reason   the reason phrase, raw bytes
    fields   the field lines, each between LF and CR, then LF: every field name follows an LF
    length   of the body by Content-Length in bytes, None without one
    closing  whether the provider closes the connection after this response
    """

    __slots__ = ("closing", "code", "fields", "length", "reason")

    def __init__(
        self, code: int, reason: bytes, fields: bytes, length: int | None, *, closing: bool
    ) -> None:
        self.code = code
        self.reason = reason
        self.fields = fields
        self.length = length
        self.closing = closing

    def values(self, name: bytes) -> list[bytes]:
        """Values of all fields with this lower-case name, without surrounding whitespace."""
        pairs = (line.split(b":", 1) for line in self.fields[1:-2].split(b"\r\n") if line)
        return [value.strip(b" \t") for own, value in pairs if own.lower() == name]

    @property
    def is_event_stream(self) -> bool:
        """Whether the body is a stream of server-sent events (HTML standard, section 9.2.5)."""
        types = b", ".join(self.values(b"content-type"))
        return types.partition(b";")[0].strip().lower() == b"text/event-stream"


def parse_simple_head(data: bytes) -> tuple[ResponseHead, int] | None:
    """The head at the beginning of ``data`` and its size in bytes, if complete and simple.

    Not for responses to HEAD. The body has the length of the head's Content-Length.
    """
    found = _PLAIN.match(data)
    if found is None:
        return None
    size = found.end()
    status, reason, fields = found.groups()
    code = int(status)
    if size > _MAX_BYTES or code in _BODILESS or fields.count(b"\n") > _MAX_FIELDS + 1:
        return None
    lower = fields.lower()
    at = lower.find(_LENGTH)
    if (
        at < 0
        or b"\ntransfer-encoding:" in lower
        or _PROXY_CONNECTION in lower
        or lower.find(_LENGTH, at + 1) >= 0
    ):
        return None
    # Both connections must use the same length, so only its canonical form is accepted.
    digits = _value(lower, at, _LENGTH).removeprefix(b" ")
    if not digits.isdigit() or len(digits) > _MAX_DIGITS:
        return None
    closing = False
    at = lower.find(_CONNECTION)
    if at >= 0:
        option = _value(lower, at, _CONNECTION).strip(b" \t")
        closing = option == b"close"
        if not (closing or option == b"keep-alive") or lower.find(_CONNECTION, at + 1) >= 0:
            return None
    return ResponseHead(code, reason, fields, int(digits), closing=closing), size


def _value(lower: bytes, at: int, name: bytes) -> bytes:
    begin = at + len(name)
    return lower[begin : lower.index(b"\r", begin)]


# Heads of ordinary responses with the number of their fields, and malformed heads: obsolete
# folding, a space before the colon, a bare LF, a bare CR, NUL (RFC 9112 sections 2.2, 5.1, 5.2).
_SAMPLES = (
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 1),
    (b"HTTP/1.1 503 \r\nDate: today\r\nX:\r\ncontent-length:2\r\nV: \xff \t\r\n\r\n", 4),
    (b"HTTP/1.1 404 Not Found\r\n" + b"Name: value\r\n" * 99 + b"Content-Length: 2\r\n\r\n", 100),
)
_MALFORMED = tuple(
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + line + b"\r\n"
    for line in (b" folded\r\n", b"A : b\r\n", b"A: b\n", b"A: b\rC: d\r\n", b"A: \0\r\n")
)


def self_check(
    parse: Callable[[bytes], tuple[ResponseHead, int] | None] = parse_simple_head,
) -> str | None:
    """A warning if ``parse`` does not read ordinary heads on this interpreter; None if it does.

    It depends on ``re``, which has had faults (see ``_PLAIN``). Without it every response takes the
    way of the full parser: correct, but slower. Raises KeyrelayError if it takes a malformed head.
    """
    running = f"{platform.python_implementation()} {platform.python_version()}"
    if any(parse(head) is not None for head in _MALFORMED):
        raise KeyrelayError(
            f"regular expressions of {running} match what they must not: keyrelay cannot tell "
            "malformed responses here; use another version of Python"
        )
    for head, fields in _SAMPLES:
        found = parse(head)
        if (
            found is None
            or found[1] != len(head)
            or (found[0].length, found[0].fields.count(b"\r")) != (2, fields)
        ):
            return (
                f"Regular expressions of {running} do not match what they should: responses are "
                "read by the slower parser. Use another version of Python."
            )
    return None
