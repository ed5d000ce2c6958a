"""Two keyrelay processes with two routes each, at every server, lifetime and grant at once.

What `make test-oauth` spends most of its time on. The clients of a case send a request about every
two seconds through each of the four routes; each tenth has a body that is too large to be sent
again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from .authorization_servers import Server, credentials, keyrelay, refresh, route, variable

SECONDS = float(os.environ.get("OAUTH_SECONDS", "60"))
_PAUSE = 2.0
_LARGE = b"x" * 100_000


@dataclass(frozen=True)
class Refused:
    """A response that is not 200, and what it was a response to.

    repeatable  whether keyrelay can send the request again
    seconds     from sending the request to the response
    """

    process: str
    status: int
    repeatable: bool
    seconds: float


@dataclass
class Figures:
    """Results of one case.

    requests  how many there were
    seconds   how long the case took
    calls     calls of the token endpoint
    """

    server: Server
    grant: str
    requests: int = 0
    refused: list[Refused] = field(default_factory=list)
    seconds: float = 0.0
    calls: int = 0


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
                    for twin in ("one", "two"):
                        url = f"{relay.url}/{name}-{twin}/api/thing"
                        group.create_task(_send(url, process, session, figures))
        for name, figures in cases.items():
            figures.seconds = time.monotonic() - began
            figures.calls = figures.server.calls(name)
    return cases


async def _send(url: str, process: str, session: aiohttp.ClientSession, figures: Figures) -> None:
    end = time.monotonic() + SECONDS
    number = 0
    while (began := time.monotonic()) < end:
        number += 1
        large = number % 10 == 0
        method, data = ("POST", _LARGE) if large else ("GET", None)
        async with session.request(method, url, data=data) as response:
            figures.requests += 1
            if response.status != 200:
                seconds = time.monotonic() - began
                figures.refused.append(Refused(process, response.status, not large, seconds))
            await response.read()
        await asyncio.sleep(_PAUSE)
