"""The built-in provider, so that everything can be tried without a key.

A server on a loopback port of its own: for the data path it is a provider like any other. It takes
a request only if the request is authenticated exactly as its preset says, so that its response
proves what keyrelay did:

HTTP        header ``X-Demo-Key: <key>``, once
WebSocket   query parameter ``demo_key=<key>``, once

and no other credential beside it. Everything else is a 401 that names the fault. No response
ever holds a credential's value, neither the right one nor one that a client sent.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, final
from urllib.parse import unquote_plus

from proxy.demo.endpoints import (
    KEY_HEADER,
    KEY_QUERY,
    Echo,
    Mask,
    WebSocket,
    is_key_header,
    is_key_pair,
    is_websocket,
    outcome,
)
from proxy.demo.responses import (
    Delayed,
    Problem,
    Response,
    Stream,
    switching_protocols,
    write,
    write_stream,
)
from proxy.demo.websocket import EchoSocket, accept_value
from proxy.errors import Refusal
from proxy.http.request import Request
from proxy.server.connection import ClientConnection
from proxy.websocket.handshake import check_handshake

_FOREIGN_HEADERS: Final = ("Authorization", "Proxy-Authorization", "Cookie")
# Seconds that open WebSockets get for their closing handshake: a demo is not worth more.
_SHUTDOWN_SECONDS: Final = 0.2
_TICK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Timeouts:
    """Timeouts of connections, in seconds; the client is this process."""

    head_seconds: float = 15.0
    keepalive_seconds: float = 75.0
    dead_peer_seconds: float = 0.0


@final
class Demo:
    """The running provider. ``address`` is where it listens: host and port."""

    def __init__(
        self, key: bytes, warn: Callable[[str], object], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.address = ("", 0)
        self._key = key
        self._mask = Mask(key)
        self._warn = warn
        self._loop = loop
        self._clients: set[ClientConnection] = set()
        self._sockets: set[EchoSocket] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._tick: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Listen on 127.0.0.1, any free port. Raises OSError."""
        self._server = await self._loop.create_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = (host, port)

    async def close(self) -> None:
        """Stop listening and end what is in flight. Calling it again does nothing.

        After a cancellation it must be called again.
        """
        if self._server is not None:
            self._server.close()
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        for task in self._tasks:
            task.cancel()
        for client in list(self._clients):
            client.abort()
        for socket in list(self._sockets):
            socket.close()
        waits = [*self._tasks]
        if self._sockets:
            waits.append(self._loop.create_task(asyncio.sleep(_SHUTDOWN_SECONDS)))
        if waits:
            await asyncio.wait(waits)
        for socket in list(self._sockets):
            socket.abort()
        await asyncio.sleep(0)  # for the transports, which end in the next iteration

    # -- connections ---------------------------------------------------------------------------

    def _accept(self) -> ClientConnection:
        if self._tick is None:
            self._tick = self._loop.call_later(_TICK_SECONDS, self._expire)
        return ClientConnection(self._handle, self._clients, _Timeouts(), self._loop)

    def _expire(self) -> None:
        """Close connections whose deadline has passed; again in a second while there are any."""
        self._tick = None
        for client in list(self._clients):
            client.expire(self._loop.time())
        if self._clients:
            self._tick = self._loop.call_later(_TICK_SECONDS, self._expire)

    def _spawn(self, exchange: _Exchange, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run the rest of an exchange, which ends when its client leaves."""

        def finished(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self._warn(f"the demo provider failed at a request ({type(error).__name__})")
                exchange.client.abort()

        exchange.task = self._loop.create_task(coroutine)
        self._tasks.add(exchange.task)
        exchange.task.add_done_callback(finished)

    # -- requests ------------------------------------------------------------------------------

    def _handle(
        self, request: Request, client: ClientConnection, data: bytes, ended: bool
    ) -> _Exchange | None:
        """Respond at once, or return what continues the exchange. See ``ClientConnection``."""
        try:
            _check_key(request, self._key)
            found = outcome(request, self._mask)
            if isinstance(found, WebSocket):
                self._open_socket(request, client)
                return None
        except Problem as problem:
            write(client, request, problem.response)
            return None
        if isinstance(found, Response):
            write(client, request, found)
            return None
        exchange = _Exchange(client, request, found if isinstance(found, Echo) else None)
        if isinstance(found, Echo):
            if ended:
                found.add(data)
                write(client, request, found.response())
                return None
            if request.headers.get("Expect", "").lower() == "100-continue":
                client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            found.add(data)
        elif isinstance(found, Stream):
            self._spawn(exchange, write_stream(client, request, found, exchange.writable))
        else:
            self._spawn(exchange, exchange.write_later(found))
        return exchange

    def _open_socket(self, request: Request, client: ClientConnection) -> None:
        """Accept a handshake. Raises Problem for an invalid one."""
        try:
            check_handshake(request)
        except Refusal as refusal:
            raise Problem(refusal.status, refusal.detail, *refusal.headers) from None
        client.write(switching_protocols(accept_value(request.headers["Sec-WebSocket-Key"])))
        early = client.take_early_bytes()
        client.detach()
        socket = EchoSocket(client.transport, self._loop, self._sockets.discard)
        self._sockets.add(socket)
        socket.start(json.dumps(self._mask.request(request), ensure_ascii=False), early)


async def start(key: bytes, warn: Callable[[str], object] = lambda _line: None) -> Demo:
    """Start the demo provider, which takes ``key`` and nothing else, on 127.0.0.1, any free port.

    The caller owes a ``close``. Raises OSError if no port can be had.
    """
    demo = Demo(key, warn, asyncio.get_running_loop())
    await demo.open()
    return demo


@final
class _Exchange:
    """A request whose body is still arriving, or whose response takes time."""

    def __init__(self, client: ClientConnection, request: Request, echo: Echo | None) -> None:
        self.client = client
        self._request = request
        self._echo = echo
        self.task: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()

    async def write_later(self, delayed: Delayed) -> None:
        """Send a response after its delay."""
        await asyncio.sleep(delayed.seconds)
        write(self.client, self._request, delayed.response)

    def on_request_body(self, data: bytes, *, ended: bool) -> None:
        if self._echo is not None:
            self._echo.add(data)
            if ended:
                write(self.client, self._request, self._echo.response())

    def on_client_disconnect(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def on_client_blocked(self) -> None:
        self.writable.clear()

    def on_client_writable(self) -> None:
        self.writable.set()


def _check_key(request: Request, key: bytes) -> None:
    """Raise Problem, with what is wrong, unless the request has the key in its place alone."""
    complaint = _complaint(request, key)
    if complaint is not None:
        raise Problem(401, complaint, ("WWW-Authenticate", f'{KEY_HEADER} realm="demo"'))


def _complaint(request: Request, key: bytes) -> str | None:
    """What is wrong with the request's credentials, without any of their values."""
    for name in _FOREIGN_HEADERS:
        if name in request.headers:
            return f"the header {name} reached the demo provider; it takes {KEY_HEADER} alone"
    in_header = [value for name, value in request.raw_headers if is_key_header(name)]
    in_query = [
        unquote_plus(pair.partition("=")[2]).encode()
        for pair in (request.query or b"").decode("utf-8", "replace").split("&")
        if is_key_pair(pair)
    ]
    header, query = f"the header {KEY_HEADER}", f"the query parameter {KEY_QUERY}"
    if is_websocket(request):
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
