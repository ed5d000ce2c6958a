"""Names and sealing of what is kept in Redis for one token.

Both are derived, by HKDF (RFC 5869), from what identifies the token's source, which contains the
route's secrets: without these an entry can neither be found nor opened. Values are sealed with
ChaCha20-Poly1305 (RFC 8439), with the name of their key in Redis as associated data.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SERIAL_BYTES = 12
"""Length of the beginning of a sealed value that distinguishes it from all others: its nonce."""

_NAME_BYTES, _KEY_BYTES = 16, 32


class Entry:
    """The keys in Redis of one token, all in one hash slot, and the key that seals their values.

    identity  bytes that only a holder of the route's secrets can compute
    purpose   separates names and keys that are derived from equal identities
    prefix    beginning of the names
    salt      the explicit key, b"" without one
    """

    def __init__(self, identity: bytes, purpose: str, *, prefix: str, salt: bytes = b"") -> None:
        derived = HKDF(
            SHA256(),
            _NAME_BYTES + _KEY_BYTES,
            salt or None,
            b"keyrelay shared token 1 " + purpose.encode(),
        ).derive(identity)
        self._base = f"{prefix}:{{{derived[:_NAME_BYTES].hex()}}}"
        self._aead = ChaCha20Poly1305(derived[_NAME_BYTES:])

    def name(self, part: str) -> str:
        """Return the name of the key in Redis for one part of the entry."""
        return f"{self._base}:{part}"

    def seal(self, part: str, document: Mapping[str, Any]) -> bytes:
        """Return ``document``, JSON-able data, sealed for the key of ``part``."""
        nonce = secrets.token_bytes(SERIAL_BYTES)
        data = json.dumps(document).encode("ascii")
        return nonce + self._aead.encrypt(nonce, data, self.name(part).encode("ascii"))

    def open(self, part: str, sealed: bytes) -> dict[str, Any] | None:
        """Return the document; None for a value that was not sealed for this key."""
        nonce, data = sealed[:SERIAL_BYTES], sealed[SERIAL_BYTES:]
        try:
            document = json.loads(self._aead.decrypt(nonce, data, self.name(part).encode("ascii")))
        except (InvalidTag, ValueError):
            return None
        return document if isinstance(document, dict) else None
