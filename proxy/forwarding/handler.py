"""One request from the door to the provider and back. Read this first.

    door      a client's connection has read a request's head
    guard     may whoever sent this ask anything at all?
    routes    whose is the path, and does the route's owner allow it?
    outgoing  the same request as the provider will see it, without a credential
    auth      the strategy that serves it adds exactly one credential, last
    forward   sends it, streams the answer back; a WebSocket goes on in ``relay``
    journal   notes what happened

Nothing is dialled and no token fetched before guard and route have said yes. Whatever they refuse
is answered here, with the reason and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.errors import Refusal
from proxy.forwarding.context import Surroundings
from proxy.forwarding.exchange import Forward
from proxy.forwarding.token_vending import PREFIX as VENDING
from proxy.forwarding.token_vending import Vending, vendor
from proxy.forwarding.upstream_request import Outgoing
from proxy.http.problem import plain, preflight
from proxy.http.request import Incoming, request_id
from proxy.observability.exchange_log import Exchange
from proxy.routing.route_service import Service
from proxy.routing.router import RouteTable
from proxy.server.connection import ClientConnection
from proxy.server.guard import Guard, is_preflight

# Pages of our own begin with this; no route may.
_OWN_PREFIX = b"/-/"


@dataclass(frozen=True, slots=True)
class InForce:
    """What a listener serves by, until a reload puts another in its place.

    services  by the route's name
    """

    guard: Guard
    table: RouteTable
    services: Mapping[str, Service]


class Gateway:
    """Serves the requests of one listener.

    ``in_force`` may be replaced at any time: each request is served by what it finds.
    """

    __slots__ = ("_around", "in_force")

    def __init__(self, in_force: InForce, around: Surroundings) -> None:
        self.in_force = in_force
        self._around = around

    def handle(
        self, incoming: Incoming, client: ClientConnection, body: bytes, ended: bool
    ) -> Forward | Vending | None:
        """Serve one request. None if it has been answered already. Never waits."""
        note = Exchange("-", incoming.method, "-", incoming.websocket)
        note.request_id = client.request_id = request_id(incoming.headers.get("X-Request-Id"))
        page: str | None = None
        now = self.in_force
        try:
            host, page = now.guard.admit(incoming)
            if page is not None or incoming.target == b"*" or incoming.path[:3] == _OWN_PREFIX:
                if self._answer_locally(incoming, client, host, page):
                    return None
                if incoming.path.startswith(VENDING) and now.table.shares(host):
                    return self._vend(incoming, client, page, note)
            match = now.table.find(host, incoming)
            route = match.route
            note.route, note.path = route.name, match.rest.decode("ascii")
            strategy = route.admit(incoming, match.rest)
            service = now.services[route.name]
            bounds = service.enter(incoming, len(body))
        except Refusal as refusal:
            self._refuse(refusal, incoming, client, page, note)
            return None
        note.strategy = strategy.name
        if not ended and "Expect" in incoming.headers and incoming.version == (1, 1):
            # RFC 9110 section 10.1.1: by now we know that the body is wanted. HTTP/1.0 knows no
            # interim answers.
            client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        added = b"X-Request-Id: %b\r\n" % note.request_id.encode("ascii")
        tracer, watchers = self._around.tracer, self._around.watchers
        if tracer is not None:
            added += tracer.begin(incoming, note, route.origin)
        forward = Forward(
            client,
            incoming,
            Outgoing(incoming, match.rest, route.rules, added),
            strategy,
            service.pool,
            self._around,
            note,
            page=page,
            relocate=match.relocate,
            bounds=bounds,
        )
        self._around.journal.begin(note)
        if watchers.active:
            watchers.begun(note)
        forward.begin(body, ended=ended)
        return None if forward.finished else forward

    def _answer_locally(
        self, incoming: Incoming, client: ClientConnection, host: str, page: str | None
    ) -> bool:
        """Preflights, ``OPTIONS *`` and the pages of our own. Whether it was one of them."""
        head_only = incoming.method == "HEAD"
        if page is not None and is_preflight(incoming):
            get = incoming.headers.get
            client.write(
                preflight(
                    page,
                    get("Access-Control-Request-Headers"),
                    private_network=get("Access-Control-Request-Private-Network") == "true",
                )
            )
        elif incoming.target == b"*":
            client.write(plain(204, close=client.must_close))
        elif incoming.path.startswith(VENDING):
            return False
        elif incoming.path.startswith(_OWN_PREFIX) and self.in_force.table.shares(host):
            if incoming.path not in {b"/-/health", b"/-/ready"}:
                raise Refusal(404, "no-such-page", "Keyrelay has no page of this name.")
            if incoming.method not in {"GET", "HEAD"}:
                raise Refusal(405, "method-refused", "Use GET.", headers=(("Allow", "GET, HEAD"),))
            client.write(plain(200, b"ok\n", head_only=head_only, close=client.must_close))
        else:
            return False
        client.done()
        return True

    def _vend(
        self, incoming: Incoming, client: ClientConnection, page: str | None, note: Exchange
    ) -> Vending:
        """Hand out a token of the route that the path names. Raises Refusal."""
        if incoming.method != "POST":
            raise Refusal(405, "method-refused", "Use POST.", headers=(("Allow", "POST"),))
        name = incoming.path.removeprefix(VENDING).decode("ascii")
        routes = self.in_force.table.routes
        route = next((one for one in routes if one.name == name), None)
        if route is None:
            raise Refusal(404, "no-route", "No route has this name.")
        strategy = vendor(route)
        note.route, note.path, note.strategy = name, incoming.path.decode("ascii"), strategy.name
        self._around.journal.begin(note)
        return Vending(client, strategy, self._around, note, page=page)

    def _refuse(
        self,
        refusal: Refusal,
        incoming: Incoming,
        client: ClientConnection,
        page: str | None,
        note: Exchange,
    ) -> None:
        note.answered(refusal.status)
        note.outcome = refusal.kind
        note.note = refusal.log_detail
        self._around.journal.note(note)
        if refusal.kind == "bad-framing":
            # Somebody on the way may see another end of this request, and so another next one.
            client.keep_alive = False
        client.refuse(refusal, origin=page, head_only=incoming.method == "HEAD")
