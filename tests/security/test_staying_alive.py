"""Rows T70 and on: what readers, clients and providers that stop, stall or break off may cost."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_server, socket

import pytest

from tests.support.certificates import Authority
from tests.support.command import running
from tests.support.keyrelay import (
    RawClient,
    both_loops,
    exchange,
    keyrelay,
    raw_provider,
    read_head,
    static_route,
)

GET = b"GET /demo/echo/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
API = b"GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.timeout(180)
async def test_t70_a_reader_of_the_log_that_stops_stops_nothing(workers: str) -> None:
    """Standard output is a pipe that nothing reads: requests are served beyond what it holds, and
    SIGTERM ends the process.
    """
    reading, writing = os.pipe()
    try:
        async with running(
            "run", "demo", "--listen", "127.0.0.1:0", "--workers", workers, stdout=writing
        ) as process:
            async with await RawClient.to(process.port) as client:
                # A line has some 250 bytes, a pipe 64 KiB.
                for _ in range(600):
                    client.send(GET)
                    async with asyncio.timeout(60):
                        status, _, _ = await client.answer()
                    assert status == 200
            process.signal(signal.SIGTERM)
            assert await process.ended(60) == 0
    finally:
        os.close(reading)
        os.close(writing)


@both_loops
async def test_t71_a_timeout_sends_nothing_again(dummy_key: bytes) -> None:
    """A kept connection on which the provider stays silent: 504, and the request was sent once."""
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        while await reader.readuntil(b"\r\n\r\n"):
            requests += 1
            if requests == 1:
                writer.write(OK)

    route = {"answer_timeout_seconds": 1}
    async with (
        raw_provider(serve) as provider,
        keyrelay({"api": static_route(provider.url, **route)}) as relay,
    ):
        assert (await exchange(relay.port, API)).startswith(b"HTTP/1.1 200 ")
        assert (await exchange(relay.port, API)).startswith(b"HTTP/1.1 504 ")
        assert (requests, provider.connections) == (2, 1)


@both_loops
async def test_t71_a_late_close_sends_nothing_again(dummy_key: bytes) -> None:
    """A kept connection that is closed long after the request: the provider may have processed it,
    so it is not sent a second time.
    """
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await read_head(reader)
        writer.write(OK)
        await read_head(reader)
        requests += 1
        await asyncio.sleep(5.5)

    async with (
        raw_provider(serve) as provider,
        keyrelay({"api": static_route(provider.url)}) as relay,
    ):
        assert (await exchange(relay.port, API)).startswith(b"HTTP/1.1 200 ")
        assert (await exchange(relay.port, API)).startswith(b"HTTP/1.1 502 ")
        assert (requests, provider.connections) == (1, 1)


@contextmanager
def cut_off(tls: ssl.SSLContext, response: bytes, *, close_notify: bool) -> Iterator[str]:
    """A provider over TLS that ends its connection after ``response``; its URL."""

    def serve(listening: socket) -> None:
        accepted, _ = listening.accept()
        with tls.wrap_socket(accepted, server_side=True) as stream:
            received = b""
            while b"\r\n\r\n" not in received:
                received += stream.recv(4096)
            stream.sendall(response)
            if close_notify:
                stream.unwrap().close()

    with create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(30)


@both_loops
@pytest.mark.parametrize("size", [4, 200_000])
@pytest.mark.parametrize("close_notify", [True, False])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_t72_a_tls_stream_that_is_cut_off_is_a_broken_response(
    dummy_key: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    close_notify: bool,
    version: bytes,
) -> None:
    """A body that ends with the connection is complete only if TLS was ended by its alert."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    response = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * size
    with cut_off(authority.server("127.0.0.1"), response, close_notify=close_notify) as url:
        async with (
            keyrelay({"api": static_route(url)}) as relay,
            await RawClient.to(relay.port) as client,
        ):
            request = API.replace(b"HTTP/1.1", b"HTTP/" + version)
            client.send(request[:-2] + b"Connection: close\r\n\r\n")
            complete = True
            body = b""
            try:
                body = await client.rest()
            except ConnectionResetError:
                complete = False
            if version == b"1.1":
                complete = body.endswith(b"\r\n0\r\n\r\n")
            assert complete is close_notify
