"""Write files that only their owner can read: mode 0600 from their creation on.

Data is synced to the disk before a file replaces another, so that a crash leaves either content.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

_MODE = 0o600
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def create(path: Path, data: bytes) -> None:
    """Create a file. Blocking. Raises FileExistsError, also for a link, or another OSError."""
    _fill(os.open(path, _NEW, _MODE), data)


def append_line(path: Path, data: bytes) -> None:
    """Append a line to an existing file, on a line of its own. Blocking. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    size = os.fstat(descriptor).st_size
    complete = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
    _fill(descriptor, data if complete else b"\n" + data)


def replace(path: Path, data: bytes, *, like: os.stat_result | None = None) -> None:
    """Replace or create a file atomically; a link is replaced itself. Blocking. Raises OSError.

    ``like`` gives the new file the mode and owner of another, before it has any data.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, _NEW, _MODE)
        try:
            if like is not None:
                if (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(descriptor, like.st_uid, like.st_gid)
                os.fchmod(descriptor, like.st_mode & 0o7777)
        except OSError:
            os.close(descriptor)
            raise
        _fill(descriptor, data)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(path.parent)


def reserve(path: Path, size: int) -> None:
    """Create an empty file with ``size`` bytes of disk space set aside, instead of one at ``path``.

    Filling it within that size cannot fail for want of space. Blocking. Raises OSError.
    """
    # An existing file must not determine the mode.
    path.unlink(missing_ok=True)
    descriptor = os.open(path, _NEW, _MODE)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


def replace_by_reserved(path: Path, reserved: Path, data: bytes) -> None:
    """Replace ``path`` by a file of ``reserve``, filled with ``data``. Blocking. Raises OSError."""
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    # A descriptor is not truncated by the mode.
    with open(os.open(reserved, flags), "wb") as file:  # noqa: PTH123
        file.write(data)
        file.flush()
        # Afterwards, so that the space which was set aside is used and not given back.
        file.truncate(len(data))
        os.fsync(file.fileno())
    reserved.replace(path)
    _sync_directory(path.parent)


def _fill(descriptor: int, data: bytes) -> None:
    with open(descriptor, "ab") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _sync_directory(path: Path) -> None:
    """Sync the names in a directory to the disk. Blocking. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
