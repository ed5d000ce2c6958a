"""Draws docs/performance.md's tables as bar charts: `make charts`.

The tables are what `make bench` and `make bench-cold` print, so page and charts show one set of
figures. Each SVG carries both themes and the digest of the rows that it shows.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "performance.md"
PICTURES = ROOT / "docs" / "pictures"

UNITS = "Values in units"
PAUSE = "The first call after a pause"
SUBJECT = "keyrelay"

INK, MUTED, ACCENT, PAPER = "#1b2733", "#8796a5", "#2f6fde", "#fefefe"
STYLE = f"""\
  <style>
    :root {{ --ink: {INK}; --muted: {MUTED}; --accent: {ACCENT}; --paper: {PAPER}; }}
    @media (prefers-color-scheme: dark) {{
      :root {{ --ink: #e6edf3; --muted: #6b7d8f; --accent: #6ea8ff; --paper: #10161d; }}
    }}
  </style>
"""
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", ACCENT: "var(--accent)"}
VARIABLES[PAPER] = "var(--paper)"


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture: the rows of a section that it shows, each as bars side by side.

    left_out  columns whose values are too far from the others for one scale
    """

    file: str
    section: str
    rows: tuple[str, ...]
    left_out: tuple[str, ...] = ()


CHARTS = (
    Chart(
        "bench-requests.svg",
        UNITS,
        (
            "1 KB GET, 32 connections",
            "1 KB POST, 32 connections",
            "1 KB GET, TLS provider, 32 connections",
            "added latency p50, 1 connection",
        ),
        ("mitmproxy",),
    ),
    Chart(
        "bench-websockets.svg",
        UNITS,
        (
            "WebSocket opening",
            "WebSocket round trip, 100 B",
            "WebSocket round trip, 20 KB",
            "memory per idle WebSocket, 1,000 open",
        ),
        ("mitmproxy",),
    ),
    Chart("bench-bodies.svg", UNITS, ("1 GiB down", "1 GiB up", "memory at rest"), ("mitmproxy",)),
    Chart(
        "bench-pause.svg",
        PAUSE,
        ("30 s, first byte of a GET after a GET", "30 s, WebSocket open after a WebSocket"),
    ),
)


@dataclass(frozen=True, slots=True)
class Bar:
    """A median with its range, in the unit of its row."""

    name: str
    median: float
    low: float
    high: float


def section(text: str, title: str) -> list[list[str]]:
    """The cells of the first table below a heading. Raises LookupError if there is none."""
    below = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in below.splitlines() if line.startswith("|")]
    if not lines:
        raise LookupError(f"docs/performance.md has no table below {title!r}")
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    return [rows[0], *rows[2:]]


def bar(name: str, cell: str) -> Bar | None:
    """`12.5 (12.1-14.9)` as a bar; None for `-`. Raises ValueError for anything else."""
    if cell == "-":
        return None
    found = re.fullmatch(r"([\d.]+)(?: \(([\d.]+)-([\d.]+)\))?", cell)
    if found is None:
        raise ValueError(f"not a median with its range: {cell!r}")
    median = float(found[1])
    return Bar(name, median, float(found[2] or median), float(found[3] or median))


def rows_of(text: str, chart: Chart) -> list[tuple[str, str, list[Bar]]]:
    """Title, unit and bars of each row of a chart. Raises LookupError for a missing row."""
    head, *body = section(text, chart.section)
    found: dict[str, tuple[str, str, list[Bar]]] = {}
    for cells in body:
        if chart.section == PAUSE:
            # Columns: pause, kind, direct, keyrelay, ratio.
            title, unit = f"{cells[0]}, {cells[1]}", "ms"
            values = [("direct", cells[2]), (SUBJECT, cells[3])]
        else:
            title, unit = cells[0], cells[1]
            values = list(zip(head[2:], cells[2:], strict=True))
        bars = [bar(name, cell) for name, cell in values if name not in chart.left_out]
        found.setdefault(title, (title, unit, [one for one in bars if one is not None]))
    missing = [title for title in chart.rows if title not in found]
    if missing:
        raise LookupError(f"docs/performance.md has no row {missing[0]!r}")
    return [found[title] for title in chart.rows]


def digest(text: str, chart: Chart) -> str:
    """Of what a chart shows; it changes with the rows and with nothing else of the page."""
    return hashlib.sha256(repr((chart, rows_of(text, chart))).encode()).hexdigest()[:16]


def stamp(text: str, chart: Chart) -> str:
    """The comment by which a picture names its figures."""
    return f"<!-- figures {digest(text, chart)} -->"


def draw(rows: Sequence[tuple[str, str, list[Bar]]]) -> str:
    """The SVG of a chart, without its style; the same rows give the same text."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    settings = {
        "svg.hashsalt": SUBJECT,
        "svg.fonttype": "none",
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "axes.facecolor": PAPER,
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with mpl.rc_context(settings):
        across = 2
        down = -(-len(rows) // across)
        bars = max(len(found) for _, _, found in rows)
        figure, axes = plt.subplots(
            down, across, figsize=(10, down * (0.28 * bars + 0.9)), squeeze=False
        )
        for place, axis in enumerate(axes.flat):
            if place >= len(rows):
                axis.set_visible(False)
                continue
            title, unit, found = rows[place]
            names = [one.name for one in found]
            medians = [one.median for one in found]
            below = [one.median - one.low for one in found]
            above = [one.high - one.median for one in found]
            colours = [ACCENT if name == SUBJECT else MUTED for name in names]
            axis.barh(
                names, medians, 0.7, xerr=[below, above], color=colours, ecolor=INK, capsize=2
            )
            axis.invert_yaxis()
            axis.set_xlim(left=0)
            axis.set_title(f"{title}, {unit}", fontsize=10, loc="left")
            axis.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)
    return written.getvalue()


def themed(svg: str, comment: str) -> str:
    """With colours as variables that follow the reader's theme, and the comment in front."""
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    # Lines without trailing spaces, and no declaration that names another host.
    svg = re.sub(r"<\?xml.*?\?>\s*<!DOCTYPE.*?>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"[ \t]+\n", "\n", svg)
    opening, rest = re.split(r"(?<=>)\n", svg, maxsplit=1)
    return f"{comment}\n{opening}\n{STYLE}{rest}"


def main() -> None:
    """Write every chart."""
    text = PAGE.read_text(encoding="utf-8")
    for chart in CHARTS:
        svg = themed(draw(rows_of(text, chart)), stamp(text, chart))
        (PICTURES / chart.file).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
