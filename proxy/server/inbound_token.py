"""The token that clients send to keyrelay itself, if the configuration requires one.

Inbound only: it authorises the client and is never forwarded. ``http.headers`` removes each field
that may contain it. It is not accepted in a URL, because URLs end up in histories and logs.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator

from proxy.errors import KeyrelayError, Refusal
from proxy.http.abnf import VISIBLE_CHARS
from proxy.http.headers import INBOUND_HEADER as HEADER
from proxy.http.headers import INBOUND_SUBPROTOCOL as SUBPROTOCOL
from proxy.http.request import RawHeaders, Request
from proxy.secrets.secret import Secret

MIN_BYTES = 16
"""Minimum length in bytes, against guessing: 16 random bytes suffice even if they are digits."""

_SENDABLE = re.compile(rf"[{VISIBLE_CHARS}]+".encode())


class InboundToken:
    """Verifies the inbound token of requests. Keeps the token's digest, not the token.

    Raises KeyrelayError for a value that is too short, or that no header field can contain.
    """

    __slots__ = ("_digest",)

    def __init__(self, secret: Secret) -> None:
        value = secret.reveal()
        if len(value) < MIN_BYTES:
            raise KeyrelayError(
                f"inbound_token is shorter than {MIN_BYTES} bytes, so it could be guessed; "
                "make one with: openssl rand -hex 32"
            )
        if _SENDABLE.fullmatch(value) is None:
            raise KeyrelayError(
                "inbound_token contains spaces or characters that are not ASCII, which not all "
                "clients can send; make one with: openssl rand -hex 32"
            )
        self._digest = hashlib.sha256(value).digest()

    def require(self, request: Request, page: str | None) -> None:
        """Raise Refusal (401) if the request does not contain the token.

        ``page`` is the allowed origin of the requesting page, if any, which may read the response.
        Compares the digests of all candidates in constant time: the duration reveals nothing about
        the token, and a candidate can be any bytes.
        """
        valid = False
        for candidate in _candidates(request.raw_headers, websocket=request.websocket):
            valid |= hmac.compare_digest(hashlib.sha256(candidate).digest(), self._digest)
        if not valid:
            raise _refusal(page)


def _candidates(raw: RawHeaders, *, websocket: bool) -> Iterator[bytes]:
    """Every value in the header section that could be the token."""
    for name, value in raw:
        lower = name.lower()
        if lower == HEADER:
            yield value
        elif lower == b"authorization":
            # RFC 9110 section 11.1: the scheme's case does not matter.
            scheme, _, rest = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield rest.strip(b" ")
        elif websocket and lower == b"sec-websocket-protocol":
            for offer in value.split(b","):
                offer = offer.strip(b" \t")
                if offer[: len(SUBPROTOCOL)].lower() == SUBPROTOCOL:
                    yield offer[len(SUBPROTOCOL) :]


def _refusal(page: str | None) -> Refusal:
    """The refusal, identical for a missing, a wrong and a malformed token."""
    readable: tuple[tuple[str, str], ...] = ()
    if page is not None:
        readable = (("Access-Control-Allow-Origin", page), ("Vary", "Origin"))
    return Refusal(
        401,
        "token-needed",
        "The request does not contain the inbound token that this keyrelay requires.",
        "Send it as Authorization: Bearer, as X-Keyrelay-Token, or as WebSocket subprotocol "
        "keyrelay.token.<token>.",
        headers=(("WWW-Authenticate", "Bearer"), *readable),
    )
