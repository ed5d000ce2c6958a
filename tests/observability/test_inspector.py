"""A subscriber gets every event; none costs nothing; events missed by a slow one are counted."""

from __future__ import annotations

import asyncio
import timeit
from typing import Any

import pytest

from proxy.observability.exchange_log import ExchangeLog, ExchangeRecord
from proxy.observability.inspector import InspectorHub, TooManySubscriptions
from tests.support.inspection import MASKER, event_stream, frame

MASK = b"\x01\x02\x03\x04"


def an_exchange(number: int = 1, **more: Any) -> ExchangeRecord:
    return ExchangeRecord("api", "GET", "/v1", number=number, **more)


async def names(inspector_hub: InspectorHub, watcher: Any) -> list[str]:
    return [name for name, _ in await watcher.take(0)]


async def test_the_life_of_an_exchange() -> None:
    """Begun, answered, ended, in this order, each as it then was."""
    inspector_hub = InspectorHub()
    watcher = inspector_hub.subscribe()
    exchange_log = ExchangeLog(asyncio.get_running_loop())
    exchange_log.observers.append(inspector_hub.ended)
    exchange = ExchangeRecord("api", "GET", "/v1/voices", strategy="key")
    exchange_log.begin(exchange)
    inspector_hub.begun(exchange)
    [(name, told)] = await watcher.take(1)
    assert (name, told["open"], told["status"], told["first_byte_ms"]) == ("begun", True, 0, None)
    exchange.response_started(201)
    inspector_hub.response_started(exchange)
    [(name, told)] = await watcher.take(1)
    assert (name, told["open"], told["status"]) == ("answered", True, 201)
    assert told["first_byte_ms"] > 0
    exchange.received = 7
    exchange_log.finish(exchange)
    exchange_log.flush()
    [(name, told)] = await watcher.take(1)
    assert (name, told["open"], told["received"]) == ("ended", False, 7)
    assert told["duration_ms"] > 0
    assert (told["route"], told["path"], told["strategy"]) == ("api", "/v1/voices", "key")
    inspector_hub.unsubscribe(watcher)
    inspector_hub.stop()


async def test_a_short_exchange_is_told_once() -> None:
    """Of one that has ended before it was fetched, its end holds everything."""
    inspector_hub = InspectorHub()
    watcher = inspector_hub.subscribe()
    exchange = an_exchange()
    inspector_hub.begun(exchange)
    exchange.response_started(200)
    inspector_hub.response_started(exchange)
    exchange.duration = 0.1
    inspector_hub.ended([exchange])
    assert await names(inspector_hub, watcher) == ["ended"]
    inspector_hub.stop()


async def test_nobody_watches() -> None:
    """Nothing is captured, nothing kept; the check is one attribute."""
    inspector_hub = InspectorHub()
    assert inspector_hub.active is False
    assert inspector_hub.tap(an_exchange(websocket=True), b"", MASKER) is None
    assert inspector_hub.stream(an_exchange(), event_stream(), MASKER) is None
    inspector_hub.ended([an_exchange()])
    assert inspector_hub.conversation(an_exchange()) is None
    seconds = min(timeit.repeat(lambda: inspector_hub.active, number=10_000, repeat=5)) / 10_000
    assert seconds < 2e-6


async def test_a_websocket_is_heard() -> None:
    """Messages are published as they pass and kept for a later opening of the exchange."""
    inspector_hub = InspectorHub()
    watcher = inspector_hub.subscribe()
    exchange = an_exchange(5, websocket=True)
    tap = inspector_hub.tap(exchange, b"", MASKER)
    assert tap is not None
    tap.from_client(frame(b"hello", mask=MASK))
    [(name, said)] = await watcher.take(1)
    assert name == "message"
    assert (said["number"], said["sender"], said["text"]) == (5, "client", "hello")
    conversation = inspector_hub.conversation(exchange)
    assert conversation is not None
    assert [one.text for one in conversation.messages] == ["hello"]
    tap.ended()
    assert inspector_hub.conversation(exchange) is conversation
    inspector_hub.stop()
    assert inspector_hub.conversation(exchange) is None


async def test_a_stream_of_events_is_heard() -> None:
    """Only answers of that type; the exchange is one of that kind from then on."""
    inspector_hub = InspectorHub()
    watcher = inspector_hub.subscribe()
    exchange = an_exchange(6)
    stream = inspector_hub.stream(exchange, event_stream(), MASKER)
    assert stream is not None
    stream.feed(b"data: 1\n\n")
    [(_, said)] = await watcher.take(1)
    assert (said["conversation"], said["kind"], said["text"]) == ("sse", "event", "data: 1")
    assert exchange.kind == inspector_hub.describe(exchange)["kind"] == "sse"
    stream.ended()
    other = event_stream()
    other.fields = b"\nContent-Type: application/json\r\n"
    plain = an_exchange(7)
    assert inspector_hub.stream(plain, other, MASKER) is None
    assert plain.kind == "http"
    inspector_hub.stop()
    assert inspector_hub.describe(exchange)["kind"] == "sse", "it stays what it was"


async def test_a_slow_watcher_misses_what_it_does_not_fetch() -> None:
    """What waits is bounded; what is left out is counted, at the end of what there is; others
    have everything."""
    inspector_hub = InspectorHub()
    slow, quick = inspector_hub.subscribe(), inspector_hub.subscribe()
    heard = 0
    for number in range(1, 10_001):
        inspector_hub.begun(an_exchange(number))
        if number % 1000 == 0:
            heard += len(await quick.take(1))
    events = await slow.take(1)
    assert heard == 10_000
    assert len(events) < 5000
    name, said = events[-1]
    assert (name, said["lost"]) == ("gap", 10_000 - len(events) + 1)
    numbers = [told["number"] for _, told in events[:-1]]
    assert numbers == list(range(1, len(events)))
    inspector_hub.begun(an_exchange(10_001))
    assert await names(inspector_hub, slow) == ["begun"]
    inspector_hub.stop()


async def test_large_messages_are_bounded_as_well() -> None:
    """Few messages can be large: their bytes are what counts."""
    inspector_hub = InspectorHub()
    slow = inspector_hub.subscribe()
    tap = inspector_hub.tap(an_exchange(websocket=True), b"", MASKER)
    assert tap is not None
    for _ in range(1000):
        tap.from_provider(frame(b"x" * 16_000))
    events = await slow.take(1)
    assert sum(len(said.get("text", "")) for _, said in events) <= 4 * 1024 * 1024
    assert events[-1][0] == "gap"
    inspector_hub.stop()


async def test_too_many() -> None:
    """There is a bound; an ended subscription makes room."""
    inspector_hub = InspectorHub()
    every = [inspector_hub.subscribe() for _ in range(8)]
    with pytest.raises(TooManySubscriptions):
        inspector_hub.subscribe()
    inspector_hub.unsubscribe(every[0])
    inspector_hub.subscribe()
    inspector_hub.stop()


async def test_a_page_that_is_loaded_anew() -> None:
    """What was heard outlives a moment without watchers, and no longer than that."""
    inspector_hub = InspectorHub()
    watcher = inspector_hub.subscribe()
    exchange = an_exchange(websocket=True)
    tap = inspector_hub.tap(exchange, b"", MASKER)
    assert tap is not None
    inspector_hub.unsubscribe(watcher)
    still_active = inspector_hub.active
    assert still_active
    tap.from_client(frame(b"between", mask=MASK))
    again = inspector_hub.subscribe()
    conversation = inspector_hub.conversation(exchange)
    assert conversation is not None
    assert conversation.count == 1
    inspector_hub.unsubscribe(again)
    inspector_hub.stop()
    assert not inspector_hub.active
    tap.from_client(frame(b"unheard", mask=MASK))
    assert inspector_hub.conversation(exchange) is None
    tap.ended()


async def test_the_hub_rests() -> None:
    """A subscriber learns that nothing more comes, also while it waits."""
    inspector_hub = InspectorHub()
    watcher = inspector_hub.subscribe()
    waiting = asyncio.get_running_loop().create_task(watcher.take(60))
    await asyncio.sleep(0)
    inspector_hub.stop()
    assert await waiting == []
    assert watcher.closed
    assert not inspector_hub.active
    inspector_hub.unsubscribe(watcher)
    inspector_hub.stop()


async def test_waiting_has_an_end() -> None:
    """Nothing happened: an empty list after the time. A call that was cancelled loses nothing."""
    inspector_hub = InspectorHub()
    watcher = inspector_hub.subscribe()
    assert await watcher.take(0.001) == []
    waiting = asyncio.get_running_loop().create_task(watcher.take(60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    inspector_hub.begun(an_exchange())
    assert await names(inspector_hub, watcher) == ["begun"]
    inspector_hub.stop()
