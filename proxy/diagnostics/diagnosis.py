"""What doctor makes of what it saw: pure judgement, no I/O."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple

Mark = Literal["ok", "warn", "fail", "skip"]

_DAY = 86_400.0  # seconds
# A certificate with less left (days) should have been renewed by now: the usual ones live for 90
# and are renewed with 30 left.
_CERTIFICATE_DAYS = 14
# Providers that check signatures of requests and tokens bear about this much (seconds).
_SKEW_SECONDS = 60.0


class Diagnosis(NamedTuple):
    """How one step went: what was found, in a sentence, and what to do about it, "" if nothing."""

    mark: Mark
    finding: str
    advice: str = ""


def of_certificate(version: str | None, certificate: Mapping[str, Any], wall: float) -> Diagnosis:
    """Of a verified one, as ``getpeercert`` gives it, at ``wall`` (seconds since the epoch)."""
    names = ", ".join(value for _, value in certificate.get("subjectAltName", ())[:3])
    ends = ssl.cert_time_to_seconds(certificate["notAfter"])
    days = int((ends - wall) / _DAY)
    text = f"{version}, certificate of {names}, valid until {datetime.fromtimestamp(ends, UTC):%F}"
    if days >= _CERTIFICATE_DAYS:
        return Diagnosis("ok", text)
    advice = "Its owner has to renew it; after that day nothing connects."
    return Diagnosis("warn", f"{text}: {days} days are left", advice)


def of_plain_http(*, loopback: bool) -> Diagnosis:
    """Of a connection without TLS."""
    if loopback:
        return Diagnosis("skip", "plain http on this machine")
    return Diagnosis(
        "warn",
        "none: everybody on the way can read the credential",
        "Write https:// and take allow_plaintext away.",
    )


def of_clock(dates: list[bytes], wall: float) -> Diagnosis:
    """Of the ``Date`` fields of a response (RFC 9110 section 6.6.1) received at ``wall``."""
    try:
        date = parsedate_to_datetime(dates[0].decode("ascii")).timestamp()
    except (IndexError, ValueError, OverflowError):
        return Diagnosis("skip", "the provider does not say what time it is")
    ahead = date - wall
    if abs(ahead) <= _SKEW_SECONDS:
        return Diagnosis("ok", f"within {_SKEW_SECONDS:.0f} s of the provider's")
    return Diagnosis(
        "warn",
        f"{abs(ahead):.0f} s {'behind' if ahead > 0 else 'ahead of'} the provider's",
        "Set this machine's clock: signatures and tokens fail if it is wrong.",
    )


def of_unused_proxy(environment: Mapping[str, str], used: bool) -> Diagnosis | None:
    """Of the environment's proxy after a failure on the way; None if there is nothing to note.

    used  whether an egress proxy is on the way
    """
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        if environment.get(name) and not used:
            return Diagnosis(
                "warn",
                f"{name} is set and not used",
                f"If only that proxy reaches the provider, write egress_proxy: env:{name}.",
            )
    return None


def of_answer(call: str, status: int, docs: str | None) -> Diagnosis:
    """Of the response to a call with the credential. ``docs`` is the provider's page on keys."""
    answered = f"{call} was answered {status}"
    if 200 <= status < 300:
        return Diagnosis("ok", answered)
    if status in {401, 403}:
        advice = "Is the key whole, not revoked, and allowed to do this?"
        return Diagnosis(
            "fail",
            f"{answered}: the credential is refused",
            f"{advice} See {docs}" if docs else advice,
        )
    advice = "This says nothing about the credential; try again, or try the call itself."
    return Diagnosis("warn", answered, advice)
