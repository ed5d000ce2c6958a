"""The access log of a terminal: columns, colours, reasons and remedies."""

from __future__ import annotations

import pytest

from proxy.observability.exchange_log import ExchangeRecord
from proxy.observability.terminal_lines import TerminalLines


def exchange(**more: object) -> ExchangeRecord:
    one = ExchangeRecord("api", "GET", "/v1/x", strategy="key", status=200, duration=0.0123)
    for name, value in more.items():
        setattr(one, name, value)
    return one


def test_columns_are_aligned() -> None:
    """Status, method, route, duration and path begin in the same column in every line."""
    lines = TerminalLines(colours=False)
    lines(exchange(route="camb-realtime"))
    texts = [
        lines(exchange()),
        lines(exchange(method="DELETE", route="camb-realtime", duration=123.4, status=503)),
        lines(exchange(websocket=True, status=0, outcome="client-left", route="-")),
    ]
    assert {text.index("/v1/x") for text in texts} == {texts[0].index("/v1/x")}
    assert {text.index(" ms") for text in texts} == {texts[0].index(" ms")}
    assert texts[0].endswith("  200  GET     api                12 ms  /v1/x  0/0 B, key\n")
    assert "  503  DELETE  camb-realtime  123400 ms  /v1/x" in texts[1]
    assert "    -  WS      -              " in texts[2]
    assert texts[2].endswith(", client-left\n")


@pytest.mark.parametrize(
    ("more", "colour"),
    [
        ({}, ""),
        ({"status": 404}, "\x1b[33m"),
        ({"status": 502, "outcome": "connection_refused"}, "\x1b[31m"),
        ({"status": 0, "outcome": "client-left"}, "\x1b[31m"),
        ({"status": 200, "outcome": "client-left"}, "\x1b[33m"),
    ],
    ids=["fine", "client", "server", "none", "broken"],
)
def test_failures_are_coloured(more: dict[str, object], colour: str) -> None:
    """The whole line, and nothing without colours; one that succeeded has none."""
    line = TerminalLines(colours=True)(exchange(**more))
    assert line.startswith(colour)
    assert ("\x1b[" in line) == bool(colour)
    assert line.endswith("\x1b[0m\n" if colour else "key\n")
    assert "\x1b[" not in TerminalLines(colours=False)(exchange(**more))


def test_a_reason_follows_and_its_remedy_once() -> None:
    """Each refusal has its reason; a remedy that was shown is not repeated, another one is."""
    lines = TerminalLines(colours=False)
    refused = exchange(status=503, outcome="route-not-ready", problem=("No credential.", "set A"))
    other = exchange(status=503, outcome="route-not-ready", problem=("No credential.", "set B"))
    assert lines(refused).splitlines()[1:] == ["          No credential.", "          set A"]
    assert lines(refused).splitlines()[1:] == ["          No credential."]
    assert lines(other).splitlines()[1:] == ["          No credential.", "          set B"]
    assert len(lines(exchange(status=401)).splitlines()) == 1


def test_a_long_name_moves_its_own_line_only() -> None:
    """A route of 60 characters does not push the others to the right."""
    lines = TerminalLines(colours=False)
    before = lines(exchange()).index("/v1/x")
    lines(exchange(route="r" * 60))
    assert lines(exchange()).index("/v1/x") <= before + 12
