from __future__ import annotations

import re
from pathlib import Path

import pytest

import proxy
from proxy.origins import DEMO_UPSTREAM, parse_upstream
from proxy.patterns import compile_patterns
from proxy.placements import HeaderPlacement, QueryPlacement
from proxy.presets import read_preset, shipped
from proxy.settings import RouteSettings
from proxy.templates import parse_template

FOLDER = Path(proxy.__file__).parent / "providers"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))

# What the providers' documentation says is sent for the key "dummy": HTTP and WebSocket.
SENT: dict[str, tuple[str, str | None]] = {
    "aigne-hub": ("Authorization: Bearer dummy", None),
    "camb": ("x-api-key: dummy", "x-api-key: dummy"),
    "camb-realtime": ("x-api-key: dummy", "x-api-key: dummy"),
    "demo": ("X-Demo-Key: dummy", "?demo_key=dummy"),
    "hume": ("X-Hume-Api-Key: dummy", "?api_key=dummy"),
    "inworld": ("Authorization: Basic dummy", "Authorization: Basic dummy"),
}


def preset(name: str) -> RouteSettings:
    return shipped()[name].settings


def sent(placements: object) -> str | None:
    if placements is None:
        return None
    assert isinstance(placements, tuple)
    (placement,) = placements
    assert isinstance(placement, HeaderPlacement | QueryPlacement)
    template = parse_template(placement.value)
    value = template.render(dict.fromkeys(template.names, b"dummy")).decode()
    if isinstance(placement, QueryPlacement):
        return f"?{placement.query}={value}"
    return f"{placement.header}: {value}"


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_has_no_finding(name: str) -> None:
    """Each shipped file is right by itself."""
    path = FOLDER / f"{name}.yaml"
    assert read_preset(path.read_text(encoding="utf-8"), path.name).document.findings == []


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_authenticates_as_the_provider_documents(name: str) -> None:
    """Header, scheme and query parameter are exactly the documented ones."""
    (strategy,) = preset(name).auth
    assert (sent(strategy.http), sent(strategy.websocket)) == SENT[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_says_what_people_need(name: str) -> None:
    """Title, upstream over https, page about keys, and comments with source and date."""
    settings, text = preset(name), (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert settings.title
    assert settings.upstream is not None
    if settings.upstream == DEMO_UPSTREAM:
        return
    assert parse_upstream(settings.upstream)[0].scheme == "https"
    assert settings.docs is not None
    assert settings.docs.startswith("https://")
    assert re.search(r"Sources, read \d{4}-\d\d-\d\d:\s+(# )?\S+", text)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_takes_its_secrets_from_the_environment(name: str) -> None:
    """Without any file, a variable named after the provider is enough."""
    for secret in preset(name).secrets.values():
        (reference,) = secret.references
        word = name.partition("-")[0].upper()
        assert reference.startswith(f"env:{word}_") or reference == DEMO_UPSTREAM
        assert not secret.optional


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_removes_what_it_puts_in(name: str) -> None:
    """The client's own value never travels beside the credential, in header or query."""
    settings = preset(name)
    for strategy in settings.auth:
        for placement in (*(strategy.http or ()), *(strategy.websocket or ())):
            if isinstance(placement, HeaderPlacement):
                assert placement.header in settings.strip.headers
            else:
                assert isinstance(placement, QueryPlacement)
                assert placement.query in settings.strip.query


@pytest.mark.parametrize("name", NAMES)
def test_the_call_that_verifies_is_not_denied(name: str) -> None:
    """Doctor's call passes the rules of its own route."""
    settings = preset(name)
    if settings.verify is not None:
        method, _, target = settings.verify.partition(" ")
        assert not compile_patterns(settings.deny).catches(method, target.partition("?")[0])


@pytest.mark.parametrize(
    ("name", "method", "path"),
    [
        ("hume", "POST", "/oauth2-cc/token"),
        ("inworld", "POST", "/auth/v1/tokens"),
        ("inworld", "POST", "/auth/v1/tokens/token:generate"),
        ("inworld", "POST", "/v1/sessionTokens/token:generate"),
        ("inworld", "POST", "/V1/sessiontokens/token%3Agenerate"),
    ],
)
def test_clients_cannot_mint_credentials(name: str, method: str, path: str) -> None:
    """The providers' own token endpoints are closed to clients."""
    assert compile_patterns(preset(name).deny).catches(method, path)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("hume", "/v0/tts/stream/json"),
        ("inworld", "/tts/v1/voice:stream"),
        ("inworld", "/api/v1/realtime/session"),
        ("inworld", "/v1/realtime/calls"),
    ],
)
def test_ordinary_calls_are_not_denied(name: str, path: str) -> None:
    """What the SDKs call passes."""
    assert not compile_patterns(preset(name).deny).catches("POST", path)


def test_a_session_name_is_no_credential() -> None:
    """Inworld's realtime sockets need the query parameter ``key``, so it is left alone."""
    assert "key" not in preset("inworld").strip.query
    assert preset("inworld").strip.subprotocols == ("bearer_",)


def test_presets_do_not_say_where_a_route_is() -> None:
    """Place and listener are the route's business, also in presets of the user's own."""
    made = read_preset("upstream: https://a.example\nlisten: 127.0.0.1:1\npath: /x\n", "p.yaml")
    assert [str(finding).splitlines()[0] for finding in made.document.findings] == [
        'p.yaml:3:1: "path" has no place in a preset',
        'p.yaml:2:1: "listen" has no place in a preset',
    ]


def test_a_preset_that_says_nothing_is_a_finding() -> None:
    """Null is no preset."""
    assert "expected a mapping" in str(read_preset("~", "p.yaml").document.findings[0])
