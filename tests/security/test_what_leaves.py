"""Rows T13, T16 to T23 and T45: what a client may make the provider see."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.security.scene import (
    GET,
    HANDSHAKE,
    HOST,
    KEY,
    SWITCHING,
    TOKEN,
    Stage,
    line,
    problem,
    raw_client,
    stage,
    status,
    values,
)
from tests.support.keyrelay import both_loops

pytestmark = both_loops

OURS = [f"Bearer {KEY}"]
MINE = "dummy-mine"
QUERY_PLACED = {"auth": [{"query": "key", "value": "{key}"}]}


async def test_t13_cookies_of_other_programs_stay_here(open_stage: Stage) -> None:
    """Browsers send localhost's cookies to every port; none goes to the provider."""
    cookies = b"Cookie: jupyter=dummy\r\ncookie: a=b; c=d\r\nCookie2: dummy\r\n"
    head = await open_stage.reaches(GET + cookies)
    assert values(head, "Cookie") == []


@pytest.mark.parametrize(
    "fields",
    [
        f"Authorization: Bearer {MINE}\r\nAuthorization: Bearer {MINE}\r\n",
        f"authorization: Bearer {MINE}\r\nAUTHORIZATION: Basic {MINE}\r\n",
        f"Proxy-Authorization: Bearer {MINE}\r\n",
        f"X-Api-Key: {MINE}\r\nxi-api-key: {MINE}\r\nX-Hume-Api-Key: {MINE}\r\n",
        f"api-key: {MINE}\r\nx-goog-api-key: {MINE}\r\nOcp-Apim-Subscription-Key: {MINE}\r\n",
    ],
)
async def test_t16_a_client_s_own_credential(open_stage: Stage, fields: str) -> None:
    """However many it brings: the provider sees exactly one, ours, on either route."""
    head = await open_stage.reaches(GET + fields.encode())
    assert values(head, "Authorization") == OURS
    assert MINE.encode() not in head
    head = await open_stage.reaches(GET.replace(b"/api", b"/minted") + fields.encode())
    assert values(head, "Authorization") == [f"Bearer {TOKEN}"]
    assert MINE.encode() not in head


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key", "api-key", "Cookie", "X-Token"])
async def test_t16_wherever_ours_is_placed(secrets: None, name: str) -> None:
    """Ours in the query does not leave room for the client's in a header; ``strip`` names more."""
    async with stage(api={**QUERY_PLACED, "strip": {"headers": ["X-Token"]}}) as one:
        head = await one.reaches(GET + f"{name}: {MINE}\r\n{name.lower()}: {MINE}\r\n".encode())
        assert MINE.encode() not in head
        assert line(head) == f"GET /v1/x?key={KEY} HTTP/1.1"


@pytest.mark.parametrize(
    "name", ["X_Api_Key", "x_api-key", "X-Api_Key", "Xi_Api_Key", "Proxy_Authorization"]
)
async def test_t17_a_name_with_underscores(open_stage: Stage, name: str) -> None:
    """Servers that fold ``_`` and ``-`` would read it as a second credential."""
    head = await open_stage.reaches(GET + f"{name}: {MINE}\r\nX_Other: kept\r\n".encode())
    assert MINE.encode() not in head
    assert values(head, "X_Other") == ["kept"]


async def test_t17_the_placement_s_own_name(secrets: None) -> None:
    """The same for a header that only this route fills."""
    placed = {"auth": [{"header": "X-Acme-Secret-Key", "value": "{key}"}]}
    async with stage(api=placed) as one:
        fields = "X-Acme-Secret-Key: {0}\r\nX_Acme_Secret_Key: {0}\r\nx_acme-secret-key: {0}\r\n"
        head = await one.reaches(GET + fields.format(MINE).encode())
        assert MINE.encode() not in head
        assert values(head, "X-Acme-Secret-Key") == [KEY]


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("key=a&%6bey=b&KEY=c", "KEY=c&"),
        ("a=%2F&flag&key=a&b=%20+", "a=%2F&flag&b=%20+&"),
        ("%6B%65%79=a&key", ""),
        ("key=a;key=b&x=1", "x=1&"),
        ("+key=a&key+=b&%20key=c", None),
        ("key%00=a&x", None),
        ("", ""),
    ],
)
async def test_t18_query_pollution(secrets: None, query: str, left: str | None) -> None:
    """All pairs whose decoded name is ours are gone, ours is last, the rest is untouched."""
    async with stage(api=QUERY_PLACED) as one:
        head = await one.reaches(f"GET /api/x?{query} HTTP/1.1\r\n".encode() + HOST)
        sent = line(head).split(" ")[1].partition("?")[2]
        assert sent.endswith(f"key={KEY}")
        assert [pair for pair in sent.split("&") if pair.startswith("key=")] == [f"key={KEY}"]
        if left is not None:
            assert sent == f"{left}key={KEY}"


@pytest.mark.parametrize(
    "connection",
    [
        "close, Authorization",
        "Authorization",
        "keep-alive, authorization, X-Api-Key",
        "close,Host,Content-Length",
        "Authorization\r\nConnection: authorization",
    ],
)
async def test_t19_connection_names_our_header(open_stage: Stage, connection: str) -> None:
    """What a client declares hop-by-hop is its own; our credential is put in afterwards."""
    got = await open_stage.everything(
        GET + f"Connection: {connection}\r\nAuthorization: {MINE}\r\n".encode() + CLOSE
    )
    assert status(got) in {200, 400}
    for head in open_stage.provider.heads:
        assert values(head, "Authorization") == OURS
        assert values(head, "Host") == [f"127.0.0.1:{open_stage.place.port}"]
        assert values(head, "Connection") == []


CLOSE = b"Connection: close\r\n"


@pytest.mark.parametrize("method", ["TRACE", "CONNECT"])
async def test_t20_trace_and_connect(open_stage: Stage, method: str) -> None:
    """TRACE would show the client our credential, CONNECT would tunnel past everything."""
    await open_stage.refused(f"{method} /api/x HTTP/1.1\r\n".encode() + HOST, 400, 405)
    got = await open_stage.ask(b"TRACE /api/x HTTP/1.1\r\n" + HOST)
    assert status(got) == 405
    await open_stage.dials()


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
async def test_t20_method_overrides(open_stage: Stage, name: str) -> None:
    """A header that turns the checked method into another one stays here, in any spelling."""
    twin = name.replace("-", "_")
    head = await open_stage.reaches(GET + f"{name}: DELETE\r\n{twin}: DELETE\r\n".encode())
    assert b"DELETE" not in head
    assert head.startswith(b"GET ")


ESCAPES = [
    "/api/../admin",
    "/api/./x",
    "/api/v1/../admin",
    "/api/..",
    "/api/%2e%2e/admin",
    "/api/.%2E/admin",
    "/api/%252e%252e/x",
    "/api/%25252525252e%2525252e/x",
    "/api/..;/x",
    "/api/..;a=b/x",
    "/api/..%2fadmin",
    "/api/..%5cadmin",
    "/api/x%2f..%2f..%2fadmin",
    "/api/..\\admin",
    "/api\\..\\admin",
    "/api/x#/ok",
    "/api/x%00",
    "/api/%2500",
    "/api//evil.test/x/..",
    "//evil.test/x",
    "/api/\x7f",
    "/api/é",
    "/api/a b",
]


@pytest.mark.parametrize("target", ESCAPES)
async def test_t21_a_path_that_leads_elsewhere(open_stage: Stage, target: str) -> None:
    """Dot segments in any coding, backslashes, fragments, NUL: 400, on routes with rules and
    without.
    """
    got = await open_stage.refused(f"GET {target} HTTP/1.1\r\n".encode() + HOST, 400)
    assert problem(got)
    assert b"evil" not in got


@pytest.mark.parametrize(
    "target", ["/api/a%2Fb/c", "/api/x..y", "/api/...", "/api/a/;p=1", "/api/%7Euser", "/api/a+b"]
)
async def test_t21_the_bytes_that_were_checked_are_sent(open_stage: Stage, target: str) -> None:
    """What is legal crosses as it is: nothing is decoded and encoded again."""
    head = await open_stage.reaches(f"GET {target}?q=%2F HTTP/1.1\r\n".encode() + HOST)
    assert line(head) == f"GET /v1{target.removeprefix('/api')}?q=%2F HTTP/1.1"


@pytest.mark.parametrize(
    "path",
    [
        "/admin/x",
        "/%61dmin/x",
        "/%2561dmin/x",
        "/ADMIN/x",
        "//admin/x",
        "/admin;a=b/x",
        "/admin%2fx",
        "/admin%5Cx",
        "/admin",
    ],
)
async def test_t21_no_spelling_passes_a_denied_path(secrets: None, path: str) -> None:
    """``deny`` sees through what any server might fold."""
    rules = {"deny": ["/admin/**"]}
    async with stage(api=rules, fetched=rules) as one:
        await one.refused(f"GET /api{path} HTTP/1.1\r\n".encode() + HOST, 400, 403)
        await one.dials()


@pytest.mark.parametrize(
    "target",
    [
        "//evil.test/x",
        "/\\evil.test/x",
        "\\\\evil.test",
        "http://evil.test/api/x",
        "@evil.test/api",
        ".evil.test/api",
        ":80/api",
        "evil.test:443",
        "?x=http://evil.test/",
        "*",
    ],
)
async def test_t22_a_target_that_names_a_host(open_stage: Stage, target: str) -> None:
    """The provider's authority is fixed; nothing in a request can be joined to it."""
    await open_stage.ask_refused(f"GET {target} HTTP/1.1\r\n".encode() + HOST, 400, 404, 421)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.text("/.@:?#%\\;&=abz0 évil2F5c", max_size=20),
    st.sampled_from(["/api", "/api/", "/minted/", "", "/"]),
)
async def test_t22_whatever_the_target(secrets: None, text: str, start: str) -> None:
    """A request is refused, or arrives at the configured host below the configured base path."""
    async with stage(fresh=True) as one:
        async with raw_client(one.port) as client:
            client.send(f"GET {start}{text} HTTP/1.1\r\n".encode() + HOST + CLOSE + b"\r\n")
            got = await client.rest()
        assert status(got) in {200, 400, 404, 421, 505}
        for head in one.provider.heads:
            assert line(head).startswith(("GET /v1/", "GET /v1?", "GET /v1 "))
            assert values(head, "Host") == [f"127.0.0.1:{one.place.port}"]
        assert len(one.provider.heads) == (status(got) == 200)


SMUGGLED = b"GET /api/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /api/x HTTP/1.1\r\n" + HOST


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        POST + b"Content-Length: 5, 5\r\n\r\nhello",
        POST + b"Content-Length: +5\r\n\r\nhello",
        POST + b"Content-Length : 5\r\n\r\nhello",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        POST + b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n",
        POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_t23_framing_that_contradicts_itself(open_stage: Stage, request_bytes: bytes) -> None:
    """400 or 501 and the end of the connection: what follows is never a request."""
    async with raw_client(open_stage.port) as client:
        client.send(request_bytes + SMUGGLED)
        got = await client.rest()
    assert status(got) in {400, 501}, got
    assert got.count(b"HTTP/1.1 ") == 1
    open_stage.no_dial()


async def test_t23_a_body_has_one_framing_at_the_provider(open_stage: Stage) -> None:
    """Chunks are made anew, extensions and trailers stay here, and a length is a length."""
    chunks = b"2;name=value\r\nab\r\n1\r\nc\r\n0\r\nX-Trailer: dummy\r\n\r\n"
    for framed in (
        b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
        b"Content-Length: 3\r\n\r\nabc",
    ):
        async with raw_client(open_stage.port) as client:
            client.send(POST + framed)
            assert (await client.answer())[0] == 200
    # That each has one framing and no other is what the stage's provider insists on.
    assert open_stage.provider.bodies == [b"abc", b"abc"]
    chunked, counted = open_stage.provider.heads
    assert values(chunked, "Transfer-Encoding") == ["chunked"]
    assert values(counted, "Content-Length") == ["3"]
    assert values(chunked, "X-Trailer") == values(counted, "X-Trailer") == []


@pytest.mark.parametrize(
    ("offered", "passed"),
    [
        ("realtime, openai-insecure-api-key.dummy-mine, v1", ["realtime, v1"]),
        ("bearer_dummy-mine, chat", ["chat"]),
        ("openai-insecure-api-key.dummy-mine", []),
        ("OpenAI-Insecure-Api-Key.dummy-mine", []),
    ],
)
async def test_t45_a_key_in_a_subprotocol(
    open_stage: Stage, caplog: pytest.LogCaptureFixture, offered: str, passed: list[str]
) -> None:
    """It neither reaches the provider nor any log; the answer selects what the provider chose."""
    chosen = passed[0].split(", ")[:1] if passed else []
    open_stage.provider.answer = (
        SWITCHING
        + b"".join(f"Sec-WebSocket-Protocol: {one}\r\n".encode() for one in chosen)
        + b"\r\n"
    )
    request = GET + HANDSHAKE + f"Sec-WebSocket-Protocol: {offered}\r\n".encode()
    async with raw_client(open_stage.port) as client:
        client.send(request + b"\r\n")
        got = await client.head()
        (head,) = open_stage.provider.heads
        assert values(head, "Sec-WebSocket-Protocol") == passed
        assert b"dummy-mine" not in head
        assert status(got) == 101
        # A client whose only offer was a key still has to see one of its offers (RFC 6455).
        assert values(got, "Sec-WebSocket-Protocol") == (chosen or [offered])
    await open_stage.running.app.close()
    written = "".join(open_stage.running.lines) + caplog.text
    assert "dummy-mine" not in written
