"""The presets that ship, each held to what its provider documents.

The tables here say it a second time, in words of their own; comments in the presets say where from.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jwt
import pytest
import yaml
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import proxy
from proxy.auth.strategy import AuthContext
from proxy.clock import SystemClock
from proxy.config.placement import BasicPlacement, HeaderPlacement, PathPlacement, QueryPlacement
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
from proxy.routing.route_secrets import ResolvedSecrets
from proxy.secrets.secret import Secret

ROOT = Path(proxy.__file__).parent.parent
FOLDER = ROOT / "proxy" / "providers"
NAMES = sorted(presets())
FOREIGN = "dummy-client"  # whatever a client brings along as a credential has this in it
TOKEN = "dummy-token-of-the-endpoint"
JWT = "eyJhbGciOiJub25lIn0.eyJkdW1teS1jbGllbnQiOjF9."

# What leaves: HTTP and WebSocket, by strategy. In braces a secret; "?" begins a query parameter,
# "/" a path, "Basic" what is still to be encoded.
Sent = Mapping[str, tuple[str | None, str | None]]
BEARER = "Authorization: Bearer {api_key}"
TOKEN_BEARER = "Authorization: Bearer {token}"
HTTP_BEARER: Sent = {"api_key": (BEARER, None)}
BOTH_BEARER: Sent = {"api_key": (BEARER, BEARER)}


def both(sent: str) -> tuple[str, str]:
    return (sent, sent)


SENT: dict[str, Sent] = {
    "aigne-hub": HTTP_BEARER,
    "anthropic": {"api_key": ("x-api-key: {api_key}", None)},
    "assemblyai": {"api_key": ("Authorization: {api_key}", None)},
    "assemblyai-agents": BOTH_BEARER,
    "assemblyai-dictation": {"api_key": ("Authorization: {api_key}", None)},
    "assemblyai-llm-gateway": {"api_key": ("Authorization: {api_key}", None)},
    "assemblyai-streaming": {"api_key": both("Authorization: {api_key}")},
    "assemblyai-sync": {"api_key": ("Authorization: {api_key}", None)},
    "assemblyai-tts": {"api_key": both("Authorization: {api_key}")},
    "azure-openai": {"api_key": both("api-key: {api_key}"), "entra": both(TOKEN_BEARER)},
    "azure-speech": {"api_key": both("Ocp-Apim-Subscription-Key: {api_key}")},
    "camb": {"api_key": both("x-api-key: {api_key}")},
    "camb-realtime": {"api_key": both("x-api-key: {api_key}")},
    "cartesia": BOTH_BEARER,
    "cohere": HTTP_BEARER,
    "deepgram": {"api_key": both("Authorization: Token {api_key}")},
    "deepgram-agent": {"api_key": both("Authorization: Token {api_key}")},
    "deepseek": HTTP_BEARER,
    "demo": {"key": ("X-Demo-Key: {key}", "?demo_key={key}")},
    "discord": {"bot_token": ("Authorization: Bot {bot_token}", None)},
    "elevenlabs": {"api_key": both("xi-api-key: {api_key}")},
    "fireworks": HTTP_BEARER,
    "gemini": {"api_key": ("x-goog-api-key: {api_key}", "?key={api_key}")},
    "github": {"token": ("Authorization: Bearer {access_token}", None)},
    "github-app": {"installation": (TOKEN_BEARER, None)},
    "gladia": {"api_key": ("x-gladia-key: {api_key}", None)},
    "google-service-account": {"token": both(TOKEN_BEARER)},
    "groq": HTTP_BEARER,
    "home-assistant": {"access_token": ("Authorization: Bearer {access_token}", None)},
    "huggingface": HTTP_BEARER,
    "huggingface-inference": HTTP_BEARER,
    "hume": {
        "token": (TOKEN_BEARER, "?access_token={token}"),
        "api_key": ("X-Hume-Api-Key: {api_key}", "?api_key={api_key}"),
    },
    "inworld": {
        "session": both(TOKEN_BEARER),
        "api_key": both("Authorization: Basic {api_key}"),
    },
    "inworld-studio": {"api_key": ("Authorization: Basic {api_key}", None)},
    "lmnt": {"api_key": ("X-API-Key: {api_key}", None)},
    "mistral": BOTH_BEARER,
    "openai": BOTH_BEARER,
    "openrouter": HTTP_BEARER,
    "perplexity": HTTP_BEARER,
    "replicate": {"api_token": ("Authorization: Bearer {api_token}", None)},
    "rime": HTTP_BEARER,
    "rime-streaming": {"api_key": (None, BEARER)},
    "soniox": HTTP_BEARER,
    "soniox-stt": {"api_key": (None, BEARER)},
    "soniox-tts": BOTH_BEARER,
    "speechmatics": HTTP_BEARER,
    "speechmatics-rt": {"api_key": (None, BEARER)},
    "spotify": {"token": (TOKEN_BEARER, None)},
    "stripe": HTTP_BEARER,
    "telegram": {"bot_token": ("/bot{bot_token}", None)},
    "together": HTTP_BEARER,
    "twilio": {
        "api_key": ("Basic {api_key}:{api_key_secret}", None),
        "account": ("Basic {account_sid}:{auth_token}", None),
    },
    "xai": BOTH_BEARER,
}

# Credentials in uncommon places that the provider's own clients bring along: query parameters …
QUERY: dict[str, tuple[str, ...]] = {
    "assemblyai-streaming": ("token",),
    "assemblyai-agents": ("token",),
    "assemblyai-tts": ("token",),
    "azure-openai": ("Authorization", "api-key"),
    "azure-speech": ("Ocp-Apim-Subscription-Key", "Authorization"),
    "cartesia": ("access_token", "api_key"),
    "elevenlabs": ("single_use_token", "token", "conversation_signature", "xi-api-key"),
    "gemini": ("key", "access_token"),
    "google-service-account": ("key", "access_token"),
    "hume": ("apiKey", "accessToken", "apikey"),
    "home-assistant": ("authSig", "token"),
    "speechmatics-rt": ("jwt",),
}
# … and subprotocols: what is offered, and what of it passes.
OFFERED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "deepgram": (("token", FOREIGN), ()),
    "deepgram-agent": (("bearer", FOREIGN), ()),
    "elevenlabs": (("convai", f"bearer.{FOREIGN}"), ("convai",)),
    "inworld": (("bearer", JWT, f"bearer_{FOREIGN}"), ()),
    "mistral": (("realtime", f"rt_{FOREIGN}"), ("realtime",)),
    "openai": (("realtime", f"openai-insecure-api-key.{FOREIGN}"), ("realtime",)),
    "soniox-stt": (("soniox-api-key", FOREIGN), ()),
    "soniox-tts": (("soniox-api-key", FOREIGN), ()),
    "xai": (("realtime", f"xai-client-secret.{FOREIGN}"), ("realtime",)),
}
WELL_KNOWN = (
    *("Authorization", "Cookie", "X-Api-Key", "api-key", "x-goog-api-key", "xi-api-key"),
    *("X-Session-Token", "X-Api-Token", "x-gladia-key"),
)

MINTING = Path(__file__).parent / "minting.yaml"
"""Calls that return or mint a credential, by preset; the file explains its fields."""

# What is near to those and has to pass.
CALLS: dict[str, tuple[str, ...]] = {
    "azure-openai": ("GET /openai/realtime", "POST /openai/deployments/d/chat/completions"),
    "deepgram": ("GET /v1/listen", "GET /v1/projects/p/usage"),
    "discord": (
        "POST /api/v10/channels/c/messages",
        "POST /api/v10/webhooks/w/dummy-token-in-the-path",
        "POST /api/v10/interactions/i/t/callback",
    ),
    "elevenlabs": ("GET /v1/convai/conversation", "GET /v1/text-to-speech/v/stream-input"),
    "github": ("POST /repos/a/b/issues", "GET /user/keys"),
    "google-service-account": ("POST /v1/projects/p/locations/l/endpoints/e:predict",),
    "hume": ("POST /v0/tts/stream/json",),
    "gladia": ("POST /v2/live", "POST /v2/pre-recorded"),
    "mistral": ("GET /v1/audio/sessions/s", "GET /v1/webhooks"),
    "openrouter": ("GET /api/v1/key", "POST /api/v1/chat/completions"),
    "together": ("GET /v1/compute/clusters/storage/volumes", "POST /v1/chat/completions"),
    "xai": ("GET /v1/realtime",),
    "inworld": (
        "POST /tts/v1/voice:stream",
        "GET /api/v1/realtime/session",
        "POST /v1/realtime/calls",
    ),
    "openai": ("GET /v1/realtime", "POST /v1/realtime/calls", "POST /v1/responses"),
    "stripe": ("POST /v1/payment_intents",),
    "twilio": ("POST /2010-04-01/Accounts/AC1/Messages.json",),
}

# Whose address only the user knows.
WITHOUT_UPSTREAM = {
    "azure-openai": "https://dummy.openai.azure.com",
    "azure-speech": "https://dummy.stt.speech.microsoft.com",
    "google-service-account": "https://aiplatform.googleapis.com",
    "home-assistant": "https://home.example.org",
}


# --- secrets ----------------------------------------------------------------------------------


@functools.cache
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@functools.cache
def pem() -> str:
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private_key().private_bytes(*form).decode()


def dummy(provider: str, secret: str) -> bytes:
    """A value of the kind that the provider gives out."""
    match provider, secret:
        case "github-app", "private_key":
            return pem().encode()
        case "google-service-account", "service_account":
            account = {
                "type": "service_account",
                "client_email": "dummy@dummy.iam.gserviceaccount.com",
                "private_key_id": "dummy-private-key-id",
                "private_key": pem(),
            }
            return json.dumps(account, indent=2).encode()
        case "inworld", "api_key":
            return base64.b64encode(b"dummy-inworld-key:dummy-inworld-secret")
    return f"dummy-{secret.replace('_', '-')}-for-{provider}".encode()


def these(settings: RouteSettings, values: Mapping[str, bytes]) -> ResolvedSecrets:
    """Only these secrets are there."""
    return ResolvedSecrets(
        {name: (Secret(name, values[name]),) for name in settings.secrets if name in values},
        {name: "set it" for name in settings.secrets if name not in values},
    )


# --- token endpoints --------------------------------------------------------------------------


@dataclass
class Asked:
    """A request that the token endpoint got."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: str

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body, strict_parsing=True))


@dataclass
class TokenEndpoint:
    """``answer`` is the JSON with which it answers, None to refuse by quoting what was asked."""

    origin: str = ""
    answer: Mapping[str, Any] | None = None
    asked: list[Asked] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.text()
        self.asked.append(Asked(request.method, request.path, request.headers.copy(), body))
        if self.answer is None:
            quoted = {"error": "invalid_client", "quoted": [body, *request.headers.values()]}
            return web.json_response(quoted, status=401)
        return web.json_response(self.answer)


@asynccontextmanager
async def token_endpoint() -> AsyncIterator[TokenEndpoint]:
    endpoint = TokenEndpoint()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", endpoint.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        endpoint.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield endpoint
    finally:
        await runner.cleanup()


@asynccontextmanager
async def means() -> AsyncIterator[AuthContext]:
    tasks: set[asyncio.Task[None]] = set()

    def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        return task

    try:
        yield AuthContext(SystemClock(), ssl.create_default_context(), spawn)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def basic(user: bytes, password: bytes) -> str:
    return "Basic " + base64.b64encode(user + b":" + password).decode()


def check_basic(asked: Asked, user: bytes, password: bytes) -> None:
    assert asked.headers["Authorization"] == basic(user, password)
    assert asked.form == {"grant_type": "client_credentials"}


def check_hume(asked: Asked, values: Mapping[str, bytes]) -> None:
    check_basic(asked, values["api_key"], values["secret_key"])


def check_spotify(asked: Asked, values: Mapping[str, bytes]) -> None:
    check_basic(asked, values["client_id"], values["client_secret"])


def check_entra(asked: Asked, values: Mapping[str, bytes]) -> None:
    assert "Authorization" not in asked.headers
    assert asked.form == {
        "grant_type": "client_credentials",
        "client_id": values["client_id"].decode(),
        "client_secret": values["client_secret"].decode(),
        "scope": "https://cognitiveservices.azure.com/.default",
    }


def signed(text: str, **more: Any) -> dict[str, Any]:
    """The claims of a JWT of the dummy key. ``iat``, ``exp`` and the signature are right."""
    claims: dict[str, Any] = jwt.decode(text, private_key().public_key(), ["RS256"], **more)
    return claims


def check_google(asked: Asked, _: Mapping[str, bytes]) -> None:
    form = asked.form
    assert form.keys() == {"grant_type", "assertion"}
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert jwt.get_unverified_header(form["assertion"])["kid"] == "dummy-private-key-id"
    claims = signed(form["assertion"], audience="https://oauth2.googleapis.com/token")
    assert claims["iss"] == "dummy@dummy.iam.gserviceaccount.com"
    assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
    assert claims["exp"] - claims["iat"] <= 3600


def check_github_app(asked: Asked, values: Mapping[str, bytes]) -> None:
    assert asked.headers["Accept"] == "application/vnd.github+json"
    assert asked.headers["User-Agent"] == "keyrelay"
    scheme, _, assertion = asked.headers["Authorization"].partition(" ")
    assert scheme == "Bearer"
    claims = signed(assertion)
    assert claims["iss"] == values["client_id"].decode()
    assert claims["exp"] - claims["iat"] <= 600


def check_inworld(asked: Asked, _: Mapping[str, bytes]) -> None:
    assert asked.headers["Authorization"].startswith("IW1-HMAC-SHA256 ApiKey=dummy-inworld-key,")
    assert json.loads(asked.body) == {"api_key": "dummy-inworld-key"}


@dataclass(frozen=True, slots=True)
class Documented:
    """A token call by the provider's documentation. In braces of ``url`` a secret."""

    url: str
    check: Callable[[Asked, Mapping[str, bytes]], None]
    answer: Mapping[str, Any]


OAUTH2 = {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 3600}
SOON = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
TOKENS: dict[tuple[str, str], Documented] = {
    ("azure-openai", "entra"): Documented(
        "https://login.microsoftonline.com/{tenant_id}/oauth2/v2.0/token", check_entra, OAUTH2
    ),
    ("github-app", "installation"): Documented(
        "https://api.github.com/app/installations/{installation_id}/access_tokens",
        check_github_app,
        {"token": TOKEN, "expires_at": SOON, "permissions": {}},
    ),
    ("google-service-account", "token"): Documented(
        "https://oauth2.googleapis.com/token", check_google, OAUTH2
    ),
    ("hume", "token"): Documented(
        "https://api.hume.ai/oauth2-cc/token", check_hume, {**OAUTH2, "issued_at": 1}
    ),
    ("inworld", "session"): Documented(
        "https://api.inworld.ai/v1/sessionTokens/token:generate",
        check_inworld,
        {"token": TOKEN, "expirationTime": SOON},
    ),
    ("spotify", "token"): Documented(
        "https://accounts.spotify.com/api/token", check_spotify, OAUTH2
    ),
}


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
        case _:
            lines.append(credential)
    head = [f"GET {base}{path}?{query} HTTP/1.1", f"Host: {origin.authority}", *lines]
    return "".join(f"{line}\r\n" for line in [*head, ""]).encode()


def assert_silent(values: Iterable[bytes], *things: object) -> None:
    """None of the things shows a value, or a line of one, however it is printed."""
    pieces = {piece for value in values for piece in re.split(r"\n|\\n", value.decode())}
    for thing in things:
        for text in (repr(thing), str(thing), f"{thing}", f"{thing!r:>5}"):
            assert not [piece for piece in pieces if len(piece) > 8 and piece in text]


@functools.cache
def minting() -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = yaml.safe_load(MINTING.read_text(encoding="utf-8"))
    return entries


def spellings(path: str) -> list[str]:
    """The path as clients and servers may spell it; each addresses the same call somewhere."""
    letter = re.search(r"[a-z](?!.*[a-z])", path)
    assert letter is not None
    encoded = f"{path[: letter.start()]}%{ord(letter[0]):02x}{path[letter.end() :]}"
    last = path.rindex("/")
    return [
        path,
        path.upper(),
        f"{path}/",
        f"/{path}",
        f"{path[:last]}/{path[last:]}",
        encoded,
        encoded.replace("%", "%25"),
        f"{path[:last]}%2F{path[last + 1 :]}" if last else f"{encoded}/",
        f"{path};v=1",
    ]


def check_rules(name: str, settings: RouteSettings, route: Route) -> None:
    """Minting is denied, in any spelling and by no idle pattern; verifying and calling are not."""
    mints = [one.split(" ") for one in minting()[name].get("calls", ())]
    for method, path in mints:
        for spelt in spellings(path):
            with pytest.raises(Refusal) as refused:
                route.admit(Request.of(method, f"/{name}{spelt}", []), spelt.encode())
            expected_kinds = {"path-not-allowed"} | ({"bad-target"} if spelt[:2] == "//" else set())
            assert refused.value.kind in expected_kinds, spelt
    for pattern in settings.deny:
        assert any(PatternSet([pattern]).catches(*one) for one in mints), pattern
    calls = [*CALLS.get(name, ()), *([settings.verify] if settings.verify else [])]
    for method, _, target in (one.partition(" ") for one in calls):
        received = Request.of(method, target, [])
        assert route.admit(received, received.path) in route.strategies


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
                route.admit(received, path.encode())
            assert refused.value.kind == "no-strategy"
            continue
        found = route.admit(received, path.encode())
        assert found.name == strategy.name
        injection = await found.obtain(websocket=websocket)
        outgoing = UpstreamRequest(received, path.encode(), route.rules)
        every = {**values, "token": TOKEN.encode()}
        assert outgoing.render(injection) == expected(sent, upstream, path, kept, every)
        assert outgoing.kept_subprotocols == stayed
        printed = (route, *route.strategies, settings, injection, outgoing, received)
        assert_silent(every.values(), *printed, found.describe())


async def check_token(name: str, settings: RouteSettings, strategy: StrategySettings) -> None:
    """The token is asked for as documented, at a real endpoint, and a refusal quotes nothing."""
    assert strategy.token is not None
    documented = TOKENS[name, strategy.name or ""]
    own = getattr(strategy.token, "url", urlsplit(documented.url).path)
    upstream = settings.upstream or WITHOUT_UPSTREAM[name]
    assert (upstream + own if own.startswith("/") else own) == documented.url
    values = {one: dummy(name, one) for one in strategy.secret_names}
    async with token_endpoint() as endpoint, means() as given:
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
            await found.obtain(websocket=False)
        error = refused.value
        printed = (error, error.detail, error.advice, error.headers, error.log_detail)
        assert_silent(values.values(), *printed, found.describe(), route)


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
    for table in (QUERY, OFFERED, minting(), CALLS, WITHOUT_UPSTREAM):
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


# --- what a command gets ----------------------------------------------------------------------

# Variables for base URLs that official SDKs read, with what each expects.
BASE_URLS: dict[str, Mapping[str, str]] = {
    "aigne-hub": {"AIGNE_HUB_API_URL": "{base}", "BLOCKLET_AIGNE_API_URL": "{base}"},
    "anthropic": {"ANTHROPIC_BASE_URL": "{base}"},
    "assemblyai": {"ASSEMBLYAI_BASE_URL": "{base}"},
    "assemblyai-dictation": {"ASSEMBLYAI_DICTATION_BASE_URL": "{base}"},
    "assemblyai-llm-gateway": {"ASSEMBLYAI_LLM_GATEWAY_BASE_URL": "{base}"},
    "assemblyai-sync": {"ASSEMBLYAI_SYNC_BASE_URL": "{base}"},
    "assemblyai-tts": {"ASSEMBLYAI_TTS_BASE_URL": "{base}"},
    "azure-openai": {"AZURE_OPENAI_ENDPOINT": "{base}"},
    "cartesia": {"CARTESIA_BASE_URL": "{base}"},
    "cohere": {"CO_API_URL": "{base}"},
    "fireworks": {
        "FIREWORKS_BASE_URL": "{base}/inference",
        "FIREWORKS_TRAINER_GATEWAY_URL": "{base}",
        "TINKER_BASE_URL": "{base}/training/v1/serverless",
    },
    "gemini": {"GOOGLE_GEMINI_BASE_URL": "{base}"},
    "github": {"GITHUB_API_URL": "{base}", "GITHUB_GRAPHQL_URL": "{base}/graphql"},
    "github-app": {"GITHUB_API_URL": "{base}", "GITHUB_GRAPHQL_URL": "{base}/graphql"},
    "gladia": {"GLADIA_API_URL": "{base}"},
    "groq": {"GROQ_BASE_URL": "{base}"},
    "home-assistant": {"HASS_SERVER": "{base}"},
    "huggingface": {"HF_ENDPOINT": "{base}", "HF_HUB_DISABLE_XET": "1"},
    "hume": {"HUME_BASE_URL": "{base}"},
    "inworld": {"INWORLD_BASE_URL": "{base}"},
    "lmnt": {"LMNT_BASE_URL": "{base}"},
    "mistral": {"MISTRAL_AUDIO_BASE_URL": "{base}"},
    "openai": {"OPENAI_BASE_URL": "{base}/v1", "OPENAI_API_BASE": "{base}/v1"},
    "perplexity": {"PERPLEXITY_BASE_URL": "{base}"},
    "replicate": {"REPLICATE_BASE_URL": "{base}"},
    "soniox": {"SONIOX_API_BASE_URL": "{base}"},
    "soniox-stt": {"SONIOX_WS_URL": "{base}/transcribe-websocket"},
    "soniox-tts": {
        "SONIOX_TTS_API_URL": "{base}",
        "SONIOX_TTS_WS_URL": "{base}/tts-websocket",
    },
    "speechmatics": {"SPEECHMATICS_BATCH_URL": "{base}/v2"},
    "speechmatics-rt": {"SPEECHMATICS_RT_URL": "{ws_base}/v2"},
    "together": {"TOGETHER_BASE_URL": "{base}", "TOGETHER_API_BASE_URL": "{base}/v1"},
}
# Names of one key, beside the first, that clients read.
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "aigne-hub": ("BLOCKLET_AIGNE_API_CREDENTIAL",),
    "azure-openai": ("AZURE_API_KEY",),
    "cohere": ("COHERE_API_KEY",),
    "elevenlabs": ("ELEVEN_API_KEY",),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_GENERATIVE_AI_API_KEY", "GOOGLE_GENAI_API_KEY"),
    "github": ("GH_TOKEN",),
    "huggingface": ("HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_API_KEY"),
    "replicate": ("REPLICATE_API_KEY",),
    "stripe": ("STRIPE_SECRET_KEY",),
    "together": ("TOGETHER_AI_API_KEY",),
    "twilio": ("TWILIO_API_SECRET",),
}
# What clients check in a key before they send it.
CHECKED: dict[tuple[str, str], str] = {
    ("anthropic", "api_key"): r"sk-ant-",
    ("elevenlabs", "api_key"): r"sk_",
    ("huggingface", "api_key"): r"hf_",
    ("huggingface-inference", "api_key"): r"hf_",
    ("inworld", "api_key"): r"[A-Za-z0-9+/]+={0,2}\Z",
    ("openai", "api_key"): r"sk-",
    ("stripe", "api_key"): r"sk_test_",
    ("telegram", "bot_token"): r"\d+:",
    ("twilio", "account_sid"): r"AC[0-9a-f]{32}\Z",
    ("twilio", "api_key"): r"SK[0-9a-f]{32}\Z",
}


def test_base_urls_are_set_as_the_sdks_expect_them() -> None:
    """Every variable that an official SDK reads for a base URL, and no other."""
    found = {name: dict(one.environment) for name, one in presets().items() if one.environment}
    assert found == BASE_URLS


def test_a_key_is_known_under_every_name() -> None:
    """Each is a source of the secret, so each is removed from a command's environment too."""
    for name, others in OTHER_NAMES.items():
        references = {one for each in presets()[name].secrets.values() for one in each.references}
        assert references >= {f"env:{other}" for other in others}, name


@pytest.mark.parametrize("name", NAMES)
def test_placeholders_are_no_keys(name: str) -> None:
    """A placeholder has the form that clients check, and says that it is none."""
    for secret, source in presets()[name].secrets.items():
        if (placeholder := source.placeholder) is None:
            assert source.multiline or name == "azure-openai"
            continue
        assert re.match(CHECKED.get((name, secret), ""), placeholder), secret
        assert "unused" in (placeholder, *re.split(r"[-_:]", placeholder)) or (
            set(placeholder[2:]) == {"0"} or base64.b64decode(placeholder) == b"unused:unused"
        )


def test_tokens_beside_the_key_are_withheld() -> None:
    """Variables with credentials of another kind are removed, and are no sources of the key."""
    found = {name: one.withhold for name, one in presets().items() if one.withhold}
    assert found == {
        "anthropic": (
            "ANTHROPIC_AUTH_TOKEN",
            "ANTHROPIC_IDENTITY_TOKEN",
            "ANTHROPIC_ENVIRONMENT_KEY",
            "ANTHROPIC_WORK_SECRET",
        ),
        "azure-openai": ("AZURE_OPENAI_AD_TOKEN",),
        "gemini": ("GOOGLE_GENAI_ACCESS_TOKEN",),
        "openai": ("OPENAI_ADMIN_KEY",),
        "xai": ("XAI_MANAGEMENT_KEY",),
    }


# --- the catalogue ----------------------------------------------------------------------------


def shown(placement: object) -> str:
    match placement:
        case HeaderPlacement():
            return f"`{placement.header}: {placement.value}`"
        case QueryPlacement():
            return f"`?{placement.query}={placement.value}`"
        case PathPlacement():
            return f"`{placement.path}`"
        case BasicPlacement():
            return f"Basic `{placement.basic.username}:{placement.basic.password}`"
    raise AssertionError(f"the catalogue has no word for {placement!r}")


def row(name: str) -> list[str]:
    """The cells of a preset in the catalogue, but for its notes."""
    settings = presets()[name]

    def ways(kind: str) -> str:
        found = [
            (f"{one.name}: " if len(settings.auth) > 1 else "") + " ".join(map(shown, placements))
            for one in settings.auth
            if (placements := getattr(one, kind))
        ]
        return "; ".join(found) or "-"

    secrets = ", ".join(
        " or ".join(f"`{one.removeprefix('env:')}`" for one in source.references)
        + (" (optional)" if source.optional else "")
        for source in settings.secrets.values()
    )
    tokens = ", ".join(f"`{one.token.type}`" for one in settings.auth if one.token) or "-"
    docs = f"[page]({settings.docs})" if settings.docs else "-"
    return [
        f"`{name}`",
        settings.title or "",
        secrets,
        ways("http"),
        ways("websocket"),
        tokens,
        docs,
    ]


def test_the_catalogue_is_complete_and_current() -> None:
    """Every preset has its line in docs/catalogue.md, in order, and says what the preset does."""
    text = (ROOT / "docs" / "catalogue.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    found = [[cell.strip() for cell in line.strip("|").split("|")][:7] for line in lines]
    assert found == [row(name) for name in NAMES]


# --- presets in general -----------------------------------------------------------------------


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
