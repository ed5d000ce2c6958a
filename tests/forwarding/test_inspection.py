"""Captures for the inspector start only where something subscribes to them."""

from __future__ import annotations

from proxy.forwarding.inspection import capture_session
from proxy.http.response import ResponseHead, parse_simple_head
from proxy.observability.exchange_log import ExchangeRecord
from proxy.observability.inspector import InspectorHub
from proxy.secrets.redaction import Redactor


def test_a_session_without_subscribers_is_not_captured() -> None:
    """The relay then gets no tap, and parses nothing."""
    hub = InspectorHub(lambda _route: ())
    record = ExchangeRecord("api", "GET", "/live")
    assert capture_session(hub, record, head(), Redactor(())) is None


def head() -> ResponseHead:
    parsed = parse_simple_head(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert parsed is not None
    return parsed[0]
