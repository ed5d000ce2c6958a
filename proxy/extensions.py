"""Sources of secrets that other packages bring: entry points of the group ``keyrelay.sources``."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, entry_points

GROUP = "keyrelay.sources"
"""The group. The entry point's name is the word before the colon of a reference."""

_SCHEME = re.compile(r"[a-z][a-z0-9-]{1,31}")


def own_source(scheme: str) -> tuple[EntryPoint, ...]:
    """The entry points of that name: none if there is no such source, several if two packages
    want the same name. Reads what is installed, but loads none of it.
    """
    if not _SCHEME.fullmatch(scheme):
        return ()
    return tuple(entry_points(group=GROUP, name=scheme))
