from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import ConfigValueError
from proxy.http.path_patterns import PatternSet, check_pattern


@pytest.mark.parametrize(
    ("pattern", "method", "path"),
    [
        ("/v1/voices", "GET", "/v1/voices"),
        ("/v1/voices", "DELETE", "/v1/voices"),
        ("GET /v1/voices", "GET", "/v1/voices"),
        ("GET /v1/voices", "HEAD", "/v1/voices"),
        ("/v1/*", "GET", "/v1/voices"),
        ("/v1/*", "GET", "/v1/a%2Fb"),
        ("/v1/*/x", "GET", "/v1/voice:stream/x"),
        ("/v1/voice*", "GET", "/v1/voice:stream"),
        ("/v1/a*b*c", "GET", "/v1/a-b-b-c"),
        ("/v1/**", "GET", "/v1"),
        ("/v1/**", "GET", "/v1/"),
        ("/v1/**", "GET", "/v1/a/b/c"),
        ("/**", "GET", "/"),
        ("/**", "GET", ""),
        ("/", "GET", ""),
        ("/**/b", "GET", "/b"),
        ("/**/b", "GET", "/b/a/b"),
        ("/a/**/x*/c/**/e", "GET", "/a/xb/c/xc/c/e/e"),
        ("/a/**/**", "GET", "/a"),
        ("/a b".replace(" ", "%20"), "GET", "/a%20b"),
        ("/%61", "GET", "/a"),
        ("/a", "GET", "/%61"),
        ("/é", "GET", "/%C3%A9"),
        ("/a%2Fb", "GET", "/a%2fb"),
        ("/a%2Ab", "GET", "/a*b"),
    ],
)
def test_patterns_match_what_they_say(pattern: str, method: str, path: str) -> None:
    """A pattern matches the paths that its words promise."""
    assert PatternSet([pattern]).matches(method, path)


@pytest.mark.parametrize(
    ("pattern", "method", "path"),
    [
        ("/v1/voices", "GET", "/v1/voices/"),
        ("/v1/voices", "GET", "/v1/voicesx"),
        ("/v1/voices", "GET", "/V1/voices"),
        ("/v1/voices", "GET", "//v1/voices"),
        ("/v1/voices", "GET", "/v1%2Fvoices"),
        ("/v1/voices", "GET", "/v1/%2576oices"),
        ("GET /v1/voices", "POST", "/v1/voices"),
        ("HEAD /v1/voices", "GET", "/v1/voices"),
        ("GET /v1/voices", "get", "/v1/voices"),
        ("/v1/*", "GET", "/v1/a/b"),
        ("/v1/*", "GET", "/v1"),
        ("/v1/**", "GET", "/v1x"),
        ("/v1/**", "GET", "/v1/../admin"),
        ("/v1/**", "GET", "/v1/%2e%2e/admin"),
        ("/v1/**", "GET", "/v1/%252E%252e/admin"),
        ("/v1/**", "GET", "/v1/..%2f..%2fadmin"),
        ("/v1/**", "GET", "/v1/..;/admin"),
        ("/v1/**", "GET", "/v1/..%5cadmin"),
        ("/a%2Fb", "GET", "/a/b"),
        ("/a%2Ab", "GET", "/axb"),
        ("/a.b", "GET", "/axb"),
    ],
)
def test_patterns_match_nothing_else(pattern: str, method: str, path: str) -> None:
    """What is allowed is compared exactly; an encoded slash parts nothing, dots lead nowhere."""
    assert not PatternSet([pattern]).matches(method, path)


@pytest.mark.parametrize(
    "path",
    [
        "/oauth2-cc/token",
        "/oauth2-cc",
        "/oauth2-cc/",
        "//oauth2-cc///token",
        "/OAuth2-CC/Token",
        "/%6Fauth2-cc/token",
        "/%256Fauth2%252Dcc/token",
        "/%%36Fauth2-cc/token",
        "/oauth2-cc%2Ftoken",
        "/oauth2-cc%252Ftoken",
        "/oauth2-cc\\token",
        "/oauth2-cc%5Ctoken",
        "\\oauth2-cc\\token",
        "/oauth2-cc;v=1/token;x",
        "/oauth2-cc%3Bv=1/token",
        "/./oauth2-cc/token",
        "/x/../oauth2-cc/token",
        "/x/%2e%2e/oauth2-cc/token",
        "/x%2F..%2Foauth2-cc/token",
        "/..;/oauth2-cc/token",
        "/oauth2-cc%3Fx",
        "/oauth2-cc%00x",
        "/" + "%25" * 3 + "2525252525256fauth2-cc",
    ],
)
def test_a_denied_path_is_caught_in_every_spelling(path: str) -> None:
    """However a server reads the path, if it reads the denied one, it is caught."""
    denied = PatternSet(["/safe", "POST /oauth2-cc/**"])
    assert denied.catches("POST", path)
    assert denied.catches("post", path)


@pytest.mark.parametrize("path", ["/a/b%2Fc", "/a%2Fb%252Fc", "/a/b%5Cc", "/A//b%252fc", "/a/b"])
def test_a_star_catches_one_segment_in_every_reading(path: str) -> None:
    """An encoded slash may be part of a segment or end it; a star covers either reading."""
    assert PatternSet(["/a/*"]).catches("GET", path)


@pytest.mark.parametrize("path", ["/oauth2-ccx", "/a/oauth2-cc", "/v0/tts", "/", "", "/a%20b.c"])
def test_other_paths_are_not_caught(path: str) -> None:
    """A denied path takes nothing else with it, and a method is respected."""
    denied = PatternSet(["POST /oauth2-cc/**", "/x/*"])
    assert not denied.catches("POST", path)
    assert not denied.catches("GET", "/oauth2-cc/token")
    assert not denied.catches("GET", "/x/a/b")


def test_head_counts_as_get_when_caught() -> None:
    """The head of a denied answer is denied as well."""
    assert PatternSet(["GET /x"]).catches("HEAD", "/x")


def test_the_pattern_that_decided_is_named() -> None:
    """What found a request can be shown as it was written."""
    patterns = PatternSet(["GET /a", "/b/**", "/**"])
    assert patterns.find_match("GET", "/b/c") == "/b/**"
    assert patterns.find_catch("POST", "/B") == "/b/**"
    assert patterns.find_match("POST", "/a") == "/**"
    assert patterns.texts == ("GET /a", "/b/**", "/**")
    assert "/b/**" in repr(patterns)


def test_no_patterns_decide_nothing() -> None:
    """An empty set is falsy, matches nothing and catches nothing."""
    patterns = PatternSet([])
    assert not patterns
    assert not patterns.matches("GET", "/")
    assert not patterns.catches("GET", "/%25252525252525252541")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v1", "write for example /v1/**"),
        ("", "write for example"),
        ("GET", "write for example"),
        ("GET  /a", "write for example"),
        ("get /a", "capitals"),
        ("/a b", "write for example"),
        ("/a?x=1", "neither spaces"),
        ("/a\\b", "neither spaces"),
        ("/a\x00", "neither spaces"),
        ("/a**", "whole segment"),
        ("/***", "whole segment"),
        ("/a/../b", "dot segments"),
        ("/a/%2e/b", "dot segments"),
        ("/" + "a" * 2000, "at most 1024"),
    ],
)
def test_what_is_no_pattern_is_refused_with_advice(text: str, expected: str) -> None:
    """A mistyped pattern is an error with a second line that says what to write."""
    with pytest.raises(ConfigValueError, match=r".: .") as caught:
        check_pattern(text)
    assert expected in str(caught.value)


DENIED = "/auth/v1/tokens/token:generate"


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """The denied path: characters encoded up to thrice, in any case, separators repeated."""
    out = ""
    for character in DENIED:
        if character == "/":
            slash = st.sampled_from(["/", "\\", "%2F", "%2f", "%5C", "%252F", "%255c"])
            out += "".join(draw(st.lists(slash, min_size=1, max_size=3)))
            continue
        text = draw(st.sampled_from([character, character.upper()]))
        for _ in range(draw(st.integers(0, 3))):
            place = draw(st.integers(0, len(text) - 1))
            code = f"{ord(text[place]):02x}"
            code = draw(st.sampled_from([code, code.upper()]))
            text = f"{text[:place]}%{code}{text[place + 1 :]}"
        out += text
    tail = draw(st.sampled_from(["", "/", "//", ";x", ";x/", "%2f", "%3bx"]))
    return "/" + out.lstrip("/") + tail


@given(spellings(), st.sampled_from([DENIED, "/auth/v1/tokens*/**", "/auth/**", "/**/token:*"]))
def test_no_spelling_of_a_denied_path_slips_by(path: str, pattern: str) -> None:
    """Encoding, case, doubled and other slashes and parameters never hide a denied path."""
    assert PatternSet([pattern]).catches("POST", path)


@given(st.text(), st.text())
def test_any_path_can_be_asked_about(method: str, path: str) -> None:
    """No request makes a decision fail."""
    patterns = PatternSet(["GET /a/**/b*c/*", "/x%2Fy"])
    patterns.matches(method, path)
    patterns.catches(method, path)


@given(
    st.lists(st.sampled_from(["a", "b", "ab", "*", "a*", "*b", "**", "a*b*"]), min_size=1),
    st.lists(st.sampled_from(["a", "b", "ab", "aab", "c", ""]), min_size=1),
)
def test_matching_agrees_with_the_definition(pattern: list[str], path: list[str]) -> None:
    """The compiled form decides as the plain recursive meaning of ``*`` and ``**`` does."""

    def one(glob: str, text: str) -> bool:
        if not glob:
            return not text
        if glob[0] == "*":
            return one(glob[1:], text) or (bool(text) and one(glob, text[1:]))
        return bool(text) and glob[0] == text[0] and one(glob[1:], text[1:])

    def all_of(globs: list[str], texts: list[str]) -> bool:
        if not globs:
            return not texts
        if globs[0] == "**":
            return all_of(globs[1:], texts) or (bool(texts) and all_of(globs, texts[1:]))
        return bool(texts) and one(globs[0], texts[0]) and all_of(globs[1:], texts[1:])

    compiled = PatternSet(["/" + "/".join(pattern)])
    # A leading ** may stand for nothing at all, while a path always has its first slash.
    expected = all_of(pattern, path)
    assert compiled.matches("GET", "/" + "/".join(path)) == expected


@pytest.mark.parametrize(
    "path",
    ["/" * 8000, "/a" * 4000, "/" + "xy" * 4000, "/%25" * 2000, "/" + "%41" * 2600, "/a;" * 2600],
)
def test_no_path_takes_long(path: str) -> None:
    """A hostile path costs milliseconds, also with patterns that invite backtracking."""
    patterns = PatternSet(["/**/x*y*z/**/x/*x*/**/q", "/*/*/*/*/x", "/**/a/**/a/**/b"])
    started = time.process_time()
    patterns.matches("GET", path)
    patterns.catches("GET", path)
    assert time.process_time() - started < 2  # about 0.02 in fact; minutes if it went wrong
