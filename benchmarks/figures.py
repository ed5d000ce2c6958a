"""What is measured."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks import measures
from benchmarks.measures import Scale, Turn


@dataclass(frozen=True, slots=True)
class Column:
    """One number of a figure.

    factor    from what is recorded (seconds, bytes) to ``unit``
    compared  whether a ratio says anything
    """

    key: str
    title: str
    unit: str
    factor: float = 1.0
    compared: bool = True


Measure = Callable[[Turn], Awaitable[dict[str, float]]]


@dataclass(frozen=True, slots=True)
class Figure:
    """Numbers that are taken together.

    measure  takes them once; raises LoadError, NotStarted or OSError if the proxy fails
    rare     measured in ``Scale.rare_rounds`` rounds
    """

    name: str
    columns: tuple[Column, ...]
    measure: Measure
    rare: bool = False


_US = "CPU µs"
FIGURES = {
    figure.name: figure
    for figure in (
        Figure(
            "get",
            tuple(
                Column(f"get_{count}", f"1 KB GET, {count} connection{'s'[: count > 1]}", _US)
                for count in (1, 32, 256)
            ),
            measures.get,
        ),
        Figure("post", (Column("post_32", "1 KB POST, 32 connections", _US),), measures.post),
        Figure(
            "tls", (Column("tls_32", "1 KB GET, TLS provider, 32 connections", _US),), measures.tls
        ),
        Figure(
            "latency",
            (
                Column("latency_p50", "added latency p50, 1 connection", "µs", 1e6),
                Column("latency_p99", "added latency p99, 1 connection", "µs", 1e6),
                Column("latency_direct", "without a proxy, p50", "µs", 1e6, compared=False),
            ),
            measures.latency,
        ),
        Figure(
            "websocket",
            (
                Column("ws_100", "WebSocket round trip, 100 B", _US),
                Column("ws_20k", "WebSocket round trip, 20 KB", _US),
            ),
            measures.websocket,
        ),
        Figure(
            "opening",
            (
                Column("ws_open", "WebSocket opening", _US),
                Column("ws_session", "WebSocket opening and closing", _US),
            ),
            measures.opening,
        ),
        Figure(
            "bodies",
            (
                Column("down", "1 GiB down", "CPU s"),
                Column("up", "1 GiB up", "CPU s"),
                Column("peak", "peak memory meanwhile", "MB", 1e-6),
            ),
            measures.bodies,
        ),
        Figure(
            "events",
            (
                Column("events_p50", "added latency per SSE event, p50", "µs", 1e6),
                Column("events_direct", "without a proxy, p50", "µs", 1e6, compared=False),
            ),
            measures.events,
        ),
        Figure(
            "idle-sockets",
            tuple(
                Column(f"socket_{count}", f"memory per idle WebSocket, {count:,} open", "KB", 1e-3)
                for count in Scale().sockets
            ),
            measures.idle_sockets,
            rare=True,
        ),
        Figure(
            "memory",
            (Column("resting", "memory at rest", "MB", 1e-6),),
            measures.resting,
        ),
        Figure("start", (Column("start", "start to first answer", "ms", 1e3),), measures.start),
    )
}
