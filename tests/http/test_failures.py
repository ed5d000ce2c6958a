"""What a client is told when the provider fails."""

from __future__ import annotations

import pytest

from proxy.errors import UpstreamFailure
from proxy.http.problem import as_refusal, body_too_large


@pytest.mark.parametrize(
    ("proxy_error", "timed_out", "status", "kind"),
    [
        ("connection_refused", False, 502, "provider-failed"),
        ("connection_timeout", True, 504, "provider-timeout"),
        ("http_response_timeout", True, 504, "provider-timeout"),
        ("proxy_loop_detected", False, 508, "provider-failed"),
        ("proxy_internal_error", False, 500, "provider-failed"),
    ],
)
def test_a_failure_has_the_status_of_its_cause(
    proxy_error: str, timed_out: bool, status: int, kind: str
) -> None:
    """502 and 504 for the provider's, 508 for a loop, 500 for ours; never a 401."""
    refusal = as_refusal(UpstreamFailure(proxy_error, "It failed.", timed_out=timed_out))
    assert (refusal.status, refusal.kind) == (status, kind)
    assert (refusal.proxy_error, refusal.detail) == (proxy_error, "It failed.")


def test_the_correction_is_reported() -> None:
    """A failure that the configuration can mend names the setting."""
    refusal = as_refusal(UpstreamFailure("destination_ip_prohibited", "No."))
    assert "allow_private: true" in refusal.advice


def test_a_body_that_is_too_large_names_the_setting() -> None:
    """The route and the key to change are in the answer."""
    refusal = body_too_large("hume")
    assert refusal.status == 413
    assert "hume" in refusal.detail
    assert "max_body_bytes" in refusal.advice
