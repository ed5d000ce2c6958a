"""Snapshots of one route, as metrics are made from them."""

from __future__ import annotations

from typing import Any

from proxy import __version__
from proxy.observability.counters import Counters
from proxy.observability.exchange_log import ExchangeRecord


def pool(**more: int) -> dict[str, int]:
    names = ("open", "idle", "spares", "reused", "spared", "dialled", "spare_dials")
    return dict.fromkeys((*names, "spare_failures"), 0) | more


def standing(counters: Counters, **route: Any) -> dict[str, Any]:
    """A snapshot of one route, ``api``."""
    one = {"strategies": [], "pool": pool(), "in_flight": 0, "websockets": 0, **route}
    return {
        "version": __version__,
        "routes": {"api": one},
        "tally": counters.as_json(),
        "reloads": {"count": 0, "failed": 0, "last": None},
        "shared_tokens": {"usable": True, "put": 1, "taken": 2, "alone": 3, "unavailable": 4},
    }


def tally_of(*exchanges: ExchangeRecord) -> Counters:
    counters = Counters()
    counters.feed(exchanges)
    return counters
