"""Inworld's session tokens, for a call signed with IW1-HMAC-SHA256.

Sources, read 2026-11-21: https://docs.inworld.ai/portal/session-tokens for the variant ``session``,
Inworld's Node.js JWT sample application for the variant ``sample``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from proxy.auth.token import TokenError
from proxy.auth.tokens.client import TokenRequest

# The first hex digits of a nonce; the sample application takes eleven.
_NONCE_DIGITS = 11
# What can stand in the header without ending a part of it.
_KEY = re.compile(rb"[\x21-\x2b\x2d-\x7e]+")


@dataclass(frozen=True, slots=True)
class Variant:
    """One form of the call. ``host`` and ``method`` are signed as they stand here: constants, not
    where the call really goes.
    """

    path: str
    host: str
    method: str


VARIANTS = {
    "session": Variant(
        "/v1/sessionTokens/token:generate",
        "api.inworld.ai",
        "ai.inworld.engine.v1.SessionTokens/GenerateSessionToken",
    ),
    "sample": Variant(
        "/auth/v1/tokens/token:generate",
        "api-engine.inworld.ai",
        "ai.inworld.engine.WorldEngine/GenerateToken",
    ),
}


def split_portal_string(portal: bytes) -> tuple[bytes, bytes]:
    """Key and secret of the portal's Base64 string. Raises ValueError, without the string."""
    try:
        key, colon, secret = base64.b64decode(portal, validate=True).partition(b":")
    except binascii.Error:
        raise ValueError("the portal's string is not Base64") from None
    if not (key and colon and secret):
        raise ValueError("the portal's string does not hold a key and a secret")
    return key, secret


def signature(secret: bytes, parts: list[str]) -> str:
    """The signature over ``parts``: each HMAC is the key of the next, as raw bytes."""
    key = b"IW1" + secret
    for part in [*parts, "iw1_request"]:
        key = hmac.digest(key, part.encode("ascii"), hashlib.sha256)
    return key.hex()


def authorization(
    key: bytes, secret: bytes, variant: Variant, *, now: float, nonce: str | None = None
) -> str:
    """The value of ``Authorization`` for a call at ``now``, seconds since the epoch.

    Raises TokenError for a key that cannot be in it.
    """
    if _KEY.fullmatch(key) is None:
        raise TokenError("the key's id has characters that it cannot have")
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%d%H%M%S")
    nonce = nonce or secrets.token_hex(_NONCE_DIGITS)[:_NONCE_DIGITS]
    signed = signature(secret, [moment, variant.host, variant.method, nonce])
    return (
        f"IW1-HMAC-SHA256 ApiKey={key.decode('ascii')},DateTime={moment},"
        f"Nonce={nonce},Signature={signed}"
    )


def session_call(
    base: str,
    variant_name: str,
    key: bytes,
    secret: bytes,
    workspace: str | None,
    wall: Callable[[], float],
) -> TokenRequest:
    """The call for one session token. ``base`` is the route's upstream. Raises TokenError."""
    variant = VARIANTS[variant_name]
    signed = authorization(key, secret, variant, now=wall())
    document = (
        {"api_key": key.decode("ascii")}
        if variant_name == "session"
        else {"key": key.decode("ascii"), "resources": [workspace] if workspace else []}
    )
    return TokenRequest(
        "POST",
        base + variant.path,
        {"Authorization": signed, "Content-Type": "application/json"},
        json.dumps(document).encode(),
    )
