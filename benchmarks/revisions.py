"""Other revisions of keyrelay to measure: cloned and installed once, below ``.bench/``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.processes import ROOT


class NotInstalled(Exception):
    """A revision could not be cloned or installed."""


def directory(text: str, root: Path = ROOT) -> Path:
    """The checkout that ``text`` names: a directory, or a revision of the repository ``root``.

    A revision is cloned and installed with its own pinned requirements where that has not been done
    yet. Raises NotInstalled.
    """
    given = Path(text)
    if given.is_dir():
        return given.resolve()
    done = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", f"{text}^{{commit}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise NotInstalled(f"{text} is neither a directory nor a revision of {root}")
    checkout = root / ".bench" / done.stdout.strip()
    if not checkout.is_dir():
        _install(root, done.stdout.strip(), checkout)
    return checkout


def _install(root: Path, revision: str, checkout: Path) -> None:
    """Clone a revision and make its environment. Raises NotInstalled, and leaves nothing then."""
    print(f"installing {revision[:12]} into {checkout}", file=sys.stderr)
    interpreter = str(checkout / ".venv" / "bin" / "python")
    try:
        for command in (
            ["git", "clone", "--quiet", "--no-checkout", str(root), str(checkout)],
            ["git", "-C", str(checkout), "checkout", "--quiet", "--detach", revision],
            [sys.executable, "-m", "venv", str(checkout / ".venv")],
            [
                *(interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *("--no-input", "-r", str(checkout / "requirements.txt")),
            ],
        ):
            subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        shutil.rmtree(checkout, ignore_errors=True)
        raise NotInstalled(f"{revision[:12]} could not be installed: {error}") from None
