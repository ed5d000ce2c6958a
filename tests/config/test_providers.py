"""The presets that ship, each held to what its provider documents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any
from urllib.parse import urlsplit

import pytest

from proxy.auth.injection import Injection
from proxy.auth.strategy import AuthContext
from proxy.config.placement import HeaderPlacement, QueryPlacement
from proxy.config.presets import ReadOnDemand, presets, read_preset
from proxy.config.route import RouteSettings, StrategySettings
from proxy.config.token import Inworld
from proxy.errors import Refusal
from proxy.forwarding.upstream_request import UpstreamRequest
from proxy.http.address import DEMO_UPSTREAM, parse_upstream
from proxy.http.path_patterns import PatternSet
from proxy.http.request import Request
from proxy.routing.builder import compile_route
from proxy.routing.route import Route
from proxy.websocket.first_messages import FirstMessages
from proxy.websocket.message_rules import MessageRules
from tests.support import messages as sample
from tests.support.messages import texts
from tests.support.provider_facts import (
    CALLS,
    FOLDER,
    FOREIGN,
    IN_MESSAGE,
    JWT,
    MESSAGES,
    NAMES,
    OFFERED,
    QUERY,
    SENT,
    TOKEN,
    WELL_KNOWN,
    WITHOUT_UPSTREAM,
    basic,
    minting,
    spellings,
)
from tests.support.provider_tokens import TOKENS, auth_context, dummy, these, token_endpoint

# --- what leaves ------------------------------------------------------------------------------


def filled(template: str, values: Mapping[str, bytes]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]].decode(), template)


def client_fields(settings: RouteSettings) -> list[tuple[str, str]]:
    """Every header in which a client could bring a credential of its own."""
    own = {
        placement.header
        for strategy in settings.auth
        for placement in (*(strategy.http or ()), *(strategy.websocket or ()))
        if isinstance(placement, HeaderPlacement)
    }
    return [(name, f"Bearer {FOREIGN}") for name in dict.fromkeys([*WELL_KNOWN, *sorted(own)])]


def request(
    name: str, settings: RouteSettings, path: str, *, websocket: bool
) -> tuple[Request, list[str], list[bytes]]:
    """A request of the provider's client with a credential wherever there could be one; the lines
    of it that may go on, and the subprotocols that may not.
    """
    own = {
        placement.query
        for strategy in settings.auth
        for placement in (*(strategy.http or ()), *(strategy.websocket or ()))
        if isinstance(placement, QueryPlacement)
    }
    common = ["api_key", "access_token", "jwt", "auth_token", "oauth_token", "subscription-key"]
    parameters = dict.fromkeys([*common, *QUERY.get(name, ()), *sorted(own)])
    target = "&".join([f"{path}?mode=a%20b", *(f"{one}={FOREIGN}" for one in parameters)])
    passing = [("Accept", "*/*"), ("X-Team", "blue")]
    fields = [*passing, *client_fields(settings)]
    kept, stayed = [f"{one}: {value}" for one, value in passing], list[bytes]()
    if websocket:
        offered, pass_on = OFFERED.get(
            name, (("chat", f"bearer_{FOREIGN}", f"Bearer.{FOREIGN}", JWT), ("chat",))
        )
        stayed = [one.encode() for one in offered if one not in pass_on]
        handshake = [("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "ZHVtbXk=")]
        fields += [*handshake, ("Connection", "Upgrade"), ("Upgrade", "websocket")]
        fields.append(("Sec-WebSocket-Protocol", ", ".join(offered)))
        kept = ["Connection: Upgrade", "Upgrade: websocket", *kept]
        kept += [f"{one}: {value}" for one, value in handshake]
        if pass_on:
            kept.append(f"Sec-WebSocket-Protocol: {', '.join(pass_on)}")
    return Request.of("GET", target, fields, websocket=websocket), kept, stayed


def expected(sent: str, upstream: str, path: str, kept: list[str], values: Any) -> bytes:
    """The request as the provider has to see it, byte for byte."""
    origin, base = parse_upstream(upstream)
    lines, query = list(kept), "mode=a%20b"
    credential = filled(sent, values)
    match sent[0]:
        case "?":
            query += f"&{credential[1:]}"
        case "/":
            path = credential + path
        case _ if sent.startswith("Basic "):
            user, _, password = credential.removeprefix("Basic ").encode().partition(b":")
            lines.append(f"Authorization: {basic(user, password)}")
        case _ if sent != IN_MESSAGE:
            lines.append(credential)
    head = [f"GET {base}{path}?{query} HTTP/1.1", f"Host: {origin.authority}", *lines]
    return "".join(f"{line}\r\n" for line in [*head, ""]).encode()


def assert_silent(values: Iterable[bytes], *things: object) -> None:
    """None of the things shows a value, or a line of one, however it is printed."""
    pieces = {piece for value in values for piece in re.split(r"\n|\\n", value.decode())}
    for thing in things:
        for text in (repr(thing), str(thing), f"{thing}", f"{thing!r:>5}"):
            assert not [piece for piece in pieces if len(piece) > 8 and piece in text]


def check_rules(name: str, settings: RouteSettings, route: Route) -> None:
    """Minting is denied, in any spelling and by no idle pattern; verifying and calling are not."""
    mints = [one.split(" ") for one in minting()[name].get("calls", ())]
    for method, path in mints:
        for spelt in spellings(path):
            with pytest.raises(Refusal) as refused:
                route.strategy_for(Request.of(method, f"/{name}{spelt}", []), spelt.encode())
            expected_kinds = {"path-not-allowed"} | ({"bad-target"} if spelt[:2] == "//" else set())
            assert refused.value.kind in expected_kinds, spelt
    for pattern in settings.deny:
        assert any(PatternSet([pattern]).catches(*one) for one in mints), pattern
    calls = [*CALLS.get(name, ()), *([settings.verify] if settings.verify else [])]
    for method, _, target in (one.partition(" ") for one in calls):
        received = Request.of(method, target, [])
        assert route.strategy_for(received, received.path) in route.strategies


@pytest.mark.parametrize("name", NAMES)
def test_minting_calls_of_a_preset_are_listed(name: str) -> None:
    """Each preset has its list of calls that mint a credential, with sources and date; or the
    reason for having none, and then no deny pattern either.
    """
    entry = minting()[name]
    assert entry.keys() <= {"read", "sources", "calls", "none"}
    assert isinstance(entry["read"], date)
    assert entry["sources"]
    assert bool(entry.get("calls")) != bool(entry.get("none"))
    assert bool(entry.get("calls")) == bool(presets()[name].deny)
    for call in entry.get("calls", ()):
        assert re.fullmatch(r"(GET|POST|PUT|PATCH|DELETE) /[^ ?#]+", call), call


def check_words(name: str, settings: RouteSettings) -> None:
    """Title, page about keys, address, and in a comment where the facts are from and since when."""
    assert settings.title
    if name in WITHOUT_UPSTREAM:
        assert settings.upstream is None
    elif settings.upstream != DEMO_UPSTREAM:
        assert parse_upstream(settings.upstream or "")[0].scheme == "https"
    if settings.upstream != DEMO_UPSTREAM:
        assert re.fullmatch(r"https://\S+", settings.docs or "")
        text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
        assert re.search(r"Sources, read \d{4}-\d\d-\d\d:\s+(# )?\S+", text)
    for secret, source in settings.secrets.items():
        assert all(re.match(r"env:|builtin:demo", one) for one in source.references)
        assert source.multiline == (b"\n" in dummy(name, secret))


async def check_strategy(
    name: str,
    settings: RouteSettings,
    strategy: StrategySettings,
    given: AuthContext | None,
    upstream: str,
) -> None:
    """With this strategy's secrets alone, exactly the documented credential leaves."""
    values = {one: dummy(name, one) for one in strategy.secret_names}
    route = compile_route(name, settings, these(settings, values), given)
    assert not route.unready
    path = strategy.paths[0].replace("**", "x") if strategy.paths else "/v1/things"
    for websocket, sent in zip((False, True), SENT[name][strategy.name or ""], strict=True):
        received, kept, stayed = request(name, settings, path, websocket=websocket)
        if sent is None:
            with pytest.raises(Refusal) as refused:
                route.strategy_for(received, path.encode())
            assert refused.value.kind == "no-strategy"
            continue
        found = route.strategy_for(received, path.encode())
        assert found.name == strategy.name
        injection = await found.credential.obtain(websocket=websocket)
        outgoing = UpstreamRequest(received, path.encode(), route.rules)
        every = {**values, "token": TOKEN.encode()}
        assert outgoing.render(injection) == expected(sent, upstream, path, kept, every)
        assert outgoing.withheld_subprotocols == stayed
        if websocket:
            check_messages(name, injection, route, next(iter(values.values())))
        printed = (route, *route.strategies, settings, injection, outgoing, received)
        assert_silent(every.values(), *printed, found.credential.describe())


def check_messages(name: str, injection: Injection, route: Route, key: bytes) -> None:
    """The first messages arrive with the credential, or without the client's own."""
    rules = MessageRules(injection.message, route.rules.message_members)
    assert (name in MESSAGES) is bool(rules.placement or rules.strip)
    for asked, own, sent in MESSAGES.get(name, ()):
        messages = FirstMessages(rules, injection.redactor)
        if asked:
            messages.from_provider(sample.reply(asked))
        messages.from_client(sample.text(own))
        assert texts(messages.to_provider) == [sent.replace("KEY", key.decode())]
        assert messages.client_done


async def check_token(name: str, settings: RouteSettings, strategy: StrategySettings) -> None:
    """The token is asked for as documented, at a real endpoint, and a refusal quotes nothing."""
    assert strategy.token is not None
    documented = TOKENS[name, strategy.name or ""]
    own = getattr(strategy.token, "url", urlsplit(documented.url).path)
    upstream = settings.upstream or WITHOUT_UPSTREAM[name]
    assert (upstream + own if own.startswith("/") else own) == documented.url
    values = {one: dummy(name, one) for one in strategy.secret_names}
    async with token_endpoint() as endpoint, auth_context() as given:
        path = urlsplit(documented.url).path
        if isinstance(strategy.token, Inworld) or own.startswith("/"):
            upstream, there = endpoint.origin, strategy
        else:
            token = strategy.token.model_copy(update={"url": endpoint.origin + path})
            there = strategy.model_copy(update={"token": token})
        auth = tuple(there if one is strategy else one for one in settings.auth)
        moved = settings.model_copy(update={"upstream": upstream, "auth": auth})
        endpoint.answer = documented.answer
        await check_strategy(name, moved, there, given, upstream)
        (asked,) = endpoint.asked  # for both kinds of request
        assert (asked.method, asked.path) == ("POST", filled(path, values))
        documented.check(asked, values)

        endpoint.answer = None
        route = compile_route(name, moved, these(moved, values), given)
        (found,) = (one for one in route.strategies if one.name == strategy.name)
        with pytest.raises(Refusal) as refused:
            await found.credential.obtain(websocket=False)
        error = refused.value
        printed = (error, error.detail, error.advice, error.headers, error.log_detail)
        assert_silent(values.values(), *printed, found.credential.describe(), route)


def check_broken_secrets(name: str, settings: RouteSettings) -> None:
    """Values that nothing can be made of are not quoted when that is said."""
    values = {one: b"dummy-broken-value\n" + dummy(name, one)[:40] for one in settings.secrets}
    route = compile_route(name, settings, these(settings, values))
    assert_silent(values.values(), route, route.unready)


@pytest.mark.parametrize("name", NAMES)
async def test_a_preset_conforms(name: str) -> None:
    """A preset authenticates as its provider documents, each strategy, HTTP and WebSocket: exactly
    one credential, ours, exactly there; what the client brought along stays here, minting is closed
    to it, and nothing shows a secret.
    """
    settings = presets()[name]
    check_words(name, settings)
    assert [one.name for one in settings.auth] == list(SENT[name])
    upstream = settings.upstream or WITHOUT_UPSTREAM[name]
    complete = settings.model_copy(update={"upstream": upstream})
    for strategy in settings.auth:
        if strategy.token is None:
            await check_strategy(name, complete, strategy, None, upstream)
        else:
            await check_token(name, settings, strategy)
    values = {one: dummy(name, one) for one in settings.secrets}
    check_rules(name, settings, compile_route(name, complete, these(complete, values)))
    check_broken_secrets(name, complete)


def test_every_table_is_about_presets_that_ship() -> None:
    """None of the expectations above is idle because its provider has another name."""
    assert sorted(SENT) == NAMES
    for table in (QUERY, OFFERED, MESSAGES, minting(), CALLS, WITHOUT_UPSTREAM):
        assert table.keys() <= SENT.keys()
    strategies = {(name, one.name) for name, kept in presets().items() for one in kept.auth}
    assert TOKENS.keys() <= strategies


def test_a_session_name_is_no_credential() -> None:
    """Inworld's realtime sockets need the query parameter ``key``, so it is left alone."""
    settings = presets()["inworld"]
    route = compile_route(
        "inworld", settings, these(settings, {"api_key": dummy("inworld", "api_key")})
    )
    assert b"key" not in route.rules.dropped_query


# --- presets in general -----------------------------------------------------------------------


def test_presets_do_not_say_where_a_route_is() -> None:
    """Place and listener are the route's business, also in presets of the user's own."""
    made = read_preset("upstream: https://a.example\nlisten: 127.0.0.1:1\npath: /x\n", "p.yaml")
    assert [str(finding).splitlines()[0] for finding in made.document.findings] == [
        'p.yaml:3:1: "path" is not for presets',
        'p.yaml:2:1: "listen" is not for presets',
    ]


def test_a_preset_that_says_nothing_is_a_finding() -> None:
    """Null is no preset."""
    assert "expected a mapping" in str(read_preset("~", "p.yaml").document.findings[0])


def test_presets_are_read_when_they_are_asked_for() -> None:
    """A start with one route reads one preset: their number costs nothing."""
    read: list[str] = []

    def note(name: str) -> str:
        read.append(name)
        return name.upper()

    known = ReadOnDemand(["a", "b"], note)
    assert (list(known), len(known), "b" in known, "c" in known) == (["a", "b"], 2, True, False)
    assert read == []
    assert (known["a"], known["a"], known.get("c")) == ("A", "A", None)
    assert read == ["a"]
    with pytest.raises(KeyError):
        known["c"]
