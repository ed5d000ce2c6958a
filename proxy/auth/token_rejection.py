"""Decide whether a token that the provider rejects (401) is replaced by a new one.

A revoked token is. Where a new one does not help, as with a request that the account may not make,
rejections must not cause a storm of token requests.
"""

from __future__ import annotations

import math

from proxy.auth.token import Token
from proxy.clock import Clock

# A token that has served and is then rejected is replaced at once: it was revoked. A successor that
# is rejected before it has served shows that another one does not help; then rejections cause a
# call at most this often (seconds), and first a little more often if it serves other requests.
_PAUSE = 30.0
_PAUSE_FIRST = 1.0
# Where a token serves some requests and is rejected for others, so many replacements happen at once
# and then one in this time (seconds) or a quarter of a lifetime, if that is shorter (no storms).
_REPLACEMENTS = 3.0
_REPLACEMENT_SECONDS = 10.0


class TokenRejections:
    """The tokens of one credential that served, and those that were rejected."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._replaced_at = -math.inf
        # Replacements that are allowed now, as counted at that time.
        self._replacements = _REPLACEMENTS
        self._counted_at = clock.monotonic()
        # Successors in a row that were rejected before they had served.
        self._futile = 0
        # The last token that served, and the last that was rejected before it had.
        self._served: Token | None = None
        self._useless: Token | None = None

    def note_served(self, token: Token) -> None:
        """The provider took ``token``. To be called often, so it does next to nothing."""
        if self._served is not token:
            self._served = token
            if self._useless is not token:
                self._futile = 0

    def note_rejected(self, token: Token) -> bool:
        """Count the rejection of ``token``. Whether it had served before."""
        served = self._served is token
        if not served and self._useless is not token:
            self._useless = token
            self._futile += 1
        return served

    def may_replace(self, token: Token, *, served: bool) -> bool:
        """Whether a rejected token is worth a token request now."""
        since = self._clock.monotonic() - self._replaced_at
        if not served:
            return since >= _PAUSE
        if self._futile and since < min(_PAUSE_FIRST * 2.0**self._futile, _PAUSE):
            return False
        each = min(_REPLACEMENT_SECONDS, token.fetched.lifetime_seconds / 4)
        now = self._clock.monotonic()
        self._replacements += (now - self._counted_at) / each
        self._replacements = min(self._replacements, _REPLACEMENTS)
        self._counted_at = now
        if self._replacements < 1:
            return False
        self._replacements -= 1
        return True

    def note_replaced(self) -> None:
        """Begin the pause after a replacement."""
        self._replaced_at = self._clock.monotonic()

    def reset(self) -> None:
        """Allow a replacement at once."""
        self._replaced_at = -math.inf
        self._futile = 0
        self._replacements = _REPLACEMENTS
