"""A credential whose secret has several values: a new key beside the old one during a rotation.

The first value is used. When the provider rejects it, the next value is used instead, with a
warning, until that one is rejected as well; then the one after it, and the first again. A key can
therefore be changed at the provider before, during or after the change here.

A rejection moves on even if its request cannot be sent again because of its large body, when it is
undecided whether the next value is accepted: a client that sends no other requests would never
succeed. If that value is rejected too, the next request returns to the previous one.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from proxy.auth.credential import Credential, CredentialState, IssuedToken, SecretState
from proxy.auth.injection import Injection
from proxy.clock import Clock
from proxy.errors import Refusal
from proxy.secrets.secret import Secret

# A value unused for this long (seconds) can be removed.
UNUSED_SECONDS = 7 * 86_400.0
# If every value is rejected, each request tries them all; minimum seconds between warnings.
_WARN_SECONDS = 60.0

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Variant:
    """The credential with one set of values; ``secrets`` are those of this variant alone."""

    credential: Credential
    secrets: tuple[Secret, ...]

    def __str__(self) -> str:
        return ", ".join(f"{one.reference} ({one.fingerprint()})" for one in self.secrets)


class _Use:
    """Statistics of a variant. Times are seconds since the epoch; ``warned_at`` is monotonic."""

    __slots__ = ("last_refused", "last_served", "refused", "served", "warned_at")

    def __init__(self) -> None:
        self.served = 0
        self.refused = 0
        self.last_served: float | None = None
        self.last_refused: float | None = None
        self.warned_at = -math.inf


class RotatingCredential(Credential):
    """Tries the variants in turn.

    refused  statuses with which the provider rejects a key
    warn     receives a line when another variant is used
    """

    __slots__ = ("_at", "_clock", "_refused", "_uses", "_variants", "_warn")

    def __init__(
        self,
        variants: Sequence[Variant],
        *,
        refused: frozenset[int],
        clock: Clock,
        warn: Callable[[str], object],
    ) -> None:
        self._variants = tuple(variants)
        self._uses = tuple(_Use() for _ in variants)
        self._refused = refused
        self._clock = clock
        self._warn = warn
        self._at = 0

    @property
    def _current(self) -> Credential:
        return self._variants[self._at].credential

    def ready(self, *, websocket: bool) -> Injection | None:
        return self._current.ready(websocket=websocket)

    async def obtain(self, *, websocket: bool, certain: bool = False) -> Injection:
        return await self._first_of(lambda one: one.obtain(websocket=websocket, certain=certain))

    @property
    def revocable(self) -> bool:
        return self._current.revocable

    async def _first_of(self, request: Callable[[Credential], Awaitable[_Result]]) -> _Result:
        """Return the result of the current variant, or of the first after it that has one."""
        for _ in self._variants[1:]:
            at = self._at
            try:
                return await request(self._current)
            except Refusal as refusal:
                # No token for these values: the token endpoint rejects them.
                if at == self._at:
                    self._count_refusal(at)
                    detail = refusal.detail.removesuffix(".")
                    self._move_on(f"no token from {self._variants[at]} ({detail})")
        return await request(self._current)

    @property
    def renewable(self) -> bool:
        return True

    @property
    def replays(self) -> int:
        # Each variant once, and again with its renewed credential.
        each = 1 + self._variants[0].credential.replays
        return each * len(self._variants) - 1

    def on_response(self, injection: Injection, status: int) -> bool:
        if self._rejected(status):
            return self.on_rejection(injection)
        at = self._holder(injection)
        if at is not None:
            if self._variants[at].credential.renewable:
                self._variants[at].credential.on_response(injection, status)
            self._uses[at].served += 1
            self._uses[at].last_served = self._clock.wall()
        return False

    def on_rejection(self, injection: Injection) -> bool:
        at = self._holder(injection)
        if at is not None and at == self._at and self._current.on_rejection(injection):
            return True  # a token; the same values may obtain another one
        if at is not None:
            self._count_refusal(at)
        if at == self._at:
            self._move_on(f"the provider refuses {self._variants[at]}")
        # An injection of another variant or of a replaced token: another one is in use.
        return True

    def _holder(self, injection: Injection) -> int | None:
        """Return the variant of an injection; None for a token that has been replaced."""
        for at, variant in enumerate(self._variants):
            if any(one is injection for one in variant.credential.active_injections()):
                return at
        return None

    def _rejected(self, status: int) -> bool:
        current = self._current
        return current.rejects(status) if current.renewable else status in self._refused

    def _count_refusal(self, at: int) -> None:
        self._uses[at].refused += 1
        self._uses[at].last_refused = self._clock.wall()

    def _move_on(self, reason: str) -> None:
        use = self._uses[self._at]
        self._at = (self._at + 1) % len(self._variants)
        new = self._variants[self._at]
        new.credential.start()
        now = self._clock.monotonic()
        if now - use.warned_at >= _WARN_SECONDS:
            use.warned_at = now
            self._warn(f"{reason}; {new} serves now")

    def sources(self, injection: Injection) -> tuple[SecretState, ...]:
        at = self._holder(injection)
        # A replaced token is of no variant that is still known.
        return () if at is None else self._variants[at].credential.sources(injection)

    def active_injections(self) -> tuple[Injection, ...]:
        return tuple(
            one for variant in self._variants for one in variant.credential.active_injections()
        )

    def reset(self) -> None:
        self._at = 0
        for variant in self._variants:
            variant.credential.reset()

    def start(self) -> None:
        self._current.start()

    async def wait_ready(self) -> None:
        await self._current.wait_ready()

    def close(self) -> None:
        for variant in self._variants:
            variant.credential.close()

    @property
    def vends(self) -> bool:
        return self._current.vends

    async def vend(self) -> IssuedToken:
        return await self._first_of(lambda one: one.vend())

    def state(self) -> CredentialState:
        states = [variant.credential.state() for variant in self._variants]
        tokens = [None if one is None else one.token for one in states]
        token = tokens[self._at]
        if token is not None:
            # Sums over all variants, so that counters never decrease.
            every = [one for one in tokens if one is not None]
            fetches = sum(one.fetches for one in every)
            failures = sum(one.failures for one in every)
            token = replace(token, fetches=fetches, failures=failures)
        return CredentialState(
            token,
            tuple(
                SecretState(
                    secret.name,
                    secret.reference,
                    secret.fingerprint(),
                    use.served,
                    use.last_served,
                    use.refused,
                    use.last_refused,
                    position == self._at,
                )
                for position, (variant, use) in enumerate(
                    zip(self._variants, self._uses, strict=True)
                )
                for secret in variant.secrets
            ),
        )

    def describe(self) -> str:
        using = f"{self._variants[self._at]} in use, of {len(self._variants)}"
        return ", ".join(filter(None, (using, self._current.describe())))
