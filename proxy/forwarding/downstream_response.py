"""A provider's answer as this client gets it: fields, framing, and the credential blotted out.

Decides on bytes and knows no connection. Where both sides frame a body alike, the framing is passed
on; where they cannot (HTTP/1.0 has no chunks), the end of the connection ends it.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.http.content_coding import decoder
from proxy.http.headers import DROPPED_FOR_BROWSERS, DROPPED_FROM_RESPONSES, response_fields
from proxy.http.problem import page_fields
from proxy.http.request import Request
from proxy.http.response import ResponseHead
from proxy.secrets.redaction import Redactor, StreamRedactor

LAST_CHUNK = b"0\r\n\r\n"

# Bytes that one read may unfold to. Errors are short; what is longer is meant to hurt.
_MOST_AT_ONCE = 4 * 1024 * 1024
_CHANGED_LENGTH = frozenset({b"content-encoding", b"content-length"})


def chunk(data: bytes) -> bytes:
    """RFC 9112 section 7.1; nothing for no data, since an empty chunk would be the last."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class ResponseRewriter:
    """One answer on its way to the client.

    page      origin of the page that asks, None for any other program
    relocate  what the client may follow instead of a ``Location``
    masker    knows the credential that the request bore
    mask_all  whether every body is masked, not only those of errors

    Raises ValueError if the head cannot be passed on.
    """

    __slots__ = ("_chunked", "_head", "_mask", "unframed")

    def __init__(
        self,
        head: ResponseHead,
        request: Request,
        *,
        page: str | None,
        rewrite_location: Callable[[bytes], bytes],
        redactor: Redactor,
        mask_all: bool,
    ) -> None:
        dropped = DROPPED_FROM_RESPONSES if page is None else DROPPED_FOR_BROWSERS
        bodiless = request.method == "HEAD" or head.code in {101, 204, 304}
        length_known = head.length is not None
        if head.code == 204:
            # RFC 9110 section 8.6: there is no content whose length could be said.
            dropped = dropped | {b"content-length"}
            length_known = False
        self._mask: _BodyRedactor | None = None
        if redactor and (head.code >= 400 or mask_all) and not bodiless:
            coding = b", ".join(head.values(b"content-encoding")).decode("latin-1")
            self._mask = _BodyRedactor(redactor, coding)
            if coding:
                # It is passed on decoded, so neither coding nor length is what it was.
                dropped = dropped | _CHANGED_LENGTH
                length_known = False
        told = b"%b\r\n%b" % (head.reason, response_fields(head.fields, dropped, rewrite_location))
        masked = redactor.redact(told)
        if masked is not told and length_known and head.length is not None:
            # A credential of digits must not blot out the length.
            fields = response_fields(head.fields, dropped | {b"content-length"}, rewrite_location)
            masked = redactor.redact(b"%b\r\n%b" % (head.reason, fields))
            masked += b"Content-Length: %d\r\n" % head.length
        self._chunked = not bodiless and not length_known and request.version == (1, 1)
        self.unframed = not bodiless and not length_known and not self._chunked
        if self._chunked:
            masked += b"Transfer-Encoding: chunked\r\n"
        if page is not None:
            said = b", ".join(head.values(b"cache-control")).decode("latin-1")
            masked += page_fields(page, said)
        self._head = b"HTTP/1.1 %d %b" % (head.code, masked)

    def head(self, *more: bytes) -> bytes:
        """The head, with further field lines, each ended with CRLF."""
        return b"".join((self._head, *more, b"\r\n"))

    def part(self, data: bytes) -> bytes:
        """A part of the body as it goes out now. Some of it may be held back to be looked at.

        Raises ValueError if its coding is broken, or unfolds to more than anybody means to send.
        """
        if self._mask is not None:
            data = self._mask.feed(data)
        return chunk(data) if self._chunked else data

    def end(self, data: bytes) -> bytes:
        """The last part of the body. Raises ValueError as ``part`` does."""
        if self._mask is not None:
            data = self._mask.feed(data) + self._mask.finish()
        return chunk(data) + LAST_CHUNK if self._chunked else data


class _BodyRedactor:
    """Blots a credential out of a body that may be compressed; what goes out is not.

    A body in a coding that cannot be undone here is left out: nobody knows what is in it.
    """

    __slots__ = ("_decoder", "_stream")

    def __init__(self, redactor: Redactor, coding: str) -> None:
        self._decoder = decoder(coding)
        self._stream = StreamRedactor(redactor)

    def feed(self, data: bytes) -> bytes:
        if self._decoder is None:
            return b""
        masked, size = [], 0
        for piece in self._decoder.feed(data):
            size += len(piece)
            if size > _MOST_AT_ONCE:
                raise ValueError("a body unfolds to too much")
            masked.append(self._stream.feed(piece))
        return b"".join(masked)

    def finish(self) -> bytes:
        if self._decoder is not None:
            self._decoder.finish()
        return self._stream.finish()
