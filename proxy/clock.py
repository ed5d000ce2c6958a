"""Time as a parameter, so that tests set it and never sleep; and how a duration is written."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of time, in seconds, and a way to wait."""

    def monotonic(self) -> float:
        """Never goes back; stands still while the machine is suspended."""

    def wall(self) -> float:
        """Seconds since the epoch; may jump either way."""

    async def sleep(self, seconds: float) -> None:
        """Wait. Cancelling is safe."""


class SystemClock:
    """The real one."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


# How far the wall clock must run ahead between two checks (seconds). To set it does no harm.
_SUSPENDED = 5.0


class SuspensionDetector:
    """Detects that the machine was suspended: wall time passed, monotonic time did not."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead = clock.wall() - clock.monotonic()

    def detected(self) -> bool:
        """Whether the machine was suspended since the last call. To be called regularly."""
        last, self._ahead = self._ahead, self._clock.wall() - self._clock.monotonic()
        return self._ahead - last > _SUSPENDED


def format_span(seconds: float) -> str:
    """Return a duration in the largest unit of which it has two: ``45 s``, ``3 min``, ``36 h``."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
