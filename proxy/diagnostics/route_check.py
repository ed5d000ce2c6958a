"""The checks of one route, from its secrets to a request to its provider."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from proxy import __version__
from proxy.auth.egress import CA_FILE, PROXY
from proxy.auth.factory import name_of
from proxy.auth.injection import Injection
from proxy.auth.strategy import AuthContext, Strategy
from proxy.config.oauth2 import RefreshToken
from proxy.config.route import RouteSettings
from proxy.diagnostics import diagnosis
from proxy.diagnostics.diagnosis import Mark
from proxy.diagnostics.probe import ask, connect
from proxy.errors import Refusal, UpstreamFailure
from proxy.forwarding.upstream_request import UpstreamRequest
from proxy.http.problem import as_refusal
from proxy.http.request import Request
from proxy.routing.builder import compile_route
from proxy.routing.route import Route
from proxy.routing.route_secrets import ResolvedSecrets, secrets_of
from proxy.routing.route_service import dialer_for
from proxy.secrets import resolver
from proxy.secrets.secret import Secret
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.dialer import Dialer
from proxy.upstream.egress_proxy import EgressProxy
from proxy.upstream.tls import tls_context

_FIELDS = [("Accept", "*/*"), ("User-Agent", f"keyrelay/{__version__}")]

Running = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Result:
    """How one step ended.

    route    its name, "" for what belongs to none
    what     the step: ``secret api_key``, ``tls listener``, ``dns``, ``connection``, ``tls``,
             ``clock``, ``token``, ``verify``
    finding  what was found, in a sentence; never a value
    advice   what to do about it, "" if there is nothing to do
    """

    route: str
    what: str
    mark: Mark
    finding: str
    advice: str = ""


def described(secret: Secret) -> str:
    """The source and fingerprint of a secret."""
    return f"{secret.reference}, fingerprint {secret.fingerprint()}"


@dataclass(slots=True, eq=False)
class RouteCheck:
    """One route while it is examined. ``results`` end with None."""

    name: str
    settings: RouteSettings
    means: AuthContext
    missing: Mark
    running: Running
    results: asyncio.Queue[Result | None]
    sharing: bool = False

    async def run_checks(self) -> None:
        async with AsyncExitStack() as stack:
            stack.callback(self.results.put_nowait, None)
            route = await self._compiled()
            for strategy in route.strategies:
                stack.callback(strategy.credential.close)
            if route.unready:
                return
            dialer = await self._dialer(route, stack)
            if not await self._resolves(route) or not await self._connects(route, dialer):
                return
            tokens = [await self._obtains(one) for one in route.strategies if one.credential.vends]
            if all(tokens):
                await self._verifies(route, dialer)

    def _note(self, what: str, mark: Mark, finding: str, advice: str = "") -> None:
        self.results.put_nowait(Result(self.name, what, mark, finding, advice))

    def _note_failure(self, what: str, failure: UpstreamFailure) -> None:
        refusal = as_refusal(failure)
        self._note(what, "fail", refusal.detail, refusal.advice)

    async def _compiled(self) -> Route:
        """The route as the server would have it. Secrets may come from commands that take long."""
        hidden = frozenset(self.means.hidden())
        found = await asyncio.to_thread(secrets_of, self.name, self.settings, hidden)
        self._take_egress(found)
        route = compile_route(self.name, self.settings, found, self.means)
        lacking = False
        for name, source in self.settings.secrets.items():
            what = f"secret {name}"
            values = found.secrets.get(name, ())
            for position, one in enumerate(values, 1):
                which = f"{position} of {len(values)}: " if len(values) > 1 else ""
                self._note(what, "ok", f"{which}{described(one)}")
            if len(values) > 1:
                await self._note_serving(name)
            for remark in route.remarks:
                if remark.secret == name:
                    said = f"the value from {remark.reference} {remark.finding}"
                    self._note(what, "warn", said, f"{remark.advice.capitalize()}.")
            if name in found.lacking and source.optional:
                self._note(what, "skip", f"optional: {found.lacking[name]}")
            elif name in found.lacking:
                lacking = True
                self._note(what, self.missing, found.lacking[name])
        for name in (PROXY, CA_FILE):
            if name in found.lacking:
                lacking = True
                self._note(name, "fail", found.lacking[name])
        if route.unready and not lacking:
            self._note("secrets", self.missing if found.lacking else "fail", route.unready)
        return route

    async def _note_serving(self, secret: str) -> None:
        """Which of several values the keyrelay that runs uses; nothing if none runs."""
        routes = await asyncio.to_thread(self.running)
        for one in routes.get(self.name, {}).get("secrets", ()):
            if one["name"] == secret and one.get("current"):
                there = f"{one['reference']}, fingerprint {one['fingerprint']}"
                self._note(f"secret {secret}", "ok", f"the running keyrelay uses {there}")

    # -- the way to the provider ---------------------------------------------------------------

    def _take_egress(self, found: ResolvedSecrets) -> None:
        """Use the route's egress proxy and CAs for every connection of these checks."""
        authorities = found.egress.authorities
        tls = tls_context(authorities) if authorities else self.means.tls
        self.means = self.means.over(found.egress, tls)

    def _proxy(self, route: Route) -> EgressProxy | None:
        """The proxy on the way to the provider, None without one."""
        proxy = self.means.egress_proxy
        return proxy if proxy is not None and proxy.serves(route.origin) else None

    def _note_unreachable(self, what: str, failure: UpstreamFailure, route: Route) -> None:
        """A failure on the way to the provider; a proxy of the environment may be missing."""
        self._note_failure(what, failure)
        unused = diagnosis.of_unused_proxy(os.environ, self._proxy(route) is not None)
        if unused is not None and not route.origin.loopback:
            self._note(PROXY, *unused)

    async def _dialer(self, route: Route, stack: AsyncExitStack) -> Dialer:
        address = None
        if route.origin.builtin:
            from proxy.demo import provider as demo

            provider = await demo.start(resolver.DEMO_KEY)
            stack.push_async_callback(provider.close)
            address = provider.address
        return dialer_for(route, self.settings, self.means, demo=address)

    async def _resolves(self, route: Route) -> bool:
        origin = route.origin
        if origin.builtin:
            return True
        if (proxy := self._proxy(route)) is not None:
            self._note("dns", "skip", f"{origin.host} is resolved by the egress proxy {proxy}")
            return True
        try:
            async with asyncio.timeout(self.settings.connect_timeout_seconds):
                found = await asyncio.get_running_loop().getaddrinfo(
                    origin.host, origin.port, type=socket.SOCK_STREAM
                )
        except (OSError, TimeoutError):
            failure = UpstreamFailure("dns_error", f"{origin.host} cannot be resolved.")
            self._note_unreachable("dns", failure, route)
            return False
        addresses = dict.fromkeys(str(info[4][0]) for info in found)
        self._note("dns", "ok", f"{origin.host} is {', '.join(addresses)}")
        return True

    async def _connects(self, route: Route, dialer: Dialer) -> bool:
        """Dial, check certificate and clock. No credential is sent."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            connection = await connect(dialer)
        except UpstreamFailure as failure:
            tls = failure.proxy_error.startswith("tls_")
            self._note_unreachable("tls" if tls else "connection", failure, route)
            return False
        where = "built-in" if route.origin.builtin else str(route.origin)
        if (proxy := self._proxy(route)) is not None:
            where += f" through the egress proxy {proxy}"
        self._note("connection", "ok", f"{where} in {(loop.time() - began) * 1000:.0f} ms")
        if not route.origin.builtin:
            self._look_at_tls(route, connection)
            await self._look_at_clock(route, connection)
        connection.abort()
        return True

    def _look_at_tls(self, route: Route, connection: UpstreamConnection) -> None:
        session: ssl.SSLObject | None = connection.transport.get_extra_info("ssl_object")
        if session is None:
            self._note("tls", *diagnosis.of_plain_http(loopback=route.origin.loopback))
            return
        certificate = session.getpeercert() or {}
        wall = self.means.clock.wall()
        self._note("tls", *diagnosis.of_certificate(session.version(), certificate, wall))

    async def _look_at_clock(self, route: Route, connection: UpstreamConnection) -> None:
        request = Request.of("HEAD", "/", _FIELDS)
        sent = UpstreamRequest(request, b"", route.rules).render(Injection())
        try:
            head = await ask(connection, sent, head_only=True)
        except UpstreamFailure as failure:
            self._note("clock", "skip", f"a request for the date went wrong: {failure.detail}")
        else:
            wall = self.means.clock.wall()
            self._note("clock", *diagnosis.of_clock(head.values(b"date"), wall))

    # -- the credential ------------------------------------------------------------------------

    async def _obtains(self, strategy: Strategy) -> bool:
        """Whether there is a token to verify with. Spends nothing that cannot be replaced."""
        if self._spends_for_good(strategy):
            await self._ask_running(strategy)
            return False
        try:
            issued = await strategy.credential.vend()
        except Refusal as refusal:
            state = strategy.credential.state()
            token = None if state is None else state.token
            reason = refusal.detail if token is None else f"no token: {token.reason}"
            advice = "Check the secrets that it is made from, and token: of the strategy."
            if token is not None and token.advice:
                advice = token.advice
            self._note("token", "fail", f"{strategy.name}: {reason}", advice)
            return False
        self._note(
            "token", "ok", f"{strategy.name}: obtained, good for {issued.seconds_left:.0f} s"
        )
        state = strategy.credential.state()
        if state is not None and state.token is not None:
            for line in (*state.token.remarks, *state.token.notes):
                self._note("token", "warn", f"{strategy.name}: {line}")
        return True

    def _spends_for_good(self, strategy: Strategy) -> bool:
        """Whether the token is had for a refresh token whose successor would be lost."""
        settings = {
            name_of(one, position): one.token for position, one in enumerate(self.settings.auth, 1)
        }
        token = settings.get(strategy.name)
        return isinstance(token, RefreshToken) and token.store is None and self.means.shared is None

    async def _ask_running(self, strategy: Strategy) -> None:
        """What the keyrelay that runs has, in place of an exchange of our own."""
        routes = await asyncio.to_thread(self.running)
        states = {one["name"]: one for one in routes.get(self.name, {}).get("strategies", ())}
        credential = states.get(strategy.name, {}).get("credential") or {}
        age = credential.get("age_seconds")
        lost = "an exchange here would lose the successor, as token: has no store:"
        advice = "Write store: /var/lib/keyrelay/NAME.json in token:; doctor and run share it then."
        if self.sharing:
            lost = "an exchange here would lose the successor, as tokens.share cannot be used"
            advice = ""
        if age is not None:
            self._note("token", "ok", f"{strategy.name}: keyrelay runs with one; {lost}")
            return
        reason = credential.get("last_failure", "")
        self._note(
            "token",
            "skip",
            f"{strategy.name}: not tried: {lost}"
            + (f"; the keyrelay that runs has none: {reason}" if reason else ""),
            advice,
        )

    async def _verifies(self, route: Route, dialer: Dialer) -> None:
        call = self.settings.verify
        if call is None:
            advice = "Add verify: to the route, a GET that costs nothing and wants the credential."
            self._note("verify", "skip", "no call to verify with is known", advice)
            return
        method, _, target = call.partition(" ")
        request = Request.of(method, target, _FIELDS)
        try:
            strategy = route.strategy_for(request, request.path)
            credential = strategy.credential
            injection = credential.ready(websocket=False) or await credential.obtain(
                websocket=False
            )
            sent = UpstreamRequest(request, request.path, route.rules).render(injection)
            head = await ask(await connect(dialer), sent, head_only=False)
        except Refusal as refusal:
            self._note("verify", "warn", f"{call}: {refusal.detail}", refusal.advice)
        except UpstreamFailure as failure:
            self._note_failure("verify", failure)
        else:
            with_credential = f"{call} with {strategy.name}"
            found = diagnosis.of_answer(with_credential, head.code, self.settings.docs)
            self._note("verify", *found)
