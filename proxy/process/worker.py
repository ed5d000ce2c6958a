"""A worker process: serves requests with the configuration that the supervisor sends.

It reads no file and fetches no token. When the supervisor has ended, for whatever reason, the
worker drains its requests in flight, and ends.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from proxy.app.app import App
from proxy.app.status import Reload, snapshot
from proxy.app.supply import Supply
from proxy.config.settings import Settings
from proxy.errors import KeyrelayError
from proxy.http.address import ListenAddress
from proxy.observability.exchange_log import LineFormat
from proxy.process import memory
from proxy.process.ipc import Channel, ChannelClosed, Message
from proxy.process.output import StandardStreams
from proxy.process.token_broker import SharedTokenSource, remote
from proxy.process.worker_config import WorkerConfig, share_of
from proxy.process.worker_exchanges import InspectionFeed
from proxy.process.worker_listeners import GivenPlaces, PassedConnections
from proxy.routing.route_secrets import ResolvedSecrets
from proxy.secrets.secret import Secret

_AT_ONCE = 0.0
# Descriptors that connections of clients leave to those of providers and to everything else.
_SPARE_DESCRIPTORS = 64


async def work(descriptor: int, streams: StandardStreams, *, log_format: LineFormat) -> None:
    """Serve until the supervisor ends this worker, or has ended itself, or SIGTERM arrives.

    descriptor  this end of the channel
    streams     for the access log, and for messages once the supervisor has ended

    Raises KeyrelayError if there is no supervisor.
    """
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        raise KeyrelayError("--worker is for keyrelay itself; write --workers 2") from None
    sock.set_inheritable(False)
    await _Worker(sock, streams, log_format=log_format).run()


class _Worker:
    def __init__(
        self, sock: socket.socket, streams: StandardStreams, *, log_format: LineFormat
    ) -> None:
        self._channel = Channel(sock, self._answer)
        self._streams = streams
        self._log_format = log_format
        self._arrivals = PassedConnections()
        self._now: WorkerConfig | None = None
        self._app: App | None = None
        self._feed: InspectionFeed | None = None
        self._taking = asyncio.Lock()
        # Drain times (seconds), None for the configured one.
        self._ends: asyncio.Queue[float | None] = asyncio.Queue()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        leaving: set[asyncio.Task[None]] = set()
        loop.add_signal_handler(
            signal.SIGTERM, lambda: leaving.add(loop.create_task(self._leave()))
        )
        for one in (signal.SIGINT, signal.SIGHUP):
            # For the supervisor, which sends messages to its workers.
            signal.signal(one, signal.SIG_IGN)
        self._channel.closed.add_done_callback(lambda _: self._ends.put_nowait(None))
        seconds = await self._ends.get()
        if self._app is None:
            self._channel.close()
            return
        drain = loop.create_task(self._app.close(seconds))
        while not drain.done():
            more = loop.create_task(self._ends.get())
            await asyncio.wait({drain, more}, return_when=asyncio.FIRST_COMPLETED)
            if more.done() and more.result() == _AT_ONCE and not drain.done():
                drain.cancel()
                await asyncio.wait({drain})
                await self._app.close(_AT_ONCE)
            more.cancel()
        self._channel.close()

    async def _leave(self) -> None:
        """End this worker alone, after a signal: take no more connections, then drain."""
        with suppress(ChannelClosed):
            await self._channel.ask("leaving", {})
        self._ends.put_nowait(None)

    # -- messages of the supervisor --------------------------------------------------------------

    async def _answer(self, kind: str, message: Message, descriptors: list[int]) -> Message:
        match kind:
            case "log":
                (self._streams.out.lock,) = descriptors
            case "connection":
                return self._serve_connection(ListenAddress(*message["at"]), descriptors[0])
            case "configuration":
                async with self._taking:
                    return await self._take(message)
            case "reset" if self._app is not None:
                self._app.reset()
            case "end":
                self._ends.put_nowait(message["seconds"])
            case "snapshot" if self._app is not None:
                return snapshot(self._app)
            case "inspect" | "exchanges" | "exchange" | "moved" if self._feed is not None:
                return await self._feed.answer(kind, message)
        return {}

    def _serve_connection(self, address: ListenAddress, descriptor: int) -> Message:
        """Serve a connection, unless too few descriptors would remain. ``owned`` tells which."""
        # The kernel assigns the lowest free number.
        if descriptor >= _usable_descriptors():
            os.close(descriptor)
            return {"owned": False}
        self._arrivals.arrived(address, socket.socket(fileno=descriptor))
        return {"owned": True}

    async def _take(self, message: Message) -> Message:
        """Put a configuration in force, the first or a later one. ``failed`` has the error."""
        before = self._now
        try:
            worker_config = WorkerConfig.from_json(message["handover"])
            settings = share_of(worker_config.settings, message["index"], message["workers"])
            self._arrivals.offers = worker_config.offers
            self._now = worker_config
            if self._app is None:
                self._app = await self._start(settings)
                changed: tuple[str, ...] = ()
            else:
                changed = await self._app.adopt(settings)
                self._app.reloads.note(Reload(message["at"], changed=changed))
            self._app.also_own[:] = worker_config.own
        except KeyrelayError as error:
            self._now = before
            return {"failed": str(error)}
        return {"changed": changed}

    async def _start(self, settings: Settings) -> App:
        app = App(
            settings,
            write_log=self._streams.log,
            log_format=self._log_format,
            warn=self._warn,
            supply=Supply(
                read=self._read,
                share=lambda identity, _source, _warn: SharedTokenSource(
                    remote(partial(self._channel.ask, "token")), identity
                ),
                places=lambda make, accept, tls: GivenPlaces(make, accept, self._arrivals, tls),
                key_pair=lambda _settings, _now: self._now.key_pair if self._now else None,
                shared_tokens=None,
            ),
        )
        await app.__aenter__()
        self._feed = InspectionFeed(
            app.exchanges, self._channel.send, lambda: self._channel.waiting
        )
        memory.settle()
        return app

    def _read(self, _settings: Settings) -> tuple[Mapping[str, ResolvedSecrets], Secret | None]:
        assert self._now is not None
        return self._now.found, self._now.inbound

    def _warn(self, line: str) -> None:
        try:
            self._channel.send("warn", {"line": line})
        except ChannelClosed:
            self._streams.warn(line)


def _usable_descriptors() -> float:
    """Number of descriptors that this process may have open and still accept a connection."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return float("inf")
    return limit - min(_SPARE_DESCRIPTORS, limit // 4)
