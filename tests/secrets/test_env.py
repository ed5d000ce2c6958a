from __future__ import annotations

import os

import pytest

from proxy.config.secret import SecretSettings
from proxy.secrets.env import environment_without, read_variable, variables_of
from proxy.secrets.source import SourceError


def test_a_variable_s_bytes_are_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also such as are no text; a line end is not removed, as none is added to a variable."""
    monkeypatch.setenv("DUMMY_KEY", os.fsdecode(b"dummy-\xff\xc3\xa4\n"))
    assert read_variable("DUMMY_KEY") == b"dummy-\xff\xc3\xa4\n"


def test_set_but_empty_is_told_from_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable and a missing one have different remedies."""
    monkeypatch.delenv("DUMMY_KEY", raising=False)
    with pytest.raises(SourceError, match=r"^set DUMMY_KEY$"):
        read_variable("DUMMY_KEY")
    monkeypatch.setenv("DUMMY_KEY", "")
    with pytest.raises(SourceError, match="set but empty"):
        read_variable("DUMMY_KEY")


def test_which_variables_secrets_come_from() -> None:
    """Whatever stands before them, and nothing of other sources."""
    given = [
        SecretSettings(references=("file:/none", "env:DUMMY_A")),
        SecretSettings(references=("exec:cat env:DUMMY_NONE",)),
        SecretSettings(references=("env:DUMMY_B", "env:DUMMY_A")),
    ]
    assert variables_of(given) == {"DUMMY_A", "DUMMY_B"}
    assert variables_of([]) == frozenset()


def test_an_environment_without_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything else stays; the process's own environment too."""
    monkeypatch.setenv("DUMMY_A", "dummy")
    left = environment_without({"DUMMY_A", "DUMMY_NONE"})
    assert {**left, "DUMMY_A": "dummy"} == dict(os.environ)
    assert "DUMMY_A" not in left
    assert "PATH" in left
