"""What keyrelay did with one exchange, for the inspector: recorded while it has subscribers.

Holds names, safe values and times; no credential, no body, no value of a query. The rest of the
text is redacted when it is shown, as the path is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

# Bounds of what is kept: fields of one message, characters of a name and of a value.
_FIELDS: Final = 100
_NAME: Final = 100
_VALUE: Final = 200

# Fields whose values say what a message is, and nothing about its sender.
_SAFE: Final = frozenset(
    {
        "accept-ranges",
        "age",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "retry-after",
        "transfer-encoding",
        "upgrade",
    }
)
# The usual prefixes of rate limits (draft-ietf-httpapi-ratelimit-headers and its predecessors).
_LIMITS: Final = ("ratelimit", "x-ratelimit", "x-rate-limit", "anthropic-ratelimit")


def shown_fields(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str | None]]:
    """Return the names of fields, with the value where it is safe to show, else None."""
    shown: list[tuple[str, str | None]] = []
    for name, value in fields:
        text = name.decode("latin-1")[:_NAME]
        lower = text.lower()
        safe = lower in _SAFE or lower.startswith(_LIMITS)
        shown.append((text, value.decode("latin-1").strip()[:_VALUE] if safe else None))
        if len(shown) == _FIELDS:
            break
    return shown


@dataclass(frozen=True, slots=True)
class UsedSecret:
    """A secret from which the credential was made: its name, source and fingerprint."""

    name: str
    reference: str
    fingerprint: str


@dataclass(slots=True)
class DialTimes:
    """Seconds that the parts of opening a connection took; 0 for a part that was not needed.

    A ``DialClock``; ``start`` begins each dial.
    """

    resolve: float = 0.0
    connect: float = 0.0
    tls: float = 0.0
    _at: float = 0.0

    def start(self) -> None:
        """Begin to measure."""
        self._at = time.perf_counter()

    def resolved(self) -> None:
        """End the resolution of the name."""
        self.resolve += self._lap()

    def connected(self) -> None:
        """End the opening of the TCP connection."""
        self.connect += self._lap()

    def secured(self) -> None:
        """End the TLS handshake."""
        self.tls += self._lap()

    def _lap(self) -> float:
        before, self._at = self._at, time.perf_counter()
        return self._at - before


@dataclass(slots=True, eq=False)
class ExchangeDetail:
    """One exchange, from the credential to the end of the response.

    target           URL that was sent, without credential and values of the query
    removed          names of the client's fields and query parameters that were not forwarded
    request_fields   of the client's request that were forwarded, as ``shown_fields`` returns them
    response_fields  of the provider's response
    placements       where the credential was placed (``header Authorization``)
    secrets          from which it was made
    token            "" if the secrets are the credential themselves, else what the token is
    connection       new, kept or spare; "" until the request is sent
    steps            what happened besides, in sentences, in order
    """

    target: str = ""
    removed: tuple[str, ...] = ()
    request_fields: list[tuple[str, str | None]] = field(default_factory=list)
    response_fields: list[tuple[str, str | None]] = field(default_factory=list)
    placements: tuple[str, ...] = ()
    secrets: tuple[UsedSecret, ...] = ()
    token: str = ""
    connection: str = ""
    steps: list[str] = field(default_factory=list)
    dial: DialTimes = field(default_factory=DialTimes)
    _token_seconds: float = 0.0
    _wait_seconds: float = 0.0
    _sent_at: float | None = None

    def token_waited(self, seconds: float) -> None:
        """Record that the request waited for its credential."""
        self._token_seconds += seconds

    def sent(self) -> None:
        """Record that the request, or a repetition of it, is sent now."""
        self._sent_at = time.perf_counter()

    def responded(self) -> None:
        """Record that the header section of a response has arrived, or that none will."""
        if self._sent_at is not None:
            self._wait_seconds += time.perf_counter() - self._sent_at
            self._sent_at = None

    def timings(self, total: float, first_byte: float) -> Mapping[str, float]:
        """Return the phases in milliseconds. ``total`` and ``first_byte`` are of the record.

        ``other`` is keyrelay's own time and that of the client's request body.
        """
        wait = self._wait_seconds
        if self._sent_at is not None:
            wait += time.perf_counter() - self._sent_at
        phases = {
            "token": self._token_seconds,
            "resolve": self.dial.resolve,
            "connect": self.dial.connect,
            "tls": self.dial.tls,
            "wait": wait,
            "transfer": max(0.0, total - first_byte) if first_byte >= 0 else 0.0,
        }
        phases["other"] = max(0.0, total - sum(phases.values()))
        return {name: seconds * 1000 for name, seconds in phases.items()}

    def as_json(self, total: float, first_byte: float) -> dict[str, Any]:
        """Return the JSON representation for the inspector page, before redaction."""
        return {
            "target": self.target,
            "removed": list(self.removed),
            "request_fields": self.request_fields,
            "response_fields": self.response_fields,
            "placements": list(self.placements),
            "secrets": [
                {"name": one.name, "reference": one.reference, "fingerprint": one.fingerprint}
                for one in self.secrets
            ],
            "token": self.token,
            "connection": self.connection,
            "steps": list(self.steps),
            "timings_ms": self.timings(total, first_byte),
        }
