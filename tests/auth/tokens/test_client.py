"""Tests of auth/endpoint.py: calls over real connections, and what is read from answers."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import logging
import socket
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.auth.token_cache import TokenError
from proxy.auth.tokens.client import TokenClient, TokenRequest
from proxy.auth.tokens.response import TokenFields, lifetime_of, read_token
from proxy.upstream.dialer import tls_context
from tests.support.certificates import Authority
from tests.support.keyrelay import (
    RawProvider,
    Serve,
    answering,
    both_loops,
    raw_provider,
    read_head,
)

CANARY = "CANARY-dummy-words-of-the-endpoint"
SECRET = "CANARY-dummy-client-secret"
NOW = 1_800_000_000.0
OAUTH = TokenFields("access_token", ("expires_in", "expires_at"), 300)


def endpoint(tls: ssl.SSLContext | None = None, *, allow_private: bool = False) -> TokenClient:
    return TokenClient(tls or tls_context(), lambda: NOW, allow_private=allow_private)


def call(url: str, **more: Any) -> TokenRequest:
    return TokenRequest(
        "POST",
        url,
        {"Authorization": f"Basic {SECRET}", "Content-Type": "application/json"},
        f'{{"client_secret": "{SECRET}"}}'.encode(),
        **more,
    )


def answer(body: bytes | str, *fields: str, status: str = "200 OK") -> bytes:
    """An HTTP answer of JSON, unless ``fields`` say otherwise."""
    body = body.encode() if isinstance(body, str) else body
    if not any(field.lower().startswith("content-type") for field in fields):
        fields = (*fields, "Content-Type: application/json")
    head = "\r\n".join((f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}", "", ""))
    return head.encode() + body


def says_nothing(error: BaseException) -> None:
    """What was sent and what came is in no text of ``error``, nor is an error that has it shown."""
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    for secret in (CANARY, SECRET):
        assert secret not in f"{error} {error!r} {vars(error)}"


async def failure_of(url: str, **more: Any) -> TokenError:
    with pytest.raises(TokenError) as caught:
        await endpoint(**more)(call(url))
    says_nothing(caught.value)
    return caught.value


async def failure_after(*answers: bytes) -> tuple[TokenError, RawProvider]:
    async with raw_provider(answering(*answers)) as provider:
        return await failure_of(f"{provider.url}/token"), provider


# -- calls ----------------------------------------------------------------------------------------


@both_loops
async def test_a_call_is_sent_as_it_is_and_its_answer_read() -> None:
    """Method, target, headers and body go out unchanged; JSON and the time of it come back."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        heads.append(head + await reader.readexactly(length))
        writer.write(answer('{"access_token": "dummy", "n": [1, "é"]}'))

    async with raw_provider(serve) as provider:
        said = await endpoint()(call(f"{provider.url}/a%2Fb/c:d?x=%41+1"))
    assert said == ({"access_token": "dummy", "n": [1, "é"]}, NOW)
    (request,) = heads
    assert request.startswith(b"POST /a%2Fb/c:d?x=%41+1 HTTP/1.1\r\n")
    assert request.endswith(b'\r\n\r\n{"client_secret": "' + SECRET.encode() + b'"}')
    for field in (b"Accept: application/json", b"Accept-Encoding: identity"):
        assert request.count(field) == 1
    assert f"\r\nAuthorization: Basic {SECRET}\r\n".encode() in request


async def test_a_call_may_say_what_it_accepts() -> None:
    """Headers of the call take the place of our own."""
    heads: list[bytes] = []
    async with raw_provider(keeping(heads)) as provider:
        await endpoint()(TokenRequest("GET", provider.url, {"Accept": "application/vnd.api+json"}))
    (head,) = heads
    assert head.count(b"Accept:") == 1
    assert b"Accept: application/vnd.api+json\r\n" in head
    assert head.startswith(b"GET / HTTP/1.1\r\n")


def keeping(heads: list[bytes], *fields: str) -> Serve:
    """Answers ``{}`` with these fields and keeps what it was asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_head(reader))
        writer.write(answer("{}", *fields))

    return serve


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "application/vnd.github+json"],
)
async def test_kinds_of_json(content_type: str) -> None:
    """JSON may have a charset or a name of its own."""
    async with raw_provider(answering(answer("[]", f"Content-Type: {content_type}"))) as provider:
        assert await endpoint()(call(provider.url)) == ([], NOW)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    """The place that it points at sees no connection; the refusal names no place."""
    async with raw_provider(answering(answer("{}"))) as elsewhere:
        failure, _ = await failure_after(
            answer("", f"Location: {elsewhere.url}/{CANARY}", status=f"{status} Away")
        )
        assert elsewhere.connections == 0
    assert failure.bad_answer
    assert str(status) in failure.reason


async def test_ten_mebibytes_are_not_read() -> None:
    """An answer too large is given up long before its end."""
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: 10485762\r\n\r\n")
        piece = b'"' + b"x" * 16382
        try:
            while sent < 10 * 1024 * 1024:
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
        except ConnectionError:
            return

    async with raw_provider(serve) as provider:
        failure = await failure_of(provider.url)
    assert failure.bad_answer
    assert "too large" in failure.reason
    assert sent < 10 * 1024 * 1024


async def test_compressed_answers_are_not_unpacked() -> None:
    """A few kilobytes that would become ten mebibytes stay as they are, and are no JSON."""
    bomb = gzip.compress(b'{"access_token": "' + b"x" * 10 * 1024 * 1024 + b'"}')
    failure, _ = await failure_after(answer(bomb, "Content-Encoding: gzip"))
    assert (failure.reason, failure.bad_answer) == ("the token endpoint's answer is not JSON", True)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (f"<html>{CANARY}</html>", ("Content-Type: text/html",)),
        ('{"access_token": "dummy"}', ("Content-Type: text/plain",)),
        (f'{{"access_token": "{CANARY}', ()),
        ("", ()),
        ("[" * 60_000, ()),
        ('{"a":' * 10_000, ()),
        ("9" * 5000, ()),
        (b"\xff\xfe\xfd", ()),
    ],
    ids=["html", "text", "cut", "empty", "lists", "objects", "number", "bytes"],
)
async def test_what_is_not_json_is_a_bad_answer(body: str, fields: tuple[str, ...]) -> None:
    """HTML, broken, endless nesting: 502, and nothing of it repeated."""
    failure, _ = await failure_after(answer(body, *fields))
    assert failure.bad_answer
    assert failure.reason == "the token endpoint's answer is not JSON"


@pytest.mark.parametrize("code", ["invalid_client", "invalid_grant", "unauthorized_client"])
@pytest.mark.parametrize("status", [400, 401])
async def test_hopeless_errors_are_remembered(status: int, code: str) -> None:
    """The code of RFC 6749 is said, the description is not; asked again after a minute."""
    failure, _ = await failure_after(
        answer(
            json.dumps({"error": code, "error_description": CANARY, "error_uri": CANARY}),
            status=f"{status} {CANARY}",
        )
    )
    assert failure.reason == f"the token endpoint answered {status}, {code}"
    assert failure.pause_seconds == 60
    assert not failure.bad_answer


@pytest.mark.parametrize(
    ("status", "fields", "pause"),
    [
        (500, (), 0),
        (503, ("Retry-After: 7",), 7),
        (429, ("Retry-After: 120",), 120),
        (429, ("Retry-After: 999999",), 3600),
        (429, ("Retry-After: 99999999999",), 0),
        (429, ("Retry-After: -1",), 0),
        (429, ("Retry-After: ٣",), 0),
        (429, ("Retry-After: Wed, 21 Oct 2026 07:28:00 GMT",), 0),
        (403, ("Retry-After: 7",), 60),
        (403, ("Retry-After: 700",), 700),
        (404, ("Content-Type: text/html",), 0),
    ],
)
async def test_other_errors(status: int, fields: tuple[str, ...], pause: float) -> None:
    """What an endpoint asks for is kept to, within an hour; its words are not repeated."""
    failure, _ = await failure_after(
        answer(json.dumps({"error": CANARY}), *fields, status=f"{status} {CANARY}")
    )
    assert failure.reason == f"the token endpoint answered {status}"
    assert (failure.pause_seconds, failure.bad_answer) == (pause, False)


@pytest.mark.parametrize("document", ['["invalid_client"]', '{"error": ["x"]}', '{"error": null}'])
async def test_errors_of_odd_shapes(document: str) -> None:
    """An error that is no text is not said, and breaks nothing."""
    failure, _ = await failure_after(answer(document, status="400 Bad Request"))
    assert failure.reason == "the token endpoint answered 400"


async def test_nothing_of_the_endpoint_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Neither cookies that cannot be read nor anything else of an answer."""
    caplog.set_level(logging.DEBUG)
    cookies = (f"Set-Cookie: bad,{CANARY}@=x", f'Set-Cookie: a="{CANARY}', f"Set-Cookie: {CANARY}")
    good = answer("{}", *cookies, f"X-{CANARY}: {CANARY}")
    async with raw_provider(answering(good)) as provider:
        await endpoint()(call(provider.url))
    await failure_after(answer(CANARY, *cookies))
    await failure_after(answer(f'{{"error": "{CANARY}"}}', *cookies, status="400 Bad"))
    await failure_after(f"HTTP/1.1 {CANARY}\r\n\r\n".encode())
    assert CANARY not in caplog.text
    assert SECRET not in caplog.text


async def test_cookies_are_not_kept() -> None:
    """The next call brings none."""
    heads: list[bytes] = []
    async with raw_provider(keeping(heads, "Set-Cookie: dummy=1; Path=/")) as provider:
        ask = endpoint()
        await ask(TokenRequest("GET", provider.url))
        await ask(TokenRequest("GET", provider.url))
    assert (provider.connections, len(heads)) == (2, 2)
    assert b"cookie" not in b"".join(heads).lower()


async def test_the_environment_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No proxy and no netrc of the environment is used."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login dummy password {CANARY}\n")
    netrc.chmod(0o600)
    async with raw_provider(answering(answer("{}"))) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("NETRC", str(netrc))
        heads: list[bytes] = []
        async with raw_provider(keeping(heads)) as provider:
            await endpoint()(TokenRequest("GET", provider.url))
        assert proxy.connections == 0
    assert len(heads) == 1
    assert b"authorization" not in heads[0].lower()


async def test_an_endpoint_that_is_down() -> None:
    """Refused connections, connections that break, answers that are none: 503 material."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    refused = await failure_of(f"http://127.0.0.1:{port}/{CANARY}")
    assert refused.reason == "the token endpoint cannot be reached (no connection)"

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)

    async with raw_provider(hang_up) as provider:
        broken = await failure_of(provider.url)
    assert broken.reason == "the token endpoint cannot be reached (the connection broke)"
    garbage, _ = await failure_after(f"{CANARY}\r\n\r\n".encode())
    for failure in (refused, broken, garbage):
        assert not failure.bad_answer


async def test_an_answer_that_is_cut_is_not_used() -> None:
    """Half an answer that happens to be JSON is none."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(answer('{"access_token": "dummy"}').replace(b"Length: 25", b"Length: 99"))

    async with raw_provider(serve) as provider:
        failure = await failure_of(provider.url)
    assert failure.reason == "the token endpoint cannot be reached (the connection broke)"


async def test_a_slow_endpoint_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call has ten seconds in all, however little by little the answer comes."""
    loop = asyncio.get_running_loop()
    real, ahead = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: real() + ahead)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal ahead
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: 99\r\n\r\n{")
        await writer.drain()
        ahead = 9.0
        await asyncio.sleep(0.02)
        writer.write(b" ")
        ahead = 11.0
        await reader.read()

    async with raw_provider(serve) as provider, asyncio.timeout(60):
        failure = await failure_of(provider.url)
    assert (failure.reason, failure.bad_answer) == (
        "the token endpoint did not answer in time",
        False,
    )


@both_loops
async def test_cancelling_closes_the_connection() -> None:
    """Whoever waits no longer leaves nothing open and nothing unsaid."""
    began, ended = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        began.set()
        while await reader.read(4096):
            pass
        ended.set()

    async with raw_provider(serve) as provider:
        task = asyncio.ensure_future(endpoint()(call(provider.url)))  # noqa: TID251
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            await ended.wait()
    gc.collect()


@pytest.mark.parametrize(
    "headers",
    [{"X-A": f"a\r\nX-B: {CANARY}"}, {"X-A": f"a\n{CANARY}"}, {f"X\r\n{CANARY}": "b"}],
)
async def test_a_header_cannot_be_ended(headers: dict[str, str]) -> None:
    """A secret with a line break in it goes nowhere, and is not shown."""
    heads: list[bytes] = []
    async with raw_provider(keeping(heads)) as provider:
        with pytest.raises(TokenError) as caught:
            await endpoint()(TokenRequest("GET", provider.url, headers))
    assert not heads
    says_nothing(caught.value)
    assert "cannot be written" in caught.value.reason


@pytest.mark.parametrize(
    "url", ["builtin:demo/token", f"https://user:{SECRET}@127.0.0.1/", "https://", "x", "/token"]
)
async def test_a_url_that_is_none(url: str) -> None:
    """It is an answer to the request, not a fault; and the URL may hold a secret."""
    failure = await failure_of(url)
    assert failure.reason == "the token endpoint's URL cannot be used"


# -- where calls go -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[::ffff:169.254.169.254]", "[fe80::1]", "0.0.0.0", "224.0.0.1"]
)
async def test_forbidden_addresses_are_not_dialled(host: str) -> None:
    """Metadata services and the like are refused at once, even if private ones are allowed."""
    async with asyncio.timeout(2):
        failure = await failure_of(f"http://{host}/token", allow_private=True)
    assert "must not reach" in failure.reason


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254"])
async def test_a_name_that_points_inside_is_not_dialled(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A public name that resolves to this machine or its network: no connection, and why not."""
    loop = asyncio.get_running_loop()
    async with raw_provider(answering(answer("{}"))) as provider:

        async def getaddrinfo(host: str, port: int, **hints: object) -> list[object]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, provider.port))]

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        url = f"http://token.example:{provider.port}/token"
        failure = await failure_of(url)
        assert provider.connections == 0
        assert "allow_private: true" in failure.reason
        if address == "127.0.0.1":
            assert await endpoint(allow_private=True)(call(url)) == ({}, NOW)


async def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said to be the name's fault."""

    async def getaddrinfo(host: str, port: int, **hints: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, CANARY)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    failure = await failure_of("https://token.example/token")
    assert failure.reason == "the token endpoint cannot be reached (its name cannot be resolved)"


@both_loops
async def test_certificates_are_verified(tmp_path: Path) -> None:
    """A trusted one is taken; an unknown authority, another name, an old one are not."""
    authority = Authority(tmp_path)
    good = authority.server("127.0.0.1")
    old, other = authority.server("127.0.0.1", expired=True), authority.server("other.example")
    serve = answering(answer('{"access_token": "dummy"}'))
    async with raw_provider(serve, good) as provider:
        assert await certificate_failure(provider, tls_context())
    tls = tls_context()
    tls.load_verify_locations(authority.file)
    async with raw_provider(serve, good) as provider:
        assert await endpoint(tls)(call(provider.url)) == ({"access_token": "dummy"}, NOW)
    async with raw_provider(serve, old) as provider:
        assert await certificate_failure(provider, tls)
    async with raw_provider(serve, other) as provider:
        assert await certificate_failure(provider, tls)
    gc.collect()


async def certificate_failure(provider: RawProvider, tls: ssl.SSLContext) -> bool:
    failure = await failure_of(provider.url, tls=tls)
    return failure.reason == ("the token endpoint cannot be reached (its certificate is not valid)")


async def test_a_server_without_tls_is_not_spoken_to() -> None:
    """A plain answer to a handshake ends it; nothing was sent but the handshake."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer("{}"))

    async with raw_provider(serve) as provider:
        failure = await failure_of(f"https://127.0.0.1:{provider.port}/")
    assert failure.reason == "the token endpoint cannot be reached (the TLS handshake failed)"


# -- answers --------------------------------------------------------------------------------------


def token_of(answer: Any, fields: TokenFields = OAUTH) -> tuple[bytes, float]:
    fetched = read_token(answer, fields, NOW)
    return fetched.value, fetched.lifetime_seconds


def rejected(answer: Any, fields: TokenFields = OAUTH) -> str:
    with pytest.raises(TokenError) as caught:
        read_token(answer, fields, NOW)
    assert caught.value.bad_answer
    assert CANARY not in str(caught.value)
    says_nothing(caught.value)
    return caught.value.reason


@pytest.mark.parametrize(
    "token",
    [
        f"{CANARY}\r\nX: y",
        f"{CANARY}\n",
        f"{CANARY} x",
        f"{CANARY}é",
        f"{CANARY}\x00",
        f'"{CANARY}"',
        f"a=b{CANARY}",
        "",
        None,
        17,
        True,
        [CANARY],
        {"value": CANARY},
    ],
)
def test_tokens_that_could_end_a_header(token: Any) -> None:
    """Only what RFC 6750 calls a token; anything else is unusable, and not repeated."""
    assert rejected({"access_token": token}) == "the answer holds no usable token"


@pytest.mark.parametrize("answer", [[], None, "dummy", 1, {}, {"token": "x"}, [{"a": 1}]])
def test_answers_without_a_token(answer: Any) -> None:
    """JSON of any other shape is unusable and breaks nothing."""
    rejected(answer)


@pytest.mark.parametrize("kind", ["bearer", "Bearer", "BEARER", None])
def test_bearer_tokens(kind: str | None) -> None:
    """However it is written; an endpoint that does not say is believed."""
    assert token_of({"access_token": "a.b-c_d~e+f/g==", "token_type": kind})[0] == (
        b"a.b-c_d~e+f/g=="
    )


@pytest.mark.parametrize("kind", ["mac", "DPoP", "", 1, ["bearer"], f"bearer {CANARY}"])
def test_tokens_of_other_types(kind: Any) -> None:
    """A token that needs more than being shown cannot be used (RFC 6749 section 7.1)."""
    assert "not bearer" in rejected({"access_token": "dummy", "token_type": kind})


def test_types_may_not_matter() -> None:
    """Where a provider has its own way, ``token_type`` says what it likes."""
    fields = TokenFields("t", ("e",), 5, bearer=False)
    assert token_of({"t": "dummy", "token_type": "api"}, fields) == (b"dummy", 5)


@pytest.mark.parametrize(
    ("said", "lifetime"),
    [
        ({"expires_in": 3600}, 3600),
        ({"expires_in": "3600"}, 3600),
        ({"expires_in": 3599.5}, 3599.5),
        ({"expires_in": " 3600 "}, 3600),
        ({"expires_in": 3}, 3),
        ({}, 300),
        ({"expires_in": None}, 300),
        ({"expires_in": None, "expires_at": NOW + 60}, 60),
        ({"expires_at": NOW + 60}, 60),
        ({"expires_at": str(NOW + 60)}, 60),
        ({"expires_at": (NOW + 60) * 1000}, 60),
        ({"expires_at": str(int(NOW + 60) * 1000)}, 60),
        ({"expires_at": datetime.fromtimestamp(NOW + 60, UTC).isoformat()}, 60),
        ({"expires_at": "2027-01-15T08:01:00Z"}, 60),
        ({"expires_at": "2027-01-15t08:01:00.5z"}, 60.5),
        ({"expires_at": "2027-01-15T08:01:00.123456789Z"}, 60.123456),
        ({"expires_at": "2027-01-15T10:01:00+02:00"}, 60),
        ({"expires_in": 60, "expires_at": "nonsense"}, 60),
    ],
)
def test_lifetimes(said: dict[str, Any], lifetime: float) -> None:
    """Spans, epoch times in seconds or milliseconds, RFC 3339; as numbers or texts; or nothing."""
    assert token_of({"access_token": "dummy", **said})[1] == pytest.approx(lifetime)


@pytest.mark.parametrize(
    "said", [0, "0", -1, -0.0, "-3600", -1e300, NOW - 1, "2020-01-01T00:00:00Z"]
)
def test_tokens_that_have_ended(said: Any) -> None:
    """They are no tokens; what cannot be cached is not used at all."""
    assert rejected({"access_token": "dummy", "expires_in": said}) == (
        "the token had already expired when it came"
    )


@pytest.mark.parametrize(
    "said",
    [
        float("nan"),
        float("inf"),
        float("-inf"),
        "NaN",
        "Infinity",
        "-inf",
        "1e999",
        10**400,
        "",
        "soon",
        CANARY,
        True,
        False,
        [],
        [3600],
        {"seconds": 3600},
        "2027-01-15T08:01:00",  # no zone: anybody's guess
        "2027-01-15",
        "2027-13-45T99:99:99Z",
        "3600s",
    ],
)
def test_lifetimes_that_cannot_be_read(said: Any) -> None:
    """They are not guessed at."""
    assert rejected({"access_token": "dummy", "expires_in": said}) == (
        "the token's lifetime cannot be read"
    )


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e400", "1" * 400])
def test_numbers_that_only_python_takes_for_json(text: str) -> None:
    """The parser lets them pass; the reader does not."""
    document = json.loads(f'{{"access_token": "dummy", "expires_in": {text}}}')
    assert "cannot be read" in rejected(document)


def test_dots_lead_into_objects() -> None:
    """As in ``client_secret.value`` of ephemeral tokens; a way that ends early leads nowhere."""
    fields = TokenFields("client_secret.value", ("client_secret.expires_at",), 300)
    inner = {"value": "dummy", "expires_at": NOW + 60}
    assert token_of({"client_secret": inner}, fields) == (b"dummy", 60)
    others: tuple[Any, ...] = (
        {"client_secret": "x"},
        {"client_secret": []},
        {"client_secret.value": "x"},
    )
    for other in others:
        rejected(other, fields)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists))
def test_any_lifetime_is_read_or_refused(said: Any) -> None:
    """Whatever an endpoint says: a finite number of seconds, or TokenError."""
    try:
        lifetime = lifetime_of(said, NOW)
    except TokenError:
        return
    assert abs(lifetime) < float("inf")


@given(st.datetimes(), st.integers(-1439, 1439))
def test_any_moment_is_read_or_refused(moment: datetime, minutes: int) -> None:
    """The ends of the calendar included, in every zone."""
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    lifetime = lifetime_of(
        f"{moment.isoformat()}{sign}{minutes // 60:02}:{minutes % 60:02}", time.time()
    )
    assert abs(lifetime) < 1e12


def test_calls_are_never_printed() -> None:
    """Neither the call nor what it is made of."""
    one = call("https://token.example/")
    assert SECRET not in f"{one!r}{one}{endpoint()!r}"
