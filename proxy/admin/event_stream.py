"""The stream of server-sent events for one inspector: the state at first, then each change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from proxy.observability.exchange_source import ExchangeSource
from proxy.observability.inspector import Event, Subscription

# Interval of event batches (seconds), since the page draws them together.
_TOGETHER_SECONDS: Final = 0.05
# Interval at which status and byte counts are compared (seconds).
_STATUS_SECONDS: Final = 1.0
# A subscriber that reads nothing for this long (seconds) is disconnected.
_STUCK_SECONDS: Final = 20.0
# Fields of a status that change with time alone; the page advances them itself.
_TICKING: Final = frozenset({"at", "age_seconds", "renews_in_seconds"})


class EventStream:
    """Sends events to one client of the admin listener.

    subscription  has the events of the data path
    response      prepared, with ``text/event-stream``
    exchanges     the source of the subscription
    """

    def __init__(
        self,
        subscription: Subscription,
        response: web.StreamResponse,
        exchanges: ExchangeSource,
    ) -> None:
        self._subscription = subscription
        self._response = response
        self._exchanges = exchanges
        self._steady: Any = None
        self._moved: Mapping[int, tuple[int, int]] = {}

    async def run(
        self, first: dict[str, Any], snapshot: Callable[[], Awaitable[dict[str, Any]]]
    ) -> None:
        """Send the event ``exchanges`` with ``first``, then changes until the subscription ends.

        ``snapshot`` returns the status. Raises TimeoutError if the client does not read.
        """
        loop = asyncio.get_running_loop()
        await self._send([("exchanges", first)])
        checked_at = -_STATUS_SECONDS
        while not self._subscription.closed:
            events = await self._subscription.take(_STATUS_SECONDS)
            if loop.time() - checked_at >= _STATUS_SECONDS:
                checked_at = loop.time()
                events += await self._progress()
                events += self._status(await snapshot())
            if events:
                await self._send(events)
                await asyncio.sleep(_TOGETHER_SECONDS)

    async def _progress(self) -> list[Event]:
        """Return the bytes of open exchanges that have moved some since the last call."""
        before, self._moved = self._moved, await self._exchanges.moved()
        changed = [
            [number, *moved]
            for number, moved in self._moved.items()
            if moved != before.get(number, (0, 0))
        ]
        return [("progress", {"moved": changed})] if changed else []

    def _status(self, snapshot: dict[str, Any]) -> list[Event]:
        """Return the status if more than the time is different."""
        if (now := _steady(snapshot)) == self._steady:
            return []
        self._steady = now
        return [("status", snapshot)]

    async def _send(self, events: Sequence[Event]) -> None:
        """Send events. Raises TimeoutError if the client does not read them."""
        text = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
        async with asyncio.timeout(_STUCK_SECONDS):
            await self._response.write(text.encode("ascii"))


def _steady(value: Any) -> Any:
    """Return a status without the fields that change with time alone."""
    if isinstance(value, dict):
        return {name: _steady(one) for name, one in value.items() if name not in _TICKING}
    if isinstance(value, list):
        return [_steady(one) for one in value]
    return value
