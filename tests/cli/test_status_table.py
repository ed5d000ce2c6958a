"""The overview: what needs attention comes first, and every line fits."""

from __future__ import annotations

import re
from typing import Any

import pytest

from proxy.cli.status_table import rendered


def pool(**more: int) -> dict[str, int]:
    return {"open": 3, "idle": 1, "spares": 1, **more}


def histogram(count: int, seconds: float) -> dict[str, Any]:
    return {"buckets": {}, "count": count, "sum": seconds}


def route(**more: Any) -> dict[str, Any]:
    return {
        "unready": "",
        "strategies": [],
        "secrets": [],
        "remarks": [],
        "pool": pool(),
        "in_flight": 2,
        "websockets": 1,
        **more,
    }


def standing(**more: Any) -> dict[str, Any]:
    return {
        "version": "1.2.3",
        "pids": [4711],
        "started": 1000.0,
        "at": 1000.0 + 7300,
        "listeners": [
            {"url": "http://127.0.0.1:8080", "route": None},
            {"url": "http://127.0.0.1:8082", "route": "hume"},
        ],
        "routes": {"hume": route(), "a-route-with-a-long-name": route(in_flight=0)},
        "tally": {
            "hume": {
                "requests": {"GET": {"200": 5, "502": 1}, "POST": {"200": 1}},
                "refusals": {"connection_refused": 1},
                "broken": {"client-left": 2},
                "first_byte_seconds": histogram(4, 1.0),
            },
            "-": {
                "requests": {"GET": {"421": 9}},
                "refusals": {"host-not-allowed": 9},
                "broken": {},
                "first_byte_seconds": histogram(0, 0.0),
            },
        },
        "reloads": {"count": 0, "failed": 0, "last": None},
        **more,
    }


def test_a_table_of_the_routes() -> None:
    """A line each: what was done, what failed, what goes on; also for what came to no route."""
    text = rendered(standing(), 120)
    assert text.startswith(
        "keyrelay 1.2.3, process 4711, up 2 h, at http://127.0.0.1:8080, "
        "http://127.0.0.1:8082 (hume)"
    )
    cells = {line.split()[0]: line.split() for line in text.splitlines() if line}
    assert cells["hume"][1:7] == ["7", "3", "2", "1", "250", "ms"]
    assert cells["hume"][7:] == ["3,", "idle", "1,", "spare", "1"]
    assert cells["a-route-with-a-long-name"][1:6] == ["0", "0", "0", "1", "-"]
    assert cells["-"][1:] == ["9", "9", "0", "0", "-", "-"]
    assert "!" not in text


def credential(**more: Any) -> dict[str, Any]:
    return {
        "age_seconds": 30.0,
        "renews_in_seconds": 600.0,
        "fetches": 3,
        "failures": 0,
        "last_failure": "",
        "advice": "",
        "remarks": [],
        **more,
    }


def with_credential(**more: Any) -> dict[str, Any]:
    strategy = {"name": "token", "scope": "every path", "credential": credential(**more)}
    return standing(routes={"hume": route(strategies=[strategy])})


def test_tokens_are_told_of() -> None:
    """Age, next renewal and calls, below the table."""
    last = rendered(with_credential(), 120).splitlines()[-1]
    assert last == "hume, token: token 30 s old, renewed in 10 min, 3 fetched, 0 failed"


@pytest.mark.parametrize(
    ("said", "warning"),
    [
        (
            standing(routes={"hume": route(unready="set HUME_API_KEY")}),
            "! hume is not ready: set HUME_API_KEY",
        ),
        (
            with_credential(
                age_seconds=None, renews_in_seconds=None, failures=2, last_failure="it is down"
            ),
            "! hume, token: no token: it is down",
        ),
        (
            with_credential(last_failure="it is down"),
            "! hume, token: token 30 s old, renewed in 10 min; renewing it failed: it is down",
        ),
        (
            standing(
                reloads={
                    "count": 1,
                    "failed": 1,
                    "last": {"at": 0.0, "findings": ["f.yaml:1:2: no\n    write x"], "changed": []},
                }
            ),
            r"! the configuration of \d\d:\d\d:\d\d was not taken: f.yaml:1:2: no write x",
        ),
    ],
)
def test_warnings_come_first(said: dict[str, Any], warning: str) -> None:
    """What needs attention stands above the table, a paragraph behind the first line."""
    lines = rendered(said, 120).splitlines()
    assert re.fullmatch(warning, lines[lines.index("") + 1])
    assert not any(line.startswith("!") for line in lines[lines.index("") + 2 :])


def test_secrets_in_rotation() -> None:
    """Which value served, and which the provider refused, by fingerprint."""
    secret = {
        "name": "api_key",
        "reference": "env:NEW",
        "fingerprint": "0a1b2c3d",
        "served": 3,
        "last_served": 5.0,
        "refused": 2,
        "last_refused": 7.0,
        "current": False,
    }
    old = {**secret, "reference": "env:OLD", "refused": 0, "served": 0, "last_served": None}
    old["current"] = True
    text = rendered(standing(routes={"hume": route(secrets=[secret, old])}), 200)
    assert re.search(
        r"^! hume: the provider refused env:NEW \(0a1b2c3d\) 2 times, last at [\d:]{8}$", text, re.M
    )
    assert re.search(
        r"^hume, api_key: env:NEW \(0a1b2c3d\) served 3, last at [\d:]{8}$", text, re.M
    )
    assert text.endswith("hume, api_key: env:OLD (0a1b2c3d) in use, served 0\n")


DAY = 86_400.0
NOW = 1000.0 + 30 * DAY


def value(reference: str, served: float | None, **more: Any) -> dict[str, Any]:
    """A value of the secret ``api_key``; ``served`` is how many days ago it served last."""
    return {
        "name": "api_key",
        "reference": f"env:{reference}",
        "fingerprint": "0a1b2c3d",
        "served": 0 if served is None else 1,
        "last_served": None if served is None else NOW - served * DAY,
        "refused": 0,
        "last_refused": None,
        "current": False,
        **more,
    }


def warned(*values: dict[str, Any], **more: Any) -> list[str]:
    """The warnings about a route with these values, thirty days after the start."""
    said = standing(at=NOW, routes={"hume": route(secrets=list(values))}, **more)
    return [line for line in rendered(said, 200).splitlines() if line.startswith("!")]


@pytest.mark.parametrize(
    ("values", "removable"),
    [
        ([value("NEW", 0), value("OLD", 8)], "env:OLD (0a1b2c3d) has not served for 8 d"),
        ([value("NEW", 0), value("OLD", None)], "env:OLD (0a1b2c3d) has not served for 30 d"),
        ([value("NEW", 0), value("OLD", 7)], "env:OLD (0a1b2c3d) has not served for 7 d"),
        ([value("NEW", 0), value("OLD", 6.9)], None),
        # The new one has yet to show that the provider takes it.
        ([value("NEW", None), value("OLD", 8)], None),
        ([value("NEW", 9), value("OLD", 8)], None),
        ([value("NEW", None), value("OLD", None)], None),
        # Only the one that is not used goes.
        (
            [value("NEW", 0), value("OLD", 1), value("OLDER", 20)],
            "env:OLDER (0a1b2c3d) has not served for 20 d",
        ),
        # A secret without another value, and one of another name.
        ([value("NEW", 8)], None),
        ([value("NEW", 0), value("TEAM", 8, name="team")], None),
        # In another strategy the old value still serves.
        ([value("NEW", 0), value("OLD", 8), value("NEW", 0), value("OLD", 1)], None),
    ],
)
def test_an_old_value_that_nobody_needs(
    values: list[dict[str, Any]], removable: str | None
) -> None:
    """Unused for a week although the first one has served since: it can be removed, and not
    before."""
    expected = [] if removable is None else [f"! hume: {removable} and can be removed"]
    assert warned(*values) == expected


def test_a_reload_begins_the_week_anew() -> None:
    """A value that came with it has had no time to serve; a reload that failed changed nothing."""
    values = (value("NEW", 0), value("OLD", None))
    last = {"at": NOW - 2 * DAY, "findings": [], "changed": ["route hume has other secrets"]}
    assert warned(*values, reloads={"count": 1, "failed": 0, "last": last}) == []
    failed = {**last, "findings": ["no"]}
    first, _ = warned(*values, reloads={"count": 0, "failed": 1, "last": failed})
    assert first.endswith("has not served for 30 d and can be removed")


@pytest.mark.parametrize("width", [30, 60, 80, 200])
def test_every_line_fits(width: int) -> None:
    """Tables are cut at the width, sentences go on in the next line."""
    said = with_credential(last_failure="the endpoint said something rather long " * 3)
    for line in rendered(said, width).splitlines():
        assert len(line) <= width


def test_several_processes_are_counted() -> None:
    """Only their number is shown, not their process ids."""
    assert ", 3 processes, " in rendered(standing(pids=[1, 2, 3]), 120)
    assert ", up 5 s, " in rendered(standing(at=1005.0), 120)
