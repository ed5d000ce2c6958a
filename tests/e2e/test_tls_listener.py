"""Listeners with TLS: certificates, handshakes, the data path over them, and their end."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from proxy.errors import KeyrelayError
from proxy.secrets import local_authority
from tests.support.certificates import Authority
from tests.support.clock import ManualClock
from tests.support.keyrelay import (
    Running,
    answering,
    both_loops,
    exchange,
    heads,
    keyrelay,
    raw_provider,
    read_head,
    static_route,
    until,
)

pytestmark = both_loops

TLS = "https://127.0.0.1:0"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEALTH = b"GET /-/health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(autouse=True)
def _authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local authority of the test's own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    local_authority.create(time.time())


def trusting() -> ssl.SSLContext:
    """What a client has that trusts the local authority and offers HTTP/2 as well."""
    context = ssl.create_default_context(cafile=str(local_authority.certificate_file()))
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@asynccontextmanager
async def connected(
    port: int, host: str = "localhost", context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection whose certificate has been verified for ``host``."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context or trusting(), server_hostname=host
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def handshake(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A connection of a blocking client."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=30)
    try:
        return context.wrap_socket(sock, server_hostname="localhost")
    except ssl.SSLError:
        sock.close()
        raise


async def asked(port: int, request: bytes, host: str = "localhost") -> bytes:
    """The head of the response to a request over TLS."""
    async with connected(port, host) as (reader, writer):
        writer.write(request)
        return await read_head(reader)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "acme.localhost"])
async def test_each_name_is_certified(dummy_key: bytes, host: str) -> None:
    """Addresses, localhost and the routes' own names; HTTP/1.1 by ALPN; the URL says https."""
    async with (
        raw_provider(answering(OK)) as provider,
        keyrelay({"acme": static_route(provider.url)}, listen=[TLS]) as running,
    ):
        assert running.url == f"https://127.0.0.1:{running.port}"
        async with connected(running.port, host) as (reader, writer):
            tls = writer.get_extra_info("ssl_object")
            assert tls.selected_alpn_protocol() == "http/1.1"
            name = f"[{host}]" if ":" in host else host
            path = "/x" if host == "acme.localhost" else "/acme/x"
            for _ in range(2):
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
                assert (await read_head(reader)).startswith(b"HTTP/1.1 200 OK\r\n")
                assert await reader.readexactly(2) == b"ok"


async def test_plain_listeners_serve_beside_it() -> None:
    """One process, both; the guard is the same."""
    async with keyrelay({}, listen=["127.0.0.1:0", TLS]) as running:
        plain, tls = (one.address.port for one in running.app.listeners)
        assert b"\r\n\r\nok\n" in await exchange(plain, HEALTH)
        assert (await asked(tls, HEALTH)).startswith(b"HTTP/1.1 200 OK\r\n")
        wrong = await asked(tls, b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert wrong.startswith(b"HTTP/1.1 421 ")
        origin = b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: https://localhost\r\n\r\n"
        assert (await asked(tls, origin)).startswith(b"HTTP/1.1 403 ")


async def test_plain_http_gets_a_clear_400() -> None:
    """The response is readable although the port is TLS; the operator gets a line as well."""
    async with keyrelay({}, listen=[TLS]) as running:
        response = await exchange(running.port, HEALTH)
        assert response.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"urn:keyrelay:problem:wrong-protocol" in response
        assert b"https://" in response
        running.app.exchange_log.flush()
        assert "wrong-protocol" in "".join(running.lines)


async def test_urls_of_the_provider_get_the_scheme(dummy_key: bytes) -> None:
    """An absolute URL that an SDK uses unresolved stays with TLS, at the port of the request."""
    url = ""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for _ in heads(reader):
            field = f"Location: {url}/next\r\n".encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + field + b"\r\n")

    async with raw_provider(serve) as provider:
        url = provider.url
        async with keyrelay({"acme": static_route(provider.url)}, listen=[TLS]) as running:
            host = f"localhost:{running.port}"
            head = await asked(
                running.port, f"GET /acme/x HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
            )
    assert f"\r\nLocation: https://{host}/acme/next\r\n".encode() in head


async def test_large_bodies_cross_intact(dummy_key: bytes) -> None:
    """Both directions, more than any buffer holds, and the response ends with the connection."""
    body = bytes(range(256)) * 8192

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        got = await reader.readexactly(len(body))
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + got)
        await writer.drain()
        writer.close()

    async with (
        raw_provider(serve) as provider,
        keyrelay({"acme": static_route(provider.url)}, listen=[TLS]) as running,
        connected(running.port) as (reader, writer),
    ):
        writer.write(
            b"POST /acme/x HTTP/1.0\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        writer.write(body)
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200 OK\r\n")
        assert await reader.read(-1) == body


async def test_a_refused_upload_gets_its_response(dummy_key: bytes) -> None:
    """Who is still sending when the refusal comes can read it whole."""
    async with (
        raw_provider(answering(OK)) as provider,
        keyrelay(
            {"acme": static_route(provider.url, max_body_bytes=1000)}, listen=[TLS]
        ) as running,
        connected(running.port) as (reader, writer),
    ):
        writer.write(b"POST /acme/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n")
        for _ in range(20):
            writer.write(b"x" * 10_000)
            await asyncio.sleep(0)
        head = await read_head(reader)
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"body-too-large" in await reader.readuntil(b"}\n}\n")


async def test_a_websocket(dummy_key: bytes) -> None:
    """wss:// to keyrelay, ws to the provider here; both ends close properly."""

    async def echo(session: ServerConnection) -> None:
        async for message in session:
            await session.send(message)

    async with serve(echo, "127.0.0.1", 0) as provider:
        port = next(iter(provider.sockets)).getsockname()[1]
        route = static_route(f"http://127.0.0.1:{port}")
        async with (
            keyrelay({"acme": route}, listen=[TLS]) as running,
            connect(
                f"wss://localhost:{running.port}/acme/chat",
                ssl=trusting(),
                proxy=None,
                open_timeout=30,
            ) as session,
        ):
            for message in ("hello", b"\x00" * 100_000):
                await session.send(message)
                assert await session.recv() == message
            await session.close()
            assert session.close_code == 1000


# -- handshakes -----------------------------------------------------------------------------------


async def test_silent_connections_end_in_time() -> None:
    """Neither a connection without a byte nor half a handshake is kept."""
    async with keyrelay({}, listen=[TLS], head_timeout_seconds=1) as running:
        for sent in (b"", b"\x16\x03\x01\x02"):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            writer.write(sent)
            async with asyncio.timeout(30):
                assert await reader.read(-1) == b""
            writer.close()
        assert (await asked(running.port, HEALTH)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_handshakes_count_as_connections() -> None:
    """With the limit taken by silent ones, a client gets 503; far beyond, connections are closed.

    A plain listener beside gets 503 too.
    """
    async with keyrelay(
        {}, listen=["127.0.0.1:0", TLS], max_connections=3, head_timeout_seconds=60
    ) as running:
        plain, tls = (one.address.port for one in running.app.listeners)
        silent = [socket.create_connection(("127.0.0.1", tls)) for _ in range(3)]
        try:
            await until(lambda: len(running.app._limit.handshakes) == 3)
            assert (await asked(tls, HEALTH)).startswith(b"HTTP/1.1 503 ")
            assert (await exchange(plain, HEALTH)).startswith(b"HTTP/1.1 503 ")
            silent += [socket.create_connection(("127.0.0.1", tls)) for _ in range(64)]
            reader, writer = await asyncio.open_connection("127.0.0.1", tls)
            async with asyncio.timeout(30):
                assert await reader.read(-1) == b""
            writer.close()
        finally:
            for one in silent:
                one.close()
        await until(lambda: not running.app._limit.handshakes)
        assert (await asked(tls, HEALTH)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_client_that_does_not_trust_it_is_reported() -> None:
    """One line with the command that helps, however often it tries."""
    said: list[str] = []
    async with keyrelay({}, listen=[TLS]) as running:
        running.app._tls._notice = said.append
        for _ in range(3):
            # Unlike this, asyncio's client ends without the alert.
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.to_thread(handshake, running.port, ssl.create_default_context())
        await until(lambda: bool(said))
        (line,) = said
        assert "keyrelay ca" in line


# -- certificates ---------------------------------------------------------------------------------


async def test_it_is_renewed_during_operation() -> None:
    """A third of its life before the end a new one is served; open connections stay."""
    clock = ManualClock(wall=time.time())
    async with (
        keyrelay({}, listen=[TLS], clock=clock) as running,
        connected(running.port) as (reader, writer),
    ):
        before = writer.get_extra_info("ssl_object").getpeercert()
        await clock.advance(3 * 86_400)
        await asyncio.sleep(1.5)
        assert await serial(running) == before["serialNumber"]
        await clock.advance(2 * 86_400)
        async with asyncio.timeout(30):
            while await serial(running) == before["serialNumber"]:  # noqa: ASYNC110  no event
                await asyncio.sleep(0.1)
        writer.write(HEALTH)
        assert (await read_head(reader)).startswith(b"HTTP/1.1 200 OK\r\n")


async def serial(running: Running) -> str:
    """The number of the certificate that is served now. Its time is another clock's."""
    context = ssl.create_default_context(cafile=str(local_authority.certificate_file()))
    context.check_hostname = False
    context.verify_flags |= 0x200000  # X509_V_FLAG_NO_CHECK_TIME
    async with connected(running.port, context=context) as (_, writer):
        return str(writer.get_extra_info("ssl_object").getpeercert()["serialNumber"])


def certified(folder: Path, mode: int) -> tuple[Authority, Path]:
    """An authority, and a file of this mode with a certificate for relay.example and its key."""
    authority = Authority(folder)
    authority.server("relay.example")
    (pair,) = folder.glob("server-*.pem")
    pair.chmod(mode)
    return authority, pair


async def test_a_certificate_of_one_s_own(tmp_path: Path) -> None:
    """Certificate and key by files, for names beyond localhost."""
    authority, pair = certified(tmp_path, 0o600)
    tls = {"certificate": str(pair), "key": str(pair)}
    async with keyrelay({}, listen=[TLS], tls=tls, hosts=["relay.example"]) as running:
        context = ssl.create_default_context(cafile=str(authority.file))
        async with connected(running.port, "relay.example", context) as (reader, writer):
            writer.write(HEALTH.replace(b"localhost", b"relay.example"))
            assert (await read_head(reader)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """As any secret's file; and so is one that does not belong to the certificate."""
    _, pair = certified(tmp_path, 0o644)
    with pytest.raises(KeyrelayError, match="others may read it"):
        async with keyrelay({}, listen=[TLS], tls={"certificate": str(pair), "key": str(pair)}):
            pytest.fail("it started")
    tls = {
        "certificate": str(pair),
        "key": str(local_authority.key_file()),
    }
    with pytest.raises(KeyrelayError, match="no certificate in PEM"):
        async with keyrelay({}, listen=[TLS], tls=tls):
            pytest.fail("it started")


async def test_without_an_authority_the_remedy_is_named() -> None:
    """No start without a certificate, and none is made unasked."""
    local_authority.certificate_file().unlink()
    with pytest.raises(KeyrelayError, match="keyrelay ca"):
        async with keyrelay({}, listen=[TLS]):
            pytest.fail("it started")


# -- the end --------------------------------------------------------------------------------------


async def test_the_end_is_announced(dummy_key: bytes) -> None:
    """A response in progress is completed, and TLS ended by its closing alert."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for _ in heads(reader):
            arrived.set()
            await go.wait()
            writer.write(OK)

    async with raw_provider(serve) as provider:
        running = keyrelay({"acme": static_route(provider.url)}, listen=[TLS])
        one = await running.__aenter__()
        async with connected(one.port) as (reader, writer):
            writer.write(b"GET /acme/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await arrived.wait()
            closing = asyncio.get_running_loop().create_task(one.app.close(20))
            await asyncio.sleep(0.1)
            go.set()
            assert (await read_head(reader)).startswith(b"HTTP/1.1 200 OK\r\n")
            # Without the alert this would be an error, or the read would never end.
            assert await reader.read(-1) == b"ok"
            await closing


async def test_clients_that_never_reply_do_not_delay_the_end() -> None:
    """A pool of kept connections reads nothing while it is unused."""
    running = keyrelay({}, listen=[TLS])
    one = await running.__aenter__()
    loop = asyncio.get_running_loop()
    tls = await asyncio.to_thread(handshake, one.port, trusting())
    try:
        await loop.run_in_executor(None, tls.sendall, HEALTH)
        assert (await loop.run_in_executor(None, tls.recv, 4096)).startswith(b"HTTP/1.1 200")
        began = loop.time()
        async with asyncio.timeout(60):
            await one.app.close(50)
        assert loop.time() - began < 40
    finally:
        tls.close()
