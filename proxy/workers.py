"""Several processes that serve one configuration: the supervisor starts, tells and replaces them.

It is the process that was started. It accepts no connection itself: it reads the configuration,
holds the tokens and the listening sockets, and hands to its workers what they need. One that dies
is replaced; what waits to be accepted meanwhile goes to the others.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple
from functools import partial
from typing import Any

from .app import App, Supply, read_all
from .auth.shared import Tokens
from .channel import Channel, ChannelClosed, Message
from .clock import SystemClock
from .compiling import Found
from .errors import KeyrelayError
from .handover import Handover
from .origins import ListenAddress
from .secret import Secret
from .settings import Settings
from .sharing import OpenPlaces
from .status import snapshot

# A worker that ends sooner after its start (seconds) is a failure; that many in a row, while none
# serves, and there is no sense in going on.
_SETTLED_SECONDS = 10.0
_FAILURES = 5
# Before a failed one is started again (seconds): doubled each time.
_PAUSE_FIRST = 0.1
_PAUSE_MOST = 30.0
# A worker that cannot take a configuration in this time (seconds) is replaced.
_TAKE_SECONDS = 30.0
_SNAPSHOT_SECONDS = 2.0
# Beyond the time that work in flight has, a worker may take this long to end (seconds).
_GRACE_SECONDS = 5.0
# What several workers say at about the same time (seconds) is said once.
_SAID_SECONDS = 10.0
_AT_ONCE = 0.0


class _Worker:
    """A process that was started, seen from outside.

    serves  the configuration that it has taken
    """

    def __init__(self, index: int, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self.index = index
        self.process = process
        self.channel = channel
        self.serves: Handover | None = None

    def __str__(self) -> str:
        return f"worker {self.index + 1} (pid {self.process.pid})"

    def end(self, seconds: float | None) -> None:
        """Tell it to end what it does within that time, None for that of the settings."""
        with suppress(ChannelClosed):
            self.channel.tell("end", {"seconds": seconds})

    async def ended(self) -> None:
        """Wait until the process is gone."""
        await self.process.wait()

    def kill(self) -> None:
        """End it now."""
        with suppress(ProcessLookupError):
            self.process.kill()
        self.channel.close()


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
        self._tokens = Tokens(SystemClock(), self._spawn)
        self._found_inbound: Secret | None = None
        self._inbound: Secret | None = None
        supply = Supply(
            self._read,
            self._tokens.share,
            lambda make, accept: OpenPlaces(make, accept, self._pass_on),
        )
        super().__init__(settings, warn=warn, strict=strict, supply=supply)
        self._count = settings.workers
        self._command = tuple(command)
        self._gone = gone
        self._workers: dict[int, _Worker] = {}
        self._ready: set[int] = set()
        self._last = -1
        self._changed = asyncio.Event()
        self._begun = False
        self._ending = asyncio.Event()
        self._said: dict[str, float] = {}
        self._log_lock: int
        self._handover: Handover
        self.failure: KeyrelayError | None = None

    async def _start(self) -> None:
        """As of ``App``, and all workers serve. Raises KeyrelayError, too, if one cannot."""
        self._log_lock = _lock_file()
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

    def _read(self, settings: Settings) -> tuple[Mapping[str, Found], Secret | None]:
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
        self._handover = Handover(
            self._settings,
            {name: service.found for name, service in self._services.in_force.items()},
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
            for worker in sorted((*later, *turns), key=lambda one: one.channel.waiting):
                with suppress(ChannelClosed):
                    worker.channel.tell(
                        "connection", {"at": astuple(address)}, [connection.fileno()]
                    )
                    self._last = worker.index
                    return

    async def _follow(self, worker: _Worker) -> None:
        why = await self._hand_over(worker)
        # Of one that has ended ``_keep`` tells.
        if why and not worker.channel.closed.done():
            self._ready.discard(worker.index)
            self._say(f"{worker} cannot serve by the new configuration: {why}")
            worker.end(None)

    def reconsider(self) -> None:
        super().reconsider()
        for worker in self._workers.values():
            with suppress(ChannelClosed):
                worker.channel.tell("reconsider", {})

    async def snapshots(self) -> list[dict[str, Any]]:
        """How every worker is; what one does not tell in time is missing. For ``merged``."""
        every = await asyncio.gather(*map(self._snapshot, list(self._workers.values())))
        # It is the supervisor that takes configurations, and knows when all of this began.
        own = snapshot(self)
        mine = {name: own[name] for name in ("started", "listeners", "reloads")}
        return [{**one, **mine} for one in every if one] or [own]

    async def _snapshot(self, worker: _Worker) -> Message:
        try:
            async with asyncio.timeout(_SNAPSHOT_SECONDS):
                return await worker.channel.ask("snapshot", {})
        except (ChannelClosed, TimeoutError):
            return {}

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
            worker = await self._begin(index)
        except OSError as error:
            return f"worker {index + 1} cannot be started: {os.strerror(error.errno or 0)}"
        if self._ending.is_set():
            worker.kill()
        why = await self._hand_over(worker)
        if why:
            worker.end(_AT_ONCE)
        else:
            self._ready.add(index)
            self._changed.set()
            self._accept_or_rest()
        code = await worker.process.wait()
        self._ready.discard(index)
        self._accept_or_rest()
        del self._workers[index]
        worker.channel.close()
        return f"{worker} {f'did not start: {why}' if why else _how(code)}"

    async def _begin(self, index: int) -> _Worker:
        """A process that has been told nothing yet. Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    str(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    # What a terminal sends to all (Ctrl-C) is for the supervisor to decide on.
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            raise
        answer = partial(self._answer, index)
        worker = self._workers[index] = _Worker(index, process, Channel(ours, answer))
        with suppress(ChannelClosed):
            worker.channel.tell("log", {}, [self._log_lock])
        return worker

    async def _hand_over(self, worker: _Worker) -> str:
        """Give it the configuration in force, which may change meanwhile; why it was not taken."""
        while worker.serves is not self._handover:
            handover = self._handover
            message = {
                "handover": handover.as_json(),
                "index": worker.index,
                "workers": self._count,
                "at": time.time(),
            }
            try:
                async with asyncio.timeout(_TAKE_SECONDS):
                    answer = await worker.channel.ask("configuration", message)
            except ChannelClosed as error:
                return str(error)
            except TimeoutError:
                return f"it took longer than {_TAKE_SECONDS:.0f} s"
            if "failed" in answer:
                return str(answer["failed"])
            worker.serves = handover
        return ""

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
        workers = list(self._workers.values())
        for worker in workers:
            worker.end(drain_seconds)
        ends = [self._spawn(worker.ended()) for worker in workers]
        if ends:
            await asyncio.wait(ends, timeout=drain_seconds + _GRACE_SECONDS)
        await self._kill()
        await super().close(_AT_ONCE)

    async def _kill(self) -> None:
        self._ending.set()
        for worker in list(self._workers.values()):
            worker.kill()
            await worker.ended()


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"


def _lock_file() -> int:
    """A descriptor of a file without a name, to be locked by one process at a time."""
    if sys.platform == "linux":
        # There may be no place to write a file.
        return os.memfd_create("keyrelay")
    else:  # noqa: RET505  so that mypy sees two platforms
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
