"""Rows T70 and on: what readers, clients and providers that stop, stall or break off may cost."""

from __future__ import annotations

import asyncio
import os
import signal
import socket as socket_module
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_server, socket

import pytest

from proxy.admin.connections import MOST_CONNECTIONS
from tests.support.certificates import Authority
from tests.support.command import running
from tests.support.inspection import inspected
from tests.support.keyrelay import (
    RawClient,
    answering,
    both_loops,
    exchange,
    holding,
    keyrelay,
    proxied,
    proxied_client,
    raw_provider,
    read_head,
    reset,
    static_route,
    until,
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
    async with proxied(serve, route=route) as (provider, relay):
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

    async with proxied(serve) as (provider, relay):
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


@both_loops
@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize(
    ("method", "response"),
    [
        (b"GET", b"HTTP/1.1 204 No Content\r\nX: kept\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\nX: kept\r\nContent-Length: 5\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 \r\nX: kept\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nX: kept\r\nETag: x\r\n\r\n"),
        (b"GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nX: kept\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nX: kept\r\nContent-Length: 5\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 404 Not Found\r\nX: kept\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nX: kept\r\n\r\n"),
    ],
)
async def test_t73_bytes_behind_a_response_without_a_body(
    dummy_key: bytes, method: bytes, response: bytes, pieces: int
) -> None:
    """The response is passed on, what follows it is dropped, and its connection not used again."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        data = response + b"hello"
        step = -(-len(data) // pieces)
        for at in range(0, len(data), step):
            writer.write(data[at : at + step])
            await asyncio.sleep(0.02)
        await reader.read()

    async with proxied_client(serve) as (provider, _, client):
        for _ in range(2):
            client.send(API.replace(b"GET", method))
            head = await client.head()
            status = response.split(b"HTTP/1.1 ")[-1][:3]
            assert head.startswith(b"HTTP/1.1 " + status)
            assert b"\r\nX: kept\r\n" in head
        assert provider.connections == 2


@both_loops
@pytest.mark.parametrize("at_once", [True, False])
async def test_t74_a_header_section_has_a_total_bound(at_once: bool) -> None:
    """A request's header section over 64 KiB gets a 431, however it arrives; below, it is read."""
    fields = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 1000) for number in range(100))
    async with keyrelay({}) as relay:
        for count, status in ((50, 404), (100, 431)):
            async with await RawClient.to(relay.port) as client:
                lines = fields.splitlines(keepends=True)[:count]
                request = API[:-2] + b"".join(lines) + b"\r\n"
                if at_once:
                    client.send(request)
                else:
                    for line in (API[:-2], *lines, b"\r\n"):
                        client.send(line)
                        await asyncio.sleep(0.001)
                got, _, _ = await client.answer()
                assert got == status


@both_loops
async def test_t74_incomplete_header_sections_have_a_bound_in_all() -> None:
    """16 MiB on all connections together; beyond, a connection with a part of one gets a 503, and
    requests that arrive whole are served.
    """
    part = API[:-2] + b"".join(b"X-%d: %s\r\n" % (number, b"x" * 1000) for number in range(60))
    async with keyrelay({}) as relay:
        clients = [await RawClient.to(relay.port) for _ in range(300)]
        try:
            for client in clients:
                client.send(part)
            status, _, _ = await clients[-1].answer()
            assert status == 503
            assert (await exchange(relay.port, API)).startswith(b"HTTP/1.1 404 ")
        finally:
            for client in clients:
                client.reset()


@both_loops
@pytest.mark.parametrize("kind", ["fields", "interim", "trailers"])
async def test_t74_a_response_header_section_has_a_total_bound(dummy_key: bytes, kind: str) -> None:
    """Of a response 256 KiB: fields, interim responses and trailers beyond break it."""
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 4000) for number in range(100))
    first = {
        "fields": b"HTTP/1.1 200 OK\r\n" + lines,
        "interim": (b"HTTP/1.1 103 Early Hints\r\nX: " + b"x" * 4000 + b"\r\n\r\n") * 100,
        "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + lines,
    }[kind]
    broken = asyncio.Event()

    async with proxied_client(holding(first, broken)) as (_, _, client):
        client.send(API)
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 200 " if kind == "trailers" else b"HTTP/1.1 502 ")
        async with asyncio.timeout(10):
            await broken.wait()


@both_loops
async def test_t75_the_end_does_not_wait_for_a_connection_that_reports_none() -> None:
    """The end comes within drain time and 2 s though a connection never reports that it is closed:
    here one whose transport has been given to another protocol behind its back.
    """
    async with keyrelay({}) as relay, await RawClient.to(relay.port) as client:
        client.send(API)
        await client.answer()
        (connection,) = relay.app._clients
        connection.transport.set_protocol(asyncio.Protocol())
        async with asyncio.timeout(30):
            began = asyncio.get_running_loop().time()
            await relay.app.close(0)
        assert asyncio.get_running_loop().time() - began < 2


@both_loops
async def test_t76_a_name_that_does_not_resolve_takes_one_thread(
    dummy_key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All requests to one origin wait for one lookup, also those whose clients are gone; afterwards
    another lookup can succeed.
    """
    lookups: list[str] = []
    gate = asyncio.Event()

    async def getaddrinfo(host: str, port: int, **hints: object) -> list[object]:
        lookups.append(host)
        await gate.wait()
        raise socket_module.gaierror(socket_module.EAI_AGAIN, "dummy")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with keyrelay({"api": static_route("https://slow.example")}) as relay:
        clients = [await RawClient.to(relay.port) for _ in range(20)]
        for client in clients:
            client.send(API)
        await until(lambda: sum(not one.idle for one in relay.app._clients) == len(clients))
        await until(lambda: lookups)
        clients.pop().reset()
        gate.set()
        for client in clients:
            assert (await client.answer())[0] == 502
            client.reset()
        assert lookups == ["slow.example"]
        assert (await exchange(relay.port, API)).startswith(b"HTTP/1.1 502 ")
        assert len(lookups) == 2


# A shell that lowers the limit of open descriptors before it becomes keyrelay.
FEW_DESCRIPTORS = ("/bin/sh", "-c", 'ulimit -n 64; exec "$@"', "sh")
HEALTH = b"GET /-/health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.timeout(120)
async def test_t77_workers_at_their_descriptor_limit_drop_no_connection() -> None:
    """More connections than two workers may open: those beyond wait, without a traceback, and are
    served once others are closed.
    """
    async with running(
        "run", "demo", "--listen", "127.0.0.1:0", "--workers", "2", within=FEW_DESCRIPTORS
    ) as process:
        clients = [await RawClient.to(process.port) for _ in range(120)]
        for client in clients:
            client.send(HEALTH)
        await process.said("Workers may open no more descriptors")
        while clients:
            first, *clients = clients
            status, _, _ = await first.answer()
            assert status == 200
            first.reset()
        # The channels are in step: a new worker's configuration, and its connections, arrive.
        assert (await exchange(process.port, GET)).startswith(b"HTTP/1.1 200 ")
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0


def children(pid: int) -> list[int]:
    """The processes that this one has started."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.timeout(120)
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
async def test_t78_a_stopped_worker_gets_no_connections() -> None:
    """One of two workers is stopped: of many connections at once it gets eight at most, and later
    none; these are served once it goes on, and all others by the other worker.
    """
    async with running("run", "demo", "--listen", "127.0.0.1:0", "--workers", "2") as process:
        stopped, _ = children(process.pid)
        os.kill(stopped, signal.SIGSTOP)
        try:
            clients = [await RawClient.to(process.port) for _ in range(40)]
            waiting = set(clients)

            async def serve(client: RawClient) -> None:
                client.send(HEALTH)
                status, _, _ = await client.answer()
                assert status == 200
                waiting.discard(client)

            await asyncio.gather(*map(serve, clients), return_exceptions=True)
            assert len(waiting) <= 8
            for _ in range(20):
                assert (await exchange(process.port, HEALTH)).startswith(b"HTTP/1.1 200 ")
        finally:
            os.kill(stopped, signal.SIGCONT)
        for client in waiting:
            status, _, _ = await client.answer()
            assert status == 200
        for client in clients:
            client.reset()


async def test_t79_a_clock_that_is_set_back_blocks_no_route(
    dummy_key: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A route with a rate serves again when its time is over, whatever the wall clock shows."""
    route = {"rate": "1/second"}
    async with (
        raw_provider(answering(OK)) as provider,
        keyrelay({"api": static_route(provider.url, **route)}) as relay,
    ):
        assert (await exchange(relay.port, API)).startswith(b"HTTP/1.1 200 ")
        wall = time.time
        monkeypatch.setattr(time, "time", lambda: wall() - 3600)
        for status in (b"429", b"200"):
            async with asyncio.timeout(10):
                while (await exchange(relay.port, API))[9:12] != status:  # noqa: ASYNC110  only time changes it
                    await asyncio.sleep(0.1)


@both_loops
@pytest.mark.parametrize(
    ("response", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", None),
        (b"HTTP/1.1 200 OK\r\n\r\nhalf", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", True),
        (OK, True),
    ],
)
async def test_t80_a_broken_off_response_on_a_unix_socket(
    dummy_key: bytes, tmp_path: Path, response: bytes, whole: bool | None
) -> None:
    """To an HTTP/1.0 client on a unix socket each end is a clean one. A response that would have no
    other mark of its end is refused, unless all of it has arrived.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(response)
        await asyncio.sleep(0.2)
        reset(writer)

    path = tmp_path / "keyrelay"
    async with (
        raw_provider(serve) as provider,
        keyrelay({"api": static_route(provider.url)}, listen=[f"unix:{path}"]),
    ):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(API.replace(b"HTTP/1.1", b"HTTP/1.0"))
        async with asyncio.timeout(30):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        if whole is None:
            assert head.startswith(b"HTTP/1.1 502 ")
            assert b"http10-on-unix-socket" in body
        else:
            assert head.startswith(b"HTTP/1.1 200 ")
            assert body == (b"ok" if whole else b"half")
            assert whole or b"Content-Length: 9" in head


HANGS = """
listen: 127.0.0.1:0
workers: {workers}
routes:
  api:
    upstream: https://api.example.com
    secrets: {{key: {{exec: "{program}", timeout_seconds: 60}}}}
    auth: [{{header: X-Api-Key, value: "{{key}}"}}]
"""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.timeout(120)
async def test_t83_a_signal_ends_a_start_that_hangs(
    tmp_path: Path, workers: int, number: int
) -> None:
    """The program of a secret hangs at the start: the process ends at the first signal, and the
    program with it.
    """
    begun = tmp_path / "pid"
    program = tmp_path / "hangs"
    program.write_text(f"#!/bin/sh\necho $$ > {begun}.new\nmv {begun}.new {begun}\nsleep 60\n")
    program.chmod(0o700)
    file = tmp_path / "routes.yaml"
    file.write_text(HANGS.format(workers=workers, program=program))
    async with running("run", "--config", str(file), until="") as process:
        await until(begun.exists)
        process.signal(number)
        assert await process.ended(10) == 0
        await process.said("Stopped before the start was complete.")
    pid = int(begun.read_text())
    await until(lambda: not Path(f"/proc/{pid}/cmdline").exists())


async def test_t84_incomplete_requests_do_not_lock_the_admin_listener(
    dummy_key: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many connections as it keeps have sent a part of a request: another one is served."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    async with inspected({"api": static_route("https://api.example.com")}) as running:
        port = running.admin.listener.address.port
        clients = [await RawClient.to(port) for _ in range(MOST_CONNECTIONS)]
        for client in clients:
            client.send(HEALTH[:20])
        server = running.admin._served.server
        assert server is not None
        await until(lambda: len(server.connections) == MOST_CONNECTIONS)
        async with await RawClient.to(port) as client:
            client.send(f"GET /style.css HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            status, _, _ = await client.answer()
            assert status == 200
        for client in clients:
            client.reset()
