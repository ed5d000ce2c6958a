"""proxy.secrets.reference."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

from proxy.secrets.envelope import parse_envelope
from proxy.secrets.plugin import own_source


def check_env_name(text: str) -> None:
    """The name of an environment variable; in capitals, which no key is by accident."""
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", text):
        raise ValueError("this is no name of a variable\nuse capitals, digits and _")


_NOT_INLINE = (
    "write env:NAME or file:/absolute/path, credential:, keyring:, exec: or sealed:; "
    "a secret itself never belongs in this file"
)


def parse_reference(text: str) -> tuple[str, str]:
    """Split a reference to a secret into source and rest: ``env:NAME`` is ``("env", "NAME")``.

    Raises ValueError, without the text: it may be the secret itself.
    """
    source, colon, rest = text.partition(":")
    if not colon:
        raise ValueError(f"a secret is named by its source\n{_NOT_INLINE}")
    if source in _CHECKS:
        _CHECKS[source](rest)
    elif not own_source(source):
        raise ValueError(f"there is no such source\n{_NOT_INLINE}")
    elif not rest or not rest.isprintable():
        raise ValueError("what follows the source is missing\nwrite it in one line, as SOURCE:NAME")
    return source, rest


def shown_reference(text: str) -> str:
    """A checked reference for messages and the status.

    Of a command its program, of a sealed value its key; of an own source only the word, as what
    follows is not known to be harmless.
    """
    source, _, rest = text.partition(":")
    if source == "exec":
        program, *others = shlex.split(rest)
        return f"exec:{program}{' …' if others else ''}"
    if source == "sealed":
        return f"sealed:{parse_envelope(text).key_id}:…"
    return text if source in _CHECKS else f"{source}:…"


def _check_file(path: str) -> None:
    if not path.startswith("/") or not path.isprintable():
        raise ValueError(
            "the path of a secret's file is not absolute\nwrite file:/run/secrets/name"
        )


def _check_credential(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_.@-]+", name) or name in {".", ".."}:
        raise ValueError(
            "this is no name of a credential of systemd\n"
            "write credential:name, as in LoadCredential=name:…"
        )


def _check_keyring(rest: str) -> None:
    route_service, slash, user = rest.rpartition("/")
    if not (route_service and slash and user and rest.isprintable()):
        raise ValueError(
            "an entry of the keyring has a service and a user\nwrite keyring:service/user"
        )


def _check_command(line: str) -> None:
    if not line.isprintable():
        raise ValueError("a command is one line\nremove control characters")
    try:
        words = shlex.split(line)
    except ValueError:
        raise ValueError("a quote of the command is not closed\nclose it") from None
    if not words or not words[0]:
        raise ValueError("the command is missing\nwrite for example exec:op read op://vault/item")


def _check_sealed(rest: str) -> None:
    parse_envelope(f"sealed:{rest}")


def _check_builtin(rest: str) -> None:
    if rest != "demo":
        raise ValueError(f"builtin: has the key of the demo provider alone\n{_NOT_INLINE}")


_CHECKS: dict[str, Callable[[str], None]] = {
    "env": check_env_name,
    "file": _check_file,
    "credential": _check_credential,
    "keyring": _check_keyring,
    "exec": _check_command,
    "sealed": _check_sealed,
    "builtin": _check_builtin,
}

SOURCES = tuple(_CHECKS)
"""Where secrets may come from, own sources aside; ``sources`` has a reader for each."""

# Those that answer at once. Files are watched; the others of these do not change by themselves.
_PROMPT = frozenset({"env", "file", "credential", "sealed", "builtin"})
