"""Finding every credential that a request brings, wherever clients are known to put one.

The emulators are strict: whatever is found here and is not the provider's own placement is a
fault, so a proxy that leaves a client's dummy key in place is caught, whichever way it went.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple
from urllib.parse import unquote_plus

LEFTOVER = "client-dummy"  # what every dummy key of a test's client contains

HEADERS = frozenset(
    {
        "api-key",
        "authorization",
        "cookie",
        "ocp-apim-subscription-key",
        "proxy-authorization",
        "x-access-token",
        "x-amz-security-token",
        "x-api-key",
        "x-auth-token",
        "x-demo-key",
        "x-goog-api-key",
        "x-hume-api-key",
        "x-proxy-token",
        "xi-api-key",
    }
)
QUERY = frozenset(
    {  # without "_" and "-", in lower case
        "accesstoken",
        "apikey",
        "authorization",
        "authtoken",
        "clientsecret",
        "demokey",
        "jwt",
        "key",
        "logintoken",
        "secret",
        "secretkey",
        "singleusetoken",
        "token",
        "xapikey",
        "xiapikey",
    }
)
SUBPROTOCOLS = (
    "bearer",
    "token",
    "openai-insecure-api-key.",
    "keyrelay.token.",
    "rt_",
)

Place = Literal["header", "query", "cookie", "subprotocol"]
Headers = Sequence[tuple[bytes, bytes]]


class Carrier(NamedTuple):
    """One credential: ``name`` as one compares it, ``value`` decoded."""

    place: Place
    name: str
    value: str

    def __str__(self) -> str:
        return f"{self.place} {self.name}"


def find(target: str, headers: Headers, harmless_query: frozenset[str]) -> list[Carrier]:
    """All credentials of a request. ``harmless_query``: names that are none here."""
    return [*_in_headers(headers), *_in_query(target, harmless_query)]


def leftovers(target: str, headers: Headers) -> list[str]:
    """Where a client's own dummy (any value with LEFTOVER in it) is still to be seen."""
    places = [
        f"header {name.decode('latin-1')}"
        for name, value in headers
        if _holds_leftover(value.decode("latin-1"))
    ]
    if _holds_leftover(target):
        places.append("target")
    return places


def bearer(carrier: Carrier) -> str | None:
    """The token of ``Authorization: Bearer``, exactly so, or None."""
    return _after("Bearer ", carrier)


def basic(carrier: Carrier) -> str | None:
    """The Base64 text of ``Authorization: Basic``, exactly so, or None."""
    return _after("Basic ", carrier)


def _after(scheme: str, carrier: Carrier) -> str | None:
    if (carrier.place, carrier.name) != ("header", "authorization"):
        return None
    if not carrier.value.startswith(scheme):
        return None
    rest = carrier.value.removeprefix(scheme)
    return rest if rest and rest == rest.strip() else None


def _in_headers(headers: Headers) -> Iterator[Carrier]:
    for raw_name, raw_value in headers:
        # Some servers take "_" and "-" in header names for the same, so the twin counts.
        name = raw_name.decode("latin-1").lower().replace("_", "-")
        value = raw_value.decode("latin-1")
        if name == "cookie":
            for pair in value.split(";"):
                cookie_name, _, cookie_value = pair.strip().partition("=")
                yield Carrier("cookie", cookie_name, cookie_value)
        elif name in HEADERS:
            yield Carrier("header", name, value)
        elif name == "sec-websocket-protocol":
            for subprotocol in subprotocols(value):
                if subprotocol.lower().startswith(SUBPROTOCOLS):
                    yield Carrier("subprotocol", "sec-websocket-protocol", subprotocol)


def _in_query(target: str, harmless: frozenset[str]) -> Iterator[Carrier]:
    for name, value in query_pairs(target):
        if name not in harmless and name.lower().replace("_", "").replace("-", "") in QUERY:
            yield Carrier("query", name, value)


def query_pairs(target: str) -> Iterator[tuple[str, str]]:
    """Names and values of the raw target's query, each decoded once."""
    for pair in target.partition("?")[2].split("&"):
        if pair:
            name, _, value = pair.partition("=")
            yield unquote_plus(name), unquote_plus(value)


def subprotocols(value: str) -> list[str]:
    """The members of a Sec-WebSocket-Protocol value, in order."""
    return [part.strip() for part in value.split(",") if part.strip()]


def _holds_leftover(text: str) -> bool:
    once = unquote_plus(text)
    return any(LEFTOVER in form for form in (text, once, unquote_plus(once), *_base64_parts(text)))


def _base64_parts(text: str) -> Iterator[str]:
    for part in text.replace(",", " ").split():
        try:
            yield base64.b64decode(part, validate=True).decode("latin-1")
        except (binascii.Error, ValueError):
            yield ""
