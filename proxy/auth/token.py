"""Tokens: what a source gives, what is in use, and why there is none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from proxy.clock import Clock, format_span
from proxy.errors import KeyrelayError


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class FetchedToken:
    """What a source returns: the token, and its validity from now in seconds.

    renew_seconds  when to fetch the next one, if the source states more than the lifetime
    refused        called when the provider refuses this very token, with whether it had served
    superseded     for tokens that may be revoked while they are in use, as another process can
                   replace them: whether that has happened. Never raises
    counts         calls that came to an end for it, and how many of them gave no token
    remarks        warnings for the operator, such as scopes that were not granted
    notes          remarks shown only where the token is examined
    whole_seconds  the lifetime with which it was issued, of a token that is not new
    """

    value: bytes
    lifetime_seconds: float
    renew_seconds: float | None = None
    refused: Callable[[bool], object] = lambda _served: None
    superseded: Callable[[], Awaitable[bool]] | None = None
    counts: tuple[int, int] = (1, 0)
    remarks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    whole_seconds: float | None = None


# Renewal begins when this share of the lifetime is left, but no more than five minutes (seconds),
# so that a day's token is not thrown away hours early.
_RENEW_SHARE = 0.2
_RENEW_MOST = 300.0


def renewal_seconds(lifetime_seconds: float) -> float:
    """How long before its end a token is due for renewal, without what is random about it."""
    return min(lifetime_seconds * _RENEW_SHARE, _RENEW_MOST)


class TokenError(KeyrelayError):
    """No token could be had.

    reason         why, in a text of ours that may be shown to clients
    details        the same with what the token endpoint wrote, cut and redacted: for the operator
    advice         what to do about it, "" if it is only to be waited for
    invalid_response     there was a response, without a usable token (502 instead of 503)
    pause_seconds  minimum delay before the next try, if the response has one
    lasting        the cause lasts until something is changed, so that waiting does not help
    probes         whether a request may cause a call within the pause, in case it was changed
    spaced         the calls are spaced elsewhere
    counts         as of ``FetchedToken``
    """

    def __init__(
        self,
        reason: str,
        *,
        details: str = "",
        advice: str = "",
        invalid_response: bool = False,
        pause_seconds: float = 0.0,
        lasting: bool = False,
        probes: bool = False,
        spaced: bool = False,
        counts: tuple[int, int] = (1, 1),
    ) -> None:
        self.reason = reason
        self.details = details or reason
        self.advice = advice
        self.invalid_response = invalid_response
        self.pause_seconds = pause_seconds
        self.lasting = lasting
        self.probes = probes
        self.spaced = spaced
        self.counts = counts
        super().__init__(reason)


class TokenSource(Protocol):
    """Where tokens come from."""

    async def fetch(self) -> FetchedToken:
        """A new token. Raises TokenError. May be cancelled."""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Token:
    """A token in use. Compared by identity; holds secret bytes: never printed.

    Times are readings of the clock: ``…_at`` monotonic, ``wall_end`` since the epoch. The wall
    clock counts too, because the monotonic one stands still while a laptop sleeps.
    """

    value: bytes
    obtained_at: float
    renew_at: float
    unusable_at: float
    wall_end: float
    fetched: FetchedToken

    def usable(self, clock: Clock) -> bool:
        return clock.monotonic() < self.unusable_at and clock.wall() < self.wall_end


@dataclass(frozen=True, slots=True)
class TokenState:
    """How a token is, without the token.

    age_seconds        None if there is no usable token; so is ``renews_in_seconds``
    fetches, failures  calls that came to an end, and how many of them gave no token
    reason             why the last call gave none, in the endpoint's words; "" if it gave one
    advice             what to do about it
    remarks, notes     as of ``FetchedToken``
    """

    age_seconds: float | None
    renews_in_seconds: float | None
    fetches: int
    failures: int
    reason: str
    advice: str = ""
    remarks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.age_seconds is None or self.renews_in_seconds is None:
            return f"no token: {self.reason}" if self.reason else "no token yet"
        age, renewal = format_span(self.age_seconds), format_span(self.renews_in_seconds)
        return "; ".join((f"token {age} old, renewed in {renewal}", *self.remarks))
