"""Time that moves when a test says so."""

from __future__ import annotations

import asyncio
import heapq
import itertools

# Turns of the loop after which everything that only waits for time has come to rest.
_TURNS = 20


class ManualClock:
    """A ``proxy.clock.Clock``. No sleeper wakes before ``advance`` has come to its moment.

    sleeping  how many wait
    """

    def __init__(self, *, monotonic: float = 1000.0, wall: float = 1_800_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        return self._monotonic

    def wall(self) -> float:
        return self._wall

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), woken))
        await woken

    @property
    def sleeping(self) -> int:
        return sum(not woken.done() for _, _, woken in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Let time pass: wake sleepers in order, each at its moment, and let the loop settle."""
        await self.settle()
        end = self._monotonic + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            moment, _, woken = heapq.heappop(self._sleepers)
            self._pass(moment - self._monotonic)
            if not woken.done():
                woken.set_result(None)
                await self.settle()
        self._pass(end - self._monotonic)
        await self.settle()

    def jump(self, seconds: float) -> None:
        """Set the wall clock, either way, as an operator does, or after a suspension."""
        self._wall += seconds

    async def settle(self) -> None:
        """Let tasks run until they wait for time, or for something outside."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    def _pass(self, seconds: float) -> None:
        self._monotonic += seconds
        self._wall += seconds
