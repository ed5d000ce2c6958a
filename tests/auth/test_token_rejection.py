"""When a rejected token is replaced; through the cache: tests.auth.test_token_cache."""

from __future__ import annotations

from proxy.auth.token import FetchedToken, Token
from proxy.auth.token_rejection import TokenRejections
from tests.support.clock import ManualClock


def token(lifetime: float = 3600) -> Token:
    fetched = FetchedToken(b"dummy-token", lifetime)
    return Token(
        b"dummy-token",
        obtained_at=0,
        renew_at=lifetime,
        unusable_at=lifetime,
        wall_end=lifetime,
        fetched=fetched,
    )


class Rejections(TokenRejections):
    """``reject`` does what a cache does with a rejection."""

    def reject(self, rejected: Token) -> bool:
        replaced = self.may_replace(rejected, served=self.note_rejected(rejected))
        if replaced:
            self.note_replaced()
        return replaced


def test_a_token_that_served_is_replaced_at_once() -> None:
    """It was revoked: one after the other, each of which has served."""
    rejections = Rejections(ManualClock())
    for _ in range(3):
        one = token()
        rejections.note_served(one)
        assert rejections.reject(one)


async def test_successors_that_never_serve_are_replaced_now_and_then() -> None:
    """Twice a minute, however many requests are rejected."""
    clock = ManualClock()
    rejections = Rejections(clock)
    replaced = 0
    for _ in range(600):
        replaced += rejections.reject(token())
        await clock.advance(0.1)
    assert replaced == 2


async def test_a_token_that_serves_some_requests_causes_no_storm() -> None:
    """Three replacements at once, then one in ten seconds."""
    clock = ManualClock()
    rejections = Rejections(clock)
    replaced = 0
    for _ in range(600):
        one = token()
        rejections.note_served(one)
        replaced += rejections.reject(one)
        await clock.advance(0.1)
    assert replaced == 3 + 60 // 10 - 1


async def test_a_short_life_allows_more_replacements() -> None:
    """One in a quarter of the lifetime, where that is shorter than ten seconds."""
    clock = ManualClock()
    rejections = Rejections(clock)
    replaced = 0
    for _ in range(600):
        one = token(lifetime=4)
        rejections.note_served(one)
        replaced += rejections.reject(one)
        await clock.advance(0.125)
    assert replaced == 3 + 75 - 1


def test_a_reset_allows_a_replacement_at_once() -> None:
    """Whatever was rejected before: the cause may have been repaired."""
    rejections = Rejections(ManualClock())
    assert rejections.reject(token())
    assert not rejections.reject(token())
    rejections.reset()
    assert rejections.reject(token())
