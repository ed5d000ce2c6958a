"""Garbage collection around a start."""

from __future__ import annotations

import subprocess
import sys


def test_collection_is_rare_at_the_start_and_usual_once_the_process_serves() -> None:
    """The interpreter's own thresholds are in force again after the start, and what exists then
    is excluded from collection.
    """
    code = (
        "import gc\nusual = gc.get_threshold()\nfrom proxy.process import memory\n"
        "memory.expect_start()\nassert gc.get_threshold()[0] > 10 * usual[0]\n"
        "memory.settle()\nassert gc.isenabled()\n"
        "print(gc.get_threshold() == usual, gc.get_freeze_count() > 1000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "True True\n"
