"""How long a client waits after a pause: `python -m benchmarks.cold --help`."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import shlex
import signal
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import proxy
from benchmarks import command_line, configs, machine, peers, report, sending
from benchmarks.processes import (
    Launch,
    NotStarted,
    first_answer,
    first_line,
    free_port,
    started,
)
from benchmarks.stage import certify, python_provider
from tests.support.certificates import Authority

ONE_WAY_SECONDS = 0.025
PROVIDER_IDLE_SECONDS = 60.0  # as the front ends of many providers
_ANSWER_SECONDS = 20.0

HELP = """\
A provider with TLS stands 50 ms away (25 ms each way, the connection's own round trip included; a
process on loopback delays the bytes). It hangs up on connections that were idle for 60 seconds.

A client that has no connection, as a page or a script that has just begun, asks it directly and
through keyrelay, whose route was used once and then left alone for a while. Measured is the time to
the first byte of a GET and to the 101 of a WebSocket. Directly that takes three round trips:
connection, TLS, request. With a connection kept ready it takes one; after a GET that connection may
be the GET's own, until the provider's limit, but a WebSocket leaves none.
"""

EPILOG = """\
examples:
  python -m benchmarks.cold                     pauses of 5, 30 and 120 seconds, two minutes
  python -m benchmarks.cold --quick             5 seconds only
  python -m benchmarks.cold --idle 45,65        around the provider's limit

With make: make bench-cold ARGS="--quick".
"""


@dataclass(frozen=True, slots=True)
class Ways:
    """To the provider: ``far`` directly with ``tls``, ``near`` through keyrelay. Ports."""

    far: int
    near: int
    tls: ssl.SSLContext


async def wait_for(ways: Ways, request: Callable[[int], bytes], status: bytes, via: bool) -> float:
    """Seconds from nothing to the first byte of the answer, on a connection of its own."""
    port, tls = (ways.near, None) if via else (ways.far, ways.tls)
    began = time.perf_counter()
    async with asyncio.timeout(_ANSWER_SECONDS):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None
        )
        try:
            writer.write(request(port))
            answer = await reader.read(65_536)
            took = time.perf_counter() - began
        finally:
            writer.transport.abort()
    if not answer.startswith(b"HTTP/1.1 " + status):
        raise NotStarted(f"unexpected answer: {answer[:200].decode('latin-1')}")
    return took


def get(ways: Ways, prefix: str, *, via: bool) -> Awaitable[float]:
    return wait_for(ways, lambda port: sending.get(port, f"{prefix}/v1/voices"), b"200", via)


def websocket(ways: Ways, prefix: str, *, via: bool) -> Awaitable[float]:
    return wait_for(ways, lambda port: sending.handshake(port, f"{prefix}/socket"), b"101", via)


# What is measured, and what used the route before the pause. A WebSocket takes its connection with
# it; a GET leaves one that can be used again.
KINDS = {
    "first byte of a GET after a GET": (get, get),
    "WebSocket open after a GET": (websocket, get),
    "WebSocket open after a WebSocket": (websocket, websocket),
}


def route(pause: float, kind: int, sample: int) -> str:
    """A route, and so a pool of connections, for every single sample: they are independent."""
    return f"pause{pause:g}-{kind}-{sample}".replace(".", "-")


async def after(pause: float, ways: Ways, samples: int) -> dict[str, dict[str, list[float]]]:
    """Use each route, wait, measure: seconds by kind, directly and through keyrelay."""
    await asyncio.gather(
        *(
            use(ways, f"/{route(pause, kind, sample)}", via=True)
            for kind, (_, use) in enumerate(KINDS.values())
            for sample in range(samples)
        )
    )
    await asyncio.sleep(pause)
    found: dict[str, dict[str, list[float]]] = {
        title: {"direct": [], "keyrelay": []} for title in KINDS
    }
    for sample in range(samples):
        for kind, (title, (ask, _)) in enumerate(KINDS.items()):
            found[title]["direct"].append(await ask(ways, "", via=False))
            prefix = f"/{route(pause, kind, sample)}"
            found[title]["keyrelay"].append(await ask(ways, prefix, via=True))
    return found


def table(found: dict[float, dict[str, dict[str, list[float]]]]) -> str:
    """Milliseconds and ratios, medians with ranges."""
    rows = [["pause", "", "direct, ms", "keyrelay, ms", "keyrelay to direct"]]
    for pause, kinds in found.items():
        for title, ways in kinds.items():
            ratio = statistics.median(ways["keyrelay"]) / statistics.median(ways["direct"])
            waits = (report.spread([1e3 * one for one in way]) for way in ways.values())
            rows.append([f"{pause:g} s", title, *waits, f"{ratio:.2f}"])
    return report.table(rows)


async def measure(
    pauses: list[float], samples: int, folder: Path
) -> dict[float, dict[str, dict[str, list[float]]]]:
    """All pauses at the same time, each on routes of its own."""
    authority = Authority(folder)
    certificate = certify(authority, folder)
    with contextlib.ExitStack() as stack:
        _, origin = python_provider(
            stack, folder, certificate, "--idle", str(PROVIDER_IDLE_SECONDS)
        )
        command = (*peers.python("benchmarks.distance"), str(origin), str(ONE_WAY_SECONDS))
        distance = stack.enter_context(started(Launch(command), folder, "distance"))
        far, near = int(first_line(distance, folder, "distance")), free_port()
        names = [
            route(pause, kind, sample)
            for pause in pauses
            for kind in range(len(KINDS))
            for sample in range(samples)
        ]
        key, routes = folder / "key", folder / "routes.yaml"
        key.write_text(configs.KEY)
        key.chmod(0o600)
        origins = dict.fromkeys(names, f"https://127.0.0.1:{far}")
        routes.write_text(configs.routes(near, origins, key))
        launch = peers.keyrelay_launch(str(routes), {"SSL_CERT_FILE": str(authority.file)})
        process = stack.enter_context(started(launch, folder, "keyrelay"))
        first_answer(process, near, "/-/health", folder)
        ways = Ways(far, near, ssl.create_default_context(cafile=str(authority.file)))
        results = await asyncio.gather(*(after(pause, ways, samples) for pause in pauses))
    return dict(zip(pauses, results, strict=True))


def seconds_of(text: str) -> list[float]:
    """For argparse: ``5,30,120``."""
    return sorted({float(one) for one in text.split(",")})


def main() -> None:
    parser = command_line.parser_of("benchmarks.cold", HELP, EPILOG)
    parser.add_argument(
        "--idle",
        type=seconds_of,
        default="5,30,120",
        metavar="SECONDS",
        help="pauses, separated by commas (default: 5,30,120)",
    )
    parser.add_argument("--samples", type=int, default=7, help="of each kind (default: 7)")
    parser.add_argument("--quick", action="store_true", help="the same as --idle 5")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    given = parser.parse_args()
    if not 1 <= given.samples <= 50:
        parser.error("--samples is from 1 to 50")
    pauses = [5.0] if given.quick else given.idle
    # SIGTERM ends what was started, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print(f"about {max(pauses) + 5:.0f} seconds", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="keyrelay-bench-") as folder:
        found = asyncio.run(measure(pauses, given.samples, Path(folder)))
    body = (
        f"A cold client, round trip to the provider {2e3 * ONE_WAY_SECONDS:.0f} ms; "
        f"median (lowest-highest) of {given.samples}:\n\n{table(found)}"
    )
    about: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "versions": {"keyrelay": proxy.__version__},
        "missing": [],
        "command": shlex.join(["python", "-m", "benchmarks.cold", *sys.argv[1:]]),
    }
    print(f"\n{body}")
    if given.markdown:
        given.markdown.write_text(report.document(about, body))
    if given.json:
        given.json.write_text(json.dumps(about | {"seconds": found}, indent=2) + "\n")


if __name__ == "__main__":
    command_line.run(main)
