"""Credentials that do not change."""

from __future__ import annotations

import pytest

from proxy.auth.credential import StaticCredential
from proxy.auth.injection import Injection, Injections

HTTP = Injection(headers=b"X-Api-Key: dummy-key\r\n")
SOCKET = Injection(query=b"api_key=dummy-key")


def test_each_kind_of_request_gets_its_own_placement() -> None:
    """A header for HTTP and a parameter for WebSocket are never mixed up."""
    one = StaticCredential(Injections(HTTP, SOCKET))
    assert one.ready(websocket=False) is HTTP
    assert one.ready(websocket=True) is SOCKET


@pytest.mark.parametrize("websocket", [False, True])
async def test_waiting_returns_the_same_at_once(websocket: bool) -> None:
    """There is nothing to wait for."""
    one = StaticCredential(Injections(HTTP, SOCKET))
    assert await one.obtain(websocket=websocket) is one.ready(websocket=websocket)


@pytest.mark.parametrize(
    ("injections", "active"),
    [
        (Injections(HTTP, SOCKET), (HTTP, SOCKET)),
        (Injections(HTTP, None), (HTTP,)),
        (Injections(None, SOCKET), (SOCKET,)),
    ],
)
def test_every_injection_is_redacted(injections: Injections, active: tuple[Injection, ...]) -> None:
    """All that may be sent is found in responses."""
    assert StaticCredential(injections).active_injections() == active


def test_a_credential_shows_no_value() -> None:
    """T37: neither repr nor str of a credential prints it."""
    one = StaticCredential(Injections(HTTP, SOCKET))
    assert "dummy" not in f"{one!r} {one}"
