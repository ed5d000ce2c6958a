"""What a connection to a provider calls, the request's listener and its owner; and its states."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol

from proxy.errors import UpstreamFailure
from proxy.http.response import ResponseHead

if TYPE_CHECKING:
    from proxy.upstream.connection import UpstreamConnection


class ResponseListener(Protocol):
    """Receives the response to the request that it sent on a connection.

    ``ended`` is set for the last bytes of a response; the connection is then back in the pool.
    """

    __slots__ = ()

    @property
    def repeatable(self) -> bool:
        """Whether the request may be sent again: it is idempotent, and complete at hand."""

    def on_response_start(self, head: ResponseHead, body: bytes, *, ended: bool) -> None: ...
    def on_response_body(self, body: bytes, *, ended: bool) -> None: ...
    def on_upstream_error(self, failure: UpstreamFailure, *, unread: bool = False) -> None:
        """The connection failed. ``unread``: a reused one, without a response.

        The provider had closed it without reading the request, or cannot be reached by it.
        """

    def on_upstream_blocked(self) -> None: ...
    def on_upstream_drained(self) -> None: ...


class DialClock(Protocol):
    """Measures the parts of opening a connection; each call ends one."""

    def resolved(self) -> None: ...
    def connected(self) -> None:
        """The TCP connection is open, through the egress proxy if there is one."""

    def secured(self) -> None:
        """The TLS handshake is complete."""


class Owner(Protocol):
    """Keeps connections between requests."""

    def give_back(self, connection: UpstreamConnection) -> None:
        """Take back a connection after the clean end of a response, for another request."""

    def forget(self, connection: UpstreamConnection) -> None:
        """Drop a connection that is closed or has another owner."""


class UpstreamState(enum.Enum):
    """State of a connection to a provider."""

    IDLE = "idle"
    """No request is in progress."""
    AWAITING = "awaiting"
    """A request was sent; no byte of its response has arrived."""
    RECEIVING = "receiving"
    """A part of the response has arrived."""
    CLOSED = "closed"
    """The connection is closed, or released to another protocol."""
