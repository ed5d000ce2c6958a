"""Redact a credential in a JSON text, however its characters are escaped (RFC 8259 section 7).

A ``Redactor`` alone finds the usual spellings of a value. A JSON string may escape any of its
characters, so the strings are searched as a parser reads them.
"""

from __future__ import annotations

import re

from proxy.secrets.redaction import Redactor

# Escapes of a surrogate pair are one character. Surrogates alone are no character of a credential.
_ESCAPE = re.compile(
    rb"\\(?:u(?P<high>[dD][89abAB][0-9a-fA-F]{2})\\u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})"
    rb'|u(?P<unit>[0-9a-fA-F]{4})|(?P<short>["\\/bfnrt]))'
)
_SHORT = dict(zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True))


def redact_json(redactor: Redactor, data: bytes) -> bytes:
    """Return ``data`` with every occurrence redacted, of the same length; itself if none.

    Other text than JSON is permitted: what looks like an escape in it is read as one. Time and
    memory are linear in the size of ``data``.
    """
    data = redactor.redact(data)
    if b"\\" not in data or not redactor:
        return data
    # Where each byte of the unescaped text begins in ``data``, and where its end is.
    text, origins, end = bytearray(), list[int](), 0
    for found in _ESCAPE.finditer(data):
        text += data[end : found.start()]
        origins += range(end, found.start())
        character = _unescaped(found)
        text += character
        origins += [found.start()] * len(character)
        end = found.end()
    text += data[end:]
    origins += range(end, len(data) + 1)
    redacted = bytearray(data)
    for first, last in redactor.spans(bytes(text)):
        start, stop = origins[first], origins[last]
        redacted[start:stop] = b"*" * (stop - start)
    return bytes(redacted)


def _unescaped(found: re.Match[bytes]) -> bytes:
    """Return the character of an escape in UTF-8."""
    if found["short"] is not None:
        return bytes((_SHORT[found["short"][0]],))
    units = (found["high"] + found["low"]) if found["high"] is not None else found["unit"]
    return bytes.fromhex(units.decode()).decode("utf-16-be", "replace").encode()
