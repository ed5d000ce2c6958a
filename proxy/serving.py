"""Running keyrelay as a process: event loop, signals, and what a person sees at the start."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable

import click

from . import __version__, hardening
from .app import App
from .auth.base import EVERY_PATH
from .errors import KeyrelayError
from .listening import Listener
from .routes import Route
from .settings import Settings

# How long the banner waits for first tokens (seconds), to say how they are. Requests are served
# meanwhile.
_SETTLE_SECONDS = 2.0


def serve(
    settings: Settings,
    *,
    strict: bool = False,
    greet: Callable[[str], str] | None = None,
    debuggable: bool = False,
) -> None:
    """Run until SIGTERM or SIGINT; a second signal ends it at once.

    strict      refuse to start while a route lacks a secret
    greet       makes further lines for the banner from the main listener's URL
    debuggable  leave the process open to debuggers and core dumps

    Raises KeyrelayError if it cannot start, ConfigError if it would leak what it handles.
    """
    hardening.check_surroundings()
    if not debuggable:
        hardening.seal_memory()
    with asyncio.Runner(loop_factory=_loop_factory(), debug=False) as runner:
        runner.run(_serve(settings, strict=strict, greet=greet))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Makes event loops: of uvloop where the platform has it, for a tenth less CPU."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def _serve(settings: Settings, *, strict: bool, greet: Callable[[str], str] | None) -> None:
    on_terminal = sys.stdout.isatty()
    app = App(settings, write_log=_write, json_log=not on_terminal, warn=_warn)
    unready = [route.name for route in app.routes if route.unready]
    if strict and unready:
        for route in app.routes:
            if route.unready:
                click.echo(f"{route.name}: {route.unready}", err=True)
        raise KeyrelayError(f"not started: {len(unready)} of {len(app.routes)} routes not ready")
    # Before anything says that keyrelay runs: whoever reads that may stop it at once.
    signals: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, signals.put_nowait, one)
    async with app:
        await app.settle(_SETTLE_SECONDS)
        click.echo(banner(app.routes, app.listeners), err=True)
        if greet is not None:
            click.echo(greet(app.listeners[0].url), err=True)
        await signals.get()
        click.echo("Stopping. A second signal stops at once.", err=True)
        drain = loop.create_task(app.close())
        second = loop.create_task(signals.get())
        await asyncio.wait({drain, second}, return_when=asyncio.FIRST_COMPLETED)
        second.cancel()
        if not drain.done():
            drain.cancel()
            await asyncio.wait({drain})
            await app.close(drain_seconds=0)


def _write(lines: str) -> None:
    try:
        sys.stdout.write(lines)
        sys.stdout.flush()
    except BrokenPipeError:
        # As after ``| head``. Requests matter more than their log, so serving goes on.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        click.echo("Nobody reads the access log any more; it ends here.", err=True)


def _warn(line: str) -> None:
    click.echo(line, err=True)


def banner(routes: tuple[Route, ...], listeners: tuple[Listener, ...]) -> str:
    """Where it listens and which routes can serve; what the others lack."""
    shared = [one.url for one in listeners if one.route is None]
    lines = [f"keyrelay {__version__} on {', '.join(shared)}", ""]
    width = max(len(route.name) for route in routes)
    for route in routes:
        own = [one.url for one in listeners if one.route == route.name]
        between = " " if shared[0].startswith("unix:") else ""
        places = ", ".join([shared[0] + between + route.prefix.decode(), *own])
        if route.unready:
            state = click.style("not ready", fg="yellow")
            lines.append(f"  {route.name:<{width}}  {state}  {route.unready}")
        else:
            where = "built-in" if route.origin.builtin else str(route.origin)
            state = click.style("ready    ", fg="green")
            lines.append(f"  {route.name:<{width}}  {state}  {places} → {where}")
            lines += [" " * (width + 15) + line for line in _strategy_lines(route)]
    return "\n".join([*lines, ""])


def _strategy_lines(route: Route) -> list[str]:
    """Which strategy serves what, and the state of its token; nothing if there is only a key."""
    if len(route.strategies) == 1 and not route.strategies[0].renewable:
        return []
    lines = []
    for position, one in enumerate(route.strategies):
        scope = "everything else" if position and one.scope == EVERY_PATH else one.scope
        lines.append(", ".join(filter(None, (f"{one.name} for {scope}", one.describe()))))
    return lines
