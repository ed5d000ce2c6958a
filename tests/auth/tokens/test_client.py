"""Tests of auth/endpoint.py: calls over real connections, and what is read from answers."""

from __future__ import annotations

import asyncio
import base64
import gc
import gzip
import json
import logging
import socket
import ssl
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.auth.token import TokenError
from proxy.auth.tokens.client import TokenClient, TokenRequest
from proxy.auth.tokens.response import TokenFields, lifetime_of, read_token
from proxy.upstream.tls import tls_context
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
    """What was sent is in no text of ``error``; what came is in those for the operator alone."""
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    kept = {name: value for name, value in vars(error).items() if name not in {"details", "code"}}
    assert CANARY not in f"{error} {error!r} {kept}"
    assert SECRET not in f"{error} {error!r} {vars(error)}"


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
    [
        "application/json",
        "application/json; charset=utf-8",
        "application/vnd.github+json",
        "text/html; charset=utf-8",
        "text/plain",
        "application/octet-stream",
        "",
        "nonsense",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
async def test_json_is_read_whatever_it_is_called(content_type: str, encoding: str) -> None:
    """Servers behind gateways call it many things; a byte-order mark does not matter either."""
    body = '{"access_token": "dummy"}'.encode(encoding)
    async with raw_provider(answering(answer(body, f"Content-Type: {content_type}"))) as provider:
        assert await endpoint()(call(provider.url)) == ({"access_token": "dummy"}, NOW)


async def test_a_form_is_read() -> None:
    """As servers answer that predate the JSON of RFC 6749."""
    form = answer(
        "access_token=dummy&expires_in=3600", "Content-Type: application/x-www-form-urlencoded"
    )
    async with raw_provider(answering(form)) as provider:
        document, _ = await endpoint()(call(provider.url))
    assert token_of(document) == (b"dummy", 3600)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    """The place that it points at sees no connection; the refusal names no place."""
    async with raw_provider(answering(answer("{}"))) as elsewhere:
        failure, _ = await failure_after(
            answer("", f"Location: {elsewhere.url}/{CANARY}", status=f"{status} Away")
        )
        assert elsewhere.connections == 0
    assert failure.invalid_response
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
    assert failure.invalid_response
    assert "too large" in failure.reason
    assert sent < 10 * 1024 * 1024


@pytest.mark.parametrize(
    ("coding", "compress"),
    [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)],
)
async def test_compressed_answers_are_read(coding: str, compress: Callable[[bytes], bytes]) -> None:
    """Some servers compress without Accept-Encoding."""
    body = compress(b'{"access_token": "dummy"}')
    compressed = answer(body, f"Content-Encoding: {coding}")
    async with raw_provider(answering(compressed)) as provider:
        assert await endpoint()(call(provider.url)) == ({"access_token": "dummy"}, NOW)


async def test_compressed_answers_are_bounded() -> None:
    """A few kilobytes that would become ten mebibytes are given up long before."""
    bomb = gzip.compress(b'{"access_token": "' + b"x" * 10 * 1024 * 1024 + b'"}')
    failure, _ = await failure_after(answer(bomb, "Content-Encoding: gzip"))
    assert (failure.reason, failure.invalid_response) == (
        "the token endpoint's response is too large",
        True,
    )


async def test_what_is_compressed_only_at_its_beginning() -> None:
    """It is named, and nothing of it repeated."""
    body = gzip.compress(b"", mtime=0)[:10] + CANARY.encode()
    failure, _ = await failure_after(answer(body, "Content-Encoding: gzip"))
    assert failure.invalid_response
    assert "cannot be decompressed" in failure.reason


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (f"<html>{CANARY}</html>", ("Content-Type: text/html",)),
        (f'{{"access_token": "{CANARY}', ()),
        ("", ()),
        ("[" * 60_000, ()),
        ('{"a":' * 10_000, ()),
        ("9" * 5000, ()),
        (b"\xff\xfe\xfd", ()),
    ],
    ids=["html", "cut", "empty", "lists", "objects", "number", "bytes"],
)
async def test_what_is_not_json_is_an_invalid_response(body: str, fields: tuple[str, ...]) -> None:
    """HTML, broken, endless nesting: 502, and nothing of it repeated."""
    failure, _ = await failure_after(answer(body, *fields))
    assert failure.invalid_response
    assert failure.reason == "the token endpoint's response is not JSON"


@pytest.mark.parametrize("code", ["invalid_client", "invalid_grant", "unauthorized_client"])
@pytest.mark.parametrize("status", [400, 401])
async def test_hopeless_errors_are_remembered(status: int, code: str) -> None:
    """The code of RFC 6749 is told to clients, the description to the operator alone."""
    failure, _ = await failure_after(
        answer(
            json.dumps({"error": code, "error_description": CANARY, "error_uri": CANARY}),
            status=f"{status} {CANARY}",
        )
    )
    assert failure.reason == f"the token endpoint answered {status}, {code}"
    # What is long and without a blank might be a credential.
    assert failure.details == f"the token endpoint answered {status}, {code}: ***"
    assert failure.pause_seconds == 60
    assert failure.probes
    assert not failure.invalid_response


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"error": "invalid_target"}, "invalid_target"),
        ({"error": "use_dpop_nonce"}, "use_dpop_nonce"),
        ({"error": "temporarily_unavailable"}, "temporarily_unavailable"),
        ({"error": "scope_invalid"}, "scope_invalid"),
        (
            {
                "error": "invalid_client",
                "error_description": "AADSTS7000215: Invalid client secret provided.",
            },
            "invalid_client: AADSTS7000215: Invalid client secret provided.",
        ),
        (
            {"error": {"code": 401, "message": "Request had invalid credentials."}},
            "401: Request had invalid credentials.",
        ),
        ({"errorCode": "E0000011", "errorSummary": "Invalid token"}, "E0000011: Invalid token"),
        ({"code": "4001", "message": "no such app"}, "4001: no such app"),
        ({"detail": "Not found"}, "Not found"),
        ({"error": "odd\n\x1b[31m code", "error_description": "a\r\nb"}, "odd [31m code: a b"),
    ],
)
@pytest.mark.parametrize("status", [400, 401, 403])
async def test_errors_in_the_server_s_words(
    status: int, document: dict[str, Any], words: str
) -> None:
    """Registered codes and others, in whatever shape: one line for the operator."""
    failure, _ = await failure_after(answer(json.dumps(document), status=f"{status} No"))
    assert failure.details == f"the token endpoint answered {status}, {words}"


async def test_what_the_server_quotes_is_redacted() -> None:
    """Secrets of the call, in any coding, and whatever else looks like a credential; then cut."""
    basic = base64.b64encode(f"id:{SECRET}".encode()).decode()
    other = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJvdGhlciJ9.c2lnbmF0dXJl"
    description = f"client {SECRET} with {basic} and {other} is unknown " + "and so on " * 100
    document = {"error": f"bad_{SECRET}", "error_description": description}
    serve = answering(answer(json.dumps(document), status="401 No"))
    async with raw_provider(serve) as provider:
        with pytest.raises(TokenError) as caught:
            await endpoint()(replace(call(provider.url), secrets=(SECRET.encode(), basic.encode())))
    details = caught.value.details
    assert SECRET not in details
    assert basic not in details
    assert other not in details
    assert details.startswith("the token endpoint answered 401, bad_****")
    assert len(details) < 400
    assert details.endswith("…")


@pytest.mark.parametrize(
    ("status", "code", "encoded", "words"),
    [
        (401, "invalid_client", False, "Check the client's id and secret (env:ID, env:SECRET)."),
        (401, "", False, "Check the client's id and secret (env:ID, env:SECRET)."),
        (403, "", False, "mean a wrong client id or secret by 403 (env:ID, env:SECRET)."),
        (400, "invalid_scope", False, "Check scope:"),
        (400, "invalid_target", False, "Check resource: and audience:"),
        (400, "invalid_dpop_proof", False, "Check dpop:"),
        (401, "invalid_client", True, "try client_auth: basic_plain, or form."),
        (403, "", True, "try client_auth: basic_plain, or form."),
        (400, "", True, "try client_auth: basic_plain, or form."),
        (503, "", True, ""),
    ],
)
async def test_what_is_advised(status: int, code: str, encoded: bool, words: str) -> None:
    """The secrets by name where the client was refused; what to try where encoding changed one."""
    document = json.dumps({"error": code} if code else {})
    serve = answering(answer(document, status=f"{status} No"))
    async with raw_provider(serve) as provider:
        request = replace(call(provider.url), client="env:ID, env:SECRET", encoded=encoded)
        with pytest.raises(TokenError) as caught:
            await endpoint()(request)
    assert words in caught.value.advice
    assert bool(words) is bool(caught.value.advice)


async def test_an_error_with_status_200_is_named() -> None:
    """As some servers answer: the code is what counts."""
    document = {"error": "bad_verification_code", "error_description": "It has expired."}
    with pytest.raises(TokenError) as caught:
        read_token(document, OAUTH, NOW)
    assert caught.value.details == (
        "the token endpoint answered with an error: bad_verification_code: It has expired."
    )
    assert "bad_verification_code" not in caught.value.reason


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
    assert (failure.pause_seconds, failure.invalid_response) == (pause, False)


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
        assert not failure.invalid_response


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
    assert (failure.reason, failure.invalid_response) == (
        "the token endpoint did not answer in time",
        False,
    )


@both_loops
async def test_cancelling_closes_the_connection() -> None:
    """A cancelled waiter leaves nothing open and no error unreported."""
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
    minted = read_token(answer, fields, NOW)
    return minted.value, minted.lifetime_seconds


def rejected(answer: Any, fields: TokenFields = OAUTH) -> str:
    with pytest.raises(TokenError) as caught:
        read_token(answer, fields, NOW)
    assert caught.value.invalid_response
    assert CANARY not in str(caught.value)
    says_nothing(caught.value)
    return caught.value.reason


@pytest.mark.parametrize(
    "token",
    [
        f"{CANARY}\r\nX: y",
        f"{CANARY}\n",
        f" {CANARY}",
        f"{CANARY} ",
        f"{CANARY}é",
        f"{CANARY}\x00",
        f"{CANARY}\x7f",
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
    assert rejected({"access_token": token}) == "the response holds no usable token"


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1))
def test_any_visible_character_may_be_in_a_token(token: str) -> None:
    """RFC 6749 appendix A.12; what a placement cannot hold is the placement's concern."""
    assert token_of({"access_token": token})[0] == token.encode()


@pytest.mark.parametrize("answer", [[], None, "dummy", 1, {}, {"token": "x"}, [{"a": 1}]])
def test_answers_without_a_token(answer: Any) -> None:
    """JSON of any other shape is unusable and breaks nothing."""
    rejected(answer)


@pytest.mark.parametrize(
    "kind", ["bearer", "Bearer", "BEARER", "BearerToken", "JWT", "", "access_token", 1, None, ["x"]]
)
def test_bearer_tokens(kind: Any) -> None:
    """However it is written, and whatever else does not speak against sending it as it is."""
    assert token_of({"access_token": "a.b-c_d~e+f/g==", "token_type": kind})[0] == (
        b"a.b-c_d~e+f/g=="
    )


@pytest.mark.parametrize("kind", ["mac", "MAC", "DPoP", "pop", " dpop "])
def test_tokens_of_other_types(kind: str) -> None:
    """A token that needs more than being shown cannot be used (RFC 6749 section 7.1)."""
    assert "needs a proof" in rejected({"access_token": "dummy", "token_type": kind})


def test_what_is_no_access_token() -> None:
    """RFC 8693 section 2.2.1 has a word for it."""
    reason = rejected({"access_token": "dummy", "token_type": "N_A"})
    assert "something other than an access token" in reason


def test_tokens_that_have_to_be_bound() -> None:
    """Where a proof was sent, a token that is bound to no key is not used (RFC 9449 section 5)."""
    fields = replace(OAUTH, token_type="dpop")
    assert token_of({"access_token": "dummy", "token_type": "DPoP"}, fields)[0] == b"dummy"
    reason = rejected({"access_token": "dummy", "token_type": "Bearer"}, fields)
    assert "not of the type dpop" in reason


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
    "said",
    [
        0,
        "0",
        -1,
        -0.0,
        "-3600",
        -1e300,
        NOW - 1,
        "2020-01-01T00:00:00Z",
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
def test_lifetimes_that_are_of_no_use(said: Any) -> None:
    """``lifetime_seconds`` serves, with a remark that does not repeat what came."""
    fetched = read_token({"access_token": "dummy", "expires_in": said}, OAUTH, NOW)
    assert fetched.lifetime_seconds == 300
    (remark,) = fetched.remarks
    assert "lifetime_seconds" in remark
    assert CANARY not in remark


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e400", "1" * 400])
def test_numbers_that_only_python_takes_for_json(text: str) -> None:
    """The parser lets them pass; the reader has no use for them."""
    document = json.loads(f'{{"access_token": "dummy", "expires_in": {text}}}')
    assert token_of(document) == (b"dummy", 300)


@pytest.mark.parametrize(("zero", "lifetime"), [("unknown", 300), ("never", 31_536_000)])
@pytest.mark.parametrize("said", [0, "0", 0.0])
def test_what_zero_means(zero: str, lifetime: float, said: Any) -> None:
    """A setting decides: some servers mean by it that a token does not end."""
    fields = replace(OAUTH, zero=zero)
    assert token_of({"access_token": "dummy", "expires_in": said}, fields)[1] == lifetime


@pytest.mark.parametrize("said", [9_223_372_036_854_775_807, "2999-01-01T00:00:00Z", 999_999_999])
def test_enormous_lifetimes_are_bounded(said: Any) -> None:
    """To a year, so that no timer is set beyond what clocks can count."""
    assert token_of({"access_token": "dummy", "expires_in": said})[1] == 31_536_000


# -- scopes ---------------------------------------------------------------------------------------


def jwt_with(**claims: Any) -> str:
    """A JWT of which only the payload matters."""
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.c2ln"


@pytest.mark.parametrize(
    ("document", "missing"),
    [
        ({"scope": "a b"}, None),
        ({"scope": "b a c"}, None),
        ({"scope": "a,b"}, None),
        ({"scope": ["a", "b"]}, None),
        ({"scope": "a"}, "b is missing, granted was a"),
        ({"scope": ""}, "a b is missing, granted was nothing"),
        ({"access_token": jwt_with(scp="a b")}, None),
        ({"access_token": jwt_with(scope="a")}, "b is missing, granted was a"),
        ({"access_token": jwt_with(scp=["b"])}, "a is missing, granted was b"),
    ],
)
def test_scopes_that_were_not_granted(document: dict[str, Any], missing: str | None) -> None:
    """A narrower scope is remarked upon, in the response or in a token that is a JWT."""
    fields = replace(OAUTH, scope="a b")
    fetched = read_token({"access_token": "dummy", "expires_in": 60, **document}, fields, NOW)
    assert not fetched.notes
    if missing is None:
        assert not fetched.remarks
    else:
        (remark,) = fetched.remarks
        assert missing in remark


@pytest.mark.parametrize("token", ["dummy", jwt_with(sub="x"), "a.b.c", "e30.W10.x"])
def test_a_server_that_states_no_scope(token: str) -> None:
    """It may have dropped it: a line for ``doctor``, and no warning."""
    fields = replace(OAUTH, scope="api:admin")
    fetched = read_token({"access_token": token, "expires_in": 60}, fields, NOW)
    assert not fetched.remarks
    (note,) = fetched.notes
    assert "asked for the scope api:admin" in note


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        (None, "a"),
        ("", None),
        ("openid offline_access", "a"),
        ("https://graph.example/.default", "User.Read"),
        ("https://graph.example/.default", None),
    ],
)
def test_scopes_with_nothing_to_compare(asked: str | None, granted: str | None) -> None:
    """None was asked for, or one that stands for others."""
    fields = replace(OAUTH, scope=asked)
    document = {"access_token": "dummy", "expires_in": 60, "scope": granted}
    fetched = read_token(document, fields, NOW)
    assert not fetched.remarks
    assert not fetched.notes


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
    """Whatever an endpoint says: a finite number of seconds, or None."""
    lifetime = lifetime_of(said, NOW)
    assert lifetime is None or abs(lifetime) < float("inf")


@given(st.datetimes(), st.integers(-1439, 1439))
def test_any_moment_is_read_or_refused(moment: datetime, minutes: int) -> None:
    """The ends of the calendar included, in every zone."""
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    lifetime = lifetime_of(
        f"{moment.isoformat()}{sign}{minutes // 60:02}:{minutes % 60:02}", time.time()
    )
    assert lifetime is not None
    assert abs(lifetime) < 1e12


def test_calls_are_never_printed() -> None:
    """Neither the call nor what it is made of."""
    one = call("https://token.example/")
    assert SECRET not in f"{one!r}{one}{endpoint()!r}"
