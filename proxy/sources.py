"""The only place that reads secret values: from the environment and from files.

A source is one function in ``READERS``; it returns the bytes or raises ``_Missing`` with what to
do about it, in words that may be shown to anybody. What it returns is checked here once for all:
a secret becomes part of a header or a URL, so it must not be able to end one.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable

from . import filemodes
from .errors import SecretUnavailable
from .secret import Secret
from .settings import SecretSettings, parse_reference

DEMO_KEY = b"dummy-demo-key"
"""The key of the built-in demo provider. Public: it opens nothing."""

FILE_LIMIT_BYTES = 64 * 1024
"""Largest file that is read as a secret: above the size of any key, below that of a mistake."""

# Visible ASCII, blanks between, and what latin-1 has above it: RFC 9110 section 5.5 field content.
_SENDABLE = re.compile(rb"[\x20-\x7e\x80-\xff]+")


class _Missing(Exception):
    """No usable value. The text says what to do; never a value."""


def resolve(name: str, settings: SecretSettings) -> Secret:
    """The value of the secret ``name``: the first of its references that is there.

    Reads now, every time. Raises SecretUnavailable, with a remedy for each reference, if none is
    usable. Blocking, but at most for a small file on a local disk.
    """
    remedies = []
    for reference in settings.references:
        source, rest = parse_reference(reference)
        try:
            value = READERS[source](rest)
            _check(value, f"the value from {reference}", multiline=settings.multiline)
        except _Missing as missing:
            remedies.append(str(missing))
        else:
            return Secret(name, value)
    raise SecretUnavailable(name, ", or ".join(remedies))


def _check(value: bytes, origin: str, *, multiline: bool) -> None:
    if multiline:
        if b"\0" in value:
            raise _Missing(f"name a text: {origin} is binary")
        return
    if not _SENDABLE.fullmatch(value):
        raise _Missing(f"remove line breaks and control characters from {origin}")
    if value != value.strip(b" "):
        raise _Missing(f"remove the blanks around {origin}")


def _read_env(variable: str) -> bytes:
    text = os.environ.get(variable)
    if text is None:
        raise _Missing(f"set {variable}")
    if not text:
        raise _Missing(f"give {variable} a value: it is set but empty")
    return os.fsencode(text)


def _read_file(path: str) -> bytes:
    """The file's bytes without the one line end that editors and ``echo`` leave.

    Non-blocking, as opening a named pipe would otherwise wait for a writer. A link is not followed,
    except where an engine mounts secrets by way of links.
    """
    follow = 0 if filemodes.is_mount(path) else os.O_NOFOLLOW
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | follow)
    except FileNotFoundError:
        raise _Missing(f"write the value to {path}: there is no such file") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _Missing(f"make {path} a file: it is a link, which may lead elsewhere") from None
        raise _Missing(f"make {path} readable: {os.strerror(error.errno or 0)}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = "directory" if stat.S_ISDIR(status.st_mode) else "device or pipe"
            raise _Missing(f"name a file: {path} is a {kind}")
        fault = filemodes.secret_exposed(path, status)
        if fault is not None:
            raise _Missing("run {1}: {0}".format(*fault))
        with open(descriptor, "rb", closefd=False) as file:
            value = file.read(FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise _Missing(f"make {path} readable: {os.strerror(error.errno or 0)}") from None
    finally:
        os.close(descriptor)
    if len(value) > FILE_LIMIT_BYTES:
        raise _Missing(f"name another file: {path} is larger than 64 KiB, which no key is")
    value = value.removesuffix(b"\r\n") if value.endswith(b"\r\n") else value.removesuffix(b"\n")
    if not value:
        raise _Missing(f"write the value to {path}: the file is empty")
    return value


def _read_builtin(_name: str) -> bytes:
    return DEMO_KEY


READERS: dict[str, Callable[[str], bytes]] = {
    "env": _read_env,
    "file": _read_file,
    "builtin": _read_builtin,
}
"""Every source by the word before the colon."""
