"""The exchanges of this process, as the inspector gets them."""

from __future__ import annotations

import asyncio

from proxy.observability.exchange_log import ExchangeLog, ExchangeRecord
from proxy.observability.exchange_source import LocalExchanges
from proxy.observability.inspector import InspectorHub


async def test_open_and_ended_exchanges() -> None:
    """Both are in the list, oldest first, and found by their number; bytes are of open ones."""
    log = ExchangeLog(asyncio.get_running_loop())
    exchanges = LocalExchanges(log, InspectorHub())
    ended, still_open = ExchangeRecord("api", "GET", "/1"), ExchangeRecord("api", "GET", "/2")
    for one in (ended, still_open):
        log.begin(one)
    log.finish(ended)
    still_open.sent = 7
    latest = await exchanges.latest()
    assert latest["total"] == 1
    assert [(one["path"], one["open"]) for one in latest["exchanges"]] == [
        ("/1", False),
        ("/2", True),
    ]
    found = await exchanges.find(ended.number)
    assert found is not None
    assert found["exchange"]["path"] == "/1"
    assert found["conversation"] is None
    assert found["detail"] is None
    assert await exchanges.find(99) is None
    assert await exchanges.moved() == {still_open.number: (7, 0)}
