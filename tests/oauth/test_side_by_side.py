"""Grants that live on: no request is refused while processes and routes share what they have."""

from __future__ import annotations

from collections import Counter

import pytest

from .authorization_servers import KINDS
from .side_by_side import Figures, name_of, refused

pytestmark = [pytest.mark.oauth, pytest.mark.timeout(600)]

# Routes with the same refresh token share an access token, and so do processes with one store.
# Elsewhere each of the two routes of each of the two processes has a token of its own.
_TOKENS = {"refresh": 1, "credentials": 4}


@pytest.mark.parametrize("grant", ["credentials", "refresh"])
@pytest.mark.parametrize("lifetime", [4, 3600])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_request_is_refused(
    figures: dict[str, Figures], kind: object, lifetime: int, grant: str
) -> None:
    """Two processes with two routes each: every request gets a 200, at every server.

    Large bodies with a token of 4 s are left to the next test: they cannot be sent again, and on a
    machine with other load such a token can end on its way.
    """
    case = figures[name_of(str(kind), lifetime, grant)]
    assert refused(case.repeatable) == {}
    assert case.repeatable.total() >= 20
    if lifetime == 3600:
        assert refused(case.large) == {}


def test_large_bodies_with_short_tokens(figures: dict[str, Figures]) -> None:
    """Most of them get a 200, the others the server's 401: a token that ended on its way."""
    all_of_them: Counter[int] = Counter()
    for case in figures.values():
        if case.server.lifetime == 4:
            for (_, status), number in case.large.items():
                all_of_them[status] += number
    assert all_of_them.keys() <= {200, 401}
    assert all_of_them[200] > all_of_them[401]


@pytest.mark.parametrize("grant", ["credentials", "refresh"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_long_token_is_fetched_once(
    figures: dict[str, Figures], kind: object, grant: str
) -> None:
    """A token of an hour costs one call where it is shared, and one for each route elsewhere."""
    case = figures[name_of(str(kind), 3600, grant)]
    assert case.calls == _TOKENS[grant]


@pytest.mark.parametrize("grant", ["credentials", "refresh"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_short_tokens_cost_no_storm(figures: dict[str, Figures], kind: object, grant: str) -> None:
    """A token of 4 s is renewed about every 3 s, by one process of those that share a store."""
    case = figures[name_of(str(kind), 4, grant)]
    assert case.calls <= _TOKENS[grant] * (case.seconds / 1.9 + 3)
