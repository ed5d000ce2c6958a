"""Tests of auth/tokens/oauth2.py: what a token endpoint gets to see of the client."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qsl, unquote, unquote_plus

import pytest

from proxy.auth.tokens.client import TokenRequest
from proxy.auth.tokens.oauth2 import (
    EXPIRY,
    ClientAuthentication,
    RequestTokenSource,
    form_of,
    token_request,
)
from proxy.auth.tokens.response import TokenFields

URL = "https://token.example/"
GRANT = (("grant_type", b"client_credentials"),)
ODD = ("id with:colon", "a:b%+é &=")


def form_of_request(request: TokenRequest) -> list[tuple[str, str]]:
    assert request.body is not None
    return parse_qsl(request.body.decode("ascii"), strict_parsing=True, keep_blank_values=True)


def client(
    method: str, client_id: str = "dummy-id", secret: str | None = None
) -> ClientAuthentication:
    return ClientAuthentication(
        method, client_id.encode(), None if secret is None else secret.encode()
    )


def pair_of(request: TokenRequest) -> str:
    """What Basic authorization carries, decoded from Base64 alone."""
    scheme, _, coded = request.headers["Authorization"].partition(" ")
    assert scheme == "Basic"
    return base64.b64decode(coded, validate=True).decode("utf-8")


def test_basic_carries_id_and_secret_percent_encoded() -> None:
    """RFC 6749 section 2.3.1: an odd secret arrives as it is, and is not in the body as well."""
    request = token_request(URL, (*GRANT, ("scope", "é b".encode())), client("basic", *ODD))
    first, _, second = pair_of(request).partition(":")
    assert (unquote_plus(first), unquote_plus(second)) == ODD
    assert form_of_request(request) == [("grant_type", "client_credentials"), ("scope", "é b")]
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert (request.method, request.url) == ("POST", URL)


def test_a_blank_is_percent_encoded_and_no_plus() -> None:
    """Servers that undo ``%20`` but not ``+`` get the same as those that undo both."""
    request = token_request(URL, GRANT, client("basic", *ODD))
    first, _, second = pair_of(request).partition(":")
    assert (unquote(first), unquote(second)) == ODD
    assert "+" not in pair_of(request)


@pytest.mark.parametrize(
    ("method", "secret", "encoded"),
    [
        ("basic", "dummy-plain_1.2~3", False),
        ("basic", "Zm9v+YmFy/Yg==", True),
        ("basic_plain", "Zm9v+YmFy/Yg==", False),
        ("form", "Zm9v+YmFy/Yg==", False),
    ],
)
def test_whether_encoding_changed_anything_is_known(
    method: str, secret: str, encoded: bool
) -> None:
    """So that a refusal can name it as a likely cause."""
    assert token_request(URL, GRANT, client(method, "dummy-id", secret)).encoded is encoded


def test_plain_basic_carries_them_as_they_are() -> None:
    """For servers that never decode, all of which fail with a secret in Base64 otherwise."""
    request = token_request(URL, GRANT, client("basic_plain", "dummy id", ODD[1]))
    assert pair_of(request) == f"dummy id:{ODD[1]}"
    assert form_of_request(request) == [("grant_type", "client_credentials")]


def test_the_form_carries_id_and_secret() -> None:
    """For servers that want it so; then there is no Authorization."""
    request = token_request(URL, GRANT, client("form", "dummy-id", "a&b=é%"))
    assert form_of_request(request) == [
        ("grant_type", "client_credentials"),
        ("client_id", "dummy-id"),
        ("client_secret", "a&b=é%"),
    ]
    assert "Authorization" not in request.headers


@pytest.mark.parametrize("method", ["basic", "basic_plain", "form", "tls"])
def test_public_clients_have_an_id_only(method: str) -> None:
    """Without a secret there is nothing to authorize with (RFC 6749 section 3.2.1, RFC 8705)."""
    request = token_request(URL, (("grant_type", b"refresh_token"),), client(method))
    assert form_of_request(request) == [("grant_type", "refresh_token"), ("client_id", "dummy-id")]
    assert "Authorization" not in request.headers


def test_an_assertion_takes_the_place_of_the_secret() -> None:
    """RFC 7523 section 2.2, with the id beside it for servers that look it up first."""
    signed = ClientAuthentication("private_key_jwt", b"dummy-id", None, lambda: b"a.b.c")
    request = token_request(URL, GRANT, signed)
    assert form_of_request(request) == [
        ("grant_type", "client_credentials"),
        ("client_id", "dummy-id"),
        (
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        ),
        ("client_assertion", "a.b.c"),
    ]
    assert "Authorization" not in request.headers


def test_a_field_may_stand_several_times() -> None:
    """RFC 8707 section 2: one ``resource`` for each place where the token will be used."""
    form = form_of({"scope": None, "audience": b"a", "resource": [b"https://x", b"https://y"]})
    request = token_request(URL, (*GRANT, *form), client("form"))
    assert form_of_request(request)[1:4] == [
        ("audience", "a"),
        ("resource", "https://x"),
        ("resource", "https://y"),
    ]


def test_what_an_endpoint_might_quote_is_known() -> None:
    """Secret, assertion, refresh token and the Basic pair: all are redacted in what it writes."""
    form = (("grant_type", b"refresh_token"), ("refresh_token", b"CANARY-refresh"))
    basic = token_request(URL, form, client("basic", "dummy-id", "CANARY-secret"))
    coded = basic.headers["Authorization"].removeprefix("Basic ").encode()
    assert set(basic.secrets) == {b"CANARY-refresh", b"CANARY-secret", coded}
    signed = ClientAuthentication("private_key_jwt", b"dummy-id", None, lambda: b"CANARY.b.c")
    assert set(token_request(URL, GRANT, signed).secrets) == {b"CANARY.b.c"}
    assert "CANARY" not in f"{basic!r}{signed!r}"


async def test_the_same_call_each_time() -> None:
    """Made anew each time, so that signed ones are never sent twice; its answer is the token."""
    made: list[TokenRequest] = []

    def make() -> TokenRequest:
        made.append(TokenRequest("GET", f"https://x/{len(made)}"))
        return made[-1]

    async def ask(request: TokenRequest) -> tuple[Any, float]:
        assert request is made[-1]
        return {"access_token": request.url[-1], "expires_at": 1_800_000_060}, 1_800_000_000.0

    source = RequestTokenSource(ask, make, TokenFields("access_token", EXPIRY, 300))
    assert (await source.fetch()).value == b"0"
    fetched = await source.fetch()
    assert (fetched.value, fetched.lifetime_seconds) == (b"1", 60)
