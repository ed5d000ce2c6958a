"""Whose a path is, what a route lets through, and where a Location leads."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.presets import merge, presets
from proxy.config.route import RouteSettings
from proxy.config.secret import SecretSettings
from proxy.errors import Refusal, SecretUnavailable, UpstreamFailure
from proxy.http.request import Request
from proxy.routing.builder import compile_route
from proxy.routing.route import Route
from proxy.routing.route_secrets import ResolvedSecrets, find_secrets
from proxy.routing.router import Router
from proxy.routing.url_rewriter import UrlRewriter
from proxy.secrets.secret import Secret

HEADER = {"name": "key", "header": "X-Acme-Key", "value": "{key}"}


def resolve(name: str, settings: SecretSettings) -> tuple[Secret, ...]:
    if settings.references == ("env:MISSING",):
        raise SecretUnavailable(name, "set MISSING")
    return (Secret(name, b"dummy-key"),)


def route(name: str = "acme", upstream: str = "https://api.acme.test", **more: Any) -> Route:
    document = {
        "upstream": upstream,
        "secrets": {"key": "env:KEY"},
        "auth": [HEADER],
        **more,
    }
    settings = RouteSettings.model_validate(document)
    return compile_route(name, settings, find_secrets(settings, resolve))


def found(table: Router, target: str, host: str = "localhost") -> tuple[str, bytes, bytes]:
    match = table.find(host, Request.of("GET", target, []))
    return match.route.name, match.mount, match.rest


def admit(one: Route, method: str = "GET", path: str = "/x", *, websocket: bool = False) -> str:
    request = Request.of(method, one.prefix.decode() + path, [], websocket=websocket)
    return one.strategy_for(request, path.encode()).name


def refused(
    one: Route, method: str = "GET", path: str = "/x", *, websocket: bool = False
) -> Refusal:
    with pytest.raises(Refusal) as caught:
        admit(one, method, path, websocket=websocket)
    return caught.value


# -- finding ---------------------------------------------------------------------------------------


TABLE = Router(
    [
        route("hume"),
        route("team", path="/team"),
        route("deep", path="/team/hume/v1"),
        route("mid", path="/team/hume"),
        route("dots", path="/a.b_c~d"),
    ]
)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/hume", ("hume", b"/hume", b"")),
        ("/hume/", ("hume", b"/hume", b"/")),
        ("/hume?x=/team", ("hume", b"/hume", b"")),
        ("/hume/v0/%2F/x?y", ("hume", b"/hume", b"/v0/%2F/x")),
        ("/hume//x//y/", ("hume", b"/hume", b"/x//y/")),
        ("/hume///", ("hume", b"/hume", b"/")),
        ("/hume/hume/x", ("hume", b"/hume", b"/hume/x")),
        ("/team/x", ("team", b"/team", b"/x")),
        ("/team/humex", ("team", b"/team", b"/humex")),
        ("/team/hume", ("mid", b"/team/hume", b"")),
        ("/team/hume/v2", ("mid", b"/team/hume", b"/v2")),
        ("/team/hume/v1/x", ("deep", b"/team/hume/v1", b"/x")),
        ("/team/hume/v10", ("mid", b"/team/hume", b"/v10")),
        ("/a.b_c~d/x", ("dots", b"/a.b_c~d", b"/x")),
    ],
)
def test_the_longest_prefix_at_a_segment_s_end_wins(
    target: str, expected: tuple[str, bytes, bytes]
) -> None:
    """The rest is what follows, byte for byte."""
    assert found(TABLE, target) == expected


@pytest.mark.parametrize(
    "target",
    ["/", "/humex", "/hum", "/Hume/x", "/h%75me/x", "/hume%2Fx", "/hume;x", "/x/hume", "/aXb_c~d"],
)
def test_what_only_resembles_a_prefix_is_no_route(target: str) -> None:
    """Prefixes are compared as raw bytes; 404 names the routes and repeats nothing."""
    with pytest.raises(Refusal) as caught:
        found(TABLE, target)
    assert (caught.value.status, caught.value.kind) == (404, "no-route")
    assert "/hume" in caught.value.advice
    assert "humex" not in str(caught.value) + caught.value.advice


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30))
def test_prefix_and_rest_are_the_path(tail: str) -> None:
    """Nothing is lost or added where the path is cut, but slashes that follow the prefix."""
    for prefix in ("/hume", "/team", "/team/hume", "/team/hume/v1"):
        request = Request.of("GET", f"{prefix}/{tail}", [])
        match = TABLE.find("localhost", request)
        path = request.path.removeprefix(match.mount).lstrip(b"/")
        assert match.mount + match.rest == match.mount + b"/" + path
        assert match.rest[:1] == b"/"


def test_a_route_s_own_host_needs_no_prefix() -> None:
    """``<name>.localhost`` is an origin of its own: the whole path is the provider's."""
    assert found(TABLE, "/hume/x", "team.localhost") == ("team", b"", b"/hume/x")
    assert found(TABLE, "/", "hume.localhost") == ("hume", b"", b"/")
    assert TABLE.hosts == {f"{name}.localhost" for name in ("hume", "team", "deep", "mid", "dots")}


def test_a_listener_of_one_route_serves_nothing_else() -> None:
    """Neither by prefix nor by host does another route answer there."""
    only = Router(TABLE.routes, TABLE.routes[0])
    for host in ("localhost", "team.localhost"):
        assert found(only, "/team/x", host) == ("hume", b"", b"/team/x")


def test_pages_of_ours_are_where_all_routes_are() -> None:
    """A host or a listener that belongs to one provider has no page of keyrelay's."""
    assert TABLE.serves_all_routes("localhost")
    assert TABLE.serves_all_routes("127.0.0.1")
    assert not TABLE.serves_all_routes("hume.localhost")
    assert not Router(TABLE.routes, TABLE.routes[0]).serves_all_routes("localhost")


# -- admitting -------------------------------------------------------------------------------------


def test_a_plain_route_lets_the_usual_methods_through() -> None:
    """All methods of the default, with the strategy that serves them."""
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        assert admit(route(), method) == "key"
    assert admit(route(), websocket=True) == "key"


@pytest.mark.parametrize("method", ["DELETE", "get", "PROPFIND", "TRACE"])
def test_other_methods_get_the_allowed_ones(method: str) -> None:
    """405 with Allow (RFC 9110 section 15.5.6); methods are case-sensitive."""
    refusal = refused(route(methods=["POST", "GET"]), method)
    assert refusal.status == 405
    assert refusal.headers == (("Allow", "GET, POST"),)


def test_only_what_is_allowed_passes() -> None:
    """With ``allow`` nothing else does, however it is spelled."""
    one = route(allow=["POST /v1/speech", "GET /v1/**"])
    assert admit(one, "POST", "/v1/speech") == "key"
    assert admit(one, "HEAD", "/v1/x") == "key"
    for method, path in (
        ("POST", "/v1/other"),
        ("DELETE", "/v1/speech"),
        ("GET", "/V1/x"),
        ("GET", "/v1%2Fx"),
        ("GET", ""),
    ):
        refusal = refused(one, method, path)
        assert (refusal.status, refusal.kind) == (403, "path-not-allowed")
        assert "allow" in refusal.advice


@pytest.mark.parametrize(
    "path",
    [
        "/oauth2/token",
        "/OAuth2/token",
        "/oauth2%2Ftoken",
        "/oauth2//token",
        "/o%2561uth2/x",
        "/oauth2;a/token",
        "/x%2f..%2foauth2/token",
        "/oauth2/token/",
    ],
)
def test_what_is_denied_passes_in_no_spelling(path: str) -> None:
    """T21: a client cannot mint itself a credential through the route."""
    refusal = refused(route(deny=["/oauth2/**"], allow=["/**"]), "POST", path)
    assert (refusal.status, refusal.kind) == (403, "path-not-allowed")
    assert "deny" in refusal.advice


def test_a_refusal_names_the_pattern_and_its_place() -> None:
    """Of ``deny`` the one that matches, of ``allow`` what would be served, at most five of them."""
    one = route(deny=["/oauth2/**", "POST /keys"], allow=[f"GET /v{n}/**" for n in range(1, 8)])
    assert refused(one, "POST", "/KEYS/").detail == (
        "The request matches deny POST /keys of the route acme."
    )
    assert refused(one, "POST", "/v1/x").detail == (
        "The request matches nothing of allow of the route acme: GET /v1/**, GET /v2/**, "
        "GET /v3/**, GET /v4/**, GET /v5/** and 2 more."
    )


def test_the_place_of_a_pattern_is_its_preset_or_the_route() -> None:
    """A shipped preset's patterns are known; of another preset it stays open where it is."""
    own = "/mine/**"
    hume = merge(presets()["hume"], RouteSettings(provider="hume", deny=(own,)), "voice")
    built = compile_route("voice", hume, ResolvedSecrets({}, dict.fromkeys(hume.secrets, "x")))
    [preset] = presets()["hume"].deny
    assert built.place_of(preset) == "the preset hume"
    assert refused(built, "GET", "/mine/x").detail == (
        "The request matches deny /mine/** of the route voice."
    )
    settings = RouteSettings(provider="acme", deny=(own,), upstream="https://api.acme.example")
    built = compile_route("a", settings, ResolvedSecrets({}, {}))
    assert built.place_of(own) == "the route a or its preset acme"


def test_a_route_without_a_credential_reports_what_is_missing() -> None:
    """503, never a 401: the fault is ours; the remedy names the variable."""
    refusal = refused(route(secrets={"key": "env:MISSING"}))
    assert (refusal.status, refusal.kind) == (503, "route-not-ready")
    assert refusal.advice == "set MISSING"
    assert refusal.proxy_error == "proxy_configuration_error"


def test_rules_come_before_readiness() -> None:
    """A refused path is refused, whether the route could serve it or not."""
    one = route(secrets={"key": "env:MISSING"}, deny=["/x"])
    assert refused(one).status == 403


def test_the_first_strategy_that_fits_serves() -> None:
    """By its paths and by its placements, in the configuration's order."""
    one = route(
        auth=[
            {"name": "tts", "paths": ["/tts/**"], "http": {"header": "A", "value": "{key}"}},
            {"name": "socket", "websocket": {"query": "a", "value": "{key}"}},
            {"name": "rest", "http": {"header": "B", "value": "{key}"}},
        ]
    )
    assert admit(one, "GET", "/tts/x") == "tts"
    assert admit(one, "GET", "/tts/x", websocket=True) == "socket"
    assert admit(one, "GET", "/x") == "rest"


@pytest.mark.parametrize("websocket", [False, True])
def test_a_request_that_no_strategy_serves_leaves_without_none(websocket: bool) -> None:
    """It fails closed: nothing goes out without a credential."""
    kind = "http" if websocket else "websocket"
    one = route(auth=[{kind: {"header": "A", "value": "{key}"}}])
    refusal = refused(one, websocket=websocket)
    assert (refusal.status, refusal.kind) == (403, "no-strategy")


# -- Location --------------------------------------------------------------------------------------


def rewrite_location(location: str, one: Route | None = None, mount: str = "/acme") -> str:
    one = route() if one is None else one
    return UrlRewriter(one, mount.encode(), b"/here/now")(b"location", location.encode()).decode()


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://api.acme.test/v1/x", "/acme/v1/x"),
        ("https://api.acme.test", "/acme"),
        ("https://api.acme.test/", "/acme/"),
        ("https://api.acme.test?x=1", "/acme?x=1"),
        ("https://api.acme.test:443/x", "/acme/x"),
        ("https://api.acme.test:/x", "/acme/x"),
        ("HTTPS://API.Acme.Test/X?Y#Z", "/acme/X?Y#Z"),
        ("//api.acme.test/x", "/acme/x"),
        ("//api.acme.test:443/x", "/acme/x"),
        ("/v1/x?a=%2F+&b#c?d", "/acme/v1/x?a=%2F+&b#c?d"),
        ("/", "/acme/"),
        ("/x?", "/acme/x?"),
        ("http://api.acme.test/x", "/acme/x"),
        ("http://api.acme.test:80/x", "/acme/x"),
        ("http://api.acme.test:443/x", "/acme/x"),
        ("wss://api.acme.test/x", "/acme/x"),
        ("x", "/acme/here/x"),
        ("x/y?a=1#b", "/acme/here/x/y?a=1#b"),
        ("../x", "/acme/x"),
        ("../../bank/x", "/acme/bank/x"),
        ("%2e%2E/.%2e/bank/x", "/acme/bank/x"),
        ("..\\..\\bank", "/acme/bank"),
        ("/../../bank/.", "/acme/bank/"),
        ("https://api.acme.test/a/../../bank", "/acme/bank"),
        (".", "/acme/here/"),
        ("a..b/...", "/acme/here/a..b/..."),
    ],
)
def test_the_provider_s_own_origin_becomes_the_route(location: str, expected: str) -> None:
    """With and without port, scheme-relative and path-absolute: the client stays on the route."""
    assert rewrite_location(location) == expected


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.test/x?api_key=dummy",
        "https://api.acme.test.evil.test/x",
        "https://evil-api.acme.test/x",
        "https://acme.test/x",
        "http://api.acme.test:8080/x",
        "https://api.acme.test:8443/x",
        "https://api.acme.test:4430/x",
        "https://user@api.acme.test/x",
        "https://user:pw@api.acme.test/x",
        "https://api.acme.test@evil.test/x",
        "//evil.test/x",
        "ftp://api.acme.test/x",
        "mailto:a@api.acme.test?x=1",
        "?page=2",
        "#x",
        "",
    ],
)
def test_what_is_not_the_provider_s_stays_as_it_is(location: str) -> None:
    """T27: another place is the client's decision, without a credential."""
    assert rewrite_location(location) == location


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://api.acme.test:8443/x", "/acme/x"),
        ("//api.acme.test:8443/x", "/acme/x"),
        # Another port is another origin.
        ("https://api.acme.test/x", "https://api.acme.test/x"),
        ("https://api.acme.test:443/x", "https://api.acme.test:443/x"),
    ],
)
def test_a_provider_on_another_port_is_that_port_alone(location: str, expected: str) -> None:
    """The origin is scheme, host and port, all three."""
    assert rewrite_location(location, route(upstream="https://api.acme.test:8443")) == expected


def test_a_provider_with_a_literal_address_is_recognised() -> None:
    """Brackets and ports of IPv6 addresses are no trouble."""
    one = route(upstream="http://[::1]:9000")
    assert rewrite_location("http://[::1]:9000/x", one) == "/acme/x"
    assert rewrite_location("http://[::1]/x", one) == "http://[::1]/x"
    assert rewrite_location("http://[::1]:80/x", route(upstream="http://[::1]")) == "/acme/x"


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://api.acme.test/v2/x", "/acme/x"),
        ("https://api.acme.test/v2", "/acme"),
        ("https://api.acme.test/v2/", "/acme/"),
        ("/v2/v2/x", "/acme/v2/x"),
        ("/v2?x", "/acme?x"),
        ("/v20/x", "/acme/v20/x"),
    ],
)
def test_the_base_path_is_taken_off(location: str, expected: str) -> None:
    """It is put before the path again when the client follows; cut at a segment's end only."""
    assert rewrite_location(location, route(upstream="https://api.acme.test/v2")) == expected


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://api.acme.test/x?a=1", "/x?a=1"),
        ("https://api.acme.test", "/"),
        ("/x", "/x"),
        # Never what a browser takes for another host.
        ("https://api.acme.test//evil.test/x", "/evil.test/x"),
        ("https://api.acme.test/\\evil.test/x", "/evil.test/x"),
        ("/\\evil.test/x", "/evil.test/x"),
        ("/\\/evil.test/x", "/evil.test/x"),
    ],
)
def test_without_a_prefix_paths_stay(location: str, expected: str) -> None:
    """Where the route has an origin of its own, only the origin changes."""
    assert rewrite_location(location, mount="") == expected


KEYED: dict[str, Any] = {
    "auth": [
        {
            "http": {"query": "key", "value": "{key}"},
            "websocket": {"query": "token", "value": "{key}"},
        }
    ]
}


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://api.acme.test/x?key=dummy-key", "/acme/x"),
        ("https://api.acme.test/x?a=1&k%65y=dummy-key&b=%20", "/acme/x?a=1&b=%20"),
        ("/x?token=dummy-key#f", "/acme/x#f"),
        ("//api.acme.test?key=dummy-key", "/acme"),
        ("x?page=2&key=dummy-key", "/acme/here/x?page=2"),
        ("../x?key=dummy-key", "/acme/x"),
        # An empty reference would mean the query of the request itself.
        ("?key=dummy-key", "?"),
        ("?key=dummy-key&page=2", "?page=2"),
    ],
)
def test_a_credential_in_the_query_is_taken_out(location: str, expected: str) -> None:
    """T29: what keyrelay put into the query does not come back to the client in a Location."""
    assert rewrite_location(location, route(**KEYED)) == expected


BOT: dict[str, Any] = {"auth": [{"path": "/bot{key}"}]}


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://api.acme.test/botdummy-key/getMe", "/acme/getMe"),
        ("/botdummy-key", "/acme"),
        ("/botdummy-key/", "/acme/"),
        ("/botdummy-key?x=1", "/acme?x=1"),
        ("/botdummy-key/bottles/1", "/acme/bottles/1"),
        ("/file/bottles/1", "/acme/file/bottles/1"),
        ("/x/botdummy-key", "/acme/x/botdummy-key"),
        ("/bot", "/acme/bot"),
    ],
)
def test_a_credential_in_the_path_is_taken_out_once(location: str, expected: str) -> None:
    """T29: where the placement puts it, and nowhere else."""
    assert rewrite_location(location, route(**BOT)) == expected


def test_base_path_and_credential_are_taken_off_in_their_order() -> None:
    """As they were put on: base path, credential, rest."""
    one = route(upstream="https://api.acme.test/v2", **BOT)
    assert rewrite_location("https://api.acme.test/v2/botdummy-key/x", one) == "/acme/x"


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30))
def test_no_location_of_the_provider_s_leads_to_another_host(tail: str) -> None:
    """T22, T27: what is rewritten is a path below the route, whatever follows the origin."""
    for mount in ("/acme", ""):
        got = rewrite_location(f"https://api.acme.test/{tail}", mount=mount)
        assert got.startswith(mount + "/")
        assert not got.startswith(("//", "/\\"))


@given(st.binary(max_size=60))
def test_any_location_is_dealt_with(location: bytes) -> None:
    """Whatever bytes a provider sends, there is a value or the one exception."""
    for mount in (b"/acme", b""):
        with suppress(UpstreamFailure):
            UrlRewriter(route(**KEYED), mount, b"")(b"location", location)
