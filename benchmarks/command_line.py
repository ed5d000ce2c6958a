"""What the commands of the benchmarks have in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from benchmarks.processes import NotStarted


def parser_of(module: str, about: str, epilog: str) -> argparse.ArgumentParser:
    """A parser for ``python -m module``, whose help keeps the lines of both texts."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=about,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(main: Callable[[], None]) -> None:
    """Call ``main``. Exit status 130 after Ctrl-C, 1 with the reason if a program did not start."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except NotStarted as error:
        sys.exit(f"not started: {error}")
