"""Row T21: rules, strategies and the provider see the same path."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.security.scene import HANDSHAKE, HOST, KEY, Provider, line, routes
from tests.support.keyrelay import Running, both_loops, exchange, keyrelay, raw_provider

pytestmark = both_loops

SHORT_LIVED = "dummy-short-lived-3b"


@asynccontextmanager
async def scoped() -> AsyncIterator[tuple[Running, Provider]]:
    """A route whose first strategy is for one path and whose second is for all others."""
    provider = Provider()
    async with raw_provider(provider.serve) as place:
        route = routes(place.url, place.url)["api"]
        route["upstream"] = place.url
        route["listen"] = ["127.0.0.1:0"]
        route["secrets"]["short"] = "env:DUMMY_SHORT"
        route["deny"] = ["/keys/**"]
        route["auth"] = [
            {"name": "short", "paths": ["/v0/evi/chat"], "query": "access", "value": "{short}"},
            {"name": "key", "query": "api_key", "value": "{key}"},
        ]
        async with keyrelay({"api": route}) as running:
            yield running, provider


@pytest.fixture
def short_lived(secrets: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_SHORT", SHORT_LIVED)


@pytest.mark.parametrize("fields", [b"", HANDSHAKE], ids=["http", "websocket"])
@pytest.mark.parametrize(
    "path",
    [
        "/v0/evi/chat",
        "//v0/evi/chat",
        "///v0/evi/chat",
        "/v0//evi/chat",
        "/v0/evi//chat",
        "/v0/evi/chat/",
        "/v0/evi/ch%61t",
        "/v0/evi%2Fchat",
        "/V0/EVI/CHAT",
        "/v0/evi/chat;a=b",
    ],
)
async def test_t21_no_spelling_gets_another_strategy_s_key(
    short_lived: None, path: str, fields: bytes
) -> None:
    """Whatever the provider folds, the strategy of the path supplies the credential."""
    async with scoped() as (running, provider):
        request = f"GET /api{path} HTTP/1.1\r\n".encode() + HOST + fields
        await exchange(running.port, request + b"\r\n")
        (head,) = provider.heads
    assert SHORT_LIVED.encode() in head
    assert KEY.encode() not in head


@pytest.mark.parametrize("fields", [b"", HANDSHAKE], ids=["http", "websocket"])
@pytest.mark.parametrize("slashes", ["/", "//", "////"])
@pytest.mark.parametrize("where", ["prefix", "host", "listener", "absolute"])
async def test_t21_slashes_at_the_beginning_are_one(
    short_lived: None, where: str, slashes: str, fields: bytes
) -> None:
    """Behind a prefix, and at a host or a listener of the route's own; the others stay."""
    async with scoped() as (running, provider):
        port = running.port
        target, host = f"{slashes}v1//x/?a=//b", "localhost"
        if where == "prefix":
            target = "/api" + target
        elif where == "listener":
            port = next(one.address.port for one in running.app.listeners if one.route == "api")
        else:
            host = "api.localhost"
        if where == "absolute":
            target = f"http://{host}{target}"
        request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\n".encode() + fields
        await exchange(port, request + b"\r\n")
        (head,) = provider.heads
        assert line(head) == f"GET /v1//x/?a=//b&api_key={KEY} HTTP/1.1"
        denied = f"GET /api{slashes}keys/x HTTP/1.1\r\n".encode() + HOST + fields
        assert b" 403 " in await exchange(running.port, denied + b"\r\n")
        assert len(provider.heads) == 1
