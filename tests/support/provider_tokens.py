"""Values of the kinds that providers give out, and token endpoints that check their call."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from proxy.auth.strategy import AuthContext
from proxy.clock import SystemClock
from proxy.config.route import RouteSettings
from proxy.routing.route_secrets import ResolvedSecrets
from proxy.secrets.secret import Secret
from tests.support.provider_facts import TOKEN, basic

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
async def auth_context() -> AsyncIterator[AuthContext]:
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
