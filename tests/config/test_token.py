"""What the YAML may say about tokens, and what it is told where it cannot be."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from proxy.config.loader import load_text
from proxy.config.route import StrategySettings
from proxy.config.token import TOKENS, Jwt, Request
from proxy.config.token_base import Algorithm, texts_in

PLACEMENT = {"header": "Authorization", "value": "Bearer {token}"}
JWT = {"type": "jwt", "algorithm": "HS256", "key": "{key}"}
REQUEST = {"type": "request", "url": "/token"}
CLIENT = {
    "type": "oauth2_client_credentials",
    "url": "/oauth2/token",
    "client_id": "{id}",
    "client_secret": "{secret}",
}
REFRESH = {
    "type": "oauth2_refresh_token",
    "url": "https://id.example/token",
    "client_id": "dummy",
    "refresh_token": "{refresh}",
}
BEARER = {**JWT, "type": "jwt_bearer", "url": "/token"}
EXEC = {"type": "exec", "command": ["dummy-cli", "{not a template}"]}
# The least that each type needs, and the secrets that it names.
LEAST: dict[str, tuple[dict[str, Any], set[str]]] = {
    "oauth2_client_credentials": (CLIENT, {"id", "secret"}),
    "oauth2_refresh_token": (REFRESH, {"refresh"}),
    "jwt": (JWT, {"key"}),
    "jwt_bearer": (BEARER, {"key"}),
    "request": (REQUEST, set()),
    "inworld": ({"type": "inworld", "portal": "{portal}"}, {"portal"}),
    "exec": (EXEC, set()),
}


def strategy(token: dict[str, Any]) -> StrategySettings:
    return StrategySettings.model_validate({"token": token, "http": PLACEMENT})


def why(token: dict[str, Any]) -> str:
    """What is said about a token that cannot be."""
    with pytest.raises(ValidationError) as caught:
        strategy(token)
    # A list that has lost its only item is said to be too short as well; the loader leaves that.
    return caught.value.errors()[0]["msg"]


def test_every_type_is_known() -> None:
    """The table of types, the union that is checked, and these tests have the same."""
    assert TOKENS.keys() == LEAST.keys()
    for name, model in TOKENS.items():
        assert isinstance(strategy(LEAST[name][0]).token, model)


@pytest.mark.parametrize("name", LEAST)
def test_little_has_to_be_written(name: str) -> None:
    """Each type with what it cannot do without; a strategy needs the secrets that it names."""
    token, names = LEAST[name]
    made = strategy(token)
    assert made.secret_names == names
    assert made.token is not None
    assert made.token.lifetime_seconds == 300
    assert made.token.refused == (401,)


@pytest.mark.parametrize("name", LEAST)
def test_what_is_needed_is_asked_for(name: str) -> None:
    """Without one of these keys there is no token."""
    token, _ = LEAST[name]
    for key in token.keys() - {"type", "portal", "client_secret"}:
        assert why({one: value for one, value in token.items() if one != key}) == "Field required"


@pytest.mark.parametrize("name", LEAST)
def test_unknown_keys_are_errors(name: str) -> None:
    """A key that no type has, or another type has, is a mistake and not ignored."""
    for key in ("lifetime", "webhook"):
        assert "not permitted" in why({**LEAST[name][0], key: 1})


@pytest.mark.parametrize("name", LEAST)
def test_every_key_is_explained(name: str) -> None:
    """Editors show these texts; a duration says its unit and its default."""
    for key, field in TOKENS[name].model_fields.items():
        assert field.description, key
        if key.endswith("_seconds"):
            assert "Seconds" in field.description
            assert str(field.default) in field.description


def test_the_secrets_of_every_text_are_found() -> None:
    """However deep: in URLs, headers, forms, JSON, claims; what the call itself gives is none."""
    token = {
        "type": "request",
        "url": "https://id.example/{a}?x={b.field}",
        "headers": {"X-A": "{c}"},
        "json": {"{not}": ["{d}", {"x": "{e} {jwt}"}, 1, None]},
        "assertion": {
            "algorithm": "ES256",
            "key": "{f.key}",
            "key_id": "{g}",
            "claims": {"iss": "{h}", "deep": {"x": ["{i}"]}},
        },
    }
    assert strategy(token).secret_names == set("abcdefghi")


def test_without_an_assertion_jwt_is_a_secret() -> None:
    """The name is given by the assertion alone; otherwise it was forgotten."""
    assert strategy({**REQUEST, "form": {"jwt": "{jwt}"}}).secret_names == {"jwt"}


def test_texts_are_found_with_their_places() -> None:
    """So that an error can point at the line."""
    found = dict(texts_in({"a": "x", "b": [1, {"c": "y"}], "d": None}))
    assert found == {("a",): "x", ("b", 1, "c"): "y"}


def test_braces_of_a_command_are_its_own() -> None:
    """No shell and no templates: what is written is what the program gets."""
    made = strategy(EXEC)
    assert made.token is not None
    assert made.token.templates == {}


# -- URLs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "/",
        "/oauth2/token",
        "/t?x=1&y=%20",
        "/{tenant}/token",
        "https://id.example",
        "https://id.example/token?p=B2C_1",
        "https://id.example/{tenant}/token?x={y}",
        "https://{tenant}.example/token",
        "http://127.0.0.1:9/token",
        "http://localhost/token",
        "http://[::1]:9/{tenant}",
    ],
)
def test_urls_that_can_be(url: str) -> None:
    """A path at the upstream, https anywhere, http on this machine; secrets may stand in them."""
    strategy({**CLIENT, "url": url})


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("token", "not a URL"),
        ("", "not a URL"),
        ("//id.example/token", "invalid path"),
        ("/token here", "invalid path"),
        ("/token#x", "invalid path"),
        ("/a\\b", "invalid path"),
        ("/tökén", "printable ASCII"),
        ("/token\r\nX: y", "printable ASCII"),
        ("/{Tenant}", "invalid secret name"),
        ("/{tenant", "unbalanced brace"),
        ("{url}", "not a URL"),
        ("ftp://id.example/token", "neither https nor http"),
        ("http://id.example/token", "over plain http"),
        ("http://{host}/token", "over plain http"),
        ("https://user:CANARY@id.example/token", "a user or a password"),
        ("https://id.example/token#CANARY", "no fragment"),
        ("https://id.example/token?a=b c", "space or a fragment"),
        ("https://id.example/token?a=b#CANARY", "space or a fragment"),
        ("https://id.example/a/../token", "dot segment"),
        ("https://id.example:0/token", "port"),
        ("http://0x7f.1/token", "unusual spelling"),
    ],
)
@pytest.mark.parametrize("least", [CLIENT, REFRESH, BEARER, REQUEST], ids=lambda one: one["type"])
def test_urls_that_cannot_be(least: dict[str, Any], url: str, words: str) -> None:
    """Where a credential would go astray, or the call could not be written; without the URL."""
    said = why({**least, "url": url})
    assert words in said
    assert "CANARY" not in said


# -- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("statuses", [[401], [401, 403], [400, 498]])
def test_statuses_that_refuse(statuses: list[int]) -> None:
    """Those by which a provider can say that it does not take the token."""
    made = strategy({**CLIENT, "refused": statuses})
    assert made.token is not None
    assert made.token.refused == tuple(statuses)


@pytest.mark.parametrize("statuses", [[], [200], [101], [302], [503], [0], ["401"], [True], 401])
def test_statuses_that_do_not_refuse(statuses: object) -> None:
    """A good answer, or a fault of the provider, must not cause a call and a second request."""
    why({**CLIENT, "refused": statuses})


@pytest.mark.parametrize(
    ("least", "key", "values"),
    [
        (CLIENT, "lifetime_seconds", [0, -1, 31_536_001, "300", None, True, float("nan")]),
        (JWT, "valid_seconds", [0, -1, 86_401, "60"]),
        (BEARER, "valid_seconds", [0, 86_401, float("inf")]),
        (EXEC, "timeout_seconds", [0, 301, "5"]),
    ],
)
def test_durations_have_bounds(least: dict[str, Any], key: str, values: list[object]) -> None:
    """Seconds, as a number, more than none and no more than makes sense."""
    for value in values:
        why({**least, key: value})


# -- signatures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
def test_algorithms(algorithm: str) -> None:
    """RFC 8725 section 3.1: one of a fixed list, named in the settings."""
    token = strategy({**JWT, "algorithm": algorithm}).token
    assert isinstance(token, Jwt)
    assert (token.algorithm, token.header_type, token.valid_seconds) == (algorithm, "JWT", 300)


@pytest.mark.parametrize("algorithm", ["none", "None", "hs256", "HS1", "ES256K", "RS256 ", ""])
def test_algorithms_that_are_none(algorithm: str) -> None:
    """Above all not ``none``."""
    assert "Input should be 'HS256'" in why({**JWT, "algorithm": algorithm})


@pytest.mark.parametrize("claim", ["iat", "exp", "jti"])
def test_claims_that_are_set_here(claim: str) -> None:
    """They are new for each token, so a fixed one would be a mistake."""
    assert f"the claim {claim}" in why({**JWT, "claims": {claim: 1}})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("least", "key"), [(JWT, "claims"), (BEARER, "claims"), (REQUEST, "json")])
def test_numbers_that_json_does_not_have(least: dict[str, Any], key: str, value: float) -> None:
    """RFC 8259 section 6; YAML does have them."""
    assert "invalid JSON number" in why({**least, key: {"a": [value]}})


def test_texts_in_claims_are_templates() -> None:
    """A brace without a partner is found there too."""
    assert "unbalanced brace" in why({**JWT, "claims": {"a": [{"b": "{"}]}})


# -- request --------------------------------------------------------------------------------------


def test_a_request_by_default() -> None:
    """A POST without a body, whose answer is like OAuth 2.0's."""
    token = strategy(REQUEST).token
    assert isinstance(token, Request)
    assert (token.method, token.form, token.json_body, token.headers) == ("POST", None, None, {})
    assert (token.token, token.expiry) == ("access_token", "expires_in")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"form": {"a": "b"}, "json": {"a": "b"}}, "one body"),
        ({"method": "GET", "form": {"a": "b"}}, "a GET has no body"),
        ({"method": "GET", "json": {}}, "a GET has no body"),
        ({"method": "PUT"}, "'GET' or 'POST'"),
        ({"json": {"a": "{"}}, "unbalanced brace"),
        ({"json": ["a"]}, "dictionary"),
        ({"form": {"a": "é"}}, "printable ASCII"),
        ({"headers": {"X-A": "é"}}, "printable ASCII"),
        ({"headers": {"X A": "b"}}, "invalid header name"),
        ({"headers": {"X-A:": "b"}}, "invalid header name"),
        ({"headers": {"X-A\r\nX-B": "b"}}, "invalid header name"),
        ({"headers": {"Content-Length": "1"}}, "belongs to the connection"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "belongs to the connection"),
        ({"headers": {"host": "evil.example"}}, "belongs to the connection"),
        ({"headers": {"Accept": "a", "accept": "b"}}, "duplicate"),
        ({"assertion": {"algorithm": "none", "key": "{key}"}}, "'HS256'"),
    ],
)
def test_requests_that_cannot_be(more: dict[str, Any], words: str) -> None:
    """What could not be sent, or would be sent as something else."""
    assert words in why({**REQUEST, **more})


# -- inworld, exec, refresh tokens ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ({}, "missing"),
        ({"key": "{key}"}, "missing"),
        ({"secret": "{secret}"}, "missing"),
        ({"portal": "{portal}", "key": "{key}"}, "duplicate"),
        ({"portal": "{portal}", "key": "{key}", "secret": "{secret}"}, "duplicate"),
        ({"portal": "{portal}", "variant": "other"}, "'session' or 'sample'"),
        ({"portal": "{portal}", "workspace": "workspaces/w"}, "no workspace"),
    ],
)
def test_inworld_keys_that_cannot_be(token: dict[str, Any], words: str) -> None:
    """One form of the key, and nothing that the call would not say."""
    assert words in why({"type": "inworld", **token})


def test_inworld_workspaces() -> None:
    """The call of the sample application names one."""
    strategy(
        {
            "type": "inworld",
            "key": "{key}",
            "secret": "{secret}",
            "variant": "sample",
            "workspace": "workspaces/{w}",
        }
    )


@pytest.mark.parametrize("command", [[], "dummy-cli", [1], ["dummy\ncli"]])
def test_commands_that_cannot_be(command: object) -> None:
    """A list of texts, as there is no shell that would split one."""
    why({**EXEC, "command": command})


@pytest.mark.parametrize("store", ["newest", "./newest", "/var/lib/", "", "/a\nb", "~/newest"])
def test_stores_that_cannot_be(store: str) -> None:
    """The absolute path of a file, which no shell expands."""
    assert "invalid absolute path" in why({**REFRESH, "store": store})


# -- in a file ------------------------------------------------------------------------------------


def test_a_file_has_them_all() -> None:
    """Every type as it is written in a routes file."""
    settings = load_text(
        """
routes:
  acme:
    upstream: https://api.acme.example/v2
    secrets:
      id: env:ACME_ID
      secret: env:ACME_SECRET
      refresh: {file: /run/secrets/refresh, optional: true}
      account: {file: /run/secrets/account.json, multiline: true}
    auth:
      - name: a
        paths: [/a/**]
        token: {type: oauth2_client_credentials, url: /oauth2/token, client_auth: form,
                client_id: "{id}", client_secret: "{secret}", scope: a b, audience: https://x/}
        http: {header: Authorization, value: "Bearer {token}"}
        websocket: {query: access_token, value: "{token}"}
      - name: b
        paths: [/b/**]
        token:
          type: oauth2_refresh_token
          url: https://id.acme.example/token
          client_id: "{id}"
          refresh_token: "{refresh}"
          store: /var/lib/keyrelay/acme
        header: Authorization
        value: "Bearer {token}"
      - name: c
        paths: [/c/**]
        token:
          type: jwt_bearer
          url: https://oauth2.example/token
          algorithm: RS256
          key: "{account.private_key}"
          claims: {iss: "{account.client_email}", aud: "{account.token_uri}", n: 1, deep: [x]}
        header: Authorization
        value: "Bearer {token}"
      - name: d
        paths: [/d/**]
        token: {type: jwt, algorithm: HS256, key: "{secret}", claims: {iss: "{id}"}}
        header: Authorization
        value: "Bearer {token}"
      - name: e
        paths: [/e/**]
        token:
          type: request
          url: /app/{id}/tokens
          headers: {Authorization: "Bearer {jwt}"}
          assertion: {algorithm: RS256, key: "{account.private_key}", claims: {iss: "{id}"}}
          token: token
          expiry: expires_at
          refused: [401, 403]
        header: Authorization
        value: "Bearer {token}"
      - name: f
        paths: [/f/**]
        token: {type: inworld, key: "{id}", secret: "{secret}"}
        header: Authorization
        value: "Bearer {token}"
      - name: g
        token: {type: exec, command: [acme, auth, print-token], timeout_seconds: 5}
        header: Authorization
        value: "Bearer {token}"
""",
        "routes.yaml",
    )
    auth = settings.routes["acme"].auth
    assert [type(one.token) for one in auth] == [
        TOKENS[name]
        for name in (
            "oauth2_client_credentials",
            "oauth2_refresh_token",
            "jwt_bearer",
            "jwt",
            "request",
            "inworld",
            "exec",
        )
    ]
    assert [sorted(one.secret_names) for one in auth] == [
        ["id", "secret"],
        ["id", "refresh"],
        ["account"],
        ["id", "secret"],
        ["account", "id"],
        ["id", "secret"],
        [],
    ]
