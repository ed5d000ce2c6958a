"""What all emulated providers have in common: a strict, recording server on loopback.

A provider says in ``judge`` which credentials it takes and in ``serve`` what its endpoints answer;
everything else is here. Nothing is lenient: a request that the real provider might still forgive
is refused in the provider's own words and noted in ``faults``.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from tests.emulators import carriers
from tests.emulators.answers import Answer, Denial, Outcome, Recorded, json_answer
from tests.emulators.carriers import Carrier
from tests.emulators.gate import PATIENCE_SECONDS, Changes, Gate
from tests.emulators.sockets import Socket

_KEPT_BODY_BYTES = 64 * 1024
_LINE_BYTES = 64 * 1024  # longer than any test's target or header
_CLEANUP_SECONDS = 1.0


class _Server(web.Server):
    """aiohttp's server, counting connections from the moment they are accepted."""

    def __init__(self, emulator: Emulator, **settings: Any) -> None:
        super().__init__(emulator.handle, handler_cancellation=True, **settings)
        self._emulator = emulator
        self.transports: dict[RequestHandler, asyncio.Transport] = {}

    def __call__(self) -> RequestHandler:
        self._emulator.connections += 1  # before a TLS handshake, so that a failed one counts
        self._emulator.changes.notify()
        return super().__call__()

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self.transports[handler] = transport
        self._emulator.changes.notify()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        del self.transports[handler]
        self._emulator.changes.notify()


class Emulator(ABC):
    """One provider on 127.0.0.1, a free port; use it with ``async with``.

    origin        ``http://127.0.0.1:port``, or https with an ``ssl_context``
    requests      everything that arrived, in order
    faults        why requests were refused
    connections   TCP connections accepted so far; 0 proves that nobody dialled
    open          connections open now
    pieces        the gate that every piece of a streamed answer passes
    uploads       the gate that every chunk of a request's body passes
    chunks        what streamed audio consists of; a test may replace it

    ``hosts`` are values of Host that are right beside the emulator's own address.
    """

    harmless_query: frozenset[str] = frozenset()

    def __init__(
        self, *, ssl_context: ssl.SSLContext | None = None, hosts: Iterable[str] = ()
    ) -> None:
        self._ssl_context = ssl_context
        self._hosts = frozenset(hosts)
        self._scripted: list[tuple[str, Answer]] = []
        self._stopping = False
        self._server: _Server | None = None
        self._runner: web.ServerRunner | None = None
        self.changes = Changes()
        self.pieces = Gate("pieces", self.changes)
        self.uploads = Gate("uploads", self.changes)
        self.chunks: Sequence[bytes] = [bytes([number]) * 4096 for number in range(8)]
        self.requests: list[Recorded] = []
        self.faults: list[str] = []
        self.connections = 0
        self.address: tuple[str, int] = ("", 0)

    # --- for tests ---------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._server = _Server(
            self,
            access_log=None,
            auto_decompress=False,
            max_line_size=_LINE_BYTES,
            max_field_size=_LINE_BYTES,
        )
        self._runner = web.ServerRunner(self._server, shutdown_timeout=_CLEANUP_SECONDS)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._ssl_context).start()
        self.address = self._runner.addresses[0]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        assert self._runner is not None
        self._stopping = True
        self.drop_connections()
        await self._runner.cleanup()

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        scheme = "https" if self._ssl_context else "http"
        return f"{scheme}://{self.address[0]}:{self.address[1]}"

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._server.transports) if self._server else 0

    def drop_connections(self) -> None:
        """Reset every open connection, idle ones too."""
        if self._server:
            for transport in list(self._server.transports.values()):
                transport.abort()

    def answer_next(self, answer: Answer, *, path: str = "", times: int = 1) -> None:
        """Give ``answer`` to the next ``times`` requests whose raw path begins with ``path``.

        Credentials are judged first; a WebSocket handshake gets the answer as plain HTTP.
        """
        self._scripted += [(path, answer)] * times

    async def arrived(self, count: int, timeout: float = PATIENCE_SECONDS) -> Recorded:
        """Return the last of ``count`` requests once they have arrived."""
        await self.changes.until(
            lambda: len(self.requests) >= count, f"{count} requests arrived", timeout
        )
        return self.requests[count - 1]

    async def ended(self, index: int, timeout: float = PATIENCE_SECONDS) -> Outcome:
        """Return how request ``index`` ended, once it has. TimeoutError after ``timeout`` s."""
        await self.changes.until(
            lambda: len(self.requests) > index and self.requests[index].outcome != "running",
            f"request {index} ended",
            timeout,
        )
        return self.requests[index].outcome

    async def connected(self, count: int, timeout: float = PATIENCE_SECONDS) -> None:
        """Return once exactly ``count`` connections are open."""
        await self.changes.until(lambda: self.open == count, f"{count} connections open", timeout)

    # --- for providers -----------------------------------------------------------------------

    @abstractmethod
    def refusal(self, recorded: Recorded) -> Answer:
        """The provider's documented answer to a request without a valid credential."""

    @abstractmethod
    def judge(self, recorded: Recorded, found: list[Carrier]) -> Denial | None:
        """Why the request's credentials, all that were ``found``, are not right. None: they are."""

    @abstractmethod
    async def serve(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        """The endpoints, for requests whose credentials are right and whose body has been read."""

    def judge_body(self, recorded: Recorded) -> Denial | None:
        """A second judgement for credentials in bodies."""
        return None

    def denied(self, recorded: Recorded, reason: str) -> Denial:
        """The usual refusal."""
        return Denial(reason, self.refusal(recorded))

    async def send(
        self, request: web.BaseRequest, recorded: Recorded, answer: Answer
    ) -> web.StreamResponse:
        """Send a complete answer."""
        response = web.Response(status=answer.status, body=answer.body)
        for name, value in answer.headers:
            if name == "Content-Type":
                response.headers[name] = value
            else:
                response.headers.add(name, value)
        recorded.status = answer.status
        return response

    async def refuse(
        self, request: web.BaseRequest, recorded: Recorded, denial: Denial
    ) -> web.StreamResponse:
        """Note the fault and send its answer."""
        self.faults.append(f"{recorded.method} {recorded.path}: {denial.reason}")
        return await self.send(request, recorded, denial.answer)

    async def nowhere(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        """For paths that the provider's documentation does not have."""
        answer = json_answer(404, {"error": "not found"})
        return await self.refuse(request, recorded, Denial("no such endpoint", answer))

    async def report(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        """What arrived, for endpoints whose own answer no test looks at."""
        content = {
            "method": recorded.method,
            "target": recorded.target,
            "body_length": recorded.body_length,
            "body_sha256": recorded.body_sha256,
        }
        return await self.send(request, recorded, json_answer(200, content))

    async def stream(
        self,
        request: web.BaseRequest,
        recorded: Recorded,
        content_type: str,
        pieces: Iterable[bytes],
    ) -> web.StreamResponse:
        """Send the head at once, then the pieces one by one, each as the gate lets it go."""
        response = web.StreamResponse(headers={"Content-Type": content_type})
        recorded.status = 200
        await response.prepare(request)
        for piece in pieces:
            if not await self.pieces.stand():
                await self.cut(request, recorded)
            await response.write(piece)
            self.pieces.count()
        await response.write_eof()
        return response

    async def echo(
        self,
        request: web.BaseRequest,
        recorded: Recorded,
        *,
        greeting: object = None,
        socket: Socket | None = None,
    ) -> web.StreamResponse:
        """Greet, then echo text and binary; ``sockets`` says which orders a message can give.

        ``socket`` is one that was accepted already.
        """
        if socket is None:
            socket = Socket(recorded, self.changes)
        response = await socket.accept(request)
        if greeting is not None:
            await socket.say(greeting)
        if not await socket.echo():
            await self.cut(request, recorded)
        return response

    async def cut(self, request: web.BaseRequest, recorded: Recorded) -> None:
        """Break the connection off without an end; aiohttp then cancels this very handler."""
        recorded.outcome = "cut"
        if request.transport is not None:
            request.transport.close()
        await asyncio.Event().wait()

    # --- one request -------------------------------------------------------------------------

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Record, judge, answer."""
        recorded = Recorded(
            index=len(self.requests),
            method=request.method,
            target=request.raw_path,
            headers=list(request.raw_headers),
            websocket=request.headers.get("Upgrade", "").strip().lower() == "websocket",
        )
        self.requests.append(recorded)
        self.changes.notify()
        try:
            response = await self._answer(request, recorded)
            if not isinstance(response, web.WebSocketResponse):
                await response.prepare(request)
                await response.write_eof()
        except (asyncio.CancelledError, ConnectionError):
            if recorded.outcome == "running":
                recorded.outcome = "stopped" if self._stopping else "client left"
            raise
        except Exception as error:
            recorded.outcome = "failed"
            self.faults.append(f"{recorded.path}: the emulator itself failed: {error!r}")
            raise
        else:
            if recorded.outcome == "running":
                recorded.outcome = "complete"
            return response
        finally:
            self.changes.notify()

    async def _answer(self, request: web.BaseRequest, recorded: Recorded) -> web.StreamResponse:
        denial = self._judge_head(recorded)
        if denial is not None:
            return await self.refuse(request, recorded, denial)
        scripted = self._take_scripted(recorded.path)
        if scripted is not None and scripted.early:
            return await self.send(request, recorded, scripted)
        if not recorded.websocket:
            await self._read_body(request, recorded)
            denial = self.judge_body(recorded)
            if denial is not None:
                return await self.refuse(request, recorded, denial)
        if scripted is not None:
            return await self.send(request, recorded, scripted)
        return await self.serve(request, recorded)

    def _judge_head(self, recorded: Recorded) -> Denial | None:
        own = f"{self.address[0]}:{self.address[1]}"
        hosts = recorded.values("Host")
        if len(hosts) != 1 or hosts[0] not in {own, f"localhost:{self.address[1]}", *self._hosts}:
            return Denial("the Host is not the provider's", Answer(421))
        left = carriers.leftovers(recorded.target, recorded.headers)
        if left:
            return self.denied(recorded, f"the client's own dummy is still in: {', '.join(left)}")
        found = carriers.find(recorded.target, recorded.headers, self.harmless_query)
        return self.judge(recorded, found)

    def _take_scripted(self, path: str) -> Answer | None:
        for at, (prefix, answer) in enumerate(self._scripted):
            if path.startswith(prefix):
                del self._scripted[at]
                return answer
        return None

    async def _read_body(self, request: web.BaseRequest, recorded: Recorded) -> None:
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # as aiohttp's own handler of Expect does
        digest = hashlib.sha256()
        while True:
            # The gate is before the read, so that holding it stops the flow for real.
            if request.can_read_body and not await self.uploads.stand():
                await self.cut(request, recorded)
            chunk = await request.content.readany()
            if not chunk:
                break
            digest.update(chunk)
            recorded.body_length += len(chunk)
            recorded.body += chunk[: _KEPT_BODY_BYTES - len(recorded.body)]
            self.uploads.count()
        recorded.body_sha256 = digest.hexdigest()
