"""What a client is told when its WebSocket opens, and what is left to do when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

import pytest

from proxy.forwarding.context import ProxyContext
from proxy.forwarding.downstream_response import ResponseRewriter
from proxy.forwarding.upgrade import SessionEnd, switching_response
from proxy.http.request import Request
from proxy.http.response import ResponseHead
from proxy.observability.exchange_log import ExchangeLog, ExchangeRecord
from proxy.observability.inspector import InspectorHub
from proxy.secrets.redaction import Redactor
from proxy.websocket.relay import Relay


def head(*lines: bytes) -> ResponseHead:
    fields = b"\n" + b"".join(line + b"\r\n" for line in lines)
    return ResponseHead(101, b"Switching Protocols", fields, None, closing=False)


def sent(one: ResponseHead, *kept: bytes) -> bytes:
    rewriter = ResponseRewriter(
        one,
        Request.of("GET", "/chat", [("Host", "localhost")], websocket=True),
        page=None,
        rewrite_url=lambda _name, value: value,
        redactor=Redactor(()),
        mask_all=False,
    )
    return switching_response(rewriter, one, kept)


def test_the_client_gets_the_upgrade_fields() -> None:
    """The fields of the connection are made anew; the accept key is the provider's."""
    lines = sent(head(b"Upgrade: WebSocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: x"))
    assert lines == (
        b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n"
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("lines", "selected"),
    [
        ((), b"Sec-WebSocket-Protocol: bearer_dummy\r\n"),
        ((b"Sec-WebSocket-Protocol: v1",), b"Sec-WebSocket-Protocol: v1\r\n"),
    ],
    ids=["none", "one"],
)
def test_a_subprotocol_that_was_offered_is_selected(
    lines: tuple[bytes, ...], selected: bytes
) -> None:
    """Where the provider selects none and a key was offered as one, the client gets that back."""
    whole = sent(head(*lines), b"bearer_dummy", b"other")
    assert whole.count(b"Sec-WebSocket-Protocol") == 1
    assert selected in whole


async def test_the_end_is_noted_once_and_the_place_given_back() -> None:
    """Bytes both ways stand in the journal, the relay is gone, the route's bound has room."""
    loop = asyncio.get_running_loop()

    def never(_coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        raise AssertionError("nothing is started at the end")

    around = ProxyContext(loop, ExchangeLog(loop), set(), never, InspectorHub())
    relay = cast(Relay, object())
    around.relays.add(relay)
    left: list[str] = []
    note = ExchangeRecord("api", "GET", "/chat", websocket=True)
    around.exchange_log.begin(note)
    SessionEnd(around, note, lambda: left.append("place"))(relay, 7, 11)
    assert (note.sent, note.received, left) == (7, 11, ["place"])
    assert not around.relays
    assert not around.exchange_log.open
    assert list(around.exchange_log.recent) == [note]
