"""The bound on incomplete header sections of all connections."""

from __future__ import annotations

import pytest

from proxy.server.head_limits import MAX_HEAD_BYTES, HeadBudget, HeadTooLarge, head_too_large


def test_the_sum_is_bounded_and_what_is_given_back_counts_no_more() -> None:
    """Up to the bound all is taken; beyond it 503 with Retry-After, until bytes come back."""
    budget = HeadBudget(100)
    budget.take(60)
    budget.take(40)
    with pytest.raises(HeadTooLarge) as refused:
        budget.take(1)
    assert refused.value.refusal.status == 503
    assert ("Retry-After", "1") in refused.value.refusal.headers
    budget.give_back(101)
    assert budget.held == 0
    budget.take(100)


def test_one_header_section_over_its_bound_is_a_431() -> None:
    """RFC 6585 section 5; the bound is 64 KiB."""
    assert MAX_HEAD_BYTES == 65536
    assert head_too_large().refusal.status == 431
