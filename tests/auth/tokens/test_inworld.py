"""Tests of auth/inworld.py: the signature against public vectors, and the calls as a provider sees
them.
"""

from __future__ import annotations

import base64
import json
import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from proxy.auth.token import TokenError
from proxy.auth.tokens.inworld import (
    VARIANTS,
    authorization,
    session_call,
    signature,
    split_portal_string,
)
from proxy.auth.tokens.response import TokenFields, read_token
from tests.emulators.signature import DOCUMENTED_MINT, SAMPLE_MINT, SignatureCheck

KEY, SECRET = b"dummy-key", b"dummy-secret"
MOMENT = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC).timestamp()


def test_the_public_vector() -> None:
    """The one in the tests of Inworld's Node.js SDK, which has no nonce."""
    parts = ["20220601123658", "localhost", "ai.inworld.studio.v1alpha.Tokens/GenerateSessionToken"]
    assert signature(b"SECRET", parts) == (
        "648908d6ef4b44b922f5ca5f7df1183c0d7455312fea3eb03e4aa1b9385efd6c"
    )


@pytest.mark.parametrize(
    ("variant", "signed"),
    [
        ("sample", "bd1f75b6b8a901b1a46887c5393d08807d8d703515146249a8f3886c4d2323e5"),
        ("session", "07abde29a3d105a69e0b8a56f744a44ac850784630e84a3530c78c3f521556a4"),
    ],
)
def test_the_worked_examples(variant: str, signed: str) -> None:
    """Both forms of the call, to the letter."""
    header = authorization(KEY, SECRET, VARIANTS[variant], now=MOMENT, nonce="0123456789a")
    assert header == (
        "IW1-HMAC-SHA256 ApiKey=dummy-key,DateTime=20261121120000,Nonce=0123456789a,"
        f"Signature={signed}"
    )


def test_the_time_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the machine stands; fractions of a second are cut."""

    monkeypatch.setenv("TZ", "Pacific/Chatham")
    time.tzset()
    try:
        header = authorization(KEY, SECRET, VARIANTS["session"], now=MOMENT + 0.999)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert ",DateTime=20261121120000," in header


def test_no_nonce_is_used_twice() -> None:
    """Eleven hex digits, random."""
    headers = [authorization(KEY, SECRET, VARIANTS["session"], now=MOMENT) for _ in range(200)]
    nonces = {re.findall(r"Nonce=([0-9a-f]{11}),", header)[0] for header in headers}
    assert len(nonces) == 200


@pytest.mark.parametrize(
    ("variant", "path", "workspace", "body"),
    [
        ("session", DOCUMENTED_MINT, None, {"api_key": "dummy-key"}),
        ("sample", SAMPLE_MINT, None, {"key": "dummy-key", "resources": []}),
        (
            "sample",
            SAMPLE_MINT,
            "workspaces/w",
            {"key": "dummy-key", "resources": ["workspaces/w"]},
        ),
    ],
)
def test_calls(variant: str, path: str, workspace: str | None, body: dict[str, Any]) -> None:
    """The path is at the route's upstream, what is signed is not: a provider accepts it."""
    call = session_call("http://127.0.0.1:9/x", variant, KEY, SECRET, workspace, lambda: MOMENT)
    assert (call.method, call.url) == ("POST", f"http://127.0.0.1:9/x{path}")
    assert call.body is not None
    assert json.loads(call.body) == body
    assert call.headers["Content-Type"] == "application/json"
    check = SignatureCheck("dummy-key", "dummy-secret")
    assert check.complaint(path, call.headers["Authorization"], MOMENT) is None
    again = session_call("https://x", variant, KEY, SECRET, workspace, lambda: MOMENT)
    assert check.complaint(path, again.headers["Authorization"], MOMENT) is None


def test_the_answer() -> None:
    """Its end is a moment in RFC 3339; ``type`` says Bearer."""
    answer = {
        "token": "dummy.session.token",
        "type": "Bearer",
        "expirationTime": "2026-11-21T16:00:00Z",
        "sessionId": "x",
    }
    fetched = read_token(answer, TokenFields("token", ("expirationTime",), 60), MOMENT)
    assert (fetched.value, fetched.lifetime_seconds) == (b"dummy.session.token", 4 * 3600)


def test_the_portal_string_is_key_and_secret() -> None:
    """Base64; the first colon parts them."""
    assert split_portal_string(base64.b64encode(b"dummy-key:a:b=")) == (b"dummy-key", b"a:b=")


@pytest.mark.parametrize(
    "portal",
    [
        b"",
        b"CANARY",
        b"CANARY!!",
        b"Q0FOQVJZ",  # no colon
        base64.b64encode(b"CANARY:"),
        base64.b64encode(b":CANARY"),
        base64.b64encode(b"CANARY:x") + b"\n!",
        "CANARYé".encode(),
    ],
)
def test_portal_strings_that_are_none(portal: bytes) -> None:
    """They are refused without being shown."""
    with pytest.raises(ValueError, match="portal") as caught:
        split_portal_string(portal)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert "CANARY" not in f"{caught.value!r}"
    assert "Q0FO" not in f"{caught.value!r}"


@pytest.mark.parametrize(
    "key", [b"CANARY\r\nX: y", b"CANARY,x", b"CANARY x", b"CANARY\xc3\xa9", b""]
)
@pytest.mark.parametrize("variant", ["session", "sample"])
def test_keys_that_cannot_be_in_the_header(key: bytes, variant: str) -> None:
    """They go nowhere and are not shown."""
    with pytest.raises(TokenError) as caught:
        session_call("https://x", variant, key, SECRET, None, lambda: MOMENT)
    assert "CANARY" not in f"{caught.value!r}{caught.value.__context__!r}"
