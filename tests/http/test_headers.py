"""Which fields cross in either direction, and what is taken out of queries and subprotocols."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.headers import (
    CREDENTIAL_HEADERS,
    CREDENTIAL_SUBPROTOCOLS,
    DROPPED_FOR_BROWSERS,
    DROPPED_FROM_REQUESTS,
    DROPPED_FROM_RESPONSES,
    FORWARDING_FIELDS,
    URL_FIELDS,
    _special,
    request_fields,
    response_fields,
    split_subprotocols,
    strip_query,
)
from proxy.http.request import RawHeaders

Fields = list[tuple[bytes, bytes]]

TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
# What the parsers let through in a value: anything but what ends a line.
VALUES = st.binary(max_size=30).map(
    lambda raw: bytes(byte for byte in raw if byte not in b"\r\n\0").strip(b" \t")
)
# Begins with q: no field that has a meaning does.
ORDINARY_NAMES = st.lists(st.sampled_from(TOKEN), max_size=12).map(lambda raw: b"q" + bytes(raw))
ORDINARY_FIELDS = st.lists(st.tuples(ORDINARY_NAMES, VALUES), max_size=8)


def lines(fields: Fields) -> bytes:
    return b"".join(name + b": " + value + b"\r\n" for name, value in fields)


def block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The same as the head of an answer has them."""
    return b"\n" + lines(list(fields))


def sent(*fields: tuple[bytes, bytes], dropped: frozenset[bytes] = DROPPED_FROM_REQUESTS) -> bytes:
    return request_fields(fields, dropped)


def unchanged(_name: bytes, value: bytes) -> bytes:
    return value


@st.composite
def spelled(draw: st.DrawFn, name: bytes, *, twins: bool = True) -> bytes:
    """``name`` in any case, and with ``_`` for any ``-``."""
    characters = []
    for character in name.decode():
        if character == "-" and twins:
            character = draw(st.sampled_from("-_"))
        characters.append(draw(st.sampled_from((character.lower(), character.upper()))))
    return "".join(characters).encode()


@st.composite
def percent_encoded(draw: st.DrawFn, text: bytes) -> bytes:
    """``text`` with any of its bytes written as an escape, in any case."""
    done = b""
    for byte in text:
        plain = bytes((byte,))
        done += draw(st.sampled_from((plain, b"%%%02x" % byte, b"%%%02X" % byte)))
    return done


# -- requests --------------------------------------------------------------------------------------


@given(ORDINARY_FIELDS)
def test_ordinary_fields_cross_byte_for_byte(fields: Fields) -> None:
    """Order, case, repetitions and odd bytes of a client's fields reach the provider as sent."""
    assert request_fields(tuple(fields), DROPPED_FROM_REQUESTS) == lines(fields)


def test_fields_that_mean_something_end_to_end_cross() -> None:
    """What conditions, negotiates, resumes or describes a message is the provider's business."""
    fields = [
        (name, b"x")
        for name in (
            b"Accept",
            b"Accept-Encoding",
            b"Cache-Control",
            b"Content-Encoding",
            b"Content-Length",
            b"Content-Type",
            b"Idempotency-Key",
            b"If-None-Match",
            b"Last-Event-ID",
            b"Range",
            b"User-Agent",
            b"anthropic-version",
            b"traceparent",
        )
    ]
    assert sent(*fields) == lines(fields)


@given(st.data(), ORDINARY_FIELDS, ORDINARY_FIELDS)
def test_no_credential_of_a_client_crosses(
    data: st.DataObject, before: Fields, after: Fields
) -> None:
    """T16, T17: however a credential's field is spelled and repeated, none of it leaves."""
    name = data.draw(st.sampled_from(sorted(DROPPED_FROM_REQUESTS - {b"connection"})))
    forms = data.draw(st.lists(spelled(name), min_size=1, max_size=4))
    fields = [*before, *((form, b"dummy-mine") for form in forms), *after]
    assert request_fields(tuple(fields), DROPPED_FROM_REQUESTS) == lines(before + after)


@pytest.mark.parametrize(
    "name",
    [
        b"Authorization",
        b"Cookie",
        b"Proxy-Authorization",
        b"X-Api-Key",
        b"X_Api_Key",
        b"x-hume-api-key",
        b"xi-api-key",
        b"api-key",
        b"X-Goog-Api-Key",
        b"Ocp-Apim-Subscription-Key",
    ],
)
def test_common_credentials_are_not_forwarded(name: bytes) -> None:
    """T13, T16, T17: the places where SDKs put their key are emptied on every route."""
    assert sent((name, b"dummy-mine")) == b""


@pytest.mark.parametrize(
    "name",
    [
        b"X-HTTP-Method-Override",
        b"X-HTTP-Method",
        b"X_Method_Override",
        b"X-Original-URL",
        b"X-Rewrite-URL",
        b"Host",
        b"Expect",
        b"Origin",
        b"Referer",
        b"Sec-Fetch-Site",
        b"HTTP2-Settings",
        b"Upgrade",
        b"TE",
        b"Trailer",
        b"Transfer-Encoding",
        b"Keep-Alive",
    ],
)
def test_fields_that_clients_must_not_set_are_not_forwarded(name: bytes) -> None:
    """T20, T23: overrides, framing, upgrades and a browser's marks never reach the provider."""
    assert sent((name, b"DELETE")) == b""


FORWARDING = [
    b"Forwarded",
    b"Via",
    b"X-Forwarded",
    b"X-Forwarded-For",
    b"x-forwarded-host",
    b"X-Forwarded-Proto",
    b"X-FORWARDED-PORT",
    b"X-Forwarded-Prefix",
    b"X-Forwarded-Client-Cert",
    b"X-Forwarded-User",
    b"X-Forwarded-Of-A-Proxy-Yet-Unknown",
    b"X_Forwarded_For",
    b"X_Forwarded-Email",
    b"X-Real-IP",
    b"X-Client-IP",
    b"X-Cluster-Client-IP",
    b"True-Client-IP",
    b"CF-Connecting-IP",
    b"CF-Ray",
    b"CDN-Loop",
    b"Fly-Client-IP",
    b"X-Original-Host",
    b"X-Original-Forwarded-For",
    b"X-Envoy-External-Address",
    b"X-Scheme",
]


@pytest.mark.parametrize("name", FORWARDING)
def test_fields_of_proxies_in_front_of_keyrelay_are_dropped_by_marker(name: bytes) -> None:
    """They describe this machine: dropped in every spelling, and forwarded where a route asks."""
    line = (name, b"192.0.2.7")
    kept = b"X-Forward: 1\r\n"
    dropped = DROPPED_FROM_REQUESTS | FORWARDING_FIELDS
    assert request_fields((line, (b"X-Forward", b"1")), dropped) == kept
    named = (line, (b"Connection", b"close, X-Custom"), (b"X-Forward", b"1"))
    assert request_fields(named, dropped) == kept
    assert request_fields((line,), DROPPED_FROM_REQUESTS) == name + b": 192.0.2.7\r\n"


@pytest.mark.parametrize("name", [b"X-Forwarded-Access-Token", b"X-Auth-Request-Access-Token"])
def test_a_user_s_token_of_an_authenticating_proxy_is_a_credential(name: bytes) -> None:
    """It never reaches a provider, whatever the route passes."""
    assert request_fields(((name, b"dummy-token"),), DROPPED_FROM_REQUESTS) == b""


@pytest.mark.parametrize(
    "name",
    [b"Content_Length", b"content_length", b"Sec_WebSocket_Protocol", b"Sec-WebSocket_Key"],
)
def test_twins_of_what_was_checked_stay_here(name: bytes) -> None:
    """T17: a server that folds ``_`` gets no second framing and no second handshake."""
    assert sent((name, b"5"), (b"Content-Length", b"3")) == b"Content-Length: 3\r\n"


def test_a_name_with_an_underscore_crosses_if_its_twin_does() -> None:
    """Only controlled names lose their twins; a client's own ``_`` is fine."""
    assert sent((b"my_field", b"1")) == b"my_field: 1\r\n"


@pytest.mark.parametrize(
    "connection",
    [
        [b"X-Hop"],
        [b"close, X-Hop"],
        [b"x-hop,keep-alive"],
        [b"close", b"X-Hop"],
        [b"X-Other", b"X-Hop"],
        [b"X-Hop", b"X-Other"],
        [b" , X-HOP ,"],
    ],
)
def test_fields_that_connection_names_stay_here(connection: list[bytes]) -> None:
    """RFC 9110 section 7.6.1: whatever any line of Connection names ends with this hop."""
    fields = [(b"Connection", value) for value in connection]
    assert sent((b"X-Hop", b"1"), *fields, (b"x-hop", b"2"), (b"X-End", b"3")) == b"X-End: 3\r\n"


@pytest.mark.parametrize("value", [b"Content-Length", b"close, content-length", b"CONTENT-LENGTH"])
def test_connection_cannot_name_the_framing_away(value: bytes) -> None:
    """The length of a body stays with the body, or its rest would be read as the next request."""
    assert sent((b"Connection", value), (b"Content-Length", b"3")) == b"Content-Length: 3\r\n"


def test_usual_connection_options_change_nothing_else() -> None:
    """close, keep-alive, upgrade and te name what does not cross anyway."""
    for value in (b"close", b"keep-alive", b"Upgrade", b"TE, close", b""):
        assert sent((b"Connection", value), (b"Accept", b"*/*")) == b"Accept: */*\r\n"


# -- answers ---------------------------------------------------------------------------------------


@given(ORDINARY_FIELDS)
def test_responses_cross_byte_for_byte(fields: Fields) -> None:
    """A provider's fields reach the client in their order, case, number and bytes."""
    assert response_fields(block(fields), DROPPED_FROM_RESPONSES, unchanged) == lines(fields)


def test_programs_get_the_provider_s_cookies_and_challenges() -> None:
    """What is kept from pages is kept from pages only: an SDK sees the answer as it is."""
    fields = [
        (b"Set-Cookie", b"a=1"),
        (b"Set-Cookie", b"b=2"),
        (b"WWW-Authenticate", b"Bearer"),
        (b"Access-Control-Allow-Origin", b"*"),
        (b"Retry-After", b"3"),
        (b"X-RateLimit-Remaining", b"0"),
    ]
    assert response_fields(block(fields), DROPPED_FROM_RESPONSES, unchanged) == lines(fields)


@pytest.mark.parametrize(
    "name",
    [
        b"Connection",
        b"Keep-Alive",
        b"Transfer-Encoding",
        b"Trailer",
        b"Upgrade",
        b"Alt-Svc",
        b"Proxy-Authenticate",
        b"Proxy-Connection",
    ],
)
def test_hop_by_hop_fields_of_responses_stay_here(name: bytes) -> None:
    """What the provider says about its own connection is not passed on."""
    assert response_fields(block([(name, b"x")]), DROPPED_FROM_RESPONSES, unchanged) == b""


def test_fields_that_a_response_s_connection_names_stay_here() -> None:
    """RFC 9110 section 7.6.1 goes for answers too, over all lines of Connection."""
    fields: RawHeaders = (
        (b"Connection", b"X-A"),
        (b"X-A", b"1"),
        (b"Connection", b"X-B, Content-Length"),
        (b"X-B", b"2"),
        (b"Content-Length", b"0"),
    )
    assert (
        response_fields(block(fields), DROPPED_FROM_RESPONSES, unchanged)
        == b"Content-Length: 0\r\n"
    )


@pytest.mark.parametrize(
    "name",
    [
        b"Access-Control-Allow-Origin",
        b"Access-Control-Allow-Credentials",
        b"Access-Control-Expose-Headers",
        b"access-control-allow-methods",
        b"Access-Control-Allow-Headers",
        b"Access-Control-Allow-Private-Network",
        b"Access-Control-Max-Age",
        b"Timing-Allow-Origin",
        b"Set-Cookie",
        b"WWW-Authenticate",
        b"Strict-Transport-Security",
        b"Alt-Svc",
        b"Clear-Site-Data",
        b"NEL",
        b"Report-To",
        b"Reporting-Endpoints",
        b"Refresh",
        b"Service-Worker-Allowed",
        b"Content-Security-Policy",
        b"Cross-Origin-Resource-Policy",
        b"Referrer-Policy",
        b"X-Content-Type-Options",
    ],
)
def test_pages_get_nothing_that_rules_over_localhost(name: bytes) -> None:
    """T11, T12, T13: no provider decides for the browser origin that all routes share."""
    fields = ((name, b"*"), (b"Content-Type", b"text/html"))
    got = response_fields(block(fields), DROPPED_FOR_BROWSERS, unchanged)
    assert got == b"Content-Type: text/html\r\n"


@pytest.mark.parametrize("value", [b"a\rX: y", b"a\nX: y", b"a\r\nX: y", b"\r\n", b"a\0b"])
def test_a_location_cannot_smuggle_a_field(value: bytes) -> None:
    """T24: a value that would end its line makes the whole answer invalid."""
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        response_fields(
            block([(b"Location", b"/")]), DROPPED_FROM_RESPONSES, lambda _name, _value: value
        )


def test_names_of_a_provider_become_no_expression() -> None:
    """Many lines of Connection with many names each: looked at once, compiled and kept never."""
    names = [b"x-%d" % number for number in range(2_000)]
    fields = [(b"Connection", b",".join(names[at::8])) for at in range(8)]
    fields += [(name, b"1") for name in names[::100]] + [(b"X-Kept", b"1")]
    known = _special.cache_info().currsize
    got = response_fields(block(fields), DROPPED_FROM_RESPONSES, unchanged)
    assert got == b"X-Kept: 1\r\n"
    assert _special.cache_info().currsize <= max(known, 1)


def test_fields_with_urls_are_rewritten() -> None:
    """Each of them, in whatever case, and those that the route names; no other field."""
    fields: RawHeaders = (
        (b"LOCATION", b"/x"),
        (b"Content-Location", b"/x"),
        (b"X-Next", b"/x"),
        (b"X-Location", b"/x"),
    )
    got = response_fields(
        block(fields),
        DROPPED_FROM_RESPONSES,
        lambda name, value: b"/%b%b" % (name, value),
        URL_FIELDS | {b"x-next"},
    )
    assert got == (
        b"LOCATION: /location/x\r\nContent-Location: /content-location/x\r\n"
        b"X-Next: /x-next/x\r\nX-Location: /x\r\n"
    )


# -- queries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "left"),
    [
        # T18, to the letter: names are compared exactly, after decoding.
        (b"key=a&%6bey=b&KEY=c", b"KEY=c"),
        (b"a=1&key=x&b=2", b"a=1&b=2"),
        (b"key", b""),
        (b"key=&key&x", b"x"),
        (b"%6B%65%79=x&a", b"a"),
        (b"+key=x&%20key=y&a", b"a"),
        (b"keys=1&monkey=2&a=key", b"keys=1&monkey=2&a=key"),
        (b"%256bey=1", b"%256bey=1"),
        (b"a=key=1", b"a=key=1"),
    ],
)
def test_the_route_s_own_parameter_is_taken_out(query: bytes, left: bytes) -> None:
    """T18: every pair whose decoded name is the credential's goes, and nothing else does."""
    assert strip_query(query, frozenset({b"key"})) == left


@pytest.mark.parametrize(
    "name",
    [
        b"api_key",
        b"apiKey",
        b"apikey",
        b"API-KEY",
        b"access_token",
        b"accessToken",
        b"xi_api_key",
        b"xi-api-key",
        b"Authorization",
        b"api%5Fkey",
        b"%61ccess_token",
        b"access%2Dtoken",
    ],
)
def test_common_parameters_are_removed(name: bytes) -> None:
    """Where SDKs put their key for WebSockets, in every spelling there is of it."""
    assert strip_query(b"a=1&" + name + b"=dummy-mine&b=2", frozenset()) == b"a=1&b=2"


PAIRS = st.sampled_from(
    [
        b"",
        b"=",
        b"a",
        b"a=",
        b"a=1",
        b"a=%20",
        b"a=+",
        b"a=%2F",
        b"a=/",
        b"a=?",
        b"m%5B%5D=1",
        b"m[]=2",
        b"k=%zz",
        b"%",
        b"a=%C3%A9",
        b"a==b",
        b"a;b=c",
        b"token=x",
        b"t=a:b",
        b"a=%41",
    ]
)


@given(st.lists(PAIRS, max_size=8))
def test_an_ordinary_query_is_left_byte_for_byte(pairs: list[bytes]) -> None:
    """Encodings, repetitions, empty names and values stay as the client wrote them."""
    query = b"&".join(pairs)
    assert strip_query(query, frozenset({b"key"})) == query


@given(st.data(), st.lists(PAIRS, max_size=4), st.lists(PAIRS, max_size=4))
def test_no_spelling_of_a_credential_s_name_gets_through(
    data: st.DataObject, before: list[bytes], after: list[bytes]
) -> None:
    """T18: however its name is encoded, the pair goes and its neighbours stay as written."""
    name = data.draw(percent_encoded(data.draw(st.sampled_from((b"demo_key", b"access_token")))))
    pair = name + data.draw(st.sampled_from((b"", b"=", b"=dummy-mine", b"=a=b")))
    left = strip_query(b"&".join([*before, pair, *after]), frozenset({b"demo_key"}))
    assert left == b"&".join(before + after)


@given(st.binary(max_size=60))
def test_what_is_left_of_any_query_has_no_credential(query: bytes) -> None:
    """Arbitrary bytes never raise, lose nothing but whole pairs, and hold no credential after."""
    left = strip_query(query, frozenset({b"key"}))
    if left:
        assert set(left.split(b"&")) <= set(query.split(b"&"))
    for pair in left.split(b"&"):
        assert unquote_to_bytes(pair.partition(b"=")[0].replace(b"+", b" ")).strip() != b"key"


# -- subprotocols ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "passed", "kept"),
    [
        ([], [], []),
        ([b"graphql-ws"], [b"graphql-ws"], []),
        (
            [b"realtime, openai-insecure-api-key.dummy"],
            [b"realtime"],
            [b"openai-insecure-api-key.dummy"],
        ),
        ([b"bearer_dummy"], [], [b"bearer_dummy"]),
        ([b"Bearer_dummy ,a"], [b"a"], [b"Bearer_dummy"]),
        ([b"convai, bearer.dummy"], [b"convai"], [b"bearer.dummy"]),
        ([b"bearers"], [b"bearers"], []),
        (
            [b"chat, eyJhbGciOiJub25lIn0.eyJkdW1teSI6MX0."],
            [b"chat"],
            [b"eyJhbGciOiJub25lIn0.eyJkdW1teSI6MX0."],
        ),
        ([b"a", b"bearer_dummy", b"b,c"], [b"a", b"b", b"c"], [b"bearer_dummy"]),
    ],
)
def test_subprotocols_that_carry_a_key_are_separated(
    values: list[bytes], passed: list[bytes], kept: list[bytes]
) -> None:
    """T45: over all lines, in order and in any case, the keys are separated from the rest."""
    raw = tuple((b"sec-WebSocket-protocol", value) for value in values)
    assert split_subprotocols(raw, CREDENTIAL_SUBPROTOCOLS) == (passed, kept)


def test_names_that_are_compared_are_lower_case() -> None:
    """The sets hold what fields are folded to; a capital in one would open a hole."""
    for names in (CREDENTIAL_HEADERS, DROPPED_FROM_REQUESTS, DROPPED_FOR_BROWSERS):
        assert all(name == name.lower() and b"_" not in name for name in names)
