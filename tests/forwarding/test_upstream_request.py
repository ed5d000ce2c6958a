"""The request as the provider sees it, byte for byte, with exactly one credential."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.auth.injection import Injection
from proxy.errors import Refusal
from proxy.forwarding.upstream_request import UpstreamRequest
from proxy.http.headers import CREDENTIAL_SUBPROTOCOLS, DROPPED_FROM_REQUESTS
from proxy.http.request import Request
from proxy.routing.route import RewriteRules
from proxy.server.guard import check_target

KEY = b"dummy-real-key"
IN_HEADER = Injection(headers=b"X-Acme-Key: " + KEY + b"\r\n")
IN_QUERY = Injection(query=b"acme_key=" + KEY)
IN_PATH = Injection(path=b"/bot" + KEY)
HANDSHAKE = [
    ("Host", "localhost"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
]


def rules(base_path: bytes = b"") -> RewriteRules:
    return RewriteRules(
        host=b"api.acme.test",
        base_path=base_path,
        dropped_headers=DROPPED_FROM_REQUESTS | {b"x-acme-key"},
        dropped_query=frozenset({b"acme_key"}),
        subprotocols=CREDENTIAL_SUBPROTOCOLS,
    )


def render(
    target: str,
    injection: Injection,
    *,
    base_path: bytes = b"",
    fields: list[tuple[str, str]] | None = None,
    websocket: bool = False,
) -> bytes:
    """What leaves for a client's target behind the prefix ``/acme``."""
    request = Request.of("GET", "/acme" + target, fields or [], websocket=websocket)
    rest = request.path.removeprefix(b"/acme")
    return UpstreamRequest(request, rest, rules(base_path)).render(injection)


def target_of(head: bytes) -> bytes:
    method, target, version = head.split(b"\r\n", 1)[0].split(b" ")
    assert (method, version) == (b"GET", b"HTTP/1.1")
    return target


def field_lines(head: bytes) -> list[bytes]:
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")[1:]


# What check_target admits in an origin-form target, odd bytes included.
TARGET = "".join(map(chr, range(0x21, 0x7F))).replace("#", "").replace("\\", "")
PATHS = st.text(TARGET.replace("?", ""), max_size=40).map(lambda rest: "/" + rest)
QUERIES = st.none() | st.text(TARGET.replace("%", ""), max_size=40).filter(
    lambda query: "key" not in query.lower() and "token" not in query.lower()
)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "/",
        "/a/b/",
        "/a//b",
        "/a%2Fb%2fc",
        "/a%20b+c",
        "/v1/models/m:generate",
        "/v1/x;y=1,2@z!$&'()*",
        "/%E2%82%AC/%41/%7e~",
        "/a?",
        "/a?x=1&x=2&x=",
        "/a?q=a+b%20c&m%5B%5D=1&m[]=2",
        "/a?&&=&x",
        "/a?u=https://e.test/?y=%26",
        '/a?"<>^`{|}',
    ],
)
@pytest.mark.parametrize("base_path", [b"", b"/v2", b"/v2/%7Etenant"])
def test_path_and_query_reach_the_provider_as_they_came(target: str, base_path: bytes) -> None:
    """Nothing is decoded, encoded, merged, sorted or resolved on the way."""
    expected = base_path + target.encode()
    if expected[:1] in {b"", b"?"}:
        expected = b"/" + expected
    assert target_of(render(target, IN_HEADER, base_path=base_path)) == expected


@given(PATHS, QUERIES)
def test_any_target_reaches_the_provider_as_it_came(path: str, query: str | None) -> None:
    """Whatever the guard admits leaves unchanged if it holds no credential."""
    target = path if query is None else f"{path}?{query}"
    assert target_of(render(target, IN_HEADER, base_path=b"/v2")) == b"/v2" + target.encode()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/a", b"/a?" + IN_QUERY.query),
        ("/a?", b"/a?" + IN_QUERY.query),
        ("/a?b=%2F+", b"/a?b=%2F+&" + IN_QUERY.query),
        ("/a?acme_key=mine", b"/a?" + IN_QUERY.query),
        ("/a?acme%5Fkey=mine&b&api_key=mine", b"/a?b&" + IN_QUERY.query),
        ("", b"/?" + IN_QUERY.query),
    ],
)
def test_a_credential_in_the_query_comes_last_and_alone(target: str, expected: bytes) -> None:
    """T18: the client's pairs of that name go, ours is spliced in behind the rest."""
    assert target_of(render(target, IN_QUERY)) == expected


def test_a_question_mark_goes_with_the_last_credential_behind_it() -> None:
    """A query of nothing but credentials leaves none, and no ``?`` either."""
    assert target_of(render("/a?api_key=dummy-mine", IN_HEADER)) == b"/a"


@pytest.mark.parametrize(
    ("base_path", "target", "expected"),
    [
        (b"", "/getMe", b"/bot" + KEY + b"/getMe"),
        (b"/api", "/getMe?x=1", b"/api/bot" + KEY + b"/getMe?x=1"),
        (b"", "", b"/bot" + KEY),
    ],
)
def test_a_credential_in_the_path_comes_behind_the_base_path(
    base_path: bytes, target: str, expected: bytes
) -> None:
    """The placement stands between the upstream's base path and the client's rest."""
    assert target_of(render(target, IN_PATH, base_path=base_path)) == expected


@given(
    st.lists(
        st.tuples(
            st.text("abcXYZ-_!", max_size=8).map(lambda name: "q" + name),
            st.text("".join(map(chr, (9, *range(32, 127)))) + "äé", max_size=20).map(str.strip),
        ),
        max_size=8,
    )
)
def test_fields_keep_order_repetitions_and_bytes(fields: list[tuple[str, str]]) -> None:
    """Host first, the client's fields as they came, the credential last."""
    head = render("/a", IN_HEADER, fields=[("Host", "localhost"), *fields])
    expected = [f"{name}: {value}".encode() for name, value in fields]
    assert field_lines(head) == [b"Host: api.acme.test", *expected, b"X-Acme-Key: " + KEY]


@given(st.data())
def test_exactly_one_credential_leaves(data: st.DataObject) -> None:
    """T16 to T19, T45: whatever a client leaves in all places at once, only ours leaves."""
    mine = "dummy-mine"
    # Offers of subprotocols cross in a handshake; what of them is a key is asked for below.
    carriers = (DROPPED_FROM_REQUESTS | {b"x-acme-key"}) - {b"sec-websocket-protocol"}
    names = sorted(name.decode() for name in carriers)
    spellings = st.sampled_from(names).flatmap(
        lambda name: st.sampled_from(
            (name, name.upper(), name.title(), name.replace("-", "_"), name.replace("-", "_", 1))
        )
    )
    values = st.sampled_from((mine, f"Bearer {mine}", f"a={mine}", f"x, {mine}"))
    fields = data.draw(st.lists(st.tuples(spellings, values), max_size=6))
    tricks = ("close, X-Acme-Key", "Authorization", "Content-Type, Cookie", "close", "Host")
    fields += [("Connection", one) for one in data.draw(st.lists(st.sampled_from(tricks)))]
    parameters = ("acme_key", "acme%5fkey", "%61cme_key", "api_key", "apiKey", "access_token")
    pairs = data.draw(st.lists(st.sampled_from(parameters), max_size=4))
    query = "&".join(f"{name}={mine}" for name in pairs)
    websocket = data.draw(st.booleans())
    if websocket:
        protocols = st.sampled_from((f"bearer_{mine}", f"openai-insecure-api-key.{mine}", "chat"))
        offered = data.draw(st.lists(protocols, min_size=1, max_size=3))
        fields = [*HANDSHAKE, *fields, ("Sec-WebSocket-Protocol", ",".join(offered))]
        fields += [("Sec_WebSocket_Protocol", f"bearer_{mine}")]
    injection = data.draw(st.sampled_from((IN_HEADER, IN_QUERY, IN_PATH)))
    head = render(f"/a?{query}", injection, fields=fields, websocket=websocket)
    assert mine.encode() not in head
    assert head.count(KEY) == 1
    assert sum(line.lower().startswith(b"host:") for line in field_lines(head)) == 1


def test_ten_thousand_targets_never_change_the_authority() -> None:
    """T22: whatever follows a route's prefix lands behind the ``/`` that ends the authority."""
    chance = random.Random(20261121)
    bits = ["//", "@", ":", "evil.test", "http://", "\\", "#", "?", "%2f", "%00", "..", " ", "\r\n"]
    bits += ["\tHost: evil.test", "/", "a", ";", "[::1]", "%0d%0a", "\x7f", "é", "*", "&", "="]
    admitted = 0
    for _ in range(10_000):
        text = "/acme" + "".join(chance.choices(bits, k=chance.randint(0, 8)))
        target = text.encode("utf-8").decode("latin-1")
        request = Request.of("GET", target, [("Host", "localhost")])
        try:
            check_target(request)
        except Refusal:
            continue
        if not request.path.startswith(b"/acme/") and request.path != b"/acme":
            continue
        admitted += 1
        rest = request.path.removeprefix(b"/acme")
        head = UpstreamRequest(request, rest, rules(b"/v2")).render(IN_HEADER)
        assert target_of(head).startswith((b"/v2/", b"/v2?")) or target_of(head) == b"/v2"
        assert field_lines(head) == [b"Host: api.acme.test", b"X-Acme-Key: " + KEY]
    assert admitted > 500


def test_a_chunked_body_is_announced_again() -> None:
    """Transfer-Encoding is ours to say on the connection that we send on."""
    fields = [("Transfer-Encoding", "chunked")]
    request = Request.of("POST", "/acme", fields)
    request.chunked = True
    head = UpstreamRequest(request, b"", rules()).render(IN_HEADER)
    assert field_lines(head).count(b"Transfer-Encoding: chunked") == 1


def test_a_request_can_be_rendered_again_with_another_credential() -> None:
    """A replay differs in its credential and in nothing else."""
    request = Request.of("POST", "/acme/a?b=1", [("Content-Length", "3")])
    upstream_request = UpstreamRequest(request, b"/a", rules())
    first = upstream_request.render(IN_HEADER)
    other = upstream_request.render(Injection(headers=b"X-Acme-Key: dummy-next-key\r\n"))
    assert other == first.replace(KEY, b"dummy-next-key")
    assert upstream_request.render(IN_HEADER) == first


def test_an_injection_is_not_printed() -> None:
    """T37: whatever prints an injection prints no secret."""
    for injection in (IN_HEADER, IN_QUERY, IN_PATH):
        for text in (repr(injection), str(injection), f"{injection}", f"{injection!r}"):
            assert KEY.decode() not in text


def test_a_handshake_is_the_client_s_own() -> None:
    """RFC 6455 section 4.1: key, version and extensions go through, the upgrade is asked anew."""
    lines = field_lines(render("/a", IN_QUERY, fields=HANDSHAKE, websocket=True))
    assert lines == [
        b"Host: api.acme.test",
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    ]


@pytest.mark.parametrize(
    ("offers", "passed", "kept"),
    [
        (["chat"], [b"Sec-WebSocket-Protocol: chat"], []),
        # Without a secret the lines are not touched.
        (["a,  b", "c"], [b"Sec-WebSocket-Protocol: a,  b", b"Sec-WebSocket-Protocol: c"], []),
        (["bearer_dummy"], [], [b"bearer_dummy"]),
        (["a, bearer_dummy", "c"], [b"Sec-WebSocket-Protocol: a, c"], [b"bearer_dummy"]),
    ],
)
def test_secret_subprotocols_stay_here(
    offers: list[str], passed: list[bytes], kept: list[bytes]
) -> None:
    """T45: the provider gets the other offers; which were kept is known for the answer."""
    fields = [*HANDSHAKE, *(("Sec-WebSocket-Protocol", offer) for offer in offers)]
    request = Request.of("GET", "/acme/a", fields, websocket=True)
    upstream_request = UpstreamRequest(request, b"/a", rules())
    lines = field_lines(upstream_request.render(IN_QUERY))
    assert [one for one in lines if one.startswith(b"Sec-WebSocket-Protocol")] == passed
    assert upstream_request.withheld_subprotocols == kept
