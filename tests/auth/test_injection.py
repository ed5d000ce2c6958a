"""From placements and values to the bytes that go onto a request."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.auth.injection import Injection, inject
from proxy.config.placement import Placement
from proxy.config.route import StrategySettings

KEY = b"dummy-key"
# What sources let through: visible ASCII and latin-1, blanks within.
VALUES = st.binary(min_size=1, max_size=40).map(
    lambda raw: bytes(byte for byte in raw if byte >= 0x20 and byte != 0x7F).strip(b" ")
)


def placements(*documents: dict[str, Any]) -> tuple[Placement, ...]:
    """Placements as they would stand in YAML."""
    settings = StrategySettings.model_validate({"http": list(documents)})
    assert settings.http is not None
    return settings.http


def injected(*documents: dict[str, Any], **values: bytes) -> tuple[bytes, bytes, bytes]:
    injection = inject(placements(*documents), values or {"key": KEY})
    return injection.headers, injection.query, injection.path


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"header": "X-Api-Key", "value": "{key}"}, b"X-Api-Key: dummy-key\r\n"),
        ({"header": "x-aPi", "value": "Bearer {key}"}, b"x-aPi: Bearer dummy-key\r\n"),
        ({"header": "X-Api-Key", "value": "{{{key}}}"}, b"X-Api-Key: {dummy-key}\r\n"),
        ({"header": "X-Api-Key", "value": "{key}:{key}"}, b"X-Api-Key: dummy-key:dummy-key\r\n"),
    ],
)
def test_a_header_is_one_line(document: dict[str, Any], expected: bytes) -> None:
    """The name as it was written, the template filled, CRLF at the end."""
    assert injected(document) == (expected, b"", b"")


@given(VALUES)
def test_a_header_holds_the_value_byte_for_byte(value: bytes) -> None:
    """Whatever a source gives is sent as it is, and it is one line."""
    headers, _, _ = injected({"header": "X-Api-Key", "value": "{key}"}, key=value)
    assert headers == b"X-Api-Key: " + value + b"\r\n"
    assert headers.count(b"\n") == 1


@pytest.mark.parametrize("value", [b"a\r\nX: y", b"a\n", b"\r", b"a\0b", b"\x7f"])
def test_a_value_that_would_end_its_header_is_refused(value: bytes) -> None:
    """A token comes from outside: it cannot add a field, and the message does not repeat it."""
    with pytest.raises(ValueError, match="X-Api-Key") as caught:
        injected({"header": "X-Api-Key", "value": "{key}"}, key=value)
    assert "X: y" not in str(caught.value)


@pytest.mark.parametrize(
    ("username", "password", "joined"),
    [
        ("{key}", "", b"dummy-key:"),
        ("api", "{key}", b"api:dummy-key"),
        ("{user}", "{key}", b"dummy-user:dummy-key"),
        ("", "{key}", b":dummy-key"),
        ("u", "a:{key}:b", b"u:a:dummy-key:b"),
    ],
)
def test_basic_is_encoded_here(username: str, password: str, joined: bytes) -> None:
    """RFC 7617: Base64 of user name, colon, password; the password may hold colons."""
    document = {"basic": {"username": username, "password": password}}
    headers, query, path = injected(document, user=b"dummy-user", key=KEY)
    assert headers == b"Authorization: Basic " + base64.b64encode(joined) + b"\r\n"
    assert (query, path) == (b"", b"")


def test_a_user_name_with_a_colon_is_refused() -> None:
    """RFC 7617 section 2: it would move a part of the name into the password."""
    with pytest.raises(ValueError, match="colon") as caught:
        injected({"basic": {"username": "{key}"}}, key=b"dummy:name")
    assert "dummy" not in str(caught.value)


@given(VALUES)
def test_a_query_value_comes_out_as_it_was(value: bytes) -> None:
    """Everything that could end a pair or mean a blank is encoded, so it decodes to the value."""
    _, query, _ = injected({"query": "api_key", "value": "{key}"}, key=value)
    name, _, quoted = query.partition(b"=")
    assert name == b"api_key"
    assert unquote_to_bytes(quoted) == value
    assert not set(quoted) & set(b"&+=#;? /\\\"'<>")
    assert quoted.isascii()


def test_parameters_are_joined_in_order() -> None:
    """Names keep what a query allows in them; pairs are joined by ``&``."""
    got = injected({"query": "$a:b.c", "value": "{key}"}, {"query": "v", "value": "x {key}"})
    assert got == (b"", b"$a:b.c=dummy-key&v=x%20dummy-key", b"")


@given(VALUES)
def test_a_path_value_stays_within_its_segment(value: bytes) -> None:
    """No value opens a segment, a query or a fragment; it decodes to itself."""
    _, _, path = injected({"path": "/v1/bot{key}"}, key=value)
    assert path.startswith(b"/v1/bot")
    segment = path.removeprefix(b"/v1/bot")
    assert not set(segment) & set(b"/?#\\ ")
    assert segment.isascii()
    assert unquote_to_bytes(segment) == value


def test_a_path_keeps_what_a_segment_may_hold() -> None:
    """RFC 3986 section 3.3: a token with a colon is not encoded needlessly."""
    assert injected({"path": "/bot{key}"}, key=b"123:AA-b_c~") == (b"", b"", b"/bot123:AA-b_c~")


def test_cookies_are_one_field() -> None:
    """RFC 6265 section 5.4: several cookies go in one Cookie line, behind the other fields."""
    got = injected(
        {"cookie": "a", "value": "{key}"},
        {"cookie": "b", "value": "x-{key}"},
        {"header": "X-Y", "value": "1"},
    )
    assert got == (b"X-Y: 1\r\nCookie: a=dummy-key; b=x-dummy-key\r\n", b"", b"")


@pytest.mark.parametrize("value", [b"a b", b"a;b", b"a,b", b'"a"', b"a\\b", b"\xe9"])
def test_a_value_that_no_cookie_can_hold_is_refused(value: bytes) -> None:
    """RFC 6265 section 4.1.1: it would end the cookie; the message does not repeat it."""
    with pytest.raises(ValueError, match="cookie token") as caught:
        injected({"cookie": "token", "value": "{key}"}, key=value)
    assert value.decode("latin-1") not in str(caught.value)


def test_placements_of_all_kinds_go_together() -> None:
    """A provider that wants a key and an account gets each in its place."""
    got = injected(
        {"header": "X-Account", "value": "{account}"},
        {"query": "k", "value": "{key}"},
        {"path": "/t/{account}"},
        key=KEY,
        account=b"dummy-account",
    )
    assert got == (b"X-Account: dummy-account\r\n", b"k=dummy-key", b"/t/dummy-account")


def test_nothing_to_place_is_nothing() -> None:
    """No placement, no byte."""
    assert inject((), {}) == Injection()


def test_other_values_are_masked_as_well() -> None:
    """Under rotation a provider may tell of the value that it has just refused, in any form."""
    placed = placements(
        {"header": "X-Api-Key", "value": "{key}"}, {"basic": {"username": "{user}"}}
    )
    values = {"key": KEY, "user": b"dummy-user"}
    other = {"key": b"other-dummy-key", "user": b"other-user", "unused": b"not-placed"}
    redactor = inject(placed, values, [other]).redactor
    pair = base64.b64encode(b"other-user:")
    for text in (KEY, b"dummy-user", b"other-dummy-key", b"other-user", pair):
        assert redactor.redact(b"<" + text + b">") == b"<" + b"*" * len(text) + b">"
    assert redactor.redact(b"not-placed") == b"not-placed"
