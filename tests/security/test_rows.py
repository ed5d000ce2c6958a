"""That the acceptance list is complete: each row has its test, and is accounted for in writing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
MODEL = HERE.parent.parent / "docs" / "threat-model.md"
# The first column of the tables, one row each.
ROWS = re.findall(r"^\| (T\d+) \|", MODEL.read_text(encoding="utf-8"), re.MULTILINE)


def test_each_row_has_a_test() -> None:
    """Named by its number: ``test_t01_…``."""
    tested = {
        f"T{int(found[1])}"
        for path in HERE.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (found := re.match(r"test_t(\d\d)_", node.name))
    }
    assert tested == set(ROWS)


def test_the_threat_model_names_each_row() -> None:
    """Once, with what holds against it; and the text names no row that the tables lack."""
    assert len(ROWS) == len(set(ROWS)) >= 51
    assert set(re.findall(r"\bT\d+\b", MODEL.read_text(encoding="utf-8"))) == set(ROWS)
