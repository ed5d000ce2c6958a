"""On what something was measured."""

from __future__ import annotations

import os
import platform
import re
import resource
from pathlib import Path


def describe() -> str:
    """CPU model, cores, memory, kernel."""
    model = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE)
    return ", ".join(
        (
            model[1] if model else platform.processor() or platform.machine(),
            f"{os.cpu_count()} cores",
            f"{int(memory[1]) / 1024**2:.0f} GiB" if memory else "memory unknown",
            f"Linux {platform.release()}",
        )
    )


def raise_open_files() -> int:
    """Allow this process and its children as many open files as the system lets us; how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _read(path: str) -> str:
    return Path(path).read_text(errors="replace")
