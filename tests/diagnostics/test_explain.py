"""``explain`` against the truth: what it prints is what a provider then receives."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from proxy.config import loader
from proxy.config.settings import Settings
from proxy.diagnostics.explain import Explanation, explain
from tests.emulators import (
    AIGNE_KEY,
    CAMB_KEY,
    HUME_KEY,
    INWORLD_PORTAL,
    AigneEmulator,
    CambEmulator,
    CambRealtimeEmulator,
    Emulator,
    HumeEmulator,
    InworldEmulator,
)
from tests.support.keyrelay import (
    RawProvider,
    both_loops,
    exchange,
    preset_keyrelay,
    raw_provider,
    read_head,
    request_id_line,
)

KEY = "dummy+key/with=odd&signs"
USER = "dummy user"
_REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
HANDSHAKE = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "MDEyMzQ1Njc4OWFiY2RlZg=="),
]

# Placement, what the provider gets of the key, and what explain writes in that place.
PLACEMENTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "header": ({"header": "X-Acme-Key", "value": "v1 {key}"}, f"v1 {KEY}", "v1 <key>"),
    "bearer": (
        {"header": "Authorization", "value": "Bearer {key}"},
        f"Authorization: Bearer {KEY}",
        "Authorization: Bearer <key>",
    ),
    "query": (
        {"query": "acme.key", "value": "{key}"},
        "acme.key=dummy%2Bkey%2Fwith%3Dodd%26signs",
        "acme.key=<key>",
    ),
    "basic": (
        {"basic": {"username": "{user}", "password": "{key}"}},
        "Authorization: Basic " + base64.b64encode(f"{USER}:{KEY}".encode()).decode(),
        "Authorization: Basic base64(<user>:<key>)",
    ),
    "path": ({"path": "/bot{key}"}, "/botdummy+key%2Fwith=odd&signs/", "/bot<key>/"),
    "cookie": ({"cookie": "session", "value": "{key}"}, f"session={KEY}", "session=<key>"),
    "field of JSON": (
        {"header": "X-Acme-Key", "value": "{document.api.Key-1}"},
        f"X-Acme-Key: {KEY}",
        "X-Acme-Key: <document.api.Key-1>",
    ),
    "fields of JSON in Basic": (
        {"basic": {"username": "{document.user}", "password": "{document.api.Key-1}"}},
        "Authorization: Basic " + base64.b64encode(f"{USER}:{KEY}".encode()).decode(),
        "Authorization: Basic base64(<document.user>:<document.api.Key-1>)",
    ),
    "field of JSON in the query": (
        {"query": "key", "value": "{document.api.Key-1}"},
        "key=dummy%2Bkey%2Fwith%3Dodd%26signs",
        "key=<document.api.Key-1>",
    ),
}

# What clients send: dummies of their own, things to strip, odd bytes, and the stand-ins' own form.
TARGETS = [
    "/v1/x",
    "/v1/x?a=1&acme.key=client-dummy&&b=%20+",
    "/v1/%3Ckey%3E/%3Cuser%3E?q=%3Ckey%3E",
    "/v1/a%2Fb;c:d?",
    "/v1/x?access_token=client-dummy",
]
FIELDS = [
    [],
    [("User-Agent", "curl/8"), ("Accept", "*/*"), ("accept", "a, b"), ("Cookie", "a=client-dummy")],
    [("Authorization", "Bearer client-dummy"), ("x-acme-key", "client-dummy"), ("X", "<key>")],
    [("Connection", "close, X-Hop"), ("X-Hop", "1"), ("TE", "trailers"), ("X_Acme_Key", "dummy")],
    [("Content-Length", "0"), ("X-Umlaut", "é€ 🎤"), ("Origin-Trial", "x")],
]


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", KEY)
    monkeypatch.setenv("ACME_USER", USER)
    monkeypatch.setenv("ACME_DOCUMENT", json.dumps({"user": USER, "api": {"Key-1": KEY}}))


def routes(upstream: str, placement: dict[str, Any]) -> dict[str, Any]:
    return {
        "acme": {
            "upstream": f"{upstream}/base",
            "secrets": {
                "key": "env:ACME_KEY",
                "user": "env:ACME_USER",
                "document": "env:ACME_DOCUMENT",
            },
            "auth": [placement],
        }
    }


def read(document: dict[str, Any]) -> Settings:
    return loader.load_text(json.dumps({"listen": "127.0.0.1:0", "routes": document}), "x.yaml")


def with_any_id(head: bytes) -> str:
    """What the provider got, with the stand-in for the id that was new for this request."""
    return head.replace(request_id_line(head), b"X-Request-Id: <request id>\r\n").decode()


@asynccontextmanager
async def noting() -> AsyncIterator[tuple[RawProvider, list[bytes]]]:
    """A provider that keeps every head that it gets."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                heads.append(await read_head(reader))
                writer.write(_REFUSED)

    async with raw_provider(serve) as provider:
        yield provider, heads


@both_loops
@pytest.mark.parametrize("websocket", [False, True], ids=["http", "websocket"])
@pytest.mark.parametrize("kind", PLACEMENTS)
async def test_what_is_shown_is_what_the_provider_gets(kind: str, websocket: bool) -> None:
    """Byte for byte the same head, with the name of the secret where the secret is."""
    placement, real, shown = PLACEMENTS[kind]
    async with noting() as (provider, heads):
        document = routes(provider.url, placement)
        settings = read(document)
        async with preset_keyrelay(document) as running:
            for target in TARGETS:
                for fields in FIELDS:
                    sent = [("Host", "localhost"), *(HANDSHAKE if websocket else []), *fields]
                    if websocket:
                        sent = [pair for pair in sent if pair[0] != "Connection"]
                        sent += [("Connection", "Upgrade")]
                    lines = "".join(f"{name}: {value}\r\n" for name, value in sent)
                    head = f"GET /acme{target} HTTP/1.1\r\n{lines}\r\n".encode()
                    answer = await exchange(running.port, head)
                    assert answer.startswith(b"HTTP/1.1 403 Forbidden"), answer
                    received = with_any_id(heads.pop())
                    assert real in received
                    found = explain(settings, "GET", f"/acme{target}", sent, websocket=websocket)
                    assert found.refusal is None
                    assert found.request == received.replace(real, shown)
                    assert KEY not in found.request


@both_loops
async def test_a_body_is_announced_as_it_will_be() -> None:
    """Chunks and lengths: the framing that is shown is the one that is sent."""
    async with noting() as (provider, heads):
        placement, real, shown = PLACEMENTS["bearer"]
        document = routes(provider.url, placement)
        async with preset_keyrelay(document) as running:
            for fields in ([("Transfer-Encoding", "chunked")], [("Content-Length", "3")]):
                sent = [("Host", "localhost"), *fields]
                lines = "".join(f"{name}: {value}\r\n" for name, value in sent)
                head = f"POST /acme/v1 HTTP/1.1\r\n{lines}\r\n0\r\n\r\n".encode()
                heads.clear()
                await exchange(running.port, head)
                found = explain(read(document), "POST", "/acme/v1", sent, websocket=False)
                assert found.request == with_any_id(heads[0]).replace(real, shown)


@both_loops
@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ([("x-request-id", "client-1")], "client-1"),
        ([("X-Request-Id", "client-1"), ("X-Request-Id", "client-2")], "client-1"),
        ([("X-Request-Id", "client 1")], "<request id>"),
        ([("X-Request-Id", "<request id>")], "<request id>"),
        ([("X-Request-Id", "é")], "<request id>"),
        ([("X_Request_Id", "client-1")], "<request id>"),
    ],
)
async def test_the_request_id_is_the_one_that_is_sent(
    fields: list[tuple[str, str]], shown: str
) -> None:
    """A valid one of the client's is shown, since it will be used; any other will be a new one."""
    async with noting() as (provider, heads):
        placement, real, key = PLACEMENTS["bearer"]
        document = routes(provider.url, placement)
        async with preset_keyrelay(document) as running:
            sent = [("Host", "localhost"), *fields, ("X-A", "b")]
            lines = "".join(f"{name}: {value}\r\n" for name, value in sent)
            await exchange(running.port, f"GET /acme/v1 HTTP/1.1\r\n{lines}\r\n".encode())
        line = f"X-Request-Id: {shown}\r\n"
        expected = with_any_id(heads[0]) if "<" in shown else heads[0].decode()
        found = explain(read(document), "GET", "/acme/v1", sent, websocket=False)
        assert found.request == expected.replace(real, key)
        assert found.request.count(line) == 1


SHIPPED: dict[str, tuple[type[Emulator], str, str, str]] = {
    "hume": (HumeEmulator, "HUME_API_KEY", HUME_KEY, "/v0/x?a=%20"),
    "aigne-hub": (AigneEmulator, "AIGNE_HUB_API_KEY", AIGNE_KEY, "/app/api/v2/x"),
    "camb": (CambEmulator, "CAMB_API_KEY", CAMB_KEY, "/apis/x"),
    "inworld": (InworldEmulator, "INWORLD_API_KEY", INWORLD_PORTAL, "/tts/v1/voice:x"),
}
SOCKETS = {
    "hume": "/v0/evi/chat?a=b",
    "camb": "/apis/live-tts/ws?a",
    "camb-realtime": "/v1/realtime?mode=fast",
    "inworld": "/api/v1/realtime/session?key=s&protocol=realtime",
}


@both_loops
@pytest.mark.parametrize(
    ("provider", "socket"),
    [*((provider, "") for provider in SHIPPED), *SOCKETS.items()],
    ids=[*SHIPPED, *(f"{provider}-websocket" for provider in SOCKETS)],
)
async def test_the_shipped_presets_are_explained_as_they_are_served(
    monkeypatch: pytest.MonkeyPatch, provider: str, socket: str
) -> None:
    """The head that the provider's emulator noted, and took, is the head that was shown."""
    websocket = bool(socket)
    kind, variable, value, target = SHIPPED[provider.removesuffix("-realtime")]
    emulator = CambRealtimeEmulator() if provider == "camb-realtime" else kind()
    target = socket or target
    monkeypatch.setenv(variable, value)
    sent = [("Host", "localhost"), ("Accept", "a/b"), ("Authorization", "Bearer client-dummy")]
    sent += [("Sec-WebSocket-Protocol", "bearer_client-dummy, json")] if websocket else []
    sent += HANDSHAKE if websocket else []
    async with emulator:
        document = {"it": {"provider": provider, "upstream": emulator.origin}}
        async with preset_keyrelay(document) as running:
            lines = "".join(f"{name}: {value}\r\n" for name, value in sent)
            answer = await exchange(
                running.port, f"GET /it{target} HTTP/1.1\r\n{lines}\r\n".encode()
            )
            assert answer.startswith(b"HTTP/1.1 101 " if websocket else b"HTTP/1.1 200 ")
        # Beside it there may be the call by which keyrelay mints a token.
        noted = next(one for one in emulator.requests if one.method == "GET")
        head = f"{noted.method} {noted.target} HTTP/1.1\r\n"
        head += "".join(f"{name.decode()}: {value.decode()}\r\n" for name, value in noted.headers)
        found = explain(read(document), "GET", f"/it{target}", sent, websocket=websocket)
        head = with_any_id(f"{head}\r\n".encode()).replace(value, "<api_key>")
        head = re.sub("dummy-session-token-[0-9]+", "<token>", head)
        assert found.request == head
        assert emulator.faults == []


def ask(
    settings: Settings,
    target: str,
    *fields: tuple[str, str],
    method: str = "GET",
    websocket: bool = False,
) -> Explanation:
    return explain(settings, method, target, list(fields), websocket=websocket)


@pytest.fixture
def settings() -> Settings:
    """Every kind of rule, in front of providers that get no request."""
    return loader.load_text(
        json.dumps(
            {
                "listen": "127.0.0.1:8080",
                "browsers": {"origins": ["http://localhost:5173"]},
                "routes": {
                    "acme": {
                        "upstream": "https://api.acme.example",
                        "secrets": {"key": "env:ACME_KEY"},
                        "auth": [{"http": {"header": "X-Key", "value": "{key}"}, "name": "only"}],
                        "allow": ["GET /v1/**", "POST /v1/speech"],
                        "deny": ["/v1/admin/**"],
                        "methods": ["GET", "POST"],
                        "listen": "127.0.0.1:8082",
                    },
                    "keyless": {
                        "upstream": "https://api.acme.example",
                        "secrets": {"key": "env:ACME_NOT_SET"},
                        "auth": [{"header": "X-Key", "value": "{key}"}],
                    },
                    "colon": {
                        "upstream": "https://api.acme.example",
                        "secrets": {"key": "env:ACME_COLON"},
                        "auth": [{"basic": {"username": "{key}", "password": ""}}],
                    },
                    "demo": {"provider": "demo"},
                },
            }
        ),
        "routes.yaml",
    )


@pytest.mark.parametrize(
    ("target", "rules"),
    [
        ("/acme/v1/ADMIN/x", "GET is served, denied by /v1/admin/** of the route acme"),
        ("/acme/v2", "GET is served, not denied, allowed by nothing of the allow list"),
    ],
)
def test_the_rule_that_refuses_is_named(settings: Settings, target: str, rules: str) -> None:
    """By its pattern, in the refusal that a client gets as well, which repeats no path."""
    found = ask(settings, target)
    assert dict(found.steps)["rules"] == rules
    assert found.refusal is not None
    assert "/v1/" in found.refusal.detail
    assert target.removeprefix("/acme") not in str(found.refusal) + found.refusal.advice


def test_the_steps_say_which_route_and_rule(settings: Settings) -> None:
    """Guard, route, rule, strategy and destination, in the order of the code that runs."""
    found = ask(settings, "/acme/v1/voices")
    assert dict(found.steps) == {
        "guard": "admitted: host 127.0.0.1, no browser",
        "route": "acme, mounted at /acme",
        "rules": "GET is served, not denied, allowed by GET /v1/**",
        "strategy": "only, for every path",
        "sent to": "https://api.acme.example",
    }
    assert dict(ask(settings, "/demo/x").steps)["sent to"] == "the built-in provider"
    assert "no allow list" in dict(ask(settings, "/demo/x").steps)["rules"]


@pytest.mark.parametrize(
    ("target", "fields", "method", "status", "kind"),
    [
        ("/nowhere", [], "GET", 404, "no-route"),
        ("/acme/v2", [], "GET", 403, "path-not-allowed"),
        ("/acme/v1/admin/x", [], "GET", 403, "path-not-allowed"),
        ("/acme/v1", [], "DELETE", 405, "method-not-allowed"),
        ("/acme/v1", [], "TRACE", 405, "method-refused"),
        ("/acme/v1", [], "get", 400, "bad-method"),
        ("/acme/v1", [], "G\r\nT", 400, "bad-request"),
        ("/acme/../x", [], "GET", 400, "dot-segment"),
        ("/acme/v1/é", [], "GET", 400, "bad-target"),
        ("/acme/v1/€\udcff", [], "GET", 400, "bad-target"),
        ("acme", [], "GET", 400, "bad-target"),
        ("", [], "GET", 400, "bad-target"),
        ("/acme/v1 x", [], "GET", 400, "bad-request"),
        ("/acme/v1", [("Host", "evil.example")], "GET", 421, "host-not-allowed"),
        ("/acme/v1", [("Host", "a b")], "GET", 400, "bad-host"),
        ("/acme/v1", [("Origin", "https://evil.example")], "GET", 403, "browser-not-allowed"),
        ("/acme/v1", [("X", "a\r\nY: b")], "GET", 400, "bad-request"),
        ("/acme/v1", [("X y", "a")], "GET", 400, "bad-request"),
    ],
)
def test_refusals_are_those_of_the_server(
    settings: Settings,
    target: str,
    fields: list[tuple[str, str]],
    method: str,
    status: int,
    kind: str,
) -> None:
    """The server's refusal, with its status and its name, and nothing that would leave."""
    found = ask(settings, target, *fields, method=method)
    assert found.refusal is not None
    assert (found.refusal.status, found.refusal.kind) == (status, kind)
    assert found.request is None


def test_a_missing_secret_is_named(settings: Settings) -> None:
    """The variable to set, as the 503 will say it."""
    found = ask(settings, "/keyless/v1")
    assert found.refusal is None
    assert found.request is not None
    assert "<key: not set>" in found.request
    assert found.steps[-1] == ("not set", "key: set ACME_NOT_SET; until then the response is 503")


def test_a_secret_that_cannot_be_placed_is_noticed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in would fit, but it is the secret that counts: not ready, and no value shown."""
    monkeypatch.setenv("ACME_COLON", "dummy:secret")
    found = ask(settings, "/colon/v1")
    assert found.refusal is not None
    assert "has a colon" in found.refusal.advice
    assert "dummy" not in found.refusal.advice


def test_a_token_that_could_not_be_minted_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that is not what its mint needs: explained as the server answers, no value shown."""
    settings = read({"inworld": {"provider": "inworld"}})
    monkeypatch.setenv("INWORLD_API_KEY", "dummy-no-base64!")
    found = ask(settings, "/inworld/v1/realtime/calls", method="POST")
    assert found.refusal is not None
    assert "not Base64" in found.refusal.advice
    assert "dummy" not in found.refusal.advice
    monkeypatch.setenv("INWORLD_API_KEY", INWORLD_PORTAL)
    found = ask(settings, "/inworld/v1/realtime/calls", method="POST")
    assert "\r\nAuthorization: Bearer <token>\r\n" in (found.request or "")


def messages_of(placement: Any, **more: Any) -> list[str]:
    """What is done with the messages of a WebSocket on a route with this placement."""
    route = {
        "upstream": "https://a.example",
        "secrets": {"key": {"env": "DUMMY_KEY"}},
        "auth": [{"websocket": placement}],
        **more,
    }
    settings = loader.load_text(json.dumps({"routes": {"a": route}}), "r.yaml")
    explained = explain(
        settings,
        "GET",
        "/a/x",
        [("Sec-WebSocket-Extensions", "permessage-deflate")],
        websocket=True,
    )
    assert explained.request is not None
    assert "permessage-deflate" not in explained.request
    return [finding for what, finding in explained.steps if what == "messages"]


def test_messages_are_explained(dummy_key: bytes) -> None:
    """What is set, sent and removed where, with the name of the secret in its place."""
    rest = "no extension, so no compression, is offered to either side"
    assert messages_of(
        {
            "message": {
                "set": "/d/token",
                "value": "Bot {key}",
                "when": {"op": [2, 6]},
                "within": 5,
                "refused": {"close": [4004]},
            }
        },
        strip={"messages": ["/t"]},
    ) == [
        (
            '/d/token is set to "Bot <key>" in one of the first 5 messages of the client, '
            'with {"op": [2, 6]}'
        ),
        "a Close frame with code 4004 refuses the credential",
        "/t is removed from the client's messages until then",
        rest,
    ]
    assert messages_of(
        {
            "message": {
                "send": {"a": "{key}"},
                "after": {"b": 1},
                "refused": {"message": {"c": 1}},
            }
        }
    ) == [
        'keyrelay sends {"a":"<key>"}',
        'after the first message of the provider, with {"b": 1}',
        'a message of the client with {"a": "any value"} is not forwarded',
        'a message with {"c": 1} refuses the credential',
        rest,
    ]
    header = {"header": "X-Api-Key", "value": "{key}"}
    assert messages_of(header, strip={"messages": ["/t"]}) == [
        "/t is removed from the client's first message",
        rest,
    ]
    assert dummy_key


def test_a_socket_needs_a_strategy_for_sockets(settings: Settings) -> None:
    """What serves HTTP alone refuses a WebSocket, whether asked by flag or by header."""
    for found in (
        ask(settings, "/acme/v1/x", websocket=True),
        ask(settings, "/acme/v1/x", *HANDSHAKE),
    ):
        assert found.refusal is not None
        assert found.refusal.kind == "no-strategy"


def test_nothing_leaves_for_what_keyrelay_answers_itself(settings: Settings) -> None:
    """Preflights, OPTIONS * and pages of our own have an answer and no outgoing request."""
    page = ("Origin", "http://localhost:5173")
    preflight = ask(
        settings, "/acme/v1", page, ("Access-Control-Request-Method", "POST"), method="OPTIONS"
    )
    for found in (preflight, ask(settings, "*", method="OPTIONS"), ask(settings, "/-/health")):
        assert (found.request, found.refusal) == (None, None)
        assert found.steps[-1][0] == "answer"


def test_an_allowed_page_is_named(settings: Settings) -> None:
    """With its origin; its marks do not leave."""
    found = ask(settings, "/acme/v1/x", ("Origin", "http://localhost:5173"))
    assert "http://localhost:5173" in dict(found.steps)["guard"]
    assert "Origin" not in (found.request or "Origin")


@pytest.mark.parametrize(
    ("host", "target", "mounted"),
    [
        ("localhost:8080", "/acme/v1/x", "/acme"),
        ("127.0.0.1:8082", "/v1/x", "/"),
        ("acme.localhost:8080", "/v1/x", "/"),
        ("[::1]", "/acme/v1/x", "/acme"),
    ],
)
def test_host_and_port_choose_the_listener(
    settings: Settings, host: str, target: str, mounted: str
) -> None:
    """A route's own listener and its own name have it at the root, the main one by prefix."""
    found = ask(settings, target, ("Host", host))
    assert dict(found.steps)["route"] == f"acme, mounted at {mounted}"
    assert (found.request or "").startswith("GET /v1/x HTTP/1.1\r\nHost: api.acme.example\r\n")


def test_whatever_is_asked_is_explained(settings: Settings) -> None:
    """No text of any kind raises: it is refused, or shown without a secret."""
    text = st.text(max_size=12)
    fields = st.lists(st.tuples(text, text), max_size=3)

    @hypothesis_settings(max_examples=200, deadline=None, database=None)
    @given(st.sampled_from(["GET", "POST"]) | text, text, fields, st.booleans())
    def check(method: str, rest: str, fields: list[tuple[str, str]], websocket: bool) -> None:
        found = explain(settings, method, f"/acme/v1/{rest}", fields, websocket=websocket)
        assert (found.request is None) == (found.refusal is not None)
        assert KEY not in repr(found)

    check()
