"""The exchanges of all workers for the inspector, which the supervisor serves.

Each worker numbers its exchanges from 1; here they get numbers of their own, in the order in which
they become known. While the inspector has subscribers each worker sends its events in batches; they
are redacted there. Exchanges of a worker that has died count as ended.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

from proxy.observability.exchange_source import ExchangeSource
from proxy.observability.inspector import (
    MAX_SUBSCRIPTIONS,
    Event,
    Subscription,
    TooManySubscriptions,
)
from proxy.process.ipc import ChannelClosed, Message

# Interval of event batches (seconds).
_TOGETHER_SECONDS: Final = 0.05
_TAKE_SECONDS: Final = 1.0
# Numbers that are remembered; those of exchanges that were not mentioned for longest go first.
_NUMBERS: Final = 50_000
WORKER_ENDED: Final = "worker-ended"


class Worker(Protocol):
    """A worker process, as far as the inspector needs it."""

    @property
    def index(self) -> int: ...
    def send(self, kind: str, message: Message) -> bool: ...
    async def ask(self, kind: str, message: Message) -> Message:
        """Return the reply; empty if there is none in time."""


class WorkerExchanges:
    """The supervisor's side: an ``ExchangeSource`` over its workers.

    workers  returns those that serve
    """

    def __init__(self, workers: Callable[[], Iterable[Worker]]) -> None:
        self._workers = workers
        self._subscriptions: set[Subscription] = set()
        # The start of each worker, by its index: after another one its numbers begin anew.
        self._starts: dict[int, int] = {}
        self._started = 0
        self._numbers: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._origins: dict[int, tuple[int, int]] = {}
        self._numbered = 0
        # The open exchanges of each worker, by their numbers here.
        self._open: dict[int, dict[int, dict[str, Any]]] = {}

    # -- for the supervisor ----------------------------------------------------------------------

    def begin(self, worker: Worker) -> None:
        """A worker is ready."""
        self._started += 1
        self._starts[worker.index] = self._started
        self._open[worker.index] = {}
        if self._subscriptions:
            worker.send("inspect", {"on": True})

    def end(self, index: int) -> None:
        """A worker has ended, and with it its open exchanges."""
        self._starts.pop(index, None)
        for exchange in self._open.pop(index, {}).values():
            over = {"open": False, "duration_ms": 0.0, "outcome": WORKER_ENDED}
            self._publish("ended", exchange | over, 0)

    def receive(self, index: int, events: Iterable[Event]) -> None:
        """Publish events of a worker."""
        if index not in self._starts:
            return
        for name, data in events:
            if "number" in data:
                data["number"] = self._number(index, data["number"])
            if "open" in data:
                self._note(index, data)
            self._publish(name, data, len(data.get("text", "")))

    # -- for the inspector -----------------------------------------------------------------------

    def subscribe(self) -> Subscription:
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise TooManySubscriptions
        subscription = Subscription(lambda _exchange: {})
        if not self._subscriptions:
            self._switch(on=True)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        if not self._subscriptions:
            self._switch(on=False)

    async def latest(self) -> dict[str, Any]:
        every = await self._ask_all("exchanges")
        known = [(one, index) for index, found in every for one in found["exchanges"]]
        known.sort(key=lambda pair: pair[0]["started"])
        for one, index in known:
            one["number"] = self._number(index, one["number"])
            self._note(index, one)
        return {
            "total": sum(found["total"] for _, found in every),
            "exchanges": sorted((one for one, _ in known), key=lambda one: one["number"]),
        }

    async def find(self, number: int) -> dict[str, Any] | None:
        start, own = self._origins.get(number, (0, 0))
        for worker in self._workers():
            if self._starts.get(worker.index) == start:
                found = await worker.ask("exchange", {"number": own})
                if found:
                    found["exchange"]["number"] = number
                    return found
        return None

    async def moved(self) -> Mapping[int, tuple[int, int]]:
        return {
            self._number(index, number): (sent, received)
            for index, found in await self._ask_all("moved")
            for number, sent, received in found["moved"]
        }

    def stop(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()
        self._subscriptions.clear()
        self._switch(on=False)

    # -- internal --------------------------------------------------------------------------------

    async def _ask_all(self, kind: str) -> list[tuple[int, Message]]:
        """Return the replies with the index of their worker, without those of absent workers."""
        workers = list(self._workers())
        starts = [self._starts.get(worker.index) for worker in workers]
        replies = await asyncio.gather(*(worker.ask(kind, {}) for worker in workers))
        return [
            (worker.index, reply)
            for worker, start, reply in zip(workers, starts, replies, strict=True)
            if reply and start is not None and self._starts.get(worker.index) == start
        ]

    def _switch(self, *, on: bool) -> None:
        for worker in self._workers():
            worker.send("inspect", {"on": on})

    def _number(self, index: int, own: int) -> int:
        key = (self._starts[index], own)
        number = self._numbers.get(key)
        if number is None:
            self._numbered += 1
            number = self._numbers[key] = self._numbered
            self._origins[number] = key
            if len(self._numbers) > _NUMBERS:
                _, oldest = self._numbers.popitem(last=False)
                del self._origins[oldest]
        else:
            self._numbers.move_to_end(key)
        return number

    def _note(self, index: int, exchange: dict[str, Any]) -> None:
        if exchange["open"]:
            self._open[index][exchange["number"]] = exchange
        else:
            self._open[index].pop(exchange["number"], None)

    def _publish(self, name: str, data: dict[str, Any], cost: int) -> None:
        for subscription in self._subscriptions:
            subscription.offer(name, data, cost)


class InspectionFeed:
    """The worker's side: replies to questions, and sends events while it is switched on.

    exchanges  of this worker
    send       sends a message to the supervisor; raises ChannelClosed
    waiting    whether earlier messages are unsent; events then wait, and are dropped if there are
               too many, as for any slow subscriber
    """

    def __init__(
        self,
        exchanges: ExchangeSource,
        send: Callable[[str, Message], None],
        waiting: Callable[[], bool],
    ) -> None:
        self._exchanges = exchanges
        self._send = send
        self._waiting = waiting
        self._task: asyncio.Task[None] | None = None

    async def answer(self, kind: str, message: Message) -> Message:
        """Handle a message of the supervisor."""
        match kind:
            case "inspect":
                self._switch(on=message["on"])
            case "exchanges":
                return await self._exchanges.latest()
            case "exchange":
                return await self._exchanges.find(message["number"]) or {}
            case "moved":
                moved = await self._exchanges.moved()
                return {"moved": [(number, *both) for number, both in moved.items()]}
        return {}

    def _switch(self, *, on: bool) -> None:
        if on and self._task is None:
            # Subscribed at once: no event behind this message is missing.
            feeding = self._feed(self._exchanges.subscribe())
            self._task = asyncio.get_running_loop().create_task(feeding)
        elif not on and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _feed(self, subscription: Subscription) -> None:
        try:
            with suppress(ChannelClosed):
                while not subscription.closed:
                    events = [] if self._waiting() else await subscription.take(_TAKE_SECONDS)
                    if events:
                        self._send("inspected", {"events": events})
                    await asyncio.sleep(_TOGETHER_SECONDS)
        finally:
            self._exchanges.unsubscribe(subscription)
