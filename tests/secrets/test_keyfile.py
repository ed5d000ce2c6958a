from __future__ import annotations

import stat
import sys
from pathlib import Path

import keyring.core
import pytest

from proxy.config.secret import SecretSettings
from proxy.errors import KeyrelayError
from proxy.secrets.keyfile import (
    CREDENTIAL,
    VARIABLE,
    add_key,
    default_file,
    key_file,
    read_keys,
    write_key,
)
from proxy.secrets.resolver import watched_files
from proxy.secrets.sealing import SealingKey, UnsealError
from tests.support.secret_sources import CREATED, PLACE, SLOT, Backend

FIRST, SECOND = (SealingKey.generate(CREATED) for _ in range(2))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without keys, of a user without a keyring."""
    for name in (VARIABLE, "CREDENTIALS_DIRECTORY", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(keyring.core, "_keyring_backend", Backend())
    return tmp_path


def test_a_new_file_is_for_its_owner_alone(home: Path) -> None:
    """It is made with the directories above it, and never overwritten."""
    path = default_file()
    assert path == home / ".config" / "keyrelay" / "keys"
    write_key(path, FIRST)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_keys().newest.key_id == FIRST.key_id
    with pytest.raises(KeyrelayError, match="exists; --add"):
        write_key(path, SECOND)
    assert [one.key_id for one in read_keys().keys] == [FIRST.key_id]


def test_an_added_key_is_the_newest(home: Path) -> None:
    """The old ones stay, so that what they sealed opens; a missing line end does no harm."""
    path = home / "keys"
    write_key(path, FIRST)
    path.write_text(path.read_text().rstrip("\n"))
    add_key(path, SECOND)
    assert [one.key_id for one in read_keys(path).keys] == [FIRST.key_id, SECOND.key_id]
    with pytest.raises(UnsealError, match="no such file"):
        add_key(home / "none", SECOND)
    path.write_text("dummy")
    with pytest.raises(UnsealError, match="is not a key"):
        add_key(path, SECOND)


def test_where_keys_are_looked_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A named file, then a credential of systemd, then the user's file, then the keyring."""
    assert key_file() is None
    backend = keyring.core.get_keyring()
    backend.set_password("keyrelay", "keys", FIRST.line())
    assert (read_keys().newest.key_id, read_keys().origin) == (
        FIRST.key_id,
        "keyring:keyrelay/keys",
    )
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
    write_key(default_file(), SECOND)
    assert key_file() == home / "xdg" / "keyrelay" / "keys"
    passed = home / "passed"
    passed.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(passed))
    assert key_file() == home / "xdg" / "keyrelay" / "keys"
    write_key(passed / CREDENTIAL, FIRST)
    assert key_file() == passed / CREDENTIAL
    monkeypatch.setenv(VARIABLE, str(home / "named"))
    assert key_file() == home / "named"
    with pytest.raises(UnsealError, match="no such file"):
        read_keys()


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in containers: the place is below /etc."""

    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", homeless)
    assert default_file() == Path("/etc/keyrelay/keys")


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (FIRST.line().encode(), 0o604, "chmod 600"),
        (b"dummy-no-key\n", 0o600, "line 1 of .* is not a key"),
        (b"# none\n", 0o600, "has no key"),
        (b"\xff\xfe", 0o600, "is not a key file"),
        (b"", 0o600, "is empty"),
    ],
)
def test_a_file_that_cannot_be_used(home: Path, content: bytes, mode: int, words: str) -> None:
    """Nor one that others can read: it opens everything."""
    path = home / "keys"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(UnsealError, match=words) as caught:
        read_keys(path)
    assert "dummy" not in str(caught.value)


def test_a_place_that_cannot_be_written(home: Path) -> None:
    """What the system says is told."""
    (home / "file").write_text("")
    with pytest.raises(KeyrelayError, match=r"cannot write .*: (Not a directory|File exists)"):
        write_key(home / "file" / "keys", FIRST)


def test_sealed_values_are_watched_by_their_keys(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new key may open what did not open before; a keyring shows no change."""
    sealed = SecretSettings(references=(str(FIRST.public.seal(b"dummy", PLACE, SLOT)),))
    assert watched_files(sealed) == frozenset()
    monkeypatch.setitem(sys.modules, "keyring", None)
    monkeypatch.setenv(VARIABLE, str(home / "keys"))
    assert watched_files(sealed) == {home / "keys"}
