"""CPU time of the data path without sockets: `python -m benchmarks.inprocess --help`.

The app runs as users run it, on the event loop users get. Only the loop's two ends are replaced: a
connection to a provider is a transport in memory, and so is a client's. What remains is the
interpreter's part of a request, free of the kernel, and repeatable.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import uvloop

# Every import from the package: another revision may have other names.
from proxy.app.app import App
from proxy.config.loader import load_text

HELP = """\
Measures the CPU time of one GET, one POST and one WebSocket opening within one process and without
sockets. Bytes go into the connection protocol and come back from it; guard, route, credential,
exchange, connection pool, journal and access log are those of the product.

Each run is --count requests, timed in slices. A slice does the same in every run, so the minimum of
each over --runs runs is taken; their sum is a run that no other program disturbed.
"""

EPILOG = """\
examples:
  python -m benchmarks.inprocess
  python -m benchmarks.inprocess --against ../older-checkout
  python -m benchmarks.inprocess --against ../older-checkout --instructions

With --against both checkouts are measured in processes of their own, with this interpreter, run by
run in turns: the ratio is the median over pairs of runs, here to there, with its standard error.
The other checkout's own benchmarks/inprocess.py is used if it has one.

On a machine with other load the microseconds change with its speed; ratios may be some per cent
wrong. --instructions does not depend on load: it takes minutes, and repeats within one per cent.
"""

TITLES = {
    "get": "GET, 1 KB response",
    "post": "POST, small JSON body",
    "websocket_opening": "WebSocket opening",
}
_SLICE = 50  # requests between two looks at the clock
_LOG_SECONDS = 10.0  # within which the access log has to have every exchange
_MOST_TURNS = 1000  # of the loop, within which a WebSocket has to be open

# Nothing listens there: the loop makes the connection without a socket.
_PROVIDER = "http://127.0.0.1:9"
_ROUTES = """\
listen: 127.0.0.1:0
routes:
  api:
    upstream: {provider}
    secrets: {{key: "file:{key}"}}
    auth: [{{header: X-Api-Key, value: "{{key}}"}}]
  live:
    upstream: {provider}
    secrets: {{key: "file:{key}"}}
    auth: [{{header: X-Api-Key, value: "{{key}}"}}]
"""

_COMMON = b"Host: 127.0.0.1:8080\r\nUser-Agent: benchmark\r\nAccept: */*\r\n"
_JSON = b'{"text": "a small body", "voice": 7}'
GET = b"GET /api/v1/voices HTTP/1.1\r\n" + _COMMON + b"\r\n"
POST = (
    b"POST /api/v1/speech HTTP/1.1\r\n"
    + _COMMON
    + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_JSON)
    + _JSON
)
# Key and accept value of the example in RFC 6455 section 1.3.
HANDSHAKE = (
    b"GET /live/v1/socket HTTP/1.1\r\n"
    + _COMMON
    + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
OK = (
    b"HTTP/1.1 200 OK\r\nServer: benchmark\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 1024\r\nConnection: keep-alive\r\n\r\n"
    + b'{"text": "%b"}'
    % (b"x" * 1012)
)
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


_REQUESTS = {"get": GET, "post": POST}


class MeasurementError(Exception):
    """The product did not do what is to be measured."""


class MemoryTransport(asyncio.Transport):
    """One end of a connection in memory; what its protocol writes is counted, not kept.

    sock      what stands for the socket where the product asks the system about one
    on_write  called with the transport once something has been written; None for nothing
    """

    __slots__ = ("_closing", "_loop", "_on_write", "_sock", "last", "protocol", "written")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: asyncio.Protocol,
        sock: socket.socket,
        on_write: Callable[[MemoryTransport], object] | None = None,
    ) -> None:
        super().__init__()
        self._loop = loop
        self._sock = sock
        self._on_write = on_write
        self._closing = False
        self.protocol = protocol
        self.written = 0
        self.last: bytes | bytearray | memoryview = b""
        protocol.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._sock if name == "socket" else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += len(data)
        self.last = data
        if self._on_write is not None:
            self._on_write(self)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self.protocol = protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not self._closing

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(lambda: self.protocol.connection_lost(None))

    def abort(self) -> None:
        self.close()


class _Server:
    """What ``create_server`` gives: accepts nothing, holds the socket that it was given."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def close(self) -> None:
        self._sock.close()


class MemoryLoop(uvloop.Loop):
    """The product's event loop, whose servers and connections are in memory.

    accept      makes the protocol of a client's connection, as ``create_server`` was given it
    unanswered  providers' transports on which a request was written
    """

    accept: Callable[[], asyncio.Protocol]

    def __init__(self) -> None:
        super().__init__()
        # Quiet for ever: polling it for unread bytes costs what it costs in production.
        self._quiet, self._far = socket.socketpair()
        self.unanswered: list[MemoryTransport] = []

    async def create_server(self, *args: Any, **kwargs: Any) -> Any:
        self.accept = args[0]
        return _Server(kwargs["sock"])

    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        protocol = args[0]()
        return MemoryTransport(self, protocol, self._quiet, self.unanswered.append), protocol

    def connect_client(self) -> MemoryTransport:
        """A client's connection, accepted."""
        return MemoryTransport(self, self.accept(), self._quiet)

    def answer(self, response: bytes) -> None:
        """Let each provider that has a request respond, as if its bytes had just arrived."""
        while self.unanswered:
            self.unanswered.pop().protocol.data_received(response)

    def close(self) -> None:
        super().close()
        self._quiet.close()
        self._far.close()


class AccessLog:
    """Where the lines of the access log go: written and flushed, as to standard output."""

    def __init__(self) -> None:
        self._file = Path(os.devnull).open("w")  # noqa: SIM115  as long as the app runs
        self._lines = 0
        self._awaited = 0
        self._complete: asyncio.Future[None] | None = None

    def write(self, lines: str) -> None:
        self._file.write(lines)
        self._file.flush()
        self._lines += lines.count("\n")
        if self._complete is not None and self._lines >= self._awaited:
            self._complete.set_result(None)
            self._complete = None

    async def wait(self, more: int) -> None:
        """Wait until there are ``more`` lines than at the last call. Raises MeasurementError."""
        self._awaited += more
        if self._lines < self._awaited:
            self._complete = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(_LOG_SECONDS):
                    await self._complete
            except TimeoutError:
                missing = self._awaited - self._lines
                raise MeasurementError(f"{missing} exchanges are not in the access log") from None

    def close(self) -> None:
        self._file.close()


class Bench:
    """The app with both its sides in memory. An async context manager; ``loop`` runs it."""

    def __init__(self, loop: MemoryLoop) -> None:
        self._loop = loop
        self._log = AccessLog()
        self._folder = tempfile.TemporaryDirectory(prefix="keyrelay-bench-")
        key = Path(self._folder.name) / "key"
        key.write_text("dummy-key")
        key.chmod(0o600)
        text = _ROUTES.format(provider=_PROVIDER, key=key)
        self._app = App(
            load_text(text, str(key.with_name("routes.yaml"))),
            write_log=self._log.write,
            json_log=True,
            warn=lambda line: print(line, file=sys.stderr),
        )

    async def __aenter__(self) -> Self:
        await self._app.__aenter__()
        # As the product does after its start.
        gc.collect()
        gc.freeze()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._app.close(0)
        self._log.close()
        self._folder.cleanup()

    async def take(self, name: str, count: int) -> list[int]:
        """Nanoseconds of CPU of each slice of one run of the figure. Raises MeasurementError."""
        if name == "websocket_opening":
            return await self._openings(count)
        return await self._requests(_REQUESTS[name], count)

    async def _requests(self, request: bytes, count: int) -> list[int]:
        """Nanoseconds of CPU of each slice of ``count`` requests on one connection.

        The last slice is the access log's.
        """
        loop = self._loop
        client = loop.connect_client()
        size = await self._first_response(client, request)
        receive, answer = client.protocol.data_received, loop.answer
        gc.collect()
        times = [time.process_time_ns()]
        for done in range(1, count + 1):
            receive(request)
            answer(OK)
            if not done % _SLICE:
                times.append(time.process_time_ns())
        await self._log.wait(count)
        times.append(time.process_time_ns())
        if client.written != size * (count + 1):
            raise MeasurementError(f"not every response came: {bytes(client.last[:200])!r}")
        client.close()
        await asyncio.sleep(0)
        return between(times)

    async def _first_response(self, client: MemoryTransport, request: bytes) -> int:
        """The size of the response; afterwards a connection to the provider is there."""
        client.protocol.data_received(request)
        await self._turns(client, OK)
        await self._log.wait(1)
        start, body = bytes(client.last[:12]), OK.partition(b"\r\n\r\n")[2]
        if start != b"HTTP/1.1 200" or client.last[-len(body) :] != body:
            raise MeasurementError(f"unexpected response: {bytes(client.last[:200])!r}")
        return client.written

    async def _turns(self, client: MemoryTransport, response: bytes) -> None:
        """Turns of the loop until the client has a response. Raises MeasurementError."""
        for _ in range(_MOST_TURNS):
            self._loop.answer(response)
            # At least one turn: a connection is dialled to stand in for the one that was taken.
            await asyncio.sleep(0)
            if client.written:
                return
        raise MeasurementError("no response came")

    async def _openings(self, count: int) -> list[int]:
        """The same for ``count`` openings, each on a connection of its own; none is logged yet."""
        clients: list[MemoryTransport] = []
        await self._open(clients)
        gc.collect()
        times = [time.process_time_ns()]
        for done in range(1, count + 1):
            await self._open(clients)
            if not done % _SLICE:
                times.append(time.process_time_ns())
        times.append(time.process_time_ns())
        for client in clients:
            if not bytes(client.last).startswith(b"HTTP/1.1 101 "):
                raise MeasurementError(f"unexpected response: {bytes(client.last[:200])!r}")
            client.close()
        await self._log.wait(len(clients))
        return between(times)

    async def _open(self, clients: list[MemoryTransport]) -> None:
        client = self._loop.connect_client()
        clients.append(client)
        client.protocol.data_received(HANDSHAKE)
        await self._turns(client, SWITCHING)


def between(times: list[int]) -> list[int]:
    return [after - before for before, after in pairwise(times)]


def undisturbed(runs: list[list[int]]) -> int:
    """The sum of the minimum of each slice over all runs, which did the same."""
    return sum(map(min, zip(*runs, strict=True)))


async def measure(runs: int, count: int) -> dict[str, float]:
    """Microseconds of CPU per request, by figure, of ``runs`` runs of ``count``.

    Raises MeasurementError.
    """
    found: dict[str, list[list[int]]] = {name: [] for name in TITLES}
    async with Bench(_memory_loop()) as bench:
        # In turns, so that a slow moment of the machine affects one run of each.
        for _ in range(runs):
            for name, values in found.items():
                values.append(await bench.take(name, count))
    return {name: undisturbed(values) / count / 1e3 for name, values in found.items()}


async def measure_on_demand() -> None:
    """For each line of standard input (a figure, a count) one run: its slices as a line of JSON.

    Raises MeasurementError.
    """
    async with Bench(_memory_loop()) as bench:
        while line := sys.stdin.readline():
            name, count = line.split()
            print(json.dumps(await bench.take(name, int(count))), flush=True)


def _memory_loop() -> MemoryLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, MemoryLoop)
    return loop


def positive(text: str) -> int:
    """For argparse."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inprocess",
        description=HELP,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=positive, default=50, help="of each figure (default: 50)")
    parser.add_argument("--count", type=positive, default=1000, help="requests of a run (1000)")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="compare with another")
    parser.add_argument(
        "--instructions", action="store_true", help="count instructions instead (needs valgrind)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--on-demand", action="store_true", help=argparse.SUPPRESS)
    return parser


def main() -> None:
    parser = arguments()
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=MemoryLoop) as runner:
        if given.on_demand:
            runner.run(measure_on_demand())
            return
        if given.against is None and not given.instructions:
            figures = {"microseconds": runner.run(measure(given.runs, given.count))}
            show(figures, as_json=given.json, runs=given.runs, count=given.count)
            return
    # Not needed where this file alone was copied into an older checkout.
    from benchmarks import comparing

    roots = [Path(__file__).resolve().parent.parent]
    if given.against is not None:
        roots.append(given.against.resolve())
        if not (roots[1] / "benchmarks").is_dir():
            parser.error(f"{given.against} is no checkout of keyrelay")
    try:
        if given.instructions:
            show(comparing.instructions(roots, given.count), as_json=given.json, count=given.count)
        else:
            found = comparing.compare(roots[0], roots[1], given.runs, given.count)
            show(found, as_json=given.json, runs=given.runs, count=given.count)
    except comparing.ComparisonError as error:
        sys.exit(str(error))


def show(figures: dict[str, dict[str, float]], *, as_json: bool, **about: int) -> None:
    """Print the figures: by what they are of, then by name."""
    if as_json:
        print(json.dumps(about | {"python": platform.python_version()} | figures, indent=2))
        return
    print(f"{'':<22}" + "".join(f" {title:>18}" for title in figures))
    for name, title in TITLES.items():
        cells = (f" {values[name]:18,.3f}" for values in figures.values())
        print(f"{title:<22}" + "".join(cells))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except MeasurementError as error:
        sys.exit(str(error))
