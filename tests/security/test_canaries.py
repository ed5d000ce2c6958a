"""No secret of ours and no credential of a client is anywhere but where it belongs.

Each has a value of its own. Keyrelay is led through what can happen to it, with asyncio's debug
mode and all logging on, and then everything that it said, logged or could print is searched for
each value, plain, in Base64 and percent-encoded.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import gc
import json
import logging
import re
import signal
import socket
import types
import warnings
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

from proxy.app.app import App
from proxy.app.status import snapshot
from proxy.cli.status_table import rendered
from proxy.config import loader
from proxy.diagnostics.doctor import run_checks
from proxy.diagnostics.explain import explain
from proxy.diagnostics.route_check import Result
from proxy.observability.metrics import exposition
from proxy.process.banner import banner
from proxy.secrets.envelope import seal_binding
from proxy.secrets.keyfile import VARIABLE, write_key
from proxy.secrets.sealing import SealingKey
from tests.support import command as commands
from tests.support.command import running as process
from tests.support.keyrelay import (
    RawClient,
    both_loops,
    exchange,
    keyrelay,
    raw_provider,
    read_head,
)
from tests.support.reloading import changing, put

# Characters that every encoding changes, and a header, a query, a path and a cookie can carry.
_MARK = "zq7~+/="
# The names of the environment variables; each value is its own canary.
SECRETS = {
    name: f"dummy-{name.lower().replace('_', '-')}-{_MARK}"
    for name in (
        *(
            "DUMMY_HEADER",
            "DUMMY_QUERY",
            "DUMMY_COOKIE",
            "DUMMY_PATH",
            "DUMMY_USER",
            "DUMMY_PASSWORD",
        ),
        *(
            "DUMMY_CLIENT_ID",
            "DUMMY_CLIENT_SECRET",
            "DUMMY_REFRESH",
            "DUMMY_SIGNING",
            "DUMMY_INBOUND",
        ),
    )
}
ACCESS_TOKEN = "dummy-access-token-zq7~+/="
NEW_REFRESH = "dummy-new-refresh-zq7~+/="
# What clients send although they should hold nothing.
CLIENT = {
    "bearer": "dummy-client-bearer-zq7",
    "header": "dummy-client-header-zq7",
    "query": "dummy-client-query-zq7",
    "cookie": "dummy-client-cookie-zq7",
    "subprotocol": "dummy-client-subprotocol-zq7",
    "wrong": "dummy-client-wrong-token-zq7",
}
# Those of a configuration that changes while it is in use; by what each is.
CHANGING = {
    name: f"dummy-{name}-{_MARK}"
    for name in ("new-key", "old-key", "new-client", "old-client", "file", "next-file", "sealed")
}
CANARIES = (
    *(*SECRETS.values(), ACCESS_TOKEN, NEW_REFRESH),
    *(*CLIENT.values(), *CHANGING.values()),
)


def spellings(canary: str) -> Iterator[str]:
    """How a value may look in what is printed. Base64 at each of its three alignments, without the
    characters that depend on what stands beside it.
    """
    yield canary
    yield quote(canary, safe="")
    yield quote(canary, safe="~+=")
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(b"\0" * before + canary.encode()).decode().rstrip("=")
            yield encoded[4 if before else 0 : len(encoded) - 1]
    yield canary.encode().hex()


SPELLINGS = {spelling: canary for canary in CANARIES for spelling in spellings(canary)}


def leaks(text: str) -> list[str]:
    """The canaries in a text."""
    return sorted({canary for spelling, canary in SPELLINGS.items() if spelling in text})


def test_leaks_are_found() -> None:
    """The search itself: every encoding of each value, wherever it stands."""
    for canary in CANARIES:
        for before in ("", "a", "ab", "Bearer "):
            text = f"{before}{canary}:x"
            assert canary in leaks(f"x {text} y")
            assert canary in leaks(base64.b64encode(text.encode()).decode())
            assert canary in leaks(quote(text, safe=""))
    assert leaks("dummy-zq7") == []


def reprs(root: object) -> Iterator[str]:
    """The text of every object of ours, and every error, task and handle, that ``root`` leads to.

    Plain bytes and texts are passed over: a secret has to be somewhere.
    """
    seen = {id(root)}
    waiting = [root]
    while waiting:
        one = waiting.pop()
        kind = type(one)
        if kind.__module__.partition(".")[0] in {"proxy", "asyncio", "_asyncio"} or isinstance(
            one, BaseException
        ):
            yield f"{one!r}{one!s}"
        if isinstance(one, types.ModuleType | type | types.FrameType | types.CodeType):
            continue
        if isinstance(one, dict) and "__builtins__" in one:
            continue  # a module's own names: this one has the values
        for other in gc.get_referents(one):
            if id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)


def route(upstream: str, auth: dict[str, Any], *secrets: str, **more: Any) -> dict[str, Any]:
    names = {name.removeprefix("DUMMY_").lower(): f"env:{name}" for name in secrets}
    return {"upstream": upstream, "secrets": names, "auth": [auth], **more}


def routes(provider: str, nowhere: str) -> dict[str, Any]:
    """A route for each placement and each kind of token, and some that fail."""
    bearer = {"header": "Authorization", "value": "Bearer {token}"}
    client = {"client_id": "{client_id}", "client_secret": "{client_secret}"}
    oauth = {"type": "oauth2_client_credentials", **client}
    ids = ("DUMMY_CLIENT_ID", "DUMMY_CLIENT_SECRET")
    return {
        "header": route(provider, {"header": "X-Api-Key", "value": "{header}"}, "DUMMY_HEADER"),
        "query": route(provider, {"query": "api_key", "value": "{query}"}, "DUMMY_QUERY"),
        "cookie": route(provider, {"cookie": "session", "value": "{cookie}"}, "DUMMY_COOKIE"),
        "path": route(provider, {"path": "/bot{path}"}, "DUMMY_PATH"),
        "basic": route(
            provider,
            {"basic": {"username": "{user}", "password": "{password}"}},
            *("DUMMY_USER", "DUMMY_PASSWORD"),
        ),
        "oauth": route(provider, {"token": {**oauth, "url": "/token"}, "http": bearer}, *ids),
        "form": route(
            provider,
            {"token": {**oauth, "url": "/token", "client_auth": "form"}, "http": bearer},
            *ids,
        ),
        "refresh": route(
            provider,
            {
                "token": {
                    "type": "oauth2_refresh_token",
                    "url": "/token",
                    "refresh_token": "{refresh}",
                    **client,
                },
                "http": bearer,
            },
            *("DUMMY_REFRESH", *ids),
        ),
        "jwt": route(
            provider,
            {
                "token": {"type": "jwt", "algorithm": "HS256", "key": "{signing}"},
                "http": bearer,
                "websocket": {"query": "access_token", "value": "{token}"},
            },
            "DUMMY_SIGNING",
        ),
        "bad-token": route(provider, {"token": {**oauth, "url": "/bad"}, "http": bearer}, *ids),
        "no-token": route(
            provider, {"token": {**oauth, "url": f"{nowhere}/token"}, "http": bearer}, *ids
        ),
        "down": route(nowhere, {"query": "api_key", "value": "{query}"}, "DUMMY_QUERY"),
        "unready": route(provider, {"header": "X-Api-Key", "value": "{header}"}, "DUMMY_UNSET")
        | {"secrets": {"header": "env:DUMMY_UNSET"}},
    }


async def provide(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The provider and its token endpoint: what they do is in the path."""
    while True:
        try:
            head = await read_head(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        target = head.split(b" ")[1]
        body, status = b"fine", b"200 OK"
        if target.startswith(b"/token"):
            document = {
                "access_token": ACCESS_TOKEN,
                "refresh_token": NEW_REFRESH,
                "token_type": "bearer",
                "expires_in": 60,
            }
            body = json.dumps(document).encode()
        elif target.startswith(b"/bad"):
            # As some do, it quotes what it was sent.
            status, body = b"400 Bad Request", json.dumps({"error": head.decode()}).encode()
        elif b"garbage" in target:
            writer.write(b"HTTP/1.1 200 OK\r\nX: " + head[-400:-4] + b"\0\r\n\r\n")
            return
        elif b"coded" in target:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\n" + head)
            return
        elif b"broken" in target:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\npart")
            return
        elif b"switch" in target:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
            return
        elif b"refuse" in target:
            status, body = b"401 Unauthorized", b"no"
        writer.write(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (status, len(body), body)
        )


_CARRIED = (
    f"Authorization: Bearer {CLIENT['bearer']}\r\nX-Api-Key: {CLIENT['header']}\r\n"
    f"Cookie: a={CLIENT['cookie']}\r\nX-Goog-Api-Key: {CLIENT['header']}\r\n"
    f"Proxy-Authorization: Basic {base64.b64encode(CLIENT['bearer'].encode()).decode()}\r\n"
)
_QUERY = f"?api_key={CLIENT['query']}&access_token={CLIENT['query']}"
_HANDSHAKE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    f"Sec-WebSocket-Protocol: chat, bearer_{CLIENT['subprotocol']}\r\n"
)


def requests() -> Iterator[bytes]:
    """What clients send: proper requests with credentials in all places, and broken ones."""
    inbound = f"X-Keyrelay-Token: {SECRETS['DUMMY_INBOUND']}\r\n"
    common = f"Host: localhost\r\nConnection: close\r\n{inbound}{_CARRIED}"
    for name in routes("", ""):
        for rest in ("ok", "refuse", "garbage", "coded", "broken", "switch"):
            line = f"GET /{name}/{rest}{_QUERY} HTTP/1.1\r\n"
            yield f"{line}{common}\r\n".encode()
        websocket = common.replace("Connection: close\r\n", _HANDSHAKE)
        yield f"GET /{name}/ok{_QUERY} HTTP/1.1\r\n{websocket}\r\n".encode()
        yield f"POST /{name}/ok HTTP/1.1\r\n{common}Content-Length: 2\r\n\r\nhi".encode()
    wrong = f"Authorization: Bearer {CLIENT['wrong']}\r\n"
    bare = f"GET /header/x{_QUERY} HTTP/1.1\r\n"
    for broken in (
        f"{bare}Host: localhost\r\nConnection: close\r\n{wrong}\r\n",  # without the inbound token
        f"{bare}Host: user:{CLIENT['bearer']}@localhost\r\n{common}\r\n",
        f"{bare}Host: evil.test\r\nConnection: close\r\n{inbound}\r\n",
        f"{bare}{common}Origin: https://evil.test\r\n\r\n",
        f"{bare}{common}X: {CLIENT['header']}\0\r\n\r\n",
        f"{bare}{common}{CLIENT['header']}\r\n\r\n",
        f"{bare}{common} {CLIENT['header']}: x\r\n\r\n",
        f"{bare}{common}Content-Length: {CLIENT['header']}\r\n\r\n",
        f"{bare}{common}Transfer-Encoding: {CLIENT['header']}, chunked\r\n\r\n",
        f"{bare}{common}Expect: {CLIENT['header']}\r\n\r\n",
        f"{CLIENT['header']} /header/x HTTP/1.1\r\n{common}\r\n",
        f"GET /header/{CLIENT['query']} {CLIENT['query']} HTTP/1.1\r\n{common}\r\n",
        f"GET /header/x{_QUERY}#{CLIENT['query']} HTTP/1.1\r\n{common}\r\n",
        f"GET /header/../x{_QUERY} HTTP/1.1\r\n{common}\r\n",
        f"GET /none{_QUERY} HTTP/1.1\r\n{common}\r\n",
        f"GET http://{CLIENT['query']}@localhost/header HTTP/1.1\r\n{common}\r\n",
        f"GET /header/x HTTP/1.1\r\n{common}X: {CLIENT['header'] * 2000}\r\n\r\n",
        f"POST /header/x HTTP/1.1\r\n{common}Transfer-Encoding: chunked\r\n\r\n{CLIENT['header']}",
        f"\x16\x03\x01{CLIENT['header']}\r\n\r\n",
    ):
        yield broken.encode()


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def process_output(
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    warned: list[warnings.WarningMessage],
    unhandled: list[dict[str, Any]],
) -> dict[str, str]:
    """What the process wrote by itself: log records, warnings, errors of the loop, its output."""
    records = (f"{one!r}{one.getMessage()}{one.__dict__}" for one in caplog.records)
    return {
        "logging": "\n".join(records),
        "warnings": "\n".join(map(str, warned)),
        "the loop's exceptions": "\n".join(map(repr, unhandled)),
        "stdout and stderr": "".join(capfd.readouterr()),
    }


@both_loops
@pytest.mark.parametrize("as_json", [False, True], ids=["text log", "JSON log"])
async def test_nothing_is_said_of_a_secret(
    secrets: None,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    as_json: bool,
) -> None:
    """T37, T38, T45: requests that succeed and that fail in every way, in asyncio debug mode:
    no answer to a client, no line of a log, no warning and no text of an object has a canary. The
    provider gets each secret of ours, and none of the client's.
    """
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    said: list[bytes] = []
    shown: list[str] = []
    lines: list[str] = []
    closed = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    nowhere = f"http://127.0.0.1:{closed.sockets[0].getsockname()[1]}"
    closed.close()
    received = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        feed = reader.feed_data

        def noting(data: bytes) -> None:
            received.extend(data)
            feed(data)

        received.extend(bytes(reader._buffer))  # type: ignore[attr-defined]
        reader.feed_data = noting  # type: ignore[method-assign,assignment]
        await provide(reader, writer)

    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with AsyncExitStack() as stack:
            provider = await stack.enter_async_context(raw_provider(serve))
            document = {
                "listen": "127.0.0.1:0",
                "drain_seconds": 0,
                "inbound_token": "env:DUMMY_INBOUND",
                "routes": routes(provider.url, nowhere),
            }
            loaded = loader.load_text(json.dumps(document), "routes.yaml")
            app = App(loaded, write_log=lines.append, json_log=as_json)
            await stack.enter_async_context(app)
            port = app.listeners[0].address.port
            await app.settle(2)
            shown.append(banner(app.routes, app.listeners))
            for request in requests():
                async with await RawClient.to(port) as client:
                    client.send(request)
                    async with asyncio.timeout(5):
                        try:
                            said.append(await client._reader.read())
                        except ConnectionResetError:
                            said.append(b"")
                shown += {*reprs(app)} if len(said) % 20 == 1 else ()
            shown += reprs(app)
            shown += [repr(loaded), str(loaded), loaded.model_dump_json()]
            for name in loaded.routes:
                for websocket in (False, True):
                    fields = [
                        ("Authorization", f"Bearer {CLIENT['bearer']}"),
                        ("X-Keyrelay-Token", SECRETS["DUMMY_INBOUND"]),
                        ("X-Api-Key", CLIENT["header"]),
                        ("Cookie", CLIENT["cookie"]),
                    ]
                    target = f"/{name}/x{_QUERY}"
                    found = explain(loaded, "GET", target, fields, websocket=websocket)
                    shown += [repr(found), str(found.request), str(found.refusal)]
        gc.collect()
    assert len(said) > 100
    places = {
        "answers": b"\n".join(said).decode("latin-1"),
        "access log": "".join(lines),
        "objects and explain": "\n".join(shown),
        **process_output(caplog, capfd, warned, told),
    }
    assert {place: leaks(text) for place, text in places.items() if leaks(text)} == {}
    assert "Traceback" not in places["answers"] + places["stdout and stderr"]
    assert told == []
    arrived = set(leaks(received.decode("latin-1")))
    # A JWT has no value of its key in it, and the inbound token is for keyrelay itself.
    ours = {*SECRETS.values(), ACCESS_TOKEN} - {SECRETS["DUMMY_SIGNING"], SECRETS["DUMMY_INBOUND"]}
    assert arrived - {NEW_REFRESH} == ours


async def test_a_key_subprotocol_outside_a_handshake(secrets: None) -> None:
    """T45, default 9: ``Sec-WebSocket-Protocol`` of a request that is no handshake carries the
    client's key as well, and it stays here too.
    """
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await read_head(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with (
        raw_provider(serve) as provider,
        keyrelay({"header": routes(provider.url, provider.url)["header"]}) as running,
    ):
        offer = f"Sec-WebSocket-Protocol: chat, bearer_{CLIENT['subprotocol']}"
        request = f"GET /header/x HTTP/1.1\r\nHost: localhost\r\n{offer}\r\n\r\n"
        assert (await exchange(running.port, request.encode())).startswith(b"HTTP/1.1 200")
    assert CLIENT["subprotocol"] not in heads[0].decode("latin-1")


def changing_routes(provider: str, folder: Path, sealed: str) -> dict[str, Any]:
    """Keys and client secrets that are rotated, a file, a program, a sealed value."""
    header = {"header": "X-Api-Key", "value": "{key}"}
    kind = "oauth2_client_credentials"
    token = {"type": kind, "url": "/token", "client_id": "dummy-id", "client_secret": "{key}"}
    bearer = {"header": "Authorization", "value": "Bearer {token}"}
    references = {
        "rotated": ["env:DUMMY_NEW_KEY", "env:DUMMY_OLD_KEY"],
        "token": ["env:DUMMY_NEW_CLIENT", "env:DUMMY_OLD_CLIENT"],
        "file": f"file:{folder}/key",
        "exec": f"exec:cat {folder}/key",
        "sealed": sealed,
    }
    return {
        name: {
            "upstream": provider,
            "spares": 0,
            "secrets": {"key": reference},
            "auth": [{"token": token, "http": bearer} if name == "token" else header],
            "verify": "GET /ok",
        }
        for name, reference in references.items()
    }


class Quoting:
    """A provider that takes some of the keys, and quotes what it was sent in a refusal."""

    def __init__(self) -> None:
        self.takes: set[str] = set()
        self.received = bytearray()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await read_head(reader)
                length = re.search(rb"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            basic = re.search(rb"Authorization: Basic (\S+)", head)
            asked = head + (unquote(base64.b64decode(basic[1])).encode() if basic else b"")
            self.received += asked + body
            status, answer = b"401 Unauthorized", asked + body
            if any(key.encode() in asked for key in self.takes):
                status, answer = b"200 OK", b"fine"
                if basic:
                    document = {"access_token": ACCESS_TOKEN, "token_type": "bearer"}
                    answer = json.dumps({**document, "expires_in": 3600}).encode()
            writer.write(
                b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (status, len(answer), answer)
            )


def mistakes(document: dict[str, Any], folder: Path, taken: str) -> Iterator[str]:
    """Files that are not taken: secrets in them, references to what is not there, a port in use."""
    canary = CHANGING["new-key"]
    api = document["routes"]["rotated"]
    for broken in (
        {**api, "secrets": {"key": canary}},
        {**api, "secrets": {"key": [f"env:{canary}", canary]}},
        {**api, "secrets": {"key": {"exec": f"echo '{canary}"}}},
        {**api, "upstream": f"https://{canary}@a.test"},
        {**api, "auth": [{"header": "X-Key", "value": canary}]},
        {**api, "secrets": {"key": f"file:{folder}/none"}},
        {**api, "secrets": {"key": "env:DUMMY_UNSET"}},
        {**api, "secrets": {"key": f"file:{folder}/broken"}},
        {**api, "secrets": {"key": f"exec:sh -c 'cat {folder}/key; exit 3'"}},
        # Sealed for another route.
        {**api, "secrets": document["routes"]["sealed"]["secrets"]},
        {**api, "listen": [taken]},
    ):
        yield json.dumps({**document, "routes": {**document["routes"], "rotated": broken}})
    yield f"routes: {canary}"
    yield f"{canary}: ["
    yield json.dumps({**document, "inbound_token": f"file:{folder}/broken"})


@both_loops
async def test_changes_say_nothing_of_a_secret(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """T37, T38: keys that are rotated and refused, files that change, vanish and break, sealed
    values, reloads that are taken and reloads with every kind of finding. No line for the operator,
    no answer, no status, no metric, no finding of ``doctor`` and no text of an object has a canary.
    """
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    for name in ("new-key", "old-key", "new-client", "old-client"):
        monkeypatch.setenv(f"DUMMY_{name.upper().replace('-', '_')}", CHANGING[name])
    sealing = SealingKey.generate(datetime.date(2026, 11, 21))
    write_key(tmp_path / "keys", sealing)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "keys"))
    private = sealing.line().split()[2].removeprefix("keyrelay-private-")
    put(tmp_path / "key", CHANGING["file"])
    put(tmp_path / "broken", f"{CHANGING['file']}\n\0{CHANGING['next-file']}")
    said: list[str] = []
    shown: list[str] = []
    examined: list[Result] = []
    quoting = Quoting()
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with AsyncExitStack() as stack:
            provider = await stack.enter_async_context(raw_provider(quoting.serve))
            place = seal_binding("sealed", provider.url)
            sealed = str(sealing.public.seal(CHANGING["sealed"].encode(), place, "key"))
            routes = changing_routes(provider.url, tmp_path, sealed)
            running = await stack.enter_async_context(changing(tmp_path, routes))
            # The finding of a port that is in use comes after everything has been prepared.
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            in_use = f"127.0.0.1:{server.getsockname()[1]}"

            async def ask_each() -> None:
                for name in routes:
                    for line in (f"GET /{name}/x", f"POST /{name}/x"):
                        head = f"{line} HTTP/1.1\r\nHost: localhost\r\n{_CARRIED}"
                        body = "" if line.startswith("GET") else "Content-Length: 2\r\n"
                        request = f"{head}{body}\r\n{'hi' if body else ''}"
                        answer = await exchange(running.port, request.encode())
                        said.append(answer.decode("latin-1"))
                state = snapshot(running.app)
                shown.extend([repr(state), rendered(state, 200), exposition(state).decode()])
                shown.append(banner(running.app.routes, running.app.listeners))
                shown.extend(reprs([running.app, running.reloader]))

            taken: list[set[str]] = [
                set(),
                {CHANGING["old-key"], CHANGING["old-client"], ACCESS_TOKEN},
                {CHANGING["new-key"], CHANGING["new-client"], ACCESS_TOKEN},
                {CHANGING["file"], CHANGING["next-file"], CHANGING["sealed"]},
            ]
            for quoting.takes in taken:
                await running.reload()
                await ask_each()
            for text in mistakes(running.document, tmp_path, in_use):
                put(running.file, text)
                assert (await running.reload()).findings, text
                shown.append(repr(running.app.reloads))
            await running.reload_document()
            await ask_each()
            for value in (CHANGING["next-file"], "", f"{CHANGING['file']}\0"):
                put(tmp_path / "key", value)
                assert not (await running.reload()).findings
                await ask_each()
            quoting.takes = set().union(*taken)
            settings = running.app.settings
            others = {name: settings.routes[name] for name in routes if name != "rotated"}
            settings = settings.model_copy(update={"routes": others})
            put(tmp_path / "key", CHANGING["file"])
            await run_checks(settings, examined.append)
            for path in ("key", "keys"):
                (tmp_path / path).unlink()
            await run_checks(settings, examined.append)
            shown += map(repr, examined)
            lines = list(running.said)
            access = "".join(running.lines)
        gc.collect()
    places = {
        "answers": "\n".join(said),
        "access log": access,
        "lines for the operator": "\n".join(lines),
        "status, metrics, doctor, objects": "\n".join(shown),
        **process_output(caplog, capfd, warned, told),
    }
    assert {place: leaks(text) for place, text in places.items() if leaks(text)} == {}
    assert [place for place, text in places.items() if private in text] == []
    assert told == []
    # All of it did happen.
    assert {"200", "401", "503"} <= {answer[9:12] for answer in said}
    for happened in (
        "serves now",
        "was not taken",
        "last good value",
        "other secrets",
        "is in use",
    ):
        assert happened in places["lines for the operator"], happened
    assert {one.mark for one in examined} >= {"ok", "fail"}
    arrived = set(leaks(quoting.received.decode("latin-1")))
    assert arrived == {*CHANGING.values(), ACCESS_TOKEN}


def routes_file(folder: Path, document: dict[str, Any]) -> Path:
    file = folder / "routes.yaml"
    file.write_text(json.dumps(document))
    file.chmod(0o600)
    return file


async def test_commands_say_nothing_of_a_secret(tmp_path: Path) -> None:
    """check, explain, providers, init, health, doctor and run, also while it reloads, each with
    secrets in its environment and some with credentials on its command line: neither stdout nor
    stderr has one.
    """
    closed = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    nowhere = f"http://127.0.0.1:{closed.sockets[0].getsockname()[1]}"
    closed.close()
    variables = {**SECRETS, "HUME_API_KEY": SECRETS["DUMMY_HEADER"]}
    file = routes_file(
        tmp_path,
        {
            "listen": "127.0.0.1:0",
            "inbound_token": "env:DUMMY_INBOUND",
            "routes": routes(nowhere, nowhere),
        },
    )
    header = (
        "-H",
        f"Authorization: Bearer {CLIENT['bearer']}",
        "-H",
        f"Cookie: {CLIENT['cookie']}",
    )
    outputs = []
    for arguments in (
        ("check", "-c", str(file)),
        ("explain", "GET", f"/header/x{_QUERY}", "-c", str(file), *header),
        ("explain", "GET", f"/query/x{_QUERY}", "-c", str(file), "--websocket", *header),
        ("explain", "GET", f"/basic/x{_QUERY}", "-c", str(file), "--json", *header),
        ("providers",),
        ("providers", "hume"),
        ("init", str(tmp_path / "new.yaml")),
        ("health", nowhere),
        ("doctor", "-c", str(file)),
        ("doctor", "-c", str(file), "--json"),
    ):
        done = await asyncio.to_thread(
            commands.keyrelay, *arguments, cwd=tmp_path, variables=variables
        )
        outputs.append(f"{arguments[0]}: {done.out}{done.err}")
    outputs.append((tmp_path / "new.yaml").read_text())
    async with process("run", "-c", str(file), cwd=tmp_path, variables=variables) as running:
        for request in requests():
            async with await RawClient.to(running.port) as client:
                client.send(request)
                async with asyncio.timeout(5):
                    try:
                        outputs.append((await client._reader.read()).decode("latin-1"))
                    except ConnectionResetError:
                        continue
        await running.logged(100)
        misplaced = {"routes": {"a": {"secrets": {"k": SECRETS["DUMMY_HEADER"]}}}}
        routes_file(tmp_path, misplaced)
        running.signal(signal.SIGHUP)
        await running.said("the old one goes on serving")
        running.signal(signal.SIGTERM)
        assert await running.ended() == 0
        outputs += [running.out, running.err]
    assert leaks("\n".join(outputs)) == []


_MISPLACED: list[Any] = [
    {"routes": {"a": {"upstream": "https://a.test", "secrets": {"k": "CANARY"}}}},
    {"routes": {"a": {"upstream": "https://a.test", "secrets": {"k": {"env": ["CANARY"]}}}}},
    {"routes": {"a": {"upstream": "https://CANARY@a.test"}}},
    {"routes": {"a": {"upstream": "https://a.test?key=CANARY"}}},
    {"routes": {"a": {"upstream": "CANARY"}}},
    {"routes": {"a": {"auth": [{"header": "X-Key", "value": "CANARY"}], "path": "CANARY"}}},
    {"routes": {"a": {"provider": "hume", "secrets": {"CANARY": "CANARY"}}}},
    {"inbound_token": "CANARY", "routes": {"a": {"provider": "hume"}}},
    {
        "listen": "CANARY",
        "browsers": {"origins": ["CANARY"]},
        "routes": {"a": {"methods": "CANARY"}},
    },
    "CANARY",
    ["CANARY"],
]


@pytest.mark.parametrize("document", _MISPLACED, ids=lambda one: json.dumps(one)[:60])
@pytest.mark.parametrize("canary", [SECRETS["DUMMY_HEADER"], "sk-0123456789abcdefzq7"])
def test_a_secret_in_the_wrong_place_is_not_repeated(
    tmp_path: Path, document: Any, canary: str
) -> None:
    """Whatever `check` finds wrong with a file that holds a secret itself, it does not quote it."""
    text = json.dumps(document).replace("CANARY", canary)
    file = tmp_path / "routes.yaml"
    file.write_text(text)
    file.chmod(0o600)
    done = commands.keyrelay("check", "-c", str(file), cwd=tmp_path)
    assert done.code == 2
    assert canary not in done.out + done.err
