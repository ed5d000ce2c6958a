"""Whether each route would work, and if not, which part of it does not.

Every step is the server's own code with the real credential: what passes here passes there. A
provider is dialled only for a route that has its secrets, as in the server. Routes are examined
side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from proxy.auth.strategy import AuthContext
from proxy.clock import SystemClock
from proxy.config.secret import SecretSettings
from proxy.config.server_certificate import certified_hosts, has_tls, read_key_pair
from proxy.config.settings import Settings
from proxy.diagnostics.diagnosis import Mark
from proxy.diagnostics.route_check import Result, RouteCheck, Running, described
from proxy.diagnostics.sharing import open_checked
from proxy.errors import KeyrelayError, SecretUnavailable
from proxy.routing.route_secrets import hidden_from, variables_in
from proxy.secrets import resolver
from proxy.server.tls import server_context
from proxy.upstream.tls import tls_context


async def run_checks(
    settings: Settings,
    report: Callable[[Result], None],
    *,
    missing: Mark = "fail",
    running: Running = dict,
) -> None:
    """Examine every route; ``report`` gets each result as soon as all before it are there.

    missing  the mark of a secret without which a route is not ready
    running  the routes of the keyrelay that runs, as its status has them; blocking, for tokens
             that are not to be obtained a second time

    Cancelling closes what is open.
    """
    clock, tls = SystemClock(), tls_context()
    tasks: set[asyncio.Task[None]] = set()

    def spawn(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    variables = variables_in(settings)
    async with AsyncExitStack() as stack:
        if settings.inbound_token is not None:
            report(await _inbound_token(settings.inbound_token))
        if has_tls(settings):
            report(await asyncio.to_thread(_listeners_certificate, settings, clock.wall()))
        base = AuthContext(clock, tls, spawn)
        if settings.tokens is not None:
            shared, found = await open_checked(settings, base)
            report(Result("", "tokens.share", *found))
            if shared is not None:
                stack.push_async_callback(shared.close)
            base = replace(base, shared=shared)
        stack.push_async_callback(_end, tasks)
        patients = []
        for name, one in settings.routes.items():
            means = replace(base, hidden=partial(hidden_from, one, variables))
            sharing = settings.tokens is not None
            patients.append(
                RouteCheck(name, one, means, missing, running, asyncio.Queue(), sharing=sharing)
            )
        async with asyncio.TaskGroup() as group:
            for patient in patients:
                group.create_task(patient.run_checks())
            for patient in patients:
                while (result := await patient.results.get()) is not None:
                    report(result)


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _inbound_token(settings: SecretSettings) -> Result:
    try:
        secret = await asyncio.to_thread(resolver.resolve, "inbound_token", settings)
    except SecretUnavailable as error:
        return Result("", "secret inbound_token", "fail", error.remedy)
    return Result("", "secret inbound_token", "ok", described(secret))


def _listeners_certificate(settings: Settings, now: float) -> Result:
    """Whether the TLS listeners have a certificate. Blocking."""
    what = "tls listener"
    try:
        pair = read_key_pair(settings, now)
        assert pair is not None
        server_context(pair.certificate, pair.key)
    except (KeyrelayError, ValueError) as error:
        return Result("", what, "fail", str(error))
    if settings.tls is None:
        names = ", ".join(certified_hosts(settings))
        return Result("", what, "ok", f"certified by the local authority: {names}")
    return Result("", what, "ok", f"certificate {settings.tls.certificate}")
