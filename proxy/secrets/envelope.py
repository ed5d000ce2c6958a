"""Sealed values as text, and what each is sealed for: ``sealed:v1:<key id>:<claim>:<data>``.

``data`` is what HPKE made; ``sealing`` opens it. ``claim`` says in short digests for which place
the value was sealed and what ``data`` is, so that a message can tell what is wrong. It proves
nothing: whether a value opens is decided by HPKE, to which the place is ``info``. Nothing in a
claim depends on the value.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from proxy.http.address import bracketed, parse_upstream

_TEXT = re.compile(r"sealed:v1:([0-9a-f]{8}):([A-Za-z0-9_-]{16}):([A-Za-z0-9_-]+)")
# Enough to tell places of one file apart; too little to be taken for a proof.
_TAG_BYTES = 3
_OVERHEAD_BYTES = 32 + 16  # X25519 share and Poly1305 tag, RFC 9180 sections 7.1 and 7.3
_SEAL_ANEW = "seal the value for it: keyrelay seal ROUTE SECRET"


@dataclass(frozen=True, slots=True)
class SealBinding:
    """Where a sealed value may be used: a route, and the ``scheme://host:port`` it leads to."""

    route: str
    origin: str


def place_of(route: str, upstream: str) -> SealBinding:
    """The place of a route with this upstream. Raises ValueError as ``parse_upstream`` does."""
    origin, _ = parse_upstream(upstream)
    if origin.builtin:
        return SealBinding(route, upstream)
    return SealBinding(route, f"{origin.scheme}://{bracketed(origin.host)}:{origin.port}")


def binding(place: SealBinding, slot: str) -> bytes:
    """HPKE's ``info`` (RFC 9180 section 5.1): version, route, origin and the secret's name.

    Each is preceded by its length, so that no two places have the same bytes.
    """
    parts = ("keyrelay sealed value", "v1", place.route, place.origin, slot)
    encoded = [part.encode("utf-8") for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A sealed value taken apart: the key that opens it, the claim, and HPKE's ``enc || ct``."""

    key_id: str
    claim: bytes
    data: bytes

    @classmethod
    def of(cls, key_id: str, data: bytes, place: SealBinding, slot: str) -> Envelope:
        """What ``data``, sealed for a place, is wrapped in."""
        return cls(key_id, b"".join(_tags(place, slot)) + _tag("data", data), data)

    def mismatch(self, place: SealBinding, slot: str) -> str:
        """What is to be done if it was sealed for somewhere else, in words; empty if it was not."""
        route, origin, name = (
            self.claim[index * _TAG_BYTES :].startswith(tag)
            for index, tag in enumerate(_tags(place, slot))
        )
        if not route:
            return f"{_SEAL_ANEW} (it was sealed for another route)"
        if not origin:
            return f"{_SEAL_ANEW} (it was sealed for another host than the route's upstream)"
        if not name:
            return f"{_SEAL_ANEW} (it was sealed for another secret of the route)"
        return ""

    def __str__(self) -> str:
        return f"sealed:v1:{self.key_id}:{_encoded(self.claim)}:{_encoded(self.data)}"


def parse_envelope(text: str) -> Envelope:
    """Take a sealed value apart. Needs no key.

    Raises ValueError, whose second line says what to do, if it was cut short or changed.
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ValueError(
            "this is no sealed value, or not all of one\n"
            "paste all that keyrelay seal printed, from sealed:v1: on, in one line"
        )
    try:
        claim, data = (
            base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in found.groups()[1:]
        )
    except binascii.Error:
        claim, data = b"", b""
    if len(data) < _OVERHEAD_BYTES or claim[3 * _TAG_BYTES :] != _tag("data", data):
        raise ValueError(
            "the sealed value was cut short or changed\n"
            "paste all that keyrelay seal printed, from sealed:v1: on, in one line"
        )
    return Envelope(found[1], claim, data)


def _tags(place: SealBinding, slot: str) -> tuple[bytes, bytes, bytes]:
    return (
        _tag("route", place.route.encode()),
        _tag("origin", place.origin.encode()),
        _tag("slot", slot.encode()),
    )


def _tag(kind: str, data: bytes) -> bytes:
    return hashlib.sha256(f"keyrelay claim v1 {kind}\0".encode() + data).digest()[:_TAG_BYTES]


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
