"""Bounds on request header sections that have not arrived completely.

The parser keeps them in memory; its own bounds, for lines and fields, permit 2 MiB for each
connection.
"""

from __future__ import annotations

from proxy.errors import Refusal

MAX_HEAD_BYTES = 64 * 1024
# Of all connections together. A section that arrives with one read does not count.
_MAX_TOTAL_BYTES = 16 * 1024 * 1024


class HeadTooLarge(Exception):
    """A header section is over a bound. ``refusal`` is the response to it."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.kind)


def head_too_large() -> HeadTooLarge:
    """One request's header section is over ``MAX_HEAD_BYTES``."""
    return HeadTooLarge(
        Refusal(431, "head-too-large", "The request's header section is over 64 KiB.")
    )


class HeadBudget:
    """Bytes of incomplete header sections on all connections of a process."""

    def __init__(self, max_bytes: int = _MAX_TOTAL_BYTES) -> None:
        self._max_bytes = max_bytes
        self.held = 0

    def take(self, size: int) -> None:
        """Count ``size`` bytes more, to be given back. Raises HeadTooLarge beyond the bound."""
        self.held += size
        if self.held > self._max_bytes:
            raise HeadTooLarge(
                Refusal(
                    503,
                    "too-many-connections",
                    "Too many requests have sent a part of their header section only.",
                    "Try again; send header sections at once.",
                    proxy_error="connection_limit_reached",
                    headers=(("Retry-After", "1"),),
                )
            )

    def give_back(self, size: int) -> None:
        self.held -= size
