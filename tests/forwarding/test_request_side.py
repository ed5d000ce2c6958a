"""The request's side of an exchange. What it sends, and sends again, is tested in test_exchange."""

from __future__ import annotations

from proxy.forwarding.exchange import ProxyExchange
from proxy.forwarding.request_side import RequestSide


def test_an_exchange_has_slots_alone() -> None:
    """No class between it and ``object`` gives each request a dictionary."""
    exchange = ProxyExchange.__new__(ProxyExchange)
    assert isinstance(exchange, RequestSide)
    assert not hasattr(exchange, "__dict__")
