"""The composition root: from settings to running listeners, and back to nothing.

Builds every part and gives each what it needs; nothing else constructs shared state. Opens and
closes what must be opened and closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from . import demo, parsers, sources
from .allowance import Allowance
from .auth.base import Means, Strategy
from .clock import Clock, SystemClock
from .compiling import compile_route
from .dialling import Dialler, tls_context
from .door import ClientConnection, Entrance
from .errors import KeyrelayError
from .forward import Surroundings
from .gateway import Gateway
from .guard import LOOPBACK_NAMES, Guard
from .inbound import InboundToken
from .journal import Journal
from .listening import Listener, listen
from .origins import check_guarded, parse_listen
from .peers import Peers, can_tell
from .pool import Pool
from .routes import Route, RouteTable
from .settings import Settings

# How often deadlines are looked at (seconds). One timer for all connections costs less than one
# for each, and no deadline here needs to be more exact.
_TICK = 1.0


@dataclass(frozen=True, slots=True)
class Times:
    """What client connections are told of time, in seconds."""

    head_seconds: float
    keepalive_seconds: float


class App:
    """Keyrelay, running on one configuration. An async context manager.

    write_log  gets access-log lines; None for no access log
    json_log   lines as JSON
    warn       gets what the operator should know, a line each
    clock      for tokens; the real one by default
    """

    def __init__(
        self,
        settings: Settings,
        *,
        write_log: Callable[[str], object] | None = None,
        json_log: bool = False,
        warn: Callable[[str], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        parsers.require_c_parser()
        self._settings = settings
        self._write_log = write_log
        self._json_log = json_log
        self._warn = warn
        self._times = Times(settings.head_timeout_seconds, settings.keepalive_seconds)
        self._clients: set[ClientConnection] = set()
        self._pools: dict[str, Pool] = {}
        self._allowances: dict[str, Allowance] = {}
        self._stack = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()
        self._tls = tls_context()
        means = Means(clock or SystemClock(), self._tls, self._spawn)
        self.routes: tuple[Route, ...] = tuple(
            compile_route(name, one, sources.resolve, means)
            for name, one in settings.routes.items()
        )
        self.listeners: tuple[Listener, ...] = ()
        self._token: InboundToken | None = None
        self._entrance = Entrance(settings.max_connections)
        self.journal: Journal
        self._around: Surroundings

    async def __aenter__(self) -> App:
        try:
            await self._start()
        except BaseException:
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
        self._check_who_may_connect()
        self.journal = Journal(loop, self._write_log, as_json=self._json_log)
        self._stack.callback(self.journal.flush)
        self._stack.push_async_callback(self._end_tasks)
        self._around = Surroundings(loop, self.journal, set(), self._spawn)
        await self._open_pools(loop)
        self.listeners = (
            *[await self._listen(text, None) for text in self._settings.listen],
            *[
                await self._listen(text, route)
                for route in self.routes
                for text in self._settings.routes[route.name].listen
            ],
        )
        self._spawn(self._tick(loop))
        for strategy in self._strategies():
            strategy.start()

    def _check_who_may_connect(self) -> None:
        """Decide on it before anybody can. Raises KeyrelayError if that is not possible."""
        settings = self._settings
        if settings.inbound_token is not None:
            self._token = InboundToken(sources.resolve("inbound_token", settings.inbound_token))
        for text in listen_texts(settings):
            if self._token is None:
                try:
                    check_guarded(text)
                except ValueError as error:
                    raise KeyrelayError(": ".join(str(error).splitlines())) from None
            elif settings.peer_uid == "enforce" and parse_listen(text).exposed:
                raise KeyrelayError(
                    "peer_uid: enforce refuses whoever connects from another machine; "
                    "listen on loopback, or set peer_uid: warn"
                )
        enforce = settings.peer_uid == "enforce"
        if enforce or (settings.peer_uid == "warn" and self._warn is not None and can_tell()):
            peers = Peers(enforce=enforce, warn=self._warn or (lambda _line: None))
            self._entrance = Entrance(settings.max_connections, peers.refusal)

    async def _open_pools(self, loop: asyncio.AbstractEventLoop) -> None:
        demo_address: tuple[str, int] | None = None
        for route in self.routes:
            if route.origin.builtin and demo_address is None:
                provider = await demo.start(sources.DEMO_KEY)
                self._stack.push_async_callback(provider.close)
                demo_address = provider.address
            settings = self._settings.routes[route.name]
            dialler = Dialler(
                route.origin,
                connect_seconds=settings.connect_timeout_seconds,
                allow_private=settings.allow_private,
                tls=self._tls,
                address=demo_address if route.origin.builtin else None,
                own=self._own_addresses,
            )
            pool = Pool(
                dialler,
                loop,
                idle_seconds=settings.idle_seconds,
                silence_seconds=settings.answer_timeout_seconds,
            )
            self._pools[route.name] = pool
            if settings.concurrency is not None or settings.rate is not None:
                self._allowances[route.name] = Allowance(
                    route.name, concurrency=settings.concurrency, rate=settings.rate
                )
            self._stack.callback(pool.close)

    async def _listen(self, text: str, only: Route | None) -> Listener:
        loop = self._around.loop
        table = RouteTable(self.routes, only)
        guard = Guard(
            served_hosts(self._settings) | table.hosts,
            frozenset(self._settings.browsers.origins),
            self._token,
            table.shares,
        )
        gateway = Gateway(guard, table, self._pools, self._allowances, self._around)

        def accept() -> ClientConnection:
            return ClientConnection(
                gateway.handle, self._clients, self._times, loop, self._entrance
            )

        listener = await listen(text, accept, only.name if only else None)
        self._stack.callback(listener.close)
        return listener

    def _own_addresses(self) -> list[tuple[str, int]]:
        """Where requests come in, so that no route leads there."""
        places = [listener.address for listener in self.listeners]
        return [(place.host, place.port) for place in places if place.host is not None]

    async def settle(self, seconds: float) -> None:
        """Wait until every strategy has its first credential or knows why not, at most so long."""
        waits = [self._spawn(strategy.settle()) for strategy in self._strategies()]
        if waits:
            await asyncio.wait(waits, timeout=seconds)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that ends with the app at the latest."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            await asyncio.sleep(_TICK)
            now = loop.time()
            for client in [*self._clients, *self._entrance.turned_away]:
                client.expire(now)
            for pool in self._pools.values():
                pool.expire(now)

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self, drain_seconds: float | None = None) -> None:
        """Stop accepting, let what is in flight end, close the rest.

        ``drain_seconds`` None takes the configured time. WebSockets are closed at once, but what
        was read from one side may still reach the other.
        """
        if drain_seconds is None:
            drain_seconds = self._settings.drain_seconds
        for listener in self.listeners:
            listener.stop()
        for relay in list(self._around.relays):
            relay.close()
        loop = self._around.loop
        until = loop.time() + drain_seconds
        # Many may end, and none is waited for by itself.
        while (self._drop_idle() or self._around.relays) and loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for strategy in self._strategies():
            strategy.close()
        await self._end_tasks()
        # Transports tell their protocols of the end in a later turn of the loop.
        while self._clients or self._entrance.turned_away or self._around.relays:
            for client in [*self._clients, *self._entrance.turned_away]:
                client.transport.abort()
            for relay in list(self._around.relays):
                relay.abort()
            await asyncio.sleep(0)
        await self._stack.aclose()
        await asyncio.sleep(0)

    def _strategies(self) -> Iterator[Strategy]:
        for route in self.routes:
            yield from route.strategies

    def _drop_idle(self) -> bool:
        """Close connections without a request; whether any is left.

        One that has had its whole answer may still be taking it.
        """
        for client in list(self._clients):
            if client.idle:
                client.transport.close()
        return bool(self._clients)


def listen_texts(settings: Settings) -> Iterator[str]:
    """Every address at which something listens."""
    yield from settings.listen
    for route in settings.routes.values():
        yield from route.listen


def served_hosts(settings: Settings) -> frozenset[str]:
    """The host names that stand for this keyrelay, beside those of routes.

    The addresses that were written as listeners too: no page's own name can be one of them.
    """
    addresses = [parse_listen(text) for text in listen_texts(settings)]
    literals = {
        f"[{one.host}]" if ":" in one.host else one.host
        for one in addresses
        if one.host is not None and not one.wildcard
    }
    return LOOPBACK_NAMES | literals | frozenset(settings.hosts)
