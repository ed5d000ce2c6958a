from __future__ import annotations

from pathlib import Path

import pytest

from proxy.secrets.plugin import GROUP, find_plugins
from proxy.secrets.reference import parse_reference
from tests.support.secret_sources import install


def test_an_installed_source_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point's name is the word before the colon; nothing of it is loaded for that."""
    assert find_plugins("acme") == ()
    install(tmp_path / "site", monkeypatch, "acme", "raise SystemExit('loaded')")
    (found,) = find_plugins("acme")
    assert (found.group, found.name) == (GROUP, "acme")
    assert parse_reference("acme:team/key") == ("acme", "team/key")


def test_what_could_be_a_secret_is_no_source() -> None:
    """What stands before a colon is looked up only if it can be a name."""
    for text in ("", "dummy_Key", "Dummy", "x" * 33, "-dummy"):
        assert find_plugins(text) == ()


@pytest.mark.parametrize("text", ["acme:", "acme:two\nlines"])
def test_an_own_source_needs_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """What follows the colon is one line."""
    install(tmp_path / "site", monkeypatch, "acme", "")
    with pytest.raises(ValueError, match="the source has no argument"):
        parse_reference(text)


def test_a_source_that_is_not_there_is_not_repeated() -> None:
    """The text may be the secret itself."""
    with pytest.raises(ValueError, match="unknown secret source") as caught:
        parse_reference("dummy:secret")
    assert "dummy" not in str(caught.value)
