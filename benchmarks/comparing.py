"""Two checkouts beside each other: `python -m benchmarks.inprocess --against CHECKOUT`."""

from __future__ import annotations

import json
import math
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.inprocess import TITLES, undisturbed

_ROUNDS = 5  # processes for each checkout: each has its own places in memory and hash seed
_VALGRIND = (
    "valgrind",
    "--tool=cachegrind",
    "--cache-sim=no",
    f"--cachegrind-out-file={os.devnull}",
)
_COUNTED = re.compile(r"I +refs: +([0-9,]+)")


class ComparisonError(Exception):
    """A checkout could not be measured."""


def _script(root: Path) -> Path:
    """The checkout's own benchmark, or this one's."""
    own = root / "benchmarks" / "inprocess.py"
    return own if own.exists() else Path(__file__).resolve().with_name("inprocess.py")


def _command(root: Path) -> list[str]:
    # -P: the package comes from the checkout, not from beside the script.
    return [sys.executable, "-P", str(_script(root)), "--on-demand"]


def _environment(root: Path, seed: int) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(root), "PYTHONHASHSEED": str(seed)}


class Checkout:
    """A process that measures the checkout at ``root``, one run at a time. A context manager.

    seed  of string hashes, so that two checkouts are compared with the same
    """

    def __init__(self, root: Path, seed: int) -> None:
        self._root = root
        self._process = subprocess.Popen(
            _command(root),
            cwd=root,
            env=_environment(root, seed),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._process.kill()
        self._process.communicate()

    def take(self, name: str, count: int) -> list[int]:
        """Nanoseconds of CPU of each slice of one run. Raises ComparisonError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{name} {count}\n")
            self._process.stdin.flush()
            slices: list[int] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError):
            raise ComparisonError(f"{_script(self._root)} failed for {self._root}") from None
        return slices


def standard_error(ratios: list[float]) -> float:
    """Of the median, from the quartiles; 0 for a single value."""
    if len(ratios) < 2:
        return 0.0
    low, _, high = statistics.quantiles(ratios, n=4)
    # Of a normal distribution: deviation 0.741 quartile ranges, the median's error 1.253 times it.
    return 0.741 * 1.253 * (high - low) / math.sqrt(len(ratios))


def compare(here: Path, there: Path, runs: int, count: int) -> dict[str, dict[str, float]]:
    """Microseconds of CPU per request of both checkouts, and the ratio with its standard error.

    Run by run in turns: the speed of a shared machine changes by more than what is looked for, but
    less between two runs that follow each other. Raises ComparisonError.
    """
    found: dict[str, list[list[list[int]]]] = {name: [[], []] for name in TITLES}
    rounds = min(_ROUNDS, runs)
    for number in range(rounds):
        with Checkout(here, number) as ours, Checkout(there, number) as theirs:
            sides = [(ours, 0), (theirs, 1)]
            for _ in range(-(-runs // rounds)):
                sides.reverse()
                for name, values in found.items():
                    for checkout, side in sides:
                        values[side].append(checkout.take(name, count))
    ratios = {
        name: [sum(one) / sum(other) for one, other in zip(*sides, strict=True)]
        for name, sides in found.items()
    }
    return {
        "microseconds": {name: undisturbed(one[0]) / count / 1e3 for name, one in found.items()},
        "against": {name: undisturbed(one[1]) / count / 1e3 for name, one in found.items()},
        "ratio": {name: statistics.median(values) for name, values in ratios.items()},
        "error": {name: standard_error(values) for name, values in ratios.items()},
    }


def instructions(roots: list[Path], count: int) -> dict[str, dict[str, float]]:
    """Thousands of instructions per request, of one checkout or two with their ratio.

    Raises ComparisonError.
    """
    columns = ["kiloinstructions", "against"]
    found = {column: _counted(root, count) for column, root in zip(columns, roots, strict=False)}
    if len(roots) == 2:
        here, there = found.values()
        found["ratio"] = {name: here[name] / there[name] for name in TITLES}
    return found


def _counted(root: Path, count: int) -> dict[str, float]:
    """What ``count`` more requests of each figure add to a process that serves one of each."""
    least = dict.fromkeys(TITLES, 1)
    base = _total(root, least)
    return {name: (_total(root, least | {name: count + 1}) - base) / count / 1e3 for name in TITLES}


def _total(root: Path, counts: dict[str, int]) -> int:
    """The instructions of a process that makes one run of each figure. Raises ComparisonError."""
    lines = "".join(f"{name} {count}\n" for name, count in counts.items())
    try:
        done = subprocess.run(
            [*_VALGRIND, *_command(root)],
            cwd=root,
            env=_environment(root, 0),
            input=lines,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise ComparisonError("counting instructions needs valgrind: apt-get install it") from None
    counted = _COUNTED.search(done.stderr)
    if done.returncode or counted is None:
        sys.stderr.write(done.stderr)
        raise ComparisonError(f"{_script(root)} failed for {root}")
    return int(counted[1].replace(",", ""))
