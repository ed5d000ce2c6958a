"""Whatever comes from outside: no crash, no traceback, and what must always hold holds.

Deselected unless asked for with ``make fuzz``; bounded in time, see ``budget``.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import strategies as st

from proxy.auth.injection import Injection
from proxy.config import loader
from proxy.config.presets import read_preset
from proxy.errors import ConfigError, Refusal, UpstreamFailure
from proxy.forwarding.upstream_request import UpstreamRequest
from proxy.http import headers
from proxy.http import parser as http_parser
from proxy.http.address import LOOPBACK_NAMES
from proxy.http.request import Request
from proxy.http.response import ResponseHead
from proxy.routing.route import RewriteRules
from proxy.server.guard import Guard, check_target
from proxy.upstream.connection import UpstreamConnection
from tests.fuzz.budget import fuzz
from tests.support.keyrelay import (
    RawProvider,
    Running,
    keyrelay,
    raw_provider,
    static_route,
    without_request_id,
)

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(0)]

KEY = b"dummy-real-key"
RULES = RewriteRules(
    host=b"api.acme.test",
    base_path=b"/v2",
    dropped_headers=headers.DROPPED_FROM_REQUESTS | {b"x-api-key"},
    dropped_query=frozenset({b"key"}),
    subprotocols=headers.CREDENTIAL_SUBPROTOCOLS,
)
INJECTIONS = [
    Injection(headers=b"X-Api-Key: " + KEY + b"\r\n"),
    Injection(query=b"key=" + KEY),
    Injection(path=b"/bot" + KEY),
]


def joined(pieces: list[bytes], junk: int = 6) -> st.SearchStrategy[bytes]:
    """Texts of known pieces, with some unexpected bytes between them."""
    one = st.sampled_from(pieces) | st.binary(max_size=junk)
    return st.lists(one, max_size=14).map(b"".join)


_TARGET = [
    *(b"/api", b"/", b"//", b".", b"..", b"%2e", b"%252f", b"%", b"%00", b"?", b"#", b"&", b"="),
    *(
        b"key",
        b"%6bey",
        b"api_key",
        b"@",
        b":",
        b"evil.test",
        b"http://",
        b"localhost",
        b"\\",
        b";",
    ),
    *(b" ", b"\r\n", b"\t", b"*", b"a", b"\xc3\xa9"),
]
_FIELDS = [
    *(
        b"Host: localhost\r\n",
        b"Host: evil.test\r\n",
        b"Connection: close\r\n",
        b"\r\n",
        b"\n",
        b"\r",
    ),
    *(
        b"Connection: X-Api-Key, Host\r\n",
        b"X-Api-Key: mine\r\n",
        b"X_Api_Key: mine\r\n",
        b"\0",
        b" ",
    ),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b":"),
    *(b"Content-Length: 3, 3\r\n", b"Transfer-Encoding: x\r\n", b"Transfer_Encoding: chunked\r\n"),
    *(b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"X: y\r\n"),
    *(
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        b"TE: x\r\n",
    ),
    *(b"Sec-WebSocket-Protocol: chat\r\n", b"Origin: null\r\n", b"Cookie: a=b\r\n"),
    *(b"X-Request-Id: mine\r\n", b"X-Request-Id: a b\r\n", b"X_Request_Id: mine\r\n"),
]
_LINES = [
    *(b"GET /api/x HTTP/1.1\r\n", b"POST /api/x HTTP/1.1\r\n", b"HEAD /api HTTP/1.1\r\n"),
    *(b"PUT /api HTTP/1.0\r\n", b"GET /api\r\n", b"OPTIONS * HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n"),
    *(b"GET /-/health HTTP/1.1\r\n", b"TRACE /api HTTP/1.1\r\n", b"CONNECT a:1 HTTP/1.1\r\n"),
    *(b"GET http://localhost/api/y HTTP/1.1\r\n", b"GET /nowhere HTTP/1.1\r\n"),
]
_BODIES = [
    b"hello",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"3;x\r\nabc\r\n",
    b"zz\r\n",
]
_GOOD = [
    b"GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /api/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
    (
        b"POST /api/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\n\r\n"
    ),
]


def parsed(data: bytes) -> Request | None:
    """The first request in ``data``, as the door reads it."""
    loop = asyncio.new_event_loop()
    try:
        messages, _, _ = http_parser.request_parser(loop).feed_data(data)
    except http_parser.HttpProcessingError:
        return None
    finally:
        loop.close()
    return http_parser.request(messages[0][0]) if messages else None


def sendable(head: bytes) -> None:
    """A head that is one request to the configured host, with the credential exactly once."""
    assert head.endswith(b"\r\n\r\n")
    assert head.count(b"\r\n\r\n") == 1
    line, *fields = head[:-4].split(b"\r\n")
    assert re.fullmatch(rb"[A-Z-]+ /[\x21-\x7e]* HTTP/1\.1", line), line
    assert not any(control in head.replace(b"\r\n", b"") for control in (b"\r", b"\n", b"\0"))
    names = [one.partition(b":")[0].lower() for one in fields]
    assert names.count(b"host") == 1
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert head.count(KEY) == 1
    carriers = {name.replace(b"_", b"-") for name in names} & (RULES.dropped_headers - {b"host"})
    assert carriers <= {b"connection", b"upgrade", b"transfer-encoding", b"x-api-key"}
    assert b"X-Api-Key: mine" not in fields


def admitted(head: bytes) -> Request | None:
    """The request, unless the parser or the guard refuses it."""
    request = parsed(head)
    if request is None:
        return None
    try:
        Guard(LOOPBACK_NAMES, frozenset()).admit(request)
    except Refusal:
        return None
    return request


# -- requests ----------------------------------------------------------------------------------


def test_targets() -> None:
    """Every target is refused, or leaves as it came behind the upstream's base path."""

    def check(target: bytes) -> None:
        request = admitted(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if request is None:
            return
        if request.target == b"*" or not request.path.startswith(b"/api/"):
            return
        for injection in INJECTIONS:
            head = UpstreamRequest(request, request.path.removeprefix(b"/api"), RULES).render(
                injection
            )
            sent = head.split(b" ")[1]
            assert sent.startswith(b"/v2/")
            check_target(Request.of("GET", sent.decode("ascii"), []))
            assert head.count(b"\r\nHost: api.acme.test\r\n") == 1
            assert head.count(KEY) == 1

    assert fuzz(check, joined(_TARGET).map(lambda rest: b"/api/" + rest)) > 0


def test_heads() -> None:
    """Every head is refused, or leaves as one well-formed request with one credential."""

    def check(fields: bytes) -> None:
        head = b"GET /api/x?key=mine HTTP/1.1\r\nHost: localhost\r\n" + fields + b"\r\n"
        request = admitted(head)
        if request is None:
            return
        for injection in INJECTIONS:
            sendable(UpstreamRequest(request, b"/x", RULES).render(injection))

    assert fuzz(check, joined(_FIELDS)) > 0


class Open:
    """Keyrelay and its provider on a loop that the checks run on when they need it."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner(debug=False)
        self.loop = self.runner.get_loop()
        self.faults: list[dict[str, Any]] = []
        self.heads: list[bytes] = []
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self._stack = AsyncExitStack()
        self.running: Running
        self.provider: RawProvider

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                if length := re.search(rb"\r\nContent-Length: ([0-9]+)\r\n", head, re.IGNORECASE):
                    await reader.readexactly(int(length[1]))
                elif b"\r\nTransfer-Encoding: chunked\r\n" in head:
                    while (await reader.readuntil(b"\r\n")) != b"0\r\n":
                        await reader.readuntil(b"\r\n")
                    await reader.readuntil(b"\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            body = b"" if head.startswith(b"HEAD") else b"ok"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + body)

    async def start(self) -> None:
        self.provider = await self._stack.enter_async_context(raw_provider(self._serve))
        self.running = await self._stack.enter_async_context(
            keyrelay({"api": static_route(self.provider.url)})
        )

    def close(self) -> None:
        self.runner.run(self._stack.aclose())
        self.runner.close()

    async def _say(self, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.running.port)
        said = b""
        try:
            writer.write(data)
            async with asyncio.timeout(0.02):
                while more := await reader.read(65536):
                    said += more
        except (TimeoutError, ConnectionError):
            pass  # it waits for more, or has had enough
        finally:
            writer.transport.abort()
        await asyncio.sleep(0)
        return said

    def say(self, data: bytes) -> bytes:
        """What keyrelay answers until it closes, or waits for more."""
        self.heads.clear()
        return self.runner.run(self._say(data))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    monkeypatch.setenv("DUMMY_KEY", KEY.decode())
    one = Open()
    one.runner.run(one.start())
    try:
        yield one
    finally:
        one.close()


def test_connections(opened: Open) -> None:
    """Whatever a client sends on a connection: the provider sees proper requests only, no more of
    them than the client began, each with one credential; the client sees answers only.
    """

    def check(data: bytes) -> None:
        said = opened.say(data)
        assert opened.faults == []
        assert b"Traceback" not in said
        assert said == b"" or said.startswith(b"HTTP/1.1 ")
        assert b"HTTP/1.1 500" not in said
        assert len(opened.heads) <= len(re.findall(rb"(?:HTTP|RTSP)/1\.[01]\r\n", data))
        for head in opened.heads:
            sendable(without_request_id(head))
            assert b"\r\nHost: 127.0.0.1:%d\r\n" % opened.provider.port in head

    pieces = [*_LINES, *_FIELDS, *_BODIES, *_GOOD, *_GOOD]
    assert fuzz(check, joined(pieces)) > 0


# -- answers -----------------------------------------------------------------------------------

_ANSWERS = [
    *(
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 204 No\r\n",
        b"HTTP/1.1 304 No\r\n",
        b"HTTP/1.0 200 OK\r\n",
    ),
    *(
        b"HTTP/1.1 100 C\r\n\r\n",
        b"HTTP/1.1 103 C\r\n",
        b"HTTP/1.1 150 C\r\n",
        b"HTTP/1.1 000 C\r\n",
    ),
    *(b"HTTP/1.1 101 S\r\n", b"HTTP/2.0 200 OK\r\n", b"HTTP/1.1 200\n", b"HTTP/1.1 200 O\0K\r\n"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: 2, 2\r\n", b"X: y\r\n"),
    *(
        b"Content-Length : 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
    ),
    *(
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Connection: close\r\n",
        b"X: a\r\n b\r\n",
        b"X : y\r\n",
        b"X:y\r\n",
    ),
    *(
        b"\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"hello",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"0\r\nX: y\r\n\r\n",
    ),
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
]


class Wire:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        """Nothing is read here."""

    resume_reading = pause_reading

    def get_write_buffer_size(self) -> int:
        return 0


@dataclass
class Told:
    """A receiver and an owner: what was told of one answer, and if the connection came back."""

    begun: int = 0
    ended: int = 0
    lost: int = 0
    kept: int = 0
    body: bytes = b""

    repeatable = False

    def on_response_start(self, head: ResponseHead, body: bytes, *, ended: bool) -> None:
        assert not self.begun + self.ended + self.lost
        assert head.code >= 200
        self.begun += 1
        self._more(body, ended=ended)
        try:
            block = headers.response_fields(
                head.fields, headers.DROPPED_FROM_RESPONSES, lambda _name, value: value
            )
        except ValueError:
            return
        for line in block.removesuffix(b"\r\n").split(b"\r\n") if block else []:
            assert re.fullmatch(rb"[!#-'*+.^-z|~0-9A-Z-]+:[^\r\n\0]*", line), line

    def _more(self, body: bytes, *, ended: bool) -> None:
        self.body += body
        self.ended += ended

    def on_response_body(self, body: bytes, *, ended: bool) -> None:
        assert self.begun
        assert not self.ended + self.lost
        self._more(body, ended=ended)

    def on_upstream_error(self, failure: UpstreamFailure, *, unread: bool = False) -> None:
        assert not self.ended + self.lost
        self.lost += 1

    def on_upstream_blocked(self) -> None:
        """It never is."""

    on_upstream_drained = on_upstream_blocked

    def give_back(self, connection: UpstreamConnection) -> None:
        self.kept += 1

    def forget(self, connection: UpstreamConnection) -> None:
        """Nobody keeps it."""


def test_answers() -> None:
    """Whatever a provider sends, in whatever pieces: at most one answer, told in order, with one
    end; fields that a client can take; a connection that comes back is free.
    """
    loop = asyncio.new_event_loop()

    def check(data: bytes, cuts: list[int], head_only: bool, lost: bool) -> None:
        told, wire = Told(), Wire()
        connection = UpstreamConnection(cast(Any, told), loop, 60.0)
        connection.connection_made(cast(Any, wire))
        connection.send(told, b"GET / HTTP/1.1\r\n\r\n", ended=True, head_only=head_only)
        places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        for start, end in pairwise(places):
            if not wire.closed:
                connection.data_received(data[start:end])
        if lost and not wire.closed:
            connection.connection_lost(None)
        assert wire.written == b"GET / HTTP/1.1\r\n\r\n"
        assert told.begun <= 1
        assert told.ended + told.lost <= 1
        assert told.kept <= told.ended
        assert not told.kept or not told.lost
        assert len(told.body) <= len(data)

    cuts = st.lists(st.integers(0, 400), max_size=4)
    try:
        done = fuzz(check, joined(_ANSWERS), cuts, st.booleans(), st.booleans())
    finally:
        loop.close()
    assert done > 0


# -- configuration -----------------------------------------------------------------------------

_WORDS = [
    *(
        b"routes:",
        b"\n  ",
        b"\n    ",
        b"\n",
        b" ",
        b"a: ",
        b"hume: ",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"- ",
    ),
    *(
        b"upstream: ",
        b"https://a.test",
        b"http://",
        b"secrets: ",
        b"env:X",
        b"file:/x",
        b"auth: ",
        b"@",
    ),
    *(
        b"header: X-Key",
        b"value: ",
        b'"{key}"',
        b"query: ",
        b"basic: ",
        b"path: ",
        b"cookie: ",
        b"token: ",
    ),
    *(
        b"provider: ",
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!python/object:os.system ",
        b"!x ",
        b"|\n",
        b">",
        b"'",
    ),
    *(
        b'"\\uD800"',
        b'"\\Uffffffff"',
        b"0x",
        b"1e999",
        b"2026-11-21",
        b"null",
        b"~",
        b"true",
        b"? ",
        b"#",
    ),
    *(
        b"listen: ",
        b"127.0.0.1:8080",
        b"unix:/x",
        b"browsers: ",
        b"origins: ",
        b"allow: ",
        b"GET /**",
    ),
    *(
        b"type: jwt",
        b"algorithm: HS256",
        b"claims: ",
        b"%YAML 1.1\n---\n",
        b"---",
        b"...",
        b"\t",
        b":",
    ),
]


def findings(text: str) -> str:
    """What is found wrong with a routes file, "" if nothing; any other error is raised."""
    try:
        loader.load_text(text, "routes.yaml")
    except ConfigError as error:
        return str(error) or "nothing was said"
    return ""


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def test_routes_files() -> None:
    """Every text is a configuration or a list of findings, never another error."""

    def check(text: str) -> None:
        said = findings(text)
        assert said != "nothing was said"
        assert "Traceback" not in said

    def valid_start(text: str) -> str:
        return "routes:\n  a:\n    upstream: https://a.test\n    " + text

    texts = joined(_WORDS, 3).map(_text)
    assert fuzz(check, texts | texts.map(valid_start)) > 0


def test_presets() -> None:
    """A preset of the user's own is read or found faulty, whatever is in it."""

    def check(text: str) -> None:
        preset = read_preset(text, "mine.yaml")
        for finding in preset.document.findings:
            assert "Traceback" not in str(finding)

    def valid_start(text: str) -> str:
        return (
            "title: Mine\ndocs: https://a.test\nupstream: https://a.test\n"
            "secrets: {key: env:X}\nauth:\n  - header: X-Key\n    value: '{key}'\n" + text
        )

    texts = joined(_WORDS, 3).map(_text)
    assert fuzz(check, texts | texts.map(valid_start)) > 0


_TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(
        [
            "{key}",
            "env:X",
            "https://a.test",
            "GET /**",
            "X-Key",
            "127.0.0.1:1",
            "hume",
            "",
            "{",
            "*",
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "routes",
                        "a",
                        "b",
                        "upstream",
                        "secrets",
                        "key",
                        "auth",
                        "http",
                        "websocket",
                    ),
                    *(
                        "header",
                        "value",
                        "query",
                        "basic",
                        "username",
                        "password",
                        "path",
                        "cookie",
                    ),
                    *("token", "type", "url", "provider", "listen", "browsers", "origins", "strip"),
                    *(
                        "allow",
                        "deny",
                        "methods",
                        "inbound_token",
                        "env",
                        "file",
                        "optional",
                        "rate",
                    ),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def test_structures() -> None:
    """Right words in wrong places: findings, never another error."""

    def check(tree: object) -> None:
        document = tree if isinstance(tree, dict) else {"routes": {"a": tree}}
        for one in (document, {"routes": {"a": document}}, {"routes": document}):
            assert findings(json.dumps(one, allow_nan=True)) != "nothing was said"

    assert fuzz(check, _TREES) > 0
