"""Tests of auth/minting.py: each token type as a server on the other side sees its call."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from proxy.auth.strategy import AuthContext
from proxy.auth.token import TokenError, TokenSource
from proxy.auth.tokens.factory import make_source
from proxy.auth.tokens.inputs import SourceInputs
from proxy.config.route import StrategySettings
from proxy.upstream.tls import tls_context
from tests.emulators.signature import DOCUMENTED_MINT, SAMPLE_MINT, SignatureCheck
from tests.support.clock import ManualClock
from tests.support.keyrelay import raw_provider, read_head
from tests.support.signing_keys import key_for

NOW = 1_800_000_000.0
# What each call says beside its own: who is asked, and that nothing but JSON is of use.
COMMON = ["accept", "accept-encoding", "connection", "host", "user-agent"]
FORM = "application/x-www-form-urlencoded"
ODD = {"id": "dummy:i%+é d".encode(), "secret": "a:b%+é&=/".encode()}

KEYS = {name: key_for(name) for name in ("RS256", "PS384", "ES256", "ES512", "EdDSA")}
SHARED = b"dummy-shared-secret-" + b"x" * 44


def pem(private: Any) -> bytes:
    return bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as it came in; names of headers in lower case."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        """The value of a header that must be there exactly once."""
        (value,) = [value for one, value in self.headers if one == name]
        return value

    @property
    def own(self) -> list[str]:
        """Which headers it has beside those that every call has, in order of the alphabet."""
        names = sorted(name for name, _ in self.headers)
        for one in COMMON:
            names.remove(one)
        return names

    @property
    def form(self) -> dict[str, str]:
        assert self.header("content-type") == FORM
        pairs = parse_qsl(self.body.decode("ascii"), strict_parsing=True, keep_blank_values=True)
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)


@dataclass(frozen=True, slots=True)
class Server:
    """A token endpoint: where it is, and what it was asked."""

    url: str
    asked: list[Asked]


@asynccontextmanager
async def token_server(
    answer: Mapping[str, Any] | None = None, status: str = "200 OK"
) -> AsyncIterator[Server]:
    """Responds with ``answer``; by default an OAuth 2.0 token for a minute."""
    document = {"access_token": "dummy-token", "token_type": "Bearer", "expires_in": 60}
    said = json.dumps(document if answer is None else answer).encode()
    asked: list[Asked] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await read_head(reader)).decode("latin-1").split("\r\n")
        method, target, version = lines[0].split(" ")
        assert version == "HTTP/1.1"
        headers = [
            (name.lower(), value.strip())
            for name, _, value in (line.partition(":") for line in lines[1:] if line)
        ]
        body = await reader.readexactly(int(dict(headers).get("content-length", 0)))
        asked.append(Asked(method, target, headers, body))
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json; charset=utf-8\r\n"
            f"Content-Length: {len(said)}\r\n\r\n".encode()
            + said
        )
        await writer.drain()

    async with raw_provider(serve) as provider:
        yield Server(provider.url, asked)


def mint_of(
    token: dict[str, Any], values: Mapping[str, bytes], base: str = "https://unused.invalid"
) -> TokenSource:
    """The mint that these settings make, with these secrets."""

    def spawn(_: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        raise AssertionError("a mint starts nothing by itself")

    strategy = StrategySettings.model_validate(
        {"token": token, "http": {"header": "Authorization", "value": "Bearer {token}"}}
    )
    assert strategy.token is not None
    assert strategy.secret_names <= values.keys()
    means = AuthContext(ManualClock(wall=NOW), tls_context(), spawn)
    return make_source(strategy.token, SourceInputs(values, base), means)


async def call_of(
    token: dict[str, Any], values: Mapping[str, bytes], *, path: str = "/token"
) -> Asked:
    """The one call by which a token is had whose ``url`` is this path of a server's."""
    async with token_server() as server:
        minted = await mint_of({**token, "url": server.url + path}, values).fetch()
        assert (minted.value, minted.lifetime_seconds) == (b"dummy-token", 60)
    (asked,) = server.asked
    assert asked.header("host") == server.url.removeprefix("http://")
    return asked


def decoded(token: str, algorithm: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a JWT whose signature is right; its times are the manual clock's."""
    key = SHARED if algorithm.startswith("HS") else KEYS[algorithm].public_key()
    unchecked = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
    claims = jwt.decode(token, key, [algorithm], options=unchecked)  # type: ignore[arg-type]
    return jwt.get_unverified_header(token), claims


# -- oauth2_client_credentials --------------------------------------------------------------------

CLIENT = {
    "type": "oauth2_client_credentials",
    "client_id": "{id}",
    "client_secret": "{secret}",
}


async def test_client_credentials_by_basic() -> None:
    """RFC 6749 sections 2.3.1 and 4.4: id and secret form-encoded before Base64, only there."""
    asked = await call_of(CLIENT, ODD)
    assert (asked.method, asked.target) == ("POST", "/token")
    assert asked.own == ["authorization", "content-length", "content-type"]
    assert asked.header("accept") == "application/json"
    assert asked.header("accept-encoding") == "identity"
    assert asked.form == {"grant_type": "client_credentials"}
    scheme, _, coded = asked.header("authorization").partition(" ")
    assert scheme == "Basic"
    pair = base64.b64decode(coded, validate=True).decode("ascii")
    assert pair.count(":") == 1
    assert [unquote_plus(one).encode() for one in pair.split(":")] == [ODD["id"], ODD["secret"]]


async def test_client_credentials_by_form() -> None:
    """For servers that want it so: both in the body, byte for byte, and no Authorization."""
    asked = await call_of({**CLIENT, "client_auth": "form"}, ODD)
    assert asked.own == ["content-length", "content-type"]
    assert asked.form == {
        "grant_type": "client_credentials",
        "client_id": ODD["id"].decode(),
        "client_secret": ODD["secret"].decode(),
    }


@pytest.mark.parametrize("client_auth", ["basic", "form"])
async def test_scope_and_audience(client_auth: str) -> None:
    """Both are form fields; secrets may stand in them."""
    token = {
        **CLIENT,
        "client_auth": client_auth,
        "scope": "read write:{secret}",
        "audience": "https://api.example/?a=b&c",
    }
    asked = await call_of(token, ODD)
    assert asked.form["scope"] == f"read write:{ODD['secret'].decode()}"
    assert asked.form["audience"] == "https://api.example/?a=b&c"


# -- oauth2_refresh_token -------------------------------------------------------------------------


@pytest.mark.parametrize("client_auth", ["basic", "form"])
async def test_refresh_tokens(client_auth: str) -> None:
    """RFC 6749 section 6, with the client authenticated in the same two ways."""
    token = {
        **CLIENT,
        "type": "oauth2_refresh_token",
        "client_auth": client_auth,
        "refresh_token": "{refresh}",
        "scope": "a b",
    }
    asked = await call_of(token, {**ODD, "refresh": b"1//dummy+refresh="})
    common = {"grant_type": "refresh_token", "refresh_token": "1//dummy+refresh=", "scope": "a b"}
    if client_auth == "basic":
        assert asked.form == common
        assert asked.header("authorization").startswith("Basic ")
    else:
        client = {"client_id": ODD["id"].decode(), "client_secret": ODD["secret"].decode()}
        assert asked.form == common | client
        assert "authorization" not in asked.own


async def test_refresh_tokens_of_public_clients() -> None:
    """Without a secret the client is named in the form alone."""
    token = {"type": "oauth2_refresh_token", "refresh_token": "{refresh}", "client_id": "{id}"}
    asked = await call_of(token, {"id": b"dummy-id", "refresh": b"dummy-refresh"})
    assert asked.own == ["content-length", "content-type"]
    assert asked.form == {
        "grant_type": "refresh_token",
        "refresh_token": "dummy-refresh",
        "client_id": "dummy-id",
    }


async def test_replaced_refresh_tokens_are_kept(tmp_path: Path) -> None:
    """The settings' ``store`` is where the newest one lies, also for the next process."""
    store = tmp_path / "newest"
    token = {
        "type": "oauth2_refresh_token",
        "refresh_token": "{refresh}",
        "client_id": "dummy-id",
        "store": str(store),
    }
    answer = {"access_token": "dummy-token", "refresh_token": "dummy-newer", "expires_in": 0.1}
    values = {"refresh": b"dummy-first"}
    async with token_server(answer) as server:
        for _ in range(2):
            minted = await mint_of({**token, "url": f"{server.url}/"}, values).fetch()
            assert (minted.value, minted.lifetime_seconds) == (b"dummy-token", 0.1)
    assert [asked.form["refresh_token"] for asked in server.asked] == ["dummy-first", "dummy-newer"]
    assert store.stat().st_mode & 0o777 == 0o600


# -- jwt ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["HS256", "HS512", *KEYS])
async def test_a_jwt_that_is_the_token(algorithm: str) -> None:
    """Signed here by the algorithm of the settings, with their claims; no request is sent."""
    token = {
        "type": "jwt",
        "algorithm": algorithm,
        "key": "{key}",
        "key_id": "kid-{name}",
        "header_type": "at+jwt",
        "claims": {
            "iss": "{name}",
            "aud": ["https://{name}.example", "b"],
            "video": {"room": "r-{name}", "canPublish": True, "ttl": 5},
        },
        "valid_seconds": 120,
    }
    key = SHARED if algorithm.startswith("HS") else pem(KEYS[algorithm])
    minted = await mint_of(token, {"key": key, "name": b"dummy-name"}).fetch()
    header, claims = decoded(minted.value.decode(), algorithm)
    assert header == {"alg": algorithm, "typ": "at+jwt", "kid": "kid-dummy-name"}
    assert len(claims.pop("jti")) >= 16
    assert claims == {
        "iss": "dummy-name",
        "aud": ["https://dummy-name.example", "b"],
        "video": {"room": "r-dummy-name", "canPublish": True, "ttl": 5},
        "iat": NOW - 5,
        "exp": NOW - 5 + 120,
    }
    assert 110 < minted.lifetime_seconds <= 120


async def test_each_jwt_is_another() -> None:
    """Two of one mint differ, so that none is taken for a replay."""
    mint = mint_of({"type": "jwt", "algorithm": "HS256", "key": "{key}"}, {"key": SHARED})
    assert (await mint.fetch()).value != (await mint.fetch()).value


# -- jwt_bearer -----------------------------------------------------------------------------------

# As such files are written: on several lines, the key with its line breaks escaped.
ACCOUNT = json.dumps(
    {
        "type": "service_account",
        "project_id": "dummy project/1",
        "private_key_id": "dummy-key-id",
        "private_key": pem(KEYS["RS256"]).decode(),
        "client_email": "dummy@dummy-project.iam.example",
        "token_uri": "https://oauth2.example/token",
    },
    indent=2,
).encode()

SERVICE_ACCOUNT = {
    "type": "jwt_bearer",
    "algorithm": "RS256",
    "key": "{account.private_key}",
    "key_id": "{account.private_key_id}",
    "claims": {
        "iss": "{account.client_email}",
        "aud": "{account.token_uri}",
        "scope": "https://www.example/auth/cloud-platform",
    },
    "valid_seconds": 3600,
}


async def test_a_service_account() -> None:
    """RFC 7523 section 2.1, from a JSON file as clouds hand them out, on several lines."""
    assert ACCOUNT.count(b"\n") > 5
    asked = await call_of(SERVICE_ACCOUNT, {"account": ACCOUNT})
    assert (asked.method, asked.own) == ("POST", ["content-length", "content-type"])
    form = asked.form
    header, claims = decoded(form.pop("assertion"), "RS256")
    assert form == {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer"}
    assert header == {"alg": "RS256", "typ": "JWT", "kid": "dummy-key-id"}
    assert claims.pop("jti")
    assert claims == {
        "iss": "dummy@dummy-project.iam.example",
        "aud": "https://oauth2.example/token",
        "scope": "https://www.example/auth/cloud-platform",
        "iat": NOW - 5,
        "exp": NOW - 5 + 3600,
    }


async def test_an_assertion_with_a_scope() -> None:
    """Servers that want it as a form field get it there."""
    asked = await call_of({**SERVICE_ACCOUNT, "scope": "a b"}, {"account": ACCOUNT})
    assert asked.form["scope"] == "a b"


async def test_no_assertion_is_sent_twice() -> None:
    """Each call has one of its own: many servers remember ``jti``."""
    async with token_server() as server:
        mint = mint_of({**SERVICE_ACCOUNT, "url": server.url}, {"account": ACCOUNT})
        await mint.fetch()
        await mint.fetch()
    first, second = [asked.form["assertion"] for asked in server.asked]
    assert first != second


# -- request --------------------------------------------------------------------------------------


async def test_a_get_with_headers() -> None:
    """No body and no word about one; the key where the settings put it."""
    token = {
        "type": "request",
        "method": "GET",
        "headers": {"Authorization": "Token {key}", "X-Client": "c"},
    }
    asked = await call_of(token, {"key": "dümmy %+".encode()}, path="/v1/token?ttl=60")
    assert (asked.method, asked.target, asked.body) == ("GET", "/v1/token?ttl=60", b"")
    assert asked.own == ["authorization", "x-client"]
    assert asked.header("authorization").encode("latin-1").decode() == "Token dümmy %+"


async def test_a_post_without_a_body() -> None:
    """A POST says that its body is empty (RFC 9110 section 8.6)."""
    token = {"type": "request", "headers": {"X-Api-Key": "{key}"}}
    asked = await call_of(token, {"key": b"dummy"})
    assert (asked.method, asked.body) == ("POST", b"")
    assert asked.header("content-length") == "0"


async def test_a_post_with_a_form() -> None:
    """TokenFields are form-encoded, also the odd ones."""
    asked = await call_of(
        {"type": "request", "form": {"apikey": "{secret}", "grant type": "x=y&z"}}, ODD
    )
    assert asked.own == ["content-length", "content-type"]
    assert asked.form == {"apikey": ODD["secret"].decode(), "grant type": "x=y&z"}


async def test_a_post_with_json() -> None:
    """Texts in it are filled in however deep; nothing in a secret ends its string."""
    body = {"key": "{key}", "deep": [{"k": "a-{key}"}, 1, None, True, 2.5], "{key}": "{{}}"}
    asked = await call_of({"type": "request", "json": body}, {"key": b'"}\\dummy \xc3\xa9'})
    assert asked.own == ["content-length", "content-type"]
    assert asked.header("content-type") == "application/json"
    key = '"}\\dummy é'
    assert json.loads(asked.body) == {
        "key": key,
        "deep": [{"k": f"a-{key}"}, 1, None, True, 2.5],
        "{key}": "{}",
    }


async def test_headers_of_the_settings_come_first() -> None:
    """In any case: what a call would say by itself is replaced and not said a second time."""
    token = {
        "type": "request",
        "json": {},
        "headers": {
            "accept": "application/vnd.dummy+json",
            "CONTENT-TYPE": "application/vnd.dummy",
            "user-agent": "dummy-agent",
        },
    }
    asked = await call_of(token, {})
    assert asked.header("accept") == "application/vnd.dummy+json"
    assert asked.header("content-type") == "application/vnd.dummy"
    assert asked.header("user-agent") == "dummy-agent"


async def test_where_the_answer_has_the_token() -> None:
    """Dots lead into objects; the end may be a moment."""
    answer = {"client_secret": {"value": "ek_dummy", "expires_at": NOW + 90}}
    token = {
        "type": "request",
        "url": "/v1/sessions",
        "token": "client_secret.value",
        "expiry": "client_secret.expires_at",
        "lifetime_seconds": 7,
    }
    async with token_server(answer) as server:
        minted = await mint_of(token, {}, server.url).fetch()
        assert (minted.value, minted.lifetime_seconds) == (b"ek_dummy", 90)
        minted = await mint_of({**token, "expiry": "nowhere"}, {}, server.url).fetch()
        assert minted.lifetime_seconds == 7


async def test_an_app_s_installation() -> None:
    """As GitHub Apps do it: a JWT as bearer, the installation in the path, answered with 201."""
    token = {
        "type": "request",
        "url": "/app/installations/{installation}/access_tokens",
        "headers": {"Authorization": "Bearer {jwt}", "Accept": "application/vnd.github+json"},
        "json": {"repositories": ["dummy"]},
        "assertion": {
            "algorithm": "RS256",
            "key": "{key}",
            "claims": {"iss": "{app}"},
            "valid_seconds": 540,
        },
        "token": "token",
        "expiry": "expires_at",
    }
    values = {"key": pem(KEYS["RS256"]), "app": b"12345", "installation": b"67890"}
    answer = {"token": "ghs_dummy", "expires_at": "2027-01-15T09:00:00Z"}
    async with token_server(answer, "201 Created") as server:
        minted = await mint_of(token, values, server.url).fetch()
        assert (minted.value, minted.lifetime_seconds) == (b"ghs_dummy", 3600)
    (asked,) = server.asked
    assert (asked.method, asked.target) == ("POST", "/app/installations/67890/access_tokens")
    assert asked.own == ["authorization", "content-length", "content-type"]
    assert asked.header("accept") == "application/vnd.github+json"
    assert json.loads(asked.body) == {"repositories": ["dummy"]}
    header, claims = decoded(asked.header("authorization").removeprefix("Bearer "), "RS256")
    assert header == {"alg": "RS256", "typ": "JWT"}
    assert (claims["iss"], claims["iat"], claims["exp"]) == ("12345", NOW - 5, NOW - 5 + 540)


# -- inworld --------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["portal", "both"])
@pytest.mark.parametrize(
    ("variant", "path", "body"),
    [
        ("session", DOCUMENTED_MINT, {"api_key": "dummy-key"}),
        ("sample", SAMPLE_MINT, {"key": "dummy-key", "resources": ["workspaces/dummy-w"]}),
    ],
)
async def test_inworld_session_tokens(
    given: str, variant: str, path: str, body: dict[str, Any]
) -> None:
    """Both variants, from the portal's string or from its two parts, signed at this moment."""
    token: dict[str, Any] = {"type": "inworld", "variant": variant}
    values = {"w": b"dummy-w"}
    if given == "portal":
        token["portal"] = "{portal}"
        values["portal"] = base64.b64encode(b"dummy-key:dummy-secret")
    else:
        token |= {"key": "{key}", "secret": "{secret}"}
        values |= {"key": b"dummy-key", "secret": b"dummy-secret"}
    if variant == "sample":
        token["workspace"] = "workspaces/{w}"
    answer = {"token": "dummy.session", "expirationTime": "2027-01-15T12:00:00Z"}
    async with token_server(answer) as server:
        minted = await mint_of(token, values, server.url).fetch()
        assert (minted.value, minted.lifetime_seconds) == (b"dummy.session", 4 * 3600)
    (asked,) = server.asked
    assert (asked.method, asked.target) == ("POST", path)
    assert asked.own == ["authorization", "content-length", "content-type"]
    assert json.loads(asked.body) == body
    check = SignatureCheck("dummy-key", "dummy-secret")
    assert check.complaint(path, asked.header("authorization"), NOW) is None


# -- exec -----------------------------------------------------------------------------------------


async def test_a_command() -> None:
    """Its braces are its own; the settings say where its JSON has the token."""
    printed = '{"status": {"token": "dummy-token", "until": "2027-01-15T08:01:30Z"}}'
    token = {
        "type": "exec",
        "command": ["/usr/bin/printf", "%s", printed],
        "token": "status.token",
        "expiry": "status.until",
        "timeout_seconds": 5,
    }
    minted = await mint_of(token, {}).fetch()
    assert (minted.value, minted.lifetime_seconds) == (b"dummy-token", 90)


async def test_a_command_gets_no_secret() -> None:
    """Braces in a command are no templates, whatever the route's secrets are called."""
    token = {"type": "exec", "command": ["/usr/bin/printf", "%s", "{key}"]}
    with pytest.raises(TokenError, match="no usable token"):
        await mint_of(token, {"key": b"dummy"}).fetch()


# -- URLs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "url", "target"),
    [
        ("", "/oauth2/token", "/oauth2/token"),
        ("/v2", "/oauth2/token", "/v2/oauth2/token"),
        ("/a/b", "/t?x=1&y=%20", "/a/b/t?x=1&y=%20"),
        ("/v%202", "/", "/v%202/"),
    ],
)
async def test_paths_are_at_the_upstream(base: str, url: str, target: str) -> None:
    """Behind its base path, byte for byte."""
    async with token_server() as server:
        await mint_of({**CLIENT, "url": url}, ODD, server.url + base).fetch()
    assert server.asked[0].target == target


async def test_a_url_of_its_own() -> None:
    """A token endpoint elsewhere: the upstream, and its path, have no part in it."""
    asked = await call_of(CLIENT, ODD, path="/realms/%64ummy/token?p=B2C_1%2F")
    assert asked.target == "/realms/%64ummy/token?p=B2C_1%2F"


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (b"dummy-tenant", "dummy-tenant"),
        (b"a/../b?c#d&e=f", "a%2F..%2Fb%3Fc%23d%26e%3Df"),
        (b"\r\nX-Evil: 1\r\n\r\n", "%0D%0AX-Evil%3A%201%0D%0A%0D%0A"),
        ("é%41 ".encode(), "%C3%A9%2541%20"),
        (b"\xff", "%FF"),
    ],
)
async def test_secrets_in_urls_are_percent_encoded(value: bytes, seen: str) -> None:
    """A secret fills the segment or the parameter it stands in, and never ends it."""
    asked = await call_of(
        CLIENT, {**ODD, "tenant": value}, path="/{tenant}/oauth2/token?t={tenant}&x=1"
    )
    assert asked.target == f"/{seen}/oauth2/token?t={seen}&x=1"
    assert "x-evil" not in asked.own


async def test_fields_of_secrets_in_urls() -> None:
    """A field of a JSON secret is found first and then encoded."""
    asked = await call_of(
        SERVICE_ACCOUNT, {"account": ACCOUNT}, path="/p/{account.project_id}/token"
    )
    assert asked.target == "/p/dummy%20project%2F1/token"


# -- what cannot be built -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "values", "words"),
    [
        ({"type": "jwt", "algorithm": "RS256", "key": "{key}"}, {"key": b"CANARY"}, "no private"),
        ({"type": "jwt", "algorithm": "HS256", "key": "{key}"}, {"key": b"CANARY"}, "shorter"),
        (SERVICE_ACCOUNT | {"url": "/t"}, {"account": b"CANARY"}, "account is not JSON"),
        (SERVICE_ACCOUNT | {"url": "/t"}, {"account": b'{"x": "CANARY"}'}, "private_key"),
        ({"type": "inworld", "portal": "{key}"}, {"key": b"CANARY!"}, "not Base64"),
        ({"type": "inworld", "portal": "{key}"}, {"key": b"Q0FOQVJZ"}, "a key and a secret"),
        (
            {"type": "request", "url": "/t", "headers": {"X-Key": "{key}"}},
            {"key": b"CANARY\r\nX: y"},
            "header X-Key has a line break",
        ),
        (
            {"type": "request", "url": "/t", "json": {"k": "{key}"}},
            {"key": b"CANARY\xff"},
            "not UTF-8",
        ),
        ({"type": "request", "url": "/{key.x}"}, {"key": b'{"x": ["CANARY"]}'}, "key is not JSON"),
        (
            {
                "type": "request",
                "url": "/t",
                "form": {"a": "{jwt}"},
                "assertion": {"algorithm": "ES256", "key": "{key}"},
            },
            {"key": pem(KEYS["RS256"])},
            "another kind",
        ),
    ],
)
def test_unusable_secrets_are_found_when_built(
    token: dict[str, Any], values: dict[str, bytes], words: str
) -> None:
    """A ValueError that says what is wrong, and neither the value nor the error that had it."""
    with pytest.raises(ValueError, match=words) as caught:
        mint_of(token, values)
    assert "CANARY" not in f"{caught.value!r}"
    assert "PRIVATE" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
