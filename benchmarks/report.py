"""From what was measured to tables: medians, ranges, ratios to nginx in the same round."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.figures import Column, Figure
from benchmarks.peers import CHECKOUT

BASE = "nginx"
# What another checkout's keyrelay is compared with
OWN = "keyrelay"


@dataclass(slots=True)
class Results:
    """What was measured, by number, proxy and round; and what failed, in words."""

    values: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, name: str, turn: int, found: dict[str, float]) -> None:
        for key, value in found.items():
            self.values.setdefault(key, {}).setdefault(name, {})[turn] = value

    def of(self, column: Column, name: str) -> dict[int, float]:
        """The values by round, in the column's unit."""
        own = self.values.get(column.key, {}).get(name, {})
        return {turn: value * column.factor for turn, value in own.items()}

    def ratios(self, column: Column, name: str, base: str = BASE) -> list[float]:
        """To ``base``, for each round in which both were measured and the base is above nothing."""
        below = self.of(column, base)
        own = self.of(column, name)
        return [own[turn] / below[turn] for turn in own if below.get(turn, 0.0) > 0]


def number(value: float) -> str:
    """Three digits that mean something."""
    size = abs(value)
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def spread(values: Sequence[float]) -> str:
    """Median and range; a dash for nothing."""
    if not values:
        return "-"
    median = number(statistics.median(values))
    if len(values) == 1:
        return median
    return f"{median} ({number(min(values))}-{number(max(values))})"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown that is a table in a terminal, too. The first row is the head."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    head, *body = (
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    )
    return "\n".join([head, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *body])


def ratio_table(results: Results, figures: Sequence[Figure], names: Sequence[str]) -> str:
    """Ratios to nginx."""
    others = [name for name in names if name != BASE]
    rows = [
        [column.title, *(spread(results.ratios(column, name)) for name in others)]
        for column in _measured(results, figures)
        if column.compared
    ]
    return table([["", *others], *rows])


def checkout_table(results: Results, figures: Sequence[Figure]) -> str:
    """Ratios of this checkout to the other one."""
    rows = [
        [column.title, spread(results.ratios(column, OWN, CHECKOUT))]
        for column in _measured(results, figures)
        if column.compared
    ]
    return table([["", f"{OWN} to {CHECKOUT}"], *rows])


def value_table(results: Results, figures: Sequence[Figure], names: Sequence[str]) -> str:
    """What was measured, in units."""
    rows = [["", "unit", *names]]
    for column in _measured(results, figures):
        cells = (spread(list(results.of(column, name).values())) for name in names)
        rows.append([column.title, column.unit, *cells])
    return table(rows)


def _measured(results: Results, figures: Sequence[Figure]) -> list[Column]:
    return [c for figure in figures for c in figure.columns if c.key in results.values]


def tables(results: Results, figures: Sequence[Figure], names: Sequence[str]) -> str:
    """Both tables, each with a line that says what it shows, and what failed."""
    parts = []
    if BASE in names and len(names) > 1:
        parts += [
            "Ratio to nginx in the same round, median (lowest-highest); lower is better:",
            ratio_table(results, figures, names),
        ]
    if CHECKOUT in names and OWN in names:
        parts += [
            "Ratio to the other checkout in the same round, median (lowest-highest):",
            checkout_table(results, figures),
        ]
    parts += [
        "Measured, median (lowest-highest):",
        value_table(results, figures, names),
    ]
    if results.failures:
        parts.append("\n".join(["Failed:", *(f"- {one}" for one in results.failures)]))
    return "\n\n".join(parts)


def document(about: dict[str, Any], body: str) -> str:
    """A Markdown page that says with what and where it was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        f"- Date: {about['date']}",
        f"- Machine: {about['machine']}",
        f"- Measured: {versions}",
        f"- Command: `{about['command']}`",
    ]
    if about["missing"]:
        lines.append(f"- Left out, not installed: {', '.join(about['missing'])}")
    return "# Benchmark\n\n" + "\n".join(lines) + f"\n\n{body}\n"
