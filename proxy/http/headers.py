"""Which header fields cross, in either direction, and how a query loses its credentials.

Works on bytes as they came: order, case, duplicates and odd values survive (RFC 9110 section 5.3).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from proxy.http.request import FIELD as REQUEST_ID
from proxy.http.request import RawHeaders

# RFC 9110 section 7.6.1: about this connection, not about the message. Content-Length stays: it is
# the framing both sides use; Transfer-Encoding is set anew by whoever sends a body.
INBOUND_HEADER = b"x-keyrelay-token"
"""For clients whose ``Authorization`` is taken by what their SDK insists on. Lower case."""

INBOUND_SUBPROTOCOL = b"keyrelay.token."
"""What stands before the token in a WebSocket subprotocol, where browsers can set nothing else."""

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

# Where clients of the providers' SDKs put the key that they insist on. All of it stays here: the
# provider must see exactly one credential, ours. So does the token that keyrelay itself asks for.
CREDENTIAL_HEADERS = frozenset(
    {
        INBOUND_HEADER,
        b"api-key",
        b"apikey",
        b"authorization",
        b"cookie",
        b"ocp-apim-subscription-key",
        b"private-token",
        b"x-access-token",
        b"x-amz-security-token",
        b"x-api-key",
        b"x-api-token",
        b"x-apikey",
        b"x-auth-token",
        b"x-gladia-key",
        b"x-goog-api-key",
        b"x-goog-iam-authorization-token",
        b"x-hume-api-key",
        b"x-session-token",
        b"xi-api-key",
    }
)

# Compared without case, ``-`` and ``_``: api_key, apiKey, apikey, access_token, accessToken …
CREDENTIAL_QUERY = frozenset(
    {
        b"accesstoken",
        b"apikey",
        b"apitoken",
        b"authorization",
        b"authtoken",
        b"bearertoken",
        b"jwt",
        b"oauthtoken",
        b"ocpapimsubscriptionkey",
        b"subscriptionkey",
        b"xiapikey",
    }
)

# Subprotocols by which browsers pass a key, because they cannot set a header on a WebSocket. The
# third is the beginning of every JWT (RFC 7519 section 3.1), for clients that offer one bare.
CREDENTIAL_SUBPROTOCOLS = (
    b"bearer.",
    b"bearer_",
    b"eyj",
    b"openai-insecure-api-key.",
    INBOUND_SUBPROTOCOL,
)

# Not the client's to say to the provider. The overrides would walk around ``methods``, ``allow``
# and ``deny``. The browser's marks describe a page on this machine, and some providers refuse
# whatever bears them; to the provider this is a call from a server.
NOT_FORWARDED = frozenset(
    {
        b"expect",
        b"host",
        b"http2-settings",
        b"origin",
        b"referer",
        b"sec-fetch-dest",
        b"sec-fetch-mode",
        b"sec-fetch-site",
        b"sec-fetch-storage-access",
        b"sec-fetch-user",
        b"sec-websocket-protocol",
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"x-original-url",
        REQUEST_ID,
        b"x-rewrite-url",
    }
)

DROPPED_FROM_REQUESTS = HOP_BY_HOP | CREDENTIAL_HEADERS | NOT_FORWARDED

# ``Alt-Svc`` names other places for the provider's origin, which is not the origin the client uses.
DROPPED_FROM_ANSWERS = HOP_BY_HOP | {b"alt-svc"}

# What a provider may say to its own pages but not to all pages that share this machine's localhost,
# and whom it would let read its answers: that is said here (``answers.page_fields``).
DROPPED_FOR_BROWSERS = DROPPED_FROM_ANSWERS | {
    b"access-control-allow-credentials",
    b"access-control-allow-headers",
    b"access-control-allow-methods",
    b"access-control-allow-origin",
    b"access-control-allow-private-network",
    b"access-control-expose-headers",
    b"access-control-max-age",
    b"clear-site-data",
    b"cross-origin-resource-policy",
    b"content-security-policy",
    b"nel",
    b"refresh",
    b"referrer-policy",
    b"report-to",
    b"reporting-endpoints",
    b"service-worker-allowed",
    b"set-cookie",
    b"strict-transport-security",
    b"timing-allow-origin",
    b"www-authenticate",
    b"x-content-type-options",
}

_ABOUT_CONNECTION = frozenset({b"", b"close"})
# What nearly every ``Connection`` says; it names no field that would cross otherwise.
_ORDINARY = frozenset({b"keep-alive", b"Keep-Alive", b"close"})
_FRAMING = frozenset({b"content-length"})
# What was checked or rewritten under its right name only: a twin with ``_`` could say otherwise.
_IN_ONE_SPELLING = _FRAMING | {
    b"sec-websocket-extensions",
    b"sec-websocket-key",
    b"sec-websocket-protocol",
    b"sec-websocket-version",
}


def named_by_connection(value: bytes) -> set[bytes]:
    """Field names that a ``Connection`` value declares hop-by-hop, lower case."""
    return {name.strip().lower() for name in value.split(b",")}


def _without_connection(
    raw: RawHeaders, dropped: frozenset[bytes]
) -> tuple[RawHeaders, frozenset[bytes]]:
    """The fields without ``Connection``, and ``dropped`` with what all of its lines name."""
    rest = tuple(pair for pair in raw if pair[0].lower() != b"connection")
    named: set[bytes] = set()
    for name, value in raw:
        if name.lower() == b"connection":
            named |= named_by_connection(value)
    # Content-Length is framing: nobody can talk us out of it.
    return rest, dropped | (named - _FRAMING)


def request_fields(raw: RawHeaders, dropped: frozenset[bytes]) -> bytes:
    """The field lines that go on to the provider, as one block of CRLF-ended lines.

    ``dropped`` holds lower-case names. A name with ``_`` counts as its twin with ``-``: many
    servers fold the two (CGI), so ``X_Api_Key`` would reach them as a second ``X-Api-Key``.
    """
    parts: list[bytes] = []
    for name, value in raw:
        lower = name.lower()
        if lower in dropped:
            if lower == b"connection" and value not in _ORDINARY:
                named = named_by_connection(value) - dropped
                if not named <= _ABOUT_CONNECTION:
                    return request_fields(*_without_connection(raw, dropped))
            continue
        if b"_" in lower:
            twin = lower.replace(b"_", b"-")
            if twin in dropped or twin in _IN_ONE_SPELLING:
                continue
        parts += (name, b": ", value, b"\r\n")
    return b"".join(parts)


def answer_fields(
    fields: bytes, dropped: frozenset[bytes], rewrite_location: Callable[[bytes], bytes]
) -> bytes:
    """The field lines that go back to the client, as one block of CRLF-ended lines.

    ``fields`` as in ``ResponseHead``, ``dropped`` lower-case names.
    ``rewrite_location`` gets the value of
    ``Location`` and says what the client may follow instead. Raises ValueError if that would end
    its line early.
    """
    parts: list[bytes] = []
    at = 1
    for found in _special(dropped).finditer(fields):
        begin, end = found.span()
        parts.append(fields[at : begin + 1])
        at = end + 2
        if found.lastgroup == "location":
            location = rewrite_location(found["location"])
            if any(one in location for one in b"\r\n\0"):
                raise ValueError("a Location holds CR, LF or NUL")
            parts += (fields[begin + 1 : found.start("location")], location, b"\r\n")
        elif found.lastgroup == "connection" and found["connection"].strip() not in _ORDINARY:
            named = named_by_connection(found["connection"]) - dropped
            if not named <= _ABOUT_CONNECTION:
                return answer_fields(_without_named(fields), dropped, rewrite_location)
    parts.append(fields[at:])
    return b"".join(parts)


def _without_named(fields: bytes) -> bytes:
    """The field lines without ``Connection`` and without what all of its lines name.

    Line by line: what a provider wrote never becomes part of an expression.
    """
    pairs = [(line.partition(b":")[0].lower(), line) for line in fields[1:-2].split(b"\r\n")]
    named: set[bytes] = set()
    for name, line in pairs:
        if name == b"connection":
            named |= named_by_connection(line.partition(b":")[2])
    # Content-Length is framing: nobody can talk us out of it.
    gone = named - _FRAMING | {b"connection"}
    return b"\n" + b"".join(line + b"\r\n" for name, line in pairs if name not in gone)


@functools.cache
def _special(dropped: frozenset[bytes]) -> re.Pattern[bytes]:
    """Finds the fields that do not simply go on, from the LF before their name to their CR."""
    names = b"|".join(map(re.escape, sorted(dropped - {b"connection", b"location", b""})))
    return re.compile(
        rb"\n(?:location:[\t ]*(?P<location>[^\r]*)|connection:(?P<connection>[^\r]*)"
        rb"|(?:" + names + rb"):[^\r]*)",
        re.IGNORECASE,
    )


def strip_query(query: bytes, names: frozenset[bytes]) -> bytes:
    """``query`` without the pairs whose decoded name is a credential's; the rest byte for byte.

    ``names`` are compared exactly after decoding; the well-known ones of CREDENTIAL_QUERY without
    regard to case and separators.
    """
    kept = [pair for pair in query.split(b"&") if not _is_credential(pair, names)]
    return b"&".join(kept)


def _is_credential(pair: bytes, names: frozenset[bytes]) -> bool:
    name = pair.partition(b"=")[0]
    if b"%" in name or b"+" in name:
        name = unquote_to_bytes(name.replace(b"+", b" ")).strip()
    return name in names or name.lower().replace(b"_", b"").replace(b"-", b"") in CREDENTIAL_QUERY


def split_subprotocols(
    raw: RawHeaders, secret_prefixes: tuple[bytes, ...]
) -> tuple[list[bytes], list[bytes]]:
    """What the client offered in ``Sec-WebSocket-Protocol``: (to pass on, to keep from passing).

    ``secret_prefixes`` are lower case and found in any case.
    """
    passed: list[bytes] = []
    kept: list[bytes] = []
    for name, value in raw:
        if name.lower() == b"sec-websocket-protocol":
            for offer in (one.strip() for one in value.split(b",")):
                (kept if offer.lower().startswith(secret_prefixes) else passed).append(offer)
    return passed, kept
