"""What a process that holds keys must not be, and what it keeps other programs from.

Asked once, at the start. Whatever would write data or keys somewhere is refused, not undone: it was
switched on by somebody who should know.
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
"""Older ones have parsers that let requests be smuggled; also said in the package's metadata."""

_PR_SET_DUMPABLE = 4  # prctl(2)


def harden(*, debuggable: bool) -> None:
    """``check_surroundings``, and ``seal_memory`` unless it shall stay open. Raises as they do."""
    check_surroundings()
    if not debuggable:
        seal_memory()


def check_surroundings() -> None:
    """Raise ConfigError, with every finding, if this process would leak what it handles.

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

    No core is dumped, no debugger attaches, ``/proc/PID/environ`` belongs to root. Commands that
    it runs inherit the first alone. Elsewhere than on Linux there is the first alone. Raises
    KeyrelayError if the system does not do it.
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
    """As asyncio decides it for every loop that nobody tells otherwise."""
    return sys.flags.dev_mode or (
        not sys.flags.ignore_environment and bool(os.environ.get("PYTHONASYNCIODEBUG"))
    )


def _version(text: str) -> tuple[int, ...]:
    """The numbers a version begins with."""
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
