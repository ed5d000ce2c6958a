"""docs/troubleshooting.md names kinds, statuses and error types that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
SOURCES = "".join(
    path.read_text(encoding="utf-8") for path in sorted((ROOT / "proxy").rglob("*.py"))
)


def documented() -> dict[str, set[str]]:
    """The kinds of the reference, by status."""
    table = CONFIGURATION.partition("\n## Problem responses\n")[2]
    found: dict[str, set[str]] = {}
    for statuses, kinds in re.findall(r"^\| ([\d, ]+) \| ([^|]+) \|", table, re.MULTILINE):
        for status in statuses.split(", "):
            found.setdefault(status, set()).update(re.findall(r"`([a-z-]+)`", kinds))
    return found


def sections() -> list[tuple[str, str]]:
    """Heading and text of each section."""
    pieces = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)[1:]
    return list(zip(pieces[::2], pieces[1::2], strict=True))


STATUSES = [(title, text) for title, text in sections() if re.match(r"\d{3} ", title)]


@pytest.mark.parametrize(("title", "text"), STATUSES, ids=[title for title, _ in STATUSES])
def test_a_kind_stands_below_a_status_that_it_has(title: str, text: str) -> None:
    """Each kind of the reference that a section names is one of the section's statuses."""
    known = documented()
    every = set().union(*known.values())
    allowed: set[str] = set().union(
        *(known.get(status, set()) for status in re.findall(r"\b[1-5]\d\d\b", title + text))
    )
    assert set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", text)) & every <= allowed


def test_the_statuses_that_a_user_meets_have_a_section() -> None:
    """Those of keyrelay's own responses that have a cause on the user's side."""
    titles = " ".join(title for title, _ in sections())
    for status in ("400", "401", "403", "404", "421", "429", "502", "503", "504", "1006"):
        assert status in titles, status


def test_error_types_are_those_of_the_code() -> None:
    """A type in the table of 502 is one that keyrelay writes into Proxy-Status."""
    text = dict(sections())["502 Bad Gateway"]
    types = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", text)) - {"allow_private"}
    assert len(types) > 6
    assert {one for one in types if f'"{one}"' not in SOURCES} == set()
