"""The stage of the acceptance list: keyrelay between a raw client, a provider and a token endpoint.

Two routes lead to the same provider: ``/api`` with a key, ``/minted`` with a token of the token
endpoint. Both far sides count connections, and the token in stock has lapsed, so that whatever is
let in dials both. That none of them is dialled is then proof that a request was stopped before.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.clock import ManualClock
from tests.support.keyrelay import (
    RawClient,
    RawProvider,
    Running,
    answering,
    exchange,
    keyrelay,
    raw_provider,
    read_head,
    static_route,
)

KEY = "dummy-real-key-8f2c"
TOKEN = "dummy-minted-token-51"
CLIENT_SECRET = "dummy-client-secret-93"
INBOUND = "dummy-inbound-token-0123456789"
PAGE = "http://localhost:5173"

HOST = b"Host: localhost\r\n"
GET = b"GET /api/x HTTP/1.1\r\n" + HOST
HANDSHAKE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
)
SOCKET = GET + HANDSHAKE
# What answers HANDSHAKE (RFC 6455 section 1.3).
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: BACScCJPNqyz+UBoqMH89VmURoA=\r\n"
)


def answer(body: bytes | str = b"{}", *fields: str, status: str = "200 OK") -> bytes:
    """An HTTP answer with a length."""
    body = body.encode() if isinstance(body, str) else body
    head = "\r\n".join((f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "", ""))
    return head.encode() + body


def token_answer(token: str = TOKEN, **more: Any) -> bytes:
    """A token endpoint's, of an hour."""
    document = {"access_token": token, "token_type": "Bearer", "expires_in": 3600, **more}
    return answer(json.dumps(document), "Content-Type: application/json")


def fields_of(head: bytes) -> list[tuple[str, str]]:
    """The field lines of a head in order, names in lower case."""
    lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return [(name.lower(), value.strip()) for name, _, value in (x.partition(":") for x in lines)]


def values(head: bytes, name: str) -> list[str]:
    """All values of a field."""
    return [value for one, value in fields_of(head) if one == name.lower()]


def credentials(head: bytes) -> list[str]:
    """Wherever the provider could find a credential of the two routes."""
    return values(head, "Authorization") + [
        pair for pair in line(head).partition("?")[2].partition(" ")[0].split("&") if "key" in pair
    ]


def line(message: bytes) -> str:
    """The first line."""
    return message.partition(b"\r\n")[0].decode("latin-1")


def status(message: bytes) -> int:
    return int(message[9:12])


def problem(message: bytes) -> str:
    """The kind of problem that an answer of keyrelay's own tells of."""
    head, _, body = message.partition(b"\r\n\r\n")
    assert values(head, "Content-Type") == ["application/problem+json"], message
    assert values(head, "X-Content-Type-Options") == ["nosniff"]
    assert values(head, "Cache-Control") == ["no-store"]
    assert values(head, "Proxy-Status")[0].startswith("keyrelay; error=")
    kind: str = json.loads(body)["type"]
    return kind.removeprefix("urn:keyrelay:problem:")


class Provider:
    """Keeps each request, head and body as they came, and gives ``answer`` to all of them."""

    def __init__(self) -> None:
        self.answer: bytes | Callable[[bytes], bytes] = answer()
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.lost = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await read_head(reader)
                self.heads.append(head)
                self.bodies.append(await _body(reader, head))
                writer.write(self.answer(head) if callable(self.answer) else self.answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.lost.set()


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """A request's body without its chunks. Its framing must be of one kind."""
    lengths, codings = values(head, "Content-Length"), values(head, "Transfer-Encoding")
    assert len(lengths) + len(codings) <= 1, head
    if not codings:
        return await reader.readexactly(int(lengths[0])) if lengths else b""
    assert codings == ["chunked"]
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body


@dataclass
class Stage:
    """``provider`` has what arrived, ``place`` counts its connections, ``mint`` the others'."""

    running: Running
    provider: Provider
    place: RawProvider
    token_source: RawProvider
    clock: ManualClock
    fetched: int

    @property
    def port(self) -> int:
        return self.running.port

    async def ask(self, request: bytes) -> bytes:
        """One answer to one request, which gets its blank line here."""
        return await exchange(self.port, request + b"\r\n")

    async def everything(self, request: bytes) -> bytes:
        """All that comes back until the connection ends."""
        return await exchange(self.port, request + b"\r\n", until_close=True)

    async def reaches(self, request: bytes) -> bytes:
        """The head as the provider sees it, of a request that is let in."""
        got = await self.ask(request)
        assert got.startswith(b"HTTP/1.1 200 "), got
        return self.provider.heads[-1]

    async def refused(self, request: bytes, *statuses: int) -> bytes:
        """Refused on either route, and nothing dialled. The response of ``/api``."""
        await self.ask_refused(request.replace(b"/api", b"/minted", 1), *statuses)
        return await self.ask_refused(request, *statuses)

    async def ask_refused(self, request: bytes, *statuses: int) -> bytes:
        """As ``refused``, for this very request."""
        got = await self.ask(request)
        assert status(got) in statuses, got
        assert TOKEN.encode() not in got
        assert KEY.encode() not in got
        self.no_dial()
        return got

    def no_dial(self) -> None:
        """Neither provider nor token endpoint has been asked anything."""
        assert (self.place.connections, self.token_source.connections) == (0, self.fetched)

    async def dials(self) -> None:
        """The control: a plain request on each route does reach both."""
        await self.reaches(GET)
        await self.reaches(GET.replace(b"/api", b"/minted"))
        assert self.place.connections > 0
        assert self.token_source.connections > self.fetched


def routes(provider: str, token_source: str) -> dict[str, dict[str, Any]]:
    """Both routes, as in YAML. The key goes into ``Authorization``, as most providers want it."""
    return {
        "api": static_route(f"{provider}/v1", header="Authorization", value="Bearer {key}"),
        "minted": {
            "upstream": f"{provider}/v1",
            "spares": 0,
            "secrets": {"id": "env:DUMMY_ID", "secret": "env:DUMMY_SECRET"},
            "auth": [
                {
                    "name": "token",
                    "token": {
                        "type": "oauth2_client_credentials",
                        "url": f"{token_source}/token",
                        "client_id": "{id}",
                        "client_secret": "{secret}",
                    },
                    "header": "Authorization",
                    "value": "Bearer {token}",
                }
            ],
        },
    }


@asynccontextmanager
async def stage(
    *,
    api: Mapping[str, Any] | None = None,
    fetched: Mapping[str, Any] | None = None,
    mint_answer: bytes | None = None,
    fresh: bool = False,
    **settings: Any,
) -> AsyncIterator[Stage]:
    """Everything running. ``api`` and ``minted`` are further settings of the routes; ``settings``
    those of the file. The environment of the fixture ``secrets`` has to be there.

    fresh  the token has not lapsed
    """
    provider, clock = Provider(), ManualClock()
    async with (
        raw_provider(provider.serve) as place,
        raw_provider(answering(mint_answer or token_answer())) as token_source,
    ):
        both = routes(place.url, token_source.url)
        both["api"].update(api or {})
        both["minted"].update(fetched or {})
        async with keyrelay(both, clock=clock, **settings) as running:
            await running.app.settle(5)
            if not fresh:
                clock.jump(7200)
            yield Stage(running, provider, place, token_source, clock, token_source.connections)


@asynccontextmanager
async def raw_client(port: int) -> AsyncIterator[RawClient]:
    """A client that is closed at the end."""
    async with await RawClient.to(port) as one:
        yield one
