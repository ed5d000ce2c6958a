"""The inspector over several processes: exchanges of all workers, each with a number of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.config.settings import Settings
from proxy.observability.exchange_log import ExchangeLog, ExchangeRecord
from proxy.observability.exchange_source import LocalExchanges
from proxy.observability.inspector import InspectorHub, Subscription, TooManySubscriptions
from proxy.process.ipc import Message
from proxy.process.supervisor import Supervisor
from proxy.process.worker_exchanges import InspectionFeed, WorkerExchanges
from tests.support.inspection import MASKER, event_stream
from tests.support.keyrelay import (
    RawClient,
    raw_provider,
    read_head,
    static_route,
    until,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
COMMAND = (
    *("/bin/sh", "-c", 'exec "$@" > /dev/null', "sh"),
    *(sys.executable, "-m", "proxy", "run", "--worker"),
)


class Process:
    """A worker in this process: the real feed over a real log, and a channel without a socket."""

    def __init__(self, index: int, parent: list[WorkerExchanges]) -> None:
        self.index = index
        self.log = ExchangeLog(asyncio.get_running_loop())
        self.hub = InspectorHub()
        self.log.observers.append(self.hub.ended)
        self.feed = InspectionFeed(
            LocalExchanges(self.log, self.hub),
            lambda _kind, message: parent[0].receive(index, message["events"]),
            lambda: False,
        )
        self.tasks: list[asyncio.Task[Message]] = []

    def send(self, kind: str, message: Message) -> bool:
        loop = asyncio.get_running_loop()
        self.tasks.append(loop.create_task(self.feed.answer(kind, message)))
        return True

    async def ask(self, kind: str, message: Message) -> Message:
        return await self.feed.answer(kind, message)

    def begin(self, path: str) -> ExchangeRecord:
        exchange = ExchangeRecord("api", "GET", path)
        self.log.begin(exchange)
        self.hub.begun(exchange)
        return exchange


@asynccontextmanager
async def two() -> AsyncIterator[tuple[WorkerExchanges, list[Process]]]:
    parent: list[WorkerExchanges] = []
    workers = [Process(index, parent) for index in range(2)]
    parent.append(WorkerExchanges(lambda: workers))
    for one in workers:
        parent[0].begin(one)
    try:
        yield parent[0], workers
    finally:
        parent[0].stop()
        await asyncio.gather(*(task for one in workers for task in one.tasks))


async def take(subscription: Subscription, count: int) -> list[tuple[str, dict[str, Any]]]:
    """The next events, so many at least."""
    events: list[tuple[str, dict[str, Any]]] = []
    async with asyncio.timeout(30):
        while len(events) < count:
            events += await subscription.take(1)
    return events


async def test_numbers_of_several_workers() -> None:
    """Equal numbers of two workers are two exchanges; events, list and detail agree on them."""
    async with two() as (exchanges, workers):
        subscription = exchanges.subscribe()
        await until(lambda: all(one.hub.active for one in workers))
        first, second = workers[0].begin("/one"), workers[1].begin("/two")
        assert first.number == second.number
        events = await take(subscription, 2)
        numbers = {told["path"]: told["number"] for _, told in events}
        assert len(set(numbers.values())) == 2
        latest = await exchanges.latest()
        assert {one["path"]: one["number"] for one in latest["exchanges"]} == numbers
        for path, number in numbers.items():
            found = await exchanges.find(number)
            assert found is not None
            assert (found["exchange"]["path"], found["exchange"]["number"]) == (path, number)
        assert await exchanges.find(999) is None
        second.received = 12
        assert (await exchanges.moved())[numbers["/two"]] == (0, 12)


async def test_messages_of_workers() -> None:
    """A message has the number of its exchange, and is in its detail too."""
    async with two() as (exchanges, workers):
        subscription = exchanges.subscribe()
        await until(lambda: all(one.hub.active for one in workers))
        exchange = workers[1].begin("/stream")
        stream = workers[1].hub.stream(exchange, event_stream(), MASKER)
        assert stream is not None
        stream.feed(b"data: 1\n\n")
        begun, message = (told for _, told in await take(subscription, 2))
        assert message["number"] == begun["number"]
        found = await exchanges.find(begun["number"])
        assert found is not None
        assert [one["text"] for one in found["conversation"]["messages"]] == ["data: 1"]
        stream.ended()


async def test_a_worker_that_ends() -> None:
    """Its open exchanges end; a successor's numbers mean others, and late events nothing."""
    async with two() as (exchanges, workers):
        subscription = exchanges.subscribe()
        await until(lambda: all(one.hub.active for one in workers))
        workers[0].begin("/lost")
        [(_, begun)] = await take(subscription, 1)
        exchanges.end(0)
        [(name, ended)] = await take(subscription, 1)
        assert (name, ended["number"]) == ("ended", begun["number"])
        assert (ended["open"], ended["outcome"]) == (False, "worker-ended")
        exchanges.receive(0, [("begun", {**begun, "number": 1})])
        assert await exchanges.find(begun["number"]) is None
        workers[0] = Process(0, [exchanges])
        exchanges.begin(workers[0])
        await until(lambda: workers[0].hub.active)
        workers[0].begin("/new")
        [(_, new)] = await take(subscription, 1)
        assert new["path"] == "/new"
        assert new["number"] != begun["number"]


async def test_nobody_watches() -> None:
    """Workers send nothing before the first subscriber and after the last; the number of
    subscribers is bounded; the end closes them."""
    async with two() as (exchanges, workers):
        await asyncio.sleep(0)
        assert not any(one.hub.active for one in workers)
        every = [exchanges.subscribe() for _ in range(8)]
        with pytest.raises(TooManySubscriptions):
            exchanges.subscribe()
        await until(lambda: all(one.hub.active for one in workers))
        for one in every[1:]:
            exchanges.unsubscribe(one)
        exchanges.stop()
        assert every[0].closed
        await asyncio.gather(*(task for one in workers for task in one.tasks))
        workers[0].begin("/unseen")
        assert await every[0].take(0.2) == []


@pytest.mark.skipif(sys.platform != "linux", reason="kills a worker by its number")
async def test_real_workers(dummy_key: bytes) -> None:
    """Requests that different processes serve are all shown while they happen; those of a worker
    that is killed end."""

    async def hanging(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/hang" in await read_head(reader):
            await reader.read()
        else:
            writer.write(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        writer.close()

    async with raw_provider(hanging) as provider:
        settings = Settings.model_validate(
            {
                "listen": "127.0.0.1:0",
                "drain_seconds": 5,
                "workers": 2,
                "routes": {"api": static_route(provider.url)},
            }
        )
        async with Supervisor(settings, command=COMMAND, warn=lambda _line: None) as app:
            subscription = app.exchanges.subscribe()
            port = app.listeners[0].address.port
            clients = [await RawClient.to(port) for _ in range(6)]
            try:
                for number, one in enumerate(clients):
                    one.send(f"GET /api/hang/{number} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                begun = {told["path"]: told for _, told in await take(subscription, 6)}
                assert len({told["number"] for told in begun.values()}) == 6
                [*snapshots] = await app.snapshots()
                assert sorted(one["in_flight"] for one in map(_api, snapshots)) != [0, 6]
                victim = snapshots[0]["pids"][0]
                lost = _api(snapshots[0])["in_flight"]
                os.kill(victim, signal.SIGKILL)
                ended = [told for _, told in await take(subscription, lost)]
                assert {told["outcome"] for told in ended} == {"worker-ended"}
                assert len(ended) == lost
                latest = await app.exchanges.latest()
                assert len(latest["exchanges"]) == 6 - lost
            finally:
                for one in clients:
                    one.close()


def _api(snapshot: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = snapshot["routes"]["api"]
    return found
