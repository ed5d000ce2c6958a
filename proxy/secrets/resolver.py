"""Resolve secret references to values: variables, files, keyrings, programs, sealed values.

No other module reads secret values. Each source is a function in its own module that returns bytes
or raises ``SourceError`` with a remedy; ``source.check`` validates every value. Nothing is cached:
every call reads. All functions may be called from any thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar, cast

from proxy.errors import SecretUnavailable
from proxy.secrets.command import Programs, read_command
from proxy.secrets.env import PRIVATE_VARIABLES, environment_without, read_variable, variables_of
from proxy.secrets.envelope import SealBinding
from proxy.secrets.file import credential_path, read_credential, read_file, watched
from proxy.secrets.reference import display_reference
from proxy.secrets.sealed import read_sealed
from proxy.secrets.secret import Secret
from proxy.secrets.source import SecretSpec, SourceError, check, strip_line_end

__all__ = [
    "DEMO_KEY",
    "PRIVATE_VARIABLES",
    "SourceError",
    "environment_without",
    "in_thread",
    "resolve",
    "resolve_all",
    "ttl",
    "variables_of",
    "watched_files",
]

T = TypeVar("T")

DEMO_KEY = b"dummy-demo-key"
"""The key of the built-in demo provider. Public: it gives access to nothing."""


def resolve(
    name: str,
    settings: SecretSpec,
    binding: SealBinding | None = None,
    hidden: Collection[str] = frozenset(),
) -> Secret:
    """Return the value of the secret ``name`` from its first usable reference.

    binding  route and origin of the secret; sealed values open for no other
    hidden   environment variables that programs (``exec:``) do not inherit

    Raises SecretUnavailable, with a remedy for each reference, if none is usable. Blocking: a
    program or keyring may take ``timeout_seconds``, all else is a small file on a local disk.
    """
    remedies: list[str] = []
    for found in _usable(name, settings, binding, hidden, remedies):
        return found
    raise SecretUnavailable(name, ", or ".join(remedies))


def resolve_all(
    name: str,
    settings: SecretSpec,
    binding: SealBinding | None = None,
    hidden: Collection[str] = frozenset(),
) -> tuple[Secret, ...]:
    """Return every usable value in order: two during a key rotation. Otherwise as ``resolve``.

    Of equal values only the first is kept: two variables with one key are no rotation.
    """
    remedies: list[str] = []
    found: dict[bytes, Secret] = {}
    for one in _usable(name, settings, binding, hidden, remedies):
        found.setdefault(one.digest(), one)
    if not found:
        raise SecretUnavailable(name, ", or ".join(remedies))
    return tuple(found.values())


async def in_thread(read: Callable[[], T]) -> T:
    """Call ``read``, which may resolve secrets, in a thread, and return its result.

    The process can end while the thread runs, unlike with ``asyncio.to_thread``: a program or a
    keyring may hang. Cancelling returns at once, and ends the program that ``read`` waits for.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()
    programs = Programs()

    def deliver(value: T | None, error: BaseException | None) -> None:
        if result.done():
            return  # cancelled
        if error is None:
            result.set_result(cast(T, value))
        else:
            result.set_exception(error)

    def run() -> None:
        value, failure = None, None
        try:
            with programs:
                value = read()
        except BaseException as error:  # noqa: BLE001  it is the result
            failure = error
        with suppress(RuntimeError):  # the loop is closed: nothing waits for the result
            loop.call_soon_threadsafe(deliver, value, failure)

    threading.Thread(target=run, name="secrets", daemon=True).start()
    try:
        return await result
    except asyncio.CancelledError:
        programs.end()
        raise


def watched_files(settings: SecretSpec) -> frozenset[Path]:
    """Return the files whose change may change a secret's value, links and targets included.

    They need not exist. Container engines replace mounts by changing links, so watch the links
    themselves, not only their targets.
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
    """Return the seconds after which an external secret is read again, or None."""
    return settings.ttl_seconds if settings.external else None


def _usable(
    name: str,
    settings: SecretSpec,
    binding: SealBinding | None,
    hidden: Collection[str],
    remedies: list[str],
) -> Iterator[Secret]:
    """Yield the value of each usable reference, lazily; append the remedies of the others."""
    for reference in settings.references:
        display = display_reference(reference)
        try:
            value = _read(reference, name, settings, binding, hidden)
            check(value, f"the value from {display}", multiline=settings.multiline)
        except SourceError as error:
            remedies.append(str(error))
        else:
            yield Secret(name, value, display)


def _read(
    reference: str,
    slot: str,
    settings: SecretSpec,
    binding: SealBinding | None,
    hidden: Collection[str],
) -> bytes:
    source, _, rest = reference.partition(":")
    match source:
        case "env":
            return strip_line_end(read_variable(rest))
        case "file":
            return read_file(rest)
        case "credential":
            return read_credential(rest)
        case "keyring":
            from proxy.secrets.keyring import read_keyring

            return strip_line_end(read_keyring(rest, settings.timeout_seconds))
        case "exec":
            return read_command(rest, settings.timeout_seconds, hidden)
        case "sealed":
            return strip_line_end(read_sealed(reference, slot, binding))
        case "builtin":
            return DEMO_KEY
        case _:
            from proxy.secrets.plugin import read_plugin

            return strip_line_end(read_plugin(source, rest, settings.timeout_seconds))
