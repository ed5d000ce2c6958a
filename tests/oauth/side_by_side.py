"""Two keyrelay processes with two routes each, at every server, lifetime and grant at once.

What `make test-oauth` spends most of its time on. The clients of a case ask about every two
seconds through each of the four routes; a tenth of the requests carries a body that is too large
to be sent again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from .authorization_servers import Keyrelay, Server, credentials, keyrelay, refresh, route, variable

SECONDS = float(os.environ.get("OAUTH_SECONDS", "60"))
_PAUSE = 2.0
_LARGE = b"x" * 100_000


@dataclass
class Figures:
    """What came of one case: statuses by process, and calls of the token endpoint."""

    server: Server
    grant: str
    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    seconds: float = 0.0
    calls: int = 0

    @property
    def refused(self) -> int:
        """Requests that were not answered 200."""
        return sum(
            number
            for one in self.statuses.values()
            for status, number in one.items()
            if status != 200
        )

    @property
    def all(self) -> int:
        return sum(sum(one.values()) for one in self.statuses.values())


def name_of(kind: str, lifetime: int, grant: str) -> str:
    """What a case is called, which is also the name of its client."""
    return f"{kind}-{lifetime}-{grant}"


async def side_by_side(servers: Iterable[Server], folder: Path) -> dict[str, Figures]:
    """All cases at once."""
    cases: dict[str, Figures] = {}
    routes: dict[str, Any] = {}
    variables: dict[str, str] = {}
    for server in servers:
        for grant in ("credentials", "refresh"):
            name = name_of(server.kind.name, server.lifetime, grant)
            server.control("client", id=name, secret="dummy-secret")
            variables[f"{variable(name)}".upper()] = "dummy-secret"
            if grant == "refresh":
                token = refresh(server, name, store=str(folder / f"{name}.json"))
                kept = server.control("grant", id=name)["refresh_token"]
                variables[f"{variable(name)}_grant".upper()] = kept
            else:
                token = credentials(server, name)
            cases[name] = Figures(server, grant)
            for twin in ("one", "two"):
                routes[f"{name}-{twin}"] = route(server, token)
    with ExitStack() as stack:
        relays = {}
        for name in ("first", "second"):
            (folder / name).mkdir()
            relays[name] = stack.enter_context(keyrelay(folder / name, routes, variables))
        began = time.monotonic()
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            for name, figures in cases.items():
                for process, relay in relays.items():
                    counted = figures.statuses.setdefault(process, Counter())
                    for twin in ("one", "two"):
                        asking = _ask(relay, f"{name}-{twin}", session, counted)
                        group.create_task(asking)
        for name, figures in cases.items():
            figures.seconds = time.monotonic() - began
            figures.calls = figures.server.calls(name)
    return cases


async def _ask(
    relay: Keyrelay, name: str, session: aiohttp.ClientSession, counted: Counter[int]
) -> None:
    end = time.monotonic() + SECONDS
    asked = 0
    while time.monotonic() < end:
        asked += 1
        large = asked % 10 == 0
        method, data = ("POST", _LARGE) if large else ("GET", None)
        async with session.request(method, f"{relay.url}/{name}/api/thing", data=data) as response:
            counted[response.status] += 1
            await response.read()
        await asyncio.sleep(_PAUSE)
