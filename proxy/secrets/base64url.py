"""Base64 with the URL and filename safe alphabet, without padding (RFC 7515 appendix C)."""

from __future__ import annotations

import base64


def encode(data: bytes) -> str:
    """Encode ``data`` without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """Decode unpadded ``text``. Raises ValueError for a length that no encoding has."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
