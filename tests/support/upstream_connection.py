"""Requests over one upstream connection: their bytes, and a listener that records the response."""

from __future__ import annotations

from proxy.errors import UpstreamFailure
from proxy.http.response import ResponseHead
from proxy.upstream.connection import UpstreamConnection
from tests.support.keyrelay import until

REQUEST = b"GET / HTTP/1.1\r\nHost: dummy\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Answer:
    """A receiver that keeps what it is told."""

    repeatable = False

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.body = b""
        self.ended = False
        self.failure: UpstreamFailure | None = None
        self.full = False
        self.calls = 0

    def on_response_start(self, head: ResponseHead, body: bytes, *, ended: bool) -> None:
        assert self.head is None
        self.head = head
        self.on_response_body(body, ended=ended)

    def on_response_body(self, body: bytes, *, ended: bool) -> None:
        assert not self.over
        self.calls += 1
        self.body += body
        self.ended = ended

    def on_upstream_error(self, failure: UpstreamFailure, *, unread: bool = False) -> None:
        assert not self.over
        self.failure = failure

    def on_upstream_blocked(self) -> None:
        self.full = True

    def on_upstream_drained(self) -> None:
        self.full = False

    @property
    def over(self) -> bool:
        return self.ended or self.failure is not None

    @property
    def status(self) -> int:
        return 0 if self.head is None else self.head.code

    @property
    def error(self) -> str:
        return "" if self.failure is None else self.failure.proxy_error

    async def until_over(self) -> Answer:
        await until(lambda: self.over)
        return self


def send(
    connection: UpstreamConnection,
    data: bytes = REQUEST,
    *,
    ended: bool = True,
    head_only: bool = False,
    upgrading: bool = False,
) -> Answer:
    answer = Answer()
    connection.send(answer, data, ended=ended, head_only=head_only, upgrading=upgrading)
    return answer
