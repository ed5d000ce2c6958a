"""The only place that reads secret values: variables, files, keyrings, programs, sealed values.

Each source is a function of its own module; it returns the bytes or raises ``SourceError`` with
what to do about it. What it returns is checked once for all by ``source.check``. Nothing is kept:
every call reads. All functions may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from proxy.errors import SecretUnavailable
from proxy.secrets.command import read_command
from proxy.secrets.env import OWN, environment_without, read_variable, variables_of
from proxy.secrets.envelope import SealBinding
from proxy.secrets.file import credential_path, read_credential, read_file, watched
from proxy.secrets.keyring import read_keyring
from proxy.secrets.plugin import read_own
from proxy.secrets.reference import shown_reference
from proxy.secrets.sealed import read_sealed
from proxy.secrets.secret import Secret
from proxy.secrets.source import SecretSpec, SourceError, check

__all__ = [
    "DEMO_KEY",
    "OWN",
    "SourceError",
    "environment_without",
    "resolve",
    "resolve_all",
    "ttl",
    "variables_of",
    "watched_files",
]

DEMO_KEY = b"dummy-demo-key"
"""The key of the built-in demo provider. Public: it opens nothing."""


def resolve(
    name: str,
    settings: SecretSpec,
    place: SealBinding | None = None,
    hidden: Collection[str] = frozenset(),
) -> Secret:
    """The value of the secret ``name``: the first of its references that is there.

    place   the route and origin that it is for; sealed values open for no other
    hidden  variables that a program which is asked for it does not inherit

    Raises SecretUnavailable, with a remedy for each reference, if none is usable. Blocking: a
    program or keyring may take ``timeout_seconds``, all else is a small file on a local disk.
    """
    remedies: list[str] = []
    for found in _usable(name, settings, place, hidden, remedies):
        return found
    raise SecretUnavailable(name, ", or ".join(remedies))


def resolve_all(
    name: str,
    settings: SecretSpec,
    place: SealBinding | None = None,
    hidden: Collection[str] = frozenset(),
) -> tuple[Secret, ...]:
    """As ``resolve``, but every value that is there, in order: two while a key is rotated.

    Of equal values the first is kept: two variables of one key are no rotation.
    """
    remedies: list[str] = []
    found: dict[bytes, Secret] = {}
    for one in _usable(name, settings, place, hidden, remedies):
        found.setdefault(one.digest(), one)
    if not found:
        raise SecretUnavailable(name, ", or ".join(remedies))
    return tuple(found.values())


def watched_files(settings: SecretSpec) -> frozenset[Path]:
    """The files by whose change a secret may get another value, links and their targets included.

    They need not exist. What is mounted is swapped by its links; watch those, not what they are.
    """
    found: frozenset[Path] = frozenset()
    for reference in settings.references:
        source, _, rest = reference.partition(":")
        if source == "file":
            found |= watched(rest)
        elif source == "credential" and (path := credential_path(rest)) is not None:
            found |= watched(path)
        elif source == "sealed":
            from proxy.secrets.keyfile import key_file

            file = key_file()
            found |= watched(str(file.absolute())) if file is not None else frozenset()
    return found


def ttl(settings: SecretSpec) -> float | None:
    """Seconds after which a secret is to be read again although no file has changed, or None."""
    return settings.ttl_seconds if settings.asks else None


def _usable(
    name: str,
    settings: SecretSpec,
    place: SealBinding | None,
    hidden: Collection[str],
    remedies: list[str],
) -> Iterator[Secret]:
    """Each reference that gives a value, read when asked for; what the others need is noted."""
    for reference in settings.references:
        shown = shown_reference(reference)
        try:
            value = _read(reference, name, settings, place, hidden)
            check(value, f"the value from {shown}", multiline=settings.multiline)
        except SourceError as missing:
            remedies.append(str(missing))
        else:
            yield Secret(name, value, shown)


def _read(
    reference: str,
    slot: str,
    settings: SecretSpec,
    place: SealBinding | None,
    hidden: Collection[str],
) -> bytes:
    source, _, rest = reference.partition(":")
    match source:
        case "env":
            return read_variable(rest)
        case "file":
            return read_file(rest)
        case "credential":
            return read_credential(rest)
        case "keyring":
            return read_keyring(rest, settings.timeout_seconds)
        case "exec":
            return read_command(rest, settings.timeout_seconds, hidden)
        case "sealed":
            return read_sealed(reference, slot, place)
        case "builtin":
            return DEMO_KEY
        case _:
            return read_own(source, rest, settings.timeout_seconds)
