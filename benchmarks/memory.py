"""Is keyrelay's memory flat whatever passes through? `python -m benchmarks.memory --help`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import command_line
from benchmarks.pacing import BLOCK_BYTES, BURSTS, framing, read_body, write_body
from benchmarks.stub import FRAME_BYTES, MESSAGE_BYTES

MIB = 1024 * 1024
FLAT_MIB = 4.0
WARM_UP_BYTES = 16 * MIB
START_SECONDS = 20.0
SCENARIO_SECONDS = 120.0

HELP = """\
Starts a stub provider and keyrelay (python -m proxy run), both as processes of their own on
loopback, sends large bodies through, and prints what that did to keyrelay's resident memory.

A proxy that streams with backpressure holds a few reads per connection, whatever the size of a
body and however slow the other side; one that buffers grows by what the slow side has not taken.

  before   after a warm-up of 16 MiB of each kind, which lets caches and the allocator settle
  peak     the highest during the scenario, from the kernel (VmHWM), so no spike is missed
  after    a moment after the end
  growth   peak - before; flat if at most 4 MiB

A slow side takes its bytes in 32 bursts with pauses between, and stands still for 4 seconds in
the middle. Times are shown so that a run can be judged; they decide nothing.
"""

EXAMPLES = """\
examples:
  python -m benchmarks.memory                   1 GiB per scenario, about a minute
  python -m benchmarks.memory --size 64         64 MiB, to see that it works
  python -m benchmarks.memory --only socket     one scenario; see the names in the table
"""


@dataclass(frozen=True, slots=True)
class Relay:
    """The running keyrelay."""

    pid: int
    port: int

    def resident(self) -> float:
        """MiB now."""
        return self._status("VmRSS")

    def peak(self) -> float:
        """The highest in MiB since ``forget_peak``."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Begin anew; see proc_pid_clear_refs(5)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def _status(self, field: str) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
        if found is None:
            raise SystemExit(f"the kernel does not report {field}")
        return int(found[1]) / 1024


# --- clients ----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def connected(
    port: int,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=BLOCK_BYTES)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def read_head(reader: asyncio.StreamReader, status: int) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 %d " % status):
        raise SystemExit(f"keyrelay answered: {head.decode('latin-1')}")


async def download(port: int, size: int, bursts: int, *, chunked: bool = False) -> int:
    async with connected(port) as (reader, writer):
        kind = b"chunks" if chunked else b"down"
        writer.write(b"GET /stub/%b/%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % (kind, size))
        await read_head(reader, 200)
        await read_body(reader, size, bursts, chunked=chunked)
    return size


async def upload(port: int, size: int, bursts: int, *, chunked: bool = False) -> int:
    async with connected(port) as (reader, writer):
        writer.write(
            b"POST /stub/up/%d/%d HTTP/1.1\r\nHost: localhost\r\n%b\r\n\r\n"
            % (size, bursts, framing(size, chunked=chunked))
        )
        await write_body(writer, size, chunked=chunked)
        await read_head(reader, 204)
    return size


async def both(port: int, size: int, bursts: int) -> int:
    return sum(await asyncio.gather(download(port, size, bursts), upload(port, size, bursts)))


async def socket(port: int, size: int, bursts: int) -> int:
    """A WebSocket's messages, counted as bytes: this is about the proxy, not about frames."""
    async with connected(port) as (reader, writer):
        writer.write(
            b"GET /stub/socket/%d HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n"
            % (size, base64.b64encode(os.urandom(16)))
        )
        await read_head(reader, 101)
        frames = size // MESSAGE_BYTES
        await read_body(reader, frames * FRAME_BYTES, bursts, chunked=False)
    return size


Client = Callable[[int, int, int], Awaitable[int]]

SCENARIOS: dict[str, tuple[str, Client, int]] = {
    "down": ("download, slow reader", download, BURSTS),
    "down-chunked": ("the same in chunks", partial(download, chunked=True), BURSTS),
    "up": ("upload, slow provider", upload, BURSTS),
    "up-chunked": ("the same in chunks", partial(upload, chunked=True), BURSTS),
    "full-speed": ("down and up at once, full speed", both, 0),
    "socket": ("WebSocket, slow reader", socket, BURSTS),
    "socket-fast": ("WebSocket, full speed", socket, 0),
}


# --- processes --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process that ends with the block."""
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.terminate()
        await started.communicate()


async def first_match(stream: asyncio.StreamReader | None, pattern: str) -> int:
    """The number that ``pattern`` finds in one of the first lines of a process."""
    assert stream is not None
    lines = []
    async with asyncio.timeout(START_SECONDS):
        while line := (await stream.readline()).decode():
            lines.append(line)
            if found := re.search(pattern, line):
                return int(found[1])
    raise SystemExit("a process did not start:\n" + "".join(lines))


def write_routes(folder: Path, port: int) -> Path:
    key, routes = folder / "key", folder / "routes.yaml"
    key.write_text("dummy-key")
    key.chmod(0o600)
    routes.write_text(
        "listen: 127.0.0.1:0\n"
        "routes:\n"
        "  stub:\n"
        f"    upstream: http://127.0.0.1:{port}\n"
        f"    secrets: {{key: file:{key}}}\n"
        '    auth: [{header: X-Api-Key, value: "{key}"}]\n'
    )
    return routes


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Relay]:
    """The stub provider, and keyrelay in front of it."""
    with tempfile.TemporaryDirectory() as folder:
        async with process("-m", "benchmarks.stub") as stub:
            routes = write_routes(Path(folder), await first_match(stub.stdout, r"^(\d+)$"))
            async with process("-m", "proxy", "run", "--config", str(routes)) as proxy:
                port = await first_match(proxy.stderr, r"on http://127\.0\.0\.1:(\d+)")
                yield Relay(proxy.pid, port)


# --- measuring --------------------------------------------------------------------------------


async def measure(relay: Relay, name: str, size: int) -> str:
    """Run one scenario; its line of the table."""
    title, client, bursts = SCENARIOS[name]
    await asyncio.sleep(0.5)
    before = relay.resident()
    relay.forget_peak()
    began = time.monotonic()
    async with asyncio.timeout(SCENARIO_SECONDS):
        moved = await client(relay.port, size, bursts)
    seconds = time.monotonic() - began
    peak = relay.peak()
    await asyncio.sleep(0.5)
    growth = peak - before
    verdict = "flat" if growth <= FLAT_MIB else "NOT FLAT"
    return (
        f"{name:<14} {title:<32} {moved / MIB:>6.0f} MiB {seconds:>6.1f} s"
        f" {before:>7.1f} {peak:>7.1f} {relay.resident():>7.1f} {growth:>+7.1f}  {verdict}"
    )


async def run(names: list[str], size: int) -> None:
    async with running() as relay:
        print(f"keyrelay started: {relay.resident():.1f} MiB resident", flush=True)
        for _, client, _ in SCENARIOS.values():
            await client(relay.port, WARM_UP_BYTES, 0)
        print(
            f"\n{'scenario':<14} {'':<32} {'moved':>10} {'took':>8}"
            f" {'before':>7} {'peak':>7} {'after':>7} {'growth':>7}  (MiB)"
        )
        for name in names:
            print(await measure(relay, name, size), flush=True)


def main() -> None:
    parser = command_line.parser_of("benchmarks.memory", HELP, EXAMPLES)
    parser.add_argument(
        "--size",
        type=int,
        default=1024,
        metavar="MIB",
        help="MiB to move in each scenario and direction (default: 1024, at most 4096)",
    )
    parser.add_argument(
        "--only", choices=SCENARIOS, action="append", help="run this scenario; can be repeated"
    )
    given = parser.parse_args()
    if not 1 <= given.size <= 4096:
        parser.error("--size is from 1 to 4096")
    if not Path("/proc/self/clear_refs").exists():
        parser.error("this needs Linux: resident memory is read from /proc")
    asyncio.run(run(given.only or list(SCENARIOS), given.size * MIB))


if __name__ == "__main__":
    command_line.run(main)
