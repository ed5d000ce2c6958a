"""Grammar of secret references, ``source:rest``: parsing, checks and display."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

from proxy.errors import ConfigValueError
from proxy.secrets.envelope import parse_envelope
from proxy.secrets.plugin import find_plugins

_EXPANSION = re.compile(r"\$\{?([A-Z][A-Z_]{0,40})\}?|\$\{([A-Z][A-Z_]{0,40})[:?+-].*\}")
# What a shell would interpret; the command is run without one.
_SHELL = re.compile(r"[|&;<>]+|[0-9]?>&?[0-9]?.*|\$\w+|\$\{.*\}|\$\(.*|`.*|~/.*")
# Words in small letters, capitals or CamelCase, joined by underscores.
_WORD = r"(?:[a-z]+|[A-Z]+|[A-Z]?[a-z]+(?:[A-Z][a-z]+)*)[0-9]{0,2}"
_MIXED_NAME = re.compile(rf"_*{_WORD}(?:_+{_WORD})*_*")
_LONGEST_NAME = 64
# How keys begin that could pass for a name.
_KEY_PREFIX = re.compile(
    r"(sk|pk|rk|hf|gsk|gh[opsur]|github_pat|glpat|xai|xox[a-z]|r8|nvapi|pplx|tgp|csk|shp[a-z]{2})_"
)


def check_env_name(text: str) -> None:
    """Raise ConfigValueError unless ``text`` is the name of an environment variable.

    A key that was pasted by mistake looks different: it has digits among small letters, or both
    cases in no order.
    """
    if re.fullmatch(r"[A-Z_][A-Z0-9_]*", text):
        return
    if len(text) > _LONGEST_NAME or not _MIXED_NAME.fullmatch(text) or _KEY_PREFIX.match(text):
        raise ConfigValueError(
            "invalid variable name",
            "use letters, digits and _; in small letters words with at most two digits at the end",
        )


_NOT_INLINE = (
    "write env:NAME or file:/absolute/path, credential:, keyring:, exec: or sealed:; "
    "a secret itself never belongs in this file"
)


def parse_reference(text: str) -> tuple[str, str]:
    """Split a secret reference into source and rest: ``env:NAME`` is ``("env", "NAME")``.

    Raises ConfigValueError without the text, which may be the secret itself.
    """
    source, colon, rest = text.partition(":")
    if (expanded := _EXPANSION.fullmatch(text)) is not None:
        raise ConfigValueError(
            "variables are not expanded in this file", f"write env:{expanded[1] or expanded[2]}"
        )
    if not colon:
        raise ConfigValueError("invalid secret reference", _NOT_INLINE)
    if source in _CHECKS:
        _CHECKS[source](rest)
    elif not find_plugins(source):
        raise ConfigValueError("unknown secret source", _NOT_INLINE)
    elif not rest or not rest.isprintable():
        raise ConfigValueError("the source has no argument", "write SOURCE:NAME in one line")
    return source, rest


def display_reference(text: str) -> str:
    """Return the displayable part of a checked reference, for messages and the status.

    The program of a command, the key ID of a sealed value, and only the source of a plugin: the
    rest may be sensitive.
    """
    source, _, rest = text.partition(":")
    if source == "exec":
        program, *arguments = shlex.split(rest)
        return f"exec:{program}{' …' if arguments else ''}"
    if source == "sealed":
        return f"sealed:{parse_envelope(text).key_id}:…"
    return text if source in _CHECKS else f"{source}:…"


def _check_file(path: str) -> None:
    if not path.startswith("/") or not path.isprintable():
        raise ConfigValueError(
            "the path of the secret file is not absolute", "write file:/run/secrets/name"
        )


def _check_credential(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_.@-]+", name) or name in {".", ".."}:
        raise ConfigValueError(
            "invalid name of a systemd credential",
            "write credential:name, as in LoadCredential=name:…",
        )


def _check_keyring(rest: str) -> None:
    service, slash, user = rest.rpartition("/")
    if not (service and slash and user and rest.isprintable()):
        raise ConfigValueError(
            "a keyring entry has a service and a user", "write keyring:service/user"
        )


def _check_command(line: str) -> None:
    if not line.isprintable():
        raise ConfigValueError("the command has control characters", "write it in one line")
    try:
        arguments = shlex.split(line)
    except ValueError:
        raise ConfigValueError("a quote of the command is not closed", "close it") from None
    if any(map(_SHELL.fullmatch, arguments)):
        raise ConfigValueError(
            "the command is run without a shell: pipes, redirections, variables and ~ stay text",
            "put it into a script, or write exec:sh -c '…' with the whole command in quotes",
        )
    if not arguments or not arguments[0]:
        raise ConfigValueError(
            "the command is missing", "write for example exec:op read op://vault/item"
        )


def _check_sealed(rest: str) -> None:
    parse_envelope(f"sealed:{rest}")


def _check_builtin(rest: str) -> None:
    if rest != "demo":
        raise ConfigValueError("builtin: has only the key of the demo provider", _NOT_INLINE)


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
"""Built-in secret sources; ``resolver`` has a reader for each. Plugins are further sources."""

LOCAL_SOURCES = frozenset({"env", "file", "credential", "sealed", "builtin"})
"""Sources that return at once. Files are watched; the others do not change by themselves."""
