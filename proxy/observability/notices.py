"""Lines for the operator about clients that are configured for something else.

Such a client often shows no more than a failed connection, so the operator's terminal has to have
the reason. One line for each kind a minute: a client that retries fills no terminal.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.errors import Refusal

_SECONDS = 60.0


class Notices:
    """Rate-limited lines about refusals with a ``notice``.

    write  receives a line
    now    a monotonic clock in seconds
    """

    def __init__(self, write: Callable[[str], object], now: Callable[[], float]) -> None:
        self._write = write
        self._now = now
        # By kind and constant detail, so the number of entries is bounded: time of the last line,
        # and refusals since.
        self._last: dict[tuple[str, str], tuple[float, int]] = {}

    def refused(self, refusal: Refusal) -> None:
        """Write the notice of a refusal unless one of its kind was written within a minute."""
        if not refusal.notice:
            return
        key, now = (refusal.kind, refusal.detail), self._now()
        last, unwritten = self._last.get(key, (-_SECONDS, 0))
        if now - last < _SECONDS:
            self._last[key] = last, unwritten + 1
            return
        self._last[key] = now, 0
        more = f" ({unwritten} more before it)" if unwritten else ""
        advice = f" {refusal.advice}" if refusal.advice else ""
        self._write(f"refused a request: {refusal.notice}{advice}{more}")
