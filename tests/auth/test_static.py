"""Strategies whose credential does not change, and what every strategy answers."""

from __future__ import annotations

import pytest

from proxy.auth.injection import Injection
from proxy.auth.strategy import StaticStrategy
from proxy.http.path_patterns import PatternSet

HTTP = Injection(headers=b"X-Api-Key: dummy-key\r\n")
SOCKET = Injection(query=b"api_key=dummy-key")


def strategy(
    *paths: str, http: Injection | None = HTTP, websocket: Injection | None = SOCKET
) -> StaticStrategy:
    return StaticStrategy(
        "key", PatternSet(paths) if paths else None, http=http, websocket=websocket
    )


def test_each_kind_of_request_gets_its_own_placement() -> None:
    """A header for HTTP and a parameter for WebSocket are never mixed up."""
    assert strategy().ready(websocket=False) is HTTP
    assert strategy().ready(websocket=True) is SOCKET


@pytest.mark.parametrize("websocket", [False, True])
async def test_waiting_gives_the_same_at_once(websocket: bool) -> None:
    """There is nothing to wait for."""
    one = strategy()
    assert await one.obtain(websocket=websocket) is one.ready(websocket=websocket)


def test_a_strategy_serves_only_what_it_has_a_placement_for() -> None:
    """Without a place for its credential a request would leave with none."""
    sockets, http = strategy(http=None), strategy(websocket=None)
    assert not sockets.serves("GET", "/a", websocket=False)
    assert sockets.serves("GET", "/a", websocket=True)
    assert http.serves("GET", "/a", websocket=False)
    assert not http.serves("GET", "/a", websocket=True)


@pytest.mark.parametrize(
    ("path", "served"),
    [
        ("/v0/tts", True),
        ("/v0/tts/stream", True),
        ("/v0/t%74s/x", True),
        ("/v0/ttsx", False),
        ("/V0/tts", False),
        ("/v0/tts/../evi", False),
        ("/", False),
    ],
)
def test_a_strategy_serves_its_paths_alone(path: str, served: bool) -> None:
    """Decoded once and compared exactly; what could be another path is not its own."""
    one = strategy("/v0/tts/**")
    assert one.serves("POST", path, websocket=False) is served
    assert one.serves("GET", path, websocket=True) is served


def test_without_paths_a_strategy_serves_all() -> None:
    """The usual case: one key for everything."""
    assert strategy().serves("DELETE", "/anything/%2F", websocket=False)


def test_a_strategy_shows_its_name_and_no_value() -> None:
    """T37: neither repr nor str of a strategy prints its credential."""
    assert strategy().name == "key"
    assert "dummy" not in f"{strategy()!r} {strategy()}"
