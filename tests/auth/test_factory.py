"""From settings and secrets to strategies."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.auth.factory import build_strategies, name_of
from proxy.config.route import RouteSettings, StrategySettings
from proxy.errors import SecretUnavailable
from proxy.secrets.secret import Secret

SECRETS = {
    "key": (Secret("key", b"dummy-key"),),
    "user": (Secret("user", b"dummy-user"),),
}


def settings(*auth: dict[str, Any], **more: Any) -> RouteSettings:
    return RouteSettings.model_validate({"auth": list(auth), **more})


def header(field: str, **more: Any) -> dict[str, Any]:
    return {"http": {"header": field, "value": "{key}"}, **more}


def test_strategies_keep_their_order_and_names() -> None:
    """The first that fits serves a request, so the order is the configuration's."""
    built = build_strategies("acme", settings(header("A", name="a"), header("B")), SECRETS, None)
    assert [one.name for one in built] == ["a", "strategy 2"]


def test_a_strategy_without_a_name_is_called_by_its_place() -> None:
    """The journal and explain can name every strategy."""
    one = StrategySettings.model_validate(header("A"))
    assert name_of(one, 3) == "strategy 3"


def test_http_and_websocket_have_their_own_injections() -> None:
    """Each kind gets the bytes of its own placements."""
    auth = {
        "http": {"header": "X-Api-Key", "value": "{key}"},
        "websocket": [{"query": "user", "value": "{user}"}, {"query": "k", "value": "{key}"}],
    }
    (built,) = build_strategies("acme", settings(auth), SECRETS, None)
    http, websocket = (
        built.credential.ready(websocket=False),
        built.credential.ready(websocket=True),
    )
    assert http is not None
    assert websocket is not None
    assert (http.headers, http.query) == (b"X-Api-Key: dummy-key\r\n", b"")
    assert (websocket.headers, websocket.query) == (b"", b"user=dummy-user&k=dummy-key")


def test_a_placement_by_itself_serves_both_kinds() -> None:
    """DESIGN: a placement given without ``http:`` and ``websocket:``."""
    (built,) = build_strategies(
        "acme", settings({"header": "X-Api-Key", "value": "{key}"}), SECRETS, None
    )
    assert built.serves("GET", "/", websocket=False)
    assert built.serves("GET", "/", websocket=True)


def test_strategies_without_their_secrets_are_left_out() -> None:
    """An optional secret that is not there takes its strategy with it, and no other."""
    auth = settings(
        {"http": {"basic": {"username": "{user}", "password": "{key}"}}, "name": "both"},
        header("A", name="key"),
    )
    only_key = {"key": SECRETS["key"]}
    assert [one.name for one in build_strategies("acme", auth, SECRETS, None)] == ["both", "key"]
    assert [one.name for one in build_strategies("acme", auth, only_key, None)] == ["key"]
    assert build_strategies("acme", auth, {}, None) == ()


def test_a_chosen_strategy_is_the_only_one() -> None:
    """``strategy:`` of a route picks one by name."""
    auth = (header("A", name="a"), header("B", name="b"))
    built = build_strategies("acme", settings(*auth, strategy="b"), SECRETS, None)
    assert [one.name for one in built] == ["b"]


def test_paths_belong_to_their_strategy() -> None:
    """What one strategy does not serve falls to the next."""
    first, second = build_strategies(
        "acme", settings(header("A", paths=["/v0/tts/**"]), header("B")), SECRETS, None
    )
    assert first.serves("GET", "/v0/tts/x", websocket=False)
    assert not first.serves("GET", "/v0/evi", websocket=False)
    assert second.serves("GET", "/v0/evi", websocket=False)


def test_a_value_that_fits_nowhere_names_its_secret_only() -> None:
    """T37: the error says which secret and why, never its value, also not as its cause."""
    auth = settings({"http": {"cookie": "c", "value": "{key}"}})
    with pytest.raises(SecretUnavailable) as caught:
        build_strategies("acme", auth, {"key": (Secret("key", b"dummy;value"),)}, None)
    assert caught.value.name == "key"
    assert "dummy" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
