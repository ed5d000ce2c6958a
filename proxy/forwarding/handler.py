"""Handle one request from the client connection to the provider and back. Read this first.

    server.connection            parses the head of a request
    server.guard                 admits the client: syntax, Host, browser origin, inbound token
    routing.router, route        find the route of the path, check its rules, select the strategy
    routing.route_service        counts the request against the route's limits
    forwarding.upstream_request  builds the request for the provider, without a credential
    auth.credential              returns what is to be injected, which is placed last
    upstream.pool                has a connection
    forwarding.exchange          sends the request and streams the response back
    downstream_response          rewrites and redacts the response
    websocket.opening, relay     relay a WebSocket session after the 101 response
    observability.exchange_log   records the exchange

No connection is dialled and no token fetched before guard and route admit the request. The handler
responds to a refused request with the reason and the correction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.errors import Refusal
from proxy.forwarding.context import ProxyContext
from proxy.forwarding.exchange import ProxyExchange
from proxy.forwarding.token_vending import PREFIX as VENDING
from proxy.forwarding.token_vending import Vending, vending_strategy
from proxy.http.problem import plain, preflight
from proxy.http.request import Request
from proxy.http.request_id import request_id
from proxy.observability.exchange_detail import ExchangeDetail
from proxy.observability.exchange_log import ExchangeRecord
from proxy.routing.route_service import RouteService
from proxy.routing.router import Router
from proxy.server.connection import ClientConnection
from proxy.server.guard import Guard, is_preflight

# Prefix of keyrelay's own pages; no route may use it.
_OWN_PREFIX = b"/-/"


@dataclass(frozen=True, slots=True)
class ActiveConfig:
    """Configuration of a listener, replaced as a whole by a reload.

    guard           the listener's checks
    router          finds the route of a request
    route_services  by the route's name
    """

    guard: Guard
    router: Router
    route_services: Mapping[str, RouteService]


class RequestHandler:
    """Serves the requests of one listener.

    ``active`` may be replaced at any time; each request uses the value at its arrival.
    """

    __slots__ = ("_context", "active")

    def __init__(self, active: ActiveConfig, context: ProxyContext) -> None:
        self.active = active
        self._context = context

    def handle(
        self, request: Request, client: ClientConnection, body: bytes, ended: bool
    ) -> ProxyExchange | Vending | None:
        """Serve one request. None if the response is already complete. Never waits.

        ``body`` is the part of the body that arrived with the head, ``ended`` whether it is all.
        """
        record = ExchangeRecord("-", request.method, "-", request.websocket)
        record.request_id = client.request_id = request_id(request.headers.get("X-Request-Id"))
        page: str | None = None
        active = self.active
        try:
            host, page = active.guard.admit(request)
            if page is not None or request.target == b"*" or request.path[:3] == _OWN_PREFIX:
                if self._respond_locally(request, client, host, page):
                    return None
                if request.path.startswith(VENDING) and active.router.serves_all_routes(host):
                    return self._vend(request, client, page, record)
            match = active.router.find(host, request)
            route = match.route
            record.route, record.path = route.name, match.rest.decode("ascii")
            strategy = route.strategy_for(request, match.rest)
            route_service = active.route_services[route.name]
            route_service.enter(request, len(body))
        except Refusal as refusal:
            self._refuse(refusal, request, client, page, record)
            return None
        record.strategy = strategy.name
        if not ended and "Expect" in request.headers and request.version == (1, 1):
            # RFC 9110 section 10.1.1: at this point the body is wanted. HTTP/1.0 has no interim
            # responses.
            client.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        exchange = ProxyExchange(
            client, request, match, route_service, strategy, self._context, record, page=page
        )
        self._context.exchange_log.begin(record)
        if self._context.inspector_hub.active:
            record.detail = ExchangeDetail()
            self._context.inspector_hub.begun(record)
        exchange.begin(body, ended=ended)
        return None if exchange.finished else exchange

    def _respond_locally(
        self, request: Request, client: ClientConnection, host: str, page: str | None
    ) -> bool:
        """Respond to preflights, ``OPTIONS *`` and own pages. False for any other request.

        Raises Refusal.
        """
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
        elif request.path.startswith(_OWN_PREFIX) and self.active.router.serves_all_routes(host):
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
        self, request: Request, client: ClientConnection, page: str | None, record: ExchangeRecord
    ) -> Vending:
        """Issue a token of the route that the path names. Raises Refusal."""
        if request.method != "POST":
            raise Refusal(405, "method-refused", "Use POST.", headers=(("Allow", "POST"),))
        name = request.path.removeprefix(VENDING).decode("ascii")
        routes = self.active.router.routes
        route = next((one for one in routes if one.name == name), None)
        if route is None:
            raise Refusal(404, "no-route", "No route has this name.")
        strategy = vending_strategy(route)
        record.route, record.path, record.strategy = (
            name,
            request.path.decode("ascii"),
            strategy.name,
        )
        self._context.exchange_log.begin(record)
        return Vending(client, strategy, self._context, record, page=page)

    def malformed(self, refusal: Refusal, request_id: str) -> None:
        """Record bytes that are no request; the connection refuses them."""
        record = ExchangeRecord("-", "-", "-", request_id=request_id)
        self._record(refusal, record)

    def _record(self, refusal: Refusal, record: ExchangeRecord) -> None:
        record.response_started(refusal.status)
        record.outcome = refusal.kind
        record.log_detail = refusal.log_detail
        record.problem = refusal.detail, refusal.advice
        self._context.exchange_log.finish(record)
        if self._context.notices is not None:
            self._context.notices.refused(refusal)

    def _refuse(
        self,
        refusal: Refusal,
        request: Request,
        client: ClientConnection,
        page: str | None,
        record: ExchangeRecord,
    ) -> None:
        self._record(refusal, record)
        if refusal.kind == "bad-framing":
            # An intermediary may derive another end of this request, and so another next request.
            client.keep_alive = False
        client.refuse(refusal, origin=page, head_only=request.method == "HEAD")
