"""Parse a response that is not simple: interim responses, chunks, trailers, and unknown lengths.

Without I/O: bytes go in, a begun response and parts of its body come out. Responses with a simple
header section and a known length never come here; see ``http.response.parse_simple_head``.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from proxy.errors import UpstreamFailure
from proxy.http import malformed
from proxy.http import parser as http_parser
from proxy.http.framing import CHUNKED, LENGTH, NONE, UNTIL_CLOSE, BodyFraming
from proxy.http.response import ResponseHead

_BLANK_LINE = b"\r\n\r\n"
_VERSIONS = frozenset({(1, 0), (1, 1)})
# Bytes of a response's header sections, those of interim responses included, and of its trailers.
_MAX_HEAD_BYTES = 256 * 1024


class BegunResponse(NamedTuple):
    """The head of a final response, or of a 101 response.

    body     the part of the body that arrived with it, without framing; after a 101 response bytes
             of the other protocol
    framing  of a body that continues; NONE if it is complete
    exact    whether no bytes follow the complete response
    """

    head: ResponseHead
    body: bytes
    framing: BodyFraming
    exact: bool = False


class ResponseParser:
    """Parses one response. Its methods raise UpstreamFailure for one that is not well-formed."""

    __slots__ = ("_head_bytes", "_head_tail", "_parser", "_payload")

    def __init__(self, loop: asyncio.AbstractEventLoop, *, head_only: bool) -> None:
        """``head_only``: the response to HEAD, which has no body."""
        self._parser = http_parser.response_parser(loop, head_only=head_only)
        # The chunked body that is being received.
        self._payload: http_parser.Body | None = None
        # Bytes of the current header sections so far, and the last three of them.
        self._head_bytes = 0
        self._head_tail = b""

    def begin(self, data: bytes) -> BegunResponse | None:
        """Parse bytes before the body. None until the header section is complete.

        Parses one header section at a time. Bytes behind a response that has no body thus do not
        make the response malformed.
        """
        left = data
        try:
            while left:
                section, left = self._split_section(left)
                self._count_head(len(section))
                messages, _, tail = self._parser.feed_data(section)
                for position, (message, payload) in enumerate(messages, 1):
                    head = http_parser.response_head(message)
                    if head.code == 101:
                        return BegunResponse(head, tail + left, NONE)
                    # Interim responses may be dropped (RFC 9110 section 15.2).
                    if head.code >= 200:
                        last = position == len(messages) and not left
                        if left and not payload.is_eof():
                            last = not self._parser.feed_data(left)[0]
                        return self._begun(message, head, payload, data, last=last)
                    if head.code < 100 or payload.read_nowait() or not payload.is_eof():
                        # An interim response has no body (RFC 9112 section 6.3).
                        raise _protocol_error("The provider's interim response is invalid.")
        except http_parser.HttpProcessingError as error:
            raise _malformed(malformed.reason(error)) from None
        except ValueError as error:
            raise _malformed(str(error)) from None
        return None

    def chunks(self, data: bytes) -> tuple[bytes, bool, bool]:
        """Parse a part of a chunked body: content, whether it ended, and ``exact``."""
        assert self._payload is not None
        try:
            messages, _, _ = self._parser.feed_data(data)
        except http_parser.HttpProcessingError as error:
            raise _malformed(malformed.reason(error)) from None
        body = self._payload.read_nowait()
        if self._payload.is_eof():
            return body, True, not messages and data.endswith(_BLANK_LINE)
        if body:
            self._head_bytes = 0
        else:
            # Of a trailer section, or of the line before a chunk.
            self._count_head(len(data))
        return body, False, False

    def _begun(
        self,
        message: http_parser.ParsedResponse,
        head: ResponseHead,
        payload: http_parser.Body,
        data: bytes,
        *,
        last: bool,
    ) -> BegunResponse:
        """Determine the framing of the body (RFC 9112 section 6.3)."""
        if message.version not in _VERSIONS:
            raise _protocol_error("The provider does not speak HTTP/1.1.")
        codings = [coding.lower() for coding in head.values(b"transfer-encoding")]
        if codings and (message.version == (1, 0) or codings != [b"chunked"]):
            # In HTTP/1.0 a transfer coding means faulty framing (RFC 9112 section 6.1).
            raise UpstreamFailure(
                "http_response_transfer_coding", "The provider used a transfer coding."
            )
        body = payload.read_nowait()
        if payload.is_eof():
            rest = _BLANK_LINE if codings else _BLANK_LINE + body
            return BegunResponse(head, body, NONE, last and data.endswith(rest))
        if codings:
            self._payload = payload
            return BegunResponse(head, body, CHUNKED)
        return BegunResponse(head, body, UNTIL_CLOSE if head.length is None else LENGTH)

    def _split_section(self, data: bytes) -> tuple[bytes, bytes]:
        """``data`` up to the end of the current header section, and the rest."""
        known = self._head_tail
        end = (known + data).find(_BLANK_LINE)
        if end < 0:
            self._head_tail = (known + data[-3:])[-3:]
            return data, b""
        self._head_tail = b""
        size = end + len(_BLANK_LINE) - len(known)
        return data[:size], data[size:]

    def _count_head(self, size: int) -> None:
        """Count bytes of header and trailer sections, which are bounded."""
        self._head_bytes += size
        if self._head_bytes > _MAX_HEAD_BYTES:
            raise UpstreamFailure(
                "http_response_header_section_size",
                "The header section of the provider's response is over 256 KiB.",
            )


def _malformed(what: str) -> UpstreamFailure:
    """``what`` is a constant text, without any byte of the response."""
    return _protocol_error(f"The provider's response is not well-formed HTTP: {what}.")


def _protocol_error(detail: str) -> UpstreamFailure:
    return UpstreamFailure("http_protocol_error", detail)
