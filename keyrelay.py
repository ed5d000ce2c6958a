"""Keyrelay's own top-level module: the command's entry point and the public API.

The package with the code is called ``proxy``. Another distribution on PyPI, proxy.py, installs a
top-level package of the same name; where both are in one environment, ``main`` reports it in one
sentence instead of an ImportError.

A package that adds a source of secrets imports ``Secret`` and ``SourceError`` from here; their
home inside ``proxy`` may change.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy.secrets.secret import Secret
    from proxy.secrets.source import SourceError

__all__ = ["Secret", "SourceError", "main"]

# In the package's first module, which is not imported before it is known to be keyrelay's.
_FIRST_LINE = b'"""Keyrelay: an authenticating reverse proxy.'
_REINSTALL = "install keyrelay into an environment of its own, such as pipx makes"
_HOMES = {"Secret": "proxy.secrets.secret", "SourceError": "proxy.secrets.source"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that the command starts without what it does not use.

    Raises AttributeError for a name that is not public, ImportError for a foreign ``proxy``.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _require_own_package()
    return getattr(importlib.import_module(_HOMES[name]), name)


def main() -> None:
    """Run the command ``keyrelay``. Exits the process; status 1 for a foreign package ``proxy``."""
    try:
        _require_own_package()
    except ImportError as error:
        sys.exit(f"keyrelay: {error}")
    from proxy.process import memory

    memory.expect_start()
    from proxy.cli.main import main as command

    command(prog_name="keyrelay")


def _require_own_package() -> None:
    """Raise ImportError unless the package ``proxy`` that would be imported is keyrelay's."""
    found = importlib.util.find_spec("proxy")
    folders = [Path(one) for one in (found.submodule_search_locations or ())] if found else []
    origin = found.origin if found else None
    own_start = origin is not None and _FIRST_LINE in Path(origin).read_bytes()
    own_rest = any((folder / "cli" / "main.py").is_file() for folder in folders)
    if own_start and own_rest:
        return
    if not folders:
        raise ImportError(f"the package 'proxy' is missing; {_REINSTALL}")
    where = folders[0].parent
    if own_start or own_rest:
        # Installed into one directory, the later distribution has replaced files of the other.
        raise ImportError(
            f"the package 'proxy' in {where} is keyrelay's only in part: the distribution proxy.py "
            f"has replaced or removed files of it; {_REINSTALL}"
        )
    raise ImportError(
        f"the package 'proxy' in {where} is not keyrelay's (the distribution proxy.py has one of "
        f"that name); {_REINSTALL}"
    )


if __name__ == "__main__":
    main()
