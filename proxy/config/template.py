"""Texts with secrets in them: ``Bearer {api_key}``.

A template knows names only; values come in when a credential is made. A secret that is JSON is
asked for one of its fields with a dot: ``{service_account.client_email}``. ``{{`` and ``}}`` stand
for the braces themselves. Printable ASCII, so that a text without names is one header value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
"""How the name of a secret is spelled."""

_FIELD = re.compile(NAME.pattern + r"(?:\.[A-Za-z0-9_-]+)+")
_PIECE = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<name>[^{}]*)\}|(?P<text>[^{}]+)|(?P<wrong>[{}])")


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template.

    ``pieces`` are literal bytes, or the name of a secret as ``str``, with a field's behind a dot.
    """

    pieces: tuple[bytes | str, ...]

    @property
    def names(self) -> frozenset[str]:
        """The secrets that the template needs."""
        return frozenset(piece.partition(".")[0] for piece in self.pieces if isinstance(piece, str))

    def render(self, values: Mapping[str, bytes]) -> bytes:
        """The text with every name replaced by its value.

        ``KeyError`` for a name not given, ``ValueError`` for a field that a secret does not have.
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
        raise ValueError(f"{name} is no JSON that has a text {'.'.join(fields)}") from None


def parse_template(text: str) -> Template:
    """Parse ``text``. ``ValueError``: line one says what is wrong, line two what to write."""
    if not re.fullmatch(r"[ -~]*", text):
        raise ValueError(
            "only printable ASCII characters can be sent here\nremove line breaks and accents"
        )
    pieces: list[bytes | str] = []
    for found in _PIECE.finditer(text):
        name = found["name"]
        if found["wrong"]:
            raise ValueError(
                "a brace has no partner\nwrite {name} for a secret and {{ or }} for a brace itself"
            )
        if name is None:
            pieces.append((found["text"] or found["brace"][0]).encode("ascii"))
        elif NAME.fullmatch(name) or _FIELD.fullmatch(name):
            pieces.append(name)
        else:
            raise ValueError(
                "between the braces stands no name of a secret\n"
                "write a name from secrets:, such as {api_key}; {{ is a brace itself"
            )
    return Template(tuple(pieces))
