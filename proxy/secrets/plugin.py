"""Sources that other packages bring, as entry points of the group ``keyrelay.sources``.

An entry point is a function: what follows the colon of the reference in, the value's bytes out. It
raises ``SourceError`` with a remedy if there is no value.
"""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, entry_points

from proxy.secrets.source import SourceError, in_time


def read_own(source: str, rest: str, timeout_seconds: float) -> bytes:
    """What the own source ``source`` gives for ``rest``. Raises SourceError, whatever it raises.

    It is called in a thread of its own, and is waited for ``timeout_seconds`` at most.
    """
    value = in_time(lambda: _ask(source, rest), f"the source {source}", timeout_seconds)
    if not isinstance(value, bytes):
        raise SourceError(f"mend the source {source}: it gave no bytes")
    if not value:
        raise SourceError(f"look why the source {source} has no value: what it gave is empty")
    return value


def _ask(source: str, rest: str) -> object:
    found = own_source(source)
    if not found:
        raise SourceError(f"install the package that has the source {source}")
    if len(found) > 1:
        raise SourceError(f"remove one of the packages that have a source {source} in {GROUP}")
    try:
        return found[0].load()(rest)
    except SourceError:
        raise
    except Exception as error:  # noqa: BLE001  code of others, whose text may hold the value
        raise SourceError(f"mend the source {source}: it failed ({type(error).__name__})") from None


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
