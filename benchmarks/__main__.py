"""Keyrelay beside its peers, in the same run: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import datetime
import json
import shlex
import signal
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks import command_line, machine, report, revisions
from benchmarks.calling import LoadError
from benchmarks.figures import FIGURES, Figure
from benchmarks.measures import QUICK, Scale, Turn, warm_up
from benchmarks.peers import CHECKOUT, PEERS, available, checkout
from benchmarks.processes import NotStarted
from benchmarks.report import Results
from benchmarks.stage import Stage, Standing, stage

HELP = """\
Starts stub providers on loopback and, in front of them, keyrelay as users run it (guard, routes,
credential, header rules and journal on) and its peers. Each does the same job with one worker:
prefix stripped, one key header added, connections kept on both sides, nothing buffered. An access
log is written by keyrelay, nginx, haproxy, caddy and envoy; the other peers are spared it.

They take turns within every round, so that whatever else the machine does hits all alike. What
counts is the CPU time that the kernel accounts to a proxy's processes; wall time says little on a
shared machine. A ratio is taken to nginx in the same round. A difference under 20 % means nothing.
"""

EPILOG = f"""\
peers: {", ".join(PEERS)}

figures:
  get           CPU per 1 KB GET over 1, 32 and 256 connections
  post          CPU per 1 KB POST, 32 connections
  tls           CPU per 1 KB GET, the provider behind TLS, connections pooled
  latency       what a GET takes longer than without a proxy, p50 and p99
  websocket     CPU per round trip of 100 B and of 20 KB, 32 sockets
  opening       CPU per WebSocket opened, and opened and closed
  bodies        CPU per GiB down and up, and the highest memory meanwhile
  events        what a server-sent event takes longer than without a proxy
  idle-sockets  memory per open WebSocket on which nothing happens
  memory        resident memory at rest (keyrelay: with the routes that ship)
  start         time from start to the first answer

examples:
  python -m benchmarks                                              all, some eight minutes
  python -m benchmarks --quick                                      all, smaller, a minute or two
  python -m benchmarks --peers nginx,keyrelay --figures get,post    a change of the data path
  python -m benchmarks --peers keyrelay --figures get,post,bodies --against ../before
                                     another checkout (with its .venv) in the same rounds
  python -m benchmarks --peers keyrelay,envoy --figures get --against main
                                     a revision, which is cloned and installed below .bench/
  python -m benchmarks --json run.json --markdown run.md            to keep

With make: make bench ARGS="--quick". `make bench-peers` installs the peers.
"""


class Progress:
    """Lines on stderr: seconds since the start, and what has been done."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._began:4.0f} s] {text}", file=sys.stderr, flush=True)


async def measure(names: list[str], figures: list[Figure], scale: Scale, say: Progress) -> Results:
    """All rounds. Proxies that run side by side are started once; idle ones cost nothing."""
    results = Results()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keyrelay-bench-")))
        on = stack.enter_context(stage(folder))
        standing = {}
        for name in list(names):
            try:
                standing[name] = stack.enter_context(on.proxy(name))
                await warm_up(standing[name])
            except (LoadError, NotStarted) as error:
                results.failures.append(f"{name} does not do the job and is left out: {error}")
                names.remove(name)
        say.say(f"started: {', '.join(names)}")
        for turn in range(scale.rounds):
            # Nobody always follows the same one.
            order = names[turn % len(names) :] + names[: turn % len(names)]
            for figure in figures:
                if figure.rare and turn >= scale.rare_rounds:
                    continue
                everybody = [standing[name] for name in order]
                await one(on, figure, everybody, turn, scale, results)
                say.say(f"round {turn + 1} of {scale.rounds}: {figure.name}")
    return results


async def one(
    on: Stage, figure: Figure, everybody: list[Standing], turn: int, scale: Scale, results: Results
) -> None:
    """One figure of one round, for all proxies in their order."""
    for proxy in everybody:
        if figure.name in PEERS[proxy.name].skips:
            continue
        try:
            results.add(proxy.name, turn, await figure.measure(Turn(on, proxy, scale)))
        except (LoadError, NotStarted, OSError) as error:
            results.failures.append(f"{proxy.name}, {figure.name}, round {turn + 1}: {error}")


def chosen(
    text: str | None, known: list[str], what: str, parser: argparse.ArgumentParser
) -> list[str]:
    """Names separated by commas; all if there are none."""
    names = [name.strip() for name in text.split(",")] if text else known
    for name in names:
        if name not in known:
            parser.error(f"no {what} is called {name!r}; there are {', '.join(known)}")
    return [name for name in known if name in names]


def arguments() -> argparse.ArgumentParser:
    parser = command_line.parser_of("benchmarks", HELP, EPILOG)
    parser.add_argument("--peers", metavar="NAMES", help="see below; all by default")
    parser.add_argument("--figures", metavar="NAMES", help="see below; all by default")
    parser.add_argument(
        "--against",
        metavar="REVISION",
        help="also measure the keyrelay of a revision, or of a checkout's directory",
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="5 by default, 2 if quick")
    parser.add_argument("--quick", action="store_true", help="smaller and shorter")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there")
    return parser


def main() -> None:
    parser = arguments()
    given = parser.parse_args()
    if not sys.platform.startswith("linux"):
        parser.error("this needs Linux: costs are read from its kernel")
    if given.rounds is not None and given.rounds < 1:
        parser.error("--rounds is 1 or more")
    names = chosen(given.peers, list(PEERS), "peer", parser)
    if not given.peers:
        names = [name for name in names if not PEERS[name].asked]
    if given.against:
        try:
            PEERS[CHECKOUT] = checkout(revisions.directory(given.against))
        except revisions.NotInstalled as error:
            parser.error(str(error))
        if PEERS[CHECKOUT].version() is None:
            parser.error(
                f"{given.against} is no checkout of keyrelay with a .venv (make .venv/.run)"
            )
        names.append(CHECKOUT)
    figures = [FIGURES[n] for n in chosen(given.figures, list(FIGURES), "figure", parser)]
    scale = QUICK if given.quick else Scale()
    if given.rounds:
        scale = dataclasses.replace(scale, rounds=given.rounds)
    say = Progress()
    # A proxy has two open files for each WebSocket, haproxy wants some more.
    fits = tuple(n for n in scale.sockets if 2 * n + 1500 <= machine.raise_open_files())
    if fits != scale.sockets:
        say.say(f"the limit of open files (ulimit -Hn) allows idle sockets up to {fits[-1:]} only")
        scale = dataclasses.replace(scale, sockets=fits)
        figures = [one for one in figures if fits or not one.rare]
    versions, missing = available(names)
    if missing:
        say.say(f"not installed and left out: {', '.join(missing)} (make bench-peers)")
    if not versions:
        parser.error("none of the peers is installed")
    # SIGTERM ends what was started, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        results = runner.run(measure(list(versions), figures, scale, say))
    body = report.tables(results, figures, list(versions))
    about = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "versions": versions,
        "missing": missing,
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
    }
    print(f"\n{body}")
    if given.markdown:
        given.markdown.write_text(report.document(about, body))
    if given.json:
        about |= {"values": results.values, "failures": results.failures}
        given.json.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    command_line.run(main)
