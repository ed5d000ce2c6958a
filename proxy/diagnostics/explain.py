"""What keyrelay would do with a request, found out by running the server's own code.

Nothing is sent. Secrets are replaced by their names in angle brackets before the routes are built,
and so is a request id that would be a new one; the rest of what is shown is exactly what would
leave. Only the secrets of the matched route are read, to find out which are missing.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import re
from collections.abc import Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from proxy.auth.factory import name_of
from proxy.auth.injection import Injection
from proxy.auth.strategy import AuthContext
from proxy.clock import SystemClock
from proxy.config.route import RouteSettings
from proxy.config.settings import Settings
from proxy.config.template import parse_template
from proxy.config.token import Jwt
from proxy.config.validation import served_hosts
from proxy.diagnostics.explain_messages import explain_messages
from proxy.errors import Refusal
from proxy.forwarding.upstream_request import UpstreamRequest
from proxy.http import parser as http_parser
from proxy.http.address import parse_listen
from proxy.http.request import Request
from proxy.http.request_id import request_id
from proxy.observability import tracing
from proxy.routing.builder import compile_route, needs
from proxy.routing.route import Route
from proxy.routing.route_secrets import ResolvedSecrets, secrets_of, variables_in
from proxy.routing.router import Router
from proxy.secrets.secret import Secret
from proxy.server.guard import Guard, is_preflight
from proxy.upstream.egress_proxy import EgressProxy
from proxy.upstream.tls import tls_context
from proxy.websocket.message_rules import MessageRules

# The example key of RFC 6455 section 1.3: valid, and recognisable as an example.
_HANDSHAKE = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]
# How the stand-ins for secrets look in a query, in a path, and in Basic authorization.
_ENCODED = re.compile(rb"%3C([A-Za-z0-9_.-]+)%3E")
_BASIC = re.compile(rb"^(Authorization: Basic )([A-Za-z0-9+/]+={0,2})\r$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Explanation:
    """``steps`` are (what, finding) in order; ``request`` is what would leave, None if refused."""

    steps: tuple[tuple[str, str], ...]
    request: str | None
    refusal: Refusal | None


def explain(
    settings: Settings, method: str, target: str, fields: list[tuple[str, str]], *, websocket: bool
) -> Explanation:
    """Follow a request with these header fields through parser, guard, routes and strategies.

    A ``Host`` with the port of a route's own listener is asked there, any other at the main one.
    """
    names = {name.lower() for name, _ in fields}
    if "host" not in names:
        fields = [("Host", "127.0.0.1"), *fields]
    if websocket:
        fields = fields + [pair for pair in _HANDSHAKE if pair[0].lower() not in names]
    routes = [_stand_in(name, route) for name, route in settings.routes.items()]
    steps: list[tuple[str, str]] = []
    try:
        request = _parsed(method, target, fields)
        rendered = _follow(settings, routes, request, steps)
    except Refusal as refusal:
        return Explanation(tuple(steps), None, refusal)
    return Explanation(tuple(steps), rendered, None)


def _parsed(method: str, target: str, fields: list[tuple[str, str]]) -> Request:
    """The header section as the server's parser reads it. Raises the Refusal of the server."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    if any(control in line for line in lines for control in "\r\n"):
        raise Refusal(400, "bad-request", "The request holds a line break where none can be.")
    # What was no UTF-8 on the command line is the same bytes here.
    head = "".join(f"{line}\r\n" for line in [*lines, ""]).encode("utf-8", "surrogateescape")
    loop = asyncio.new_event_loop()  # the parser asks for one and does not run it
    try:
        messages, _, _ = http_parser.request_parser(loop).feed_data(head)
    except http_parser.HttpProcessingError as error:
        raise http_parser.refusal(error) from None
    finally:
        loop.close()
    return http_parser.request(messages[0][0])


def _follow(
    settings: Settings, routes: list[Route], request: Request, steps: list[tuple[str, str]]
) -> str | None:
    table = Router(routes, _owner(settings, routes, request))
    guard = Guard(
        served_hosts(settings) | table.hosts,
        frozenset(settings.browsers.origins),
        own_root=table.serves_one_route,
    )
    host, page = guard.admit(request)
    who = "no browser" if page is None else f"a page of the allowed origin {page}"
    if settings.inbound_token is not None:
        who += "; if the request brings the inbound token"
    steps.append(("guard", f"admitted: host {host}, {who}"))
    if page is not None and is_preflight(request):
        steps.append(("answer", "a CORS preflight: answered by keyrelay, nothing is sent"))
        return None
    if request.target == b"*" or (
        request.path.startswith(b"/-/") and table.serves_all_routes(host)
    ):
        steps.append(("answer", "about keyrelay itself: nothing is sent"))
        return None
    match = table.find(host, request)
    route, proxy, lacking = _shown(match.route.name, settings)
    steps.append(("route", f"{route.name}, mounted at {match.mount.decode() or '/'}"))
    try:
        strategy = route.strategy_for(request, match.rest)
    except Refusal as refusal:
        if refusal.kind == "path-not-allowed":
            steps.append(("rules", _rules(route, request, match.rest)))
        raise
    steps.append(("rules", _rules(route, request, match.rest)))
    steps.append(("strategy", f"{strategy.name}, for {strategy.scope}"))
    where = "the built-in provider" if route.origin.builtin else str(route.origin)
    if proxy is not None and proxy.serves(route.origin):
        where += f" through the proxy {proxy}"
    steps.append(("sent to", where))
    if (sharing := _sharing(settings, route.name, strategy.name)) is not None:
        steps.append(("token", sharing))
    for secret, remedy in lacking.items():
        steps.append(("not set", f"{secret}: {remedy}; until then the response is 503"))
    injection = strategy.credential.ready(websocket=request.websocket)
    assert injection is not None
    rules = MessageRules(injection.message, route.rules.message_members)
    if request.websocket and (rules.placement is not None or rules.strip):
        steps += [("messages", one) for one in explain_messages(rules)]
    added = _request_id(request) + (b"traceparent: <trace>\r\n" if settings.tracing else b"")
    upstream_request = UpstreamRequest(request, match.rest, route.rules, added)
    shown = _readable(injection, lacking)
    return upstream_request.render(shown).decode("utf-8", "backslashreplace")


def _request_id(request: Request) -> bytes:
    """The line that names the request: with the client's id if that one will be used."""
    given = request.headers.get("X-Request-Id")
    # A new identifier differs each time: the output has a stand-in for it.
    shown = given if given is not None and request_id(given) == given else "<request id>"
    return b"X-Request-Id: %b\r\n" % shown.encode("ascii")


def _owner(settings: Settings, routes: list[Route], request: Request) -> Route | None:
    """The route whose own listener the request is for, None for the main listener."""
    port = request.headers.get("Host", "").rpartition(":")[2]
    if port in {str(parse_listen(text).port) for text in settings.listen}:
        return None
    for route in routes:
        for text in settings.routes[route.name].listen:
            if port == str(parse_listen(text).port):
                return route
    return None


def _rules(route: Route, request: Request, rest: bytes) -> str:
    """The deciding patterns, and where they are written."""
    path = rest.decode("ascii") or "/"
    served = f"{request.method} is served"
    if (denied := route.deny.find_catch(request.method, path)) is not None:
        return f"{served}, denied by {denied} of {route.place_of(denied)}"
    if route.allow is None:
        return f"{served}, not denied, no allow list"
    allowed = route.allow.find_match(request.method, path) or "nothing of the allow list"
    return f"{served}, not denied, allowed by {allowed}"


def _stand_in(name: str, route: RouteSettings) -> Route:
    """A route to be found by its path; none of its secrets is read."""
    return compile_route(name, route, ResolvedSecrets({}, dict.fromkeys(route.secrets, "not read")))


def _shown(name: str, settings: Settings) -> tuple[Route, EgressProxy | None, Mapping[str, str]]:
    """A route with names for secrets; unready if the one with the secrets themselves would be.

    And its egress proxy, whose text has no credentials, and the required secrets without a value,
    with their remedies: the route is shown as if it had them.
    """
    route = settings.routes[name]
    found = secrets_of(name, route, variables_in(settings))
    real = compile_route(name, route, found, AuthContext(SystemClock(), tls_context(), _never))
    lacking = {
        one: remedy
        for one, remedy in found.lacking.items()
        if one in route.secrets and not route.secrets[one].optional
    }
    unready = "; ".join(
        remedy for one, remedy in found.lacking.items() if one not in lacking and needs(route, one)
    )
    withheld = tracing.FIELDS if settings.tracing else frozenset()
    names = {one: (Secret(one, _name_of(one, route)),) for one in (*found.secrets, *lacking)}
    others = {one: remedy for one, remedy in found.lacking.items() if one not in lacking}
    masked = compile_route(name, route, ResolvedSecrets(names, others), withheld=withheld)
    # Whether its other secrets fit is not known while one is missing.
    masked = dataclasses.replace(masked, unready=unready if lacking else real.unready)
    return masked, found.egress.egress_proxy(), lacking


def _sharing(settings: Settings, route: str, strategy: str) -> str | None:
    """Whether the token of a strategy is shared; None where that is no question."""
    sharing = settings.tokens
    for position, one in enumerate(settings.routes[route].auth, 1):
        if name_of(one, position) == strategy and one.token is not None and sharing is not None:
            if isinstance(one.token, Jwt):
                return "signed by each keyrelay: nothing to share"
            return f"shared with other keyrelays through {sharing.address}"
    return None


def _name_of(secret: str, route: RouteSettings) -> bytes:
    """The stand-in for a secret: its name, or JSON with the names of the fields that are sent."""
    document: dict[str, Any] = {}
    # The longest names first: where one selects a part of another, no document has strings at both.
    for piece in sorted(_pieces(route), key=lambda piece: -piece.count(".")):
        name, *path = piece.split(".")
        if name == secret and path:
            level = document
            for parent in path[:-1]:
                level = level.setdefault(parent, {})
            level.setdefault(path[-1], f"<{piece}>")
    return (json.dumps(document) if document else f"<{secret}>").encode("ascii")


def _pieces(route: RouteSettings) -> set[str]:
    """The names in all placements of a route, with the fields that they select."""
    return {
        piece
        for strategy in route.auth
        for placement in (*(strategy.http or ()), *(strategy.websocket or ()))
        for template in placement.templates.values()
        for piece in parse_template(template).pieces
        if isinstance(piece, str)
    }


def _never(_coroutine: Coroutine[Any, Any, None]) -> NoReturn:
    raise AssertionError("nothing is obtained for showing")


def _readable(injection: Injection, lacking: Collection[str]) -> Injection:
    """The stand-ins without the encoding of their placement: the output has plain names.

    Those of ``lacking`` secrets are marked.
    Done here and not to the whole request, in which the client may have written the same.
    """
    parts = [
        _BASIC.sub(_decoded, injection.headers),
        _ENCODED.sub(rb"<\1>", injection.query),
        _ENCODED.sub(rb"<\1>", injection.path),
    ]
    for secret in lacking:
        name = re.escape(secret.encode("ascii"))
        parts = [re.sub(rb"<(%b(?:\.[^>]*)?)>" % name, rb"<\1: not set>", part) for part in parts]
    headers, query, path = parts
    return Injection(headers, query, path)


def _decoded(found: re.Match[bytes]) -> bytes:
    return b"%bbase64(%b)\r" % (found[1], base64.b64decode(found[2]))
