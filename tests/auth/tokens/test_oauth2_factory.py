"""Token requests made from settings: what a token endpoint receives for each ``client_auth``."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from proxy.auth.strategy import AuthContext
from proxy.auth.token import TokenError
from proxy.auth.tokens.inputs import SourceInputs
from proxy.auth.tokens.oauth2_factory import make_oauth2_source, make_prover
from proxy.config.oauth2 import ClientCredentials, JwtBearer, RefreshToken
from proxy.config.route import StrategySettings
from proxy.upstream.tls import tls_context
from tests.support.certificates import Authority
from tests.support.clock import ManualClock
from tests.support.keyrelay import raw_provider, read_head

NOW = 1_800_000_000
ID, SECRET = "dummy id", "dummy:s%+é/" + "x" * 32
KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
}
KEYS["PS256"] = KEYS["RS256"]
ISSUED = b'{"access_token": "dummy-token", "token_type": "Bearer", "expires_in": 600}'
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def pem(algorithm: str, encryption: KeySerializationEncryption | None = None) -> bytes:
    form = (Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    return bytes(KEYS[algorithm].private_bytes(*form))


VALUES = {
    "id": ID.encode(),
    "secret": SECRET.encode(),
    "refresh": b"dummy-refresh",
    **{name.lower(): pem(name) for name in KEYS},
}
# The settings of each type without its client, and the fields of its grant.
GRANTS: dict[str, dict[str, Any]] = {
    "oauth2_client_credentials": {},
    "oauth2_refresh_token": {"refresh_token": "{refresh}"},
    "jwt_bearer": {"algorithm": "ES256", "key": "{es256}", "claims": {"iss": "dummy"}},
}
WITH_SECRET: dict[str, Any] = {"client_id": "{id}", "client_secret": "{secret}"}
every_type = pytest.mark.parametrize("kind", GRANTS)


@dataclass
class Endpoint:
    """A token endpoint on loopback, and the requests that it received."""

    url: str = ""
    heads: list[str] = field(default_factory=list)
    forms: list[list[tuple[str, str]]] = field(default_factory=list)
    certificates: list[Mapping[str, Any] | None] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        """The values of a form field in the last request."""
        return [value for one, value in self.forms[-1] if one == name]

    def value(self, name: str) -> str:
        (value,) = self.values(name)
        return value

    @property
    def basic(self) -> str:
        """The credentials of Basic in the last request, decoded from Base64 alone."""
        found = re.findall(r"\r\nAuthorization: Basic (\S+)\r\n", self.heads[-1])
        (coded,) = found
        return base64.b64decode(coded, validate=True).decode()


@asynccontextmanager
async def endpoint(
    tls: ssl.SSLContext | None = None, status: str = "200 OK", body: bytes = ISSUED
) -> AsyncIterator[Endpoint]:
    found = Endpoint()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await read_head(reader)).decode("latin-1")
        length = int(head.partition("Content-Length: ")[2].partition("\r\n")[0])
        sent = (await reader.readexactly(length)).decode("ascii")
        found.heads.append(head)
        found.forms.append(parse_qsl(sent, strict_parsing=True, keep_blank_values=True))
        found.certificates.append(writer.get_extra_info("peercert"))
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await writer.drain()

    async with raw_provider(serve, tls) as provider:
        found.url = f"{provider.url}/token"
        yield found


def settings_of(token: dict[str, Any]) -> ClientCredentials | RefreshToken | JwtBearer:
    made = StrategySettings.model_validate(
        {"token": token, "http": {"header": "Authorization", "value": "Bearer {token}"}}
    ).token
    assert isinstance(made, ClientCredentials | RefreshToken | JwtBearer)
    return made


def context() -> AuthContext:
    def spawn(_: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        raise AssertionError("a source starts no task")

    return AuthContext(ManualClock(wall=NOW), tls_context(), spawn)


async def fetch(
    server: Endpoint, kind: str, values: Mapping[str, bytes] = VALUES, times: int = 1, **more: Any
) -> None:
    """Obtain tokens from ``server`` with one source of this type and these settings."""
    settings = settings_of({"type": kind, "url": server.url, **GRANTS[kind], **more})
    inputs = SourceInputs(values, "https://unused.invalid")
    source = make_oauth2_source(settings, inputs, context())
    for _ in range(times):
        assert (await source.fetch()).value == b"dummy-token"


async def fetched(kind: str, times: int = 1, **more: Any) -> Endpoint:
    """The endpoint, after tokens were obtained from it as by ``fetch``."""
    async with endpoint() as server:
        await fetch(server, kind, times=times, **more)
    return server


# -- secrets --------------------------------------------------------------------------------------


@every_type
async def test_basic(kind: str) -> None:
    """RFC 6749 section 2.3.1: percent-encoded with ``%20`` for a space, and not in the body."""
    server = await fetched(kind, **WITH_SECRET)
    assert server.basic == "dummy%20id:dummy%3As%25%2B%C3%A9%2F" + "x" * 32
    assert not server.values("client_id") + server.values("client_secret")


@every_type
async def test_basic_plain(kind: str) -> None:
    """For servers that do not decode: the octets as they are."""
    server = await fetched(kind, client_auth="basic_plain", **WITH_SECRET)
    assert server.basic == f"{ID}:{SECRET}"
    assert not server.values("client_id") + server.values("client_secret")


@every_type
async def test_form(kind: str) -> None:
    """Identifier and secret are form fields; there is no field Authorization."""
    server = await fetched(kind, client_auth="form", **WITH_SECRET)
    assert (server.value("client_id"), server.value("client_secret")) == (ID, SECRET)
    assert "Authorization" not in server.heads[0]


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize(("method", "named"), [("basic", True), ("basic_plain", False)])
async def test_a_refusal_where_encoding_matters(status: int, method: str, named: bool) -> None:
    """The advice names the encoding where it changed a value, and what to try instead."""
    async with endpoint(status=f"{status} X", body=b'{"error": "invalid_client"}') as server:
        with pytest.raises(TokenError) as caught:
            await fetch(server, "oauth2_client_credentials", client_auth=method, **WITH_SECRET)
    assert ("client_auth: basic_plain" in caught.value.advice) is named
    assert SECRET not in f"{caught.value}{caught.value.details}{caught.value.advice}"


# -- assertions (RFC 7523) ------------------------------------------------------------------------


def assertion_of(server: Endpoint, algorithm: str, key: Any, turn: int = 0) -> dict[str, Any]:
    """The claims of the client's assertion, whose signature verifies."""
    form = dict(server.forms[turn])
    assert form["client_assertion_type"] == ASSERTION_TYPE
    assert form["client_id"] == ID
    assert "client_secret" not in form
    assert "Authorization" not in server.heads[turn]
    unchecked = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
    claims: dict[str, Any] = jwt.decode(
        form["client_assertion"],
        key,
        [algorithm],
        options=unchecked,  # type: ignore[arg-type]
    )
    return claims


@every_type
async def test_private_key_jwt(kind: str) -> None:
    """Issuer and subject are the client, the audience is the endpoint; each request has its own."""
    server = await fetched(
        kind,
        times=2,
        client_id="{id}",
        client_auth="private_key_jwt",
        client_assertion={"key": "{rs256}"},
    )
    first, second = (
        assertion_of(server, "RS256", KEYS["RS256"].public_key(), turn) for turn in (0, 1)
    )
    assert first.pop("jti") != second.pop("jti")
    assert first == second
    assert (first["iss"], first["sub"], first["aud"]) == (ID, ID, server.url)
    assert first["iat"] <= NOW < first["exp"] <= first["iat"] + 60


@every_type
async def test_client_secret_jwt(kind: str) -> None:
    """The secret signs the assertion by HMAC, and is not sent."""
    server = await fetched(kind, times=2, client_auth="client_secret_jwt", **WITH_SECRET)
    first, second = (assertion_of(server, "HS256", SECRET.encode(), turn) for turn in (0, 1))
    assert first["jti"] != second["jti"]
    assert (first["iss"], first["aud"]) == (ID, server.url)


@pytest.mark.parametrize("algorithm", KEYS)
async def test_settings_of_an_assertion(algorithm: str) -> None:
    """Algorithm, audience, key ID, type and times are as configured."""
    server = await fetched(
        "oauth2_client_credentials",
        client_id="{id}",
        client_auth="private_key_jwt",
        client_assertion={
            "algorithm": algorithm,
            "key": f"{{{algorithm.lower()}}}",
            "key_id": "kid-{id}",
            "audience": "https://id.example/{id}",
            "header_type": "client-authentication+jwt",
            "valid_seconds": 30,
            "leeway_seconds": 0,
        },
    )
    claims = assertion_of(server, algorithm, KEYS[algorithm].public_key())
    assert claims["aud"] == f"https://id.example/{ID}"
    assert (claims["iat"], claims["exp"]) == (NOW, NOW + 30)
    header = jwt.get_unverified_header(server.value("client_assertion"))
    assert header == {
        "alg": algorithm,
        "kid": f"kid-{ID}",
        "typ": "client-authentication+jwt",
    }


async def test_the_audience_is_without_the_query() -> None:
    """The endpoint is identified by its URL; parameters of the request are not part of it."""
    async with endpoint() as server:
        address = server.url
        server.url += "?tenant=a"
        await fetch(
            server, "oauth2_client_credentials", client_auth="client_secret_jwt", **WITH_SECRET
        )
    assert server.heads[0].startswith("POST /token?tenant=a HTTP/1.1\r\n")
    assert assertion_of(server, "HS256", SECRET.encode())["aud"] == address


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (pem("RS256", BestAvailableEncryption(b"dummy-password")), "is encrypted"),
        (pem("ES256"), "another kind than RS256"),
        (b"dummy", "no private key in PEM"),
    ],
)
async def test_a_key_that_cannot_sign(key: bytes, words: str) -> None:
    """Found when the source is made, before any request; the error holds nothing of the key."""
    settings = settings_of(
        {
            "type": "oauth2_client_credentials",
            "url": "https://id.example/token",
            "client_id": "{id}",
            "client_auth": "private_key_jwt",
            "client_assertion": {"key": "{key}"},
        }
    )
    inputs = SourceInputs({**VALUES, "key": key}, "https://unused.invalid")
    with pytest.raises(ValueError, match=words) as caught:
        make_oauth2_source(settings, inputs, context())
    assert key.decode() not in str(caught.value)


# -- fields and proofs ----------------------------------------------------------------------------


@every_type
async def test_fields(kind: str) -> None:
    """Scope, audience, resources (RFC 8707) and further fields, in all types, with secrets."""
    server = await fetched(
        kind,
        scope="a b",
        audience="https://api.example",
        resource=["https://a.example/{refresh}", "https://b.example"],
        form={"tenant": "t {refresh}", "acr": ["1", "2"]},
        **WITH_SECRET,
    )
    assert (server.value("scope"), server.value("audience")) == ("a b", "https://api.example")
    assert server.values("resource") == ["https://a.example/dummy-refresh", "https://b.example"]
    assert (server.value("tenant"), server.values("acr")) == ("t dummy-refresh", ["1", "2"])


@every_type
async def test_a_proof_goes_with_the_request(kind: str) -> None:
    """RFC 9449 section 5, for all types; a token of another type is not accepted."""
    bound = ISSUED.replace(b"Bearer", b"DPoP")
    more: dict[str, Any] = {"dpop": {"key": "{es256}"}, **WITH_SECRET}
    async with endpoint(body=bound) as server:
        await fetch(server, kind, **more)
    (proof,) = re.findall(r"\r\nDPoP: (\S+)\r\n", server.heads[0])
    claims = jwt.decode(proof, KEYS["ES256"].public_key(), ["ES256"], options={"verify_iat": False})
    assert (claims["htm"], claims["htu"], claims["iat"]) == ("POST", server.url, NOW)
    async with endpoint() as server:
        with pytest.raises(TokenError, match="not of the type dpop"):
            await fetch(server, kind, **more)


def test_no_proof_without_its_settings() -> None:
    """Types of other protocols have no such setting either."""
    inputs = {"type": "oauth2_client_credentials", "url": "/token", **WITH_SECRET}
    assert make_prover(settings_of(inputs), VALUES, context()) is None
    made = StrategySettings.model_validate(
        {
            "token": {"type": "exec", "command": ["dummy"]},
            "http": {"header": "Authorization", "value": "Bearer {token}"},
        }
    ).token
    assert made is not None
    assert make_prover(made, VALUES, context()) is None


# -- certificates (RFC 8705) ----------------------------------------------------------------------


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority that this machine trusts."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    return authority


def requiring(authority: Authority) -> ssl.SSLContext:
    """A server's context that requires a certificate of ``authority`` from each client."""
    tls = authority.server("127.0.0.1")
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(authority.file)
    return tls


CERTIFICATE: dict[str, Any] = {"client_certificate": "{certificate}", "client_key": "{key}"}


@every_type
@pytest.mark.parametrize("line_breaks", [b"\n", b"\\n"])
async def test_a_certificate(trusted: Authority, kind: str, line_breaks: bytes) -> None:
    """The connection authenticates the client: its ID is in the body, and no secret anywhere."""
    certificate, key = (one.replace(b"\n", line_breaks) for one in trusted.client("dummy client"))
    values = {**VALUES, "certificate": certificate, "key": key}
    async with endpoint(requiring(trusted)) as server:
        await fetch(server, kind, values, client_id="{id}", client_auth="tls", **CERTIFICATE)
    (peer,) = server.certificates
    assert peer is not None
    assert (("commonName", "dummy client"),) in peer["subject"]
    assert server.value("client_id") == ID
    assert "Authorization" not in server.heads[0]


async def test_a_certificate_beside_a_secret(trusted: Authority) -> None:
    """A token may be bound to the certificate, with the client authenticated by its secret."""
    certificate, key = trusted.client("dummy client")
    values = {**VALUES, "certificate": certificate, "key": key}
    async with endpoint(requiring(trusted)) as server:
        await fetch(server, "oauth2_refresh_token", values, **CERTIFICATE, **WITH_SECRET)
    assert server.certificates[0]
    assert server.basic.startswith("dummy%20id:")


async def test_without_a_certificate(trusted: Authority) -> None:
    """The server requires one: no request reaches it, and the failure holds no secret."""
    async with endpoint(requiring(trusted)) as server:
        with pytest.raises(TokenError, match="cannot be reached") as caught:
            await fetch(server, "oauth2_client_credentials", **WITH_SECRET)
    assert (server.heads, SECRET in str(caught.value)) == ([], False)


async def test_a_server_that_is_not_trusted(tmp_path: Path, trusted: Authority) -> None:
    """The server's certificate is verified beside the client's own."""
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    certificate, key = trusted.client("dummy client")
    values = {**VALUES, "certificate": certificate, "key": key}
    async with endpoint(other.server("127.0.0.1")) as server:
        with pytest.raises(TokenError, match="certificate is not valid"):
            await fetch(
                server,
                "oauth2_client_credentials",
                values,
                client_id="{id}",
                client_auth="tls",
                **CERTIFICATE,
            )
    assert server.heads == []


@pytest.mark.parametrize("wrong", ["another key", "encrypted", "no PEM"])
async def test_a_certificate_that_cannot_be_used(trusted: Authority, wrong: str) -> None:
    """Found when the source is made, without a prompt for a password; no value is in the error."""
    certificate, key = trusted.client("dummy client")
    key = {
        "another key": pem("ES256"),
        "encrypted": pem("ES256", BestAvailableEncryption(b"dummy-password")),
        "no PEM": b"dummy",
    }[wrong]
    settings = settings_of(
        {
            "type": "oauth2_client_credentials",
            "url": "https://id.example/token",
            "client_id": "{id}",
            "client_auth": "tls",
            **CERTIFICATE,
        }
    )
    inputs = SourceInputs(
        {**VALUES, "certificate": certificate, "key": key}, "https://unused.invalid"
    )
    with pytest.raises(ValueError, match="client_certificate and client_key") as caught:
        make_oauth2_source(settings, inputs, context())
    assert "BEGIN" not in str(caught.value)
