"""The exchanges that an inspector shows: of this process, or of several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from proxy.observability.exchange_log import ExchangeLog, ExchangeRecord
from proxy.observability.inspector import InspectorHub, Subscription

# Exchanges sent to a page at first: as many as it keeps.
_SHOWN: Final = 2000


class ExchangeSource(Protocol):
    """Exchanges as JSON, each with a number of its own, and events about them."""

    def subscribe(self) -> Subscription:
        """Open a subscription; the caller must ``unsubscribe``. Raises TooManySubscriptions."""

    def unsubscribe(self, subscription: Subscription) -> None: ...

    async def latest(self) -> dict[str, Any]:
        """Return the open and the latest ended exchanges, oldest first, and how many ended."""

    async def find(self, number: int) -> dict[str, Any] | None:
        """Return an exchange with its messages and what was done for it; None if unknown."""

    async def moved(self) -> Mapping[int, tuple[int, int]]:
        """Return the bytes of open exchanges, from client to provider and back, by number."""

    def stop(self) -> None:
        """Close all subscriptions."""


class LocalExchanges:
    """The exchanges of this process."""

    def __init__(self, exchange_log: ExchangeLog, hub: InspectorHub) -> None:
        self._log = exchange_log
        self._hub = hub

    def subscribe(self) -> Subscription:
        return self._hub.subscribe()

    def unsubscribe(self, subscription: Subscription) -> None:
        self._hub.unsubscribe(subscription)

    async def latest(self) -> dict[str, Any]:
        known = sorted(self._known(), key=lambda one: one.number)[-_SHOWN:]
        return {
            "total": self._log.total,
            "exchanges": [self._hub.describe(one) for one in known],
        }

    async def find(self, number: int) -> dict[str, Any] | None:
        exchange = next((one for one in self._known() if one.number == number), None)
        if exchange is None:
            return None
        conversation = self._hub.conversation(exchange)
        return {
            "exchange": self._hub.describe(exchange),
            "detail": self._hub.detail(exchange),
            "conversation": None if conversation is None else conversation.as_json(),
        }

    async def moved(self) -> dict[int, tuple[int, int]]:
        return {one.number: one.moved for one in self._log.open}

    def stop(self) -> None:
        self._hub.stop()

    def _known(self) -> list[ExchangeRecord]:
        return [*self._log.open, *self._log.recent]
