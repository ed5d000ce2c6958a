"""Responses of token endpoints: the token and its lifetime, or the error (RFC 6749 section 5)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from proxy.auth.token import FetchedToken, TokenError
from proxy.secrets import base64url
from proxy.secrets.redaction import Redactor

# RFC 6749 appendix A.12, without the blanks at an end that no field value could hold.
_ACCESS_TOKEN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
# Types of tokens that cannot be used as they are: those that need a proof with each request
# (RFC 9449, RFC 7800, the MAC drafts), and RFC 8693's type for what is no access token.
_UNUSABLE_TYPES = frozenset({"dpop", "mac", "pop", "hok", "n_a"})
# Times since the epoch above this are milliseconds: as seconds it is the year 5138.
_MILLISECONDS = 1e11
# Numbers from here on are moments: no token lives for thirty years.
_LONGEST_SPAN = 1e9
# No token is kept for longer than a year (seconds).
_LONGEST_LIFE = 31_536_000.0
# What is repeated to clients: the error codes of RFC 6749 section 5.2.
_PUBLIC_ERRORS = frozenset(
    {
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)
# Members with the code and the text of an error, those of RFC 6749 first.
_CODES = ("error", "error.code", "error.type", "error.status", "errorCode", "error_code", "code")
_TEXTS = (
    "error_description",
    "error.message",
    "message",
    "errorSummary",
    "detail",
    "title",
)
_LONGEST_CODE = 64
_LONGEST_TEXT = 240
# A string that may be a credential, though not one of this request.
_OPAQUE = re.compile(r"[A-Za-z0-9+/_=.~-]{32,}")


@dataclass(frozen=True, slots=True)
class TokenFields:
    """The members of a token response. Dots lead into objects: ``client_secret.value``.

    token             the token
    expiry            seconds, or a moment (RFC 3339 or since the epoch), first that is there
    lifetime_seconds  what is assumed if the response is of no use for it
    zero              what a lifetime of 0 means: ``unknown``, so that ``lifetime_seconds``
                      counts, or ``never``, that the token does not end
    scope             the requested scope, to be compared with the granted one; None: none requested
    token_type        the only ``token_type`` that can be used, in lower case; None: all that need
                      no proof with each request
    """

    token: str
    expiry: tuple[str, ...]
    lifetime_seconds: float
    zero: str = "unknown"
    scope: str | None = None
    token_type: str | None = None


@dataclass(frozen=True, slots=True)
class TokenEndpointError:
    """An error code and its text, either of which may be "". Not yet redacted."""

    code: str = ""
    text: str = ""

    @property
    def public(self) -> str:
        """The code if clients may receive it, else ""."""
        return self.code if self.code in _PUBLIC_ERRORS else ""

    def redacted(self, secrets: Iterable[bytes]) -> str:
        """Return code and text for the operator, without any possible credential."""
        redactor = Redactor(secrets)
        parts = [
            part
            for part in (_clean(self.code, redactor, _LONGEST_CODE), _clean(self.text, redactor))
            if part
        ]
        return ": ".join(parts)


def _clean(text: str, redactor: Redactor, longest: int = _LONGEST_TEXT) -> str:
    """One line of visible characters, redacted before it is cut."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text[:4096]).split())
    line = redactor.redact(line.encode()).decode("utf-8", "replace")
    line = _OPAQUE.sub("***", line)
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def parse_body(body: bytes, content_type: str) -> Any:
    """The document in a body, whatever its Content-Type is; None if there is none.

    A form is read too: some servers predate the JSON of RFC 6749.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        pass
    if content_type == "application/x-www-form-urlencoded" and body.isascii():
        return dict(parse_qsl(body.decode("ascii"))) or None
    return None


def error_in(document: Any) -> TokenEndpointError:
    """Return the error in a document; empty if there is none."""
    return TokenEndpointError(
        next(filter(None, (_word(_at(document, name)) for name in _CODES)), ""),
        next(filter(None, (_word(_at(document, name)) for name in _TEXTS)), ""),
    )


def _word(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def read_token(document: Any, fields: TokenFields, now: float) -> FetchedToken:
    """The token of a response and how long it lives; ``now`` in seconds since the epoch.

    Raises TokenError.
    """
    token = _at(document, fields.token)
    if not isinstance(token, str) or _ACCESS_TOKEN.fullmatch(token) is None:
        raise _without_token(document, fields, token)
    _check_type(_at(document, "token_type"), fields)
    lifetime, remarks = _lifetime(document, fields, now)
    fetched = FetchedToken(token.encode("ascii"), lifetime, remarks=remarks)
    return _compare_scopes(fetched, _at(document, "scope"), fields.scope)


def _without_token(document: Any, fields: TokenFields, token: Any) -> TokenError:
    error = error_in(document)
    if token is None and error.code:
        code = f" {error.public}" if error.public else ""
        return TokenError(
            f"the token endpoint answered with an error{code}",
            details=f"the token endpoint answered with an error: {error.redacted(())}",
            invalid_response=True,
        )
    if token is None:
        why = f"it has no {fields.token}"
    elif not isinstance(token, str):
        why = f"{fields.token} is no string"
    elif not token:
        why = f"{fields.token} is empty"
    else:
        why = f"{fields.token} has characters that no access token has (RFC 6749 appendix A.12)"
    return TokenError(
        "the response holds no usable token",
        details=f"the response holds no usable token: {why}",
        invalid_response=True,
    )


def _check_type(kind: Any, fields: TokenFields) -> None:
    name = kind.strip().lower() if isinstance(kind, str) else ""
    if fields.token_type is not None:
        if name != fields.token_type:
            raise TokenError(
                f"the token is not of the type {fields.token_type}",
                details=f"the token is not of the type {fields.token_type}, though a proof was "
                "sent: the server does not bind it to the key",
                invalid_response=True,
            )
    elif name in _UNUSABLE_TYPES:
        advice = "Add dpop: to token: of the strategy." if name == "dpop" else ""
        raise TokenError(
            "the token is of a type that needs a proof with each request"
            if name != "n_a"
            else "the response holds something other than an access token",
            advice=advice,
            invalid_response=True,
        )


def _lifetime(document: Any, fields: TokenFields, now: float) -> tuple[float, tuple[str, ...]]:
    """Seconds, and what is odd about what the response has for it."""
    for name in fields.expiry:
        if (found := _at(document, name)) is None:
            continue
        lifetime = lifetime_of(found, now)
        if lifetime is None:
            why = f"{name} in the token endpoint's response cannot be read"
        elif lifetime == 0 and fields.zero == "never":
            return _LONGEST_LIFE, ()
        elif lifetime <= 0:
            why = f"{name} in the token endpoint's response is not in the future"
        else:
            return min(lifetime, _LONGEST_LIFE), ()
        assumed = fields.lifetime_seconds
        return assumed, (f"{why}: {assumed:g} s are assumed (lifetime_seconds)",)
    return fields.lifetime_seconds, ()


def _compare_scopes(fetched: FetchedToken, granted: Any, asked: str | None) -> FetchedToken:
    """RFC 6749 section 5.1: a response may leave the scope out only if it is what was asked."""
    wanted = set((asked or "").split())
    if not wanted:
        return fetched
    given = _scopes(granted)
    if given is None:
        given = _scopes_of_jwt(fetched.value)
    # Names that stand for others are not repeated: OpenID Connect's, and Microsoft's .default.
    wanted = {one for one in wanted if not one.endswith("/.default") and one not in _NO_PERMISSION}
    if given is None:
        asked_for = " ".join(sorted(wanted))
        note = f"asked for the scope {asked_for}: the server does not state what it granted"
        return replace(fetched, notes=(*fetched.notes, note)) if wanted else fetched
    lacking = " ".join(sorted(wanted - given))
    if not lacking:
        return fetched
    got = " ".join(sorted(given)) or "nothing"
    remark = f"the server did not grant all of the scope: {lacking} is missing, granted was {got}"
    return replace(fetched, remarks=(*fetched.remarks, remark))


# OpenID Connect Core sections 5.4 and 11: these scopes do not apply to the access token.
_NO_PERMISSION = frozenset({"openid", "offline_access", "profile", "email", "address", "phone"})


def _scopes(value: Any) -> set[str] | None:
    """A scope as the standard has it, or as the list that some servers make of it."""
    if isinstance(value, str):
        return set(re.split(r"[\s,]+", value.strip())) - {""}
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return set(value)
    return None


def _scopes_of_jwt(token: bytes) -> set[str] | None:
    """RFC 9068 section 2.2.3, and ``scp`` as Microsoft and Okta name it. Not verified: not ours."""
    parts = token.split(b".")
    if len(parts) != 3:
        return None
    try:
        payload = json.loads(base64url.decode(parts[1].decode("ascii")))
    except (ValueError, RecursionError):
        return None
    if not isinstance(payload, dict):
        return None
    return next(
        (found for name in ("scope", "scp") if (found := _scopes(payload.get(name))) is not None),
        None,
    )


def _at(document: Any, path: str) -> Any:
    """The value at a dotted path, None if there is none."""
    for name in path.split("."):
        if not isinstance(document, dict):
            return None
        document = document.get(name)
    return document


def lifetime_of(value: Any, now: float) -> float | None:
    """Seconds of life that a value means: a span, an epoch time or RFC 3339, number or text.

    A number is a span unless it is too large for one. None for what cannot be read.
    """
    number = _number(value)
    if number is None:
        moment = _moment(value)
        return None if moment is None else moment - now
    if number > _MILLISECONDS:
        number /= 1000
    return number if number < _LONGEST_SPAN else number - now


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None


def _moment(value: Any) -> float | None:
    """RFC 3339, which always names its zone and may be in lower case; seconds since the epoch."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.upper())
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment.timestamp()
