"""JWTs signed here: as a token, or as the assertion for one (RFC 7519, 7523, 8725)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from proxy.auth.token_cache import FetchedToken
from proxy.clock import Clock

# A JWT made by a clock that is a little fast must not come from the future (seconds).
_SKEW = 5
# RFC 7518 sections 3.2 and 3.3.
_LEAST_RSA_BITS = 2048
_CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}


class Signer:
    """Signs JWTs of one kind.

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
    ) -> None:
        self._clock = clock
        self._algorithm = algorithm
        self._key = _fitting(algorithm, key)
        self._headers = {"typ": header_type, **({"kid": key_id} if key_id else {})}
        self._claims = dict(claims)
        self._valid_seconds = valid_seconds
        try:
            self.sign()
        except (TypeError, ValueError, jwt.PyJWTError):
            raise ValueError("the claims or the header cannot be written as a JWT") from None

    def sign(self) -> bytes:
        """A new JWT. ``jti`` is random, so that none is ever used twice."""
        now = self._clock.wall()
        end = max(now + self._valid_seconds, now + 1)
        # Cut, not rounded up: providers refuse a JWT that is valid for longer than they allow.
        times = {"iat": int(now) - _SKEW, "exp": int(end)}
        claims = {**self._claims, **times, "jti": secrets.token_urlsafe(16)}
        return jwt.encode(
            claims, self._key, algorithm=self._algorithm, headers=self._headers
        ).encode("ascii")

    @property
    def valid_seconds(self) -> float:
        return self._valid_seconds


class JwtTokenSource:
    """The signed JWT is itself the token."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    async def token_source(self) -> FetchedToken:
        # Its end is cut to a whole second.
        return FetchedToken(self._signer.sign(), max(self._signer.valid_seconds - 1, 0.5))


def _fitting(algorithm: str, key: bytes) -> Any:
    """The key as PyJWT wants it."""
    if algorithm.startswith("HS"):
        bits = int(algorithm[2:])
        if len(key) * 8 < bits:
            raise ValueError(f"the key for {algorithm} is shorter than {bits} bits")
        try:
            return jwt.get_algorithm_by_name(algorithm).prepare_key(key)
        except jwt.InvalidKeyError:
            # RFC 8725 section 2.1: a public key is no shared secret.
            raise ValueError(f"the key for {algorithm} is not a shared secret") from None
    try:
        private = load_pem_private_key(key.replace(b"\\n", b"\n"), password=None)
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
