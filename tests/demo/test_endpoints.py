"""Which endpoint a request reaches."""

from __future__ import annotations

import pytest

from proxy.demo.endpoints import Echo, Mask, Outcome, WebSocket, outcome
from proxy.demo.responses import Delayed, Problem, Response, Stream
from proxy.http.request import Request

MASK = Mask(b"dummy-demo-key")


@pytest.mark.parametrize(
    ("method", "target", "kind"),
    [
        ("GET", "/", Response),
        ("DELETE", "/echo/x", Echo),
        ("GET", "/%65cho/x", Echo),
        ("HEAD", "/sse", Stream),
        ("GET", "/audio", Stream),
        ("PUT", "/status/404", Response),
        ("GET", "/slow?seconds=1", Delayed),
    ],
)
def test_a_path_leads_to_its_endpoint(method: str, target: str, kind: type[Outcome]) -> None:
    """Paths are compared decoded; echo and status take any method."""
    assert isinstance(outcome(Request.of(method, target, []), MASK), kind)


def test_a_handshake_leads_to_the_websocket() -> None:
    """Only a request for an upgrade reaches /ws."""
    request = Request.of("GET", "/ws", [("Upgrade", "WebSocket")], websocket=True)
    assert isinstance(outcome(request, MASK), WebSocket)


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [("GET", "/echo", 404), ("POST", "/ws", 405), ("GET", "/status/x", 404), ("GET", "/ws", 400)],
)
def test_a_request_without_an_endpoint_is_a_problem(method: str, target: str, status: int) -> None:
    """The problem has the status of the response."""
    with pytest.raises(Problem) as raised:
        outcome(Request.of(method, target, []), MASK)
    assert raised.value.response.status == status
