"""Grants that live on: no request is refused while processes and routes share what they have."""

from __future__ import annotations

import pytest

from .authorization_servers import KINDS
from .side_by_side import Figures, name_of

pytestmark = [pytest.mark.oauth, pytest.mark.timeout(600)]

# Routes with the same refresh token share an access token, and so do processes with one store.
# Elsewhere each of the two routes of each of the two processes has a token of its own.
_TOKENS = {"refresh": 1, "credentials": 4}
# At each of the routes of each of the processes, one request at least.
_SENDERS = 4
# The end of a token's life in which it is not used, for tokens of 4 s (seconds).
_UNUSED = 0.2


@pytest.mark.parametrize("grant", ["credentials", "refresh"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_request_is_refused(figures: dict[str, Figures], kind: object, grant: str) -> None:
    """Two processes with two routes each: every request gets a 200, at every server."""
    case = figures[name_of(str(kind), 3600, grant)]
    assert case.refused == []
    assert case.requests >= _SENDERS


@pytest.mark.parametrize("grant", ["credentials", "refresh"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_short_token_ends_on_its_way_at_worst(
    figures: dict[str, Figures], kind: object, grant: str
) -> None:
    """As with tokens of an hour, unless the machine is so busy that a token of 4 s ends meanwhile.

    A large body cannot be sent again, so that this is seen. Any other request was sent twice.
    """
    case = figures[name_of(str(kind), 4, grant)]
    assert {one.status for one in case.refused} <= {401}
    assert [one for one in case.refused if one.repeatable and one.seconds < _UNUSED] == []
    assert case.requests >= _SENDERS


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
