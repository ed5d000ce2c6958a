from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config.secret import SecretSettings
from proxy.secrets.plugin import read_plugin
from proxy.secrets.resolver import resolve
from proxy.secrets.source import SourceError
from tests.support.secret_sources import install


def test_the_example_of_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source that docs/secrets.md shows works as it stands there."""
    text = (Path(__file__).parents[2] / "docs" / "secrets.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    install(tmp_path / "site", monkeypatch, "team", code)
    monkeypatch.setenv("TEAM_KEYS", str(tmp_path / "keys.json"))
    with pytest.raises(SourceError, match="put the keys of the team into"):
        read_plugin("team", "acme", 10)
    (tmp_path / "keys.json").write_text('{"acme": "dummy-acme"}')
    secret = SecretSettings(references=("team:acme",))
    assert resolve("key", secret).reveal() == b"dummy-acme"
    with pytest.raises(SourceError, match="ask the team for the key none"):
        read_plugin("team", "none", 10)


def test_a_built_in_source_cannot_be_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that calls its source ``env`` is not asked."""
    install(tmp_path / "site", monkeypatch, "env", "raise SystemExit('loaded')")
    monkeypatch.setenv("DUMMY_KEY", "dummy-ours")
    assert resolve("k", SecretSettings(references=("env:DUMMY_KEY",))).reveal() == b"dummy-ours"


def test_two_packages_that_want_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is taken: which one comes first would be chance."""
    for site in ("one", "two"):
        install(tmp_path / site, monkeypatch, "acme", "def read(name): return b'dummy'")
    with pytest.raises(SourceError, match="remove one of the packages"):
        read_plugin("acme", "key", 10)


def test_a_package_that_was_removed() -> None:
    """A source that is gone since the configuration was read is asked for."""
    with pytest.raises(SourceError, match="install the package"):
        read_plugin("acme", "key", 10)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def read(name): return 'dummy-text'", "it did not return bytes"),
        ("import no_such_module_of_acme", r"it failed \(ModuleNotFoundError\)"),
        ("def other(name): pass", r"it failed \(AttributeError\)"),
        ("def read(): pass", r"it failed \(TypeError\)"),
        ("import threading\ndef read(name): threading.Event().wait(3)", "timed out after 0.2 s"),
    ],
)
def test_a_source_that_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    """Its route is not ready, and nothing else happens."""
    install(tmp_path / "site", monkeypatch, "acme", code)
    with pytest.raises(SourceError, match=words) as caught:
        read_plugin("acme", "key", 0.2)
    assert "dummy" not in caught.value.args[0]
