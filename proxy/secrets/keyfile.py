"""Storage of the keys of sealed values: a private file, a systemd credential, or the keyring."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from proxy.errors import KeyrelayError
from proxy.secrets import private_file
from proxy.secrets.file import credential_path, read_file
from proxy.secrets.keyring import read_keyring
from proxy.secrets.sealing import HEADER, Keys, SealingKey, UnsealError, parse_keys
from proxy.secrets.source import SourceError

VARIABLE = "KEYRELAY_KEYS"
"""Environment variable with the path of the key file; takes precedence over all else."""

CREDENTIAL = "keyrelay-keys"
"""Name of the systemd credential, as in ``LoadCredentialEncrypted=keyrelay-keys``."""

ENTRY = "keyrelay/keys"
"""Service and user of the keyring entry."""

_KEYRING_SECONDS = 10.0


def default_file() -> Path:
    """Return the path that ``keygen`` writes: ``$KEYRELAY_KEYS``, else the user's configuration.

    The latter is ``keyrelay/keys`` below ``$XDG_CONFIG_HOME`` or ``~/.config``, or below ``/etc``
    for a user without a home directory, as in containers.
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
    """Return the key file that is read, or would be if it existed; None for the keyring."""
    if not os.environ.get(VARIABLE):
        passed = credential_path(CREDENTIAL)
        if passed is not None and Path(passed).exists():
            return Path(passed)
        if not default_file().exists() and _has_keyring():
            return None
    return default_file()


def read_keys(path: Path | None = None) -> Keys:
    """Read the keys from ``path``, by default from ``key_file``. Raises UnsealError. Blocking."""
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
        raise UnsealError(f"no keys for sealed values: {origin} is not a key file") from None
    except ValueError as error:
        raise UnsealError(f"no keys for sealed values: {error}") from None


def write_key(path: Path, key: SealingKey) -> None:
    """Create a key file with mode 0600. Raises KeyrelayError if the file exists."""
    if path.is_symlink() or path.exists():
        raise KeyrelayError(f"{path} exists; --add puts a new key beside the old ones")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        private_file.create(path, (HEADER + key.line()).encode("ascii"))
    except OSError as error:
        raise KeyrelayError(f"cannot write {path}: {error.strerror}") from None


def add_key(path: Path, key: SealingKey) -> None:
    """Append a key to a key file as its newest. Raises KeyrelayError or UnsealError."""
    read_keys(path)
    try:
        private_file.append_line(path, key.line().encode("ascii"))
    except OSError as error:
        raise KeyrelayError(f"cannot write {path}: {error.strerror}") from None


def _has_keyring() -> bool:
    return importlib.util.find_spec("keyring") is not None
