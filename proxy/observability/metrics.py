"""Metrics in the Prometheus text exposition format 0.0.4.

Labels come from the configuration or from keyrelay itself, so that no request can add a series.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
"""Value of ``Content-Type`` for the exposition."""

_Labelled = Iterable[tuple[tuple[str, ...], float]]


def exposition(snapshot: Mapping[str, Any]) -> bytes:
    """Return all metrics of a snapshot by ``status.snapshot`` or ``status.merged``."""
    # Its own registry: the library's global one also has metrics of the process and the host.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(snapshot))
    return generate_latest(registry)


class _Snapshot(Collector):
    """Yields all metric families, also those without values, so that queries find them."""

    def __init__(self, snapshot: Mapping[str, Any]) -> None:
        self._routes: Mapping[str, Mapping[str, Any]] = snapshot["routes"]
        self._counters: Mapping[str, Mapping[str, Any]] = snapshot["tally"]
        self._reloads: Mapping[str, Any] = snapshot["reloads"]
        self._version: str = snapshot["version"]
        self._shared: Mapping[str, Any] | None = snapshot.get("shared_tokens")

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registering would otherwise collect everything for the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        yield _gauge("build_info", "The running version.", ("version",), [((self._version,), 1)])
        yield from self._of_requests()
        yield from self._of_websockets()
        yield from self._of_tokens()
        yield from self._of_shared_tokens()
        yield from self._of_pools()
        reloads, failed = self._reloads["count"], self._reloads["failed"]
        yield _counter("reloads", "Reloads of settings and secrets.", (), [((), reloads)])
        yield _counter(
            "reloads_failed", "Reloads rejected because of an error.", (), [((), failed)]
        )

    def _of_requests(self) -> Iterator[Metric]:
        counters = self._counters
        yield _counter(
            "requests",
            "Requests that have ended.",
            ("route", "method", "code"),
            [
                ((route, method, code), count)
                for route, one in counters.items()
                for method, codes in one["requests"].items()
                for code, count in codes.items()
            ],
        )
        yield self._histogram(
            "request_duration", "From the request's header section to its end.", "duration_seconds"
        )
        yield self._histogram(
            "time_to_first_byte",
            "From the request's header section to the response's.",
            "first_byte_seconds",
        )
        yield _gauge("in_flight", "Requests in flight.", ("route",), self._state("in_flight"))
        yield _counter(
            "bytes",
            "Bytes of bodies and WebSockets: sent to the provider, received from it.",
            ("route", "direction"),
            [
                ((route, direction), count)
                for route, one in counters.items()
                for direction, count in one["bytes"].items()
            ],
        )
        yield _counter(
            "refusals",
            "Requests refused by keyrelay, or failed before a response.",
            ("reason",),
            self._by_reason("refusals"),
        )
        yield _counter(
            "broken_answers",
            "Responses that did not complete.",
            ("reason",),
            self._by_reason("broken"),
        )

    def _of_websockets(self) -> Iterator[Metric]:
        open_now = self._state("websockets")
        sessions = dict(open_now)
        for route, one in self._counters.items():
            if ended := one["websockets"].get("101"):
                sessions[(route,)] = sessions.get((route,), 0) + ended
        yield _counter(
            "websocket_sessions", "WebSockets that were opened.", ("route",), sessions.items()
        )
        yield _gauge("websocket_sessions_open", "WebSockets that are open.", ("route",), open_now)

    def _of_tokens(self) -> Iterator[Metric]:
        # Strategies with the same name share their series.
        counts: dict[str, dict[tuple[str, ...], float]] = {"fetches": {}, "failures": {}}
        ages: dict[tuple[str, ...], float] = {}
        for route, one in self._routes.items():
            for strategy in one["strategies"]:
                if (credential := strategy["credential"]) is None:
                    continue
                labels = (route, strategy["name"])
                for name, series in counts.items():
                    series[labels] = series.get(labels, 0) + credential[name]
                if credential["age_seconds"] is not None:
                    ages[labels] = max(ages.get(labels, 0), credential["age_seconds"])
        labelled = ("route", "strategy")
        yield _counter("token_fetches", "Token requests.", labelled, counts["fetches"].items())
        yield _counter(
            "token_failures", "Failed token requests.", labelled, counts["failures"].items()
        )
        yield _gauge(
            "token_age", "Age of the token in use.", labelled, ages.items(), unit="seconds"
        )

    def _of_shared_tokens(self) -> Iterator[Metric]:
        shared = self._shared

        def values(name: str) -> _Labelled:
            return [] if shared is None or shared[name] is None else [((), float(shared[name]))]

        yield _gauge(
            "shared_tokens_usable",
            "Whether the Redis server of shared tokens can be used.",
            (),
            values("usable"),
        )
        for name, help_text in (
            ("put", "Tokens obtained for every keyrelay."),
            ("taken", "Tokens taken over from another keyrelay."),
            ("alone", "Tokens obtained for this keyrelay alone, without Redis."),
            ("unavailable", "Calls of Redis that failed, or were not made, as it cannot be used."),
        ):
            yield _counter(f"shared_tokens_{name}", help_text, (), values(name))

    def _of_pools(self) -> Iterator[Metric]:
        for name, help_text in (
            ("reused", "Requests on a reused connection."),
            ("spared", "Requests on a prewarmed connection."),
            ("dialled", "Requests that waited for a new connection."),
            ("spare_dials", "Prewarmed connections opened."),
            ("spare_failures", "Prewarmed connections that failed to open."),
        ):
            yield _counter(
                f"pool_{name}",
                help_text,
                ("route",),
                [((route,), one["pool"][name]) for route, one in self._routes.items()],
            )
        connections: list[tuple[tuple[str, ...], float]] = []
        for route, one in self._routes.items():
            pool = one["pool"]
            busy = pool["open"] - pool["idle"] - pool["spares"]
            for state, count in (("busy", busy), ("idle", pool["idle"]), ("spare", pool["spares"])):
                connections.append(((route, state), count))
        yield _gauge(
            "pool_connections",
            "Connections to providers, without those of open WebSockets.",
            ("route", "state"),
            connections,
        )

    def _state(self, name: str) -> list[tuple[tuple[str, ...], float]]:
        return [((route,), one[name]) for route, one in self._routes.items()]

    def _by_reason(self, kind: str) -> _Labelled:
        reasons: dict[tuple[str, ...], float] = {}
        for one in self._counters.values():
            for reason, count in one[kind].items():
                reasons[(reason,)] = reasons.get((reason,), 0) + count
        return reasons.items()

    def _histogram(self, name: str, help_text: str, kind: str) -> Metric:
        family = HistogramMetricFamily(
            f"keyrelay_{name}", help_text, labels=("route",), unit="seconds"
        )
        for route, one in self._counters.items():
            buckets = [(bound, count) for bound, count in one[kind]["buckets"].items()]
            family.add_metric((route,), buckets, one[kind]["sum"])
        return family


def _counter(name: str, help_text: str, labels: tuple[str, ...], values: _Labelled) -> Metric:
    family = CounterMetricFamily(f"keyrelay_{name}", help_text, labels=labels)
    for one, value in values:
        family.add_metric(one, value)
    return family


def _gauge(
    name: str, help_text: str, labels: tuple[str, ...], values: _Labelled, *, unit: str = ""
) -> Metric:
    family = GaugeMetricFamily(f"keyrelay_{name}", help_text, labels=labels, unit=unit)
    for one, value in values:
        family.add_metric(one, value)
    return family
