from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config.secret import SecretSettings
from proxy.secrets.file import read_credential, read_file, watched
from proxy.secrets.resolver import resolve, watched_files
from proxy.secrets.source import SourceError


def mounted(folder: Path, version: str, value: bytes) -> None:
    """Write a version of a secret as Kubernetes does, and let ``..data`` point to it."""
    (folder / version).mkdir()
    (folder / version / "key").write_bytes(value)
    (folder / "..new").symlink_to(version)
    (folder / "..new").rename(folder / "..data")
    if not (folder / "key").is_symlink():
        (folder / "key").symlink_to("..data/key")


def test_a_mount_that_is_swapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the engine has let ``..data`` point elsewhere, the next reading has the new value."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    settings = SecretSettings(references=(f"file:{tmp_path}/key",))
    mounted(tmp_path, "..2026_01", b"dummy-before")
    before = watched_files(settings)
    assert resolve("k", settings).reveal() == b"dummy-before"
    mounted(tmp_path, "..2026_02", b"dummy-after")
    assert resolve("k", settings).reveal() == b"dummy-after"
    always = {tmp_path / "key", tmp_path / "..data", tmp_path / "..data" / "key"}
    assert before == always | {tmp_path / "..2026_01" / "key"}
    assert watched_files(settings) == always | {tmp_path / "..2026_02" / "key"}


def test_links_are_followed_in_mounts_alone(tmp_path: Path) -> None:
    """Elsewhere another user may have put a link there."""
    mounted(tmp_path, "..2026_01", b"dummy")
    with pytest.raises(SourceError, match="it is a symbolic link"):
        read_file(f"{tmp_path}/key")


def test_what_is_watched_of_a_file(tmp_path: Path) -> None:
    """The file itself, there or not yet; links that lead in circles end the search."""
    assert watched(f"{tmp_path}/none") == {tmp_path / "none"}
    (tmp_path / "round").symlink_to("round")
    assert tmp_path / "round" in watched(f"{tmp_path}/round")


def test_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked for where systemd says, and watched there."""
    settings = SecretSettings(references=("credential:key",))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(SourceError, match="LoadCredential=key"):
        read_credential("key")
    assert watched_files(settings) == frozenset()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "key").write_bytes(b"dummy-key\n")
    assert read_credential("key") == b"dummy-key"
    assert watched_files(settings) == {tmp_path / "key"}


def test_nothing_else_is_watched() -> None:
    """Variables and programs have no file that tells of a change."""
    references = ("env:DUMMY", "exec:op", "keyring:a/b", "builtin:demo")
    assert watched_files(SecretSettings(references=references)) == frozenset()
