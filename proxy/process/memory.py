"""Garbage collection and memory around a start: what it builds stays, what it needed goes."""

from __future__ import annotations

import gc

_USUAL = gc.get_threshold()
# Allocations between two collections while modules are imported and settings are read, which
# leaves next to no garbage: the usual interval takes a tenth of the start.
_AT_START = 100_000


def expect_start() -> None:
    """Collect garbage rarely until ``settle``. To be called before the imports of a command."""
    gc.set_threshold(_AT_START)


def settle() -> None:
    """Collect garbage as usual from now on. To be called once a process serves.

    What exists now is permanent: it is excluded from every later collection. Memory that only the
    start needed goes back to the system where the C library can do that, as glibc can.
    """
    import ctypes

    gc.collect()
    gc.freeze()
    gc.set_threshold(*_USUAL)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
