"""Failures that an exchange detects itself, as its client gets them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.errors import UpstreamFailure
from proxy.forwarding import exchange_failures
from proxy.http.problem import as_refusal


@pytest.mark.parametrize(
    ("make", "status", "proxy_error"),
    [
        (exchange_failures.internal_error, 500, "proxy_internal_error"),
        (exchange_failures.invalid_head, 502, "http_protocol_error"),
        (exchange_failures.malformed_body, 502, "http_response_content_coding"),
        (exchange_failures.invalid_handshake, 502, "http_upgrade_failed"),
    ],
)
def test_each_has_a_registered_type(
    make: Callable[[], UpstreamFailure], status: int, proxy_error: str
) -> None:
    """The error of RFC 9209 section 2.3 that fits, with its recommended status."""
    refusal = as_refusal(make())
    assert (refusal.status, refusal.proxy_error) == (status, proxy_error)
