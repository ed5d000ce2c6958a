"""Secret sources ``file:/path`` and ``credential:name``: files, read on every resolution.

Container engines replace mounted files while they are in use: Kubernetes points the link ``..data``
at another directory. Every read opens the path again, so that it returns the current value.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from proxy.secrets import file_permissions
from proxy.secrets.source import LIMIT_BYTES, SourceError, strip_line_end

_LINKS = 40  # the limit of Linux (path_resolution(7))


def read_file(path: str) -> bytes:
    """Return the file's bytes without the one trailing line end that editors and ``echo`` write.

    Opens with O_NONBLOCK: opening a named pipe would otherwise wait for a writer. Symbolic links
    are followed only where a container engine mounts secrets by way of links. Raises SourceError.
    """
    follow = 0 if _mounted(path) else os.O_NOFOLLOW
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | follow)
    except FileNotFoundError:
        raise SourceError(f"write the value to {path}: no such file") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise SourceError(
                f"make {path} a file: it is a symbolic link, which may lead elsewhere"
            ) from None
        raise SourceError(f"make {path} readable: {os.strerror(error.errno or 0)}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = "directory" if stat.S_ISDIR(status.st_mode) else "device or pipe"
            raise SourceError(f"name a file: {path} is a {kind}")
        exposure = file_permissions.secret_exposed(path, status)
        if exposure is not None:
            raise SourceError("run {1}: {0}".format(*exposure))
        with open(descriptor, "rb", closefd=False) as file:
            value = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise SourceError(f"make {path} readable: {os.strerror(error.errno or 0)}") from None
    finally:
        os.close(descriptor)
    if len(value) > LIMIT_BYTES:
        raise SourceError(f"name another file: {path} is larger than 64 KiB, too large for a key")
    value = strip_line_end(value)
    if not value:
        raise SourceError(f"write the value to {path}: the file is empty")
    return value


def read_credential(name: str) -> bytes:
    """Return a credential of systemd (systemd.exec(5), LoadCredential). Raises SourceError."""
    path = credential_path(name)
    if path is None:
        raise SourceError(
            f"start keyrelay by systemd with LoadCredential={name}:…: "
            "CREDENTIALS_DIRECTORY is not set"
        )
    return read_file(path)


def credential_path(name: str) -> str | None:
    """Return the path of a credential of systemd; None if systemd passes no credentials."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    return f"{folder}/{name}" if folder.startswith("/") else None


def watched(path: str) -> frozenset[Path]:
    """Return the paths that change with the value: the file, each link to it, adjacent ``..data``.

    A container engine replaces a mount by changing a link; the file itself shows no change.
    """
    step = Path(path)
    found = {step, Path(os.path.realpath(step))}
    for _ in range(_LINKS):
        beside = step.parent / "..data"
        # Path.is_symlink raises PermissionError in a directory that this user cannot search.
        found |= {step, beside} if os.path.islink(beside) else {step}  # noqa: PTH114
        try:
            step = step.parent / step.readlink()
        except OSError:
            break  # not a link, or does not exist yet
    return frozenset(found)


def _mounted(path: str) -> bool:
    """Return whether a container engine made the links: a local user cannot write there."""
    if file_permissions.is_mount(path):
        return True
    try:
        return bool(os.statvfs(Path(path).parent).f_flag & os.ST_RDONLY)
    except OSError:
        return False  # opening the file reports the reason
