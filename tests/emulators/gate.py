"""How a test follows and steers what an emulator does, without ever sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE_SECONDS = 30.0  # far more than loopback needs; only a failing test waits that long


class Changes:
    """Wakes every waiter for a condition whenever anything changed."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def notify(self) -> None:
        """Something changed: conditions are looked at again."""
        current, self._next = self._next, asyncio.Event()
        current.set()

    async def until(
        self, condition: Callable[[], bool], what: str, timeout: float | None = PATIENCE_SECONDS
    ) -> None:
        """Return once ``condition`` holds. TimeoutError, saying ``what``, after ``timeout`` s."""
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    await self._next.wait()
        except TimeoutError:
            raise TimeoutError(f"after {timeout} s still not so: {what}") from None


class Gate:
    """Where pieces stand until the test lets them go. Open unless held.

    waiting   how many exchanges stand here now
    passed    how many pieces have gone through so far
    """

    def __init__(self, name: str, changes: Changes) -> None:
        self._name = name
        self._changes = changes
        self._permits: int | None = None  # None: open
        self._cuts = 0
        self.waiting = 0
        self.passed = 0

    def hold(self, passing: int = 0) -> None:
        """From now on nothing but ``passing`` pieces goes without being released."""
        self._permits = passing
        self._changes.notify()

    def release(self, pieces: int = 1) -> None:
        """Let that many pieces go, now or as they come. Only a held gate has pieces to release."""
        if self._permits is None:
            raise RuntimeError(f"the gate {self._name} is open: hold() it first")
        self._permits += pieces
        self._changes.notify()

    def open(self) -> None:
        """Let everything go from now on."""
        self._permits = None
        self._changes.notify()

    def cut(self) -> None:
        """The next exchange here, or the one that stands here, breaks its connection off."""
        self._cuts += 1
        self._changes.notify()

    async def stand(self) -> bool:
        """For the emulator: wait for leave to go on. False: break off instead."""
        self.waiting += 1
        self._changes.notify()
        try:
            await self._changes.until(
                lambda: self._permits != 0 or self._cuts > 0, f"{self._name} released", None
            )
        finally:
            self.waiting -= 1
            self._changes.notify()
        if self._cuts:
            self._cuts -= 1
            return False
        if self._permits is not None:
            self._permits -= 1
        return True

    def count(self) -> None:
        """For the emulator: a piece has been handed to the connection."""
        self.passed += 1
        self._changes.notify()

    async def reached(self, waiting: int = 1, timeout: float = PATIENCE_SECONDS) -> None:
        """Return once that many exchanges stand here. TimeoutError after ``timeout`` seconds."""
        await self._changes.until(
            lambda: self.waiting >= waiting, f"{waiting} waiting at {self._name}", timeout
        )

    async def sent(self, pieces: int, timeout: float = PATIENCE_SECONDS) -> None:
        """Return once that many pieces went through. TimeoutError after ``timeout`` seconds."""
        await self._changes.until(
            lambda: self.passed >= pieces, f"{pieces} pieces through {self._name}", timeout
        )
