"""Responses of the demo provider, and writing them to a client connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from proxy.http.request import Request
from proxy.server.connection import ClientConnection

JSON: Final = "application/json; charset=utf-8"

# RFC 9110: responses with these statuses have no content, the first two no length either.
_WITHOUT_LENGTH = (204, 304)
_WITHOUT_CONTENT = (*_WITHOUT_LENGTH, 205)


@dataclass(frozen=True, slots=True)
class Response:
    """A response that is complete. ``fields`` are further header fields."""

    status: int = 200
    content: bytes = b""
    content_type: str | None = None
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Delayed:
    """A response that is sent after some seconds."""

    response: Response
    seconds: float


@dataclass(frozen=True, slots=True)
class Stream:
    """Pieces of content that are sent one by one, some seconds apart."""

    content_type: str
    pieces: Iterator[bytes]
    interval_seconds: float


class Problem(Exception):
    """A request that cannot be served, with the response for it."""

    def __init__(self, status: int, message: str, *fields: tuple[str, str]) -> None:
        super().__init__(message)
        self.response = json_response({"error": message}, status, *fields)


def json_response(
    content: Mapping[str, object], status: int = 200, *fields: tuple[str, str]
) -> Response:
    """JSON for reading in a terminal: a line per member, and per item of a list."""
    lines = []
    for name, value in content.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and value:
            items = (json.dumps(item, ensure_ascii=False) for item in value)
            text = "[\n    " + ",\n    ".join(items) + "\n  ]"
        elif isinstance(value, dict):
            text = json.dumps(value, ensure_ascii=False, indent=4).replace("\n}", "\n  }")
        lines.append(f"  {json.dumps(name)}: {text}")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    return Response(status, text.encode(), JSON, fields)


def write(client: ClientConnection, request: Request, response: Response) -> None:
    """Send a complete response, and end the exchange."""
    fields = list(response.fields)
    if response.content_type is not None:
        fields.append(("Content-Type", response.content_type))
    if response.status not in _WITHOUT_LENGTH:
        fields.append(("Content-Length", str(len(response.content))))
    close = client.must_close
    head = _head(response.status, fields, close=close)
    shown = request.method != "HEAD" and response.status not in _WITHOUT_CONTENT
    client.write(head + response.content if shown else head)
    client.done(close=close)


async def write_stream(
    client: ClientConnection, request: Request, stream: Stream, writable: asyncio.Event
) -> None:
    """Send a stream, chunked for HTTP/1.1, and end the exchange.

    ``writable`` is set while the client takes data. A cancelled stream remains incomplete.
    """
    chunked = request.version == (1, 1)
    close = client.must_close or not chunked
    fields = [("Content-Type", stream.content_type)]
    if chunked:
        fields.append(("Transfer-Encoding", "chunked"))
    client.write(_head(200, fields, close=close))
    if request.method != "HEAD":
        for number, piece in enumerate(stream.pieces):
            if number:
                await asyncio.sleep(stream.interval_seconds)
            await writable.wait()
            client.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            client.write(b"0\r\n\r\n")
    client.done(close=close)


def switching_protocols(accept: str) -> bytes:
    """The response that accepts a WebSocket handshake (RFC 6455 section 4.2.2)."""
    return _head(
        101,
        [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)],
        close=False,
    )


def _head(status: int, fields: list[tuple[str, str]], *, close: bool) -> bytes:
    """Status line and header section, marked as the demo's and as not to be cached."""
    phrase = HTTPStatus(status).phrase if status in _KNOWN else ""
    always = [
        ("Server", "keyrelay-demo"),
        ("Cache-Control", "no-store"),
        ("Date", formatdate(usegmt=True)),
        *([("Connection", "close")] if close else []),
    ]
    lines = "".join(f"{name}: {value}\r\n" for name, value in (*fields, *always))
    return f"HTTP/1.1 {status} {phrase}\r\n{lines}\r\n".encode("latin-1")


_KNOWN = frozenset(int(one) for one in HTTPStatus)
