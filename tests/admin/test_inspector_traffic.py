"""The admin listener above a data path that runs: what it shows of real exchanges."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.server import ServerConnection, serve

from tests.support.inspection import Hearing, Watched, start
from tests.support.keyrelay import (
    SECRET,
    Running,
    answering,
    both_loops,
    client,
    heads,
    keyrelay,
    proxied,
    read_head,
    static_route,
    until,
)

KEY = SECRET.decode()
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(autouse=True)
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dummy_key: bytes) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@asynccontextmanager
async def inspecting(running: Running) -> AsyncIterator[tuple[aiohttp.ClientSession, Hearing]]:
    """A client of the admin listener, and its stream of events."""
    opened = await start(Watched(running.app))
    token = opened.page_url.partition("#token=")[2]
    try:
        async with (
            aiohttp.ClientSession(opened.url, headers={"Authorization": f"Bearer {token}"}) as web,
            web.get("/api/events") as answer,
        ):
            heard = Hearing(answer)
            await heard.next("exchanges")
            yield web, heard
    finally:
        await opened.close()


async def shown(web: aiohttp.ClientSession, number: int) -> dict[str, Any]:
    async with web.get(f"/api/exchanges/{number}") as answer:
        found: dict[str, Any] = await answer.json()
        return found


@both_loops
async def test_a_request() -> None:
    """It ends with its status, its times and its bytes; a key that the client put into path, query,
    headers and body is nowhere."""
    async with (
        proxied(answering(OK)) as (_, running),
        inspecting(running) as (_, heard),
        client() as session,
    ):
        url = f"{running.url}/api/v1/{KEY}?key={KEY}"
        async with session.post(url, data=SECRET, headers={"X-Other": KEY}) as answer:
            assert await answer.read() == b"ok"
        _, told = await heard.next("ended")
        assert (told["route"], told["strategy"], told["status"]) == ("api", "key", 200)
        assert told["path"] == "/v1/" + "*" * len(KEY)
        assert (told["sent"], told["received"]) == (len(SECRET), 2)
        assert 0 < told["first_byte_ms"] <= told["duration_ms"]
        assert SECRET not in heard.raw


async def test_a_refused_request() -> None:
    """What keyrelay refused is told with the reason, its path masked as any other."""
    async with (
        proxied(answering(OK), route={"deny": ["/no/**"]}) as (provider, running),
        inspecting(running) as (_, heard),
        client() as session,
    ):
        async with session.get(f"{running.url}/api/no/{KEY}") as answer:
            assert answer.status == 403
        _, told = await heard.next("ended")
        assert (told["status"], told["outcome"]) == (403, "path-not-allowed")
        assert provider.connections == 0
        assert SECRET not in heard.raw


@both_loops
async def test_events_while_they_pass() -> None:
    """Each event of an answer is told before the provider sends the next; secrets in them are
    masked, though one read ends within a secret."""
    goes_on = asyncio.Event()

    async def events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
        writer.write(b"Connection: close\r\n\r\ndata: first\n\n")
        await goes_on.wait()
        writer.write(b"data: " + SECRET[:7])
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(SECRET[7:] + b"\n\n")
        writer.close()

    async with (
        proxied(events) as (_, running),
        inspecting(running) as (web, heard),
        client() as session,
        session.get(f"{running.url}/api/stream") as answer,
    ):
        _, said = await heard.next("message")
        assert (said["conversation"], said["text"]) == ("sse", "data: first")
        goes_on.set()
        assert SECRET in await answer.read()
        _, said = await heard.next("message")
        assert said["text"] == "data: " + "*" * len(SECRET)
        _, told = await heard.next("ended")
        assert (told["kind"], told["open"]) == ("sse", False)
        found = await shown(web, told["number"])
        assert found["conversation"]["count"] == 2
        assert SECRET not in heard.raw + json.dumps(found).encode()


@both_loops
@pytest.mark.parametrize("compression", ["deflate", None])
async def test_a_websocket_while_it_talks(compression: str | None) -> None:
    """Messages of both sides in order, inflated and masked; afterwards bytes and duration."""

    async def echo(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    async with serve(echo, "127.0.0.1", 0, compression=compression) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with (
            keyrelay({"api": static_route(f"http://127.0.0.1:{port}")}) as running,
            inspecting(running) as (web, heard),
        ):
            async with running.websocket("/api/chat", compression=compression) as socket:
                _, told = await heard.next("answered")
                assert (told["kind"], told["status"], told["open"]) == ("websocket", 101, True)
                for text in ("hello " * 20, f"my key is {KEY}", b"\0" + SECRET):
                    await socket.send(text)
                    assert await socket.recv() == text
                    texts = {(await heard.next("message"))[1]["text"] for _ in range(2)}
                    assert len(texts) == 1
            _, told = await heard.next("ended")
            assert told["received"] > 0
            found = (await shown(web, told["number"]))["conversation"]["messages"]
            kinds = [(one["sender"], one["kind"]) for one in found]
            assert kinds[:2] == [("client", "text"), ("provider", "text")]
            assert ("client", "close") in kinds
            everything = heard.raw + json.dumps(found).encode()
            assert b"my key is ****" in everything
            assert SECRET not in everything
            assert SECRET.hex(" ").encode() not in everything


async def test_a_websocket_from_before() -> None:
    """It goes on untouched; that nothing of it can be read is said by having no conversation."""

    async def echo(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    async with serve(echo, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with (
            keyrelay({"api": static_route(f"http://127.0.0.1:{port}")}) as running,
            running.websocket("/api/chat") as socket,
        ):
            await until(lambda: running.app.exchange_log.open)
            async with inspecting(running) as (web, _):
                await socket.send("hello")
                assert await socket.recv() == "hello"
                [exchange] = running.app.exchange_log.open
                found = await shown(web, exchange.number)
                assert found["exchange"]["open"]
                assert found["conversation"] is None


@both_loops
async def test_what_keyrelay_did() -> None:
    """Target, credential, removals, connection, times and safe fields of a request; no value of a
    query, of another field or of the credential, also if the client has put it everywhere."""
    answer = (
        b"HTTP/1.1 429 Too Many\r\nContent-Type: application/json\r\nRetry-After: 7\r\n"
        b"X-RateLimit-Limit: 10\r\nSet-Cookie: session=dummy-session\r\nX-Echo: " + SECRET + b"\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    )
    async with (
        proxied(answering(answer), route={"strip": {"headers": ["X-Gone"]}}) as (_, running),
        inspecting(running) as (web, heard),
        client() as session,
    ):
        fields = {"Authorization": f"Bearer {KEY}", "X-Gone": "dummy-gone", "X-Own": "dummy-own"}
        url = f"{running.url}/api/v1/{KEY}?page=dummy-page&key={KEY}"
        for _ in range(2):
            async with session.post(url, data=b"{}", headers=fields) as response:
                assert response.status == 429
        every = []
        for _ in range(2):
            _, told = await heard.next("ended")
            every.append(await shown(web, told["number"]))
    text = json.dumps(every)
    first, second = (one["detail"] for one in every)
    assert first["target"].endswith(f"/v1/{'*' * len(KEY)}?page=…&key=…")
    assert first["removed"] == ["Authorization", "X-Gone"]
    assert first["placements"] == ["header X-Api-Key"]
    [secret] = first["secrets"]
    assert (secret["name"], secret["reference"]) == ("key", "env:DUMMY_KEY")
    assert len(secret["fingerprint"]) == 8
    sent = dict(first["request_fields"])
    assert (sent["Content-Length"], sent["X-Own"]) == ("2", None)
    assert dict(first["response_fields"]) == {
        "Content-Type": "application/json",
        "Retry-After": "7",
        "X-RateLimit-Limit": "10",
        "Set-Cookie": None,
        "X-Echo": None,
        "Content-Length": "2",
    }
    assert (first["connection"], second["connection"]) == ("new", "kept")
    assert first["timings_ms"]["connect"] > 0 == second["timings_ms"]["connect"]
    for one in every:
        total = sum(one["detail"]["timings_ms"].values())
        assert total == pytest.approx(one["exchange"]["duration_ms"], rel=0.1)
    for hidden in (KEY, "dummy-page", "dummy-own", "dummy-gone", "dummy-session"):
        assert hidden not in text


async def test_a_query_credential_and_a_path_credential() -> None:
    """They are named, and not shown; what the client had in their place is named as removed."""
    for placement, named in (
        ({"query": "api_key", "value": "{key}"}, "query api_key"),
        ({"path": "/bot{key}"}, "path"),
        ({"cookie": "session", "value": "{key}"}, "cookie session"),
    ):
        auth = [{"name": "key", "http": placement}]
        async with (
            proxied(answering(OK), route={"auth": auth}) as (_, running),
            inspecting(running) as (web, heard),
            client() as session,
        ):
            async with session.get(f"{running.url}/api/v1?api_key=dummy-unused&q=1") as response:
                assert response.status == 200
            _, told = await heard.next("ended")
            found = (await shown(web, told["number"]))["detail"]
            assert found["placements"] == [named]
            assert "dummy-unused" not in json.dumps(found)
            assert KEY not in json.dumps(found)
            if named == "path":
                assert "/(credential)/v1?" in found["target"]
            if named == "query api_key":
                assert found["removed"] == ["query api_key"]
                assert found["target"].endswith("/v1?q=…")


async def test_why_it_failed(unused_tcp_port: int) -> None:
    """A refusal and a provider that cannot be reached have reason and advice, also if no inspector
    was open then; the connection that was tried is known."""
    routes = {"api": static_route(f"http://127.0.0.1:{unused_tcp_port}", deny=["/no/**"])}
    async with keyrelay(routes) as running, client() as session:
        async with session.get(f"{running.url}/api/no/x") as response:
            refusal = await response.json()
        running.app.exchange_log.flush()
        async with inspecting(running) as (web, heard):
            async with session.get(f"{running.url}/api/v1") as response:
                failure = await response.json()
            _, told = await heard.next("ended")
            found = await shown(web, told["number"])
            assert found["exchange"]["problem"] == {
                "detail": failure["detail"],
                "advice": failure["advice"],
            }
            assert found["detail"]["connection"] == "new"
            before = await shown(web, told["number"] - 1)
            assert before["exchange"]["problem"]["detail"] == refusal["detail"]
            assert before["detail"] is None


async def test_a_token_that_is_refused() -> None:
    """The wait for a token is measured; its refusal and the repetition are told; no token is."""
    tokens = [b"dummy-token-first", b"dummy-token-second"]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for head in heads(reader):
            status, text = b"200 OK", b"{}"
            if b" /token " in head:
                text = b'{"access_token": "%b", "expires_in": 3600}' % tokens[fetched.count(1)]
                fetched.append(1)
            elif b"first" in head:
                status = b"401 Unauthorized"
            writer.write(
                b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                % (status, len(text), text)
            )

    fetched: list[int] = []
    token = {"type": "oauth2_client_credentials", "url": "/token"}
    auth = [
        {
            "name": "token",
            "token": {**token, "client_id": "dummy-id", "client_secret": "{key}"},
            "http": {"header": "Authorization", "value": "Bearer {token}"},
        }
    ]
    async with (
        proxied(serve, route={"auth": auth}) as (_, running),
        inspecting(running) as (web, heard),
        client() as session,
    ):
        async with session.get(f"{running.url}/api/v1") as response:
            assert response.status == 200
        _, told = await heard.next("ended")
        found = (await shown(web, told["number"]))["detail"]
        [step] = found["steps"]
        assert "401" in step
        assert found["token"] == "0 s old"
        assert found["timings_ms"]["token"] > 0
        assert found["placements"] == ["header Authorization"]
        assert [one["reference"] for one in found["secrets"]] == ["env:DUMMY_KEY"]
        assert "dummy-token" not in json.dumps(found)
