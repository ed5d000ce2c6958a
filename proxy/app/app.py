"""The composition root: from settings to running listeners, and back.

Builds every component and passes its dependencies; no other module constructs shared state. Opens
and closes all resources.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from proxy.app.intercept import Intercepted, active_config, origins_of
from proxy.app.listeners import ListenerSet, check_addresses
from proxy.app.peer_policy import PeerPolicy
from proxy.app.route_services import RouteServices, general_differences, keep_last
from proxy.app.server_tls import ServerTls
from proxy.app.shutdown import Connections
from proxy.app.status import Reloads, snapshot
from proxy.app.supply import Supply, Timeouts
from proxy.auth.strategy import AuthContext
from proxy.auth.token_cache import TokenCaches
from proxy.clock import Clock, SuspensionDetector, SystemClock
from proxy.config.settings import Settings
from proxy.errors import KeyrelayError, Refusal
from proxy.forwarding.context import ProxyContext
from proxy.forwarding.handler import RequestHandler
from proxy.http import parser as http_parser
from proxy.http import response as http_response
from proxy.http.address import DEMO_UPSTREAM, ListenAddress
from proxy.observability import tracing
from proxy.observability.counters import Counters
from proxy.observability.exchange_log import ExchangeLog, LineFormat, json_line
from proxy.observability.exchange_source import ExchangeSource, LocalExchanges
from proxy.observability.inspector import InspectorHub
from proxy.observability.notices import Notices
from proxy.observability.terminal_lines import TerminalLines
from proxy.observability.tracing import Tracer
from proxy.routing.route import Route
from proxy.secrets import resolver
from proxy.secrets.key_pair import KeyPair
from proxy.server.connection import ClientConnection
from proxy.server.connection_limit import ConnectionLimit
from proxy.server.inbound_token import InboundToken
from proxy.server.listener import Listener
from proxy.upstream.pool import Pool
from proxy.upstream.tls import tls_context

if TYPE_CHECKING:
    from proxy.auth.shared.tokens import SharedTokens

# Interval at which deadlines are checked (seconds). One timer for all connections costs less than
# one for each, and no deadline here needs to be more exact.
_TICK = 1.0


class App:
    """A running keyrelay. An async context manager.

    write_log   receives access-log lines; None for no access log
    json_log    whether these lines are JSON; plain text otherwise
    log_format  makes these lines in their place
    warn        receives messages for the operator, one line each
    clock       for tokens, and to detect that the machine slept; the real one by default
    strict      do not start while a route lacks a secret
    supply      for one of several processes

    counters, reloads, started   data of the status; ``started`` in seconds since the epoch
    inspector_hub                publishes exchanges as they happen
    exchanges                    what the inspector shows
    also_own                     further addresses of this process, barred as upstreams of routes
    shared_tokens                what shares tokens with other keyrelays; None without that
    """

    def __init__(
        self,
        settings: Settings,
        *,
        write_log: Callable[[str], object] | None = None,
        json_log: bool = False,
        log_format: LineFormat | None = None,
        warn: Callable[[str], object] | None = None,
        clock: Clock | None = None,
        strict: bool = False,
        supply: Supply | None = None,
    ) -> None:
        http_parser.require_c_parser()
        self._settings = settings
        self._write_log = write_log
        self._log_format = log_format or (json_line if json_log else None)
        self._warn = warn or (lambda _line: None)
        if (warning := http_response.self_check()) is not None:
            self._warn(warning)
        self._strict = strict
        self._supply = supply or Supply()
        self._times = Timeouts()
        self._limit = ConnectionLimit(settings.max_connections, self.peer_refusal)
        self._clients: set[ClientConnection] = set()
        self._peers = PeerPolicy(self._clients, warn)
        self._demo_address: tuple[str, int] | None = None
        self._remarks: dict[str, None] = {}
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._auth_context = AuthContext(
            clock or SystemClock(),
            tls_context(),
            self._spawn,
            self._warn,
            self._supply.share,
            caches=TokenCaches(),
        )
        self._tls = ServerTls(
            self._supply.key_pair,
            self._limit,
            self._clients,
            self._times,
            self._auth_context.clock,
            self._warn,
        )
        self.counters = Counters()
        self.reloads = Reloads()
        self.also_own: list[ListenAddress] = []
        self.inspector_hub = InspectorHub(lambda route: self._services.redactors(route))
        self.started = time.time()
        self.shared_tokens: SharedTokens | None = None
        self.exchange_log: ExchangeLog
        self.exchanges: ExchangeSource
        self._context: ProxyContext
        self._services: RouteServices
        self._places: ListenerSet

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._end_tasks()
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _start(self) -> None:
        """Open everything. Raises KeyrelayError if an address cannot be, or must not be, opened."""
        loop = asyncio.get_running_loop()
        self.exchange_log = ExchangeLog(
            loop, self._write_log, line_format=self._log_format, warn=self._warn
        )
        self.exchanges = LocalExchanges(self.exchange_log, self.inspector_hub)
        self.exchange_log.observers += [self.counters.feed, self.inspector_hub.ended]
        tracer = Tracer(warn=self._warn) if self._settings.tracing else None
        if tracer is not None:
            self.exchange_log.observers.append(tracer.end)
            # Registered before the exchange log's flush, so that it runs after it.
            self._stack.push_async_callback(tracer.close)
        self._stack.callback(self.exchange_log.flush)
        self._context = ProxyContext(
            loop,
            self.exchange_log,
            set(),
            self._spawn,
            self.inspector_hub,
            tracer,
            own_ports=lambda: {port for _, port in self._own_addresses()},
            # Lines for a terminal have the reasons themselves.
            notices=None
            if isinstance(self._log_format, TerminalLines)
            else Notices(self._warn, loop.time),
        )
        withheld = frozenset() if tracer is None else tracing.FIELDS
        await self._share_tokens()
        self._services = RouteServices(
            self._auth_context,
            loop,
            self._own_addresses,
            withheld,
            lambda: self._times.dead_peer_seconds,
        )
        self._stack.callback(self._services.close)
        self._places = self._supply.places(
            lambda now: RequestHandler(now, self._context), self._accept, self._tls.serve
        )
        self._stack.callback(self._places.close)
        self._stack.push_async_callback(self._end_tasks)
        await self.adopt(self._settings)
        self._spawn(self._tick(loop))

    async def _share_tokens(self) -> None:
        if self._supply.shared_tokens is None:
            return
        shared = await self._supply.shared_tokens(self._settings, self._auth_context)
        if shared is not None:
            self.shared_tokens = shared
            self._auth_context = replace(self._auth_context, shared=shared)
            self._stack.push_async_callback(shared.close)
            shared.start()

    def _accept(self, handler: RequestHandler) -> ClientConnection:
        return ClientConnection(
            handler.handle,
            self._clients,
            self._times,
            self._context.loop,
            self._limit,
            handler.malformed,
        )

    # -- configurations ------------------------------------------------------------------------

    async def adopt(self, settings: Settings) -> tuple[str, ...]:
        """Put these settings in force. Returns the differences, as texts for the operator.

        Raises KeyrelayError, with the old settings still in force, if they cannot be served.
        Requests in flight continue with the old settings; where nothing is different, connections,
        tokens and counts stay. Not to be called concurrently.
        """
        read, inbound = await resolver.in_thread(lambda: self._supply.read(settings))
        found = keep_last(read, settings, self._services.in_force, self._warn)
        token = None if inbound is None else InboundToken(inbound)
        check_addresses(settings, token)
        # An unchanged policy keeps its object, which warns once per user.
        peers = self._peers.prepare(settings)
        await self._start_demo(settings)
        tls = await self._tls.prepare(settings)
        route_services = self._services.prepare(settings, found, self._demo_address)
        try:
            self._services.check_ready(route_services, strict=self._strict)
            unready = {name for name, one in route_services.items() if one.route.unready}
            places = await self._places.prepare(settings, unready)
        except BaseException:
            self._services.discard(route_services)
            raise
        changed = (
            *self._services.differences(route_services),
            *self._places.differences(places),
            *general_differences(self._settings, settings),
        )
        # Nothing below awaits or fails: a request sees either the old or the new configuration.
        self._settings = settings
        self._times.head_seconds = settings.head_timeout_seconds
        self._times.keepalive_seconds = settings.keepalive_seconds
        self._times.dead_peer_seconds = settings.dead_peer_seconds
        self._limit.max_connections = settings.max_connections
        self._peers.put_in_force(settings, peers)
        self._tls.put_in_force(tls)
        self._places.put_in_force(places, settings, route_services, token)
        self._services.put_in_force(route_services)
        self._warn_of_remarks()
        return changed

    def _warn_of_remarks(self) -> None:
        """Report what is odd about the secrets in force, once until it has been repaired."""
        remarks = {f"{route.name}: {one}": None for route in self.routes for one in route.remarks}
        for line in remarks:
            if line not in self._remarks:
                self._warn(line)
        self._remarks = remarks

    async def _start_demo(self, settings: Settings) -> None:
        """Start the built-in provider if a route has it as its upstream."""
        upstreams = [route.upstream for route in settings.routes.values()]
        if self._demo_address is None and DEMO_UPSTREAM in upstreams:
            from proxy.demo import provider as demo

            provider = await demo.start(resolver.DEMO_KEY, self._warn)
            self._stack.push_async_callback(provider.close)
            self._demo_address = provider.address

    def peer_refusal(self, transport: asyncio.BaseTransport) -> Refusal | None:
        """Return the refusal of a connection by ``peer_uid``, None if its user is permitted."""
        return self._peers.refusal(transport)

    async def add_own(self, address: ListenAddress) -> None:
        """Register a further address of keyrelay itself, barred as an upstream from now on."""
        self.also_own.append(address)

    async def snapshots(self) -> list[dict[str, Any]]:
        """Return the snapshot of each process that serves: this one only."""
        return [snapshot(self)]

    def reset(self) -> None:
        """Make every route use the first value of its secrets again."""
        for strategy in self._services.strategies():
            strategy.credential.reset()

    def intercept(self, certify: Callable[[list[str]], KeyPair]) -> Intercepted:
        """Serve connections to the providers of the ready routes, as a forward proxy gets them.

        ``certify`` issues a certificate for their hosts. For settings without a TLS listener.
        """
        services = self._services.in_force
        origins = origins_of(self.routes)
        self._tls.use(certify(sorted({host for host, _ in origins})))
        handler = RequestHandler(active_config(services, self._settings), self._context)
        return Intercepted(origins, lambda connection: self._tls.serve(handler, connection))

    # -- running state -------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def routes(self) -> tuple[Route, ...]:
        return tuple(route_service.route for route_service in self._services.in_force.values())

    @property
    def pools(self) -> Mapping[str, Pool]:
        return {name: route_service.pool for name, route_service in self._services.in_force.items()}

    @property
    def listeners(self) -> tuple[Listener, ...]:
        return self._places.listeners

    def _own_addresses(self) -> list[tuple[str, int]]:
        """Return the addresses of all listeners, which are barred as upstreams."""
        addresses = [*self.also_own, *(listener.address for listener in self.listeners)]
        return [(one.host, one.port) for one in addresses if one.host is not None]

    async def settle(self, seconds: float) -> None:
        """Wait until every strategy has its first credential or an error, at most ``seconds``."""
        credentials = [strategy.credential for strategy in self._services.strategies()]
        waits = [self._spawn(credential.wait_ready()) for credential in credentials]
        if waits:
            await asyncio.wait(waits, timeout=seconds)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that ends with the app at the latest."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        suspension = SuspensionDetector(self._auth_context.clock)
        while True:
            await asyncio.sleep(_TICK)
            if suspension.detected():
                self._services.drop_unused()
            now = loop.time()
            for client in [*self._clients, *self._limit.refused]:
                client.expire(now)
            self._services.expire(now, self.exchange_log.open)
            if self._tls.due:
                self._tls.postpone()
                self._spawn(self.renew_certificate())

    async def renew_certificate(self) -> None:
        """Replace the certificate of the TLS listeners. What fails is a warning."""
        try:
            renewed = await self._tls.prepare(self._settings)
        except KeyrelayError as error:
            self._warn(f"the certificate of the TLS listener cannot be renewed: {error}")
            return
        self._tls.put_in_force(renewed)

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self, drain_seconds: float | None = None) -> None:
        """Shut down gracefully: stop accepting, drain requests in flight, close the rest.

        ``drain_seconds`` None takes the configured time. WebSockets get a Close frame with 1001
        (RFC 6455 section 7.4.1), and have that time to reply.
        """
        if drain_seconds is None:
            drain_seconds = self._settings.drain_seconds
        self._places.stop()
        self._tls.stop()
        self._services.retire()
        connections = Connections(self._clients, self._limit.refused, self._context.relays)
        await connections.drain(drain_seconds)
        for strategy in self._services.strategies():
            strategy.credential.close()
        await self._end_tasks()
        if left := await connections.abort():
            self._warn(left)
        await self._stack.aclose()
        await asyncio.sleep(0)
