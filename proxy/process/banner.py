"""What the operator sees at the start: listeners, the state of each route, and what to do next."""

from __future__ import annotations

from pathlib import Path

import click

from proxy import __version__
from proxy.app.app import App
from proxy.auth.strategy import EVERY_PATH, Strategy
from proxy.config.scaffold import curl
from proxy.routing.route import Route
from proxy.secrets import local_authority
from proxy.server.listener import Listener


def banner(
    routes: tuple[Route, ...], listeners: tuple[Listener, ...], file: Path | None = None
) -> str:
    """Return the text with the listeners and the state of each route, for the operator.

    file  the routes file, None for the routes that ship or named presets
    """
    shared = [one.url for one in listeners if one.route is None]
    lines = [f"keyrelay {__version__} on {', '.join(shared)}"]
    if file is not None:
        lines.append(f"routes from {file.absolute()}")
    lines.append("")
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
            if any(map(_lacks_token, route.strategies)):
                state = click.style("no token ", fg="yellow")
            lines.append(f"  {route.name:<{width}}  {state}  {places} → {where}")
            lines += [" " * (width + 15) + line for line in _strategy_lines(route)]
    return "\n".join([*lines, ""])


def _lacks_token(strategy: Strategy) -> bool:
    state = strategy.credential.state()
    token = None if state is None else state.token
    return token is not None and token.age_seconds is None and bool(token.reason)


def _strategy_lines(route: Route) -> list[str]:
    """List each strategy with its paths and the state of its token; empty for a single key."""
    if len(route.strategies) == 1 and not route.strategies[0].credential.renewable:
        return []
    lines = []
    for position, one in enumerate(route.strategies):
        scope = "everything else" if position and one.scope == EVERY_PATH else one.scope
        lines.append(
            ", ".join(filter(None, (f"{one.name} for {scope}", one.credential.describe())))
        )
    return lines


def next_steps(app: App, *, stops: bool) -> str:
    """Return a request to paste, how to open the inspector unless it is open, and, if ``stops``,
    how to stop.
    """
    lines = [f"  try it     {_first_request(app)}"]
    if app.settings.admin is None:
        lines.append("  inspector  off; --admin opens it")
    if stops:
        lines.append("  stop       Ctrl-C")
    return "\n".join([*lines, ""])


def _first_request(app: App) -> str:
    ready = [route for route in app.routes if not route.unready]
    if not ready:
        return "no route is ready; keyrelay demo needs no key"
    route = ready[0]
    # A GET, by ``check_verify``.
    target = (app.settings.routes[route.name].verify or "GET /").removeprefix("GET ")
    options = []
    if app.settings.inbound_token is not None:
        options = ["-H", "X-Keyrelay-Token: TOKEN"]
    listeners = [one for one in app.listeners if one.route is None]
    chosen = next((one for one in listeners if not one.address.tls), listeners[0])
    if chosen.address.tls and app.settings.tls is None:
        options += ["--cacert", str(local_authority.certificate_file())]
    return curl(chosen.url, route.prefix.decode() + target, *options)
