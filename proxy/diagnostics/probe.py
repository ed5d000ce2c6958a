"""One request by keyrelay itself, over the data path's own connection: what status comes back.

For asking whether a route would work. Connections are not kept: a pool would go on dialling spares.
"""

from __future__ import annotations

import asyncio

from proxy.errors import UpstreamFailure
from proxy.http.response import ResponseHead
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.dialer import Dialer

# How long a provider may take to begin its response (seconds). The command waits for it.
_ANSWER_SECONDS = 15.0


class _Nobody:
    """Owns connections that serve one request and no other."""

    def give_back(self, connection: UpstreamConnection) -> None:
        connection.abort()

    def forget(self, connection: UpstreamConnection) -> None:
        """Nothing was kept."""


class _Head:
    """Takes the header section of a response and none of its body. A ``ResponseListener``."""

    repeatable = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[ResponseHead | UpstreamFailure] = loop.create_future()

    def on_response_start(self, head: ResponseHead, body: bytes, *, ended: bool) -> None:
        self.future.set_result(head)

    def on_response_body(self, body: bytes, *, ended: bool) -> None:
        """Of no interest."""

    def on_upstream_error(self, failure: UpstreamFailure, *, unread: bool = False) -> None:
        if not self.future.done():
            self.future.set_result(failure)

    def on_upstream_blocked(self) -> None:
        """The request has been handed over whole."""

    def on_upstream_drained(self) -> None:
        """The request has been handed over whole."""


async def connect(dialer: Dialer) -> UpstreamConnection:
    """A connection for one request. Raises UpstreamFailure. Cancelling leaves nothing."""
    loop = asyncio.get_running_loop()
    return await dialer.dial(lambda: UpstreamConnection(_Nobody(), loop, _ANSWER_SECONDS))


async def ask(connection: UpstreamConnection, request: bytes, *, head_only: bool) -> ResponseHead:
    """Send a request without a body and return the response head. The connection is closed.

    head_only  it is a HEAD

    Raises UpstreamFailure. Cancelling closes the connection.
    """
    listener = _Head(asyncio.get_running_loop())
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            connection.send(listener, request, ended=True, head_only=head_only)
            answer = await listener.future
    except TimeoutError:
        raise UpstreamFailure(
            "http_response_timeout", "The provider did not respond.", timed_out=True
        ) from None
    finally:
        connection.abort()
    if isinstance(answer, UpstreamFailure):
        raise answer
    return answer
