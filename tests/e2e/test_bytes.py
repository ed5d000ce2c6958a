"""Byte-exactness through a whole running proxy: what no library may decode and encode again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress

import pytest
import uvloop
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.emulators import HUME_KEY
from tests.support.keyrelay import (
    exchange,
    preset_keyrelay,
    raw_provider,
    read_head,
    request_id_line,
)

_REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
_HANDSHAKE = [
    (b"Sec-WebSocket-Version", b"13"),
    (b"sec-websocket-key", b"MDEyMzQ1Njc4OWFiY2RlZg=="),
    (b"Sec-WebSocket-Extensions", b'permessage-deflate; client_max_window_bits, x-odd;a="b c"'),
    (b"Sec-WebSocket-Protocol", b"b,a ,  c"),
]

# What decoding and encoding again would change, in one library or another.
_ODD = ["a", "Zz9", "v1.2", "%2F", "%2f", "%20", "+", "%C3%A9", "%zz", "%25", "~", ":", "@", "..."]
_SEGMENTS = st.lists(
    st.sampled_from([*_ODD, "!$&'()*,;=", "[x]", "{b}", "|", "^", "`", '"', "<>"]),
    min_size=1,
    max_size=4,
).map("".join)
_PATHS = st.lists(_SEGMENTS, max_size=4).map(lambda parts: "".join(f"/{part}" for part in parts))
_PAIRS = ["", "a=1", "a=2", "b=%20+x", "flag", "flag=", "e%5B0%5D=%C3%A9", "q=?/@:", "=", "key=s"]
_QUERIES = st.none() | st.lists(
    st.sampled_from([*_PAIRS, "c=%2B%26", "d=[{}]", "token=t", "x=%7E~", "g=\"<>^`|'"]),
    max_size=6,
).map("&".join)
# RFC 9110 section 5.6.2. All begin with X-T, so that none has a meaning of its own.
_NAMES = st.text("abcXYZ019!#$%&'*+.^`|~_-", max_size=10).map(lambda rest: f"X-T{rest}".encode())
# Visible bytes, blanks and tabs within, and obs-text (RFC 9110 section 5.5).
_VALUES = st.lists(
    st.sampled_from([9, 32, *range(0x21, 0x7F), *range(0x80, 0x100)]), max_size=20
).map(lambda value: bytes(value).strip(b" \t"))
_FIELDS = st.lists(st.tuples(_NAMES, _VALUES), max_size=8)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """A loop that lives through all examples of a test."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


@pytest.fixture
def heads() -> list[bytes]:
    """What reached the provider, but for bodies."""
    return []


@pytest.fixture
def bodies() -> list[bytes]:
    """What reached the provider behind the heads."""
    return []


@pytest.fixture
def port(
    runner: asyncio.Runner,
    heads: list[bytes],
    bodies: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[int]:
    """Keyrelay with the preset of Hume, before a provider with a base path that notes all."""
    monkeypatch.setenv("HUME_API_KEY", HUME_KEY)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                heads.append(head := await read_head(reader))
                length = re.search(rb"\r\nContent-Length: (\d+)\r\n", head)
                bodies.append(await reader.readexactly(int(length[1]) if length else 0))
                writer.write(_REFUSED)

    stack = AsyncExitStack()

    async def start() -> int:
        provider = await stack.enter_async_context(raw_provider(serve))
        routes = {"hume": {"provider": "hume", "upstream": f"{provider.url}/base%20path"}}
        return (await stack.enter_async_context(preset_keyrelay(routes))).port

    yield runner.run(start())
    runner.run(stack.aclose())


def lines(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % field for field in fields)


def examples(count: int) -> hypothesis_settings:
    return hypothesis_settings(max_examples=count, deadline=None, database=None)


def provider_host(head: bytes) -> bytes:
    return head.split(b"\r\n")[1].removeprefix(b"Host: ")


def test_a_request_crosses_byte_for_byte(
    runner: asyncio.Runner, port: int, heads: list[bytes]
) -> None:
    """The provider's head is the client's, but for Host, the base path, and behind all fields a
    request id and the one credential.
    """

    @examples(60)
    @given(st.sampled_from([b"GET", b"DELETE", b"PUT"]), _PATHS, _QUERIES, _FIELDS)
    def check(
        method: bytes, path: str, query: str | None, fields: list[tuple[bytes, bytes]]
    ) -> None:
        rest = (path + ("" if query is None else f"?{query}")).encode()
        head = b"%b /hume%b HTTP/1.1\r\nhost: localhost\r\n%b\r\n" % (method, rest, lines(fields))
        answer = runner.run(exchange(port, head))
        assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n"), answer
        seen = heads.pop()
        assert (
            seen
            == b"%b /base%%20path%b HTTP/1.1\r\nHost: %b\r\n%b%bX-Hume-Api-Key: %b\r\n\r\n"
            % (
                method,
                rest,
                provider_host(seen),
                lines(fields),
                request_id_line(seen),
                HUME_KEY.encode(),
            )
        )

    check()


def test_a_handshake_crosses_byte_for_byte(
    runner: asyncio.Runner, port: int, heads: list[bytes]
) -> None:
    """Key, version, extensions and subprotocols are the client's, in its order and spelling; a
    request id follows.
    """

    @examples(40)
    @given(_PATHS, _QUERIES, _FIELDS)
    def check(path: str, query: str | None, fields: list[tuple[bytes, bytes]]) -> None:
        rest = (path + ("" if query is None else f"?{query}")).encode()
        rewriter = lines([*_HANDSHAKE, *fields])
        head = b"GET /hume%b HTTP/1.1\r\nHost: localhost\r\n" % rest
        head += b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n%b\r\n" % rewriter
        answer = runner.run(exchange(port, head))
        assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n"), answer
        seen = heads.pop()
        # What is left of an empty query is an empty query: no mark is lost, none is made up.
        target = path.encode() + (b"?%b&" % query.encode() if query else b"?")
        assert seen == (
            b"GET /base%%20path%bapi_key=%b HTTP/1.1\r\nHost: %b\r\n"
            b"Connection: Upgrade\r\nUpgrade: websocket\r\n%b%b\r\n"
        ) % (target, HUME_KEY.encode(), provider_host(seen), rewriter, request_id_line(seen))

    check()


def test_a_body_crosses_byte_for_byte(
    runner: asyncio.Runner, port: int, bodies: list[bytes]
) -> None:
    """A body with a length is the same body, whatever is in it and however it is cut."""

    async def post(parts: list[bytes]) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        length = sum(map(len, parts))
        head = b"POST /hume/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % length
        for part in (head, *parts):
            writer.write(part)
            await asyncio.sleep(0)
        answer = await read_head(reader)
        writer.close()
        return answer

    @examples(30)
    @given(st.lists(st.binary(min_size=1, max_size=200), max_size=5))
    def check(parts: list[bytes]) -> None:
        assert runner.run(post(parts)).startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert bodies.pop() == b"".join(parts)

    check()
