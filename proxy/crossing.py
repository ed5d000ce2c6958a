"""A provider's answer as this client gets it: fields, framing, and the credential blotted out.

Decides on bytes and knows no connection. Where both sides frame a body alike, the framing is passed
on; where they cannot (HTTP/1.0 has no chunks), the end of the connection ends it.
"""

from __future__ import annotations

from collections.abc import Callable

from .answers import page_fields
from .headers import DROPPED_FOR_BROWSERS, DROPPED_FROM_ANSWERS, answer_fields
from .incoming import Incoming
from .parsers import ResponseHead

LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """RFC 9112 section 7.1; nothing for no data, since an empty chunk would be the last."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class Crossing:
    """One answer on its way to the client.

    page      origin of the page that asks, None for any other program
    relocate  what the client may follow instead of a ``Location``

    Raises ValueError if the head cannot be passed on.
    """

    __slots__ = ("_chunked", "_head", "unframed")

    def __init__(
        self,
        head: ResponseHead,
        incoming: Incoming,
        *,
        page: str | None,
        relocate: Callable[[bytes], bytes],
    ) -> None:
        dropped = DROPPED_FROM_ANSWERS if page is None else DROPPED_FOR_BROWSERS
        bodiless = incoming.method == "HEAD" or head.code in {101, 204, 304}
        length_known = "Content-Length" in head.headers
        if "\0" in head.reason:
            raise ValueError("the reason phrase holds NUL")
        fields = answer_fields(head.raw_headers, dropped, relocate)
        self._chunked = not bodiless and not length_known and incoming.version == (1, 1)
        self.unframed = not bodiless and not length_known and not self._chunked
        if self._chunked:
            fields += b"Transfer-Encoding: chunked\r\n"
        if page is not None:
            fields += page_fields(page, head.headers.get("Cache-Control", ""))
        reason = head.reason.encode("utf-8", "surrogateescape")
        self._head = b"HTTP/1.1 %d %b\r\n%b" % (head.code, reason, fields)

    def head(self, *more: bytes) -> bytes:
        """The head, with further field lines, each ended with CRLF."""
        return b"".join((self._head, *more, b"\r\n"))

    def part(self, data: bytes) -> bytes:
        """A part of the body as it goes out now. Some of it may be held back to be looked at."""
        return chunk(data) if self._chunked else data

    def end(self, data: bytes) -> bytes:
        """The last part of the body."""
        return chunk(data) + LAST_CHUNK if self._chunked else data
