"""The journal: what it remembers, what a line says, when the sinks hear of what has ended."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest

from proxy.observability.exchange_log import AccessLog, ExchangeLog, ExchangeRecord, json_line
from tests.support.keyrelay import until


def exchange(**more: object) -> ExchangeRecord:
    one = ExchangeRecord("api", "GET", "/v1/x", strategy="key", sent=3, received=5)
    one.response_started(200)
    for name, value in more.items():
        setattr(one, name, value)
    return one


async def lines_of(*exchanges: ExchangeRecord, as_json: bool = False) -> list[str]:
    written: list[str] = []
    exchange_log = ExchangeLog(
        asyncio.get_running_loop(), written.append, line_format=json_line if as_json else None
    )
    for one in exchanges:
        exchange_log.finish(one)
    exchange_log.flush()
    return "".join(written).splitlines()


async def test_a_line_for_people() -> None:
    """A line has the time, route, method, path, status, duration, bytes, strategy, and what went
    wrong, if anything did.
    """
    fine, bad, gone = await lines_of(
        exchange(),
        exchange(outcome="host-not-allowed", log_detail="'evil'", strategy="", status=421),
        exchange(outcome="client-left", status=0, websocket=True),
    )
    assert re.fullmatch(r"\d\d:\d\d:\d\d api GET /v1/x 200 \d+ ms, 3/5 B, key", fine)
    assert bad.endswith(" B, host-not-allowed, 'evil'")
    assert re.search(r" api WS /v1/x - \d+ ms, 3/5 B, key, client-left$", gone)


async def test_a_line_for_programs() -> None:
    """The same as a JSON document, with the time in UTC and milliseconds as numbers."""
    (line,) = await lines_of(exchange(started=0.0), as_json=True)
    record = json.loads(line)
    assert record.pop("duration_ms") >= record.pop("first_byte_ms") >= 0
    assert record == {
        "time": "1970-01-01T00:00:00Z",
        "route": "api",
        "method": "GET",
        "path": "/v1/x",
        "websocket": False,
        "strategy": "key",
        "status": 200,
        "outcome": "",
        "note": "",
        "bytes_sent": 3,
        "bytes_received": 5,
        "request_id": "",
    }


async def test_an_exchange_without_an_answer() -> None:
    """Where no answer began there is no time to its first byte."""
    (line,) = await lines_of(ExchangeRecord("api", "GET", "/"), as_json=True)
    assert json.loads(line)["first_byte_ms"] is None
    (line,) = await lines_of(ExchangeRecord("-", "GET", "-"))
    assert " - GET - - " in line


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({}, False),
        ({"status": 502, "outcome": "connection_refused"}, True),
        ({"outcome": "client-left"}, True),
        ({"status": 401}, True),
        ({"status": 302}, False),
    ],
)
async def test_the_request_id_in_a_line(more: dict[str, object], shown: bool) -> None:
    """A program always gets it, a person where there is something to ask about."""
    (line,) = await lines_of(exchange(request_id="dummy-id", **more), as_json=True)
    assert json.loads(line)["request_id"] == "dummy-id"
    (line,) = await lines_of(exchange(request_id="dummy-id", **more))
    assert line.endswith(", request dummy-id") is shown
    assert ("dummy-id" in line) is shown


async def test_lines_are_written_soon_and_together() -> None:
    """Lines wait for each other, a moment, and are written in one call; none is written twice."""
    written: list[str] = []
    exchange_log = ExchangeLog(asyncio.get_running_loop(), written.append)
    for _ in range(3):
        exchange_log.finish(exchange())
    assert written == []
    await until(lambda: written)
    assert written[0].count("\n") == 3
    exchange_log.flush()
    assert len(written) == 1
    exchange_log.finish(exchange())
    exchange_log.flush()
    assert len(written) == 2
    await asyncio.sleep(0)
    assert len(written) == 2


async def test_without_an_access_log() -> None:
    """Without an output exchanges are remembered, and no line is kept waiting."""
    exchange_log = ExchangeLog(asyncio.get_running_loop(), None)
    exchange_log.finish(exchange())
    exchange_log.flush()
    assert (exchange_log.total, len(exchange_log.recent), exchange_log._pending) == (1, 1, [])


async def test_the_journal_does_not_grow() -> None:
    """The last thousand exchanges are remembered; all are counted."""
    exchange_log = ExchangeLog(asyncio.get_running_loop(), None)
    for number in range(1500):
        exchange_log.finish(exchange(sent=number))
    assert (exchange_log.total, len(exchange_log.recent)) == (1500, 1000)
    assert (exchange_log.recent[0].sent, exchange_log.recent[-1].sent) == (500, 1499)


async def test_what_is_open() -> None:
    """An exchange is open from its begin to its end; one may end without having begun."""
    exchange_log = ExchangeLog(asyncio.get_running_loop())
    first, second, refused = exchange(), exchange(), exchange()
    exchange_log.begin(first)
    exchange_log.begin(second)
    assert exchange_log.open == {first, second}
    exchange_log.finish(refused)
    exchange_log.finish(first)
    assert exchange_log.open == {second}
    assert [one.number for one in (first, second, refused)] == [1, 2, 3]
    assert list(exchange_log.recent) == [refused, first]


async def test_every_sink_hears_everything_once() -> None:
    """Sinks get what has ended in its order and in one batch, each exchange once."""
    heard: list[list[ExchangeRecord]] = []
    exchange_log = ExchangeLog(asyncio.get_running_loop())
    exchange_log.observers += [lambda batch: heard.append(list(batch))] * 2
    both = [exchange(), exchange()]
    for one in both:
        exchange_log.finish(one)
    exchange_log.flush()
    exchange_log.flush()
    assert heard == [both, both]


def broken_sink(batch: Sequence[ExchangeRecord]) -> None:
    raise OSError("CANARY")


async def test_a_sink_that_fails() -> None:
    """It is told of once, without its error's text, and takes nothing from the others."""
    warnings: list[str] = []
    written: list[str] = []
    exchange_log = ExchangeLog(asyncio.get_running_loop(), warn=warnings.append)
    exchange_log.observers += [broken_sink, AccessLog(written.append)]
    for _ in range(3):
        exchange_log.finish(exchange())
        exchange_log.flush()
    assert len(written) == 3
    assert warnings == ["broken_sink failed (OSError) and misses exchanges"]


async def test_an_access_log_that_cannot_be_written() -> None:
    """Without an operator to warn, the loop's exception handler is called."""
    told: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: told.append(context))

    def write(_lines: str) -> None:
        raise BrokenPipeError

    exchange_log = ExchangeLog(loop, write)
    exchange_log.finish(exchange())
    await until(lambda: told)
    assert told == [{"message": "AccessLog failed (BrokenPipeError) and misses exchanges"}]
