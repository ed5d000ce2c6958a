"""Templates of strings with secrets: ``Bearer {api_key}``.

A template has names only; values are inserted when a credential is built. A dot selects a field of
a JSON secret: ``{service_account.client_email}``. ``{{`` and ``}}`` are literal braces. Printable
ASCII only, so that a template without names is a valid field value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from proxy.errors import ConfigValueError

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
"""Syntax of a secret's name."""

_FIELD = re.compile(NAME.pattern + r"(?:\.[A-Za-z0-9_-]+)+")
_PIECE = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<name>[^{}]*)\}|(?P<text>[^{}]+)|(?P<wrong>[{}])")


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template.

    ``pieces`` are literal bytes, or as ``str`` the name of a secret with an optional ``.field``.
    """

    pieces: tuple[bytes | str, ...]

    @property
    def names(self) -> frozenset[str]:
        """The secrets that the template needs."""
        return frozenset(piece.partition(".")[0] for piece in self.pieces if isinstance(piece, str))

    def render(self, values: Mapping[str, bytes]) -> bytes:
        """Return the text with every name replaced by its value.

        Raises KeyError for a name without value, ValueError for a field that a secret lacks.
        """
        return b"".join(
            _value(values, piece) if isinstance(piece, str) else piece for piece in self.pieces
        )


def _value(values: Mapping[str, bytes], piece: str) -> bytes:
    name, *fields = piece.split(".")
    if not fields:
        return values[name]
    try:
        found = json.loads(values[name])
        for field in fields:
            found = found[field]
        return str.encode(found)
    except (ValueError, LookupError, TypeError):
        raise ValueError(f"{name} is not JSON with a string {'.'.join(fields)}") from None


def parse_template(text: str) -> Template:
    """Parse a template. Raises ConfigValueError."""
    if not re.fullmatch(r"[ -~]*", text):
        raise ConfigValueError(
            "only printable ASCII characters are allowed here", "remove line breaks and accents"
        )
    pieces: list[bytes | str] = []
    for found in _PIECE.finditer(text):
        name = found["name"]
        if found["wrong"]:
            raise ConfigValueError(
                "unbalanced brace", "write {name} for a secret and {{ or }} for a literal brace"
            )
        if name is None:
            pieces.append((found["text"] or found["brace"][0]).encode("ascii"))
        elif NAME.fullmatch(name) or _FIELD.fullmatch(name):
            pieces.append(name)
        else:
            raise ConfigValueError(
                "invalid secret name in braces",
                "write a name from secrets:, such as {api_key}; {{ is a literal brace",
            )
    return Template(tuple(pieces))
