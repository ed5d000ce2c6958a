"""Every provider at once, on port 443 of loopback: it judges what arrives and answers in kind.

It is strict. A request has to bring the one credential of its host at the one place where that host
takes it, and nothing of a client's own; what the table of responses does not have is a 404.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from aiohttp import WSMsgType, web

from tests.clients.credentials import Expected, expected
from tests.clients.responses import Session, Stream, response
from tests.emulators import carriers

DUMMY = "unused"
"""What every key that a client is given contains, in any case of letters."""

_KEPT_BYTES = 64 * 1024
_START_SECONDS = 10.0


@dataclass(slots=True)
class Arrival:
    """One request, or one WebSocket with its messages.

    faults  what is wrong with it; empty if it is as it has to be
    frames  whether the client's dummy stood in a message
    """

    method: str
    host: str
    target: str
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    body_length: int = 0
    messages: list[str | bytes] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    frames: bool = False

    @property
    def name(self) -> str:
        """``METHOD host/path``, without the query."""
        return f"{self.method} {self.host}{self.target.partition('?')[0]}"


class Recorder:
    """The server, in a thread and event loop of its own, since the tests wait for programs.

    arrivals  everything since ``clear``, token endpoints aside
    tokens    calls of token endpoints since then
    """

    def __init__(self, context: ssl.SSLContext, values: Mapping[str, str]) -> None:
        self._context = context
        self._values = values
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._started = threading.Event()
        self._stop = asyncio.Event()
        self.arrivals: list[Arrival] = []
        self.tokens: list[Arrival] = []

    def start(self) -> None:
        """Listen on 127.0.0.1:443."""
        self._thread.start()
        if not self._started.wait(_START_SECONDS):
            raise RuntimeError("the recorder does not listen")

    def stop(self) -> None:
        """Close every connection and end the thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_SECONDS)

    def clear(self) -> None:
        """Forget what arrived."""
        self.arrivals.clear()
        self.tokens.clear()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = web.Server(self._handle, access_log=None, auto_decompress=False)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 443, ssl_context=self._context).start()
        self._started.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        websocket = request.headers.get("Upgrade", "").lower() == "websocket"
        arrival = Arrival(
            "WS" if websocket else request.method,
            request.headers.get("Host", "").removesuffix(":443"),
            request.raw_path,
            list(request.raw_headers),
        )
        wanted = expected(arrival.host, arrival.target, websocket, self._values)
        (self.tokens if wanted.token_endpoint else self.arrivals).append(arrival)
        if not websocket:
            await _read(request, arrival)
        self._judge(arrival, wanted)
        if arrival.faults:
            return web.json_response({"error": {"message": "; ".join(arrival.faults)}}, status=401)
        found = response(arrival.method, arrival.host, arrival.target, arrival.body)
        if found is None:
            arrival.faults.append("the provider has no such endpoint")
            return web.json_response({"error": {"message": "not found"}}, status=404)
        if isinstance(found, Session):
            return await _converse(request, arrival, found, wanted.credential or "")
        if isinstance(found, Stream):
            return await _stream(request, found)
        return web.Response(
            status=found.status,
            body=found.content,
            headers={"Content-Type": found.content_type, **found.headers},
        )

    def _judge(self, arrival: Arrival, wanted: Expected) -> None:
        if wanted.credential is None and not wanted.token_endpoint:
            arrival.faults.append("no such provider")
            return
        found = [str(one) for one in _credentials(arrival, wanted)]
        kind, _, beginning = (wanted.credential or "").partition(" ")
        if kind == "path" and arrival.target.startswith(beginning):
            found.append(f"path {beginning}")
        if kind == "message":
            if found:
                arrival.faults.append(f"arrived with {found}")
        elif wanted.credential is not None and found != [wanted.credential]:
            arrival.faults.append(f"arrived with {found or 'no credential'}")
        head = [value.decode("latin-1") for _, value in arrival.headers]
        for text in (arrival.target, *head, arrival.body.decode("latin-1")):
            if holds_dummy(text):
                arrival.faults.append("the client's own key is still in it")
                break
        for value in self._values.values():
            if value.encode() in arrival.body:
                arrival.faults.append("a real key is in the body")


@dataclass(frozen=True, slots=True)
class _Found:
    """A credential as ``credentials`` writes them: ``header x-api-key: value``."""

    carrier: carriers.Carrier

    def __str__(self) -> str:
        return f"{self.carrier}: {self.carrier.value}"


def _credentials(arrival: Arrival, wanted: Expected) -> list[_Found]:
    found = [_Found(one) for one in carriers.find(arrival.target, arrival.headers, wanted.harmless)]
    for name, value in arrival.headers:
        if name.decode("latin-1").lower() in wanted.headers:
            carrier = carriers.Carrier("header", name.decode().lower(), value.decode("latin-1"))
            found.append(_Found(carrier))
    return found


def holds_dummy(text: str) -> bool:
    """Whether a dummy key is in the text, percent-encoded or in Base64 too."""
    return any(DUMMY in form.lower() for form in (text, unquote_plus(text), *_decoded(text)))


def _decoded(text: str) -> Iterator[str]:
    for part in text.replace(",", " ").split():
        try:
            yield base64.b64decode(part, validate=True).decode("latin-1")
        except (binascii.Error, ValueError):
            continue


async def _read(request: web.BaseRequest, arrival: Arrival) -> None:
    async for chunk in request.content.iter_any():
        arrival.body_length += len(chunk)
        arrival.body += chunk[: _KEPT_BYTES - len(arrival.body)]


async def _stream(request: web.BaseRequest, found: Stream) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": found.content_type})
    await answer.prepare(request)
    for piece in found.pieces:
        await answer.write(piece)
        await asyncio.sleep(0.01)  # so that the pieces are pieces on the wire
    await answer.write_eof()
    return answer


async def _converse(
    request: web.BaseRequest, arrival: Arrival, session: Session, credential: str
) -> web.StreamResponse:
    """Greet; reply to the first message; read until the client closes, or close by itself.

    The first message has the ``credential``, if that is a member of one.
    """
    offered = carriers.subprotocols(request.headers.get("Sec-WebSocket-Protocol", ""))
    socket = web.WebSocketResponse(protocols=offered[:1], max_msg_size=0)
    await socket.prepare(request)
    await _send(socket, session.greeting)
    replied = False
    async for message in socket:
        if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            continue
        if not arrival.messages and credential.startswith("message "):
            name, _, value = credential.removeprefix("message ").partition(": ")
            if json.loads(message.data).get(name) != value:
                arrival.faults.append("the first message has no credential")
                break
        arrival.messages.append(message.data)
        text = message.data if isinstance(message.data, str) else ""
        arrival.frames = arrival.frames or holds_dummy(text)
        if not replied and session.trigger in text:
            replied = True
            await _send(socket, session.replies, _request_id(text))
            if session.closes:
                await socket.close()
    return socket


async def _send(
    socket: web.WebSocketResponse, messages: tuple[str | bytes, ...], request: str = ""
) -> None:
    for message in messages:
        if isinstance(message, str):
            await socket.send_str(message.replace("{request}", request))
        else:
            await socket.send_bytes(message)


def _request_id(text: str) -> str:
    found = re.search(r"^X-RequestId:\s*(\S+)", text, re.MULTILINE | re.IGNORECASE)
    return found[1] if found else ""
