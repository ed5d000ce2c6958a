"""Rows T11 to T15, T24 to T26 and T29: what a provider may make a client see."""

from __future__ import annotations

import asyncio
import base64
import functools
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.security.scene import (
    GET,
    HOST,
    KEY,
    PAGE,
    SOCKET,
    SWITCHING,
    TOKEN,
    Stage,
    answer,
    problem,
    raw_client,
    routes,
    stage,
    status,
    values,
)
from tests.support.keyrelay import both_loops, heads, keyrelay, raw_provider, read_head, until

pytestmark = both_loops

OK = answer()
FROM_PAGE = GET + f"Origin: {PAGE}\r\nSec-Fetch-Site: same-site\r\n".encode()
MEBIBYTE = 1 << 20


async def test_t11_a_provider_opens_itself_to_all_pages(open_stage: Stage) -> None:
    """CORS fields are keyrelay's: the exact origin, no credentials, no ``*``."""
    open_stage.provider.answer = answer(
        "{}",
        "Access-Control-Allow-Origin: *",
        "Access-Control-Allow-Credentials: true",
        "access-control-allow-origin: https://evil.test",
        "Access-Control-Allow-Private-Network: true",
        "Timing-Allow-Origin: *",
    )
    got = await open_stage.ask(FROM_PAGE)
    assert values(got, "Access-Control-Allow-Origin") == [PAGE]
    assert "Origin" in values(got, "Vary")
    for name in ("Credentials", "Private-Network"):
        assert values(got, f"Access-Control-Allow-{name}") == []
    assert values(got, "Timing-Allow-Origin") == []


async def test_t12_a_provider_s_page_runs_nowhere(open_stage: Stage) -> None:
    """HTML that a page fetches is inert, and rules for localhost as a whole are not passed on."""
    forbidden = {
        "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
        "Clear-Site-Data": '"*"',
        "Service-Worker-Allowed": "/",
        "Refresh": "0; url=https://evil.test",
        "NEL": '{"report_to": "evil"}',
        "Report-To": '{"group": "evil"}',
        "Reporting-Endpoints": 'evil="https://evil.test"',
        "Alt-Svc": 'h3="evil.test:443"',
        "WWW-Authenticate": 'Basic realm="evil"',
        "Set-Cookie": "evil=1",
    }
    said = [f"{name}: {value}" for name, value in forbidden.items()]
    open_stage.provider.answer = answer(
        "<script>fetch('/minted/x')</script>",
        "Content-Type: text/html",
        "Content-Security-Policy: default-src *",
        *said,
    )
    got = await open_stage.ask(FROM_PAGE)
    assert status(got) == 200
    assert {name: values(got, name) for name in forbidden} == {name: [] for name in forbidden}
    assert values(got, "Content-Security-Policy") == ["sandbox; default-src 'none'"]
    assert values(got, "X-Content-Type-Options") == ["nosniff"]
    assert values(got, "Cross-Origin-Resource-Policy") == ["same-origin"]
    assert values(got, "Referrer-Policy") == ["no-referrer"]


async def test_t13_a_provider_s_cookie_lands_in_no_page_s_jar(open_stage: Stage) -> None:
    """It would be sent to every port of localhost. A program gets it, as from the provider."""
    open_stage.provider.answer = answer("{}", "Set-Cookie: session=dummy; Path=/")
    assert values(await open_stage.ask(FROM_PAGE), "Set-Cookie") == []
    assert values(await open_stage.ask(GET), "Set-Cookie") == ["session=dummy; Path=/"]


async def test_t14_nor_in_a_jar_of_ours(open_stage: Stage) -> None:
    """The next request to the provider, whose ever it is, bears none."""
    open_stage.provider.answer = answer("{}", "Set-Cookie: session=dummy; Path=/")
    for request in (GET, GET, FROM_PAGE, GET.replace(b"/api", b"/minted")):
        await open_stage.ask(request)
    assert [values(head, "Cookie") for head in open_stage.provider.heads] == [[]] * 4


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ([], ["no-store"]),
        (["Cache-Control: public, max-age=3600"], ["public, max-age=3600", "no-store"]),
        (["Cache-Control: private"], ["private"]),
        (["Cache-Control: max-age=5, no-store"], ["max-age=5, no-store"]),
        (['Cache-Control: private="x"'], ['private="x"', "no-store"]),
    ],
)
async def test_t15_no_cache_keeps_what_a_key_paid_for(
    open_stage: Stage, said: list[str], kept: list[str]
) -> None:
    """The page sent no Authorization, so a cache would reuse the response for any client."""
    open_stage.provider.answer = answer("{}", *said)
    assert values(await open_stage.ask(FROM_PAGE), "Cache-Control") == kept


# -- answers that are none ---------------------------------------------------------------------

LENGTH = b"Content-Length: 2\r\n"


@pytest.mark.parametrize(
    "raw",
    [
        SWITCHING + b"\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n" + LENGTH + b"\r\nok",
        b"HTTP/1.1 200 OK\r\nX : a\r\n" + LENGTH + b"\r\nok",
        b"HTTP/2.0 200 OK\r\n" + LENGTH + b"\r\nok",
        b"HTTP/1.1 099 Odd\r\n" + LENGTH + b"\r\nok",
        b"ICY 200 OK\r\n" + LENGTH + b"\r\nok\r\n\r\n",
        b"\x16\x03\x01\x02\x00dummy\r\n\r\n",
    ],
)
async def test_t24_an_answer_that_is_none(open_stage: Stage, raw: bytes) -> None:
    """502 of our own and a new connection for the next request, never the provider's bytes."""
    open_stage.provider.answer = raw
    got = await open_stage.ask(GET)
    assert (status(got), problem(got)) == (502, "provider-failed")
    open_stage.provider.answer = OK
    before = open_stage.place.connections
    assert (await open_stage.ask(GET)).endswith(b"{}")
    assert open_stage.place.connections == before + 1


POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"


@pytest.mark.parametrize("late", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize(
    "first",
    [OK, b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n" + LENGTH + b"\r\n"],
)
async def test_t24_a_second_answer_that_nobody_asked_for(
    secrets: None, first: bytes, late: bool
) -> None:
    """Whenever it comes, no later request receives it: not the same client's, nor another's."""
    sent, go = asyncio.Event(), asyncio.Event()
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        poisoned = len(connections) == 1
        async for _ in heads(reader):
            writer.write(first)
            if poisoned:
                if late:
                    await go.wait()
                writer.write(POISON)
                await writer.drain()
                sent.set()

    async with raw_provider(serve) as place:
        both = routes(place.url, place.url)
        del both["minted"]
        async with keyrelay(both) as running, raw_client(running.port) as client:
            client.send(GET + b"\r\n")
            await client.head()
            if first is OK:
                await client.exactly(2)
            go.set()
            await sent.wait()
            client.send(GET + b"\r\n")
            again = await client.head()
            assert status(again) == status(first)
            if first is OK:
                assert await client.exactly(2) == b"{}"
            await client.nothing()
            async with raw_client(running.port) as other:
                other.send(GET + b"\r\n")
                assert status(await other.head()) == status(first)
            # The second connection is clean, so that the other client may have it.
            assert len(connections) == 2


async def test_t24_routes_share_no_connection(open_stage: Stage) -> None:
    """Nor do two credentials, though they go to the same place."""
    for _ in range(2):
        await open_stage.reaches(GET)
        await open_stage.reaches(GET.replace(b"/api", b"/minted"))
    assert open_stage.place.connections == 2


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 100\r\n\r\nabc",
    ],
)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_t25_a_truncated_answer_looks_truncated(
    secrets: None, raw: bytes, version: bytes
) -> None:
    """A client can tell that the rest is missing: no last chunk, too few bytes, or a reset."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(raw)
        await writer.drain()

    async with raw_provider(serve) as place:
        both = routes(place.url, place.url)
        del both["minted"]
        async with keyrelay(both) as running, raw_client(running.port) as client:
            client.send(GET.replace(b"1.1", version) + b"\r\n")
            try:
                got = await client.rest()
            except ConnectionResetError:
                return
            head, _, body = got.partition(b"\r\n\r\n")
            assert status(head) in {200, 400}
            assert b"0\r\n\r\n" not in body
            lengths = values(head, "Content-Length")
            assert values(head, "Transfer-Encoding") == ["chunked"] or int(lengths[0]) > len(body)


# -- size --------------------------------------------------------------------------------------


UNFOLDED = 128 * MEBIBYTE
FLAT = 32 * MEBIBYTE


@functools.cache
def bomb() -> bytes:
    """Gzip of UNFOLDED zeros, a thousandth of the size."""
    made = zlib.compressobj(wbits=31)
    piece = bytes(MEBIBYTE)
    return b"".join(made.compress(piece) for _ in range(UNFOLDED // MEBIBYTE)) + made.flush()


@contextmanager
def memory_stays_flat() -> Iterator[None]:
    """This process, keyrelay and provider in one, takes no more than FLAT in the block."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew; see proc(5)
    except OSError:
        pytest.skip("only Linux tells the peak of a while")
    before = _peak_bytes()
    yield
    assert _peak_bytes() - before < FLAT


def _peak_bytes() -> int:
    (found,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found) * 1024


async def test_t26_nothing_is_unfolded(open_stage: Stage) -> None:
    """A gzip bomb crosses as the bytes that it is, either way, and memory stays flat."""
    packed = bomb()
    open_stage.provider.answer = answer(packed, "Content-Encoding: gzip")
    request = b"POST /api/x HTTP/1.1\r\n" + HOST + b"Content-Encoding: gzip\r\n"
    framed = request + b"Content-Length: %d\r\n\r\n" % len(packed) + packed
    with memory_stays_flat():
        async with raw_client(open_stage.port) as client:
            client.send(framed)
            code, head, body = await client.answer()
    assert (code, values(head, "Content-Encoding"), body) == (200, ["gzip"], packed)
    assert open_stage.provider.bodies == [packed]
    assert values(open_stage.provider.heads[0], "Content-Encoding") == ["gzip"]


async def test_t26_not_even_to_mask_it(open_stage: Stage) -> None:
    """The body of an error is unfolded to be masked; one that is made to hurt is none of ours."""
    open_stage.provider.answer = answer(bomb(), "Content-Encoding: gzip", status="400 Bad Request")
    with memory_stays_flat():
        got = await open_stage.ask(GET)
    assert (status(got), problem(got)) == (502, "provider-failed")
    open_stage.provider.answer = OK
    assert status(await open_stage.ask(GET)) == 200


# -- the credential itself ---------------------------------------------------------------------


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "with its scheme": lambda secret: f"Bearer {secret}",
    "base64": base64_of,
    "base64url": lambda secret: base64.urlsafe_b64encode(secret.encode()).decode(),
    "basic": lambda secret: f"Basic {base64_of(f'user:{secret}')}",
    "json": lambda secret: json.dumps({"authorization": [secret]}),
    "a query": lambda secret: f"https://up.test/?api_key={secret}&x=1",
}


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize(("route", "secret"), [("/api", KEY), ("/minted", TOKEN)])
async def test_t29_an_echoed_credential(
    open_stage: Stage, form: str, route: str, secret: str
) -> None:
    """In a header and in the body of an error, key and token are blotted out, at the same length;
    base64 of it as well.
    """
    said = FORMS[form](secret)
    open_stage.provider.answer = answer(
        f"you sent {said}.",
        f"X-Debug: {said}",
        f"Link: <{said}>; rel=self",
        status="400 Bad Request",
    )
    got = await open_stage.ask(GET.replace(b"/api", route.encode()))
    assert status(got) == 400
    for part in (said, secret, base64_of(secret)):
        if form not in {"basic", "json"} or part in {secret, said}:
            assert part.encode() not in got
    body = got.partition(b"\r\n\r\n")[2]
    assert len(body) == len(f"you sent {said}.")
    assert b"***" in body
    assert body.startswith(b"you sent ")
    assert body.endswith(b".")
    assert len(values(got, "X-Debug")[0]) == len(said)
    assert "***" in values(got, "X-Debug")[0]
    assert "***" in values(got, "Link")[0]


async def test_t29_percent_encoded(secrets: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key with signs in it is found as URLs write it."""
    key = "dummy/real+key=8f2c&"
    monkeypatch.setenv("DUMMY_KEY", key)
    async with stage() as one:
        said = quote(key, safe="")
        one.provider.answer = answer(f"bad key {said}", f"X-Debug: {said}", status="403 Forbidden")
        got = await one.ask(GET)
        assert said.encode() not in got
        assert said.lower().encode() not in got.lower()
        assert values(got, "X-Debug") == ["*" * len(said)]


async def test_t29_across_reads(secrets: None) -> None:
    """However the provider's network cuts it into pieces."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        text = f"you sent {KEY}, really".encode()
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n")
        for position in range(len(text)):
            writer.write(b"1\r\n%b\r\n" % text[position : position + 1])
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async with raw_provider(serve) as place:
        both = routes(place.url, place.url)
        del both["minted"]
        async with keyrelay(both) as running, raw_client(running.port) as client:
            client.send(GET + b"\r\n")
            assert status(await client.head()) == 401
            body = b""
            while data := await client.chunk():
                body += data
        assert body == b"you sent " + b"*" * len(KEY) + b", really"


async def test_t29_in_a_compressed_error(open_stage: Stage) -> None:
    """It is unfolded for that, so neither coding nor length is promised any more."""
    text = f"you sent {KEY}".encode()
    open_stage.provider.answer = answer(
        gzip.compress(text), "Content-Encoding: gzip", status="400 Bad Request"
    )
    async with raw_client(open_stage.port) as client:
        client.send(GET + b"\r\n")
        head = await client.head()
        assert values(head, "Content-Encoding") == values(head, "Content-Length") == []
        body = b""
        while data := await client.chunk():
            body += data
    assert body == b"you sent " + b"*" * len(KEY)


async def test_t29_in_a_location(open_stage: Stage) -> None:
    """A redirect elsewhere goes on as it is, but without the key."""
    place = f"Location: https://login.test/?return=https%3A%2F%2Fup%2F%3Fk%3D{KEY}"
    open_stage.provider.answer = answer("", place, status="302 Found")
    got = await open_stage.ask(GET)
    assert KEY.encode() not in got
    assert values(got, "Location")[0].startswith("https://login.test/?return=")


async def test_t29_in_a_refused_handshake(open_stage: Stage) -> None:
    """The key that a WebSocket bears in its query, in the provider's error page."""
    open_stage.provider.answer = answer(
        f"GET /v1/x?api_key={KEY}", f"X-Url: /v1/x?api_key={KEY}", status="401 Unauthorized"
    )
    got = await open_stage.ask(SOCKET)
    assert status(got) == 401
    assert KEY.encode() not in got


async def test_t29_in_an_accepted_handshake(open_stage: Stage) -> None:
    """And in the head of a 101."""
    open_stage.provider.answer = SWITCHING + f"X-Debug: {KEY}\r\n\r\n".encode()
    async with raw_client(open_stage.port) as client:
        client.send(SOCKET + b"\r\n")
        head = await client.head()
        assert status(head) == 101
        assert values(head, "X-Debug") == ["*" * len(KEY)]


@pytest.mark.parametrize("masked", [False, True])
async def test_t29_bodies_that_are_no_errors(secrets: None, masked: bool) -> None:
    """They cross as they are, unless the route asks for the work with ``mask_bodies``."""
    async with stage(api={"mask_bodies": masked}) as one:
        one.provider.answer = answer(f"you sent {KEY}")
        got = await one.ask(GET)
        assert values(got, "Content-Length") == [str(len(f"you sent {KEY}"))]
        assert got.endswith(b"*" * len(KEY) if masked else KEY.encode())


async def test_t29_what_a_refused_token_was(open_stage: Stage) -> None:
    """A token that the provider refuses and repeats is masked, though another is in use by then."""
    open_stage.provider.answer = lambda head: answer(
        f"invalid: {values(head, 'Authorization')[0]}", status="401 Unauthorized"
    )
    got = await open_stage.ask(GET.replace(b"/api", b"/minted"))
    assert status(got) == 401
    assert TOKEN.encode() not in got
    await until(lambda: len(open_stage.provider.heads) == 2)


@both_loops
@pytest.mark.parametrize("field", [b"Content-Length: 5", b"Content-Length: 0"])
async def test_t81_a_101_response_has_no_length(secrets: None, field: bytes) -> None:
    """What follows is the other protocol (RFC 9110 section 8.6), whatever length is declared."""
    async with stage() as there:
        there.provider.answer = SWITCHING + field + b"\r\n\r\n"
        async with raw_client(there.port) as client:
            client.send(SOCKET + b"\r\n")
            head = await client.head()
            assert head.startswith(b"HTTP/1.1 101 ")
            assert values(head, "Content-Length") == []
            assert values(head, "Upgrade") == ["websocket"]
