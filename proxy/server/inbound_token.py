"""The token that clients bring to keyrelay itself, if the configuration asks for one.

Inbound only: it says who may ask and never leaves. ``headers`` removes each of its carriers from
what goes to a provider. It is not taken from a URL, which ends up in histories and logs.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator

from proxy.errors import KeyrelayError, Refusal
from proxy.http.headers import INBOUND_HEADER as HEADER
from proxy.http.headers import INBOUND_SUBPROTOCOL as SUBPROTOCOL
from proxy.http.request import RawHeaders, Request
from proxy.secrets.secret import Secret

LEAST_BYTES = 16
"""Shorter ones could be found by trying: 16 random bytes are beyond that even as digits."""

_SENDABLE = re.compile(rb"[\x21-\x7e]+")


class InboundToken:
    """What the clients have to bring. Keeps the token's digest, not the token.

    Raises KeyrelayError for a value that is too short, or that no header can carry.
    """

    __slots__ = ("_digest",)

    def __init__(self, secret: Secret) -> None:
        value = secret.reveal()
        if len(value) < LEAST_BYTES:
            raise KeyrelayError(
                f"inbound_token is shorter than {LEAST_BYTES} bytes, so it could be guessed; "
                "make one with: openssl rand -hex 32"
            )
        if _SENDABLE.fullmatch(value) is None:
            raise KeyrelayError(
                "inbound_token holds blanks or characters that are not ASCII, which clients "
                "cannot send alike; make one with: openssl rand -hex 32"
            )
        self._digest = hashlib.sha256(value).digest()

    def require(self, request: Request, page: str | None) -> None:
        """Raise Refusal (401) if the request does not bring the token.

        ``page`` is the allowed origin that asks, if one does, so that it may read the answer.
        Digests are compared, and all that were brought: how long it takes tells nothing about the
        token, and any bytes can be compared.
        """
        right = False
        for brought in _brought(request.raw_headers, websocket=request.websocket):
            right |= hmac.compare_digest(hashlib.sha256(brought).digest(), self._digest)
        if not right:
            raise _refusal(page)


def _brought(raw: RawHeaders, *, websocket: bool) -> Iterator[bytes]:
    """Whatever could be meant as the token."""
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
    """The same for a token that is missing, wrong, or no text."""
    readable: tuple[tuple[str, str], ...] = ()
    if page is not None:
        readable = (("Access-Control-Allow-Origin", page), ("Vary", "Origin"))
    return Refusal(
        401,
        "token-needed",
        "This keyrelay wants its inbound token, and the request does not bring it.",
        "Send it as Authorization: Bearer, as X-Keyrelay-Token, or as WebSocket subprotocol "
        "keyrelay.token.<token>.",
        headers=(("WWW-Authenticate", "Bearer"), *readable),
    )
