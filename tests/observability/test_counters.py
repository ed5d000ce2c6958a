"""The counters: what is counted under which name, that they cannot grow, that they add up."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.observability.counters import BUCKETS, Counters
from proxy.observability.exchange_log import ExchangeRecord


def ended(
    status: int = 200,
    *,
    route: str = "api",
    method: str = "GET",
    websocket: bool = False,
    outcome: str = "",
    **more: Any,
) -> ExchangeRecord:
    one = ExchangeRecord(route, method, "/x", websocket, status=status, outcome=outcome)
    if status:
        one.first_byte = 0.02
    one.duration = 0.3
    for name, value in more.items():
        setattr(one, name, value)
    return one


def counted(*exchanges: ExchangeRecord, route: str = "api") -> dict[str, Any]:
    counters = Counters()
    counters.feed(exchanges)
    said: dict[str, Any] = counters.as_json()[route]
    return said


def test_requests_are_counted_by_route_method_and_status() -> None:
    """Each exchange counts once, and its bytes each way."""
    counters = Counters()
    counters.feed([ended(), ended(sent=3, received=5), ended(404, method="POST")])
    counters.feed([ended(sent=4), ended(421, route="-")])
    said = counters.as_json()
    assert said["api"]["requests"] == {"GET": {"200": 3}, "POST": {"404": 1}}
    assert said["api"]["bytes"] == {"sent": 7, "received": 5}
    assert said["-"]["requests"] == {"GET": {"421": 1}}


def test_websockets_are_counted_among_requests_and_apart() -> None:
    """A handshake is a request; a session's length is no request's duration."""
    said = counted(ended(101, websocket=True, duration=900.0), ended(403, websocket=True))
    assert said["requests"] == {"GET": {"101": 1, "403": 1}}
    assert said["websockets"] == {"101": 1, "403": 1}
    assert said["duration_seconds"]["count"] == 1
    assert said["first_byte_seconds"]["count"] == 2


@pytest.mark.parametrize(
    ("status", "outcome", "kind"),
    [
        (421, "host-not-allowed", "refusals"),
        (502, "connection_refused", "refusals"),
        (200, "connection_terminated", "broken"),
        (404, "client-left", "broken"),
        (0, "client-left", "broken"),
        (0, "body-too-large", "broken"),
    ],
)
def test_what_did_not_end_well(status: int, outcome: str, kind: str) -> None:
    """Answers of keyrelay's own are told from answers of the provider's that broke off."""
    said = counted(ended(status, outcome=outcome))
    assert {one: said[one] for one in ("refusals", "broken")} == {
        "refusals": {},
        "broken": {},
        kind: {outcome: 1},
    }


def test_a_provider_s_error_is_no_refusal() -> None:
    """An error of the provider that came whole is an answer like any other."""
    said = counted(ended(500))
    assert (said["refusals"], said["broken"]) == ({}, {})


def test_strategies_are_counted() -> None:
    """By name; a request that came to none counts for none."""
    assert counted(ended(strategy="token"), ended())["strategies"] == {"token": 1}


def test_histograms_have_fixed_buckets() -> None:
    """A value counts in each bucket that it is not above; what is above all counts in the last."""
    values = [0.0, 0.005, 0.0051, 59.0, 61.0]
    said = counted(*(ended(duration=one, first_byte=-1) for one in values))
    duration = said["duration_seconds"]
    assert list(duration["buckets"]) == [*map(str, BUCKETS), "+Inf"]
    found = {bound: duration["buckets"][bound] for bound in ("0.005", "0.01", "60.0", "+Inf")}
    assert found == {"0.005": 2, "0.01": 3, "60.0": 4, "+Inf": 5}
    assert duration["count"] == 5
    assert duration["sum"] == pytest.approx(sum(values))
    assert said["first_byte_seconds"]["count"] == 0


@given(st.lists(st.tuples(st.text(), st.integers(0, 999)), max_size=50))
def test_nobody_can_make_the_counters_grow(asked: list[tuple[str, int]]) -> None:
    """Methods of clients and statuses of providers come under names that are known beforehand."""
    counters = Counters()
    counters.feed([ended(status, method=method, path=method) for method, status in asked])
    allowed = {f"{digit}xx" for digit in range(10)} | {"none", "other"}
    methods = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
    for said in counters.as_json().values():
        assert set(said["requests"]) <= methods | {"other"}
        for codes in said["requests"].values():
            assert all(code in allowed or 100 <= int(code) <= 511 for code in codes)


def test_tallies_of_processes_add_up() -> None:
    """Merged, two tallies are what one would be that had counted everything."""
    batches = (
        [ended(), ended(421, route="-", outcome="host-not-allowed")],
        [ended(), ended(101, websocket=True, sent=7), ended(503, route="other", strategy="key")],
    )
    parts = [Counters(), Counters(), Counters()]
    whole = Counters()
    for part, batch in zip(parts, batches, strict=False):
        part.feed(batch)
        whole.feed(batch)
    merged = Counters.merged(json.loads(json.dumps(part.as_json())) for part in parts)
    assert merged == whole.as_json()
    assert Counters.merged([]) == {}
