"""Run a command with base URLs instead of keys, beside a keyrelay with the command's lifetime.

The command stays in the terminal's foreground group, with the same input and output, so that job
control, pagers and prompts work as without keyrelay.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from proxy.app.app import App
from proxy.config.route import RouteSettings
from proxy.config.settings import Settings
from proxy.config.template import parse_template
from proxy.errors import ConfigError, Finding, KeyrelayError
from proxy.process import hardening, memory
from proxy.secrets.env import PRIVATE_VARIABLES, variables_of
from proxy.server.peer_credentials import lookup_supported

URL_VARIABLE = "KEYRELAY_URL"
"""Variable with the base URL of keyrelay itself, where each route is served under its prefix."""

NOT_EXECUTABLE = 126
"""Exit code, as in shells, for a command that exists but cannot be executed."""

NOT_FOUND = 127
"""Exit code, as in shells, for a command that does not exist."""

_LISTEN = ("127.0.0.1:0",)
# Variables with proxies, in lower case; programs read them in capitals too.
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "wss_proxy")
_OWN_HOSTS = ("127.0.0.1", "localhost")
# A terminal sends these to the whole foreground group.
_OF_TERMINALS = (signal.SIGINT, signal.SIGQUIT)
_FORWARDED = (signal.SIGTERM, signal.SIGHUP)


def run(
    settings: Settings,
    command: Sequence[str],
    warn: Callable[[str], object],
    *,
    demanded: Collection[str] = (),
    hidden: Mapping[str, str | None] = MappingProxyType({}),
    needed: Collection[str] = (),
    log: Path | None = None,
    intercept: bool = False,
    debuggable: bool = False,
) -> int:
    """Run ``command`` beside a keyrelay on free ports. Returns the command's exit code.

    The code is 128 plus the signal's number if a signal ended the command.

    warn        receives messages for the operator, one line each
    demanded    routes that must be ready
    hidden      further variables with keys, beside those of its own routes, as ``key_variables``
                returns them
    needed      variables without which the command's SDKs may not start: set to their placeholder
                even if they are unset in the inherited environment
    log         file to which the access log is appended; None for no access log
    intercept   be the command's HTTPS proxy as well: see ``process.intercept``
    debuggable  leave the process open to debuggers and core dumps

    Raises ConfigError if a demanded route is not ready, KeyrelayError if keyrelay cannot start.
    """
    hardening.harden(debuggable=debuggable)
    with ExitStack() as stack:
        write_log = None
        if log is not None:
            try:
                file = stack.enter_context(
                    open(log, "a", buffering=1, encoding="utf-8", opener=_private)
                )
            except OSError as error:
                raise KeyrelayError(f"cannot write {log}: {error.strerror}") from None
            write_log = file.write
        # Not uvloop's loop: it resets ignored signals to their defaults in child processes.
        runner = stack.enter_context(asyncio.Runner(debug=False))
        return runner.run(
            _run(settings, command, warn, demanded, hidden, needed, write_log, intercept=intercept)
        )


def _private(path: str, flags: int) -> int:
    """Open a file; a new one has mode 0600."""
    return os.open(path, flags, 0o600)


def beside_child(settings: Settings) -> Settings:
    """Return the settings with every listener on a free loopback port, to avoid conflicts.

    The inbound token is not required, since the command receives neither the token nor the keys.
    Connections of other local users are refused instead, where the system supports the lookup.
    """
    routes = {
        name: one.model_copy(update={"listen": _LISTEN if one.listen else ()})
        for name, one in settings.routes.items()
    }
    changed: dict[str, Any] = {"listen": _LISTEN, "routes": routes}
    if settings.inbound_token is not None:
        changed["inbound_token"] = None
        changed["peer_uid"] = "enforce" if lookup_supported() else settings.peer_uid
    return settings.model_copy(update=changed)


class Place(Protocol):
    """A listener: its URL, and the route that it serves alone, None for the main one."""

    @property
    def url(self) -> str: ...
    @property
    def route(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class PlannedListener:
    """A listener on a port that is not chosen yet."""

    url: str
    route: str | None


def planned_changes(
    settings: Settings,
    inherited: Mapping[str, str],
    hidden: Mapping[str, str | None] = MappingProxyType({}),
    needed: Collection[str] = (),
) -> tuple[dict[str, str], list[str]]:
    """Return the variables that ``run`` would set, and the names of those it would remove.

    Opens nothing and reads no secret. Ports are ``PORT``; a route with a listener of its own has
    ``PORT-OF-`` and its name.
    """
    places = [PlannedListener("http://127.0.0.1:PORT", None)]
    places += [
        PlannedListener(f"http://127.0.0.1:PORT-OF-{name}", name)
        for name, route in settings.routes.items()
        if route.listen
    ]
    environment = environment_of(settings, places, inherited, hidden, needed)
    set_variables = {
        name: value
        for name, value in sorted(environment.items())
        if inherited.get(name) != value or name in hidden
    }
    return set_variables, sorted(inherited.keys() - environment.keys())


def environment_of(
    settings: Settings,
    listeners: Sequence[Place],
    inherited: Mapping[str, str],
    hidden: Mapping[str, str | None] = MappingProxyType({}),
    needed: Collection[str] = (),
) -> dict[str, str]:
    """Return the command's environment: base URLs, placeholders for keys, the inherited rest.

    Variables with keys, and those for keyrelay alone, are removed. A key's variable that was set,
    or is ``needed``, gets the placeholder of its secret, since many SDKs refuse to start without.
    """
    shared = next(one.url for one in listeners if one.route is None)
    own = {one.route: one.url for one in listeners if one.route is not None}
    keys = {**key_variables(settings), **hidden}
    left_out = {*keys, *PRIVATE_VARIABLES}
    environment = {name: value for name, value in inherited.items() if name not in left_out}
    environment |= {
        name: placeholder
        for name, placeholder in keys.items()
        if placeholder is not None and (name in inherited or name in needed)
    }
    environment[URL_VARIABLE] = shared
    # If two routes set the same variable, the first route takes precedence.
    for name, route in reversed([*settings.routes.items()]):
        base = own.get(name, f"{shared}{route.path or f'/{name}'}").encode("ascii")
        addresses = {"base": base, "ws_base": base.replace(b"http", b"ws", 1)}
        for variable, template in route.environment.items():
            environment[variable] = parse_template(template).render(addresses).decode("ascii")
    return environment | _without_proxy(environment)


def _without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return ``NO_PROXY`` and ``no_proxy`` by which calls to keyrelay go to no proxy.

    Some programs read one of them and some the other, so both get what either has. Empty without a
    proxy in the environment: Python on macOS takes the system's proxies only if no such variable is
    set.
    """
    if not any(environment.get(name) for one in _PROXIES for name in (one, one.upper())):
        return {}
    given = {name: environment.get(name, "") for name in ("no_proxy", "NO_PROXY")}
    changed = {}
    for name, other in zip(given, reversed(given), strict=True):
        text = given[name] or given[other]
        entries = [entry.strip() for entry in re.split(r"[,\s]+", text)]
        if "*" not in entries:
            missing = [host for host in _OWN_HOSTS if host not in entries]
            text = ",".join([text.rstrip(", ")] * bool(text.strip(", ")) + missing)
        changed[name] = text
    return changed


def key_variables(
    settings: Settings, presets: Iterable[RouteSettings] = ()
) -> dict[str, str | None]:
    """Map every variable from which a secret may come to the placeholder for a command.

    Variables of sources that another source preceded are included. The variables of ``withhold``
    map to None.

    presets  presets of the routes: the providers' own SDKs read the variables that these name,
             also where the route takes its key from elsewhere
    """
    found: dict[str, str | None] = {}
    routes = (*presets, *settings.routes.values())
    for route in routes:
        for secret in route.secrets.values():
            for variable in sorted(variables_of([secret])):
                found.setdefault(variable, secret.placeholder)
    for route in routes:
        found.update(dict.fromkeys(route.withhold))
    if settings.inbound_token is not None:
        found.update(dict.fromkeys(variables_of([settings.inbound_token])))
    if settings.tokens is not None:
        found.update(dict.fromkeys(variables_of(settings.tokens.secrets)))
    return found


def needed_variables(routes: Iterable[RouteSettings]) -> frozenset[str]:
    """Return the variables of the required secrets: an SDK may require any of them."""
    secrets = [one for route in routes for one in route.secrets.values() if not one.optional]
    return variables_of(secrets)


async def _run(
    settings: Settings,
    command: Sequence[str],
    warn: Callable[[str], object],
    demanded: Collection[str],
    hidden: Mapping[str, str | None],
    needed: Collection[str],
    write_log: Callable[[str], object] | None,
    *,
    intercept: bool,
) -> int:
    app = App(beside_child(settings), write_log=write_log, json_log=True, warn=warn)
    async with app, AsyncExitStack() as stack:
        _check_ready(app, demanded, warn)
        environment = environment_of(settings, app.listeners, os.environ, hidden, needed)
        if intercept:
            from proxy.process.interception import intercepting

            environment |= await stack.enter_async_context(intercepting(app, environment))
        memory.settle()
        with _Signals() as signals:
            try:
                # Neither pipes nor a new session: as if the shell had started the command.
                process = await asyncio.create_subprocess_exec(*command, env=environment)
            except (FileNotFoundError, NotADirectoryError):
                warn(f"keyrelay: {command[0]}: command not found")
                return NOT_FOUND
            except OSError as error:
                warn(f"keyrelay: {command[0]}: {os.strerror(error.errno or 0)}")
                return NOT_EXECUTABLE
            signals.go_to(process)
            code = await process.wait()
        # Processes that the command left behind receive no more responses.
        await app.close(drain_seconds=0)
    return code if code >= 0 else 128 - code


def _check_ready(app: App, demanded: Collection[str], warn: Callable[[str], object]) -> None:
    findings = []
    for route in app.routes:
        if route.unready and route.name in demanded:
            findings.append(Finding(route.name, 0, 0, "the route is not ready", route.unready))
        elif route.unready:
            warn(f"keyrelay: {route.name} is not ready: {route.unready}")
    if findings:
        raise ConfigError(findings)


class _Signals:
    """Forwards to the command the signals that keyrelay alone received. A context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._process: asyncio.subprocess.Process | None = None
        self._early: list[int] = []
        self._caught: list[int] = []

    def __enter__(self) -> _Signals:
        for number in (*_OF_TERMINALS, *_FORWARDED):
            # A signal that was ignored at the start, as by nohup, must be ignored in the command
            # too; a handler here would reset it to its default there.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._loop.add_signal_handler(number, self._came, number)
                self._caught.append(number)
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._caught:
            self._loop.remove_signal_handler(number)

    def go_to(self, process: asyncio.subprocess.Process) -> None:
        """Forward past and future signals to this process."""
        self._process = process
        for number in self._early:
            self._send(process, number)

    def _came(self, number: int) -> None:
        if number in _OF_TERMINALS and _in_foreground():
            return  # the terminal has sent it to the command
        if self._process is None:
            self._early.append(number)
        else:
            self._send(self._process, number)

    @staticmethod
    def _send(process: asyncio.subprocess.Process, number: int) -> None:
        with suppress(ProcessLookupError):  # it has just ended
            process.send_signal(number)


def _in_foreground() -> bool:
    """Whether this process's group is the foreground group of the controlling terminal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False  # there is none
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False  # it has hung up
    finally:
        os.close(terminal)
