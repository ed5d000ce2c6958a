"""Row T29: the values that are redacted, and the responses in which they are."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.security.scene import GET, KEY, SOCKET, answer, line, stage, status, values
from tests.support.keyrelay import both_loops

pytestmark = both_loops

FIELD = "dummy-field-of/json+8f2c"
OTHER = "dummy-other-field/json+77aa"
DOCUMENT = json.dumps(
    {"api_key": FIELD, "nested": {"id": "dummy-client-id"}, "signing": "dummy-signing-key-" * 2}
)
ROTATED = json.dumps({"api_key": OTHER, "nested": {"id": "dummy-client-id"}})

PLACEMENTS: dict[str, dict[str, Any]] = {
    "header": {"header": "X-Api-Key", "value": "v1 {key.api_key}"},
    "basic": {"basic": {"username": "{key.nested.id}", "password": "{key.api_key}"}},
    "query": {"query": "api_key", "value": "{key.api_key}"},
    "path": {"path": "/bot{key.api_key}"},
    "cookie": {"cookie": "session", "value": "{key.api_key}"},
}


def echo(head: bytes, code: str) -> bytes:
    """A response that repeats the request's head in the body and in a field."""
    fields = [text.decode() for text in head.split(b"\r\n") if text]
    return answer(json.dumps(fields), f"X-Debug: {' | '.join(fields)}", status=code)


def spellings(value: str) -> list[bytes]:
    """The value as a request may contain it."""
    basic = base64.b64encode(f"dummy-client-id:{value}".encode()).decode()
    return [one.encode() for one in (value, quote(value, safe=""), quote(value, "+"), basic)]


@pytest.fixture
def documents(secrets: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUMMY_JSON", DOCUMENT)
    monkeypatch.setenv("DUMMY_ROTATED", ROTATED)


@pytest.mark.parametrize("code", ["400 Bad Request", "200 OK"])
@pytest.mark.parametrize("websocket", [False, True], ids=["http", "websocket"])
@pytest.mark.parametrize("placement", PLACEMENTS)
async def test_t29_a_field_of_a_json_secret(
    documents: None, placement: str, websocket: bool, code: str
) -> None:
    """Redacted as it was sent, in every placement, whether the body is an error's or
    ``mask_bodies`` is set.
    """
    api = {
        "secrets": {"key": "env:DUMMY_JSON"},
        "auth": [{"name": "key", **PLACEMENTS[placement]}],
        "mask_bodies": True,
    }
    async with stage(api=api) as one:
        one.provider.answer = lambda head: echo(head, code)
        got = await one.ask(SOCKET if websocket else GET)
        sent = one.provider.heads[-1]
    assert status(got) == int(code[:3])
    assert any(text in sent for text in spellings(FIELD))
    for text in spellings(FIELD):
        assert text not in got
    assert b"******" in got.partition(b"\r\n\r\n")[2]


async def test_t29_a_field_of_a_rotated_value(documents: None) -> None:
    """The field of each value is redacted, whichever one is in use."""
    api = {
        "secrets": {"key": ["env:DUMMY_JSON", "env:DUMMY_ROTATED"]},
        "auth": [{"name": "key", **PLACEMENTS["header"]}],
    }
    async with stage(api=api) as one:
        one.provider.answer = answer(f"{FIELD} {OTHER}", status="400 Bad Request")
        got = await one.ask(GET)
    assert FIELD.encode() not in got
    assert OTHER.encode() not in got


async def test_t29_a_field_beside_a_token(documents: None) -> None:
    """A strategy with a token redacts the fields that its placements name as well."""
    fetched = {
        "secrets": {"key": "env:DUMMY_JSON"},
        "auth": [
            {
                "name": "token",
                "token": {
                    "type": "jwt",
                    "algorithm": "HS256",
                    "key": "{key.signing}",
                    "claims": {"iss": "dummy"},
                },
                "http": [
                    {"header": "Authorization", "value": "Bearer {token}"},
                    PLACEMENTS["header"],
                ],
            }
        ],
    }
    async with stage(fetched=fetched) as one:
        one.provider.answer = lambda head: echo(head, "400 Bad Request")
        got = await one.ask(GET.replace(b"/api", b"/minted"))
        sent = one.provider.heads[-1]
    assert status(got) == 400
    for text in (FIELD, values(sent, "Authorization")[0].removeprefix("Bearer ")):
        assert text.encode() in sent
        assert text.encode() not in got


BASE64_KEY = "dummy+key/Base64+8f/2c/+=="
IN_QUERY = {"auth": [{"name": "key", "query": "api_key", "value": "{key}"}]}


@pytest.mark.parametrize("request_head", [GET, SOCKET], ids=["http", "websocket"])
@pytest.mark.parametrize("code", [300, 301, 302, 303, 305, 307, 308, 399])
async def test_t29_the_body_of_a_redirect(secrets: None, code: int, request_head: bytes) -> None:
    """A provider that redirects writes the target, with the query in it, into a link."""
    async with stage(api=IN_QUERY) as one:
        one.provider.answer = lambda head: answer(
            f'<a href="{line(head).split()[1]}">Moved</a>',
            "Content-Type: text/html",
            status=f"{code} Elsewhere",
        )
        got = await one.ask(request_head)
        assert KEY.encode() in one.provider.heads[-1]
    assert status(got) == code
    assert KEY.encode() not in got
    assert b"?api_key=" + b"*" * len(KEY) in got


async def test_t29_a_handshake_without_websocket(secrets: None) -> None:
    """A provider that responds to a handshake with 200 has opened nothing; its body is redacted."""
    async with stage() as one:
        one.provider.answer = lambda head: answer(line(head))
        got = await one.ask(SOCKET)
    assert status(got) == 200
    assert KEY.encode() not in got


@pytest.mark.parametrize(
    "references",
    [
        {"+": "&#43;"},
        {"/": "&#x2F;"},
        {"=": "&#61;"},
        {"+": "&#43;", "=": "&#61;"},
        {"+": "&#43;", "/": "&#x2F;", "=": "&#61;"},
        {"+": "&#43;", "/": "&#47;", "=": "&#61;"},
        {"+": "&#x2b;", "/": "&#x2f;", "=": "&#x3d;"},
        {"+": "&#x2B;", "/": "&#x2F;", "=": "&#x3D;"},
        {"/": "&#x2F;", "=": "&#x3D;"},
        {"+": "&plus;", "/": "&sol;", "=": "&equals;"},
    ],
    ids=lambda references: " ".join(references.values()),
)
@pytest.mark.parametrize("basic", [False, True], ids=["key", "basic"])
async def test_t29_character_references(
    secrets: None, monkeypatch: pytest.MonkeyPatch, references: dict[str, str], basic: bool
) -> None:
    """Base64 in a page of HTML, where encoders replace some of its characters or all."""
    monkeypatch.setenv("DUMMY_KEY", BASE64_KEY)
    sent = base64.b64encode(b">>>???~" + BASE64_KEY.encode()).decode() if basic else BASE64_KEY
    markup = sent.translate({ord(sign): text for sign, text in references.items()})
    async with stage() as one:
        one.provider.answer = answer(f"<p>{markup}</p>", status="403 Forbidden")
        got = await one.ask(GET)
    body = got.partition(b"\r\n\r\n")[2]
    assert len(body) == len(markup) + 7
    # Of Base64 that begins with something else, the value's own digits.
    assert body.endswith(b"*" * (30 if basic else len(markup)) + b"</p>")


@pytest.mark.parametrize("quote_reference", ["&#39;", "&#x27;", "'"])
async def test_t29_markup_in_a_key(
    secrets: None, monkeypatch: pytest.MonkeyPatch, quote_reference: str
) -> None:
    """The characters that every encoder of HTML replaces."""
    monkeypatch.setenv("DUMMY_KEY", "dummy<key>&'8f2c")
    markup = f"dummy&lt;key&gt;&amp;{quote_reference}8f2c"
    async with stage() as one:
        one.provider.answer = answer(markup, status="403 Forbidden")
        got = await one.ask(GET)
    assert got.endswith(b"\r\n\r\n" + b"*" * len(markup))
