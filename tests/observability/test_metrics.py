"""The metrics: well-formed, true to what happened, with labels of the configuration alone."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from proxy import __version__
from proxy.app.status import merged, snapshot
from proxy.observability.counters import BUCKETS, Counters
from proxy.observability.exchange_log import ExchangeRecord
from proxy.observability.metrics import CONTENT_TYPE, exposition
from tests.support.keyrelay import (
    SECRET,
    both_loops,
    client,
    exchange,
    keyrelay,
    preset_keyrelay,
    static_route,
    until,
)
from tests.support.metrics import pool, standing, tally_of

ORDER = ("route", "strategy", "method", "code", "direction", "state", "reason", "version", "le")


def families(snapshot: dict[str, Any]) -> dict[str, Metric]:
    text = exposition(snapshot).decode()
    return {one.name: one for one in text_string_to_metric_families(text)}


def samples(snapshot: dict[str, Any], name: str) -> dict[tuple[str, ...], float]:
    """The values of a series by its labels' values, the route first and the bucket last."""
    found: Iterator[Sample] = (
        sample for one in families(snapshot).values() for sample in one.samples
    )
    return {
        tuple(one.labels[label] for label in ORDER if label in one.labels): one.value
        for one in found
        if one.name == name
    }


def ended(status: int = 200, *, route: str = "api", **more: Any) -> ExchangeRecord:
    one = ExchangeRecord(route, "GET", "/CANARY", status=status)
    one.first_byte, one.duration = 0.02, 0.3
    for name, value in more.items():
        setattr(one, name, value)
    return one


EXPECTED = {
    "build_info": "gauge",
    "requests": "counter",
    "request_duration_seconds": "histogram",
    "time_to_first_byte_seconds": "histogram",
    "in_flight": "gauge",
    "bytes": "counter",
    "refusals": "counter",
    "broken_answers": "counter",
    "websocket_sessions": "counter",
    "websocket_sessions_open": "gauge",
    "token_fetches": "counter",
    "token_failures": "counter",
    "token_age_seconds": "gauge",
    "shared_tokens_usable": "gauge",
    "shared_tokens_put": "counter",
    "shared_tokens_taken": "counter",
    "shared_tokens_alone": "counter",
    "shared_tokens_unavailable": "counter",
    "reloads": "counter",
    "reloads_failed": "counter",
    "pool_reused": "counter",
    "pool_spared": "counter",
    "pool_dialled": "counter",
    "pool_spare_dials": "counter",
    "pool_spare_failures": "counter",
    "pool_connections": "gauge",
}


def test_every_family_is_there_from_the_start() -> None:
    """With its type and a text, before anything has happened; nothing of the process or Python."""
    found = families(standing(Counters()))
    assert {name.removeprefix("keyrelay_"): one.type for name, one in found.items()} == EXPECTED
    assert all(name.startswith("keyrelay_") and one.documentation for name, one in found.items())
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"
    assert samples(standing(Counters()), "keyrelay_build_info") == {(__version__,): 1}


def test_every_metric_is_documented() -> None:
    """Under the name by which Prometheus knows it."""
    reference = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    documented = set(re.findall(r"`(keyrelay_\w+)`", reference))
    named = {
        f"keyrelay_{name}_total" if kind == "counter" else f"keyrelay_{name}"
        for name, kind in EXPECTED.items()
    }
    assert documented == named


def test_promtool_has_no_complaint() -> None:
    """Prometheus' own linter takes names, types, texts and units, where it is installed."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    said = standing(tally_of(ended(), ended(502, outcome="connection_refused")))
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=exposition(said),
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_histograms() -> None:
    """The buckets that are fixed, each holding those below, and seconds as unit."""
    said = standing(tally_of(ended(duration=0.3), ended(duration=99.0, first_byte=-1.0)))
    duration = samples(said, "keyrelay_request_duration_seconds_bucket")
    assert [float(bound) for _, bound in duration] == [*BUCKETS, float("inf")]
    assert (duration["api", "0.25"], duration["api", "0.5"]) == (0, 1)
    assert (duration["api", "60.0"], duration["api", "+Inf"]) == (1, 2)
    assert samples(said, "keyrelay_request_duration_seconds_count") == {("api",): 2}
    assert samples(said, "keyrelay_request_duration_seconds_sum") == {("api",): 99.3}
    assert samples(said, "keyrelay_time_to_first_byte_seconds_count") == {("api",): 1}


def test_websockets() -> None:
    """Sessions count from when they are opened, and go on counting when they have ended."""
    opened = ended(101, websocket=True)
    said = standing(tally_of(opened, ended(101, websocket=True, route="gone")), websockets=2)
    assert samples(said, "keyrelay_websocket_sessions_total") == {("api",): 3, ("gone",): 1}
    assert samples(said, "keyrelay_websocket_sessions_open") == {("api",): 2}


def test_tokens() -> None:
    """By route and strategy; a token that is not there has no age; names may be the same."""
    credential = {"age_seconds": 5.0, "fetches": 3, "failures": 1}
    none = {"age_seconds": None, "fetches": 2, "failures": 2}
    strategies = [
        {"name": "token", "credential": credential},
        {"name": "token", "credential": credential},
        {"name": "other", "credential": none},
        {"name": "key", "credential": None},
    ]
    said = standing(Counters(), strategies=strategies)
    assert samples(said, "keyrelay_token_fetches_total") == {
        ("api", "token"): 6,
        ("api", "other"): 2,
    }
    assert samples(said, "keyrelay_token_failures_total") == {
        ("api", "token"): 2,
        ("api", "other"): 2,
    }
    assert samples(said, "keyrelay_token_age_seconds") == {("api", "token"): 5.0}


def test_pools() -> None:
    """How requests got their connections, and what state connections are in."""
    one = pool(open=6, idle=2, spares=1, reused=7, spared=8, dialled=9)
    said = standing(Counters(), pool=one)
    assert samples(said, "keyrelay_pool_connections") == {
        ("api", "busy"): 3,
        ("api", "idle"): 2,
        ("api", "spare"): 1,
    }
    for name, count in (("reused", 7), ("spared", 8), ("dialled", 9)):
        assert samples(said, f"keyrelay_pool_{name}_total") == {("api",): count}


def test_reasons_are_summed_over_routes() -> None:
    """A reason has one series, whichever route it was."""
    said = standing(
        tally_of(
            ended(502, outcome="connection_refused"),
            ended(502, outcome="connection_refused", route="other"),
            ended(200, outcome="client-left"),
        )
    )
    assert samples(said, "keyrelay_refusals_total") == {("connection_refused",): 2}
    assert samples(said, "keyrelay_broken_answers_total") == {("client-left",): 1}


# -- with a keyrelay that runs -------------------------------------------------------------------


@both_loops
async def test_the_numbers_are_those_of_a_load() -> None:
    """Requests, refusals, WebSockets and bytes are counted as a client counts them."""
    async with preset_keyrelay({"demo": {"provider": "demo"}}) as running:
        async with client() as session:
            for _ in range(20):
                async with session.get(f"{running.url}/demo/echo/x?CANARY=1") as answer:
                    assert answer.status == 200
                    await answer.read()
            for _ in range(5):
                async with session.post(f"{running.url}/demo/echo/x", data=b"12345") as answer:
                    await answer.read()
            async with session.get(f"{running.url}/demo/status/429") as answer:
                await answer.read()
            async with session.get(f"{running.url}/nowhere/CANARY") as answer:
                assert answer.status == 404
        async with running.websocket("/demo/ws") as socket:
            assert await socket.recv()
            said = snapshot(running.app)
            assert samples(said, "keyrelay_websocket_sessions_open") == {("demo",): 1}
            assert samples(said, "keyrelay_websocket_sessions_total") == {("demo",): 1}
        for path in (b"/demo/../x", b"/demo/x"):
            request = b"GET " + path + b" HTTP/1.1\r\nHost: evil.example\r\n\r\n"
            await exchange(running.port, request)
        await until(lambda: any(one.status == 101 for one in running.app.exchange_log.recent))
        said = snapshot(running.app)
        counted = samples(said, "keyrelay_requests_total")
        assert {labels: n for labels, n in counted.items() if labels[0] == "demo"} == {
            ("demo", "GET", "200"): 20,
            ("demo", "POST", "200"): 5,
            ("demo", "GET", "429"): 1,
            ("demo", "GET", "101"): 1,
        }
        refusals = samples(said, "keyrelay_refusals_total")
        assert refusals[("no-route",)] == 1
        assert sum(refusals.values()) == sum(
            count for labels, count in counted.items() if labels[0] == "-"
        )
        assert samples(said, "keyrelay_websocket_sessions_total") == {("demo",): 1}
        durations = samples(said, "keyrelay_request_duration_seconds_count")
        assert durations[("demo",)] == 26
        assert samples(said, "keyrelay_bytes_total")["demo", "sent"] >= 25
        pools = [samples(said, f"keyrelay_pool_{one}_total") for one in ("dialled", "reused")]
        assert sum(one[("demo",)] for one in pools) >= 26
        text = exposition(merged([said, said])).decode()
        assert "CANARY" not in text
        assert SECRET.decode() not in text
        assert 'keyrelay_requests_total{code="200",method="GET",route="demo"} 40.0' in text


async def test_hostile_requests_add_no_series(dummy_key: bytes) -> None:
    """Paths, hosts, methods and queries outside the configuration are in no label."""
    async with keyrelay({"api": static_route("http://127.0.0.1:9")}) as running:
        app = running.app

        def series() -> set[bytes]:
            lines = exposition(snapshot(app)).splitlines()
            return {line.rpartition(b" ")[0] for line in lines if not line.startswith(b"#")}

        async def ask(number: int) -> None:
            for line, host in (
                (b"GET /CANARY%d" % number, b"localhost"),
                (b"GET /api/%d?CANARY" % number, b"canary%d.example" % number),
                (b"CANARY%d /api/x" % number, b"localhost"),
            ):
                request = b"%b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (line, host)
                await exchange(running.port, request, until_close=True)

        await ask(0)
        before = series()
        for number in range(1, 40):
            await ask(number)
        assert series() == before
        assert not any(b"CANARY" in one.upper() for one in before)


@given(st.lists(st.tuples(st.text(), st.text(), st.integers(0, 999)), max_size=20))
def test_labels_are_of_the_configuration(asked: list[tuple[str, str, int]]) -> None:
    """Whatever clients and providers say, each label is a route's name or one of a fixed set."""
    said = standing(
        tally_of(*(ended(status, method=method, path=path) for method, path, status in asked))
    )
    methods = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"}
    for route, method, code in (
        (one["route"], one["method"], one["code"])
        for one in (
            sample.labels
            for family in families(said).values()
            for sample in family.samples
            if sample.name == "keyrelay_requests_total"
        )
    ):
        assert route == "api"
        assert method in methods
        assert len(code) == 3 or code == "none"
