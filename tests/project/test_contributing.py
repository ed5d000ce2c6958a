"""The map in CONTRIBUTING.md fits the tree: packages, modules, directories of tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "proxy"
MAP = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("\n## Map\n")[2]
MAP = MAP.partition("\n## ")[0]
ROWS = re.findall(r"^\| `([a-z/]+)/` \| (.+) \|$", MAP, re.MULTILINE)


def exists(place: str) -> bool:
    """Whether `server/guard`, `auth/tokens/` or `admin/page/` is in the package."""
    path = PACKAGE / place.removesuffix("/")
    return path.is_dir() if place.endswith("/") else path.with_suffix(".py").is_file()


def test_every_package_is_on_the_map() -> None:
    """Each directory of the package has its row."""
    packages = (path.parent.relative_to(PACKAGE) for path in PACKAGE.glob("*/**/__init__.py"))
    there = {path.as_posix() for path in packages} | {"providers"}
    assert {name for name, _ in ROWS} == there


@pytest.mark.parametrize(("package", "contents"), ROWS, ids=[name for name, _ in ROWS])
def test_a_row_names_modules_that_are_there(package: str, contents: str) -> None:
    """A module in a package's row is a module of it."""
    named = [one for one in re.findall(r"`([a-z_/]+)`", contents) if "<" not in one]
    assert [one for one in named if not exists(f"{package}/{one}")] == []


def test_the_life_of_a_request_and_the_places_of_changes_are_there() -> None:
    """Each path on the map leads to a module or a directory."""
    text = MAP.partition("### The life of a request")[2].partition("### Terms")[0]
    named = set(re.findall(r"`([a-z]+/[a-z_/]*)`", text))
    assert len(named) > 25
    assert {one for one in named if not exists(one)} == set()


def test_the_directories_of_tests_are_there() -> None:
    """Each place that is named for tests exists."""
    named = set(re.findall(r"`(tests/[a-z0-9]+/)`", MAP))
    assert len(named) > 5
    assert {one for one in named if not (ROOT / one).is_dir()} == set()
