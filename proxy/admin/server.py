"""The admin listener: status, metrics, reload, and the live inspector with its page.

Separate from the listeners of the routes, on loopback or a unix socket only, and off by default.
The page's own files hold no data; every other request needs the token, which is new at every start.
The URL of the page has it in the fragment, which browsers do not send (RFC 9110 section 4.2.5).
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol

from aiohttp import web

from proxy.admin import runtime_file
from proxy.admin.access import AdminGuard
from proxy.admin.connections import AdmissionProtocol, IdleConnections, PeerRefusal
from proxy.admin.event_stream import EventStream
from proxy.admin.har import archive
from proxy.app import status
from proxy.errors import KeyrelayError, Refusal
from proxy.http.address import parse_listen
from proxy.http.problem import PROBLEM, problem_document
from proxy.observability import metrics
from proxy.observability.exchange_source import ExchangeSource
from proxy.observability.inspector import TooManySubscriptions
from proxy.observability.library_logging import types_only
from proxy.server.listener import AddressUnavailable, Listener, listen

PAGE: Final = Path(__file__).with_name("page")
"""The inspector's files; all of them are served."""

_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_HEADERS: Final = {
    "Server": "keyrelay",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; "
    "form-action 'none'",
}

# Exchanges in an export at most.
_EXPORTED: Final = 500
_SHUTDOWN_SECONDS: Final = 1.0
_COULD_NOT: Final = "the admin listener could not answer a request"

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ReloadConfig = Callable[[], Awaitable[status.Reload]]
"""Reloads the configuration, and returns its findings or changes."""


class Administered(Protocol):
    """What the admin listener shows: the running app.

    exchanges  what the inspector shows
    """

    @property
    def exchanges(self) -> ExchangeSource: ...
    async def snapshots(self) -> Sequence[dict[str, Any]]:
        """Return the snapshot of each process, at least one: see ``status.snapshot``."""


class Admin:
    """The open listener, at ``url``. ``page_url`` opens the inspector.

    The caller has to ``close`` it.
    """

    def __init__(
        self,
        app: Administered,
        listener: Listener,
        served: web.AppRunner,
        idle: IdleConnections,
    ) -> None:
        self._app = app
        self.idle = idle
        self._served = served
        self._file: runtime_file.RuntimeFile | None = None
        self._token = ""
        self.listener = listener

    @property
    def url(self) -> str:
        return self.listener.url

    @property
    def page_url(self) -> str:
        """The inspector's URL for a browser. It holds the token: for the operator only."""
        return runtime_file.page_url(self.url, self._token)

    def invitation(self, *, private: bool) -> str:
        """Return the inspector's URL as text, with the token only if ``private``: not in logs."""
        if private or not self._token:
            return self.page_url
        return f"{self.url} (keyrelay status --page prints the address that opens it)"

    def publish(self, token: str, warn: Callable[[str], object]) -> None:
        """Store the token, and write the runtime file for ``keyrelay status``."""
        self._token = token
        try:
            self._file = runtime_file.write(self.url, token)
        except OSError as error:
            why = error.strerror or str(error)
            warn(f"keyrelay status and reload will not find this process: {why}")

    async def close(self) -> None:
        """Close the listener and all connections, and delete the runtime file. Idempotent."""
        if self._file is not None:
            self._file.remove()
            self._file = None
        self._app.exchanges.stop()
        self.listener.close()
        await self._served.cleanup()


async def start(
    app: Administered,
    reload: ReloadConfig,
    text: str,
    *,
    warn: Callable[[str], object] = lambda _line: None,
    peer_refusal: PeerRefusal = lambda _transport: None,
) -> Admin:
    """Open the admin listener at the address ``text``, which must be loopback or a unix socket.

    ``reload`` is called for ``POST /api/reload``, never twice at a time.
    ``peer_refusal`` returns the refusal of a connection, None if its user is permitted.

    Raises KeyrelayError, with a remedy, if the address is unavailable. A cancelled start leaves
    nothing open.
    """
    address = parse_listen(text)
    if address.exposed:
        raise KeyrelayError(f"the admin listener stays on this machine; {text} does not")
    pages = _Pages(app, reload, peer_refusal)
    served = web.AppRunner(
        pages.application(),
        access_log=None,
        logger=types_only("keyrelay.admin", _COULD_NOT, warn),
        shutdown_timeout=_SHUTDOWN_SECONDS,
        # Detect at once a subscriber that disconnects between events.
        handler_cancellation=True,
    )
    await served.setup()
    server = served.server
    assert server is not None
    try:
        listener = await listen(
            text, lambda: AdmissionProtocol(server, peer_refusal, pages.idle), None
        )
    except AddressUnavailable as error:
        await served.cleanup()
        remedy = ""
        if error.in_use:
            ours = any(one.url == f"http://{error.text}" for one in runtime_file.running())
            by = "keyrelay of yours; stop it" if ours else "program; stop that program,"
            remedy = f" by another {by} or choose another address with --admin"
        raise KeyrelayError(f"admin listener: {error}{remedy}") from None
    except BaseException:
        await served.cleanup()
        raise
    # A unix socket is protected by its file mode; a port is open to every local user.
    token = "" if address.unix_path else secrets.token_urlsafe(24)
    pages.guard = AdminGuard(listener.address, token or None)
    admin = Admin(app, listener, served, pages.idle)
    admin.publish(token, warn)
    return admin


class _Pages:
    """The request handlers. ``guard`` is set once the port is assigned, since it checks Host.

    ``idle`` has the connections without a request in progress.
    """

    def __init__(self, app: Administered, reload: ReloadConfig, peer_refusal: PeerRefusal) -> None:
        self.guard: AdminGuard | None = None
        self.idle = IdleConnections()
        self._app = app
        self._reload_config = reload
        self._peer_refusal = peer_refusal
        self._reloading = asyncio.Lock()
        # Distinguishes the numbers of this start from those of another one.
        self._run = secrets.token_hex(8)
        self._files = {path.name: path for path in PAGE.iterdir() if path.suffix in _TYPES}

    def application(self) -> web.Application:
        """Return the application: all URLs, behind the guard."""
        application = web.Application(middlewares=[self._count, self._admit])
        application.on_response_prepare.append(_prepare)
        application.add_routes(
            [
                web.get("/", self._file),
                web.get("/{name:[a-z]+[.](?:css|js)}", self._file),
                web.get("/metrics", self._metrics),
                web.get("/api/status", self._status),
                web.post("/api/reload", self._reload),
                web.get("/api/exchanges", self._exchanges),
                web.get("/api/exchanges/{number:[0-9]{1,15}}", self._exchange),
                web.get("/api/events", self._events),
                web.get("/api/har", self._har),
            ]
        )
        return application

    @web.middleware
    async def _count(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Count the connection as one with a request in progress."""
        self.idle.discard(request.protocol)
        try:
            return await handler(request)
        finally:
            self.idle.add(request.protocol)

    @web.middleware
    async def _admit(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Apply the guard, and return every refusal as a problem document (RFC 9457)."""
        headers: dict[str, list[str]] = {}
        for name, value in request.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        data = request.match_info.handler != self._file
        if self.guard is None:
            raise web.HTTPServiceUnavailable
        try:
            # A reload may have changed peer_uid since the connection was accepted.
            if request.transport is not None and (no := self._peer_refusal(request.transport)):
                return _problem(no)
            self.guard.admit(headers, data=data)
            return await handler(request)
        except Refusal as refusal:
            return _problem(refusal)
        except web.HTTPMethodNotAllowed as refused:
            allow = ", ".join(sorted(refused.allowed_methods))
            return _problem(
                Refusal(405, "method-refused", f"Use {allow}.", headers=(("Allow", allow),))
            )
        except web.HTTPNotFound:
            return _problem(
                Refusal(404, "no-such-page", "The admin listener has no page of this name.")
            )

    async def _file(self, request: web.Request) -> web.StreamResponse:
        path = self._files.get(request.match_info.get("name", "index.html"))
        if path is None:
            raise web.HTTPNotFound
        # Small, local and requested once per visit: not worth a thread.
        text = path.read_text(encoding="utf-8")
        return web.Response(text=text, content_type=_TYPES[path.suffix])

    async def _metrics(self, _request: web.Request) -> web.StreamResponse:
        body = metrics.exposition(await self._snapshot())
        return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _status(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(await self._snapshot())

    async def _snapshot(self) -> dict[str, Any]:
        return status.merged(await self._app.snapshots())

    async def _reload(self, _request: web.Request) -> web.StreamResponse:
        """Reload. Status 409 if the configuration was rejected; the response has the findings."""
        async with self._reloading:
            report = await self._reload_config()
        return web.json_response(asdict(report), status=409 if report.findings else 200)

    async def _exchanges(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(await self._latest())

    async def _exchange(self, request: web.Request) -> web.StreamResponse:
        found = await self._app.exchanges.find(int(request.match_info["number"]))
        if found is None:
            raise Refusal(
                404,
                "no-such-exchange",
                "There is no exchange of this number, or it was too long ago.",
            )
        return web.json_response(found)

    async def _har(self, _request: web.Request) -> web.StreamResponse:
        """Respond with the latest exchanges that have ended, as an HTTP Archive."""
        latest = await self._app.exchanges.latest()
        ended = [one["number"] for one in latest["exchanges"] if not one["open"]][-_EXPORTED:]
        found = [await self._app.exchanges.find(number) for number in ended]
        fields = {"Content-Disposition": 'attachment; filename="keyrelay.har"'}
        return web.json_response(archive(one for one in found if one), headers=fields)

    async def _latest(self) -> dict[str, Any]:
        """Return the open and the latest ended exchanges, oldest first."""
        return {"run": self._run, **await self._app.exchanges.latest()}

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Stream server-sent events: first the current state, then each change."""
        try:
            subscription = self._app.exchanges.subscribe()
        except TooManySubscriptions:
            raise Refusal(
                503,
                "too-many-watchers",
                "Too many watch already.",
                "Close an inspector that you do not need.",
                headers=(("Retry-After", "5"),),
            ) from None
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        # Without Content-Length only chunked framing distinguishes the end from a lost connection.
        response.enable_chunked_encoding()
        try:
            await response.prepare(request)
            stream = EventStream(subscription, response, self._app.exchanges)
            await stream.run(await self._latest(), self._snapshot)
        except TimeoutError:
            # The client does not read, so a clean end of the stream would never arrive.
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._app.exchanges.unsubscribe(subscription)
        return response


async def _prepare(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


def _problem(refusal: Refusal) -> web.Response:
    return web.Response(
        status=refusal.status,
        body=json.dumps(problem_document(refusal)).encode("ascii") + b"\n",
        headers={**dict(refusal.headers), "Content-Type": PROBLEM},
    )
