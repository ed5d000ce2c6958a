"""JWTs signed here: as a token, or as the assertion for one (RFC 7519, 7523, 8725)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from proxy.auth.token import FetchedToken
from proxy.clock import Clock

# A JWT made by a clock that is a little fast must not come from the future (seconds).
LEEWAY_SECONDS = 5.0
# RFC 7518 sections 3.2 and 3.3.
_LEAST_RSA_BITS = 2048
_CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}


class Signer:
    """Signs JWTs of one kind.

    valid_seconds   from ``iat`` to ``exp``, which servers may bound
    leeway_seconds  by which ``iat`` lies in the past, for servers whose clock is behind

    Raises ValueError, without the key, if the key does not fit the algorithm (RFC 8725 3.1, 3.2)
    or the claims cannot be in a JWT.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        algorithm: str,
        key: bytes,
        key_id: str | None,
        header_type: str,
        claims: Mapping[str, Any],
        valid_seconds: float,
        leeway_seconds: float = LEEWAY_SECONDS,
    ) -> None:
        self._clock = clock
        self._algorithm = algorithm
        self._key = (
            shared_secret(algorithm, key) if algorithm[:2] == "HS" else private_key(algorithm, key)
        )
        self._headers = {"typ": header_type, **({"kid": key_id} if key_id else {})}
        self._claims = dict(claims)
        self._valid_seconds = valid_seconds
        self._leeway_seconds = leeway_seconds
        try:
            self.sign()
        except (TypeError, ValueError, jwt.PyJWTError):
            raise ValueError("the claims or the header cannot be written as a JWT") from None

    def sign(self) -> bytes:
        """A new JWT. ``jti`` is random, so that none is ever used twice."""
        now = self._clock.wall()
        # Cut, not rounded up: servers refuse a JWT that is valid for longer than they allow.
        issued = int(now - self._leeway_seconds)
        times = {"iat": issued, "exp": max(issued + int(self._valid_seconds), int(now) + 1)}
        claims = {**self._claims, **times, "jti": secrets.token_urlsafe(16)}
        return jwt.encode(
            claims, self._key, algorithm=self._algorithm, headers=self._headers
        ).encode("ascii")

    @property
    def lifetime_seconds(self) -> float:
        """How long a JWT is valid that has just been signed; its times are whole seconds."""
        return max(self._valid_seconds - self._leeway_seconds - 1, 0.5)


class JwtTokenSource:
    """The signed JWT is itself the token."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    async def fetch(self) -> FetchedToken:
        return FetchedToken(self._signer.sign(), self._signer.lifetime_seconds)


def shared_secret(algorithm: str, key: bytes) -> Any:
    """The key of an HMAC as PyJWT wants it. Raises ValueError (RFC 7518 section 3.2)."""
    bits = int(algorithm[2:])
    if len(key) * 8 < bits:
        raise ValueError(f"the key for {algorithm} is shorter than {bits} bits")
    try:
        return jwt.get_algorithm_by_name(algorithm).prepare_key(key)
    except jwt.InvalidKeyError:
        # RFC 8725 section 2.1: a public key is no shared secret.
        raise ValueError(f"the key for {algorithm} is not a shared secret") from None


def private_key(algorithm: str, key: bytes) -> Any:
    """The private key in a PEM. Raises ValueError, without the key, if it does not fit."""
    pem = key.replace(b"\\n", b"\n")
    if b"ENCRYPTED" in pem:
        raise ValueError(
            f"the key for {algorithm} is encrypted, and no password can be given here; "
            "openssl pkey -in FILE -out PLAIN decrypts it"
        )
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(f"the key for {algorithm} is no private key in PEM") from None
    match private:
        case rsa.RSAPrivateKey():
            fits = algorithm[:2] in {"RS", "PS"}
            if fits and private.key_size < _LEAST_RSA_BITS:
                raise ValueError(f"the RSA key is shorter than {_LEAST_RSA_BITS} bits")
        case ec.EllipticCurvePrivateKey():
            fits = _CURVES.get(algorithm) == private.curve.name
        case ed25519.Ed25519PrivateKey() | ed448.Ed448PrivateKey():
            fits = algorithm == "EdDSA"
        case _:
            fits = False
    if not fits:
        raise ValueError(f"the key is of another kind than {algorithm} needs")
    return private
