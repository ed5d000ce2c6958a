"""Telling the service manager how far keyrelay is: the datagrams of sd_notify(3).

Nothing happens where nobody wants to know. One datagram to a socket needs no library.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable

READY = "READY=1"
"""It serves: at the start, and again when a reload is over."""

# What drain_seconds leaves out: closing what did not end in time.
_CLOSING_SECONDS = 5.0


def reloading() -> str:
    """It takes another configuration; READY has to follow, whatever comes of it."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}"


def stopping(drain_seconds: float) -> str:
    """It ends, and may take this long, even where TimeoutStopSec says less."""
    return f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round((drain_seconds + _CLOSING_SECONDS) * 1e6)}"


def notify(state: str, warn: Callable[[str], object]) -> None:
    """Send ``state``, lines of NAME=value, to the manager that NOTIFY_SOCKET names, if any.

    A manager that cannot be told gets a line to ``warn``: it may end keyrelay for being silent, but
    requests are served. Never blocks.
    """
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place:
        return
    # "@" stands for the NUL with which names begin that are no files (unix(7)).
    address = f"\0{place[1:]}" if place.startswith("@") else place
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), address)
    except OSError as error:
        warn(f"The service manager cannot be told ({place}): {os.strerror(error.errno or 0)}")


async def keep_watch(warn: Callable[[str], object]) -> None:
    """Tell the manager twice in each WATCHDOG_USEC that the event loop turns, until cancelled.

    Returns at once if it does not ask for that (sd_watchdog_enabled(3)).
    """
    own = str(os.getpid())
    text = os.environ.get("WATCHDOG_USEC", "")
    microseconds = int(text) if text.isdecimal() else 0
    if not microseconds or os.environ.get("WATCHDOG_PID", own) != own:
        return
    while True:
        notify("WATCHDOG=1", warn)
        await asyncio.sleep(microseconds / 2e6)
