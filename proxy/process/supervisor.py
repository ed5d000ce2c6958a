"""The supervisor of several worker processes with one configuration: starts and replaces them.

It is the process that the operator started. It serves no request itself: it reads the
configuration, holds the tokens and the listening sockets, and passes configuration, tokens and
accepted connections to its workers. A worker that dies is replaced; new connections meanwhile go to
the other workers.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from proxy import backoff
from proxy.app.app import App
from proxy.app.status import snapshot
from proxy.app.supply import Supply, read_all
from proxy.clock import SystemClock
from proxy.config.settings import Settings
from proxy.errors import KeyrelayError
from proxy.http.address import ListenAddress
from proxy.process.dispatch import Dispatcher
from proxy.process.ipc import Message
from proxy.process.token_broker import TokenBroker
from proxy.process.worker_config import WorkerConfig
from proxy.process.worker_exchanges import WorkerExchanges
from proxy.process.worker_listeners import OpenPlaces
from proxy.process.worker_process import WorkerProcess, lock_file
from proxy.routing.route_secrets import ResolvedSecrets, variables_in
from proxy.secrets import resolver
from proxy.secrets.secret import Secret

# A worker that ends sooner after its start (seconds) counts as a failure. After this many failures
# in a row, while no worker serves, the supervisor gives up.
_SETTLED_SECONDS = 10.0
_FAILURES = 5
# Delay before a failed worker is restarted (seconds), doubled each time.
_PAUSE_FIRST = 0.1
_PAUSE_MOST = 30.0
# The same message of several workers within this time (seconds) is printed once.
_SAME_MESSAGE_SECONDS = 10.0
_AT_ONCE = 0.0


class Supervisor(App):
    """An ``App`` whose requests are served by its worker processes.

    command  starts a worker; the descriptor of its channel is appended
    gone     called when the supervisor gives up; ``failure`` has the reason
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
        # Only grows: a variable that a new configuration no longer names is still set.
        self._hidden = resolver.PRIVATE_VARIABLES
        supply = Supply(
            self._read,
            self._tokens.share,
            lambda make, accept, _tls: OpenPlaces(make, accept, self._dispatcher.pass_on),
        )
        super().__init__(settings, warn=warn, strict=strict, supply=supply)
        self._count = settings.workers
        self._command = tuple(command)
        self._gone = gone
        self._workers: dict[int, WorkerProcess] = {}
        self._ready: set[int] = set()
        self._dispatcher = Dispatcher(
            lambda: [self._workers[one] for one in self._ready],
            holding=self._accept_or_rest,
            warn=self._warn_once,
        )
        self._changed = asyncio.Event()
        self._begun = False
        self._ending = asyncio.Event()
        self._warned: dict[str, float] = {}
        self._log_lock: int
        self._handover: WorkerConfig
        self._inspected: WorkerExchanges
        self.failure: KeyrelayError | None = None

    async def _start(self) -> None:
        """Start as ``App`` does, and wait for all workers. Raises KeyrelayError if one fails."""
        self._log_lock = lock_file()
        self._stack.callback(os.close, self._log_lock)
        self._stack.callback(self._tokens.close)
        await super()._start()
        self._inspected = self.exchanges = WorkerExchanges(
            lambda: [self._workers[one] for one in sorted(self._ready)]
        )
        self._stack.callback(self._dispatcher.close)
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
        """Adopt as ``App`` does, then configure every worker. A worker that fails is replaced."""
        changed = await super().adopt(settings)
        self._inbound = self._found_inbound
        await self._configure_all()
        return changed

    async def renew_certificate(self) -> None:
        await super().renew_certificate()
        await self._configure_all()

    async def add_own(self, address: ListenAddress) -> None:
        await super().add_own(address)
        await self._configure_all()

    async def _configure_all(self) -> None:
        self._handover = WorkerConfig(
            self._settings,
            {name: route_service.found for name, route_service in self._services.in_force.items()},
            self._inbound,
            self._opened.offers(),
            tuple(self.also_own),
            self._tls.pair,
        )
        await asyncio.gather(*(self._follow(self._workers[one]) for one in self._ready))
        self._accept_or_rest()

    def _accept_or_rest(self) -> None:
        if not self._ending.is_set():
            self._opened.accept(bool(self._ready) and not self._dispatcher.held)

    @property
    def _opened(self) -> OpenPlaces:
        assert isinstance(self._places, OpenPlaces)
        return self._places

    async def _follow(self, worker: WorkerProcess) -> None:
        why = await worker.take(lambda: self._handover)
        # ``_keep`` reports a worker that has ended.
        if why and not worker.gone:
            self._ready.discard(worker.index)
            self._warn_once(f"{worker} cannot serve by the new configuration: {why}")
            self._spawn(worker.retire(self._settings.drain_seconds))

    def reset(self) -> None:
        self._tokens.reset()
        super().reset()
        for worker in self._workers.values():
            worker.send("reset", {})

    async def snapshots(self) -> list[dict[str, Any]]:
        """Return the snapshots of all workers that reply in time. For ``merged``."""
        every = await asyncio.gather(*(one.snapshot() for one in self._workers.values()))
        # Only the supervisor has the reloads, the listeners and the time of the start.
        own = snapshot(self)
        mine = {name: own[name] for name in ("started", "listeners", "reloads", "shared_tokens")}
        return [{**one, **mine} for one in every if one] or [own]

    # -- processes -----------------------------------------------------------------------------

    async def _keep(self, index: int) -> None:
        """Keep one worker running, restarted whenever it ends, until shutdown."""
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
            self._warn_once(f"{why}; another takes its place")
            if failures:
                await asyncio.sleep(
                    backoff.bound(failures - 1, first=_PAUSE_FIRST, most=_PAUSE_MOST)
                )

    async def _live(self, index: int) -> str:
        """Run one worker from its start to its end. Returns the reason of its end."""
        try:
            worker = await WorkerProcess.start(
                index,
                self._count,
                self._command,
                partial(self._answer, index),
                # The worker receives secrets over the channel.
                resolver.environment_without(self._hidden),
            )
        except OSError as error:
            return f"worker {index + 1} cannot be started: {os.strerror(error.errno or 0)}"
        self._workers[index] = worker
        worker.send("log", {}, self._log_lock)
        if self._ending.is_set():
            worker.kill()
        why = await worker.take(lambda: self._handover)
        if why:
            worker.kill()
        else:
            self._ready.add(index)
            self._inspected.begin(worker)
            self._changed.set()
            self._accept_or_rest()
        how = await worker.ended()
        self._ready.discard(index)
        self._inspected.end(index)
        self._accept_or_rest()
        del self._workers[index]
        return f"{worker} {f'did not start: {why}' if why else how}"

    async def _answer(
        self, index: int, kind: str, message: Message, _descriptors: list[int]
    ) -> Message:
        """Handle a message of a worker."""
        match kind:
            case "token":
                return await self._tokens.answer(message)
            case "warn":
                self._warn_once(message["line"])
            case "inspected":
                self._inspected.receive(index, message["events"])
            case "leaving":
                self._ready.discard(index)
                self._accept_or_rest()
        return {}

    def _warn_once(self, line: str) -> None:
        now = time.monotonic()
        self._warned = {
            one: at for one, at in self._warned.items() if now - at < _SAME_MESSAGE_SECONDS
        }
        if line not in self._warned:
            self._warned[line] = now
            self._warn(line)

    # -- shutdown ------------------------------------------------------------------------------

    async def close(self, drain_seconds: float | None = None) -> None:
        """Close as ``App`` does: workers accept nothing more and drain requests in flight."""
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
