"""The endpoints of the demo provider: what there is to try."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, final
from urllib.parse import parse_qs, unquote, unquote_plus

from proxy.demo.responses import Delayed, Problem, Response, Stream, json_response
from proxy.http.request import Request

KEY_HEADER: Final = "X-Demo-Key"
KEY_QUERY: Final = "demo_key"
MASK: Final = "••••"

_SHOWN_BODY_BYTES: Final = 4 * 1024  # a body that fits into a terminal

_SAMPLE_RATE: Final = 16_000  # samples per second: what speech interfaces use
_TONE_HZ: Final = 440
_AUDIO_PIECES: Final = 10

_TO_TRY: Final = {
    "/echo/any/path?any=query": "what reached the provider, for any method",
    "/sse?n=5&interval_ms=300": "server-sent events",
    "/ndjson?n=5&interval_ms=300": "a JSON document per line",
    "/audio?interval_ms=100": "one second of sound, in pieces",
    "/status/429": "an answer with that status",
    "/slow?seconds=2": "an answer that takes its time",
    "/ws": "a WebSocket that echoes; send close to see it closed with 4321",
}


@final
@dataclass(frozen=True, slots=True)
class Mask:
    """Shows a request without the credential in it, wherever in it that stands."""

    key: bytes

    def text(self, value: str) -> str:
        return value.replace(self.key.decode("latin-1"), MASK)

    def request(self, request: Request) -> dict[str, object]:
        """What reached the provider: method, raw target, headers in their order."""
        path, mark, query = request.target.decode("utf-8", "replace").partition("?")
        pairs = [
            f"{pair.partition('=')[0]}={MASK}" if is_key_pair(pair) else pair
            for pair in query.split("&")
        ]
        headers = [
            [
                name.decode("latin-1"),
                MASK if is_key_header(name) else self.text(value.decode("utf-8", "replace")),
            ]
            for name, value in request.raw_headers
        ]
        target = self.text(path + mark + "&".join(pairs))
        return {"method": request.method, "target": target, "headers": headers}


class Echo:
    """The echo of one request: its body is measured, and shown if it is small and text."""

    def __init__(self, request: Request, mask: Mask) -> None:
        self._shown = mask.request(request)
        self._mask = mask
        self._length = 0
        self._start = bytearray()
        self._digest = hashlib.sha256()

    def add(self, data: bytes) -> None:
        """Take the next part of the body."""
        self._length += len(data)
        self._digest.update(data)
        self._start += data[: _SHOWN_BODY_BYTES - len(self._start)]

    def response(self) -> Response:
        """The response, once the body is complete."""
        shown = self._shown | {
            "body_length": self._length,
            "body_sha256": self._digest.hexdigest(),
        }
        text = _as_text(bytes(self._start)) if 0 < self._length <= _SHOWN_BODY_BYTES else None
        if text is not None:
            shown["body"] = self._mask.text(text)
        return json_response(shown)


@dataclass(frozen=True, slots=True)
class WebSocket:
    """The outcome of a handshake that is accepted."""


Outcome = Response | Delayed | Stream | Echo | WebSocket


def outcome(request: Request, mask: Mask) -> Outcome:
    """What the request leads to. Raises Problem for a request without an endpoint."""
    path = unquote(request.path.decode("latin-1"))
    if path.startswith("/echo/"):
        return Echo(request, mask)
    status = re.fullmatch(r"/status/([0-9]+)", path)
    if status is not None:
        return _status(int(status[1][:4]))
    endpoint = _GET.get(path)
    if endpoint is None:
        raise Problem(404, "404: Not Found")
    if request.method not in ("GET", "HEAD"):
        raise Problem(405, "405: Method Not Allowed", ("Allow", "GET, HEAD"))
    return endpoint(request)


def _index(_request: Request) -> Outcome:
    """List the endpoints."""
    return json_response({"provider": "keyrelay's demo", "try": _TO_TRY})


def _sse(request: Request) -> Outcome:
    """Server-sent events, ``n`` of them."""
    count = _number(request, "n", 5, 1, 100)

    def events() -> Iterator[bytes]:
        for number in range(1, count + 1):
            data = json.dumps({"number": number, "of": count})
            yield f"id: {number}\nevent: tick\ndata: {data}\n\n".encode()

    return Stream("text/event-stream", events(), _interval(request, 300))


def _ndjson(request: Request) -> Outcome:
    """Newline-delimited JSON, ``n`` lines."""
    count = _number(request, "n", 5, 1, 100)
    lines = (
        json.dumps({"number": number, "of": count}).encode() + b"\n"
        for number in range(1, count + 1)
    )
    return Stream("application/x-ndjson", lines, _interval(request, 300))


def _audio(request: Request) -> Outcome:
    """One second of a tone, chunked as speech interfaces send it."""
    sound = _wav()
    size = math.ceil(len(sound) / _AUDIO_PIECES)
    pieces = (sound[at : at + size] for at in range(0, len(sound), size))
    return Stream("audio/wav", pieces, _interval(request, 100))


def _status(code: int) -> Outcome:
    """Respond with the status that the path names."""
    if not 200 <= code <= 599:
        raise Problem(400, "the status must be from 200 to 599")
    if code in (204, 205, 304):  # RFC 9110: these have no content
        return Response(code)
    fields = [("Retry-After", "1")] if code in (429, 503) else []
    return json_response({"status": code, "because": "you asked for it"}, code, *fields)


def _slow(request: Request) -> Outcome:
    """Respond after ``seconds``."""
    seconds = _number(request, "seconds", 2, 0, 60)
    return Delayed(json_response({"waited_seconds": seconds}), seconds)


def _websocket(request: Request) -> Outcome:
    """Report the handshake, then echo until the client closes."""
    if not is_websocket(request):
        raise Problem(400, "/ws is a WebSocket; open it with ws://")
    return WebSocket()


_GET: dict[str, Callable[[Request], Outcome]] = {
    "/": _index,
    "/sse": _sse,
    "/ndjson": _ndjson,
    "/audio": _audio,
    "/slow": _slow,
    "/ws": _websocket,
}


def is_websocket(request: Request) -> bool:
    """Whether the request asks for a WebSocket."""
    return request.headers.get("Upgrade", "").strip().lower() == "websocket"


def is_key_header(name: bytes) -> bool:
    """Whether a field name is the key's."""
    return name.lower() == KEY_HEADER.lower().encode()


def is_key_pair(pair: str) -> bool:
    """Whether a raw ``name=value`` of a query is the key's, however its name is escaped."""
    return unquote_plus(pair.partition("=")[0]) == KEY_QUERY


def _number(request: Request, name: str, default: int, least: int, most: int) -> int:
    """A whole number from the query; Problem with the reason if it is not in range."""
    query = parse_qs((request.query or b"").decode("latin-1"), keep_blank_values=True)
    text = query.get(name, [str(default)])[0]
    if re.fullmatch(r"[0-9]{1,6}", text) is None or not least <= int(text) <= most:
        raise Problem(400, f"{name} must be a whole number from {least} to {most}")
    return int(text)


def _interval(request: Request, default_ms: int) -> float:
    """The seconds between two pieces of a stream, from the query's milliseconds."""
    return _number(request, "interval_ms", default_ms, 0, 5000) / 1000


def _as_text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


@functools.cache
def _wav() -> bytes:
    """One second of a sine tone, 16 bit, one channel, in a RIFF file with its length."""
    loudness = 0.3 * 0x7FFF  # moderate volume
    samples = struct.pack(
        f"<{_SAMPLE_RATE}h",
        *(
            round(loudness * math.sin(2 * math.pi * _TONE_HZ * at / _SAMPLE_RATE))
            for at in range(_SAMPLE_RATE)
        ),
    )
    form = struct.pack("<HHIIHH", 1, 1, _SAMPLE_RATE, _SAMPLE_RATE * 2, 2, 16)
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks
