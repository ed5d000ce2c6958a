"""Several processes that serve one configuration: the supervisor starts, tells and replaces them.

It is the process that was started. It accepts no connection itself: it reads the configuration,
holds the tokens and the listening sockets, and hands to its workers what they need. One that dies
is replaced; what waits to be accepted meanwhile goes to the others.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from functools import partial
from typing import Any

from proxy.app.app import App, Supply, read_all
from proxy.app.status import snapshot
from proxy.clock import SystemClock
from proxy.config.settings import Settings
from proxy.errors import KeyrelayError
from proxy.http.address import ListenAddress
from proxy.process.ipc import Message
from proxy.process.shared_tokens import TokenBroker
from proxy.process.worker_config import WorkerConfig
from proxy.process.worker_listeners import OpenPlaces
from proxy.process.worker_process import WorkerProcess, lock_file
from proxy.routing.route_secrets import ResolvedSecrets, variables_in
from proxy.secrets import resolver
from proxy.secrets.secret import Secret

# A worker that ends sooner after its start (seconds) is a failure; that many in a row, while none
# serves, and there is no sense in going on.
_SETTLED_SECONDS = 10.0
_FAILURES = 5
# Before a failed one is started again (seconds): doubled each time.
_PAUSE_FIRST = 0.1
_PAUSE_MOST = 30.0
# What several workers say at about the same time (seconds) is said once.
_SAID_SECONDS = 10.0
_AT_ONCE = 0.0


class Supervisor(App):
    """An ``App`` whose requests are served by processes of its own.

    command  starts one, if the descriptor of its channel is added
    gone     called when it makes no sense to go on; ``failure`` says why
    """

    def __init__(
        self,
        settings: Settings,
        *,
        command: Sequence[str],
        warn: Callable[[str], object],
        gone: Callable[[], object] = lambda: None,
        strict: bool = False,
    ) -> None:
        self._tokens = TokenBroker(SystemClock(), self._spawn)
        self._found_inbound: Secret | None = None
        self._inbound: Secret | None = None
        # Only added to: what a configuration does not name any more stays in the environment.
        self._hidden = resolver.PRIVATE_VARIABLES
        supply = Supply(
            self._read,
            self._tokens.share,
            lambda make, accept: OpenPlaces(make, accept, self._pass_on),
        )
        super().__init__(settings, warn=warn, strict=strict, supply=supply)
        self._count = settings.workers
        self._command = tuple(command)
        self._gone = gone
        self._workers: dict[int, WorkerProcess] = {}
        self._ready: set[int] = set()
        self._last = -1
        self._changed = asyncio.Event()
        self._begun = False
        self._ending = asyncio.Event()
        self._said: dict[str, float] = {}
        self._log_lock: int
        self._handover: WorkerConfig
        self.failure: KeyrelayError | None = None

    async def _start(self) -> None:
        """As of ``App``, and all workers serve. Raises KeyrelayError, too, if one cannot."""
        self._log_lock = lock_file()
        self._stack.callback(os.close, self._log_lock)
        self._stack.callback(self._tokens.close)
        await super()._start()
        self._stack.push_async_callback(self._kill)
        for index in range(self._count):
            self._spawn(self._keep(index))
        while len(self._ready) < self._count and self.failure is None:
            self._changed.clear()
            await self._changed.wait()
        if self.failure is not None:
            raise self.failure
        self._begun = True

    def _read(self, settings: Settings) -> tuple[Mapping[str, ResolvedSecrets], Secret | None]:
        self._hidden |= variables_in(settings)
        found, self._found_inbound = read_all(settings)
        return found, self._found_inbound

    async def adopt(self, settings: Settings) -> tuple[str, ...]:
        """As of ``App``; then every worker has been told. One that cannot follow is replaced."""
        changed = await super().adopt(settings)
        self._inbound = self._found_inbound
        await self._tell_all()
        return changed

    async def add_own(self, address: ListenAddress) -> None:
        await super().add_own(address)
        await self._tell_all()

    async def _tell_all(self) -> None:
        self._handover = WorkerConfig(
            self._settings,
            {name: route_service.found for name, route_service in self._services.in_force.items()},
            self._inbound,
            self._opened.offers(),
            tuple(self.also_own),
        )
        await asyncio.gather(*(self._follow(self._workers[one]) for one in self._ready))
        self._accept_or_rest()

    def _accept_or_rest(self) -> None:
        if not self._ending.is_set():
            self._opened.accept(bool(self._ready))

    @property
    def _opened(self) -> OpenPlaces:
        assert isinstance(self._places, OpenPlaces)
        return self._places

    def _pass_on(self, address: ListenAddress, connection: socket.socket) -> None:
        """Give a connection to the worker whose turn it is."""
        with connection:
            turns = [self._workers[one] for one in sorted(self._ready)]
            later = [one for one in turns if one.index > self._last]
            # One that does not even read what it is told gets none while others do.
            for worker in sorted((*later, *turns), key=lambda one: one.stuck):
                if worker.tell("connection", {"at": astuple(address)}, connection.fileno()):
                    self._last = worker.index
                    return

    async def _follow(self, worker: WorkerProcess) -> None:
        why = await worker.take(lambda: self._handover)
        # Of one that has ended ``_keep`` tells.
        if why and not worker.gone:
            self._ready.discard(worker.index)
            self._say(f"{worker} cannot serve by the new configuration: {why}")
            self._spawn(worker.retire(self._settings.drain_seconds))

    def reset(self) -> None:
        self._tokens.reset()
        super().reset()
        for worker in self._workers.values():
            worker.tell("reset", {})

    async def snapshots(self) -> list[dict[str, Any]]:
        """How every worker is; what one does not tell in time is missing. For ``merged``."""
        every = await asyncio.gather(*(one.snapshot() for one in self._workers.values()))
        # It is the supervisor that takes configurations, and knows when all of this began.
        own = snapshot(self)
        mine = {name: own[name] for name in ("started", "listeners", "reloads")}
        return [{**one, **mine} for one in every if one] or [own]

    # -- processes -----------------------------------------------------------------------------

    async def _keep(self, index: int) -> None:
        """Have a worker there, one after the other, until it is over."""
        failures = 0
        while not self._ending.is_set():
            began = time.monotonic()
            why = await self._live(index)
            if self._ending.is_set():
                return
            failures = failures + 1 if time.monotonic() - began < _SETTLED_SECONDS else 0
            if failures >= _FAILURES and not (self._begun and self._ready):
                self.failure = KeyrelayError(why)
                self._changed.set()
                self._gone()
                return
            self._say(f"{why}; another takes its place")
            if failures:
                await asyncio.sleep(min(_PAUSE_FIRST * 2 ** (failures - 1), _PAUSE_MOST))

    async def _live(self, index: int) -> str:
        """One worker from its start to its end; why it has ended."""
        try:
            worker = await WorkerProcess.start(
                index,
                self._count,
                self._command,
                partial(self._answer, index),
                # Secrets come over the channel.
                resolver.environment_without(self._hidden),
            )
        except OSError as error:
            return f"worker {index + 1} cannot be started: {os.strerror(error.errno or 0)}"
        self._workers[index] = worker
        worker.tell("log", {}, self._log_lock)
        if self._ending.is_set():
            worker.kill()
        why = await worker.take(lambda: self._handover)
        if why:
            worker.kill()
        else:
            self._ready.add(index)
            self._changed.set()
            self._accept_or_rest()
        how = await worker.ended()
        self._ready.discard(index)
        self._accept_or_rest()
        del self._workers[index]
        return f"{worker} {f'did not start: {why}' if why else how}"

    async def _answer(
        self, index: int, kind: str, message: Message, _descriptors: list[int]
    ) -> Message:
        """What a worker asks or tells."""
        match kind:
            case "token":
                return await self._tokens.answer(message)
            case "warn":
                self._say(message["line"])
            case "leaving":
                self._ready.discard(index)
                self._accept_or_rest()
        return {}

    def _say(self, line: str) -> None:
        now = time.monotonic()
        self._said = {one: at for one, at in self._said.items() if now - at < _SAID_SECONDS}
        if line not in self._said:
            self._said[line] = now
            self._warn(line)

    # -- the end -------------------------------------------------------------------------------

    async def close(self, drain_seconds: float | None = None) -> None:
        """As of ``App``: workers stop accepting, and let end what is in flight."""
        self._ending.set()
        self._places.stop()
        if drain_seconds is None:
            drain_seconds = self._settings.drain_seconds
        await asyncio.gather(*(one.retire(drain_seconds) for one in self._workers.values()))
        await super().close(_AT_ONCE)

    async def _kill(self) -> None:
        self._ending.set()
        for worker in list(self._workers.values()):
            worker.kill()
            await worker.ended()
