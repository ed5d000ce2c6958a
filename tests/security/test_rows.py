"""That the acceptance list is complete: each row has its test, and is accounted for in writing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROWS = {f"T{number}" for number in range(1, 52)}
HERE = Path(__file__).parent
MODEL = HERE.parent.parent / "docs" / "threat-model.md"


def test_each_row_has_a_test() -> None:
    """Named by its number: ``test_t01_…`` to ``test_t51_…``."""
    tested = {
        f"T{int(found[1])}"
        for path in HERE.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (found := re.match(r"test_t(\d\d)_", node.name))
    }
    assert tested == ROWS


def test_the_threat_model_names_each_row() -> None:
    """With what holds against it; and it names no row that there is not."""
    text = MODEL.read_text(encoding="utf-8")
    named = set(re.findall(r"\bT\d+\b", text))
    assert named == ROWS
    table = set(re.findall(r"^\| (T\d+) \|", text, re.MULTILINE))
    assert table == ROWS
