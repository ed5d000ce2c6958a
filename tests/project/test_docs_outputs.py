"""What pages show below a `$` prompt is what the command prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.support.command import keyrelay

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"HUME_API_KEY": "dummy-key"}


def shown(page: str, command: str) -> tuple[list[str], str]:
    """The arguments and the output of the example that begins with a command."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.search(
        rf"^    \$ keyrelay ({command}[^\n]*)\n((?:    [^\n]*\n|\n(?=    ))*)", text, re.MULTILINE
    )
    assert found is not None, f"{page} shows no output of {command}"
    return shlex.split(found[1]), re.sub(r"^    ", "", found[2], flags=re.MULTILINE)


@pytest.mark.parametrize("page", ["README.md"])
def test_explain_prints_what_the_page_shows(page: str) -> None:
    """The guard, the rules and the request of the example, with a dummy key in the environment."""
    arguments, output = shown(page, "explain")
    done = keyrelay(*arguments, variables=KEYS)
    assert done.code == 0, done.err
    assert done.out.strip() == output.strip()
