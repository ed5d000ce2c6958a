"""Run keyrelay as a process: event loop, signals, start and end."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.admin import runtime_file
from proxy.app.app import App
from proxy.app.reload import Reloader
from proxy.config.settings import Settings
from proxy.process import hardening, memory
from proxy.process.banner import banner, next_steps
from proxy.process.output import LogChoice, StandardStreams, line_format
from proxy.process.systemd import READY, keep_watch, notify, reloading, stopping
from proxy.server.listener import AddressUnavailable

if TYPE_CHECKING:
    from proxy.admin.server import Admin
    from proxy.process.supervisor import Supervisor

# How long the banner waits for first tokens (seconds), to show their state. Requests are served
# meanwhile.
_SETTLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Source:
    """Source of the settings.

    settings  the settings as first read
    load      reads them again: blocking, raises KeyrelayError
    files     the files that ``load`` reads for given settings
    config    the routes file, None if there is none
    """

    settings: Settings
    load: Callable[[], Settings]
    files: Callable[[Settings], Iterable[Path]]
    config: Path | None = None


def serve(
    source: Source,
    *,
    strict: bool = False,
    greet: Callable[[str], str] | None = None,
    debuggable: bool = False,
    log: LogChoice | None = None,
) -> None:
    """Run until SIGTERM or SIGINT; a second signal ends it at once. SIGHUP reloads.

    strict      refuse to start while a route lacks a secret
    greet       makes further lines for the banner from the main listener's URL
    debuggable  leave the process open to debuggers and core dumps
    log         form of the access log; None for text on a terminal, else JSON

    Raises KeyrelayError if it cannot start, ConfigError if it would leak what it handles.
    """
    hardening.harden(debuggable=debuggable)
    streams = StandardStreams()
    with (
        closing(streams),
        asyncio.Runner(loop_factory=_loop_factory(), debug=False) as runner,
    ):
        try:
            served = _serve(
                source, streams, strict=strict, greet=greet, debuggable=debuggable, log=log
            )
            runner.run(served)
        except _StoppedAtStart:
            streams.warn("Stopped before the start was complete.")
        except AddressUnavailable as error:
            from proxy.diagnostics.taken_address import explain_unavailable

            raise explain_unavailable(error, source.config) from None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return a factory of event loops: uvloop's where available, for a tenth less CPU."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def _serve(
    source: Source,
    streams: StandardStreams,
    *,
    strict: bool,
    greet: Callable[[str], str] | None,
    debuggable: bool,
    log: LogChoice | None,
) -> None:
    warn = streams.warn
    # Before any sign that keyrelay runs: a stop signal may follow that sign at once.
    signals: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    app: App
    supervisor: Supervisor | None = None
    if source.settings.workers > 1:
        from proxy.process.supervisor import Supervisor

        app = supervisor = Supervisor(
            source.settings,
            command=_worker_command(debuggable=debuggable, log=log),
            warn=warn,
            gone=lambda: signals.put_nowait(signal.SIGTERM),
            strict=strict,
        )
    else:
        app = App(
            source.settings,
            write_log=streams.log,
            log_format=line_format(log),
            warn=warn,
            strict=strict,
        )
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(one, signals.put_nowait, one)
    # Before anything is read, so that no later change is missed.
    record = _ServingRecord(app, warn)
    reloader = Reloader(app, source.load, source.files, warn, taken=record.update)
    async with _started(app, supervisor, signals), record:
        opened = await _open_admin(app, reloader, warn)
        await app.settle(_SETTLE_SECONDS)
        warn(banner(app.routes, app.listeners, source.config))
        if opened is not None:
            # Without a terminal standard error usually goes to a log, which must not get the token.
            shown = opened.invitation(private=sys.stderr.isatty())
            warn(f"  inspector  {shown}")
        if greet is None:
            warn(next_steps(app, stops=sys.stderr.isatty()))
        else:
            warn("\n" + greet(app.listeners[0].url))
        memory.settle()
        notify(READY, warn)
        jobs = {loop.create_task(job) for job in (reloader.watch(), keep_watch(warn))}
        while await signals.get() == signal.SIGHUP:
            # Not awaited: the next signal may be the one that stops keyrelay.
            jobs.add(loop.create_task(_reload(reloader, warn)))
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs)
        notify(stopping(app.settings.drain_seconds), warn)
        warn("Stopping. A second signal stops at once.")
        drain = loop.create_task(_end(app, opened))
        second = loop.create_task(signals.get())
        await asyncio.wait({drain, second}, return_when=asyncio.FIRST_COMPLETED)
        second.cancel()
        if not drain.done():
            drain.cancel()
            await asyncio.wait({drain})
            await app.close(drain_seconds=0)
    if supervisor is not None and supervisor.failure is not None:
        raise supervisor.failure


class _StoppedAtStart(Exception):
    """A signal has ended the start."""


@asynccontextmanager
async def _started(
    app: App, supervisor: Supervisor | None, signals: asyncio.Queue[int]
) -> AsyncIterator[None]:
    """The app, running. Signals are heeded before: the program of a secret may hang.

    Raises KeyrelayError if it cannot start, _StoppedAtStart after SIGTERM or SIGINT. A SIGHUP
    remains in the queue.
    """
    loop = asyncio.get_running_loop()
    start = loop.create_task(app.__aenter__())
    arrived: list[int] = []
    while not start.done():
        signalled = loop.create_task(signals.get())
        await asyncio.wait({start, signalled}, return_when=asyncio.FIRST_COMPLETED)
        if signalled.done():
            arrived.append(signalled.result())
        else:
            signalled.cancel()
        if not start.done() and set(arrived) - {signal.SIGHUP}:
            start.cancel()
            await asyncio.wait({start})
            if supervisor is not None and supervisor.failure is not None:
                raise supervisor.failure
            if start.cancelled() or start.exception() is not None:
                raise _StoppedAtStart
    for one in arrived:
        signals.put_nowait(one)
    async with AsyncExitStack() as stack:
        stack.push_async_exit(await start)
        yield


class _ServingRecord:
    """The runtime file by which ``keyrelay health`` finds the main listener, after a reload too."""

    def __init__(self, app: App, warn: Callable[[str], object]) -> None:
        self._app = app
        self._warn = warn
        self._url = ""
        self._file: runtime_file.RuntimeFile | None = None

    def update(self) -> None:
        """Record where the app listens now. Where it cannot be recorded, that is a warning."""
        listeners = [one for one in self._app.listeners if one.route is None]
        url = min(listeners, key=lambda one: one.address.tls).url
        if url == self._url:
            return
        self._url = url
        try:
            self._file = runtime_file.write_serving(url)
        except OSError as error:
            reason = error.strerror or str(error)
            self._warn(f"keyrelay health will not find this process: XDG_RUNTIME_DIR: {reason}")

    async def __aenter__(self) -> None:
        self.update()

    async def __aexit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.remove()


def serve_as_worker(
    descriptor: int, *, debuggable: bool = False, log: LogChoice | None = None
) -> None:
    """Run as one of several workers, with ``descriptor`` as the channel to the supervisor.

    Raises KeyrelayError if it is no such channel.
    """
    from proxy.process.worker import work

    hardening.harden(debuggable=debuggable)
    streams = StandardStreams()
    with (
        closing(streams),
        asyncio.Runner(loop_factory=_loop_factory(), debug=False) as runner,
    ):
        runner.run(work(descriptor, streams, log_format=line_format(log)))


def _worker_command(*, debuggable: bool, log: LogChoice | None) -> list[str]:
    """Return the command that starts a worker, without its descriptor: as for this process."""
    started = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
    options = ["--debuggable"] if debuggable else []
    if log is not None:
        options += ["--log", log]
    return [sys.executable, *started, "run", *options, "--worker"]


async def _reload(reloader: Reloader, warn: Callable[[str], object]) -> None:
    """Reload, and notify the service manager of the beginning and the end."""
    notify(reloading(), warn)
    await reloader.reload()
    notify(READY, warn)


async def _open_admin(app: App, reloader: Reloader, warn: Callable[[str], object]) -> Admin | None:
    """Open the admin listener if it is configured. Raises KeyrelayError."""
    if app.settings.admin is None:
        return None
    from proxy.admin import server as admin  # loads a web server, which nothing else needs

    opened = await admin.start(
        app,
        reloader.reload,
        app.settings.admin.listen,
        warn=warn,
        peer_refusal=app.peer_refusal,
    )
    await app.add_own(opened.listener.address)
    return opened


async def _end(app: App, opened: Admin | None) -> None:
    """Drain requests in flight. The admin listener closes first: no reload may interfere."""
    if opened is not None:
        await opened.close()
    await app.close()
