"""``exec --intercept``: providers' own addresses lead to keyrelay, everything else passes by."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from proxy.process.intercept import InterceptingProxy
from proxy.secrets.certificates import new_authority
from tests.support.certificates import Authority
from tests.support.command import CANARY, keyrelay
from tests.support.keyrelay import answering, heads, raw_provider, read_head, static_route, until
from tests.support.keyrelay import keyrelay as running_keyrelay

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

PROGRAM = """
import http.client, os, ssl, sys
from urllib.parse import urlsplit
proxy = urlsplit(os.environ["HTTPS_PROXY"])
import base64
word = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
connection = http.client.HTTPSConnection(proxy.hostname, proxy.port, timeout=20)
connection.set_tunnel(sys.argv[1], int(sys.argv[2]), {"Proxy-Authorization": f"Basic {word}"})
connection.request("GET", "/v1/things", headers={"Authorization": "Bearer dummy-of-the-client"})
response = connection.getresponse()
print(response.status, response.read().decode()[:200])
connection.close()
"""


@asynccontextmanager
async def tunnel(
    url: str, target: str, password: str | None = None
) -> AsyncIterator[tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection after CONNECT, and the head of the response to that."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    word = f"{parts.username}:{password or parts.password}".encode()
    writer.write(
        f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n".encode()
        + b"Proxy-Authorization: Basic "
        + base64.b64encode(word)
        + b"\r\n\r\n"
    )
    try:
        async with asyncio.timeout(30):
            yield await read_head(reader), reader, writer
    finally:
        writer.transport.abort()


async def test_the_password_is_required() -> None:
    """Another program that finds the port gets 407, and what is no CONNECT 405."""
    async with InterceptingProxy({("api.example", 443)}, lambda one: one.close()) as proxy:
        async with tunnel(proxy.url, "api.example:443", "wrong") as (head, _, _):
            assert head.startswith(b"HTTP/1.1 407 ")
            assert b"\r\nProxy-Authenticate: Basic " in head
        async with tunnel(proxy.url, "api.example:0") as (head, _, _):
            assert head.startswith(b"HTTP/1.1 405 ")


async def test_other_hosts_pass_through_untouched(tmp_path: Path) -> None:
    """TLS is the host's own, verified end to end by the client; plain bytes pass as well."""
    authority = Authority(tmp_path)
    context = ssl.create_default_context(cafile=str(authority.file))
    served: list[object] = []
    async with (
        raw_provider(answering(OK), authority.server("127.0.0.1")) as other,
        InterceptingProxy({("api.example", 443)}, served.append) as proxy,
        tunnel(proxy.url, f"127.0.0.1:{other.port}") as (head, _, writer),
    ):
        assert head.startswith(b"HTTP/1.1 200 ")
        await writer.start_tls(context, server_hostname="127.0.0.1")
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: other.connections == 1)
        assert not served


async def test_a_host_that_cannot_be_reached_is_a_502() -> None:
    """The response to CONNECT says so, in place of an end without a reason."""
    async with raw_provider(answering(OK)) as gone:
        port = gone.port
    async with (
        InterceptingProxy(frozenset(), lambda one: one.close()) as proxy,
        tunnel(proxy.url, f"127.0.0.1:{port}") as (head, _, _),
    ):
        assert head.startswith(b"HTTP/1.1 502 ")


async def test_a_provider_is_served_by_the_route(
    dummy_key: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard, rules and credential are those of the route; the client's own key goes nowhere."""
    authority = Authority(tmp_path)
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for head in heads(reader):
            received.append(head)
            writer.write(OK)

    async with raw_provider(serve, authority.server("127.0.0.1")) as provider:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        route = static_route(f"{provider.url}/base", "Authorization", deny=["/keys/**"])
        async with running_keyrelay({"acme": route}) as running:
            own = new_authority("dummy", ["127.0.0.1"], time.time())
            intercepted = running.app.intercept(lambda hosts: own.issue(hosts, time.time(), 1))
            assert intercepted.origins == {("127.0.0.1", provider.port)}
            context = ssl.create_default_context(cadata=own.certificate.decode())
            target = f"127.0.0.1:{provider.port}"
            async with (
                InterceptingProxy(intercepted.origins, intercepted.serve) as proxy,
                tunnel(proxy.url, target) as (head, reader, writer),
            ):
                assert head.startswith(b"HTTP/1.1 200 ")
                await writer.start_tls(context, server_hostname="127.0.0.1")
                for path, status in (
                    ("/base/v1/x", 200),
                    ("/base/keys/new", 403),
                    ("/elsewhere", 404),
                ):
                    request = f"GET {path} HTTP/1.1\r\nHost: {target}\r\n"
                    writer.write(f"{request}Authorization: Bearer dummy-client\r\n\r\n".encode())
                    head = await read_head(reader)
                    assert int(head[9:12]) == status, path
                    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0])
                    await reader.readexactly(length)
    (head,) = received
    assert head.startswith(b"GET /base/v1/x HTTP/1.1\r\n")
    assert head.count(b"Authorization: dummy-real-key\r\n") == 1
    assert b"dummy-client" not in head


async def test_a_whole_command(tmp_path: Path) -> None:
    """It calls the provider by its own address, with the environment that exec gives it."""
    authority = Authority(tmp_path)
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for head in heads(reader):
            received.append(head)
            writer.write(OK)

    async with raw_provider(serve, authority.server("127.0.0.1")) as provider:
        file = tmp_path / "routes.yaml"
        route = {"provider": "openai", "upstream": provider.url, "ca_file": str(authority.file)}
        file.write_text(json.dumps({"routes": {"openai": route}}))
        done = await asyncio.to_thread(
            keyrelay,
            *("exec", "-c", str(file), "--intercept", "--", sys.executable, "-c", PROGRAM),
            *("127.0.0.1", str(provider.port)),
            variables={"OPENAI_API_KEY": CANARY, "NO_PROXY": "*", "no_proxy": "*"},
        )
    assert (done.code, done.out, done.err) == (0, "200 ok\n", "")
    (head,) = received
    assert f"\r\nAuthorization: Bearer {CANARY}\r\n".encode() in head
    assert b"dummy-of-the-client" not in head


def test_a_proxy_in_the_environment_is_an_error(tmp_path: Path) -> None:
    """Other hosts would no longer be reached through it: the remedy is named, nothing runs."""
    file = tmp_path / "routes.yaml"
    file.write_text("routes: {demo: {provider: demo}, hume: {provider: hume}}\n")
    done = keyrelay(
        *("exec", "-c", str(file), "--intercept", "--", "true"),
        variables={"HTTPS_PROXY": "http://127.0.0.1:9", "HUME_API_KEY": CANARY},
    )
    assert done.code == 1
    assert "--egress-proxy" in done.err
