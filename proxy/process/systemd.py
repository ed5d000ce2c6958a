"""Notify the service manager of keyrelay's state: the datagrams of sd_notify(3).

Without NOTIFY_SOCKET nothing is sent. One datagram to a socket needs no library.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable

READY = "READY=1"
"""Keyrelay serves: sent after the start, and again after each reload."""

# Added to drain_seconds: time to close what did not end within it.
_CLOSING_SECONDS = 5.0


def reloading() -> str:
    """Return the state for the start of a reload. READY has to follow, even after a failure."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}"


def stopping(drain_seconds: float) -> str:
    """Return the state for a shutdown, with its maximum duration, which extends TimeoutStopSec."""
    return f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round((drain_seconds + _CLOSING_SECONDS) * 1e6)}"


def notify(state: str, warn: Callable[[str], object]) -> None:
    """Send ``state``, lines of NAME=value, to the manager that NOTIFY_SOCKET names, if any.

    ``warn`` gets a line if that fails: the manager may end keyrelay for its silence, but requests
    are served meanwhile. Never blocks.
    """
    place = os.environ.get("NOTIFY_SOCKET", "")
    if not place:
        return
    # "@" stands for the NUL byte at the start of an abstract socket's name (unix(7)).
    address = f"\0{place[1:]}" if place.startswith("@") else place
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), address)
    except OSError as error:
        warn(f"Cannot notify the service manager ({place}): {os.strerror(error.errno or 0)}")


async def keep_watch(warn: Callable[[str], object]) -> None:
    """Send a watchdog notification twice in each WATCHDOG_USEC, until cancelled.

    It shows that the event loop runs. Returns at once if no watchdog is configured
    (sd_watchdog_enabled(3)).
    """
    own = str(os.getpid())
    text = os.environ.get("WATCHDOG_USEC", "")
    microseconds = int(text) if text.isdecimal() else 0
    if not microseconds or os.environ.get("WATCHDOG_PID", own) != own:
        return
    while True:
        notify("WATCHDOG=1", warn)
        await asyncio.sleep(microseconds / 2e6)
