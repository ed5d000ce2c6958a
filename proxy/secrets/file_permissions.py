"""Check by the modes of a file and its parent directories that other users cannot access it.

Write access to a routes file decides where keys are sent; read access to a secret file discloses
the secret. The rules are those of OpenSSH's ``StrictModes``, with a private group taken for its
owner.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath

# Container engines choose the modes and owners of files here.
_MOUNTS = ("/run/secrets", "/var/run/secrets")
_ROOT = 0


def writable_by_others(path: str, status: os.stat_result) -> tuple[str, str] | None:
    """Return how another user could change a file and the command that repairs it, else None.

    ``status`` is that of the opened file. Raises OSError if a parent directory cannot be read.
    """
    if is_mount(path):
        return None
    if not _read_only(path) and _others_may(status, stat.S_IWGRP, stat.S_IWOTH):
        return "other users may write to the file", f"chmod go-w {shlex.quote(path)}"
    for directory in _above(path):
        mode = directory.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX and not _read_only(str(directory)):
            return (
                f"other users may put another file in its place: they may write to {directory}",
                f"chmod o-w {shlex.quote(str(directory))}",
            )
    return None


def secret_exposed(path: str, status: os.stat_result) -> tuple[str, str] | None:
    """Return how another user could read or change a secret file and the repair command, else None.

    The group may read the file if root owns it: that is how a service's group gets access. The
    modes of a read-only mount come from the container engine and are not checked. Raises OSError
    if a parent directory cannot be read.
    """
    if is_mount(path) or _read_only(path):
        return None
    if status.st_uid not in {os.geteuid(), _ROOT}:
        return "it belongs to another user", f"chown {os.geteuid()} {shlex.quote(path)}"
    private = f"chmod 600 {shlex.quote(path)}"
    if _others_may(status, stat.S_IWGRP, stat.S_IWOTH):
        return "others may write to it", private
    if _others_may(status, stat.S_IRGRP if status.st_uid == os.geteuid() else 0, stat.S_IROTH):
        return "others may read it", private
    return writable_by_others(path, status)


def is_mount(path: str) -> bool:
    """Return whether the path is in a directory where engines and service managers put secrets."""
    mounts = (*_MOUNTS, os.environ.get("CREDENTIALS_DIRECTORY", _MOUNTS[0]))
    return ".." not in PurePath(path).parts and any(
        PurePath(path).is_relative_to(mount) for mount in mounts if mount
    )


def _others_may(status: os.stat_result, by_group: int, by_all: int) -> bool:
    if status.st_mode & by_all:
        return True
    return bool(status.st_mode & by_group) and not _private_group(status)


def _private_group(status: os.stat_result) -> bool:
    """Return whether the owner is the only member of the file's group (umask 002 of many systems).

    False for root: no system gives root such a umask, and root's group may have other members.
    """
    if status.st_uid == _ROOT:
        return False
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
        group = grp.getgrgid(status.st_gid)
    except KeyError:
        return status.st_uid == status.st_gid  # numbers without names, as in containers
    return group.gr_name == owner and set(group.gr_mem) <= {owner}


def _above(path: str) -> Iterator[Path]:
    """Yield the parent directories of the path, and those of the target of a link."""
    yield from dict.fromkeys((*Path(path).absolute().parents, *Path(path).resolve().parents))


def _read_only(path: str) -> bool:
    """Return whether the path is on a read-only mount: not writable whatever its mode."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
