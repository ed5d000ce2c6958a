"""The site of the documentation has every page, and its addresses lead nowhere else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


def site() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    return loaded


def pages(entries: list[Any]) -> list[str]:
    """The files of a navigation, in order."""
    found: list[str] = []
    for entry in entries:
        [target] = entry.values()
        found += [target] if isinstance(target, str) else pages(target)
    return found


def linked(page: str) -> set[str]:
    """The pages that a page links, from the root of the checkout."""
    path = ROOT / page
    targets = re.findall(r"\]\(([\w./-]+\.md)", path.read_text(encoding="utf-8"))
    return {
        str((path.parent / target).resolve().relative_to(ROOT))
        for target in targets
        if (path.parent / target).exists()
    }


def test_the_navigation_leads_to_every_page() -> None:
    """Each page is an entry, once, or linked from one: a page of a folder from its overview."""
    listed = pages(site()["nav"])
    there = {
        *("README.md", "CHANGELOG.md", "CONTRIBUTING.md"),
        *("examples/README.md", "examples/browser/README.md"),
        *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
    }
    assert len(listed) == len(set(listed))
    assert set(listed) <= there
    reached = set(listed).union(*map(linked, listed))
    for page in sorted(reached & there):
        reached |= linked(page)
    assert there - reached == set()


def test_the_site_loads_no_fonts_from_other_hosts() -> None:
    """Reading the documentation causes no request to a font server."""
    assert site()["theme"]["font"] is False
    assert not re.search(r"https?://", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def test_make_docs_copies_every_part() -> None:
    """Each page of the navigation is below a path that `make docs` copies."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.search(r"^DOCUMENTS := (.*)$", text, re.MULTILINE)
    assert found is not None
    parts = found[1].split()
    assert all((ROOT / part).exists() for part in parts)
    assert {page.partition("/")[0] for page in pages(site()["nav"])} <= set(parts)
