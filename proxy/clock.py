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
