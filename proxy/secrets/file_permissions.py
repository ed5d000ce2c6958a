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
    if not _read_only(path):
        if _others_may(status, stat.S_IWGRP, stat.S_IWOTH):
            return "other users may write to the file", f"chmod go-w {shlex.quote(path)}"
        if status.st_uid not in {os.geteuid(), _ROOT}:
            return "it belongs to another user", f"chown {os.geteuid()} {shlex.quote(path)}"
    for place in _above(path):
        found = place.lstat()
        if _read_only(str(place.parent if place.is_symlink() else place)):
            continue
        if found.st_uid not in {os.geteuid(), _ROOT} and not is_unmapped(found.st_uid):
            return (
                f"its place can be changed: {place} belongs to user {found.st_uid}",
                f"chown -h {os.geteuid()} {shlex.quote(str(place))}",
            )
        # In a directory with the sticky bit others cannot replace what is not theirs.
        if (
            stat.S_ISDIR(found.st_mode)
            and not found.st_mode & stat.S_ISVTX
            and _others_may(found, stat.S_IWGRP, stat.S_IWOTH)
        ):
            letters = "o" if found.st_mode & stat.S_IWOTH else "g"
            return (
                f"other users may put another file in its place: they may write to {place}",
                f"chmod {letters}-w {shlex.quote(str(place))}",
            )
    return None


def is_unmapped(uid: int) -> bool:
    """Return whether the kernel shows this user for all those without one in this user namespace.

    user_namespaces(7): the overflow user ID, unless the namespace maps it to a user of its own.
    """
    try:
        if uid != int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii")):
            return False
        lines = Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()
    except OSError:
        return False  # no Linux, no namespaces
    spans = ([int(number) for number in line.split()] for line in lines)
    return not any(first <= uid < first + count for first, _, count in spans)


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
    """Yield the directories above the path, and every link on the way with those above its target.

    Raises OSError if there are too many links.
    """
    seen: set[Path] = set()
    pending = [Path(path).absolute()]
    while pending:
        place = pending.pop()
        for part in (*reversed(place.parents), place):
            if part in seen:
                continue
            seen.add(part)
            if part.is_symlink():
                yield part
                pending.append(Path(os.path.normpath(part.parent / part.readlink())))
                pending.append(part.resolve(strict=True))
            elif part.is_dir():
                yield part


def _read_only(path: str) -> bool:
    """Return whether the path is on a read-only mount: not writable whatever its mode."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
