"""Other programs of the same user, and what they can read."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def as_equals() -> tuple[str, ...]:
    """What makes programs equals of each other, as those of one user are: for root, setpriv.

    Root may look into any process by each of these capabilities, on recent Linux.
    """
    if os.geteuid() != 0:
        return ()
    if shutil.which("setpriv") is None:
        pytest.skip("root may read everything, and there is no setpriv to give that up")
    without = ",".join(f"-{one}" for one in ("sys_ptrace", "perfmon", "sys_admin"))
    return ("setpriv", f"--bounding-set={without}", f"--inh-caps={without}")


def readable(path: Path, within: tuple[str, ...]) -> bool:
    """Whether another program of this user can read it. What it reads is not shown."""
    done = subprocess.run([*within, "cat", str(path)], capture_output=True, check=False, timeout=30)
    return done.returncode == 0 and bool(done.stdout)
