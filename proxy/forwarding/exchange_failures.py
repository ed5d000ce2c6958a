"""Upstream failures that an exchange detects itself."""

from __future__ import annotations

from proxy.errors import UpstreamFailure


def internal_error() -> UpstreamFailure:
    """An unexpected exception; the log has its traceback."""
    return UpstreamFailure("proxy_internal_error", "Keyrelay failed at this request.")


def invalid_head() -> UpstreamFailure:
    """A header section that cannot be forwarded."""
    return UpstreamFailure("http_protocol_error", "The provider's response is invalid.")


def malformed_body() -> UpstreamFailure:
    """A body that its content coding does not decode."""
    return UpstreamFailure("http_response_content_coding", "The provider's response is malformed.")


def invalid_handshake() -> UpstreamFailure:
    """A 101 response that does not accept the client's handshake (RFC 6455 section 4.1)."""
    return UpstreamFailure("http_upgrade_failed", "The provider's WebSocket handshake is invalid.")
