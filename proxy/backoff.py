"""Exponential backoff: the bound of the delay before an operation that failed is tried again."""

from __future__ import annotations

# 2 to this power times any first delay here exceeds every maximum; more would only cost time.
_MOST_DOUBLINGS = 30


def bound(failures: int, *, first: float, most: float) -> float:
    """Return the longest delay (seconds) after ``failures`` earlier failures in a row, from 0.

    first  delay after the first failure, doubled after each further one
    most   maximum of the delay

    Callers whose operations many processes repeat multiply it by a random share ("full jitter").
    """
    return min(first * 2.0 ** min(failures, _MOST_DOUBLINGS), most)
