"""proxy.auth.tokens.response."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from proxy.auth.token_cache import FetchedToken, TokenError

# RFC 6750 section 2.1: also keeps a token from ending the header that it is put into.
_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
# Times since the epoch above this are milliseconds: as seconds it is the year 5138.
_MILLISECONDS = 1e11
# Numbers from here on are moments: no token lives for thirty years.
_LONGEST_SPAN = 1e9


@dataclass(frozen=True, slots=True)
class TokenFields:
    """Where an answer has what matters. Dots lead into objects: ``client_secret.value``.

    token             the token
    expiry            seconds, or a moment (RFC 3339 or since the epoch), first that is there
    lifetime_seconds  what is assumed if the answer does not say
    bearer            ``token_type``, if there is one, must be ``bearer`` (RFC 6749 section 7.1)
    """

    token: str
    expiry: tuple[str, ...]
    lifetime_seconds: float
    bearer: bool = True


def read_token(answer: Any, fields: TokenFields, now: float) -> FetchedToken:
    """The token of an answer and how long it lives; ``now`` in seconds since the epoch.

    Raises TokenError.
    """
    token = _at(answer, fields.token)
    if not isinstance(token, str) or _B64TOKEN.fullmatch(token) is None:
        raise TokenError("the answer holds no usable token", bad_answer=True)
    kind = _at(answer, "token_type")
    if fields.bearer and kind is not None and str(kind).lower() != "bearer":
        raise TokenError("the token is of a type that is not bearer", bad_answer=True)
    lifetime = fields.lifetime_seconds
    for name in fields.expiry:
        if (found := _at(answer, name)) is not None:
            lifetime = lifetime_of(found, now)
            break
    if lifetime <= 0:
        raise TokenError("the token had already expired when it came", bad_answer=True)
    return FetchedToken(token.encode("ascii"), lifetime)


def _at(document: Any, path: str) -> Any:
    """The value at a dotted path, None if there is none."""
    for name in path.split("."):
        if not isinstance(document, dict):
            return None
        document = document.get(name)
    return document


def lifetime_of(said: Any, now: float) -> float:
    """Seconds of life that an answer gives: a span, an epoch time or RFC 3339, number or text.

    A number is a span unless it is too large for one. Raises TokenError for what cannot be read.
    """
    number = _number(said)
    if number is None:
        moment = _moment(said)
        if moment is None:
            raise TokenError("the token's lifetime cannot be read", bad_answer=True)
        return moment - now
    if number > _MILLISECONDS:
        number /= 1000
    return number if number < _LONGEST_SPAN else number - now


def _number(said: Any) -> float | None:
    try:
        number = float(said)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and not isinstance(said, bool) else None


def _moment(said: Any) -> float | None:
    """RFC 3339, which always names its zone and may be in lower case; seconds since the epoch."""
    if not isinstance(said, str):
        return None
    try:
        moment = datetime.fromisoformat(said.upper())
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment.timestamp()
