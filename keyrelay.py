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
    from proxy.cli.main import main as command

    command(prog_name="keyrelay")


def _require_own_package() -> None:
    """Raise ImportError unless the package ``proxy`` that would be imported is keyrelay's."""
    found = importlib.util.find_spec("proxy")
    folders = [Path(one) for one in (found.submodule_search_locations or ())] if found else []
    if any((folder / "cli" / "main.py").is_file() for folder in folders):
        return
    where = f"in {folders[0].parent}" if folders else "missing"
    raise ImportError(
        f"the package 'proxy' {where} is not keyrelay's (the distribution proxy.py has one of that "
        "name); install keyrelay into an environment of its own, such as pipx makes"
    )
