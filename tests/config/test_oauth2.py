"""Settings of the grants of OAuth 2.0: what is accepted, and the errors for what cannot work."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from proxy.config.oauth2 import ClientCredentials, JwtBearer, RefreshToken
from proxy.config.route import StrategySettings

OAuth2Settings = ClientCredentials | RefreshToken | JwtBearer

# What each type requires beside its client.
GRANTS: dict[str, dict[str, Any]] = {
    "oauth2_client_credentials": {},
    "oauth2_refresh_token": {"refresh_token": "{refresh}"},
    "jwt_bearer": {"algorithm": "ES256", "key": "{key}"},
}
ID = {"client_id": "{id}"}
SECRET = {**ID, "client_secret": "{secret}"}
CERTIFICATE = {"client_certificate": "{certificate}", "client_key": "{certificate_key}"}
KEY = {"client_assertion": {"key": "{assertion_key}"}}
every_type = pytest.mark.parametrize("kind", GRANTS)


def made(kind: str, **more: Any) -> OAuth2Settings:
    token = {"type": kind, "url": "https://id.example/token", **GRANTS[kind], **more}
    strategy = StrategySettings.model_validate(
        {"token": token, "http": {"header": "Authorization", "value": "Bearer {token}"}}
    )
    assert isinstance(strategy.token, OAuth2Settings)
    return strategy.token


def error(kind: str, **more: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        made(kind, **more)
    return caught.value.errors()[0]["msg"]


@every_type
@pytest.mark.parametrize(
    "client",
    [
        SECRET,
        {**SECRET, "client_auth": "basic_plain"},
        {**SECRET, "client_auth": "form"},
        {**SECRET, "client_auth": "client_secret_jwt"},
        {
            **SECRET,
            "client_auth": "client_secret_jwt",
            "client_assertion": {"algorithm": "HS512", "audience": "https://id.example"},
        },
        {**ID, **KEY, "client_auth": "private_key_jwt"},
        {**ID, **CERTIFICATE, "client_auth": "tls"},
        {**SECRET, **CERTIFICATE},
    ],
)
def test_methods_of_client_authentication(kind: str, client: dict[str, Any]) -> None:
    """Each method works for each type; its secrets are among those that the strategy needs."""
    token = made(kind, **client)
    assert token.client_auth == client.get("client_auth", "basic")
    assert client.get("client_certificate") in {None, *token.templates.values()}
    assert client.get("client_secret") in {None, *token.templates.values()}


@every_type
@pytest.mark.parametrize(
    ("client", "words"),
    [
        ({**SECRET, "client_certificate": "{c}"}, "a certificate and its key belong together"),
        ({**SECRET, "client_key": "{c}"}, "a certificate and its key belong together"),
        ({**ID, "client_auth": "tls"}, "client_auth: tls needs a certificate"),
        ({**SECRET, **CERTIFICATE, "client_auth": "tls"}, "client_secret: is not used"),
        ({**SECRET, **KEY}, "client_assertion: is not used"),
        ({**SECRET, **KEY, "client_auth": "form"}, "client_assertion: is not used"),
        ({**ID, "client_auth": "private_key_jwt"}, "needs a private key"),
        (
            {**ID, "client_auth": "private_key_jwt", "client_assertion": {"key_id": "a"}},
            "needs a private key",
        ),
        (
            {
                **ID,
                "client_auth": "private_key_jwt",
                "client_assertion": {"key": "{k}", "algorithm": "HS256"},
            },
            "needs a private key",
        ),
        ({**SECRET, **KEY, "client_auth": "private_key_jwt"}, "client_secret: is not used"),
        ({**ID, "client_auth": "client_secret_jwt"}, "needs a secret"),
        ({**SECRET, **KEY, "client_auth": "client_secret_jwt"}, "signed with the client's secret"),
        (
            {
                **SECRET,
                "client_auth": "client_secret_jwt",
                "client_assertion": {"algorithm": "RS256"},
            },
            "signed with an HMAC",
        ),
        ({**SECRET, "client_auth": "post"}, "'basic', 'basic_plain', 'form', "),
    ],
)
def test_clients_that_cannot_be(kind: str, client: dict[str, Any], words: str) -> None:
    """Settings that lack something, or hold something that would have no effect."""
    assert words in error(kind, **client)


@pytest.mark.parametrize("method", ["basic", "basic_plain", "form"])
def test_where_a_secret_is_required(method: str) -> None:
    """RFC 6749 section 4.4: confidential clients only. The other grants allow public clients."""
    assert "needs a secret" in error("oauth2_client_credentials", **ID, client_auth=method)
    for kind in ("oauth2_refresh_token", "jwt_bearer"):
        assert made(kind, **ID, client_auth=method).client_secret is None


@pytest.mark.parametrize(
    "more",
    [
        {"client_secret": "{secret}"},
        {"client_secret": "{secret}", "client_auth": "client_secret_jwt"},
        {"client_auth": "private_key_jwt", **KEY},
        {"client_auth": "tls", **CERTIFICATE},
    ],
)
def test_a_jwt_bearer_without_a_client(more: dict[str, Any]) -> None:
    """The grant works without a client (RFC 7521 section 4.1), but not with half of one."""
    assert made("jwt_bearer").client_id is None
    assert "client_id" in error("jwt_bearer", **more)


@every_type
def test_fields_of_the_request(kind: str) -> None:
    """One resource is a list of one; a field with a list is repeated."""
    token = made(kind, **SECRET, resource="https://a", form={"a": "1", "b": ["2", "{secret}"]})
    assert token.resource == ("https://a",)
    assert token.form == {"a": "1", "b": ("2", "{secret}")}
    assert made(kind, **SECRET, resource=["https://a", "https://b"]).resource[1:] == ("https://b",)


RESERVED = [
    *("grant_type", "scope", "audience", "resource", "assertion", "refresh_token"),
    *("client_id", "client_secret", "client_assertion", "client_assertion_type"),
]


@every_type
@pytest.mark.parametrize("name", RESERVED)
def test_fields_with_a_setting_of_their_own(kind: str, name: str) -> None:
    """Two values of one field would contradict each other."""
    assert f"the form field {name} is set by keyrelay" in error(kind, **SECRET, form={name: "a"})


@every_type
@pytest.mark.parametrize(
    "more",
    [
        {"form": ["a"]},
        {"form": {"a": 1}},
        {"form": {"a": [["b"]]}},
        {"form": {"a": "{"}},
        {"resource": 1},
        {"resource": ["{"]},
        {"dpop": {}},
        {"dpop": {"key": "{k}", "algorithm": "HS256"}},
        {"dpop": {"key": "{k}", "algorithm": "none"}},
        {"timeout_seconds": 0},
        {"timeout_seconds": 301},
        {"zero_lifetime": "always"},
    ],
)
def test_values_that_cannot_be(kind: str, more: dict[str, Any]) -> None:
    """Found when the file is read."""
    assert error(kind, **SECRET, **more)


def test_a_refresh_token_is_waited_for_longer() -> None:
    """A response that arrives too late costs the successor; the other grants can be repeated."""
    seconds = {kind: made(kind, **SECRET).timeout_seconds for kind in GRANTS}
    assert seconds == {
        "oauth2_client_credentials": 10,
        "oauth2_refresh_token": 30,
        "jwt_bearer": 10,
    }
