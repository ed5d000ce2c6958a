"""A keyrelay with an admin listener, whose exchanges a test makes up or really makes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from proxy.admin import server as admin
from proxy.admin.connections import PeerRefusal
from proxy.app.app import App
from proxy.app.status import Reload, snapshot
from proxy.http.response import ResponseHead
from proxy.observability.exchange_log import ExchangeLog, ExchangeRecord
from proxy.observability.exchange_source import ExchangeSource
from proxy.observability.inspector import InspectorHub
from proxy.secrets.redaction import Redactor
from proxy.websocket.frames import masked
from tests.support.keyrelay import SECRET, preset_keyrelay

MASKER = Redactor([SECRET])


@dataclass
class Watched:
    """The app as the admin listener sees it, and a data path beside it that does as it is told.

    ``report`` is what a reload comes to.
    """

    app: App
    report: Reload = field(default_factory=lambda: Reload(1.0, changed=("api has other settings",)))

    @property
    def inspector_hub(self) -> InspectorHub:
        return self.app.inspector_hub

    @property
    def exchange_log(self) -> ExchangeLog:
        return self.app.exchange_log

    @property
    def exchanges(self) -> ExchangeSource:
        return self.app.exchanges

    async def snapshots(self) -> Sequence[dict[str, Any]]:
        return [snapshot(self.app)]

    async def reload(self) -> Reload:
        self.app.reloads.note(self.report)
        return self.report

    def begin(self, path: str = "/v1/voices", method: str = "GET", **more: Any) -> ExchangeRecord:
        exchange = ExchangeRecord(more.pop("route", "api"), method, path, strategy="key", **more)
        self.exchange_log.begin(exchange)
        if self.inspector_hub.active:
            self.inspector_hub.begun(exchange)
        return exchange

    def answer(self, exchange: ExchangeRecord, status: int = 200) -> None:
        exchange.response_started(status)
        if self.inspector_hub.active:
            self.inspector_hub.response_started(exchange)

    def end(self, exchange: ExchangeRecord, outcome: str = "") -> None:
        exchange.outcome = outcome
        self.exchange_log.finish(exchange)

    def serve(self, path: str = "/v1/voices", status: int = 200, **more: Any) -> ExchangeRecord:
        """A whole exchange."""
        exchange = self.begin(path, **more)
        self.answer(exchange, status)
        self.end(exchange)
        return exchange


@dataclass
class Inspected:
    """``admin`` is the open listener, ``url`` where it is, ``token`` what it wants."""

    watched: Watched
    admin: admin.Admin
    warnings: list[str]

    @property
    def url(self) -> str:
        return self.admin.url

    @property
    def token(self) -> str:
        return self.admin.page_url.partition("#token=")[2]


async def start(watched: Watched, listen: str = "127.0.0.1:0", **more: Any) -> admin.Admin:
    """The admin listener of it, to be closed by the caller."""
    return await admin.start(watched, watched.reload, listen, **more)


@asynccontextmanager
async def inspected(
    routes: dict[str, Any],
    listen: str = "127.0.0.1:0",
    peer_refusal: PeerRefusal = lambda _transport: None,
    **settings: Any,
) -> AsyncIterator[Inspected]:
    async with preset_keyrelay(routes, **settings) as running:
        watched = Watched(running.app)
        warnings: list[str] = []
        opened = await start(watched, listen, warn=warnings.append, peer_refusal=peer_refusal)
        try:
            yield Inspected(watched, opened, warnings)
        finally:
            await opened.close()


class Hearing:
    """The events of an admin listener, as they come."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.raw = b""

    async def next(self, *names: str) -> tuple[str, dict[str, Any]]:
        """The next event, or the next of these names. EOFError at the end."""
        async with asyncio.timeout(5):
            while True:
                text = (await self._answer.content.readuntil(b"\n\n")).decode()
                self.raw += text.encode()
                if not text:
                    raise EOFError
                name, data = text.removesuffix("\n\n").split("\n")
                if not names or name.removeprefix("event: ") in names:
                    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@asynccontextmanager
async def hearing(inspected: Inspected) -> AsyncIterator[Hearing]:
    """The stream of events, behind how everything was at its beginning."""
    headers = {"Authorization": f"Bearer {inspected.token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(f"{inspected.url}/api/events") as answer,
    ):
        assert answer.status == 200
        heard = Hearing(answer)
        assert (await heard.next())[0] == "exchanges"
        yield heard


def event_stream(coding: str = "") -> ResponseHead:
    """The head of an answer that is a stream of events."""
    fields = b"\nContent-Type: text/event-stream; charset=utf-8\r\n"
    if coding:
        fields += b"Content-Encoding: %b\r\n" % coding.encode()
    return ResponseHead(200, b"OK", fields, None, closing=False)


def frame(text: bytes, *, opcode: int = 1, mask: bytes = b"") -> bytes:
    """One whole frame; ``mask`` as a client has it."""
    size = len(text)
    first = bytes([0x80 | opcode])
    flag = 0x80 if mask else 0
    if size < 126:
        head = first + bytes([flag | size])
    elif size < 65536:
        head = first + bytes([flag | 126]) + size.to_bytes(2)
    else:
        head = first + bytes([flag | 127]) + size.to_bytes(8)
    return head + mask + (masked(text, mask) if mask else text)
