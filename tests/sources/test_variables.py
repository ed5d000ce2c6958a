from __future__ import annotations

import os

import pytest

from proxy.sources.base import Unusable
from proxy.sources.variables import read_variable


def test_a_variable_s_bytes_are_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also such as are no text; a line end is not left out, as nobody leaves one there."""
    monkeypatch.setenv("DUMMY_KEY", os.fsdecode(b"dummy-\xff\xc3\xa4\n"))
    assert read_variable("DUMMY_KEY") == b"dummy-\xff\xc3\xa4\n"


def test_set_but_empty_is_told_from_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has exported an empty variable looks in another place than who has not."""
    monkeypatch.delenv("DUMMY_KEY", raising=False)
    with pytest.raises(Unusable, match=r"^set DUMMY_KEY$"):
        read_variable("DUMMY_KEY")
    monkeypatch.setenv("DUMMY_KEY", "")
    with pytest.raises(Unusable, match="set but empty"):
        read_variable("DUMMY_KEY")
