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
from proxy.forwarding.context import ProxyContext
from proxy.forwarding.exchange import ProxyExchange
from proxy.forwarding.token_vending import PREFIX as VENDING
from proxy.forwarding.token_vending import Vending, vendor
from proxy.forwarding.upstream_request import UpstreamRequest
from proxy.http.problem import plain, preflight
from proxy.http.request import Request, request_id
from proxy.observability.exchange_log import ExchangeRecord
from proxy.routing.route_service import RouteService
from proxy.routing.router import Router
from proxy.server.connection import ClientConnection
from proxy.server.guard import Guard, is_preflight

# Pages of our own begin with this; no route may.
_OWN_PREFIX = b"/-/"


@dataclass(frozen=True, slots=True)
class ActiveConfig:
    """What a listener serves by, until a reload puts another in its place.

    services  by the route's name
    """

    guard: Guard
    table: Router
    route_services: Mapping[str, RouteService]


class RequestHandler:
    """Serves the requests of one listener.

    ``in_force`` may be replaced at any time: each request is served by what it finds.
    """

    __slots__ = ("_around", "in_force")

    def __init__(self, in_force: ActiveConfig, around: ProxyContext) -> None:
        self.in_force = in_force
        self._around = around

    def handle(
        self, request: Request, client: ClientConnection, body: bytes, ended: bool
    ) -> ProxyExchange | Vending | None:
        """Serve one request. None if it has been answered already. Never waits."""
        note = ExchangeRecord("-", request.method, "-", request.websocket)
        note.request_id = client.request_id = request_id(request.headers.get("X-Request-Id"))
        page: str | None = None
        now = self.in_force
        try:
            host, page = now.guard.admit(request)
            if page is not None or request.target == b"*" or request.path[:3] == _OWN_PREFIX:
                if self._answer_locally(request, client, host, page):
                    return None
                if request.path.startswith(VENDING) and now.table.shares(host):
                    return self._vend(request, client, page, note)
            match = now.table.find(host, request)
            route = match.route
            note.route, note.path = route.name, match.rest.decode("ascii")
            strategy = route.admit(request, match.rest)
            route_service = now.route_services[route.name]
            bounds = route_service.enter(request, len(body))
        except Refusal as refusal:
            self._refuse(refusal, request, client, page, note)
            return None
        note.strategy = strategy.name
        if not ended and "Expect" in request.headers and request.version == (1, 1):
            # RFC 9110 section 10.1.1: by now we know that the body is wanted. HTTP/1.0 knows no
            # interim answers.
            client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        added = b"X-Request-Id: %b\r\n" % note.request_id.encode("ascii")
        tracer, inspector_hub = self._around.tracer, self._around.inspector_hub
        if tracer is not None:
            added += tracer.begin(request, note, route.origin)
        forward = ProxyExchange(
            client,
            request,
            UpstreamRequest(request, match.rest, route.rules, added),
            strategy,
            route_service.pool,
            self._around,
            note,
            page=page,
            rewrite_location=match.rewrite_location,
            bounds=bounds,
        )
        self._around.exchange_log.begin(note)
        if inspector_hub.active:
            inspector_hub.begun(note)
        forward.begin(body, ended=ended)
        return None if forward.finished else forward

    def _answer_locally(
        self, request: Request, client: ClientConnection, host: str, page: str | None
    ) -> bool:
        """Preflights, ``OPTIONS *`` and the pages of our own. Whether it was one of them."""
        head_only = request.method == "HEAD"
        if page is not None and is_preflight(request):
            get = request.headers.get
            client.write(
                preflight(
                    page,
                    get("Access-Control-Request-Headers"),
                    private_network=get("Access-Control-Request-Private-Network") == "true",
                )
            )
        elif request.target == b"*":
            client.write(plain(204, close=client.must_close))
        elif request.path.startswith(VENDING):
            return False
        elif request.path.startswith(_OWN_PREFIX) and self.in_force.table.shares(host):
            if request.path not in {b"/-/health", b"/-/ready"}:
                raise Refusal(404, "no-such-page", "Keyrelay has no page of this name.")
            if request.method not in {"GET", "HEAD"}:
                raise Refusal(405, "method-refused", "Use GET.", headers=(("Allow", "GET, HEAD"),))
            client.write(plain(200, b"ok\n", head_only=head_only, close=client.must_close))
        else:
            return False
        client.done()
        return True

    def _vend(
        self, request: Request, client: ClientConnection, page: str | None, note: ExchangeRecord
    ) -> Vending:
        """Hand out a token of the route that the path names. Raises Refusal."""
        if request.method != "POST":
            raise Refusal(405, "method-refused", "Use POST.", headers=(("Allow", "POST"),))
        name = request.path.removeprefix(VENDING).decode("ascii")
        routes = self.in_force.table.routes
        route = next((one for one in routes if one.name == name), None)
        if route is None:
            raise Refusal(404, "no-route", "No route has this name.")
        strategy = vendor(route)
        note.route, note.path, note.strategy = name, request.path.decode("ascii"), strategy.name
        self._around.exchange_log.begin(note)
        return Vending(client, strategy, self._around, note, page=page)

    def _refuse(
        self,
        refusal: Refusal,
        request: Request,
        client: ClientConnection,
        page: str | None,
        note: ExchangeRecord,
    ) -> None:
        note.response_started(refusal.status)
        note.outcome = refusal.kind
        note.log_detail = refusal.log_detail
        self._around.exchange_log.finish(note)
        if refusal.kind == "bad-framing":
            # Somebody on the way may see another end of this request, and so another next one.
            client.keep_alive = False
        client.refuse(refusal, origin=page, head_only=request.method == "HEAD")
