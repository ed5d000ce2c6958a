"""What keyrelay answers when the provider fails, or the client sends too much of something."""

from __future__ import annotations

from .errors import Refusal, UpstreamFailure

# The rest is 502, or 504 if time ran out (RFC 9110 sections 15.6.3 and 15.6.5).
_STATUS = {"proxy_internal_error": 500, "proxy_loop_detected": 508}
_ADVICE = {
    "connection_refused": "Check the route's upstream: nothing listens there.",
    "connection_timeout": "Check the route's upstream and the network between.",
    "destination_ip_prohibited": "Set allow_private: true on the route if this is intended.",
    "destination_unavailable": "Check the route's upstream and the network between.",
    "dns_error": "Check the host name in the route's upstream, and this machine's DNS.",
    "http_response_timeout": "Raise answer_timeout_seconds if the provider may take this long.",
    "proxy_loop_detected": "Write the provider's own address as the route's upstream.",
    "tls_certificate_error": "Verification cannot be switched off; for an authority of your own "
    "set SSL_CERT_FILE.",
}


def as_refusal(failure: UpstreamFailure) -> Refusal:
    """The answer to the client whose request met this failure."""
    return Refusal(
        _STATUS.get(failure.proxy_error, 504 if failure.timed_out else 502),
        "provider-timeout" if failure.timed_out else "provider-failed",
        failure.detail,
        _ADVICE.get(failure.proxy_error, ""),
        proxy_error=failure.proxy_error,
    )


def body_too_large(route: str) -> Refusal:
    """A body over the route's ``max_body_bytes``."""
    return Refusal(
        413,
        "body-too-large",
        f"The body is larger than the route {route} lets through.",
        "Send less, or raise max_body_bytes in the routes file.",
        proxy_error="http_request_error",
    )
