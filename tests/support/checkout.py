"""The files of the project, as git lists them."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def listed_files() -> list[str]:
    """Names of the files that git tracks or would track, and that exist."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    ).stdout.decode()
    # A file that was deleted but not yet committed is listed still.
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
