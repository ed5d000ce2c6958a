"""Who watches sees what happens; who does not costs nothing; who is slow misses it, counted."""

from __future__ import annotations

import asyncio
import timeit
from typing import Any

import pytest

from proxy.observability.exchange_log import Exchange, Journal
from proxy.observability.inspector import TooManyWatchers, Watchers
from tests.support.inspection import MASKER, event_stream, frame

MASK = b"\x01\x02\x03\x04"


def an_exchange(number: int = 1, **more: Any) -> Exchange:
    return Exchange("api", "GET", "/v1", number=number, **more)


async def names(watchers: Watchers, watcher: Any) -> list[str]:
    return [name for name, _ in await watcher.take(0)]


async def test_the_life_of_an_exchange() -> None:
    """Begun, answered, ended, in this order, each as it then was."""
    watchers = Watchers()
    watcher = watchers.watch()
    journal = Journal(asyncio.get_running_loop())
    journal.sinks.append(watchers.ended)
    exchange = Exchange("api", "GET", "/v1/voices", strategy="key")
    journal.begin(exchange)
    watchers.begun(exchange)
    [(name, told)] = await watcher.take(1)
    assert (name, told["open"], told["status"], told["first_byte_ms"]) == ("begun", True, 0, None)
    exchange.answered(201)
    watchers.answered(exchange)
    [(name, told)] = await watcher.take(1)
    assert (name, told["open"], told["status"]) == ("answered", True, 201)
    assert told["first_byte_ms"] > 0
    exchange.received = 7
    journal.note(exchange)
    journal.flush()
    [(name, told)] = await watcher.take(1)
    assert (name, told["open"], told["received"]) == ("ended", False, 7)
    assert told["duration_ms"] > 0
    assert (told["route"], told["path"], told["strategy"]) == ("api", "/v1/voices", "key")
    watchers.leave(watcher)
    watchers.rest()


async def test_a_short_exchange_is_told_once() -> None:
    """Of one that has ended before anybody fetched it, its end says everything."""
    watchers = Watchers()
    watcher = watchers.watch()
    exchange = an_exchange()
    watchers.begun(exchange)
    exchange.answered(200)
    watchers.answered(exchange)
    exchange.duration = 0.1
    watchers.ended([exchange])
    assert await names(watchers, watcher) == ["ended"]
    watchers.rest()


async def test_nobody_watches() -> None:
    """Nothing is tapped, nothing kept; asking whether anybody does is one attribute."""
    watchers = Watchers()
    assert watchers.active is False
    assert watchers.tap(an_exchange(websocket=True), b"", MASKER) is None
    assert watchers.stream(an_exchange(), event_stream(), MASKER) is None
    watchers.ended([an_exchange()])
    assert watchers.conversation(an_exchange()) is None
    seconds = min(timeit.repeat(lambda: watchers.active, number=10_000, repeat=5)) / 10_000
    assert seconds < 2e-6


async def test_a_websocket_is_heard() -> None:
    """Messages are told as they pass and kept for whoever opens the exchange later."""
    watchers = Watchers()
    watcher = watchers.watch()
    exchange = an_exchange(5, websocket=True)
    tap = watchers.tap(exchange, b"", MASKER)
    assert tap is not None
    tap.from_client(frame(b"hello", mask=MASK))
    [(name, said)] = await watcher.take(1)
    assert name == "message"
    assert (said["number"], said["sender"], said["text"]) == (5, "client", "hello")
    conversation = watchers.conversation(exchange)
    assert conversation is not None
    assert [one.text for one in conversation.said] == ["hello"]
    tap.ended()
    assert watchers.conversation(exchange) is conversation
    watchers.rest()
    assert watchers.conversation(exchange) is None


async def test_a_stream_of_events_is_heard() -> None:
    """Only answers of that type; the exchange is one of that kind from then on."""
    watchers = Watchers()
    watcher = watchers.watch()
    exchange = an_exchange(6)
    stream = watchers.stream(exchange, event_stream(), MASKER)
    assert stream is not None
    stream.feed(b"data: 1\n\n")
    [(_, said)] = await watcher.take(1)
    assert (said["conversation"], said["kind"], said["text"]) == ("sse", "event", "data: 1")
    assert watchers.kind(exchange) == watchers.told(exchange)["kind"] == "sse"
    stream.ended()
    other = event_stream()
    other.fields = b"\nContent-Type: application/json\r\n"
    assert watchers.stream(an_exchange(7), other, MASKER) is None
    assert watchers.kind(an_exchange(7)) == "http"
    watchers.rest()


async def test_a_slow_watcher_misses_what_it_does_not_fetch() -> None:
    """What waits is bounded; what is left out is counted, at the end of what there is; others
    have everything."""
    watchers = Watchers()
    slow, quick = watchers.watch(), watchers.watch()
    heard = 0
    for number in range(1, 10_001):
        watchers.begun(an_exchange(number))
        if number % 1000 == 0:
            heard += len(await quick.take(1))
    events = await slow.take(1)
    assert heard == 10_000
    assert len(events) < 5000
    name, said = events[-1]
    assert (name, said["lost"]) == ("gap", 10_000 - len(events) + 1)
    numbers = [told["number"] for _, told in events[:-1]]
    assert numbers == list(range(1, len(events)))
    watchers.begun(an_exchange(10_001))
    assert await names(watchers, slow) == ["begun"]
    watchers.rest()


async def test_large_messages_are_bounded_as_well() -> None:
    """Few messages can be large: their bytes are what counts."""
    watchers = Watchers()
    slow = watchers.watch()
    tap = watchers.tap(an_exchange(websocket=True), b"", MASKER)
    assert tap is not None
    for _ in range(1000):
        tap.from_provider(frame(b"x" * 16_000))
    events = await slow.take(1)
    assert sum(len(said.get("text", "")) for _, said in events) <= 4 * 1024 * 1024
    assert events[-1][0] == "gap"
    watchers.rest()


async def test_too_many() -> None:
    """There is a bound; who leaves makes room."""
    watchers = Watchers()
    every = [watchers.watch() for _ in range(8)]
    with pytest.raises(TooManyWatchers):
        watchers.watch()
    watchers.leave(every[0])
    watchers.watch()
    watchers.rest()


async def test_a_page_that_is_loaded_anew() -> None:
    """What was heard outlives a moment without watchers, and no longer than that."""
    watchers = Watchers()
    watcher = watchers.watch()
    exchange = an_exchange(websocket=True)
    tap = watchers.tap(exchange, b"", MASKER)
    assert tap is not None
    watchers.leave(watcher)
    still_active = watchers.active
    assert still_active
    tap.from_client(frame(b"between", mask=MASK))
    again = watchers.watch()
    conversation = watchers.conversation(exchange)
    assert conversation is not None
    assert conversation.count == 1
    watchers.leave(again)
    watchers.rest()
    assert not watchers.active
    tap.from_client(frame(b"unheard", mask=MASK))
    assert watchers.conversation(exchange) is None
    tap.ended()


async def test_the_hub_rests() -> None:
    """Whoever watches is told that nothing more comes, also while it waits."""
    watchers = Watchers()
    watcher = watchers.watch()
    waiting = asyncio.get_running_loop().create_task(watcher.take(60))
    await asyncio.sleep(0)
    watchers.rest()
    assert await waiting == []
    assert watcher.closed
    assert not watchers.active
    watchers.leave(watcher)
    watchers.rest()


async def test_waiting_has_an_end() -> None:
    """Nothing happened: an empty list after the time. A call that was cancelled loses nothing."""
    watchers = Watchers()
    watcher = watchers.watch()
    assert await watcher.take(0.001) == []
    waiting = asyncio.get_running_loop().create_task(watcher.take(60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    watchers.begun(an_exchange())
    assert await names(watchers, watcher) == ["begun"]
    watchers.rest()
