"""Clients that use another protocol on the plain port get a reason, as do operator and log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator

import pytest

from proxy.app.app import App
from proxy.config.settings import Settings
from proxy.observability.notices import Notices
from proxy.server import wrong_protocol
from tests.support.keyrelay import both_loops, static_route, until

pytestmark = both_loops

HOST = b" HTTP/1.1\r\nHost: 127.0.0.1\r\n"
PLAYGROUND = (
    b"Origin: https://playground.example\r\nSec-Fetch-Site: same-origin\r\n"
    b"Sec-Fetch-Mode: cors\r\nUser-Agent: Mozilla/5.0\r\n\r\n"
)


@contextlib.asynccontextmanager
async def running(warnings: list[str], lines: list[str]) -> AsyncIterator[int]:
    settings = Settings.model_validate(
        {
            "listen": ["127.0.0.1:0"],
            "drain_seconds": 0,
            "routes": {"hume": static_route("http://127.0.0.1:9")},
        }
    )
    async with App(settings, write_log=lines.append, warn=warnings.append) as app:
        yield app.listeners[0].address.port


async def ask(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        body = await reader.readexactly(length)
    writer.close()
    return head + body


@pytest.mark.parametrize(
    ("data", "words", "kind"),
    [
        (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", "uses TLS", "wrong-protocol"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", "uses HTTP/2", "wrong-protocol"),
        (b"\x05\x01\x00", "uses SOCKS", "wrong-protocol"),
        (b"\x04\x01\x00\x50\x7f\0\0\1\0", "uses SOCKS", "wrong-protocol"),
        (
            b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\nGET /hume" + HOST + b"\r\n",
            "PROXY protocol",
            "wrong",
        ),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", "PROXY protocol", "wrong-protocol"),
        (
            b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n",
            "as its HTTP proxy",
            "method-refused",
        ),
        (
            b"GET http://api.example/v1 HTTP/1.1\r\nHost: api.example\r\n\r\n",
            "as its HTTP proxy",
            "host-not-allowed",
        ),
        (
            b"GET http://api.example/v1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            "as its HTTP proxy",
            "host-not-allowed",
        ),
        (b"GET /hume/v1" + HOST + PLAYGROUND, "copied", "browser-not-allowed"),
        (b"GET /hum/v1?key=canary" + HOST + b"\r\n", "Did you mean /hume?", "no-route"),
    ],
)
async def test_each_wrong_door_has_one_line_and_a_record(
    dummy_key: bytes, data: bytes, words: str, kind: str
) -> None:
    """One line on the terminal, however often; every one in the log; the reason in the response."""
    warnings: list[str] = []
    lines: list[str] = []
    async with running(warnings, lines) as port:
        response = await ask(port, data)
        for _ in range(2):
            assert (await ask(port, data))[:12] == response[:12]
        assert words.encode() in response or kind == "no-route"
        await until(lambda: "".join(lines).count("\n") == 3)
        assert kind in "".join(lines)
        found = [one for one in warnings if one.startswith("refused a request: ")]
        assert len(found) == 1
        assert words in found[0]
        assert "canary" not in "".join(warnings + lines)


async def test_real_tls_client(dummy_key: bytes) -> None:
    """The hello of a real TLS client is recognised."""
    warnings: list[str] = []
    async with running(warnings, []) as port:
        context = ssl.create_default_context()
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="x.test")
        assert any("uses TLS" in one for one in warnings)


async def test_the_log_has_the_first_segment_but_nothing_like_a_key(dummy_key: bytes) -> None:
    """The segment of an unknown prefix is logged; one that may be a key is not."""
    lines: list[str] = []
    async with running([], lines) as port:
        response = await ask(port, b"GET /v1/chat/canary" + HOST + b"\r\n")
        assert "<route>.localhost" in json.loads(response.partition(b"\r\n\r\n")[2])["advice"]
        await ask(port, b"GET /bot123:dummy-canary/getMe" + HOST + b"\r\n")
        await ask(port, b"GET /%b" % (b"dummycanary" * 3) + HOST + b"\r\n")
        await until(lambda: "".join(lines).count("\n") == 3)
    assert "no route /v1" in "".join(lines)
    assert "canary" not in "".join(lines)


async def test_an_own_page_s_origin_is_still_what_to_list(dummy_key: bytes) -> None:
    """A page at localhost is not taken for a copied command."""
    async with running([], []) as port:
        page = PLAYGROUND.replace(b"https://playground.example", b"http://localhost:5173")
        assert b"add the exact origin" in await ask(port, b"GET /hume/v1" + HOST + page)


async def test_lines_are_limited_in_time_and_count_what_they_left_out() -> None:
    """After a minute the next line has the number of those that were not written."""
    refusal = wrong_protocol.refusal(b"\x16\x03")
    assert refusal is not None
    written: list[str] = []
    now = [0.0]
    notices = Notices(written.append, lambda: now[0])
    for at in (0.0, 1.0, 59.0, 61.0):
        now[0] = at
        notices.refused(refusal)
    assert len(written) == 2
    assert written[1].endswith("(2 more before it)")
