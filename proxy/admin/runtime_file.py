"""Runtime files: URL and token of each admin listener, and the URL of each process.

``keyrelay status`` and ``keyrelay reload`` find the admin listener by the first, ``keyrelay
health`` the main listener by the second. They are private: mode 0600 in a directory of mode 0700,
removed when keyrelay ends.
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
    """The content of one file.

    url    ``http://127.0.0.1:8081``, or ``unix:/path`` of the socket
    token  for ``Authorization: Bearer`` of a request; "" on a unix socket. Never printed
    pid    the process that listens
    path   the file itself
    """

    url: str
    token: str = field(repr=False)
    pid: int
    path: Path

    @property
    def page_url(self) -> str:
        """The inspector's URL, with the token: see the function ``page_url``."""
        return page_url(self.url, self.token)

    def remove(self) -> None:
        """Delete the file, unless another process has replaced it with its own."""
        if (there := _read(self.path)) is not None and there.pid == self.pid:
            self.path.unlink(missing_ok=True)


def page_url(url: str, token: str) -> str:
    """Return the inspector's URL for a browser, for the operator only: it holds the token.

    The token is in the fragment, which browsers do not send (RFC 9110 section 4.2.5).
    """
    return f"{url}/#token={token}" if token else url


def folder() -> Path:
    """Return ``$XDG_RUNTIME_DIR/keyrelay``, or ``keyrelay`` in the user's state directory.

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
    """Write the runtime file of this process. Raises OSError if it cannot be private."""
    return _write(f"admin-{_name(url)}.json", url, token)


def write_serving(url: str) -> RuntimeFile | None:
    """Record the main listener of this process, in place of the previous record.

    None without ``XDG_RUNTIME_DIR``: only there does the system remove the files of killed
    processes. Raises OSError if the file cannot be private.
    """
    if not Path(os.environ.get("XDG_RUNTIME_DIR", "")).is_absolute():
        return None
    return _write(f"serving-{os.getpid()}.json", url, "")


def _write(name: str, url: str, token: str) -> RuntimeFile:
    place = folder()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_private(place)
    path = place / name
    content = json.dumps({"url": url, "token": token, "pid": os.getpid()})
    private_file.replace(path, content.encode("utf-8"))
    return RuntimeFile(url, token, os.getpid(), path)


def running() -> list[RuntimeFile]:
    """Return the admin listeners of this user's running processes, by name.

    Deletes the files of ended processes.
    """
    return sorted(_living("admin"), key=lambda one: one.path.name)


def serving() -> list[RuntimeFile]:
    """Return the main listeners of this user's running processes, as ``write_serving`` recorded."""
    return sorted(_living("serving"), key=lambda one: one.path.name)


def _living(kind: str) -> Iterator[RuntimeFile]:
    try:
        place = folder()
        _check_private(place)
    except (FileNotFoundError, PermissionError):
        return  # there is no directory, or it is not private and so not keyrelay's
    for path in place.glob(f"{kind}-*.json"):
        if (one := _read(path)) is None:
            continue
        if _lives(one.pid):
            yield one
        else:
            path.unlink(missing_ok=True)


def _read(path: Path) -> RuntimeFile | None:
    """Parse a file. Returns None if it is malformed, or not private to this user."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None  # removed meanwhile, or a symbolic link
    with open(descriptor, "rb") as file:  # noqa: PTH123  a descriptor
        status = os.fstat(descriptor)
        own = status.st_uid == os.geteuid() and not status.st_mode & 0o077
        if not (own and stat.S_ISREG(status.st_mode)):
            return None
        content = file.read(_MOST_BYTES)
    try:
        document: Any = json.loads(content)
    except ValueError:
        return None
    match document:
        case {"url": str() as url, "token": str() as token, "pid": int() as pid} if pid > 0:
            return RuntimeFile(url, token, pid, path)
    return None


def _check_private(place: Path) -> None:
    """Raise PermissionError if other users could read or change the directory."""
    status = place.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError(f"{place} is open to other users; run: chmod 700 {place}")


def _name(url: str) -> str:
    """Return the port, or a short digest of a socket's path."""
    if url.startswith("unix:"):
        return hashlib.sha256(url.encode()).hexdigest()[:8]
    return url.rpartition(":")[2]


def _lives(pid: int) -> bool:
    with suppress(PermissionError):  # another user's process: it runs
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True
