"""The head of a provider's answer, and a quick way to read the ordinary ones.

Most responses are HTTP/1.1 with a length and nothing unusual. ``parse_simple_head`` reads those in
a few steps and declines all others, which then go through aiohttp's parser: it is never the more
lenient of the two.
"""

from __future__ import annotations

import re

# RFC 9112 sections 4 and 5, without what is obsolete: no folding, no blank before a colon. What
# ends a line can be nowhere else; nothing is matched twice, so nothing takes long.
_PLAIN = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*+)\r"
    rb"((?:\n[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t\x20-\x7e\x80-\xff]*+\r)*+\n)\r\n"
)
_BODILESS = frozenset({204, 205, 304})
_LENGTH = b"\ncontent-length:"
_CONNECTION = b"\nconnection:"
# Old clients and proxies meant the same by it, and aiohttp's parser heeds it.
_PROXY_CONNECTION = b"\nproxy-connection:"
# The longest length that is one; more digits are meant to hurt.
_MOST_DIGITS = 15
# Bytes and fields of an ordinary head, both below the bounds of aiohttp's parser.
_MOST_BYTES = 16 * 1024
_MOST_FIELDS = 128


class ResponseHead:
    """What a provider's answer begins with.

    fields   the field lines, each between LF and CR, then LF: the LF that ends the line before a
             field tells where its name begins
    length   of the body by Content-Length, None without one
    closing  whether the provider closes the connection after this answer
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
        """The values of all fields of this lower-case name, without the blanks around them."""
        pairs = (line.split(b":", 1) for line in self.fields[1:-2].split(b"\r\n") if line)
        return [value.strip(b" \t") for own, value in pairs if own.lower() == name]


def parse_simple_head(data: bytes) -> tuple[ResponseHead, int] | None:
    """The head at the beginning of ``data`` and its size, if it is whole and ordinary.

    For answers to anything but HEAD. The body has the length that the head says.
    """
    found = _PLAIN.match(data)
    if found is None:
        return None
    size = found.end()
    status, reason, fields = found.groups()
    code = int(status)
    if size > _MOST_BYTES or code in _BODILESS or fields.count(b"\n") > _MOST_FIELDS + 1:
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
    # Both sides must see one and the same length, so it is passed on only as everybody writes it.
    digits = _value(lower, at, _LENGTH).removeprefix(b" ")
    if not digits.isdigit() or len(digits) > _MOST_DIGITS:
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
