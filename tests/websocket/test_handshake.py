"""WebSocket opening handshakes: which requests are valid, and which 101 responses accept them."""

from __future__ import annotations

import pytest

from proxy.errors import Refusal
from proxy.http.request import Request
from proxy.http.response import ResponseHead
from proxy.websocket.handshake import accepts, check_handshake

# The example of RFC 6455 section 1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
FIELDS = {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": KEY}


def handshake(method: str = "GET", **fields: str | None) -> Request:
    """A handshake; fields named with underscores replace or, with None, remove a field."""
    changed = {name.replace("_", "-"): value for name, value in fields.items()}
    merged = {**FIELDS, **changed}
    pairs = [(name, value) for name, value in merged.items() if value is not None]
    return Request.of(method, "/chat", [("Host", "localhost"), *pairs])


def response(**fields: bytes) -> ResponseHead:
    named = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    pairs = {b"Upgrade": b"websocket", b"Connection": b"Upgrade"} | named
    raw = [(name, value) for name, value in pairs.items() if value]
    lines = b"".join(b"%b: %b\r\n" % pair for pair in raw)
    return parsed(b"HTTP/1.1 101 Switching Protocols\r\n" + lines + b"\r\n")


def parsed(data: bytes) -> ResponseHead:
    import asyncio

    from proxy.http import parser as http_parser

    loop = asyncio.new_event_loop()
    try:
        messages, _, _ = http_parser.response_parser(loop, head_only=False).feed_data(data)
    finally:
        loop.close()
    return http_parser.response_head(messages[0][0])


def test_a_valid_handshake_passes() -> None:
    """The example of the RFC."""
    check_handshake(handshake())


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (handshake("POST"), 400),
        (handshake(Content_Length="3"), 400),
        (handshake(Sec_WebSocket_Version=None), 426),
        (handshake(Sec_WebSocket_Version="8"), 426),
        (handshake(Sec_WebSocket_Key=None), 400),
        (handshake(Sec_WebSocket_Key="dGhlIHNhbXBsZQ=="), 400),
        (handshake(Sec_WebSocket_Key=KEY[:-1]), 400),
    ],
    ids=["method", "body", "no version", "old version", "no key", "short key", "cut key"],
)
def test_an_invalid_handshake_is_refused(request_: Request, status: int) -> None:
    """RFC 6455 section 4.2.1: method, body, version and key are checked."""
    with pytest.raises(Refusal) as refused:
        check_handshake(request_)
    assert (refused.value.status, refused.value.kind) == (status, "bad-handshake")


def test_an_unsupported_version_names_the_supported_one() -> None:
    """RFC 6455 section 4.4: the 426 carries Sec-WebSocket-Version."""
    with pytest.raises(Refusal) as refused:
        check_handshake(handshake(Sec_WebSocket_Version="8"))
    assert ("Sec-WebSocket-Version", "13") in refused.value.headers


def test_the_matching_response_accepts() -> None:
    """The example of the RFC; names and tokens in any case."""
    assert accepts(handshake(), response(Sec_WebSocket_Accept=ACCEPT))
    other = response(Sec_WebSocket_Accept=ACCEPT, Upgrade=b"WebSocket", Connection=b"x, upgrade")
    assert accepts(handshake(), other)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"Sec_WebSocket_Accept": b"AAAALMBiTxaQ9kYGzzhZRbK+xOo="},
        {"Sec_WebSocket_Accept": ACCEPT, "Upgrade": b"h2c"},
        {"Sec_WebSocket_Accept": ACCEPT, "Connection": b"keep-alive"},
    ],
    ids=["no accept", "other accept", "other protocol", "no upgrade"],
)
def test_any_other_response_does_not(fields: dict[str, bytes]) -> None:
    """RFC 6455 section 4.1, items 2 to 4."""
    assert not accepts(handshake(), response(**fields))
