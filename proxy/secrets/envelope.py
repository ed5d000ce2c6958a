"""Text form of sealed values and their binding: ``sealed:v1:<key id>:<claim>:<data>``.

``data`` is the HPKE ciphertext; ``sealing`` opens it. ``claim`` holds short digests of the route,
origin and secret name that the value is bound to and of ``data``, so that an error message can name
the mismatch. The claim is no proof: HPKE authenticates the binding, which is its ``info``. The
claim does not depend on the secret value.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from dataclasses import dataclass

from proxy.errors import ConfigValueError
from proxy.http.address import bracketed, parse_upstream
from proxy.secrets import base64url

_TEXT = re.compile(r"sealed:v1:([0-9a-f]{8}):([A-Za-z0-9_-]{16}):([A-Za-z0-9_-]+)")
# Long enough to distinguish the bindings of one file; too short to be mistaken for a proof.
_TAG_BYTES = 3
_OVERHEAD_BYTES = 32 + 16  # X25519 share and Poly1305 tag, RFC 9180 sections 7.1 and 7.3
_SEAL_AGAIN = "seal the value for it: keyrelay seal ROUTE SECRET"


@dataclass(frozen=True, slots=True)
class SealBinding:
    """Where a sealed value may be used: a route, and its upstream's ``scheme://host:port``."""

    route: str
    origin: str


def seal_binding(route: str, upstream: str) -> SealBinding:
    """Return the binding of a route with this upstream. Raises ConfigValueError."""
    origin, _ = parse_upstream(upstream)
    if origin.builtin:
        return SealBinding(route, upstream)
    return SealBinding(route, f"{origin.scheme}://{bracketed(origin.host)}:{origin.port}")


def hpke_info(binding: SealBinding, slot: str) -> bytes:
    """Encode HPKE's ``info`` (RFC 9180 section 5.1): version, route, origin and secret name.

    Each part is preceded by its length, so that different bindings never have the same encoding.
    """
    parts = ("keyrelay sealed value", "v1", binding.route, binding.origin, slot)
    encoded = [part.encode("utf-8") for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed sealed value: the ID of its key, the claim, and HPKE's ``enc || ct``."""

    key_id: str
    claim: bytes
    data: bytes

    @classmethod
    def of(cls, key_id: str, data: bytes, binding: SealBinding, slot: str) -> Envelope:
        """Wrap ``data``, sealed for the secret ``slot`` of a binding."""
        return cls(key_id, b"".join(_tags(binding, slot)) + _tag("data", data), data)

    def mismatch(self, binding: SealBinding, slot: str) -> str:
        """Return a remedy if the claim names another binding or secret, else an empty string."""
        route, origin, name = (
            self.claim[index * _TAG_BYTES :].startswith(tag)
            for index, tag in enumerate(_tags(binding, slot))
        )
        if not route:
            return f"{_SEAL_AGAIN} (it was sealed for another route)"
        if not origin:
            return f"{_SEAL_AGAIN} (it was sealed for another host than the route's upstream)"
        if not name:
            return f"{_SEAL_AGAIN} (it was sealed for another secret of the route)"
        return ""

    def __str__(self) -> str:
        return (
            f"sealed:v1:{self.key_id}:{base64url.encode(self.claim)}:{base64url.encode(self.data)}"
        )


def parse_envelope(text: str) -> Envelope:
    """Parse the text of a sealed value. Needs no key.

    Raises ConfigValueError if the text is truncated or modified.
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ConfigValueError(
            "invalid or incomplete sealed value",
            "paste the whole output of keyrelay seal, from sealed:v1: on, in one line",
        )
    try:
        claim, data = map(base64url.decode, found.groups()[1:])
    except binascii.Error:
        claim, data = b"", b""
    if len(data) < _OVERHEAD_BYTES or claim[3 * _TAG_BYTES :] != _tag("data", data):
        raise ConfigValueError(
            "the sealed value is truncated or modified",
            "paste the whole output of keyrelay seal, from sealed:v1: on, in one line",
        )
    return Envelope(found[1], claim, data)


def _tags(binding: SealBinding, slot: str) -> tuple[bytes, bytes, bytes]:
    return (
        _tag("route", binding.route.encode()),
        _tag("origin", binding.origin.encode()),
        _tag("slot", slot.encode()),
    )


def _tag(kind: str, data: bytes) -> bytes:
    return hashlib.sha256(f"keyrelay claim v1 {kind}\0".encode() + data).digest()[:_TAG_BYTES]
