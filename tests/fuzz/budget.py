"""How long the fuzz tests may go on, shared between them."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy, tuples

# All of them together (seconds); set by ``make fuzz SECONDS=…``.
SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
_TESTS = 7
_BATCH = 100


def fuzz(check: Callable[..., None], *strategies: SearchStrategy[Any]) -> int:
    """Call ``check`` with examples until this test's share of the time is over; how many.

    Batches with a seed of their own, so that a failure is shrunk and printed by hypothesis as any
    other; ``FUZZ_SEED`` runs the same ones again.
    """
    first = int(os.environ.get("FUZZ_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"FUZZ_SEED={first}")  # noqa: T201  pytest shows it if a check fails
    until = time.monotonic() + SECONDS / _TESTS
    done = 0

    def counted(values: tuple[object, ...]) -> None:
        nonlocal done
        done += 1
        check(*values)

    number = first
    while time.monotonic() < until:
        batch = settings(
            max_examples=_BATCH,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )(given(tuples(*strategies))(counted))
        seed(number)(batch)()
        number += 1
    return done
