"""Who else may write or read a file, as its mode and the directories above it say.

Whoever can change a routes file chooses where the keys go; whoever can read a secret has it. As
OpenSSH does with its files: with ``StrictModes``, and with private groups taken for their owner.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath

# What container engines put there has modes and owners of their own choosing.
_MOUNTS = ("/run/secrets", "/var/run/secrets")
_ROOT = 0


def writable_by_others(path: str, status: os.stat_result) -> tuple[str, str] | None:
    """How another user could change a file, and the command that ends it; None if nobody could.

    ``status`` is that of the opened file. Raises OSError if a directory above it cannot be seen.
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
    """How another user could read or change a secret's file, and the command that ends it.

    The group may read if that is how this process can: a file of root's, for a service's group.
    What is mounted read-only has the modes that the engine gave it. Raises OSError as above.
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
    """Whether the path is where engines and service managers put secrets."""
    mounts = (*_MOUNTS, os.environ.get("CREDENTIALS_DIRECTORY", _MOUNTS[0]))
    return ".." not in PurePath(path).parts and any(
        PurePath(path).is_relative_to(mount) for mount in mounts if mount
    )


def _others_may(status: os.stat_result, by_group: int, by_all: int) -> bool:
    if status.st_mode & by_all:
        return True
    return bool(status.st_mode & by_group) and not _private_group(status)


def _private_group(status: os.stat_result) -> bool:
    """Whether the file's group is its owner alone, as with the umask 002 of many systems.

    Not root's: no system gives root such an umask, and its group has had other members.
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
    """The directories that lead to the file, and those that lead to where a link points."""
    yield from dict.fromkeys((*Path(path).absolute().parents, *Path(path).resolve().parents))


def _read_only(path: str) -> bool:
    """Whether it is mounted so that nobody here can write, whatever its mode says."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
