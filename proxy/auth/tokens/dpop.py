"""Proofs of possession for requests: DPoP (RFC 9449)."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import jwt
from jwt.algorithms import get_default_algorithms

from proxy.auth.injection import RequestProof
from proxy.auth.tokens.jwt import private_key
from proxy.clock import Clock
from proxy.secrets import base64url

# Public members of a JWK, by key type (RFC 7638 section 3.2).
_PUBLIC = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}
# RFC 9449 section 8.1.
_NONCE = re.compile(rb"[\x21\x23-\x5b\x5d-\x7e]{1,1024}")
# Nonces are kept for so many origins; a provider has one or two.
_ORIGINS = 16


class DPoPProver:
    """Signs proofs with one key, with the nonces that servers require.

    Raises ValueError, without the key, if the key does not fit the algorithm.
    """

    def __init__(self, clock: Clock, *, algorithm: str, key: bytes) -> None:
        self._clock = clock
        self._algorithm = algorithm
        self._key = private_key(algorithm, key)
        self._headers = {"typ": "dpop+jwt", "jwk": _public(algorithm, self._key)}
        self._nonces: dict[str, str] = {}

    def proof(self, method: str, url: str, token: bytes | None = None) -> str:
        """The value of the field ``DPoP`` for one request (RFC 9449 section 4.2).

        url    without query and fragment
        token  the access token that goes with it, None at a token endpoint
        """
        claims: dict[str, Any] = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": url,
            "iat": int(self._clock.wall()),
        }
        if token is not None:
            claims["ath"] = _digest(token)
        if (nonce := self._nonces.get(_origin(url))) is not None:
            claims["nonce"] = nonce
        return jwt.encode(claims, self._key, algorithm=self._algorithm, headers=self._headers)

    def bound_to(self, origin: str, token: bytes) -> RequestProof:
        """Proofs for requests that carry ``token`` to ``origin``, such as ``https://host``."""
        return _TokenProof(self, origin, token)

    def take_nonce(self, url: str, nonce: str) -> None:
        """Put this nonce into proofs for the origin of ``url`` from now on (RFC 9449 section 8)."""
        origin = _origin(url)
        # Removed first: the newest is last, and an origin already present displaces no other.
        self._nonces.pop(origin, None)
        if len(self._nonces) >= _ORIGINS:
            self._nonces.pop(next(iter(self._nonces)))
        self._nonces[origin] = nonce


class _TokenProof:
    """Proofs for one token at one origin. A ``RequestProof``."""

    __slots__ = ("_origin", "_prover", "_token")

    def __init__(self, prover: DPoPProver, origin: str, token: bytes) -> None:
        self._prover = prover
        self._origin = origin
        self._token = token

    def __repr__(self) -> str:
        return "<proof>"

    def fields(self, method: bytes, path: bytes) -> bytes:
        url = self._origin + path.decode("latin-1")
        proof = self._prover.proof(method.decode("ascii"), url, self._token)
        return b"DPoP: %b\r\n" % proof.encode("ascii")

    def take_challenge(self, nonces: Sequence[bytes], challenges: Sequence[bytes]) -> bool:
        """RFC 9449 section 9."""
        if len(nonces) != 1 or _NONCE.fullmatch(nonces[0]) is None:
            return False
        self._prover.take_nonce(self._origin, nonces[0].decode("ascii"))
        return any(b"use_dpop_nonce" in one for one in challenges)


def _public(algorithm: str, key: Any) -> dict[str, str]:
    document: Any = get_default_algorithms()[algorithm].to_jwk(key.public_key(), as_dict=True)
    return {name: document[name] for name in _PUBLIC[document["kty"]]}


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _digest(data: bytes) -> str:
    return base64url.encode(hashlib.sha256(data).digest())
