"""Tests of clock.py, and of the clock that stands in for it."""

from __future__ import annotations

import asyncio
import time

import pytest

from proxy.clock import Clock, SuspensionDetector, SystemClock, format_span
from tests.support.clock import ManualClock


async def test_the_system_clock_is_the_machines() -> None:
    """Readings are the machine's, in seconds; a wait that is over already ends at once."""
    clock: Clock = SystemClock()
    assert abs(clock.wall() - time.time()) < 5
    before = clock.monotonic()
    await clock.sleep(-1)
    await clock.sleep(0.002)
    assert 0.002 <= clock.monotonic() - before < 5


async def test_a_manual_clock_wakes_sleepers_in_order() -> None:
    """Each wakes at its moment and not before, those that begin to wait on the way too."""
    clock = ManualClock(monotonic=0, wall=100)
    woken: list[tuple[str, float, float]] = []

    async def sleeper(name: str, *spans: float) -> None:
        for span in spans:
            await clock.sleep(span)
            woken.append((name, clock.monotonic(), clock.wall()))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sleeper("long", 5))
        tasks.create_task(sleeper("twice", 1, 3))
        cancelled = tasks.create_task(sleeper("never", 2))
        await clock.advance(0.5)
        assert woken == []
        assert clock.sleeping == 3
        cancelled.cancel()
        await clock.advance(4.5)
    assert woken == [("twice", 1, 101), ("twice", 4, 104), ("long", 5, 105)]
    assert clock.monotonic() == 5


async def test_the_wall_clock_can_jump_alone() -> None:
    """A jump moves neither the monotonic clock nor sleepers."""
    clock = ManualClock(monotonic=0, wall=100)
    clock.jump(-50)
    assert (clock.monotonic(), clock.wall()) == (0, 50)


async def test_a_suspension_is_detected_once() -> None:
    """Wall time that passes alone; neither time that passes nor a clock that is set back."""
    clock = ManualClock()
    detector = SuspensionDetector(clock)
    assert not detector.detected()
    await clock.advance(3600)
    assert not detector.detected()
    clock.jump(-3600)
    assert not detector.detected()
    clock.jump(4)
    assert not detector.detected()
    clock.jump(60)
    assert detector.detected()
    assert not detector.detected()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-0.2, "0 s"),
        (0.4, "0 s"),
        (119.4, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (36 * 3600, "36 h"),
        (8 * 86_400, "8 d"),
    ],
)
def test_a_duration_is_written_in_one_unit(seconds: float, text: str) -> None:
    """The largest unit of which there are two at least, rounded; never below zero."""
    assert format_span(seconds) == text
