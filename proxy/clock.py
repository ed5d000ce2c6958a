"""Time, as something that can be passed in: tests move it by hand and never sleep."""

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
