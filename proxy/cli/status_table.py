"""A snapshot rendered for a terminal: what needs attention first, then a table."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proxy.auth.secret_rotation import UNUSED_SECONDS
from proxy.auth.token import TokenState
from proxy.clock import format_span

_GAP = "  "
_HEADINGS = ("ROUTE", "REQUESTS", "FAILED", "NOW", "WEBSOCKETS", "FIRST BYTE", "CONNECTIONS")
# Texts stand at the left of their column, numbers at the right.
_TEXTS = frozenset({"ROUTE", "CONNECTIONS"})


def rendered(snapshot: Mapping[str, Any], width: int) -> str:
    """Lines of at most ``width`` characters, each ended with a line break.

    ``snapshot`` is as ``status.snapshot`` or ``status.merged`` made it.
    """
    blocks = [
        _wrapped(_summary(snapshot), width),
        [line for text in _warnings(snapshot) for line in _wrapped(f"! {text}", width)],
        [_cut(line, width) for line in _table(_rows(snapshot))],
        [line for text in _credentials(snapshot) for line in _wrapped(text, width)],
    ]
    return "\n".join("".join(f"{line}\n" for line in block) for block in blocks if block)


def _summary(snapshot: Mapping[str, Any]) -> str:
    pids = snapshot["pids"]
    processes = f"process {pids[0]}" if len(pids) == 1 else f"{len(pids)} processes"
    up = format_span(snapshot["at"] - snapshot["started"])
    places = [
        one["url"] + (f" ({one['route']})" if one["route"] else "") for one in snapshot["listeners"]
    ]
    return f"keyrelay {snapshot['version']}, {processes}, up {up}, at {', '.join(places)}"


def _warnings(snapshot: Mapping[str, Any]) -> Iterator[str]:
    for name, route in snapshot["routes"].items():
        if route["unready"]:
            yield f"{name} is not ready: {route['unready']}"
        for remark in route["remarks"]:
            yield f"{name}: {remark}"
        for strategy in route["strategies"]:
            credential = strategy["credential"]
            if credential and credential["last_failure"]:
                renewal = (
                    ""
                    if credential["age_seconds"] is None
                    else f"; renewing it failed: {credential['last_failure']}"
                )
                advice = f". {credential['advice']}" if credential["advice"] else ""
                yield f"{name}, {strategy['name']}: {_state(credential)}{renewal}{advice}"
            for remark in credential["remarks"] if credential else ():
                yield f"{name}, {strategy['name']}: {remark}"
        for secret in route["secrets"]:
            if secret["refused"]:
                at = _clock(secret["last_refused"])
                yield (
                    f"{name}: the provider refused {secret['reference']} "
                    f"({secret['fingerprint']}) {secret['refused']} times, last at {at}"
                )
        for reference, seconds in _unused(route["secrets"], snapshot):
            unused = format_span(seconds)
            yield f"{name}: {reference} has not served for {unused} and can be removed"
    shared = snapshot.get("shared_tokens")
    if shared and shared["usable"] is False:
        since = format_span(shared["since_seconds"])
        advice = f". {shared['advice']}" if shared["advice"] else ""
        yield f"tokens.share: {shared['reason']}, for {since}{advice}"
    last = snapshot["reloads"]["last"]
    if last and last["findings"]:
        found = "; ".join(" ".join(text.split()) for text in last["findings"])
        yield f"the configuration of {_clock(last['at'])} was not taken: {found}"


def _unused(
    secrets: Sequence[Mapping[str, Any]], snapshot: Mapping[str, Any]
) -> Iterator[tuple[str, float]]:
    """Old values of rotated secrets that are no longer in use, and for how long (seconds).

    Only where the first value has served since: before that it is unproven.
    """
    counted = snapshot["started"]
    last = snapshot["reloads"]["last"]
    if last and not last["findings"]:
        # A changed route starts counting again; the snapshot does not name it.
        counted = max(counted, last["at"])
    # Of each secret its values in their order, and when each served last in any strategy.
    served: dict[str, dict[str, float]] = {}
    for secret in secrets:
        values = served.setdefault(secret["name"], {})
        value = f"{secret['reference']} ({secret['fingerprint']})"
        values[value] = max(values.get(value, 0.0), secret["last_served"] or 0.0)
    for values in served.values():
        (_, first), *others = values.items()
        for value, at in others:
            since = at or counted
            seconds = snapshot["at"] - since
            if first > since and seconds >= UNUSED_SECONDS:
                yield value, seconds


def _rows(snapshot: Mapping[str, Any]) -> list[tuple[str, ...]]:
    counters = snapshot["tally"]
    none: dict[str, Any] = {}
    rows = [
        _row(name, route, counters.get(name, none)) for name, route in snapshot["routes"].items()
    ]
    # What came to no route, and routes that a reload took away.
    rows += [
        _row(name, none, one) for name, one in counters.items() if name not in snapshot["routes"]
    ]
    return rows


def _row(name: str, route: Mapping[str, Any], counters: Mapping[str, Any]) -> tuple[str, ...]:
    requests = sum(sum(codes.values()) for codes in counters.get("requests", {}).values())
    failed = sum(sum(counters.get(kind, {}).values()) for kind in ("refusals", "broken"))
    first_byte = counters.get("first_byte_seconds", {"count": 0, "sum": 0.0})
    mean = first_byte["sum"] / first_byte["count"] if first_byte["count"] else None
    pool = route.get("pool")
    return (
        name,
        str(requests),
        str(failed),
        str(route.get("in_flight", 0)),
        str(route.get("websockets", 0)),
        "-" if mean is None else f"{mean * 1000:.0f} ms",
        f"{pool['open']}, idle {pool['idle']}, spare {pool['spares']}" if pool else "-",
    )


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    columns = list(zip(_HEADINGS, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for row in (_HEADINGS, *rows):
        cells = [
            cell.ljust(wide) if heading in _TEXTS else cell.rjust(wide)
            for heading, cell, wide in zip(_HEADINGS, row, widths, strict=True)
        ]
        lines.append(_GAP.join(cells).rstrip())
    return lines


def _credentials(snapshot: Mapping[str, Any]) -> Iterator[str]:
    """Tokens and rotated secrets, a line each; a static key has none."""
    if shared := snapshot.get("shared_tokens"):
        yield (
            f"tokens shared through {shared['server']}: {shared['put']} put there, "
            f"{shared['taken']} taken over, {shared['alone']} obtained without it"
        )
    for name, route in snapshot["routes"].items():
        for strategy in route["strategies"]:
            if credential := strategy["credential"]:
                calls = f"{credential['fetches']} fetched, {credential['failures']} failed"
                yield f"{name}, {strategy['name']}: {_state(credential)}, {calls}"
        for secret in route["secrets"]:
            now = "in use, " if secret["current"] else ""
            yield (
                f"{name}, {secret['name']}: {secret['reference']} ({secret['fingerprint']}) "
                f"{now}served {secret['served']}"
                + (f", last at {_clock(secret['last_served'])}" if secret["last_served"] else "")
            )


def _state(credential: Mapping[str, Any]) -> str:
    return str(
        TokenState(
            age_seconds=credential["age_seconds"],
            renews_in_seconds=credential["renews_in_seconds"],
            fetches=credential["fetches"],
            failures=credential["failures"],
            reason=credential["last_failure"],
        )
    )


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 20), subsequent_indent="  ", break_on_hyphens=False)


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
