"""The built-in provider, so that everything can be tried without a key.

An ordinary aiohttp application on a loopback port of its own: for the data path it is a provider
like any other. It takes a request only if the request is authenticated exactly as its preset says,
so that its response proves what keyrelay did:

HTTP        header ``X-Demo-Key: <key>``, once
WebSocket   query parameter ``demo_key=<key>``, once

and no other credential beside it. Everything else is a 401 that names the fault. No response
ever holds a credential's value, neither the right one nor one that a client sent.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
import json
import math
import re
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, final
from urllib.parse import unquote_plus

from aiohttp import web
from aiohttp.typedefs import Middleware

from proxy.observability.library_logging import types_only

KEY_HEADER: Final = "X-Demo-Key"
KEY_QUERY: Final = "demo_key"
MASK: Final = "••••"
CLOSE_CODE: Final = 4321  # in the range that RFC 6455 section 7.4.2 leaves to private use

_FOREIGN_HEADERS: Final = ("Authorization", "Proxy-Authorization", "Cookie")
_SHOWN_BODY_BYTES: Final = 4 * 1024  # a body that fits into a terminal
_MESSAGE_BYTES: Final = 16 * 1024 * 1024  # as one message is held in memory before it is echoed
_SHUTDOWN_SECONDS: Final = 0.2  # nothing in a demo is worth waiting for

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

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@final
class Demo:
    """The running provider. ``address`` is where it listens: host and port."""

    def __init__(self, runner: web.AppRunner, address: tuple[str, int]) -> None:
        self._runner = runner
        self.address = address

    async def close(self) -> None:
        """Stop listening and end what is in flight. Calling it again does nothing.

        After a cancellation it must be called again.
        """
        await self._runner.cleanup()


async def start(key: bytes, warn: Callable[[str], object] = lambda _line: None) -> Demo:
    """Start the demo provider, which takes ``key`` and nothing else, on 127.0.0.1, any free port.

    The caller owes a ``close``. Raises OSError if no port can be had. A cancelled start leaves
    nothing behind.
    """
    application = web.Application(middlewares=[_explain_errors, _key_check(key)])
    application.on_response_prepare.append(_mark_answer)
    _Endpoints(_Mask(key)).add_to(application.router)
    # Cancelling the handler is how a stream ends at once when its client leaves.
    runner = web.AppRunner(
        application,
        handler_cancellation=True,
        shutdown_timeout=_SHUTDOWN_SECONDS,
        access_log=None,
        logger=types_only("keyrelay.demo", "the demo provider failed at a request", warn),
    )
    try:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
    except BaseException:
        await runner.cleanup()
        raise
    host, port = runner.addresses[0]
    return Demo(runner, (host, port))


async def _mark_answer(_request: web.Request, response: web.StreamResponse) -> None:
    """Mark every response as the demo's, and as not to be cached."""
    response.headers["Server"] = "keyrelay-demo"
    response.headers["Cache-Control"] = "no-store"


@web.middleware
async def _explain_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Errors of the router and of the handlers, as JSON."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        response = _json({"error": error.text or error.reason}, error.status)
        allowed = error.headers.get("Allow")
        if allowed:
            response.headers["Allow"] = allowed
        return response


def _key_check(key: bytes) -> Middleware:
    """Let nothing in but the key, where the preset puts it, once."""

    @web.middleware
    async def check(request: web.Request, handler: _Handler) -> web.StreamResponse:
        complaint = _complaint(request, key)
        if complaint is None:
            return await handler(request)
        response = _json({"error": complaint}, 401)
        response.headers["WWW-Authenticate"] = f'{KEY_HEADER} realm="demo"'
        return response

    return check


def _complaint(request: web.Request, key: bytes) -> str | None:
    """What is wrong with the request's credentials, without any of their values."""
    for name in _FOREIGN_HEADERS:
        if name in request.headers:
            return f"the header {name} reached the demo provider; it takes {KEY_HEADER} alone"
    in_header = [value for name, value in request.raw_headers if _is_key_header(name)]
    in_query = [
        unquote_plus(pair.partition("=")[2]).encode()
        for pair in request.raw_path.partition("?")[2].split("&")
        if _is_key_pair(pair)
    ]
    header, query = f"the header {KEY_HEADER}", f"the query parameter {KEY_QUERY}"
    if _is_websocket(request):
        kind, place, found, other, wrong = "a WebSocket", query, in_query, header, in_header
    else:
        kind, place, found, other, wrong = "an HTTP request", header, in_header, query, in_query
    if wrong:
        return f"{kind} must not bring {other}"
    if not found:
        return f"{kind} needs {place}"
    if len(found) > 1:
        return f"{place} is there {len(found)} times; once is right"
    if not hmac.compare_digest(found[0], key):
        return f"{place} does not hold the demo key"
    return None


@final
@dataclass(frozen=True, slots=True)
class _Mask:
    """Shows a request without the credential in it, wherever in it that stands."""

    key: bytes

    def text(self, value: str) -> str:
        return value.replace(self.key.decode("latin-1"), MASK)

    def request(self, request: web.Request) -> dict[str, object]:
        """What reached the provider: method, raw target, headers in their order."""
        path, mark, query = request.raw_path.partition("?")
        pairs = [
            f"{pair.partition('=')[0]}={MASK}" if _is_key_pair(pair) else pair
            for pair in query.split("&")
        ]
        headers = [
            [
                name.decode("latin-1"),
                MASK if _is_key_header(name) else self.text(value.decode("utf-8", "replace")),
            ]
            for name, value in request.raw_headers
        ]
        target = self.text(path + mark + "&".join(pairs))
        return {"method": request.method, "target": target, "headers": headers}


@final
@dataclass(frozen=True, slots=True)
class _Endpoints:
    """What there is to try."""

    mask: _Mask

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Route every path to its endpoint."""
        router.add_get("/", self.index)
        router.add_route("*", "/echo/{anything:.*}", self.echo)
        router.add_get("/sse", self.sse)
        router.add_get("/ndjson", self.ndjson)
        router.add_get("/audio", self.audio)
        router.add_route("*", r"/status/{code:\d+}", self.status)
        router.add_get("/slow", self.slow)
        router.add_get("/ws", self.websocket)

    async def index(self, _request: web.Request) -> web.StreamResponse:
        """List the endpoints."""
        return _json({"provider": "keyrelay's demo", "try": _TO_TRY})

    async def echo(self, request: web.Request) -> web.StreamResponse:
        """Report what arrived. A small text body is shown, any other only measured."""
        length, start, digest = 0, bytearray(), hashlib.sha256()
        async for chunk in request.content.iter_any():
            length += len(chunk)
            digest.update(chunk)
            start += chunk[: _SHOWN_BODY_BYTES - len(start)]
        shown = self.mask.request(request)
        shown |= {"body_length": length, "body_sha256": digest.hexdigest()}
        text = _as_text(bytes(start)) if 0 < length <= _SHOWN_BODY_BYTES else None
        if text is not None:
            shown["body"] = self.mask.text(text)
        return _json(shown)

    async def sse(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events, ``n`` of them."""
        count = _number(request, "n", 5, 1, 100)

        def events() -> Iterator[bytes]:
            for number in range(1, count + 1):
                data = json.dumps({"number": number, "of": count})
                yield f"id: {number}\nevent: tick\ndata: {data}\n\n".encode()

        return await _stream(request, "text/event-stream", events(), 300)

    async def ndjson(self, request: web.Request) -> web.StreamResponse:
        """Newline-delimited JSON, ``n`` lines."""
        count = _number(request, "n", 5, 1, 100)
        lines = (
            json.dumps({"number": number, "of": count}).encode() + b"\n"
            for number in range(1, count + 1)
        )
        return await _stream(request, "application/x-ndjson", lines, 300)

    async def audio(self, request: web.Request) -> web.StreamResponse:
        """One second of a tone, chunked as speech interfaces send it."""
        sound = _wav()
        size = math.ceil(len(sound) / _AUDIO_PIECES)
        pieces = (sound[at : at + size] for at in range(0, len(sound), size))
        return await _stream(request, "audio/wav", pieces, 100)

    async def status(self, request: web.Request) -> web.StreamResponse:
        """Respond with the status that the path names."""
        code = int(request.match_info["code"][:4])
        if not 200 <= code <= 599:
            raise web.HTTPBadRequest(text="the status must be from 200 to 599")
        if code in (204, 205, 304):  # RFC 9110: these have no content
            return web.Response(status=code)
        response = _json({"status": code, "because": "you asked for it"}, code)
        if code in (429, 503):
            response.headers["Retry-After"] = "1"
        return response

    async def slow(self, request: web.Request) -> web.StreamResponse:
        """Respond after ``seconds``."""
        seconds = _number(request, "seconds", 2, 0, 60)
        await asyncio.sleep(seconds)
        return _json({"waited_seconds": seconds})

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        """Report the handshake, then echo until the client closes."""
        if not _is_websocket(request):
            raise web.HTTPBadRequest(text="/ws is a WebSocket; open it with ws://")
        socket = web.WebSocketResponse(max_msg_size=_MESSAGE_BYTES)
        await socket.prepare(request)
        await socket.send_str(json.dumps(self.mask.request(request), ensure_ascii=False))
        async for message in socket:
            if message.type is web.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            elif message.data == "close":
                await socket.close(code=CLOSE_CODE, message=b"you asked for it")
            elif message.type is web.WSMsgType.TEXT:
                await socket.send_str(message.data)
        return socket


def _is_websocket(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").strip().lower() == "websocket"


def _is_key_header(name: bytes) -> bool:
    return name.lower() == KEY_HEADER.lower().encode()


def _is_key_pair(pair: str) -> bool:
    """Whether a raw ``name=value`` of a query is the key's, however its name is escaped."""
    return unquote_plus(pair.partition("=")[0]) == KEY_QUERY


def _number(request: web.Request, name: str, default: int, least: int, most: int) -> int:
    """A whole number from the query; HTTPBadRequest with the reason if it is not in range."""
    text = request.query.get(name, str(default))
    if re.fullmatch(r"[0-9]{1,6}", text) is None or not least <= int(text) <= most:
        raise web.HTTPBadRequest(text=f"{name} must be a whole number from {least} to {most}")
    return int(text)


def _as_text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _json(content: Mapping[str, object], status: int = 200) -> web.Response:
    """JSON as one likes to read it in a terminal: a line per member, and per item of a list."""
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
    return web.Response(text=text, status=status, content_type="application/json")


async def _stream(
    request: web.Request, content_type: str, pieces: Iterator[bytes], interval_ms: int
) -> web.StreamResponse:
    """Send ``pieces`` one by one, ``interval_ms`` apart (the query may set it).

    Ends as soon as the client leaves: aiohttp cancels the handler then.
    """
    interval = _number(request, "interval_ms", interval_ms, 0, 5000) / 1000
    response = web.StreamResponse(headers={"Content-Type": content_type})
    await response.prepare(request)
    for number, piece in enumerate(pieces):
        if number:
            await asyncio.sleep(interval)
        await response.write(piece)
    await response.write_eof()
    return response


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
