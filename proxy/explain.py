"""What keyrelay would do with a request, found out by running the server's own code.

Nothing is sent. Secrets are replaced by their names in angle brackets before the routes are built,
so the rest of what is shown is exactly what would leave.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import sources
from .compiling import compile_route
from .errors import Refusal
from .guard import LOOPBACK_NAMES, Guard, is_preflight
from .incoming import Incoming
from .outgoing import Outgoing
from .routes import Match, RouteTable
from .secret import Secret
from .settings import SecretSettings, Settings

# The example key of RFC 6455 section 1.3: valid, and recognisable as nobody's.
_HANDSHAKE = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]


@dataclass(frozen=True, slots=True)
class Explanation:
    """``steps`` are (what, finding) in order; ``request`` is what would leave, None if refused."""

    steps: tuple[tuple[str, str], ...]
    request: str | None
    refusal: Refusal | None


def explain(
    settings: Settings, method: str, target: str, fields: list[tuple[str, str]], *, websocket: bool
) -> Explanation:
    """Follow a request with these header fields through guard, routes and strategies."""
    routes = [compile_route(name, one, _masked) for name, one in settings.routes.items()]
    table = RouteTable(routes)
    guard = Guard(LOOPBACK_NAMES | table.hosts, frozenset(settings.browsers.origins))
    names = {name.lower() for name, _ in fields}
    if "host" not in names:
        fields = [("Host", "127.0.0.1"), *fields]
    if websocket:
        fields = fields + [pair for pair in _HANDSHAKE if pair[0].lower() not in names]
    incoming = Incoming.of(method, target, fields, websocket=websocket)
    steps: list[tuple[str, str]] = []
    try:
        request = _follow(guard, table, incoming, steps)
    except Refusal as refusal:
        return Explanation(tuple(steps), None, refusal)
    return Explanation(tuple(steps), request, None)


def _follow(
    guard: Guard, table: RouteTable, incoming: Incoming, steps: list[tuple[str, str]]
) -> str | None:
    host, page = guard.admit(incoming)
    who = "no browser" if page is None else f"a page of the allowed origin {page}"
    steps.append(("guard", f"admitted: host {host}, {who}"))
    if page is not None and is_preflight(incoming):
        steps.append(("answer", "a CORS preflight: answered by keyrelay, nothing is sent"))
        return None
    if incoming.path.startswith(b"/-/") and table.shares(host):
        steps.append(("answer", "a page of keyrelay's own: nothing is sent"))
        return None
    match = table.find(host, incoming)
    route = match.route
    steps.append(("route", f"{route.name}, mounted at {match.mount.decode() or '/'}"))
    strategy = route.admit(incoming, match.rest)
    steps.append(("rules", _rules(match, incoming)))
    steps.append(("strategy", strategy.name))
    where = "the built-in provider" if route.origin.builtin else str(route.origin)
    steps.append(("sent to", where))
    injection = strategy.ready(websocket=incoming.websocket)
    assert injection is not None
    request = Outgoing(incoming, match.rest, route.rules).render(injection)
    # In a query or a path the brackets of the stand-ins got percent-encoded; people read names.
    return re.sub(r"%3C([a-z0-9_]+)%3E", r"<\1>", request.decode("latin-1"))


def _rules(match: Match, incoming: Incoming) -> str:
    route = match.route
    allowed = "no allow list"
    if route.allow is not None:
        path = match.rest.decode("ascii") or "/"
        allowed = f"allowed by {route.allow.find_match(incoming.method, path)}"
    return f"{incoming.method} is served, not denied, {allowed}"


def _masked(name: str, settings: SecretSettings) -> Secret:
    """Stands for the secret if there is one. Raises SecretUnavailable as the real one does."""
    sources.resolve(name, settings)
    return Secret(name, f"<{name}>".encode("ascii"))
