"""Harden a process that holds keys: check its environment, and close its memory to other programs.

The checks run once, at the start. A setting that would write data or keys somewhere is refused, not
reset: it was switched on deliberately, so the operator has to see that it has no effect.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import sys
from importlib.metadata import version

from proxy.errors import ConfigError, Finding, KeyrelayError

LEAST_AIOHTTP = (3, 14, 5)
"""Older versions have parsers that permit request smuggling. The package metadata repeats this."""

_PR_SET_DUMPABLE = 4  # prctl(2)


def harden(*, debuggable: bool) -> None:
    """Run ``check_surroundings`` and, unless ``debuggable``, ``seal_memory``. Raises as they do."""
    check_surroundings()
    if not debuggable:
        seal_memory()


def check_surroundings() -> None:
    """Raise ConfigError, with every finding, if this process would leak credentials or data.

    Imports nothing that opens the file of ``SSLKEYLOGFILE``, as aiohttp does when it is imported.
    """
    installed = version("aiohttp")
    findings = [
        Finding("environment", 0, 0, message, advice)
        for wrong, message, advice in (
            (
                "SSLKEYLOGFILE" in os.environ,
                "SSLKEYLOGFILE is set: it is for writing down the keys of TLS connections",
                "unset it: credentials cross those connections",
            ),
            (
                _asyncio_debugs(),
                "asyncio's debug mode is on: its log shows data of requests",
                "unset PYTHONASYNCIODEBUG and PYTHONDEVMODE, and run without -X dev",
            ),
            (
                _version(installed) < LEAST_AIOHTTP,
                f"aiohttp {installed} has known holes",
                f"install {'.'.join(map(str, LEAST_AIOHTTP))} or later",
            ),
        )
        if wrong
    ]
    if findings:
        raise ConfigError(findings)


def seal_memory() -> None:
    """Keep other programs of the same user out of this process's memory and environment.

    Core dumps are off, debuggers cannot attach, ``/proc/PID/environ`` belongs to root. Child
    processes inherit only the first; platforms other than Linux have only the first. Raises
    KeyrelayError if the system refuses.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform.startswith("linux"):
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
        if prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise KeyrelayError(
                f"memory cannot be closed to other programs: {os.strerror(ctypes.get_errno())}; "
                "--debuggable leaves it open"
            )


def _asyncio_debugs() -> bool:
    """Whether asyncio's debug mode is on by default, by the rule of asyncio itself."""
    return sys.flags.dev_mode or (
        not sys.flags.ignore_environment and bool(os.environ.get("PYTHONASYNCIODEBUG"))
    )


def _version(text: str) -> tuple[int, ...]:
    """Return the first three numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
