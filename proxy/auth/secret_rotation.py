"""The strategy whose secret has several values: a new key beside the old one while it is rotated.

The first value is used. When the provider refuses it, the next one replaces it, with a warning,
until that one is refused as well; then the one after it, and after the last the first again. So a
key may be changed at the provider before, while or after it is changed here.

A refusal moves on also where its request cannot be sent again, as its body is large, so that
nothing has shown yet that the next value is taken: a client that sends no other requests would
never get through. If that value is refused in turn, the next request comes back by itself.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from proxy.auth.injection import Injection
from proxy.auth.strategy import CredentialState, IssuedToken, SecretState, Strategy
from proxy.clock import Clock
from proxy.errors import Refusal
from proxy.http.path_patterns import PatternSet
from proxy.secrets.secret import Secret

# A value that has been unused for this long (seconds) can be removed.
UNUSED_SECONDS = 7 * 86_400.0
# Where every value is refused each request tries them all; interval of the warning (seconds).
_SAY_AGAIN_SECONDS = 60.0

_Got = TypeVar("_Got")


@dataclass(frozen=True, slots=True)
class Variant:
    """The same strategy with one set of values; ``secrets`` are those that it alone has."""

    strategy: Strategy
    secrets: tuple[Secret, ...]

    def __str__(self) -> str:
        return ", ".join(f"{one.reference} ({one.fingerprint()})" for one in self.secrets)


class _Use:
    """Use of a variant. Times are seconds since the epoch; ``said_at`` is monotonic."""

    __slots__ = ("last_refused", "last_served", "refused", "said_at", "served")

    def __init__(self) -> None:
        self.served = 0
        self.refused = 0
        self.last_served: float | None = None
        self.last_refused: float | None = None
        self.said_at = -math.inf


class RotatingStrategy(Strategy):
    """Tries the variants in turn.

    refused  statuses with which the provider refuses a key
    warn     gets a line when another variant takes over
    """

    __slots__ = ("_at", "_clock", "_refused", "_uses", "_variants", "_warn")

    def __init__(
        self,
        name: str,
        paths: PatternSet | None,
        variants: Sequence[Variant],
        *,
        refused: frozenset[int],
        clock: Clock,
        warn: Callable[[str], object],
    ) -> None:
        super().__init__(name, paths)
        self._variants = tuple(variants)
        self._uses = tuple(_Use() for _ in variants)
        self._refused = refused
        self._clock = clock
        self._warn = warn
        self._at = 0

    @property
    def _current(self) -> Strategy:
        return self._variants[self._at].strategy

    def carries(self, *, websocket: bool) -> bool:
        return self._variants[0].strategy.carries(websocket=websocket)

    def ready(self, *, websocket: bool) -> Injection | None:
        return self._current.ready(websocket=websocket)

    async def obtain(self, *, websocket: bool, certain: bool = False) -> Injection:
        return await self._first(lambda one: one.obtain(websocket=websocket, certain=certain))

    @property
    def revocable(self) -> bool:
        return self._current.revocable

    async def _first(self, ask: Callable[[Strategy], Awaitable[_Got]]) -> _Got:
        """What the current variant gives, or the first behind it that gives anything."""
        for _ in self._variants[1:]:
            at = self._at
            try:
                return await ask(self._current)
            except Refusal as refusal:
                # No token can be fetched with these values: the token endpoint refused them.
                if at == self._at:
                    self._count_refusal(at)
                    why = refusal.detail.removesuffix(".")
                    self._move_on(f"no token from {self._variants[at]} ({why})")
        return await ask(self._current)

    @property
    def renewable(self) -> bool:
        return True

    @property
    def replays(self) -> int:
        # Each variant once, and once more with what it may have renewed.
        each = 1 + self._variants[0].strategy.replays
        return each * len(self._variants) - 1

    def refused(self, injection: Injection, status: int) -> bool:
        at = self._holder(injection)
        if not self._refuses(status):
            if at is not None:
                if self._variants[at].strategy.renewable:
                    self._variants[at].strategy.refused(injection, status)
                self._uses[at].served += 1
                self._uses[at].last_served = self._clock.wall()
            return False
        if at is not None and at == self._at and self._current.refused(injection, status):
            return True  # a token, and there may be another one from the same values
        if at is not None:
            self._count_refusal(at)
        if at == self._at:
            self._move_on(f"the provider refuses {self._variants[at]}")
        # Of another variant, or of a token that is gone: something else is in use since.
        return True

    def _holder(self, injection: Injection) -> int | None:
        """Which variant an injection is of, unless it is of a token that has been replaced."""
        for at, variant in enumerate(self._variants):
            if any(one is injection for one in variant.strategy.active_injections()):
                return at
        return None

    def _refuses(self, status: int) -> bool:
        current = self._current
        return current.refuses(status) if current.renewable else status in self._refused

    def _count_refusal(self, at: int) -> None:
        self._uses[at].refused += 1
        self._uses[at].last_refused = self._clock.wall()

    def _move_on(self, why: str) -> None:
        use = self._uses[self._at]
        self._at = (self._at + 1) % len(self._variants)
        new = self._variants[self._at]
        new.strategy.start()
        now = self._clock.monotonic()
        if now - use.said_at >= _SAY_AGAIN_SECONDS:
            use.said_at = now
            self._warn(f"{why}; {new} serves now")

    def active_injections(self) -> tuple[Injection, ...]:
        return tuple(
            one for variant in self._variants for one in variant.strategy.active_injections()
        )

    def reset(self) -> None:
        self._at = 0
        for variant in self._variants:
            variant.strategy.reset()

    def start(self) -> None:
        self._current.start()

    async def wait_ready(self) -> None:
        await self._current.wait_ready()

    def close(self) -> None:
        for variant in self._variants:
            variant.strategy.close()

    @property
    def vends(self) -> bool:
        return self._current.vends

    async def vend(self) -> IssuedToken:
        return await self._first(lambda one: one.vend())

    def state(self) -> CredentialState:
        states = [variant.strategy.state() for variant in self._variants]
        tokens = [None if one is None else one.token for one in states]
        token = tokens[self._at]
        if token is not None:
            # Counts only ever grow, whichever variant is in use.
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
                )
                for variant, use in zip(self._variants, self._uses, strict=True)
                for secret in variant.secrets
            ),
        )

    def describe(self) -> str:
        using = f"{self._variants[self._at]} in use, of {len(self._variants)}"
        return ", ".join(filter(None, (using, self._current.describe())))
