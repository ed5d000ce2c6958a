"""Secret sources of other packages: entry points of the group ``keyrelay.sources``.

An entry point is a function. It receives the text after the colon of the reference and returns the
value as bytes, or raises ``SourceError`` with a remedy.
"""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, entry_points

from proxy.secrets.source import SourceError, call_with_timeout

GROUP = "keyrelay.sources"
"""Entry point group. An entry point's name is the word before the colon of a reference."""

_SCHEME = re.compile(r"[a-z][a-z0-9-]{1,31}")


def read_plugin(source: str, rest: str, timeout_seconds: float) -> bytes:
    """Return the value of the plugin source ``source`` for ``rest``. Blocking.

    The plugin runs in its own thread; the call waits ``timeout_seconds`` at most.

    Raises SourceError if the plugin raises any exception or returns anything but non-empty bytes.
    """
    value = call_with_timeout(lambda: _call(source, rest), f"the source {source}", timeout_seconds)
    if not isinstance(value, bytes):
        raise SourceError(f"repair the source {source}: it did not return bytes")
    if not value:
        raise SourceError(f"check why the source {source} has no value: it returned an empty value")
    return value


def _call(source: str, rest: str) -> object:
    found = find_plugins(source)
    if not found:
        raise SourceError(f"install the package that has the source {source}")
    if len(found) > 1:
        raise SourceError(f"remove one of the packages that have a source {source} in {GROUP}")
    try:
        return found[0].load()(rest)
    except SourceError:
        raise
    except Exception as error:  # noqa: BLE001  third-party code; its message may hold the value
        reason = type(error).__name__
        raise SourceError(f"repair the source {source}: it failed ({reason})") from None


def find_plugins(scheme: str) -> tuple[EntryPoint, ...]:
    """Return the entry points named ``scheme``: none for an unknown source, several if two
    installed packages register the same name. Reads package metadata; loads no plugin.
    """
    if not _SCHEME.fullmatch(scheme):
        return ()
    return tuple(entry_points(group=GROUP, name=scheme))
