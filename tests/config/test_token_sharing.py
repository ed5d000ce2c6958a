"""Tests of config/token_sharing.py: where shared tokens are, and refusals of what is unsafe."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.config.loader import load_text
from proxy.config.settings import Settings
from proxy.config.token_sharing import RedisAddress, parse_redis_url
from proxy.config.validation import check_stores
from proxy.errors import ConfigError, ConfigValueError
from proxy.routing.route_secrets import variables_in


def load(**tokens: Any) -> Settings:
    document = {"tokens": tokens, "routes": {"demo": {"provider": "demo"}}}
    return load_text(json.dumps(document), "routes.yaml")


@pytest.mark.parametrize(
    ("url", "address", "shown"),
    [
        ("redis://127.0.0.1", RedisAddress("redis", "127.0.0.1"), "redis://127.0.0.1:6379/0"),
        ("redis://[::1]:7000/2", RedisAddress("redis", "::1", 7000, 2), "redis://[::1]:7000/2"),
        (
            "redis://10.0.0.7:6380/",
            RedisAddress("redis", "10.0.0.7", 6380),
            "redis://10.0.0.7:6380/0",
        ),
        (
            "rediss://203.0.113.7",
            RedisAddress("rediss", "203.0.113.7"),
            "rediss://203.0.113.7:6379/0",
        ),
        (
            "rediss://relay%40team@redis.example/1",
            RedisAddress("rediss", "redis.example", database=1, username="relay@team"),
            "rediss://redis.example:6379/1",
        ),
        ("unix:/run/redis.sock", RedisAddress("unix", "/run/redis.sock"), "unix:/run/redis.sock"),
        (
            "unix:///run/redis.sock?db=3",
            RedisAddress("unix", "/run/redis.sock", database=3),
            "unix:/run/redis.sock?db=3",
        ),
    ],
)
def test_addresses(url: str, address: RedisAddress, shown: str) -> None:
    """Every form is read, and shown without a user name."""
    assert parse_redis_url(url) == address
    assert str(address) == shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis",
        "redis://",
        "http://127.0.0.1",
        "redis://127.0.0.1:0",
        "redis://127.0.0.1:70000",
        "redis://127.0.0.1/x",
        "redis://127.0.0.1/0?password=CANARY",
        "redis://127.0.0.1#CANARY",
        "redis://user:CANARY@127.0.0.1",
        "rediss://:CANARY@127.0.0.1",
        "redis://127.0.0.1\n",
        "redis://[::1",
        "redis://8.8.8.8",
        "redis://[2001:4860:4860::8888]:6379",
        "unix:run/redis.sock",
        "unix://host/run/redis.sock",
        "unix:/run/redis.sock?db=CANARY",
    ],
)
def test_what_is_no_address(url: str) -> None:
    """Refused with a remedy, without the text; a public address only without TLS."""
    with pytest.raises(ConfigValueError) as raised:
        parse_redis_url(url)
    assert raised.value.hint
    assert "CANARY" not in f"{raised.value}{raised.value.hint}"


def test_defaults() -> None:
    """The address is enough."""
    tokens = load(share="redis://127.0.0.1").tokens
    assert tokens is not None
    assert (tokens.prefix, tokens.when_down, tokens.password) == ("keyrelay", "fetch", None)
    assert load_text('{"routes": {"demo": {"provider": "demo"}}}', "routes.yaml").tokens is None


@pytest.mark.parametrize(
    "tokens",
    [
        {},
        {"share": "redis://127.0.0.1", "when_down": "never"},
        {"share": "redis://127.0.0.1", "prefix": "a{b}"},
        {"share": "redis://127.0.0.1", "prefix": ""},
        {"share": "redis://127.0.0.1", "password": "CANARY"},
        {"share": "redis://127.0.0.1", "pasword": "env:DUMMY"},
    ],
)
def test_findings(tokens: dict[str, Any]) -> None:
    """Each mistake is found at its place, and a value is not quoted."""
    with pytest.raises(ConfigError) as raised:
        load(**tokens)
    assert len(raised.value.findings) == 1
    assert "CANARY" not in str(raised.value)
    if "pasword" in tokens:
        assert "password" in raised.value.findings[0].advice


def test_its_variables_are_known() -> None:
    """Commands inherit neither the password nor the key."""
    settings = load(share="redis://127.0.0.1", password="env:DUMMY_PASSWORD", key="env:DUMMY_KEY")
    assert {"DUMMY_PASSWORD", "DUMMY_KEY"} <= variables_in(settings)


def test_a_store_is_refused_beside_it() -> None:
    """A refresh token is kept in one place."""
    token = {
        "type": "oauth2_refresh_token",
        "url": "https://issuer.example/token",
        "client_id": "dummy",
        "refresh_token": "{refresh}",
        "store": "/var/lib/keyrelay/dummy.json",
    }
    document: dict[str, Any] = {
        "routes": {
            "api": {
                "upstream": "https://api.example",
                "secrets": {"refresh": "env:DUMMY"},
                "auth": [{"token": token, "header": "Authorization", "value": "Bearer {token}"}],
            }
        }
    }
    assert check_stores(load_text(json.dumps(document), "routes.yaml")) == []
    document["tokens"] = {"share": "redis://127.0.0.1"}
    with pytest.raises(ConfigError, match="keeps the refresh token of this route in Redis"):
        load_text(json.dumps(document), "routes.yaml")
