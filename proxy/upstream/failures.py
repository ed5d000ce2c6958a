"""How a connection to a provider fails. The types are those of RFC 9209 section 2.3."""

from __future__ import annotations

from proxy.errors import UpstreamFailure


def incomplete() -> UpstreamFailure:
    """The connection ended within the response."""
    return UpstreamFailure("http_response_incomplete", "The provider's response is incomplete.")


def closed() -> UpstreamFailure:
    """The connection ended before the response."""
    return UpstreamFailure(
        "connection_terminated", "The provider closed the connection without a response."
    )


def unreachable() -> UpstreamFailure:
    """The provider acknowledges nothing any more."""
    return UpstreamFailure("connection_timeout", "The provider cannot be reached.", timed_out=True)


def stopped() -> UpstreamFailure:
    """Nothing came within a response for too long."""
    return UpstreamFailure(
        "connection_read_timeout", "The provider stopped sending.", timed_out=True
    )


def silent() -> UpstreamFailure:
    """No response began in time."""
    return UpstreamFailure("http_response_timeout", "The provider did not respond.", timed_out=True)


def unasked_switch() -> UpstreamFailure:
    """A 101 response to a request without ``Upgrade``."""
    return UpstreamFailure(
        "http_protocol_error", "The provider switched protocols without a request."
    )
