"""Where a running keyrelay can be asked: one small file for each admin listener.

``keyrelay status`` and ``keyrelay reload`` find the process by it. It holds the listener's token,
so it is the user's own: mode 0600 in a directory of mode 0700, gone when keyrelay ends.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from errno import ENOENT
from pathlib import Path
from typing import Any

from proxy.secrets import private_file

_MOST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class RuntimeFile:
    """What one file says.

    url    ``http://127.0.0.1:8081``, or ``unix:/path`` of the socket
    token  what a request brings as ``Authorization: Bearer``; "" on a unix socket. Never printed
    pid    the process that listens
    path   the file itself
    """

    url: str
    token: str = field(repr=False)
    pid: int
    path: Path

    @property
    def page_url(self) -> str:
        """As ``page_url`` makes it: with the token."""
        return page_url(self.url, self.token)

    def remove(self) -> None:
        """Take the file away, unless another process has written its own there since."""
        if (there := _read(self.path)) is not None and there.pid == self.pid:
            self.path.unlink(missing_ok=True)


def page_url(url: str, token: str) -> str:
    """What opens the inspector in a browser, for nobody but the operator.

    The token stands behind the ``#``, which browsers send nowhere.
    """
    return f"{url}/#token={token}" if token else url


def folder() -> Path:
    """``$XDG_RUNTIME_DIR/keyrelay``; without one ``keyrelay`` below the user's state.

    XDG Base Directory Specification: relative paths in these variables are to be ignored. Raises
    FileNotFoundError for a user without a home directory, as in containers.
    """
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    if runtime.is_absolute():
        return runtime / "keyrelay"
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if state.is_absolute():
        return state / "keyrelay"
    try:
        return Path.home() / ".local" / "state" / "keyrelay"
    except RuntimeError:
        raise FileNotFoundError(ENOENT, "there is no home; set XDG_RUNTIME_DIR") from None


def write(url: str, token: str) -> RuntimeFile:
    """Say where this process can be asked. Raises OSError if nobody but others could be told."""
    place = folder()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_private(place)
    path = place / f"admin-{_name(url)}.json"
    content = json.dumps({"url": url, "token": token, "pid": os.getpid()})
    private_file.replace(path, content.encode("utf-8"))
    return RuntimeFile(url, token, os.getpid(), path)


def running() -> list[RuntimeFile]:
    """Every listener of this user whose process lives, by name. Files of others are removed."""
    return sorted(_living(), key=lambda one: one.path.name)


def _living() -> Iterator[RuntimeFile]:
    try:
        place = folder()
        _check_private(place)
    except (FileNotFoundError, PermissionError):
        return  # there is none, or whatever lies there is not from us
    for path in place.glob("admin-*.json"):
        if (one := _read(path)) is None:
            continue
        if _lives(one.pid):
            yield one
        else:
            path.unlink(missing_ok=True)


def _read(path: Path) -> RuntimeFile | None:
    """None for what is no such file, or not this user's alone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None  # removed meanwhile, or a link that somebody else has put there
    with open(descriptor, "rb") as file:  # noqa: PTH123  a descriptor
        status = os.fstat(descriptor)
        own = status.st_uid == os.geteuid() and not status.st_mode & 0o077
        if not (own and stat.S_ISREG(status.st_mode)):
            return None
        content = file.read(_MOST_BYTES)
    try:
        said: Any = json.loads(content)
    except ValueError:
        return None
    match said:
        case {"url": str() as url, "token": str() as token, "pid": int() as pid} if pid > 0:
            return RuntimeFile(url, token, pid, path)
    return None


def _check_private(place: Path) -> None:
    """Raise PermissionError if others could read or change what is in the directory."""
    status = place.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError(f"{place} is open to other users; run: chmod 700 {place}")


def _name(url: str) -> str:
    """The port, or a short name for a socket's path."""
    if url.startswith("unix:"):
        return hashlib.sha256(url.encode()).hexdigest()[:8]
    return url.rpartition(":")[2]


def _lives(pid: int) -> bool:
    with suppress(PermissionError):  # somebody else's process: it lives
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
