"""From settings to routes: what is worked out beforehand, and what makes a route unready."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from proxy.config.route import RouteSettings
from proxy.config.secret import SecretSettings
from proxy.errors import SecretUnavailable
from proxy.forwarding.upstream_request import UpstreamRequest
from proxy.http.headers import CREDENTIAL_SUBPROTOCOLS, DROPPED_FROM_REQUESTS, FORWARDING_FIELDS
from proxy.http.request import Request
from proxy.routing.builder import compile_route
from proxy.routing.route import Route
from proxy.routing.route_secrets import ResolvedSecrets, find_secrets
from proxy.secrets.envelope import Envelope, SealBinding
from proxy.secrets.secret import Secret

HEADER = {"header": "X-Acme-Key", "value": "{key}"}


def resolve(name: str, settings: SecretSettings) -> tuple[Secret, ...]:
    """Every secret is there but those whose variable is called MISSING…"""
    variable = settings.references[0].removeprefix("env:")
    if variable.startswith("MISSING"):
        raise SecretUnavailable(name, f"set {variable}")
    return (Secret(name, b"dummy-" + name.encode()),)


def compiled(*auth: dict[str, Any], name: str = "acme", **more: Any) -> Route:
    document = {
        "upstream": "https://api.acme.test/v2/",
        "secrets": {"key": "env:KEY"},
        "auth": list(auth) or [HEADER],
        **more,
    }
    settings = RouteSettings.model_validate(document)
    return compile_route(name, settings, find_secrets(settings, resolve))


def sent(route: Route, target: str, *fields: tuple[str, str]) -> bytes:
    """What leaves for a GET."""
    request = Request.of("GET", target, list(fields))
    rest = request.path.removeprefix(route.prefix)
    injection = route.strategy_for(request, rest).credential.ready(websocket=False)
    assert injection is not None
    return UpstreamRequest(request, rest, route.rules).render(injection)


def test_upstream_becomes_host_and_base_path() -> None:
    """The authority comes from the configuration alone, the base path without its last slash."""
    route = compiled(upstream="https://API.acme.test:8443/v2/")
    assert str(route.origin) == "https://api.acme.test:8443"
    assert route.rules.host == b"api.acme.test:8443"
    assert route.rules.base_path == b"/v2"
    assert compiled(upstream="https://api.acme.test:443").rules.host == b"api.acme.test"


def test_a_route_serves_its_name_or_its_path() -> None:
    """``/<name>`` unless ``path:`` says otherwise."""
    assert compiled().prefix == b"/acme"
    assert compiled(path="/team/acme").prefix == b"/team/acme"


def test_rules_of_methods_and_paths_are_taken_over() -> None:
    """methods, allow and deny are the configuration's; no allow means no restriction."""
    route = compiled(methods=["GET"], allow=["GET /a/**"], deny=["/a/secret"])
    assert route.methods == {"GET"}
    assert route.allow is not None
    assert route.allow.texts == ("GET /a/**",)
    assert route.deny.texts == ("/a/secret",)
    assert compiled().allow is None


def test_every_place_of_a_credential_is_emptied_first() -> None:
    """T16 to T18: placements of all strategies, also of those not in use, and what strip names."""
    route = compiled(
        {"name": "a", "http": [HEADER, {"query": "acme_key", "value": "{key}"}]},
        {"name": "b", "websocket": {"header": "X-Other", "value": "{key}"}},
        {"name": "c", "http": {"query": "gone", "value": "{absent}"}},
        secrets={"key": "env:KEY", "absent": {"env": "MISSING", "optional": True}},
        strategy="a",
        strip={"headers": ["X-Legacy"], "query": ["sig nature"], "subprotocols": ["Acme."]},
    )
    rules = route.rules
    placed = {b"x-acme-key", b"x-other", b"x-legacy"}
    assert rules.dropped_headers == DROPPED_FROM_REQUESTS | FORWARDING_FIELDS | placed
    assert rules.dropped_query == {b"acme_key", b"gone", b"sig nature"}
    assert rules.subprotocols == (*CREDENTIAL_SUBPROTOCOLS, b"acme.")


@pytest.mark.parametrize(
    ("header", "client"),
    [
        ("X-Acme-Key", "X_ACME_KEY"),
        ("X-Acme-Key", "x-acme_key"),
        ("acme_key", "acme-key"),
        ("acme_key", "Acme_Key"),
        ("x_acme-key", "X-Acme-Key"),
        ("x_acme-key", "x-acme_key"),
    ],
)
def test_no_twin_of_the_placement_s_header_crosses(header: str, client: str) -> None:
    """T17: whether ``-`` or ``_`` is the right spelling, the other one does not get through."""
    head = sent(compiled({"header": header, "value": "{key}"}), "/acme/x", (client, "dummy-mine"))
    assert b"dummy-mine" not in head
    assert head.count(b"dummy-key") == 1


def test_a_whole_request_is_put_together() -> None:
    """Base path, rest and query as they came, one credential, the rest of the fields."""
    route = compiled()
    head = sent(
        route, "/acme/a%2Fb/?x=1&api_key=dummy-mine", ("Host", "localhost"), ("Accept", "*/*")
    )
    assert head == (
        b"GET /v2/a%2Fb/?x=1 HTTP/1.1\r\nHost: api.acme.test\r\nAccept: */*\r\n"
        b"X-Acme-Key: dummy-key\r\n\r\n"
    )


def test_a_missing_secret_makes_the_route_unready() -> None:
    """The start does not fail: the route says which variables to set, all of them at once."""
    route = compiled(
        {"http": {"basic": {"username": "{a}", "password": "{b}"}}},
        secrets={"a": "env:MISSING_A", "b": "env:MISSING_B", "c": "env:THERE"},
    )
    assert route.unready == "set MISSING_A; set MISSING_B"
    assert route.strategies == ()


def test_an_optional_secret_takes_only_its_strategy_away() -> None:
    """The next strategy serves, and the route is ready."""
    route = compiled(
        {"name": "token", "http": {"header": "Authorization", "value": "Bearer {token}"}},
        {"name": "key", **HEADER},
        secrets={"key": "env:KEY", "token": {"env": "MISSING", "optional": True}},
    )
    assert route.unready == ""
    assert [one.name for one in route.strategies] == ["key"]


def test_a_route_without_any_strategy_left_is_unready() -> None:
    """Optional secrets only, and none of them there: it fails closed and says so."""
    route = compiled(secrets={"key": {"env": "MISSING", "optional": True}})
    assert "no strategy" in route.unready


def test_a_value_that_cannot_be_placed_makes_the_route_unready() -> None:
    """The secret is named, its value is not."""

    def colon(name: str, settings: SecretSettings) -> tuple[Secret, ...]:
        return (Secret(name, b"dummy:colon"),)

    document = {
        "upstream": "https://api.acme.test",
        "secrets": {"key": "env:KEY"},
        "auth": [{"basic": {"username": "{key}"}}],
    }
    settings = RouteSettings.model_validate(document)
    route = compile_route("acme", settings, find_secrets(settings, colon))
    assert route.strategies == ()
    assert route.unready.startswith("key: ")
    assert "dummy" not in route.unready


def test_a_compiled_route_prints_no_secret() -> None:
    """T37: repr of a route, its rules and its strategies holds no value."""
    route = compiled(HEADER, {"query": "k", "value": "{key}"})
    assert "dummy-key" not in f"{route!r} {route.rules!r} {route.strategies!r}"


def test_two_values_with_one_fingerprint_are_two() -> None:
    """Fingerprints are short; that a key was changed is not seen by them."""
    seen: dict[str, Secret] = {}
    made = (Secret("key", b"dummy-%d" % number, "env:KEY") for number in count())
    one, other = next(
        (one, other)
        for one in made
        if (other := seen.setdefault(one.fingerprint(), one)) is not one
    )
    assert not ResolvedSecrets({"key": (one,)}, {}).same(ResolvedSecrets({"key": (other,)}, {}))
    again = Secret("key", one.reveal(), "env:KEY")
    assert ResolvedSecrets({"key": (one,)}, {}).same(ResolvedSecrets({"key": (again,)}, {}))


def made_from(url: str, *references: str, **more: Any) -> RouteSettings:
    """A route whose token is made from two secrets; the one called ``a`` has these references."""
    document = {
        "upstream": "https://api.acme.test/v2",
        "secrets": {"a": list(references), "b": "env:B"},
        "auth": [
            {
                "name": "token",
                "token": {
                    "type": "oauth2_client_credentials",
                    "url": url,
                    "client_id": "{b}",
                    "client_secret": "{a}",
                },
                "http": {"header": "Authorization", "value": "Bearer {token}"},
            },
            {"name": "key", **HEADER, "value": "{a}"},
        ],
        **more,
    }
    return RouteSettings.model_validate(document)


SEALED = str(
    Envelope.of("1a2b3c4d", bytes(64), SealBinding("acme", "https://api.acme.test:443"), "a")
)


@pytest.mark.parametrize(
    "url",
    [
        "https://auth.acme.test/token",
        "https://api.acme.test:8443/token",
        "https://api.acme.test.evil.test/token",
        "https://{b}.acme.test/token",
        "https://api.acme.test{b}/token",
    ],
)
def test_a_sealed_value_goes_to_no_other_token_endpoint(url: str) -> None:
    """It is not even opened, so the route is not ready and says why; other sources may go there."""
    asked: list[str] = []

    def noting(name: str, settings: SecretSettings) -> tuple[Secret, ...]:
        asked.append(name)
        return resolve(name, settings)

    settings = made_from(url, SEALED, "env:A")
    found = find_secrets(settings, noting)
    assert asked == ["b"]
    assert "sealed" in found.lacking["a"]
    route = compile_route("acme", settings, found)
    assert route.strategies == ()
    assert route.unready.startswith("take a from another source than sealed:")
    assert find_secrets(made_from(url, "env:A"), resolve).lacking == {}


@pytest.mark.parametrize(
    "url", ["/token", "https://api.acme.test/token", "https://API.acme.test:443/{b}?x={b}"]
)
def test_a_sealed_value_goes_to_a_token_endpoint_at_the_upstream(url: str) -> None:
    """That is the host that it was sealed for."""
    assert find_secrets(made_from(url, SEALED), resolve).lacking == {}


def test_a_sealed_value_for_another_strategy_than_the_token_s() -> None:
    """What only goes to the upstream may be sealed, whatever else the route does."""
    settings = made_from("https://auth.acme.test/token", "env:A")
    document = settings.model_dump(by_alias=True, exclude_unset=True)
    document["secrets"] = {"a": "env:A", "b": "env:B", "c": SEALED}
    document["auth"][1]["http"] = [{"header": "X-Acme-Key", "value": "{c}"}]
    assert find_secrets(RouteSettings.model_validate(document), resolve).lacking == {}


def test_fields_of_proxies_in_front_are_forwarded_only_where_the_route_passes_them() -> None:
    """``pass_forwarded`` is off by default; a direct call has no such fields."""
    fields = [("X-Forwarded-For", "192.0.2.7"), ("Via", "1.1 dev"), ("Accept", "*/*")]
    plain = sent(compiled(), "/acme/v1", *fields)
    assert b"192.0.2.7" not in plain
    assert b"Via" not in plain
    assert b"Accept: */*\r\n" in plain
    passed = sent(compiled(pass_forwarded=True), "/acme/v1", *fields)
    assert b"X-Forwarded-For: 192.0.2.7\r\nVia: 1.1 dev\r\nAccept: */*\r\n" in passed
