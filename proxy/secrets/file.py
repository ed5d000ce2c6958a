"""``file:/path`` and ``credential:name``: files that are read each time they are asked for.

Engines swap what they mount while it is in use: Kubernetes lets ``..data`` point to another
directory. Every read opens the path anew, so the next one sees the new value.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from proxy.secrets import file_permissions
from proxy.secrets.source import LIMIT_BYTES, SourceError, without_line_end

_LINKS = 40  # as many as Linux follows


def read_file(path: str) -> bytes:
    """The file's bytes without the one line end that editors and ``echo`` leave.

    Non-blocking, as opening a named pipe would otherwise wait for a writer. A link is not followed,
    except where an engine mounts secrets by way of links. Raises SourceError.
    """
    follow = 0 if _mounted(path) else os.O_NOFOLLOW
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | follow)
    except FileNotFoundError:
        raise SourceError(f"write the value to {path}: there is no such file") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise SourceError(
                f"make {path} a file: it is a link, which may lead elsewhere"
            ) from None
        raise SourceError(f"make {path} readable: {os.strerror(error.errno or 0)}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = "directory" if stat.S_ISDIR(status.st_mode) else "device or pipe"
            raise SourceError(f"name a file: {path} is a {kind}")
        fault = file_permissions.secret_exposed(path, status)
        if fault is not None:
            raise SourceError("run {1}: {0}".format(*fault))
        with open(descriptor, "rb", closefd=False) as file:
            value = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise SourceError(f"make {path} readable: {os.strerror(error.errno or 0)}") from None
    finally:
        os.close(descriptor)
    if len(value) > LIMIT_BYTES:
        raise SourceError(f"name another file: {path} is larger than 64 KiB, which no key is")
    value = without_line_end(value)
    if not value:
        raise SourceError(f"write the value to {path}: the file is empty")
    return value


def read_credential(name: str) -> bytes:
    """A credential that systemd passes (systemd.exec(5), LoadCredential). Raises SourceError."""
    path = credential_path(name)
    if path is None:
        raise SourceError(
            f"start keyrelay by systemd with LoadCredential={name}:…: "
            "CREDENTIALS_DIRECTORY is not set"
        )
    return read_file(path)


def credential_path(name: str) -> str | None:
    """Where a credential of that name would be, if systemd passes any."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    return f"{folder}/{name}" if folder.startswith("/") else None


def watched(path: str) -> frozenset[Path]:
    """What changes when the value does: the file, every link on the way, and ``..data`` beside it.

    An engine swaps a mount by another link, of which the file itself shows nothing.
    """
    step = Path(path)
    found = {step, Path(os.path.realpath(step))}
    for _ in range(_LINKS):
        beside = step.parent / "..data"
        # Path.is_symlink raises where this user may not look.
        found |= {step, beside} if os.path.islink(beside) else {step}  # noqa: PTH114
        try:
            step = step.parent / step.readlink()
        except OSError:
            break  # no link, or not there yet
    return frozenset(found)


def _mounted(path: str) -> bool:
    """Whether whoever made the links there is an engine: nobody here could have."""
    if file_permissions.is_mount(path):
        return True
    try:
        return bool(os.statvfs(Path(path).parent).f_flag & os.ST_RDONLY)
    except OSError:
        return False  # opening it says why
