"""proxy.config.files."""

from __future__ import annotations

import os
from pathlib import Path

from proxy.errors import ConfigError, Finding
from proxy.secrets import file_permissions

FILE_LIMIT_BYTES = 1024 * 1024
"""Largest configuration file: a thousand times a long one."""


def read_text(path: Path, *, ours: bool = False) -> str:
    """The text of a configuration file. ConfigError if there is none, or more than 1 MiB.

    Nor may other users be able to change it, unless it is ``ours``: it ships with keyrelay, and
    whoever can change that can change the code.
    """
    try:
        with path.open("rb") as file:
            fault = None
            if not ours:
                fault = file_permissions.writable_by_others(str(path), os.fstat(file.fileno()))
            raw = file.read(FILE_LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise _refusal(path, "there is no such file", "name another file") from None
    except IsADirectoryError:
        raise _refusal(path, "this is a directory", "name a file in it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the name cannot be used"
        raise _refusal(path, f"the file cannot be read: {reason}", "check it") from None
    if len(raw) > FILE_LIMIT_BYTES:
        raise _refusal(path, "the file is larger than 1 MiB", "is it the right one?")
    if fault is not None:
        raise _refusal(path, fault[0], f"run: {fault[1]}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise ConfigError(
            [Finding(str(path), line, column, "this is not UTF-8", "save the file as UTF-8")]
        ) from None


def _refusal(path: Path, message: str, advice: str) -> ConfigError:
    return ConfigError([Finding(str(path), 0, 0, message, advice)])
