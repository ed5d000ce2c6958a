"""What a process costs: CPU time and resident memory, children included, as the kernel counts."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from pathlib import Path

_CPUCLOCK_SCHED = 2  # clock_getcpuclockid(3): the clock of a whole process, in nanoseconds


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    children: dict[int, list[int]] = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended while we looked
        parent = int(text.rpartition(")")[2].split()[1])
        children[parent].append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found.extend(children[one])
    return found


def cpu_seconds(pids: list[int]) -> float:
    """CPU time so far, user and system, all threads.

    Read from each process's own clock, which is exact; /proc/PID/stat says the same in ticks of
    10 ms. ProcessLookupError if one has ended.
    """
    try:
        return sum(time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED) for pid in pids)
    except OSError as error:
        raise ProcessLookupError(f"a process has ended: {error}") from None


def resident_bytes(pids: list[int]) -> int:
    """Resident memory now; pages that two of the processes share count twice."""
    return sum(map(_resident_bytes, pids))


def _resident_bytes(pid: int) -> int:
    try:
        text, field = Path(f"/proc/{pid}/smaps_rollup").read_text(), "Rss"
    except PermissionError:
        # Keyrelay closes its memory to others but root; this count may lag by some pages.
        text, field = Path(f"/proc/{pid}/status").read_text(), "VmRSS"
    found = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
    if found is None:
        raise ProcessLookupError(f"process {pid} has no memory any more")
    return int(found[1]) * 1024
