"""Secret source ``env:NAME``: an environment variable, and the environment of child processes."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping

from proxy.secrets.reference import parse_reference
from proxy.secrets.source import SecretSpec, SourceError

PRIVATE_VARIABLES = frozenset(
    {
        "KEYRELAY_KEYS",
        "CREDENTIALS_DIRECTORY",
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "LISTEN_PID",
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
    }
)
"""Variables that child processes do not inherit: the path of the keys, and systemd's variables."""


# Variables of ``--env-file``: of the process, like its environment.
_from_files: dict[str, str] = {}


def use_variables(values: Mapping[str, str]) -> None:
    """Let ``env:`` read these where the environment has no such variable, in place of earlier ones.

    Safe in any thread: readers see all earlier values or all new ones.
    """
    global _from_files
    _from_files = dict(values)


def variable(name: str) -> str | None:
    """Return a variable of the environment, else of the files; None without one."""
    text = os.environ.get(name)
    return _from_files.get(name) if text is None else text


def read_variable(name: str) -> bytes:
    """Return the variable's bytes. Raises SourceError if it is not set or empty."""
    text = variable(name)
    if text is None:
        raise SourceError(f"set {name}")
    if not text:
        raise SourceError(f"give {name} a value: it is set but empty")
    return os.fsencode(text)


def variables_of(secrets: Iterable[SecretSpec]) -> frozenset[str]:
    """Return all variables that these secrets reference, also where another source comes first."""
    parsed = [parse_reference(text) for secret in secrets for text in secret.references]
    return frozenset(rest for source, rest in parsed if source == "env")


def environment_without(hidden: Collection[str]) -> dict[str, str]:
    """Return a copy of this process's environment without the variables in ``hidden``."""
    return {name: value for name, value in os.environ.items() if name not in hidden}
