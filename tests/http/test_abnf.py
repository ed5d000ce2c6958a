"""The shared grammar: what each rule matches, at its edges."""

from __future__ import annotations

import re

import pytest

from proxy.http import abnf


@pytest.mark.parametrize("code", range(256))
def test_tokens_and_field_values(code: int) -> None:
    """Each octet by itself: tchar of RFC 9110 section 5.6.2, field-content of section 5.5."""
    token = chr(code).isascii() and (chr(code).isalnum() or chr(code) in "!#$%&'*+-.^_`|~")
    assert bool(abnf.TOKEN.fullmatch(chr(code))) == token
    value = code == 9 or (code >= 32 and code != 127)
    assert bool(abnf.FIELD_VALUE.fullmatch(bytes([code]))) == value


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        (abnf.METHOD, "GET", True),
        (abnf.METHOD, "VERSION-CONTROL", True),
        (abnf.METHOD, "get", False),
        (abnf.METHOD, "", False),
        (abnf.PORT, "65535", True),
        (abnf.PORT, "123456", False),
        (abnf.PORT, "-1", False),
        (re.compile(abnf.AUTHORITY), "user@host:1", True),
        (re.compile(abnf.AUTHORITY), "host/path", False),
        (re.compile(f"[{abnf.VISIBLE_CHARS}]"), " ", False),
        (re.compile(f"[{abnf.VISIBLE_CHARS}]"), "~", True),
        (re.compile(f"[{abnf.PATH_CHARS}]"), "%", False),
        (re.compile(f"[{abnf.PATH_CHARS}]"), ":", True),
    ],
)
def test_rules(pattern: re.Pattern[str], text: str, matches: bool) -> None:
    """Methods, ports, authorities, visible characters and path characters."""
    assert bool(pattern.fullmatch(text)) == matches
