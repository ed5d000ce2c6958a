"""``env:NAME``: a variable of this process's environment, and who else gets to see it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from proxy.secrets.reference import parse_reference
from proxy.secrets.source import SecretSpec, SourceError

OWN = frozenset(
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
"""Variables that are for this process alone: where its keys are, and what systemd tells it."""


def read_variable(name: str) -> bytes:
    """The variable's bytes. Raises SourceError if it is not set or empty."""
    text = os.environ.get(name)
    if text is None:
        raise SourceError(f"set {name}")
    if not text:
        raise SourceError(f"give {name} a value: it is set but empty")
    return os.fsencode(text)


def variables_of(secrets: Iterable[SecretSpec]) -> frozenset[str]:
    """Every variable that one of these may come from, whether another source is first or not."""
    parsed = [parse_reference(text) for one in secrets for text in one.references]
    return frozenset(rest for source, rest in parsed if source == "env")


def environment_without(hidden: Collection[str]) -> dict[str, str]:
    """The environment for a program that these variables do not concern."""
    return {name: value for name, value in os.environ.items() if name not in hidden}
