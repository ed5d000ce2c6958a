"""Rewrite a provider's response for the client: fields, framing, and redaction of the credential.

Pure functions of bytes, independent of connections. If both connections can use the same framing of
a body it is preserved; if not (HTTP/1.0 has no chunked coding), the end of the connection ends the
body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from proxy.http.content_coding import decoder
from proxy.http.framing import CHUNKED, LENGTH, NONE, UNTIL_CLOSE, BodyFraming
from proxy.http.headers import (
    DROPPED_FOR_BROWSERS,
    DROPPED_FROM_RESPONSES,
    URL_FIELDS,
    response_fields,
)
from proxy.http.problem import page_fields
from proxy.http.request import Request
from proxy.http.response import ResponseHead
from proxy.secrets.redaction import Redactor, StreamRedactor

LAST_CHUNK = b"0\r\n\r\n"

# Maximum decoded size of one read in bytes. Error bodies are short; more is a decompression bomb.
_MAX_DECODED = 4 * 1024 * 1024
_DECODED_FIELDS = frozenset({b"content-encoding", b"content-length"})
# The body in place of one that cannot be decoded: text that is JSON, for clients that parse errors.
LEFT_OUT = (
    b'{"error": {"type": "body-left-out", "message": "Keyrelay left this response\'s body out: it '
    b"could not undo its content coding, and so not search it for the credential. The status is "
    b"the provider's.\"}}\n"
)


def chunk(data: bytes) -> bytes:
    """``data`` as a chunk (RFC 9112 section 7.1); empty for no data: an empty chunk is the last."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class ResponseRewriter:
    """Rewrites one response for its client.

    page              origin of the requesting page, None for a program
    rewrite_url       maps name and value of a field with URLs to a value for the client
    url_fields        lower-case names of these fields
    redactor          redacts the credential of the request
    mask_all          whether every body is redacted, not only those that are not 2xx

    ``framing`` is that of the body to the client. Raises ValueError if the header section cannot be
    forwarded.
    """

    __slots__ = ("_head", "_redactor", "framing")

    def __init__(
        self,
        head: ResponseHead,
        request: Request,
        *,
        page: str | None,
        rewrite_url: Callable[[bytes, bytes], bytes],
        redactor: Redactor,
        mask_all: bool,
        url_fields: frozenset[bytes] = URL_FIELDS,
    ) -> None:
        dropped = DROPPED_FROM_RESPONSES if page is None else DROPPED_FOR_BROWSERS
        bodiless = request.method == "HEAD" or head.code in {101, 204, 304}
        length_known = head.length is not None
        if head.code in {101, 204}:
            # RFC 9110 section 8.6: without content there is no Content-Length.
            dropped = dropped | {b"content-length"}
            length_known = False
        self._redactor: _BodyRedactor | None = None
        # A redirect's body repeats the target, and with it the query; so may any response to a
        # handshake that opens no WebSocket.
        succeeded = 200 <= head.code < 300 and not request.websocket
        if redactor and (mask_all or not succeeded) and not bodiless:
            coding = b", ".join(head.values(b"content-encoding")).decode("latin-1")
            self._redactor = _BodyRedactor(redactor, coding)
            if coding:
                # The body is forwarded decoded, so its coding and length change.
                dropped = dropped | _DECODED_FIELDS
                length_known = False
        lines = b"%b\r\n%b" % (
            head.reason,
            response_fields(head.fields, dropped, rewrite_url, url_fields),
        )
        redacted = redactor.redact(lines)
        if redacted is not lines and length_known and head.length is not None:
            # A credential of digits must not be redacted within the length.
            fields = response_fields(
                head.fields, dropped | {b"content-length"}, rewrite_url, url_fields
            )
            redacted = redactor.redact(b"%b\r\n%b" % (head.reason, fields))
            redacted += b"Content-Length: %d\r\n" % head.length
        self.framing = _framing(request, bodiless=bodiless, length_known=length_known)
        if self.framing is CHUNKED:
            redacted += b"Transfer-Encoding: chunked\r\n"
        if page is not None:
            cache_control = b", ".join(head.values(b"cache-control")).decode("latin-1")
            redacted += page_fields(page, cache_control)
        self._head = b"HTTP/1.1 %d %b" % (head.code, redacted)

    @property
    def left_out(self) -> str:
        """The content coding for which the body was left out, or its error; else empty."""
        return "" if self._redactor is None else self._redactor.left_out

    def head(self, *more: bytes) -> bytes:
        """The head, with further field lines, each terminated by CRLF."""
        return b"".join((self._head, *more, b"\r\n"))

    def part(self, data: bytes) -> bytes:
        """Rewrite a part of the body. The end of it may be held back until more arrives.

        Raises ValueError if the content coding is malformed behind what has been passed on, or its
        decoded size exceeds _MAX_DECODED.
        """
        if self._redactor is not None:
            data = self._redactor.feed(data)
        return chunk(data) if self.framing is CHUNKED else data

    def end(self, data: bytes) -> bytes:
        """Rewrite the last part of the body. Raises ValueError as ``part`` does."""
        if self._redactor is not None:
            data = self._redactor.last(data)
        return chunk(data) + LAST_CHUNK if self.framing is CHUNKED else data


def _framing(request: Request, *, bodiless: bool, length_known: bool) -> BodyFraming:
    """The framing of a response body for the client of ``request``."""
    if bodiless:
        return NONE
    if length_known:
        return LENGTH
    # HTTP/1.0 has no transfer codings (RFC 9112 section 6.1).
    return CHUNKED if request.version == (1, 1) else UNTIL_CLOSE


class _BodyRedactor:
    """Redacts a credential in a body that may be compressed; the output is not compressed.

    A body that cannot be decoded cannot be redacted, so ``left_out`` takes its place.
    """

    __slots__ = ("_decoder", "_emitted", "_stream", "left_out")

    def __init__(self, redactor: Redactor, coding: str) -> None:
        self._decoder = decoder(coding)
        self._stream = StreamRedactor(redactor)
        self._emitted = False
        self.left_out = "" if self._decoder is not None else f"unsupported ({_shown(coding)})"

    def feed(self, data: bytes) -> bytes:
        """Redact a part. Raises ValueError if it is malformed behind what was returned before."""
        output = self._decode(data)
        self._emitted = self._emitted or bool(output)
        return output

    def last(self, data: bytes) -> bytes:
        """Redact the last part. Raises ValueError as ``feed`` does."""
        output = self._decode(data)
        if self._decoder is not None:
            try:
                self._decoder.finish()
            except ValueError as error:
                self._leave_out(error)
        return LEFT_OUT if self.left_out else output + self._stream.finish()

    def _decode(self, data: bytes) -> bytes:
        if self._decoder is None:
            return b""
        try:
            return b"".join(map(self._stream.feed, _limited(self._decoder.feed(data))))
        except BodyTooLarge:
            raise
        except ValueError as error:
            self._leave_out(error)
            return b""

    def _leave_out(self, error: ValueError) -> None:
        """Replace the body, unless a part of it has been passed on. Raises ``error`` then."""
        if self._emitted:
            raise error
        self._decoder = None
        self.left_out = f"malformed: {error}"


class BodyTooLarge(ValueError):
    """A body that decodes to more than _MAX_DECODED bytes per read."""


def _limited(pieces: Iterator[bytes]) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > _MAX_DECODED:
            raise BodyTooLarge("decoded body is too large")
        yield piece


def _shown(coding: str) -> str:
    """A provider's text, for the log."""
    return ascii(coding[:40])[1:-1]
