"""Odd values of secrets: judged by their placements, and shown wherever routes are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.app.app import App
from proxy.app.status import snapshot
from proxy.cli.status_table import rendered
from proxy.config.loader import load_text
from proxy.diagnostics.doctor import run_checks
from proxy.diagnostics.route_check import Result
from proxy.routing.route_secrets import secrets_of
from proxy.routing.secret_remarks import secret_remarks
from tests.support.command import keyrelay

CANARY = "dummy-canary-5f0c"


def settings(auth: list[dict[str, Any]], **secret: Any) -> Any:
    route = {
        "upstream": "http://127.0.0.1:9",
        "secrets": {"key": {"env": "DUMMY_KEY", **secret}},
        "auth": auth,
    }
    document = {"listen": "127.0.0.1:0", "drain_seconds": 0, "routes": {"acme": route}}
    return load_text(json.dumps(document), "routes.yaml")


HEADER = {"header": "X-Api-Key", "value": "{key}"}
BEARER = {"header": "Authorization", "value": "Bearer {key}"}
WHOLE = {"header": "Authorization", "value": "{key}"}
BASIC = {"basic": {"username": "dummy", "password": "{key}"}}
QUERY = {"query": "key", "value": "{key}"}


def test_finding_and_advice_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the advice has a colon of its own."""
    monkeypatch.setenv("DUMMY_KEY", "op://dummy/acme/key")
    route = settings([HEADER]).routes["acme"]
    (remark,) = secret_remarks(route, secrets_of("acme", route))
    assert remark.advice == "use exec: with its command"
    assert remark.finding.endswith("which keyrelay does not resolve")


@pytest.mark.parametrize(
    ("auth", "value", "words"),
    [
        ([BEARER], f"Bearer {CANARY}", "which keyrelay adds"),
        ([HEADER], f"Bearer {CANARY}", "which is not sent here"),
        ([QUERY], f"Bearer {CANARY}", "which is not sent here"),
        ([WHOLE], f"Bearer {CANARY}", ""),
        ([BASIC], f"{CANARY} with # signs", ""),
        ([{"http": BEARER, "websocket": QUERY}], f"bearer {CANARY}", "which keyrelay adds"),
        ([HEADER], f"'{CANARY}'", "is in quotes"),
        ([HEADER], CANARY, ""),
        ([HEADER], "unused", "placeholder that keyrelay exec gives"),
    ],
)
def test_by_placement(
    monkeypatch: pytest.MonkeyPatch, auth: list[dict[str, Any]], value: str, words: str
) -> None:
    """A scheme is odd where the placement has it or has none, a space where it is no password."""
    monkeypatch.setenv("DUMMY_KEY", value)
    route = settings(auth).routes["acme"]
    found = secret_remarks(route, secrets_of("acme", route))
    assert CANARY not in repr(found)
    if not words:
        assert found == ()
        return
    (remark,) = found
    assert words in str(remark)
    assert str(remark).startswith("key: the value from env:DUMMY_KEY ")


async def test_each_value_of_a_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remark names the source of the odd one."""
    monkeypatch.setenv("DUMMY_KEY", CANARY)
    monkeypatch.setenv("DUMMY_OLD", f'"{CANARY}"')
    route = settings([HEADER], env=["DUMMY_KEY", "DUMMY_OLD"]).routes["acme"]
    (remark,) = secret_remarks(route, secrets_of("acme", route))
    assert (remark.secret, remark.reference) == ("key", "env:DUMMY_OLD")


async def test_at_the_start_and_in_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line at the start, once; the route is ready; the status has it until it is repaired."""
    monkeypatch.setenv("DUMMY_KEY", f"Bearer {CANARY}")
    said: list[str] = []
    loaded = settings([BEARER])
    async with App(loaded, warn=said.append) as app:
        (line,) = [one for one in said if one.startswith("acme: key: ")]
        assert line.endswith('begins with "Bearer", which keyrelay adds; remove it')
        assert app.routes[0].unready == ""
        shown = snapshot(app)
        assert shown["routes"]["acme"]["remarks"] == [line.removeprefix("acme: ")]
        assert f"! {line[:40]}" in rendered(shown, 200)
        await app.adopt(loaded)
        assert said.count(line) == 1
        monkeypatch.setenv("DUMMY_KEY", CANARY)
        await app.adopt(loaded)
        assert snapshot(app)["routes"]["acme"]["remarks"] == []
    assert CANARY not in f"{said} {shown}"


async def test_in_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning behind the secret, with what to do."""
    monkeypatch.setenv("DUMMY_KEY", f"{CANARY} # mine")
    results: list[Result] = []
    await run_checks(settings([HEADER]), results.append)
    assert [(one.what, one.mark) for one in results[:2]] == [
        ("secret key", "ok"),
        ("secret key", "warn"),
    ]
    assert results[1].finding == "the value from env:DUMMY_KEY has a comment behind it"
    assert results[1].advice == "Remove it."


def test_in_check(tmp_path: Path) -> None:
    """A line on standard error; the file itself has no finding."""
    file = tmp_path / "routes.yaml"
    file.write_text(json.dumps({"routes": {"hume": {"provider": "hume"}}}))
    done = keyrelay("check", str(file), variables={"HUME_API_KEY": f'"{CANARY}"'})
    assert done.code == 0
    assert "hume: api_key: the value from env:HUME_API_KEY is in quotes; remove them" in done.err
