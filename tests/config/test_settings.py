from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from proxy.config.fields import Node
from proxy.config.placement import (
    PLACEMENTS,
    BasicPlacement,
    CookiePlacement,
    HeaderPlacement,
    MessagePlacement,
    PathPlacement,
    QueryPlacement,
)
from proxy.config.route import RouteSettings, StrategySettings
from proxy.config.secret import SecretSettings
from proxy.config.settings import Settings
from proxy.secrets.reference import parse_reference


def route(**fields: Any) -> RouteSettings:
    return RouteSettings.model_validate(fields)


def why(model: type[Node], data: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(data)
    return str([error["msg"] for error in caught.value.errors()])


def strategy(data: Any) -> StrategySettings:
    return StrategySettings.model_validate(data)


def test_each_kind_of_placement_is_known_by_its_key() -> None:
    """The key that is there says what kind of placement it is."""
    made = strategy(
        {
            "websocket": [
                {"header": "X-Key", "value": "{a}"},
                {"basic": {"username": "{b}", "password": "x"}},
                {"query": "key", "value": "{c}"},
                {"path": "/bot{d}"},
                {"cookie": "session", "value": "{e}"},
                {"message": {"set": "/f", "value": "{f}"}},
            ]
        }
    )
    kinds = [HeaderPlacement, BasicPlacement, QueryPlacement, PathPlacement, CookiePlacement]
    kinds.append(MessagePlacement)
    assert made.websocket is not None
    assert [type(placement) for placement in made.websocket] == kinds == list(PLACEMENTS.values())
    assert made.http is None
    assert made.secret_names == {"a", "b", "c", "d", "e", "f"}


def test_a_strategy_that_is_a_placement_serves_both() -> None:
    """The short form is the same as saying http: and websocket: with one placement each."""
    placement = {"header": "X-Key", "value": "{key}"}
    short = strategy({"name": "k", "paths": ["/v1/**"], **placement})
    long = strategy({"name": "k", "paths": ["/v1/**"], "http": placement, "websocket": [placement]})
    assert short == long


def test_a_strategy_that_is_a_message_serves_websockets() -> None:
    """HTTP requests have none, so the short form says websocket: alone."""
    placement = {"message": {"send": {"a": {"b": ["{key}"]}, "type": "auth"}, "after": {"c": 1}}}
    short = strategy(placement)
    assert short == strategy({"websocket": placement})
    assert short.secret_names == {"key"}


SET: Any = {"set": "/a", "value": "{k}"}
SEND: Any = {"send": {"a": "{k}"}, "after": {"b": 1}}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({}, "either set or sent"),
        ({**SET, **SEND}, "either set or sent"),
        ({"set": "/a"}, '"value" is missing'),
        ({"send": {"a": "{k}"}}, '"after" is missing'),
        ({"send": {"a": "{k}"}, "after": {}}, '"after" is missing'),
        ({**SET, "after": {"b": 1}}, "other form"),
        ({**SEND, "when": {}}, "other form"),
        ({"set": "a", "value": "{k}"}, "JSON pointer"),
        ({"set": "", "value": "{k}"}, "JSON pointer"),
        ({"set": "/a~", "value": "{k}"}, "JSON pointer"),
        ({"set": "/a", "value": "{k"}, "brace"),
        ({"send": {"a": [{"b": "{k"}]}, "after": {"b": 1}}, "brace"),
        ({"set": "/a", "value": "fixed"}, "no placement uses a secret"),
        ({**SET, "within": 0}, "greater than or equal to 1"),
        ({**SET, "refused": {"close": [1]}}, "greater than or equal to 1000"),
    ],
)
def test_messages_that_cannot_work_are_refused(message: Any, expected: str) -> None:
    """Neither form, both forms, and parts of them."""
    assert expected in why(StrategySettings, {"websocket": {"message": message}})


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([SET, SET], "duplicate member /a of a message"),
        ([SEND, {**SEND, "after": {"c": 1}}], "sends one message"),
        ([SET, SEND], "sends one message"),
        ([SET, {**SET, "set": "/a/b"}], "in another one"),
        ([SET, {**SET, "set": "/b", "when": {"c": 1}}], "in two messages"),
        ([SET, {**SET, "set": "/b", "within": 2}], "in two messages"),
    ],
)
def test_messages_of_one_strategy(messages: list[Any], expected: str) -> None:
    """Several members are set in one message; one message is sent."""
    websocket = [{"message": one} for one in messages]
    assert expected in why(StrategySettings, {"websocket": websocket})


def test_http_requests_have_no_messages() -> None:
    """The placement is refused where it could not be applied."""
    assert "only a WebSocket" in why(StrategySettings, {"http": {"message": SET}})


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, "no placement"),
        ({"name": "x"}, "no placement"),
        ({"http": []}, "no placement"),
        ({"http": {"header": "X", "value": "dummy"}}, "no placement uses a secret"),
        ({"path": "/fixed"}, "no placement uses a secret"),
        ({"http": [{"header": "X", "value": "{a}"}, {"header": "x", "value": "{b}"}]}, "duplicate"),
        (
            {"http": [{"basic": {"username": "{a}"}}, {"header": "Authorization", "value": "{b}"}]},
            "duplicate",
        ),
        ({"header": "Bad Header", "value": "{a}"}, "invalid header name"),
        ({"header": "X:", "value": "{a}"}, "invalid header name"),
        ({"header": "X", "value": "{a} "}, "space"),
        ({"header": "X", "value": "{a"}, "brace"),
        ({"header": "X", "value": "{a}\r\nY: z"}, "printable ASCII"),
        ({"query": "a=b", "value": "{a}"}, "invalid query parameter name"),
        ({"query": "", "value": "{a}"}, "invalid query parameter name"),
        ({"path": "bot{a}"}, "path placement"),
        ({"path": "/bot{a}/"}, "path placement"),
        ({"path": "/../{a}"}, "path placement"),
        ({"path": "/a?x={a}"}, "path placement"),
        ({"cookie": "a b", "value": "{a}"}, "invalid cookie name"),
        ({"cookie": "a", "value": "{a}; b"}, "a cookie has no"),
        ({"basic": {"username": "a:b", "password": "{a}"}}, "colon"),
        ({"header": "X", "value": "{a}", "paths": ["GET /v1"]}, "without a method"),
        ({"header": "X", "value": "{a}", "paths": ["/v1/**x"]}, "whole segment"),
    ],
)
def test_strategies_that_cannot_work_are_refused(data: Any, expected: str) -> None:
    """A strategy that would send nothing, twice, or something broken is an error."""
    assert expected in why(StrategySettings, data)


@pytest.mark.parametrize(
    "header",
    ["Host", "connection", "Content-Length", "Transfer-Encoding", "Upgrade", "TE", "Trailer",
     "Keep-Alive", "Proxy-Connection", "Expect", "Sec-WebSocket-Protocol"],
)  # fmt: skip
def test_headers_of_the_connection_hold_no_credential(header: str) -> None:
    """What frames the message or the handshake cannot be set."""
    assert "belongs to the connection" in why(HeaderPlacement, {"header": header, "value": "{k}"})


def test_a_constant_may_stand_beside_the_credential() -> None:
    """A second placement without a secret is allowed: a version header, for example."""
    made = strategy(
        {"http": [{"header": "X", "value": "{k}"}, {"header": "X-Version", "value": "2"}]}
    )
    assert made.secret_names == {"k"}


@pytest.mark.parametrize(
    ("form", "references", "optional"),
    [
        ("env:KEY", ("env:KEY",), False),
        ({"env": "KEY"}, ("env:KEY",), False),
        ({"env": "KEY", "optional": True}, ("env:KEY",), True),
        ({"file": "/run/key"}, ("file:/run/key",), False),
        (["env:NEW", "file:/old"], ("env:NEW", "file:/old"), False),
        ({"references": ["env:A", "env:B"], "optional": True}, ("env:A", "env:B"), True),
    ],
)
def test_every_form_of_a_secret_is_understood(
    form: Any, references: tuple[str, ...], optional: bool
) -> None:
    """Short and long forms of a secret mean the same references."""
    made = route(secrets={"key": form}).secrets["key"]
    assert made == SecretSettings(references=references, optional=optional)


@pytest.mark.parametrize(
    "form",
    ["dummy-secret-1", "dummysecret1:abc", "env:dummy-secret-1", "env:dummysecret123",
     "file:dummysecret1", "builtin:dummysecret1", {"env": "dummy-secret-1"}, ["dummy-secret-1"],
     {"env": "A", "file": "/dummysecret1"}, {"value": "dummysecret1"}, [], {}, 5, None,
     {"env": 5}],
)  # fmt: skip
def test_a_secret_in_the_file_is_refused_and_not_repeated(form: Any) -> None:
    """What is no reference may be the secret itself, so no message holds it."""
    said = why(RouteSettings, {"secrets": {"key": form}})
    assert "secret1" not in said
    assert "secret-1" not in said


def test_the_advice_names_the_sources_there_are() -> None:
    """A secret written inline, or a source of another tool, gets a remedy."""
    for text in ("dummy", "vault:kv/dummy"):
        with pytest.raises(ValueError, match="env:NAME or file:/absolute/path"):
            parse_reference(text)
    assert parse_reference("file:/a:b") == ("file", "/a:b")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"path": "hume"}, "segments"),
        ({"path": "/"}, "segments"),
        ({"path": "/hume/"}, "segments"),
        ({"path": "/a//b"}, "segments"),
        ({"path": "/a/../b"}, "segments"),
        ({"path": "/a%20b"}, "segments"),
        ({"path": "/-/x"}, "reserved"),
        ({"path": "/-"}, "reserved"),
        ({"methods": ["get"]}, "capitals"),
        ({"methods": ["TRACE"]}, "never forwarded"),
        ({"methods": ["CONNECT"]}, "never forwarded"),
        ({"methods": []}, "at least 1"),
        ({"allow": []}, "at least 1"),
        ({"deny": ["x"]}, "pattern"),
        ({"verify": "POST /x"}, "doctor"),
        ({"verify": "GET /a b"}, "doctor"),
        ({"environment": {"a-b": "x"}}, "variable name"),
        ({"environment": {"A": "{api_key}"}}, "only {base}"),
        ({"withhold": ["a-b"]}, "variable name"),
        ({"secrets": {"API": "env:A"}}, "invalid secret name"),
        ({"title": "a\nb"}, "one line"),
        ({"idle_seconds": "5"}, "number"),
        ({"idle_seconds": True}, "number"),
        ({"idle_seconds": float("nan")}, "number"),
        ({"connect_timeout_seconds": 0}, "greater than 0"),
        ({"allow_private": "yes"}, "boolean"),
        ({"allow_private": 1}, "boolean"),
        ({"strip": {"headers": ["a b"]}}, "header name"),
        ({"listen": "*:80"}, "every network"),
        ({"upstream": "example.com"}, "not a URL"),
        ({"nonsense": 1}, "Extra"),
    ],
)
def test_fields_of_a_route_are_checked(fields: Any, expected: str) -> None:
    """Each field refuses what it could not do anything sensible with."""
    assert expected in why(RouteSettings, fields)


def test_what_is_left_out_has_the_documented_default() -> None:
    """An empty file listens on loopback alone, lets no page in and waits as documented."""
    settings = Settings()
    assert settings.listen == ("127.0.0.1:8080",)
    assert settings.browsers.origins == ()
    assert (settings.drain_seconds, settings.keepalive_seconds) == (10, 75)
    assert settings.head_timeout_seconds == 15
    plain = route()
    assert plain.methods == ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    assert (plain.allow, plain.deny, plain.allow_private, plain.allow_plaintext) == (
        None,
        (),
        False,
        False,
    )


def test_settings_cannot_be_changed() -> None:
    """What has been checked stays as it was."""
    with pytest.raises(ValidationError, match="frozen"):
        Settings().drain_seconds = 5


def test_every_field_is_described() -> None:
    """An editor can explain each key: nothing may be written that has no description."""
    models: list[type[Node]] = [Settings]
    seen: set[type[Node]] = set()
    models += [RouteSettings, StrategySettings, SecretSettings, *PLACEMENTS.values()]
    for model in models:
        seen.add(model)
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            if name.endswith("_seconds"):
                assert "Seconds" in field.description, name
                assert str(field.default) in field.description, name
    assert len(seen) == len(models)


@pytest.mark.parametrize("name", ["Content-Length", "sec-websocket-key", "Transfer-Encoding"])
def test_framing_cannot_be_stripped(name: str) -> None:
    """Without its framing a body would have no end that both sides agree on."""
    assert "belongs to the connection" in why(RouteSettings, {"strip": {"headers": [name]}})


TOKEN = {
    "type": "oauth2_client_credentials",
    "url": "/oauth2/token",
    "client_id": "{id}",
    "client_secret": "{secret}",
}


def test_a_token_strategy_needs_the_secrets_of_its_token() -> None:
    """What the token is made from counts as needed, the token itself does not."""
    made = strategy(
        {"token": TOKEN, "http": {"header": "Authorization", "value": "Bearer {token}"}}
    )
    assert made.secret_names == {"id", "secret"}


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ({**TOKEN, "type": "nothing"}, "extract tag"),
        ({**TOKEN, "url": "http://example.com/token"}, "over plain http"),
        ({**TOKEN, "url": "oauth2/token"}, "not a URL"),
        ({**TOKEN, "url": "//evil.example/token"}, "invalid path"),
        ({**TOKEN, "client_auth": "post"}, "'basic', 'basic_plain', 'form', "),
        ({**TOKEN, "lifetime_seconds": 0}, "greater than 0"),
        ({"type": "jwt", "algorithm": "none", "key": "{secret}"}, "'HS256'"),
        ({"type": "jwt", "algorithm": "HS256", "key": "{k}", "claims": {"exp": 1}}, "claim exp"),
        ({"type": "inworld"}, "missing or duplicate key"),
        ({"type": "inworld", "portal": "{a}", "key": "{b}", "secret": "{c}"}, "duplicate"),
        ({"type": "request", "url": "/t", "form": {}, "json": {}}, "one body"),
        ({"type": "exec", "command": []}, "at least 1"),
    ],
)
def test_what_a_token_cannot_be(token: dict[str, Any], words: str) -> None:
    """A token that could not work, or would leak, is refused when the file is read."""
    placement = {"header": "Authorization", "value": "Bearer {token}"}
    assert words in why(StrategySettings, {"token": token, "http": placement})


def test_a_token_that_no_placement_names_is_refused() -> None:
    """A token that goes nowhere is a mistake in the placements."""
    placement = {"header": "Authorization", "value": "Bearer {secret}"}
    assert "uses the token" in why(StrategySettings, {"token": TOKEN, "http": placement})
