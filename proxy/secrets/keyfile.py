"""Where the keys of sealed values are: a private file, a credential of systemd, or the keyring."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from proxy.errors import KeyrelayError
from proxy.secrets.file import credential_path, read_file
from proxy.secrets.keyring import read_keyring
from proxy.secrets.sealing import HEADER, Keys, SealingKey, UnsealError, parse_keys
from proxy.secrets.source import SourceError

VARIABLE = "KEYRELAY_KEYS"
"""Names the file of keys; then nothing else is looked at."""

CREDENTIAL = "keyrelay-keys"
"""Name of the credential, as in ``LoadCredentialEncrypted=keyrelay-keys``."""

ENTRY = "keyrelay/keys"
"""Service and user of the entry of the keyring."""

_KEYRING_SECONDS = 10.0


def default_file() -> Path:
    """Where ``keygen`` writes: ``$KEYRELAY_KEYS``, else ``keyrelay/keys`` of the user's settings.

    Below ``/etc`` for a user without a home directory, as in containers.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named)
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    if not folder.startswith("/"):
        try:
            folder = f"{Path.home()}/.config"
        except RuntimeError:
            folder = "/etc"
    return Path(folder) / "keyrelay" / "keys"


def key_file() -> Path | None:
    """The file that is there and would be read, or that should be; None if it is the keyring."""
    if not os.environ.get(VARIABLE):
        passed = credential_path(CREDENTIAL)
        if passed is not None and Path(passed).exists():
            return Path(passed)
        if not default_file().exists() and _has_keyring():
            return None
    return default_file()


def read_keys(path: Path | None = None) -> Keys:
    """The keys of ``path``, or of where they usually are. Raises UnsealError. Blocking."""
    file = path or key_file()
    origin = f"keyring:{ENTRY}" if file is None else str(file)
    try:
        if file is None:
            text = read_keyring(ENTRY, _KEYRING_SECONDS)
        else:
            text = read_file(str(file.absolute()))
        return parse_keys(text.decode("ascii"), origin)
    except SourceError as error:
        raise UnsealError(f"no keys for sealed values: {error}") from None
    except UnicodeDecodeError:
        raise UnsealError(f"no keys for sealed values: {origin} is no file of keys") from None
    except ValueError as error:
        raise UnsealError(f"no keys for sealed values: {error}") from None


def write_key(path: Path, key: SealingKey) -> None:
    """Write a new file of keys, for its owner alone. Raises KeyrelayError if it exists."""
    if path.is_symlink() or path.exists():
        raise KeyrelayError(f"{path} exists; --add puts a new key beside the old ones")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise KeyrelayError(f"cannot write {path}: {error.strerror}") from None
    _fill(descriptor, path, HEADER + key.line())


def add_key(path: Path, key: SealingKey) -> None:
    """Put a key behind those of a file, so that it is the newest. Raises KeyrelayError."""
    read_keys(path)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except OSError as error:
        raise KeyrelayError(f"cannot write {path}: {error.strerror}") from None
    size = os.fstat(descriptor).st_size
    ended = os.pread(descriptor, 1, max(0, size - 1)) == b"\n"
    _fill(descriptor, path, ("" if ended else "\n") + key.line())


def _fill(descriptor: int, path: Path, text: str) -> None:
    try:
        with open(descriptor, "a", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise KeyrelayError(f"cannot write {path}: {error.strerror}") from None


def _has_keyring() -> bool:
    return importlib.util.find_spec("keyring") is not None
