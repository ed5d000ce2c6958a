"""Every client of proxy/config/clients.yaml, on every way to keyrelay, as a program of its own."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.clients import data
from tests.clients.data import BUILT, ROUTED, Call, Client, Mode
from tests.clients.stage import Stage, assert_clean

pytestmark = [pytest.mark.clients, pytest.mark.timeout(180)]


def cases() -> list[Any]:
    """One test for each call of each client, on each way."""
    return [
        pytest.param(
            client,
            call,
            mode,
            id=f"{client.slug}-{call.name}-{mode}",
            marks=() if client.ci else pytest.mark.clients_all,
        )
        for client in data.clients()
        for call in client.calls
        for mode in BUILT
        if mode in ROUTED or client.plain
    ]


def program(client: Client, call: Call, mode: Mode, ports: Any) -> str:
    """The documented program, led to the way that is tested."""
    if mode not in ROUTED:
        return client.program(call, plain=True)
    text = client.program(call)
    if mode == "prefix":
        return text
    for route in client.routes:
        for scheme in ("http", "ws"):
            there = f"{scheme}://127.0.0.1:8080/{route}"
            here = f"{scheme}://127.0.0.1:{ports[route]}"
            if mode == "tls":
                here = f"{scheme}s://localhost:8443/{route}"
            text = re.sub(rf"{re.escape(there)}(?![\w-])", here, text)
    return text


@pytest.mark.parametrize(("client", "call", "mode"), cases())
def test_client(stage: Stage, client: Client, call: Call, mode: Mode) -> None:
    """What is documented to work arrives with the one real key; what cannot work fails as told."""
    text = program(client, call, mode, stage.ports)
    assert mode not in ROUTED or "127.0.0.1:8080" in client.program(call)
    done = stage.run(client.registry, text, mode, client.routes)
    assert_clean(done.output)
    failure = call.cannot.get(mode)
    if failure is not None:
        assert_fails(done, failure.shows)
        pytest.xfail(failure.why)
    assert done.code == 0, done.explain()
    assert done.faults == [], done.explain()
    assert set(done.names) == set(call.sends), done.explain()
    assert not any(one.frames for one in done.arrivals), "the client's key is in a message"


def assert_fails(done: Any, shows: str) -> None:
    """It fails in the way that is known, and brings no credential anywhere."""
    told = done.explain()
    assert done.code != 0 or done.faults or not done.arrivals, f"it works now:\n{told}"
    assert re.search(shows, told), f"it fails in another way:\n{told}"
