"""The pictures of the documentation are current: diagrams with their script, charts with tables."""

from __future__ import annotations

import re
import runpy
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks import charts

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "pictures"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_diagrams_are_those_of_the_script() -> None:
    """Each file is what docs/pictures/draw.py writes; run it after a change."""
    drawn = runpy.run_path(str(PICTURES / "draw.py"))["drawn"]()
    assert drawn
    for name, content in drawn.items():
        assert (PICTURES / name).read_text(encoding="utf-8") == content, name


@pytest.mark.parametrize("chart", charts.CHARTS, ids=lambda chart: chart.file)
def test_the_charts_show_the_figures_of_the_tables(chart: charts.Chart) -> None:
    """The picture has the digest of the rows that it shows; `make charts` after a change."""
    text = charts.PAGE.read_text(encoding="utf-8")
    picture = (PICTURES / chart.file).read_text(encoding="utf-8")
    assert picture.startswith(charts.stamp(text, chart))


def test_a_changed_figure_changes_the_digest() -> None:
    """And a change elsewhere on the page does not."""
    text = charts.PAGE.read_text(encoding="utf-8")
    chart = charts.CHARTS[0]
    row = next(line for line in text.splitlines() if line.startswith(f"| {chart.rows[0]} | CPU"))
    number = re.findall(r"\d+\.\d+", row)[0]
    assert charts.digest(text.replace(row, row.replace(number, "99.9")), chart) != charts.digest(
        text, chart
    )
    assert charts.digest(text + "\nmore\n", chart) == charts.digest(text, chart)


def test_a_row_that_is_gone_is_named() -> None:
    """A chart of a renamed row fails with the row's title."""
    text = charts.PAGE.read_text(encoding="utf-8").replace("| WebSocket opening |", "| other |")
    with pytest.raises(LookupError, match="no row 'WebSocket opening'"):
        charts.rows_of(text, charts.CHARTS[1])


@pytest.mark.parametrize("cell", ["", "12,5", "12 (3)", "12 (1-2-3)"])
def test_a_cell_that_is_no_figure_is_refused(cell: str) -> None:
    """Nothing is drawn from a typing error."""
    with pytest.raises(ValueError, match="not a median"):
        charts.bar("nginx", cell)


def test_the_screenshot_is_small() -> None:
    """A checkout is not made slow by a picture that a script can take again."""
    content = (PICTURES / "inspector.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) < 200_000


def test_every_picture_is_well_formed_and_shown() -> None:
    """Each SVG parses, follows the reader's theme, loads nothing, and has a page with a text."""
    shown = {
        Path(target).name: words
        for page in PAGES
        for words, target in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", page.read_text())
    }
    for path in sorted(PICTURES.glob("*.svg")):
        text = path.read_text(encoding="utf-8")
        assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert "prefers-color-scheme: dark" in text
        assert not re.search(r"(?:href|src)=\"https?:|@import|url\((?!#)", text), path.name
        assert len(shown[path.name]) > 20, path.name
