"""Grants that live on: no request is refused while processes and routes share what they have."""

from __future__ import annotations

import pytest

from .authorization_servers import KINDS
from .side_by_side import Figures, name_of

pytestmark = [pytest.mark.oauth, pytest.mark.timeout(600)]


@pytest.mark.parametrize("grant", ["credentials", "refresh"])
@pytest.mark.parametrize("lifetime", [4, 3600])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_request_is_refused(
    figures: dict[str, Figures], kind: object, lifetime: int, grant: str
) -> None:
    """Two processes with two routes each: every request is answered 200, at every server."""
    case = figures[name_of(str(kind), lifetime, grant)]
    assert case.refused == 0, case.statuses
    assert case.all >= 20


@pytest.mark.parametrize("grant", ["credentials", "refresh"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_long_token_is_fetched_once(
    figures: dict[str, Figures], kind: object, grant: str
) -> None:
    """A token of an hour costs one call where the store is shared, and one a process elsewhere."""
    case = figures[name_of(str(kind), 3600, grant)]
    assert case.calls == (1 if grant == "refresh" else 2)


@pytest.mark.parametrize("grant", ["credentials", "refresh"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_short_tokens_cost_no_storm(figures: dict[str, Figures], kind: object, grant: str) -> None:
    """A token of 4 s is renewed about every 3 s, by one process of those that share a store."""
    case = figures[name_of(str(kind), 4, grant)]
    sharing = 1 if grant == "refresh" else 2
    assert case.calls <= sharing * (case.seconds / 1.9 + 3)
