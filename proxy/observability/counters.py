"""Counters of exchanges by route.

Every label comes from the configuration or from keyrelay itself; values chosen by clients or
providers are counted as ``other``, so that requests cannot add labels. Counters survive reloads,
and those of several processes can be added.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from proxy.observability.exchange_log import CLIENT_LEFT, ExchangeRecord

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histogram buckets, in seconds."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CODES = {int(one): str(int(one)) for one in HTTPStatus}


class _Histogram:
    """Number of values in each bucket, and their sum."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self._sum += seconds

    def as_json(self) -> dict[str, Any]:
        """Return cumulative ``buckets``: the number of values up to each bound."""
        buckets: dict[str, int] = {}
        count = 0
        for bound, in_bucket in zip((*BUCKETS, "+Inf"), self._counts, strict=True):
            count += in_bucket
            buckets[str(bound)] = count
        return {"buckets": buckets, "count": count, "sum": self._sum}


class _RouteCounters:
    """The counters of one route."""

    __slots__ = (
        "broken",
        "duration",
        "first_byte",
        "received",
        "refusals",
        "requests",
        "sent",
        "strategies",
        "websockets",
    )

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.websockets: Counter[str] = Counter()
        self.strategies: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        self.sent = 0
        self.received = 0
        self.duration = _Histogram()
        self.first_byte = _Histogram()

    def add(self, exchange: ExchangeRecord) -> None:
        method = exchange.method if exchange.method in _METHODS else "other"
        code = _code(exchange.status)
        self.requests[method, code] += 1
        if exchange.websocket:
            self.websockets[code] += 1
        if exchange.strategy:
            self.strategies[exchange.strategy] += 1
        if exchange.outcome:
            self._reasons(exchange)[exchange.outcome] += 1
        self.sent += exchange.sent
        self.received += exchange.received
        if exchange.status != HTTPStatus.SWITCHING_PROTOCOLS:
            self.duration.add(exchange.duration)
        if exchange.first_byte >= 0:
            self.first_byte.add(exchange.first_byte)

    def _reasons(self, exchange: ExchangeRecord) -> Counter[str]:
        """Return ``refusals`` for responses of keyrelay's own, ``broken`` for incomplete ones."""
        own = exchange.status >= HTTPStatus.BAD_REQUEST and exchange.outcome != CLIENT_LEFT
        return self.refusals if own else self.broken

    def as_json(self) -> dict[str, Any]:
        requests: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for (method, code), count in sorted(self.requests.items()):
            requests[method][code] = count
        return {
            "requests": dict(requests),
            "websockets": dict(self.websockets),
            "strategies": dict(self.strategies),
            "refusals": dict(self.refusals),
            "broken": dict(self.broken),
            "bytes": {"sent": self.sent, "received": self.received},
            "duration_seconds": self.duration.as_json(),
            "first_byte_seconds": self.first_byte.as_json(),
        }


class Counters:
    """The counters of one process. ``feed`` is an observer of the exchange log."""

    def __init__(self) -> None:
        self._routes: defaultdict[str, _RouteCounters] = defaultdict(_RouteCounters)

    def feed(self, batch: Sequence[ExchangeRecord]) -> None:
        """Count a batch of exchanges that have ended."""
        for exchange in batch:
            self._routes[exchange.route].add(exchange)

    def as_json(self) -> dict[str, Any]:
        """Return the counters by route; ``-`` for requests without a route.

        requests            ended exchanges by method and status, including WebSocket handshakes
        websockets          handshakes by status; 101 counts ended sessions
        strategies          exchanges by strategy
        refusals            responses of keyrelay's own, by reason
        broken              incomplete responses, by reason
        bytes               sent to the provider, received from it
        duration_seconds    from the request's header section to the end, without WebSockets
        first_byte_seconds  from the request's header section to the response's
        """
        return {name: route.as_json() for name, route in self._routes.items()}

    @staticmethod
    def merged(counters: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Add up the results of ``as_json`` of several processes."""
        total: dict[str, Any] = {}
        for one in counters:
            _add(total, one)
        return total


def _add(total: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, Mapping):
            _add(total.setdefault(name, {}), value)
        else:
            total[name] = total.get(name, 0) + value


def _code(status: int) -> str:
    """Return the status, or its class if it is not registered; ``none`` without a response."""
    if (code := _CODES.get(status)) is not None:
        return code
    return f"{status // 100}xx" if status else "none"
