"""The bound of the delay after failures in a row."""

from __future__ import annotations

import pytest

from proxy import backoff


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 0.5), (1, 1.0), (4, 8.0), (5, 10.0), (10_000, 10.0)]
)
def test_a_delay_doubles_up_to_its_maximum(failures: int, seconds: float) -> None:
    """Each failure in a row doubles the bound; the maximum holds however many there are."""
    assert backoff.bound(failures, first=0.5, most=10.0) == seconds
