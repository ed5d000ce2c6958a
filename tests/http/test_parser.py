"""What the data path takes for granted of aiohttp's parsers. A new aiohttp passes or is looked at.

Every test here is one assumption; none is about keyrelay's own deciding.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.http import parser as http_parser
from proxy.http.parser import Body, ParsedResponse, Parser, RequestHead, RequestParser

HEAD = b" HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /first" + HEAD + b"\r\n"
SECOND = b"GET /second" + HEAD + b"\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that never runs: nothing in a parser waits for anything."""
    one = asyncio.new_event_loop()
    yield one
    one.close()


@pytest.fixture
def requests(loop: asyncio.AbstractEventLoop) -> RequestParser:
    return http_parser.request_parser(loop)


@pytest.fixture
def answers(loop: asyncio.AbstractEventLoop) -> Parser:
    return http_parser.response_parser(loop, head_only=False)


def one_request(parser: Parser, data: bytes) -> tuple[RequestHead, Body]:
    messages, changed, tail = parser.feed_data(data)
    assert (len(messages), changed, tail) == (1, False, b"")
    return messages[0]


def one_answer(parser: Parser, data: bytes) -> tuple[ParsedResponse, Body]:
    messages, _, _ = parser.feed_data(data)
    assert len(messages) == 1
    return messages[0]


def refused(parser: Parser, data: bytes) -> HttpProcessingError:
    with pytest.raises(HttpProcessingError) as caught:
        parser.feed_data(data)
    return caught.value


# -- requests ----------------------------------------------------------------------------------


def test_the_c_parser_is_there() -> None:
    """The parsers in use are the bindings to llhttp."""
    http_parser.require_c_parser()


def test_the_python_parser_is_refused() -> None:
    """Where aiohttp falls back to its Python parser, keyrelay says so and does not run."""
    script = "from proxy.http import parser; parser.require_c_parser()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"AIOHTTP_NO_EXTENSIONS": "1"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert "KeyrelayError" in done.stderr
    assert "install a binary wheel" in done.stderr


def test_stops_after_each_request(requests: RequestParser) -> None:
    """Of several requests in one read only the first comes out; the others one by one, on demand,
    without being fed again.
    """
    head, _ = one_request(requests, GET + SECOND + b"GET /third" + HEAD + b"\r\n")
    assert head.path == "/first"
    for path in ("/second", "/third"):
        requests.message_consumed()
        head, body = one_request(requests, b"")
        assert head.path == path
        assert body.is_eof()
    requests.message_consumed()
    assert requests.feed_data(b"")[0] == ()


def test_a_body_in_pieces_ends_its_request_before_the_next_begins(requests: RequestParser) -> None:
    """With a body over several reads the parser stops where it ends, and keeps what is behind."""
    _, body = one_request(requests, b"POST /" + HEAD + b"Content-Length: 6\r\n\r\nab")
    assert (body.read_nowait(), body.is_eof()) == (b"ab", False)
    assert requests.feed_data(b"cdef" + SECOND)[0] == ()
    assert (body.read_nowait(), body.is_eof()) == (b"cdef", True)
    requests.message_consumed()
    assert one_request(requests, b"")[0].path == "/second"


def test_a_head_in_pieces(requests: RequestParser) -> None:
    """A head that comes byte by byte is one request, when its last byte is there."""
    for byte in GET[:-1]:
        assert requests.feed_data(bytes([byte])) == ((), False, b"")
    assert one_request(requests, GET[-1:])[0].raw_headers == ((b"Host", b"localhost"),)


def test_chunks_come_decoded(requests: RequestParser) -> None:
    """Chunk sizes, extensions and trailers are gone from the body, and no field is added."""
    head, body = one_request(requests, b"POST /" + HEAD + CHUNKED)
    assert (head.chunked, body.is_eof()) == (True, False)
    requests.feed_data(b"3;x=y\r\nabc\r\n2\r\nde\r\n")
    assert (body.read_nowait(), body.is_eof()) == (b"abcde", False)
    requests.feed_data(b"0\r\nX-Trailer: 1\r\n\r\n")
    assert (body.read_nowait(), body.is_eof()) == (b"", True)
    assert "X-Trailer" not in head.headers


def test_a_drained_body_never_pauses(requests: RequestParser) -> None:
    """Emptied after each read, the stream object asks for no flow control, whatever its size."""
    piece = bytes(1 << 20)
    _, body = one_request(
        requests, b"POST /" + HEAD + b"Content-Length: %d\r\n\r\n" % (64 * len(piece))
    )
    for _ in range(64):
        requests.feed_data(piece)
        assert body.read_nowait() == piece
    assert body.is_eof()


def test_many_small_chunks_never_pause(requests: RequestParser) -> None:
    """Nor does it after very many chunks in one read, which the stream object counts."""
    _, body = one_request(requests, b"POST /" + HEAD + CHUNKED)
    for _ in range(4):
        requests.feed_data(b"1\r\na\r\n" * 40_000)
        assert body.read_nowait() == b"a" * 40_000


def test_header_bytes_come_as_they_were(requests: RequestParser) -> None:
    """Order, case, duplicates and bytes beyond ASCII survive in the raw fields."""
    fields = ((b"x-B", b"\xff\xc3\xa9"), (b"X-a", b"1"), (b"x-b", b'"2 ,  3"'))
    lines = b"".join(b"%b:  %b \r\n" % field for field in fields)
    head, _ = one_request(requests, b"GET /" + HEAD + lines + b"\r\n")
    assert head.raw_headers == ((b"Host", b"localhost"), *fields)


def test_the_target_comes_as_it_was(requests: RequestParser) -> None:
    """Nothing in the target is decoded, resolved or encoded."""
    target = "/a/../%2e%2F;x//b?q=%zz&&=+%20\"'<>|^`{}"
    assert one_request(requests, b"GET " + target.encode() + HEAD + b"\r\n")[0].path == target


@pytest.mark.parametrize("target", ["http://localhost/x", "https://localhost:1/x?y"])
def test_absolute_targets_come_as_they_were(requests: RequestParser, target: str) -> None:
    """The absolute form is left for the guard to judge."""
    assert one_request(requests, b"GET " + target.encode() + HEAD + b"\r\n")[0].path == target


def test_bytes_behind_a_handshake(requests: RequestParser) -> None:
    """What follows a WebSocket handshake is handed out untouched by the next call, once."""
    upgrade = b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
    head, body = one_request(requests, b"GET /" + HEAD + upgrade + b"\x81\x85early")
    assert (head.upgrade, body.is_eof()) == (True, True)
    assert http_parser.request(head).websocket
    assert requests.feed_data(b"") == ((), True, b"\x81\x85early")


def test_no_bytes_behind_a_handshake(requests: RequestParser) -> None:
    """Where nothing follows, nothing is handed out."""
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    one_request(requests, b"GET /" + HEAD + upgrade)
    assert requests.feed_data(b"") == ((), True, b"")


@pytest.mark.parametrize(
    "fields",
    [
        b"Upgrade: websocket\r\n",
        b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
        b"Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
    ],
)
def test_what_is_no_websocket(requests: RequestParser, fields: bytes) -> None:
    """Only ``Upgrade: websocket`` that ``Connection`` confirms makes a handshake."""
    head, _ = one_request(requests, b"GET /" + HEAD + fields + b"\r\n")
    assert not http_parser.request(head).websocket


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /" + HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
        b"CONNECT localhost:1" + HEAD + b"\r\n",
    ],
)
def test_requests_that_cost_the_next_one(requests: RequestParser, request_head: bytes) -> None:
    """After an offer to upgrade and after CONNECT the parser loses what was sent behind, or takes
    it for another protocol; ``upgrade`` tells, and the door closes.
    """
    head, _ = one_request(requests, request_head + SECOND)
    assert head.upgrade
    requests.message_consumed()
    assert requests.feed_data(b"")[0] == ()


@pytest.mark.parametrize(
    ("fields", "version", "closes"),
    [
        (b"", b"1.1", False),
        (b"Connection: close\r\n", b"1.1", True),
        (b"Connection: x, Close\r\n", b"1.1", True),
        (b"", b"1.0", True),
    ],
)
def test_which_side_closes(
    requests: RequestParser, fields: bytes, version: bytes, closes: bool
) -> None:
    """``should_close`` follows ``Connection`` and the version."""
    data = b"GET / HTTP/%b\r\nHost: localhost\r\n%b\r\n" % (version, fields)
    assert one_request(requests, data)[0].should_close is closes


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: 3, 3\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length: -3\r\n",
        b"Content-Length: 0x3\r\n",
        b"Content-Length: 3 4\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
        b"Content-Length:\r\n",
        b"Transfer-Encoding: chunked, gzip\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"X-Null: a\0b\r\n",
        b"X-Return: a\rb\r\n",
        b"X-Feed: a\nX-Smuggled: b\r\n",
        b"X-Folded: a\r\n b\r\n",
        b" X-Folded: a\r\n",
        b"X Space: a\r\n",
        b": no name\r\n",
        b"no colon\r\n",
        b"Host: other\r\n",
    ],
)
def test_ambiguous_requests_are_refused(requests: RequestParser, fields: bytes) -> None:
    """Framing that two servers may read differently, control characters and folding do not pass."""
    refused(requests, b"POST /" + HEAD + fields + b"\r\nabc")


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"chunked, chunked"])
def test_transfer_codings_that_the_guard_refuses(requests: RequestParser, coding: bytes) -> None:
    """A list that ends in chunked is the guard's to refuse: the parser lets it pass."""
    data = b"POST /" + HEAD + b"Transfer-Encoding: %b\r\n\r\n" % coding
    try:
        head, _ = one_request(requests, data)
    except HttpProcessingError:
        return
    assert head.chunked


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\nHost: localhost\n\n",
        b"GET / b HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /\x7f HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET\t/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/11\r\nHost: localhost\r\n\r\n",
        b"GET / http/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"DUMMY / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_malformed_request_lines_are_refused(requests: RequestParser, line: bytes) -> None:
    """The request line is taken in exactly one spelling."""
    assert http_parser.refusal(refused(requests, line)).status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n",
        b"-1\r\n",
        b"3\r\nabcd\r\n",
        b"3\nabc\r\n",
        b"3 \r\nabc\r\n",
        b"ffffffffffffffffff\r\n",
        b"0\r\nX-Trailer: a\0\r\n\r\n",
    ],
)
def test_malformed_chunks_are_refused(requests: RequestParser, body: bytes) -> None:
    """A chunk that is not written exactly as RFC 9112 section 7.1 says ends the request."""
    one_request(requests, b"POST /" + HEAD + CHUNKED)
    refused(requests, body)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"a" * 16_384 + HEAD + b"\r\n", 431),
        (b"GET /" + HEAD + b"X: " + b"a" * 16_385 + b"\r\n\r\n", 431),
        (b"GET /" + HEAD + b"X" * 16_385 + b": a\r\n\r\n", 431),
        (b"GET /" + HEAD + b"X: a\r\n" * 128 + b"\r\n", 431),
        (b"GET /" + HEAD + b"X: " + b"a" * 16_384 + b"\r\n\r\n", 0),
        (b"GET /" + HEAD + b"X: a\r\n" * 127 + b"\r\n", 0),
    ],
)
def test_limits_of_a_head(requests: RequestParser, data: bytes, status: int) -> None:
    """Lines up to 16 KiB and 128 fields pass, anything beyond is known as too large."""
    if status:
        assert http_parser.refusal(refused(requests, data)).status == status
    else:
        one_request(requests, data)


def test_a_refusal_repeats_nothing_of_the_request(requests: RequestParser) -> None:
    """aiohttp's errors quote the line they fail at; what is told to the client does not."""
    error = refused(requests, b"GET /" + HEAD + b"X-Api-Key: dummy-canary\0\r\n\r\n")
    assert "dummy-canary" in str(error)
    said = http_parser.refusal(error)
    assert "dummy-canary" not in f"{said} {said.advice} {said.log_detail}"


# -- answers -----------------------------------------------------------------------------------


def test_interim_responses_come_as_messages_of_their_own(answers: Parser) -> None:
    """100 and 103 precede the answer proper, in the same read or not."""
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    assert one_answer(answers, b"HTTP/1.1 100 Continue\r\n\r\n")[0].code == 100
    messages, _, _ = answers.feed_data(early + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert [head.code for head, _ in messages] == [103, 200]
    body = messages[1][1]
    assert (body.read_nowait(), body.is_eof()) == (b"ok", True)


@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_responses_to_head_have_no_body(loop: asyncio.AbstractEventLoop, framing: bytes) -> None:
    """With ``head_only`` the answer is complete with its head, whatever it announces."""
    parser = http_parser.response_parser(loop, head_only=True)
    _, body = one_answer(parser, b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n")
    assert (body.read_nowait(), body.is_eof()) == (b"", True)


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize(
    "framing", [b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"]
)
def test_statuses_without_a_body(answers: Parser, status: bytes, framing: bytes) -> None:
    """204 and 304 are complete with their head, whatever they announce (RFC 9112 section 6.3)."""
    _, body = one_answer(answers, b"HTTP/1.1 " + status + b"\r\n" + framing + b"\r\n")
    assert (body.read_nowait(), body.is_eof()) == (b"", True)


def test_a_body_behind_204_is_an_error(answers: Parser) -> None:
    """Bytes that follow a 204 in the same read are no answer, and say so."""
    refused(answers, b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_responses_until_the_end_of_the_connection(answers: Parser, version: bytes) -> None:
    """Without any framing the body stays open, and everything that comes belongs to it."""
    head, body = one_answer(answers, b"HTTP/" + version + b" 200 OK\r\n\r\nab")
    assert (body.read_nowait(), body.is_eof()) == (b"ab", False)
    assert head.should_close
    answers.feed_data(b"HTTP/1.1 200 OK\r\n\r\n")
    assert (body.read_nowait(), body.is_eof()) == (b"HTTP/1.1 200 OK\r\n\r\n", False)


@pytest.mark.parametrize("framing", [b"Content-Length: 0\r\n", b"Content-Length: 2\r\n", CHUNKED])
def test_a_framed_response_ends_at_its_length(answers: Parser, framing: bytes) -> None:
    """The body is at its end in the very read in which its last byte came."""
    data = b"HTTP/1.1 200 OK\r\n" + framing.removesuffix(b"\r\n\r\n").removesuffix(b"\r\n")
    data += b"\r\n\r\n"
    data += (
        {b"C": b"ok", b"T": b"2\r\nok\r\n0\r\n\r\n"}[framing[:1]] if b"0" not in framing else b""
    )
    _, body = one_answer(answers, data)
    body.read_nowait()
    assert body.is_eof()


def test_a_second_response_is_a_second_message(answers: Parser) -> None:
    """What follows an answer and looks like another is counted, so that it can be told apart."""
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    assert len(answers.feed_data(one + one)[0]) == 2


@pytest.mark.parametrize("extra", [b"x", b"extra bytes", b"\0"])
def test_garbage_behind_a_response_is_an_error(answers: Parser, extra: bytes) -> None:
    """What follows an answer in the same read and is no answer is an error."""
    refused(answers, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + extra)


def test_bytes_behind_101(answers: Parser) -> None:
    """What follows a 101 comes out untouched in the same call."""
    head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    messages, changed, tail = answers.feed_data(head + b"\x81\x05early")
    assert (messages[0][0].code, changed, tail) == (101, True, b"\x81\x05early")


def test_a_bare_101(answers: Parser) -> None:
    """A 101 that names no protocol is a message like any other, without a body."""
    head, body = one_answer(answers, b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
    assert (head.code, body.is_eof()) == (101, True)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        b"HTTP/1.1 200 O\rK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX Y: a\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: a\r\n\r\n",
        b"HTTP/1.1 2OO OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"dummy\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 65_536 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 257 + b"\r\n",
    ],
)
def test_malformed_responses_are_refused(answers: Parser, data: bytes) -> None:
    """Lenient as it is, the parser of answers lets no ambiguous framing and no NUL pass."""
    refused(answers, data)


def test_long_fields_of_responses(answers: Parser) -> None:
    """A field of nearly 64 KiB and 256 fields pass: providers' policies and cookies are long."""
    long = b"X: " + b"a" * 65_000 + b"\r\n"
    one_answer(answers, b"HTTP/1.1 200 OK\r\n" + long + b"X: a\r\n" * 255 + b"\r\n")


def test_folded_fields_of_responses_come_in_one_line(answers: Parser) -> None:
    """A folded value is unfolded, so that it stays one line when it goes on."""
    head, _ = one_answer(answers, b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n")
    assert head.raw_headers == ((b"X", b"a b"),)


def test_compressed_responses_stay_compressed(answers: Parser) -> None:
    """A coded body comes as it was sent, and the field that says so stays."""
    data = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x00!"
    head, body = one_answer(answers, data)
    assert (head.headers["Content-Encoding"], body.read_nowait()) == ("gzip", b"\x1f\x8b\x00!")


# -- answers as the rest of keyrelay knows them ------------------------------------------------


class Answer:
    """What a parser would say that lets more pass than aiohttp's does today."""

    code = 200
    version = (1, 1)
    should_close = False
    chunked = False

    def __init__(self, *fields: tuple[bytes, bytes], reason: str = "OK") -> None:
        self.raw_headers = fields
        self.headers = CIMultiDictProxy(
            CIMultiDict((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields)
        )
        self.reason = reason


def test_the_head_of_a_response(answers: Parser) -> None:
    """Its fields in their order, case and bytes, each once between LF and CR; what frames it."""
    lines = b"x-B: \xff\r\nContent-Length:  5\r\nX-a:1 \r\nx-b:\r\n"
    message, _ = one_answer(answers, b"HTTP/1.1 404 Not \xff found\r\n" + lines + b"\r\n")
    head = http_parser.response_head(message)
    assert (head.code, head.reason, head.length) == (404, b"Not \xff found", 5)
    assert head.fields == b"\nx-B: \xff\r\nContent-Length: 5\r\nX-a: 1\r\nx-b: \r\n"
    assert not head.closing


def test_the_head_of_a_response_without_fields(answers: Parser) -> None:
    """It has no length, and the connection ends it."""
    message, _ = one_answer(answers, b"HTTP/1.0 200 OK\r\n\r\n")
    head = http_parser.response_head(message)
    assert (head.fields, head.length, head.closing) == (b"\n", None, True)


@pytest.mark.parametrize("value", [b"a\rX: y", b"a\nX: y", b"a\r\nX: y", b"\r\n", b"a\0b", b"\r"])
def test_a_response_cannot_smuggle_a_field(value: bytes) -> None:
    """T24: a value or a name that would end its line makes the whole answer invalid, whatever the
    parser lets through.
    """
    for fields in (
        ((b"X-A", value),),
        ((b"X-A", b"1"), (b"X-B", value), (b"X-C", b"1")),
        ((value, b"1"),),
    ):
        with pytest.raises(ValueError, match=r"CR, LF or NUL|space"):
            http_parser.response_head(Answer(*fields))


@pytest.mark.parametrize("name", [b"Content-Length ", b" X", b"X Y"])
def test_a_name_with_a_blank_is_no_name(name: bytes) -> None:
    """RFC 9112 section 5.1: a field that some see and others do not is not passed on."""
    with pytest.raises(ValueError, match="space"):
        http_parser.response_head(Answer((name, b"1")))


@pytest.mark.parametrize("byte", [b"\x01", b"\x08", b"\x1b", b"\x7f"])
def test_a_response_holds_no_control_characters(byte: bytes) -> None:
    """A terminal that shows a head is not told what to do by a provider; a tab is harmless."""
    with pytest.raises(ValueError, match="control character"):
        http_parser.response_head(Answer((b"X-A", b"a" + byte)))
    with pytest.raises(ValueError, match="control character"):
        http_parser.response_head(Answer(reason=f"a{byte.decode()}"))
    assert http_parser.response_head(Answer((b"X-A", b"a\tb"))).values(b"x-a") == [b"a\tb"]


def test_a_reason_cannot_hold_nul() -> None:
    """T24: nor may the reason phrase."""
    with pytest.raises(ValueError, match="NUL"):
        http_parser.response_head(Answer(reason="a\0b"))
