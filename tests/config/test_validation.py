"""Refresh tokens that several routes use: ``check`` warns where one use costs the others theirs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.config.loader import load_text
from proxy.config.validation import unshared_refresh_tokens

STORE = "/var/lib/keyrelay/dummy.json"


def route(reference: str = "env:DUMMY_REFRESH", store: str | None = None) -> dict[str, Any]:
    token = {
        "type": "oauth2_refresh_token",
        "url": "https://id.example/token",
        "client_id": "dummy",
        "refresh_token": "{refresh}",
    }
    if store is not None:
        token["store"] = store
    return {
        "upstream": "https://api.example",
        "secrets": {"refresh": reference},
        "auth": [{"token": token, "http": {"header": "Authorization", "value": "Bearer {token}"}}],
    }


def warnings(**routes: dict[str, Any]) -> list[str]:
    return list(
        unshared_refresh_tokens(load_text(json.dumps({"routes": routes}), "routes.yaml").routes)
    )


@pytest.mark.parametrize("stores", [(None, None), (STORE, None), (STORE, f"{STORE}2")])
def test_one_refresh_token_in_two_routes(stores: tuple[str | None, str | None]) -> None:
    """Without one store for both: a line with both routes and what to write."""
    first, second = stores
    (line,) = warnings(a=route(store=first), b=route(store=second))
    assert line.startswith("a, b: one refresh token is used 2 times without a common store:")
    assert "write the same store:" in line


def test_one_refresh_token_in_two_strategies() -> None:
    """The uses of one route count as those of two."""
    twice = route()
    twice["auth"] = [{**twice["auth"][0], "name": name, "paths": [f"/{name}"]} for name in "xy"]
    (line,) = warnings(a=twice)
    assert line.startswith("a: one refresh token is used 2 times")


def test_a_common_store() -> None:
    """Each use finds the successor that another one has stored."""
    assert not warnings(a=route(store=STORE), b=route(store=STORE))


def test_two_refresh_tokens() -> None:
    """A name for a secret belongs to its route: other references are other tokens."""
    assert not warnings(a=route(), b=route("env:DUMMY_OTHER"))
    assert not warnings(a=route())


def test_names_of_secrets_do_not_matter() -> None:
    """One reference is one token, whatever the route calls it."""
    other = route()
    other["secrets"] = {"other": other["secrets"]["refresh"]}
    other["auth"][0]["token"]["refresh_token"] = "{other}"
    assert len(warnings(a=route(), b=other)) == 1


def test_fields_of_one_secret_are_tokens_of_their_own() -> None:
    """A secret in JSON may hold several refresh tokens; its names still do not matter."""
    first, second, third = route(), route(), route()
    first["auth"][0]["token"]["refresh_token"] = "{refresh.a}"
    second["auth"][0]["token"]["refresh_token"] = "{refresh.b}"
    assert not warnings(a=first, b=second)
    third["secrets"] = {"other": third["secrets"]["refresh"]}
    third["auth"][0]["token"]["refresh_token"] = "{other.a}"
    (line,) = warnings(a=first, b=second, c=third)
    assert line.startswith("a, c: ")
