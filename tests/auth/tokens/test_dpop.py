"""Proofs of possession (RFC 9449), as token endpoints and resource servers receive them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from proxy.auth.token import TokenError
from proxy.auth.tokens.client import TokenClient, TokenRequest
from proxy.auth.tokens.dpop import DPoPProver
from proxy.upstream.tls import tls_context
from tests.support.clock import ManualClock
from tests.support.keyrelay import client, heads, keyrelay, raw_provider

NOW = 1_800_000_000
KEYS: dict[str, Any] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "RS256": rsa.generate_private_key(65537, 2048),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
KEYS["PS256"] = KEYS["RS256"]
PUBLIC = {"EC": {"crv", "kty", "x", "y"}, "RSA": {"e", "kty", "n"}, "OKP": {"crv", "kty", "x"}}
TOKEN = b"dummy-token"
URL = "https://id.example/token"


def pem(algorithm: str) -> bytes:
    return bytes(KEYS[algorithm].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def spki(public: Any) -> bytes:
    return bytes(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def prover(algorithm: str = "ES256") -> DPoPProver:
    return DPoPProver(ManualClock(wall=NOW + 0.9), algorithm=algorithm, key=pem(algorithm))


def claims_of(proof: str | bytes, algorithm: str = "ES256") -> dict[str, Any]:
    """The claims of a proof whose signature verifies with the key in its own header."""
    header = jwt.get_unverified_header(proof)
    assert (header["typ"], header["alg"]) == ("dpop+jwt", algorithm)
    assert header["jwk"].keys() == PUBLIC[header["jwk"]["kty"]]
    key = jwt.PyJWK(header["jwk"], algorithm)
    assert spki(key.key) == spki(KEYS[algorithm].public_key())
    claims: dict[str, Any] = jwt.decode(
        proof, key, [algorithm], options={"verify_iat": False, "verify_exp": False}
    )
    return claims


def digest(token: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(token).digest()).decode().rstrip("=")


# -- the proof ------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_proof_at_a_token_endpoint(algorithm: str) -> None:
    """RFC 9449 section 4.2: method, URL, time and identifier; no digest of a token."""
    claims = claims_of(prover(algorithm).proof("POST", URL), algorithm)
    assert len(claims.pop("jti")) >= 16
    assert claims == {"htm": "POST", "htu": URL, "iat": NOW}


def test_a_proof_for_a_token() -> None:
    """``ath`` is the base64url-encoded SHA-256 digest of the token that goes with the proof."""
    claims = claims_of(prover().proof("GET", "https://api.example/v1", TOKEN))
    assert claims["ath"] == digest(TOKEN)


def test_no_proof_is_made_twice() -> None:
    """The identifier is new for each proof, also within one second."""
    made = prover()
    assert len({claims_of(made.proof("POST", URL))["jti"] for _ in range(10)}) == 10


@pytest.mark.parametrize(("algorithm", "key"), [("ES256", "ES384"), ("RS256", "EdDSA")])
def test_a_key_of_another_kind(algorithm: str, key: str) -> None:
    """The error names the algorithm and holds nothing of the key."""
    with pytest.raises(ValueError, match=f"another kind than {algorithm}") as caught:
        DPoPProver(ManualClock(), algorithm=algorithm, key=pem(key))
    assert "PRIVATE" not in str(caught.value)


def test_a_nonce_belongs_to_one_origin() -> None:
    """RFC 9449 section 8: authorization server and resource server each have their own."""
    made = prover()
    made.take_nonce(URL, "first")
    assert claims_of(made.proof("POST", "https://id.example/other"))["nonce"] == "first"
    made.take_nonce(URL, "second")
    assert claims_of(made.proof("POST", URL))["nonce"] == "second"
    for other in ("https://api.example/", "http://id.example/", "https://id.example:444/"):
        assert "nonce" not in claims_of(made.proof("POST", other))


def test_the_number_of_nonces_is_bounded() -> None:
    """The oldest is dropped; a new one for a known origin displaces no other."""
    made = prover()
    for number in range(16):
        made.take_nonce(f"https://{number}.example/", "n")
    made.take_nonce("https://15.example/", "m")
    assert claims_of(made.proof("GET", "https://0.example/"))["nonce"] == "n"
    made.take_nonce("https://16.example/", "n")
    assert "nonce" not in claims_of(made.proof("GET", "https://0.example/"))
    assert claims_of(made.proof("GET", "https://15.example/"))["nonce"] == "m"


@pytest.mark.parametrize(
    ("nonces", "challenges", "repeat", "kept"),
    [
        ([b"n-1"], [b'DPoP error="use_dpop_nonce"'], True, "n-1"),
        ([b"n-1"], [b"Bearer", b'DPoP algs="ES256", error="use_dpop_nonce"'], True, "n-1"),
        ([b"n-1"], [b'DPoP error="invalid_token"'], False, "n-1"),
        ([b"n-1"], [], False, "n-1"),
        ([], [b'DPoP error="use_dpop_nonce"'], False, None),
        ([b"a", b"b"], [b'DPoP error="use_dpop_nonce"'], False, None),
        ([b""], [b'DPoP error="use_dpop_nonce"'], False, None),
        ([b'a"b'], [b'DPoP error="use_dpop_nonce"'], False, None),
        ([b"n" * 1025], [b'DPoP error="use_dpop_nonce"'], False, None),
    ],
)
def test_challenges_of_a_resource_server(
    nonces: list[bytes], challenges: list[bytes], repeat: bool, kept: str | None
) -> None:
    """A nonce is kept whenever one valid value arrives; only ``use_dpop_nonce`` asks to repeat."""
    proof = prover().bound_to("https://api.example", TOKEN)
    assert proof.take_challenge(nonces, challenges) is repeat
    line = proof.fields(b"GET", b"/v1/a%20b")
    assert line.endswith(b"\r\n")
    claims = claims_of(line.removeprefix(b"DPoP: ").strip())
    assert (claims["htm"], claims["htu"]) == ("GET", "https://api.example/v1/a%20b")
    assert (claims["ath"], claims.get("nonce")) == (digest(TOKEN), kept)
    assert TOKEN.decode() not in repr(proof)


# -- servers that require a nonce -----------------------------------------------------------------

ISSUED = json.dumps({"access_token": TOKEN.decode(), "token_type": "DPoP", "expires_in": 600})
WANTS = json.dumps({"error": "use_dpop_nonce"})


@dataclass
class Servers:
    """An authorization server at ``/token``, and a resource server at every other path.

    Each accepts a request if ``accepts`` holds for the nonce of its proof. ``nonce`` gives the
    nonce that goes with a response, None for no field.
    """

    accepts: Callable[[str | None], bool]
    nonce: Callable[[str], str | None]
    proofs: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for received in heads(reader):
            head = received.decode("latin-1")
            fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
            await reader.readexactly(int(fields.get("Content-Length", 0)))
            kind = "token" if head.startswith("POST /token ") else "resource"
            claims = claims_of(fields["DPoP"])
            self.proofs.append((kind, claims))
            if kind == "resource":
                assert fields["Authorization"] == f"DPoP {TOKEN.decode()}"
            accepted = self.accepts(claims.get("nonce"))
            nonce = self.nonce(kind)
            refusal = "400 Bad Request" if kind == "token" else "401 Unauthorized"
            body = (ISSUED if accepted else WANTS) if kind == "token" else ""
            lines = [
                f"HTTP/1.1 {'200 OK' if accepted else refusal}",
                "Content-Type: application/json",
                f"Content-Length: {len(body)}",
            ]
            if nonce is not None:
                lines.append(f"DPoP-Nonce: {nonce}")
            if kind == "resource" and not accepted:
                lines.append('WWW-Authenticate: DPoP error="use_dpop_nonce"')
            writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
            await writer.drain()

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [claims for one, claims in self.proofs if one == kind]


def token_client() -> TokenClient:
    return TokenClient(tls_context(), lambda: float(NOW), allow_private=False)


async def test_a_token_endpoint_with_a_nonce() -> None:
    """Section 8: repeated once with the nonce, which the next request has from the start."""
    servers = Servers(lambda nonce: nonce is not None, lambda _: "n-1")
    made, ask = prover(), token_client()
    async with raw_provider(servers.serve) as provider:
        request = TokenRequest("POST", f"{provider.url}/token", prover=made, body=b"")
        document, _ = await ask(request)
        assert document["access_token"] == TOKEN.decode()
        await ask(request)
        assert {claims["htu"] for claims in servers.of("token")} == {f"{provider.url}/token"}
    assert [claims.get("nonce") for claims in servers.of("token")] == [None, "n-1", "n-1"]
    assert len({claims["jti"] for claims in servers.of("token")}) == 3


@pytest.mark.parametrize(("nonce", "requests"), [("n-1", 2), (None, 1)])
async def test_a_token_endpoint_that_is_never_content(nonce: str | None, requests: int) -> None:
    """One repetition, and none without a nonce to repeat with; then the error names the code."""
    servers = Servers(lambda _: False, lambda _: nonce)
    async with raw_provider(servers.serve) as provider:
        with pytest.raises(TokenError) as caught:
            await token_client()(TokenRequest("POST", f"{provider.url}/token", prover=prover()))
    assert "use_dpop_nonce" in caught.value.details
    assert "dpop:" in caught.value.advice
    assert len(servers.proofs) == requests


def dpop_route(upstream: str) -> dict[str, Any]:
    return {
        "upstream": upstream,
        "spares": 0,
        "secrets": {"key": "env:DUMMY_KEY", "dpop": "env:DUMMY_DPOP"},
        "auth": [
            {
                "token": {
                    "type": "oauth2_client_credentials",
                    "url": "/token",
                    "client_id": "dummy-id",
                    "client_secret": "{key}",
                    "dpop": {"key": "{dpop}"},
                },
                "http": {"header": "Authorization", "value": "DPoP {token}"},
            }
        ],
    }


@pytest.fixture
def dpop_key(dummy_key: None, monkeypatch: pytest.MonkeyPatch) -> None:
    # One line, as environment variables often hold a PEM.
    monkeypatch.setenv("DUMMY_DPOP", pem("ES256").decode().replace("\n", "\\n"))


@pytest.mark.usefixtures("dpop_key")
async def test_a_resource_server_with_a_nonce() -> None:
    """Section 9: each origin's nonce is learned once; the client sees neither of the refusals."""
    servers = Servers(lambda nonce: nonce is not None, lambda _: "n-1")
    async with (
        raw_provider(servers.serve) as provider,
        keyrelay({"acme": dpop_route(provider.url)}, clock=ManualClock(wall=NOW)) as running,
        client() as session,
    ):
        for _ in range(2):
            async with session.put(f"{running.url}/acme/v1/a?x=1", data=b"dummy") as response:
                assert response.status == 200
        assert {(one["htm"], one["htu"]) for one in servers.of("resource")} == {
            ("PUT", f"{provider.url}/v1/a")
        }
    # Both servers have one origin here; their two provers learn of the nonce separately.
    assert [one.get("nonce") for one in servers.of("token")] == [None, "n-1"]
    assert [one.get("nonce") for one in servers.of("resource")] == [None, "n-1", "n-1"]
    assert {one["ath"] for one in servers.of("resource")} == {digest(TOKEN)}
    assert {one["iat"] for _, one in servers.proofs} == {NOW}


@pytest.mark.usefixtures("dpop_key")
async def test_a_resource_server_that_is_never_content() -> None:
    """One repetition; the second refusal goes to the client, and the token is not replaced."""
    numbers = iter(range(100))
    servers = Servers(lambda _: False, lambda _: f"n-{next(numbers)}")
    async with (
        raw_provider(servers.serve) as provider,
        keyrelay({"acme": dpop_route(provider.url)}, clock=ManualClock(wall=NOW)) as running,
        client() as session,
    ):
        servers.accepts = lambda nonce: nonce == "n-0"
        async with session.get(f"{running.url}/acme/v1/a") as response:
            assert response.status == 401
    assert [one.get("nonce") for one in servers.of("token")] == [None, "n-0"]
    assert [one.get("nonce") for one in servers.of("resource")] == [None, "n-2"]
