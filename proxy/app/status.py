"""The status of keyrelay: one snapshot of all public state, as JSON-able data.

The inspector, ``keyrelay status`` and the metrics are made from it. It holds names, numbers and
texts of keyrelay only: never a secret, never a path of a request.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from proxy import __version__
from proxy.observability.counters import Counters

if TYPE_CHECKING:
    # For types only: a command that shows a snapshot need not load the request path.
    from proxy.auth.shared.tokens import SharedTokens
    from proxy.auth.strategy import Strategy
    from proxy.observability.exchange_log import ExchangeLog
    from proxy.routing.route import Route
    from proxy.server.listener import Listener
    from proxy.upstream.pool import Pool

# Fields at any depth that are summed over processes, and those of which the latest is taken.
_COUNTED = frozenset(
    {"in_flight", "websockets", "open", "idle", "spares", "reused", "spared", "dialled"}
    | {"spare_dials", "spare_failures", "fetches", "failures", "served", "refused"}
)
_LATEST = frozenset({"last_served", "last_refused"})


@dataclass(frozen=True, slots=True)
class Reload:
    """One attempt to put a changed configuration in force.

    at        seconds since the epoch
    findings  errors, a text each; empty after a success
    changed   the differences, as texts for the operator
    warnings  about files whose changes cannot be detected
    """

    at: float
    findings: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class Reloads:
    """Counts of successful and failed reloads, and the last one."""

    count: int = 0
    failed: int = 0
    last: Reload | None = None

    def note(self, reload: Reload) -> None:
        """Count one attempt."""
        self.last = reload
        if reload.findings:
            self.failed += 1
        else:
            self.count += 1


class Operated(Protocol):
    """The running app, as far as a snapshot needs it.

    pools    by the route's name
    started  seconds since the epoch
    """

    @property
    def routes(self) -> tuple[Route, ...]: ...
    @property
    def pools(self) -> Mapping[str, Pool]: ...
    @property
    def listeners(self) -> tuple[Listener, ...]: ...
    @property
    def exchange_log(self) -> ExchangeLog: ...
    @property
    def counters(self) -> Counters: ...
    @property
    def started(self) -> float: ...
    @property
    def reloads(self) -> Reloads: ...
    @property
    def shared_tokens(self) -> SharedTokens | None: ...


def snapshot(app: Operated) -> dict[str, Any]:
    """Return the status of one process, with every exchange that has ended counted."""
    app.exchange_log.flush()
    in_flight: Counter[str] = Counter()
    websockets: Counter[str] = Counter()
    for exchange in app.exchange_log.open:
        opened = exchange.websocket and exchange.status == HTTPStatus.SWITCHING_PROTOCOLS
        (websockets if opened else in_flight)[exchange.route] += 1
    last = app.reloads.last
    return {
        "version": __version__,
        "pids": [os.getpid()],
        "started": app.started,
        "at": time.time(),
        "listeners": [{"url": one.url, "route": one.route} for one in app.listeners],
        "routes": {
            route.name: {
                "unready": route.unready,
                "origin": str(route.origin),
                "prefix": route.prefix.decode("ascii"),
                "strategies": [_strategy(one) for one in route.strategies],
                "secrets": _secrets(route.strategies),
                "remarks": [str(one) for one in route.remarks],
                "pool": _pool(app.pools[route.name]),
                "in_flight": in_flight[route.name],
                "websockets": websockets[route.name],
            }
            for route in app.routes
        },
        "tally": app.counters.as_json(),
        "reloads": {
            "count": app.reloads.count,
            "failed": app.reloads.failed,
            "last": None if last is None else asdict(last),
        },
        "shared_tokens": None if app.shared_tokens is None else app.shared_tokens.status(),
    }


def _strategy(strategy: Strategy) -> dict[str, Any]:
    state = strategy.credential.state()
    token = None if state is None else state.token
    credential = token and {
        "age_seconds": token.age_seconds,
        "renews_in_seconds": token.renews_in_seconds,
        "fetches": token.fetches,
        "failures": token.failures,
        "last_failure": token.reason,
        "advice": token.advice,
        "remarks": list(token.remarks),
    }
    return {"name": strategy.name, "scope": strategy.scope, "credential": credential}


def _secrets(strategies: Iterable[Strategy]) -> list[dict[str, Any]]:
    """Return the secrets of all strategies; a shared one appears once."""
    states = [strategy.credential.state() for strategy in strategies]
    every = dict.fromkeys(one for state in states if state is not None for one in state.secrets)
    return [asdict(one) for one in every]


def _pool(pool: Pool) -> dict[str, int]:
    counts = pool.counts
    return {
        "open": pool.open,
        "idle": pool.idle,
        "spares": pool.prewarmed,
        "reused": counts.reused,
        "spared": counts.spared,
        "dialled": counts.dialled,
        "spare_dials": counts.spare_dials,
        "spare_failures": counts.spare_failures,
    }


def merged(snapshots: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge the snapshots of one or more processes with the same configuration.

    Counts are summed; the other fields are those of the first process.
    """
    first, *others = snapshots
    return {
        **first,
        "pids": [pid for one in snapshots for pid in one["pids"]],
        "routes": _merged(first["routes"], [one["routes"] for one in others]),
        "tally": Counters.merged(one["tally"] for one in snapshots),
    }


def _merged(first: Any, others: Sequence[Any]) -> Any:
    if isinstance(first, Mapping):
        same = [one for one in others if one and one.get("name") == first.get("name")]
        return {
            name: _merged_field(name, value, [one[name] for one in same if name in one])
            for name, value in first.items()
        }
    if isinstance(first, list):
        # Equal order, since all are made from one configuration.
        return [
            _merged(one, [other[place] for other in others if place < len(other)])
            for place, one in enumerate(first)
        ]
    return first


def _merged_field(name: str, value: Any, others: Sequence[Any]) -> Any:
    if name in _LATEST:
        return max(filter(None, (value, *others)), default=None)
    return sum(others, value) if name in _COUNTED else _merged(value, others)
