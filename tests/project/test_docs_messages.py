"""Messages that the pages quote are those of the program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = "".join(
    path.read_text(encoding="utf-8") for path in sorted((ROOT / "proxy").rglob("*.py"))
)


def quoted_in_the_table_of_sealed_values() -> list[str]:
    """The first column, without what stands for a value."""
    page = (ROOT / "docs" / "secrets.md").read_text(encoding="utf-8")
    table = page.partition("\n| message | cause |\n|---|---|\n")[2].partition("\n\n")[0]
    cells = [line.split("|")[1].strip() for line in table.splitlines()]
    return [re.sub(r".*…|\b[0-9a-f]{8}\b.*", "", cell).strip() for cell in cells]


def quoted_in_troubleshooting() -> list[str]:
    """Phrases in quotation marks, and messages set as code that contain a space and no markup."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r'"([A-Za-z][^"`|]{8,})"', page)


@pytest.mark.parametrize(
    "phrase", [*quoted_in_the_table_of_sealed_values(), *quoted_in_troubleshooting()]
)
def test_a_quoted_message_is_in_the_program(phrase: str) -> None:
    """In one literal, so that a reader who searches for it finds page and place."""
    assert phrase in SOURCES
