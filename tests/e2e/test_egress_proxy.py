"""Providers behind an egress proxy and a CA of one's own: requests, sockets, spares, tokens."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.app.app import App
from proxy.app.status import snapshot
from proxy.config.loader import load_text
from tests.support.certificates import Authority
from tests.support.connect_proxy import REFUSED, ConnectProxy, connect_proxy
from tests.support.keyrelay import (
    SECRET,
    RawProvider,
    client,
    preset_keyrelay,
    raw_provider,
    read_head,
    static_route,
    until,
)
from tests.support.reloading import token_route
from tests.support.websocket import accept

PASSWORD = "CANARY-dummy-password"
BASIC = b"Basic " + base64.b64encode(f"dummy:{PASSWORD}".encode())

pytestmark = pytest.mark.usefixtures("dummy_key")


class Provider:
    """Answers requests, token calls and handshakes; ``heads`` are those of the requests."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await read_head(reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            self.heads.append(head)
            if b"\r\nUpgrade: websocket\r\n" in head:
                writer.write(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n\x81\x02hi"
                    % accept(_key(head))
                )
                await reader.read()
                return
            body = b"hello"
            if head.startswith(b"POST /token "):
                body = b'{"access_token": "dummy-token", "expires_in": 3600}'
            fields = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
            writer.write(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n" + body)
            await writer.drain()


def _key(head: bytes) -> bytes:
    return head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]


@asynccontextmanager
async def behind(
    authority: Authority, **more: Any
) -> AsyncIterator[tuple[Provider, RawProvider, ConnectProxy]]:
    """A provider ``api.example`` with a certificate of ``authority``, and a proxy that finds it."""
    provider = Provider()
    async with (
        raw_provider(provider.serve, authority.server("api.example")) as running,
        connect_proxy({"api.example": running.port}, **more) as proxy,
    ):
        yield provider, running, proxy


def with_token(**more: Any) -> dict[str, Any]:
    return token_route("https://api.example", "env:DUMMY_KEY", client_id="env:DUMMY_KEY", **more)


async def get(url: str) -> tuple[int, str]:
    async with client() as http, http.get(url) as answer:
        return answer.status, await answer.text()


async def test_requests_sockets_and_spares_go_through(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All connections of the route are tunnels, with the credential inside TLS alone."""
    monkeypatch.setenv("DUMMY_PROXY_PASSWORD", PASSWORD)
    async with behind(authority, credentials=BASIC) as (provider, running, proxy):
        settings: dict[str, Any] = {
            "egress_proxy": {
                "url": proxy.url,
                "username": "dummy",
                "password": "env:DUMMY_PROXY_PASSWORD",
            },
            "ca_file": str(authority.file),
        }
        route = static_route("https://api.example", spares=1)
        async with preset_keyrelay({"acme": route}, **settings) as relay:
            assert await get(f"{relay.url}/acme/x") == (200, "hello")
            async with relay.websocket("/acme/socket") as socket:
                assert await socket.recv() == "hi"
                # A socket keeps its connection; a spare one takes its place.
                await until(lambda: relay.app.pools["acme"].prewarmed == 1)
            status = json.dumps(snapshot(relay.app))
        assert len(proxy.heads) == running.connections == 1 + 1
    assert all(head.startswith(b"CONNECT api.example:443 ") for head in proxy.heads)
    assert all(SECRET not in head for head in proxy.heads)
    request = provider.heads[0]
    assert request.startswith(b"GET /x HTTP/1.1\r\nHost: api.example\r\n")
    assert SECRET in request
    assert b"Proxy-" not in b"".join(provider.heads)
    shown = status + "".join(relay.lines) + repr(relay.app.settings)
    assert PASSWORD not in shown
    assert BASIC.decode() not in shown


async def test_token_calls_go_through(authority: Authority, tmp_path: Path) -> None:
    """A token is fetched by CONNECT, with the proxy's credentials for the proxy alone."""
    file = tmp_path / "proxy"
    async with behind(authority, credentials=BASIC) as (provider, _, proxy):
        file.write_text(proxy.url.replace("://", f"://dummy:{PASSWORD}@"))
        file.chmod(0o600)
        route = with_token(egress_proxy=f"file:{file}", ca_file=str(authority.file))
        async with preset_keyrelay({"acme": route}) as relay:
            assert await get(f"{relay.url}/acme/x") == (200, "hello")
    assert [head.split(b" ")[1] for head in proxy.heads] == [b"api.example:443"] * 2
    assert [head.partition(b" HTTP")[0] for head in provider.heads] == [b"POST /token", b"GET /x"]
    assert b"Proxy-" not in b"".join(provider.heads)
    assert b"\r\nAuthorization: Bearer dummy-token\r\n" in provider.heads[1]
    assert all(b"\r\nAuthorization:" not in head for head in proxy.heads)


@pytest.mark.parametrize(
    ("status", "words"),
    [(407, "wants a user name and password (407)"), (403, "does not permit connections")],
)
async def test_what_the_client_reads(authority: Authority, status: int, words: str) -> None:
    """A refusal of the proxy is a 502 that names it, never the proxy's own status."""
    async with behind(authority, response=REFUSED % status) as (_, _, proxy):
        routes = {"acme": static_route("https://api.example"), "tokens": with_token()}
        async with preset_keyrelay(routes, egress_proxy=proxy.url) as relay:
            code, text = await get(f"{relay.url}/acme/x")
            assert (code, words in text) == (502, True)
            code, _ = await get(f"{relay.url}/tokens/x")
            assert code in {502, 503}
            state = snapshot(relay.app)["routes"]["tokens"]["strategies"][0]["credential"]
            assert words in state["last_failure"]


async def test_token_endpoints_verify_their_certificate(trusted: Authority, tmp_path: Path) -> None:
    """Through a proxy the endpoint's certificate is verified as without one."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    async with (
        behind(Authority(folder)) as (provider, _, proxy),
        preset_keyrelay({"acme": with_token()}, egress_proxy=proxy.url) as relay,
    ):
        code, _ = await get(f"{relay.url}/acme/x")
        assert code in {502, 503}
    assert provider.heads == []


async def test_routes_have_their_own_way(trusted: Authority) -> None:
    """A route with ``direct``, and one whose host is listed, pass the proxy by."""
    async with (
        connect_proxy({}, response=REFUSED % 403) as proxy,
        raw_provider(Provider().serve, trusted.server("127.0.0.1", "localhost")) as other,
    ):
        routes = {
            "direct": static_route(other.url, egress_proxy="direct"),
            "listed": static_route(
                other.url, egress_proxy={"url": proxy.url, "no_proxy": ["127.0.0.1"]}
            ),
        }
        async with preset_keyrelay(routes, egress_proxy=proxy.url) as relay:
            for name in routes:
                assert await get(f"{relay.url}/{name}/x") == (200, "hello")
    assert proxy.heads == []


async def test_the_environment_counts_when_asked_for(
    trusted: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY alone changes nothing; ``env:HTTPS_PROXY`` takes it, and NO_PROXY with it."""
    async with behind(trusted) as (_, running, proxy):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "internal.example")
        route = static_route(f"https://api.example:{running.port}", connect_timeout_seconds=5)
        async with preset_keyrelay({"acme": route}) as relay:
            assert (await get(f"{relay.url}/acme/x"))[0] == 502
        assert proxy.heads == []
        async with preset_keyrelay({"acme": route}, egress_proxy="env:HTTPS_PROXY") as relay:
            assert (await get(f"{relay.url}/acme/x"))[0] == 200
        monkeypatch.setenv("NO_PROXY", "internal.example, .example")
        async with preset_keyrelay({"acme": route}, egress_proxy="env:HTTPS_PROXY") as relay:
            assert (await get(f"{relay.url}/acme/x"))[0] == 502
        assert len(proxy.heads) == 1


async def test_a_proxy_that_is_not_set() -> None:
    """The route is not ready and names the variable; it never goes around the proxy."""
    route = static_route("https://api.example")
    async with preset_keyrelay({"acme": route}, egress_proxy="env:HTTPS_PROXY") as relay:
        code, text = await get(f"{relay.url}/acme/x")
        assert (code, "set HTTPS_PROXY" in text) == (503, True)


async def test_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SOCKS proxy in the variable is named as such, without the value."""
    monkeypatch.setenv("HTTPS_PROXY", f"socks5://dummy:{PASSWORD}@proxy.example:1080")
    route = static_route("https://api.example")
    async with preset_keyrelay({"acme": route}, egress_proxy="env:HTTPS_PROXY") as relay:
        (found,) = relay.app.routes
        assert "only HTTP proxies are supported" in found.unready
        assert PASSWORD not in found.unready


async def test_a_reload_takes_a_new_password(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed password of the proxy replaces connections and the way of tokens."""
    async with behind(authority, credentials=BASIC) as (_, _, proxy):
        monkeypatch.setenv("DUMMY_PROXY_PASSWORD", "wrong")
        settings = load_text(
            json.dumps(
                {
                    "listen": "127.0.0.1:0",
                    "drain_seconds": 0,
                    "ca_file": str(authority.file),
                    "egress_proxy": {
                        "url": proxy.url,
                        "username": "dummy",
                        "password": "env:DUMMY_PROXY_PASSWORD",
                    },
                    "routes": {"acme": static_route("https://api.example"), "t": with_token()},
                }
            ),
            "routes.yaml",
        )
        async with App(settings) as app:
            url = app.listeners[0].url
            assert (await get(f"{url}/acme/x"))[0] == 502
            assert (await get(f"{url}/t/x"))[0] in {502, 503}
            monkeypatch.setenv("DUMMY_PROXY_PASSWORD", PASSWORD)
            changed = await app.adopt(settings)
            assert changed == ("route acme has other secrets", "route t has other secrets")
            assert (await get(f"{url}/acme/x"))[0] == 200
            assert (await get(f"{url}/t/x"))[0] == 200
