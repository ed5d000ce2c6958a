"""Inworld's IW1-HMAC-SHA256 signature, checked as the provider would.

docs.inworld.ai portal/session-tokens and the code (not the README, which is wrong about the keys)
of the public sample application inworld-nodejs-jwt-sample-app, read 2026-11-21.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime
from typing import Final

SAMPLE_MINT: Final = "/auth/v1/tokens/token:generate"
DOCUMENTED_MINT: Final = "/v1/sessionTokens/token:generate"

# What is signed: a constant host and method, whatever host the request goes to.
SIGNED: Final = {
    SAMPLE_MINT: ("api-engine.inworld.ai", "ai.inworld.engine.WorldEngine/GenerateToken"),
    DOCUMENTED_MINT: ("api.inworld.ai", "ai.inworld.engine.v1.SessionTokens/GenerateSessionToken"),
}
_FORM: Final = re.compile(
    r"IW1-HMAC-SHA256 ApiKey=([^,\s]+),DateTime=(\d{14}),Nonce=([0-9a-f]{11,32}),"
    r"Signature=([0-9a-f]{64})"
)
_SKEW_SECONDS: Final = 300


class SignatureCheck:
    """Judges signatures for one key and secret, and remembers nonces."""

    def __init__(self, key: str, secret: str) -> None:
        self._key = key
        self._secret = secret
        self._nonces: set[str] = set()

    def complaint(self, path: str, header: str, now: float) -> str | None:
        """What is wrong with the value of Authorization at this mint. ``now`` in Unix seconds."""
        match = _FORM.fullmatch(header)
        if match is None:
            return "the mint needs an IW1-HMAC-SHA256 signature, exactly formed"
        key, date_time, nonce, signature = match.groups()
        host, method = SIGNED[path]
        chain = f"IW1{self._secret}".encode()
        for part in (date_time, host, method, nonce, "iw1_request"):
            chain = hmac.digest(chain, part.encode(), hashlib.sha256)
        if key != self._key:
            return "signed for another key"
        if signature != chain.hex():
            return "the signature is wrong"
        signed_at = datetime.strptime(date_time, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        if abs(signed_at.timestamp() - now) > _SKEW_SECONDS:
            return "signed at another time"
        if nonce in self._nonces:
            return "the nonce was used before"
        self._nonces.add(nonce)
        return None
