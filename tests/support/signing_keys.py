"""Private keys for JWTs, made once for all tests: an RSA key takes a tenth of a second."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

_RSA = rsa.generate_private_key(65537, 2048)
_KEYS: dict[str, Any] = {
    "RS": _RSA,
    "PS": _RSA,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def key_for(algorithm: str) -> Any:
    """The private key for an algorithm of RFC 7518, such as ``PS384`` or ``ES256``."""
    return _KEYS.get(algorithm) or _KEYS[algorithm[:2]]
