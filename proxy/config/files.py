"""Read configuration files: size, encoding and write access by other users are checked."""

from __future__ import annotations

import os
from pathlib import Path

from proxy.errors import ConfigError, Finding
from proxy.secrets import file_permissions

FILE_LIMIT_BYTES = 1024 * 1024
"""Maximum size of a configuration file: a thousand times a long one."""


def read_text(path: Path, *, ours: bool = False) -> str:
    """Return the text of a configuration file.

    Raises ConfigError if the file is missing, unreadable, no UTF-8, or larger than 1 MiB, or if
    other users can change it. The latter is not checked if it is ``ours``: it ships with keyrelay,
    and write access to it implies write access to the code.
    """
    try:
        with path.open("rb") as file:
            exposure = None
            if not ours:
                exposure = file_permissions.writable_by_others(str(path), os.fstat(file.fileno()))
            raw = file.read(FILE_LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise _refusal(path, "no such file", "name another file") from None
    except IsADirectoryError:
        raise _refusal(path, "this is a directory", "name a file in it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "invalid path"
        raise _refusal(path, f"the file cannot be read: {reason}", "check it") from None
    if len(raw) > FILE_LIMIT_BYTES:
        raise _refusal(path, "the file is larger than 1 MiB", "check that this is the right file")
    if exposure is not None:
        raise _refusal(path, exposure[0], f"run: {exposure[1]}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise ConfigError(
            [Finding(str(path), line, column, "invalid UTF-8", "save the file as UTF-8")]
        ) from None


def _refusal(path: Path, message: str, advice: str) -> ConfigError:
    return ConfigError([Finding(str(path), 0, 0, message, advice)])
