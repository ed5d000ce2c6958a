"""WebSockets through the running proxy, with a client that is not aiohttp's.

After the handshake keyrelay moves bytes; what is shown here is that nothing of that gets lost.
"""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from tests.emulators import HumeEmulator, json_answer, redirect, text_answer
from tests.support.keyrelay import (
    Running,
    both_loops,
    client,
    connection,
    exchange,
    preset_keyrelay,
    read_head,
    reset,
)

pytestmark = both_loops

CHAT = "/hume/v0/evi/chat"
STREAM = "/hume/v0/tts/stream/input"
GONE_SECONDS = 1.0
MIB = 1024 * 1024
HANDSHAKE = (
    b"GET /hume/v0/tts/stream/input HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


def order(name: str, **more: object) -> str:
    """A message that makes the far side do something; see emulators.sockets."""
    return json.dumps({"emulator": name, **more})


async def test_text_binary_and_pings_go_both_ways(hume: HumeEmulator, running: Running) -> None:
    """Each message comes back as what it was, in order; a ping is answered by the provider."""
    async with running.websocket(STREAM) as socket:
        messages: list[str | bytes] = [
            "",
            "text",
            "ünï¢ode 🎤",
            b"",
            b"\x00\xff",
            bytes(range(256)) * 300,
        ]
        for message in messages:
            await socket.send(message)
        for message in messages:
            assert await socket.recv() == message
        async with asyncio.timeout(5):
            await (await socket.ping(b"are you there"))
        await socket.send(order("ping"))
        await socket.send("after")
        assert await socket.recv() == "after"
    assert hume.requests[0].messages[: len(messages)] == messages
    assert hume.faults == []


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_compression_is_negotiated_end_to_end(
    hume: HumeEmulator, running: Running, compression: str | None
) -> None:
    """permessage-deflate is between client and provider: on if both want it, else off."""
    async with running.websocket(STREAM, compression=compression) as socket:
        negotiated = [extension.name for extension in socket.protocol.extensions]
        assert negotiated == (["permessage-deflate"] if compression else [])
        await socket.send("again and " * 1000)
        assert await socket.recv() == "again and " * 1000


async def test_fragments_arrive(hume: HumeEmulator, running: Running) -> None:
    """A message sent in pieces is one message at the other side."""
    async with running.websocket(STREAM) as socket:
        await socket.send(["one ", "two ", "three"])
        assert await socket.recv() == "one two three"
        await socket.send([b"\x01", b"\x02"])
        assert await socket.recv() == b"\x01\x02"


async def test_a_message_of_20_mib_passes_both_ways(hume: HumeEmulator, running: Running) -> None:
    """No limit of ours: what client and provider agree on goes through, text and binary."""
    async with running.websocket(STREAM, compression=None) as socket:
        large = bytes(range(256)) * (20 * MIB // 256)
        await socket.send(large)
        assert await socket.recv() == large
        await socket.send(order("text", bytes=20 * MIB))
        assert await socket.recv() == "t" * (20 * MIB)


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "bye"), (3000, "x" * 123), (4123, "grund: müde")]
)
async def test_the_client_s_close_reaches_the_provider(
    hume: HumeEmulator, running: Running, code: int, reason: str
) -> None:
    """Code and reason are the client's, and the provider's answer to them comes back."""
    async with running.websocket(STREAM) as socket:
        await socket.close(code, reason)
        assert socket.close_code == code
    assert await hume.ended(0) == "complete"
    assert (hume.requests[0].close_code, hume.requests[0].close_reason) == (code, reason)


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1011, "oops"), (4321, "you asked for it"), (4999, "z" * 123)]
)
async def test_the_provider_s_close_reaches_the_client(
    hume: HumeEmulator, running: Running, code: int, reason: str
) -> None:
    """Code and reason are the provider's; never 1006, never a code of ours."""
    async with running.websocket(STREAM) as socket:
        await socket.send(order("close", code=code, reason=reason))
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, reason)
    await hume.ended(0)
    assert hume.requests[0].close_code == code


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_a_socket_ends_when_its_client_leaves(
    hume: HumeEmulator, running: Running, how: str
) -> None:
    """Without a close frame as well the provider is free within a second."""
    async with connection(running.port) as (reader, writer):
        writer.write(HANDSHAKE)
        assert (await read_head(reader)).startswith(b"HTTP/1.1 101 ")
        writer.close() if how == "closed" else reset(writer)
        assert await hume.ended(0, GONE_SECONDS) == "client left"


@pytest.mark.parametrize("how", ["cut", "reset"])
async def test_a_socket_that_breaks_off_does_not_look_closed(
    hume: HumeEmulator, running: Running, how: str
) -> None:
    """Without the provider's close frame the client gets none either: 1006 by its own count."""
    async with running.websocket(STREAM) as socket:
        if how == "cut":
            await socket.send(order("cut"))
        else:
            hume.drop_connections()
        with pytest.raises(ConnectionClosedError) as broken:
            async with asyncio.timeout(5):
                await socket.recv()
        assert broken.value.rcvd is None


@pytest.mark.parametrize("status", [401, 402, 403, 404, 429, 500, 503])
async def test_a_refused_handshake_is_the_provider_s_plain_answer(
    hume: HumeEmulator, running: Running, status: int
) -> None:
    """The provider is asked before the client gets a 101, so the client sees its refusal."""
    refusal = json_answer(status, {"error": status}, ("Retry-After", "3"))
    hume.answer_next(refusal)
    with pytest.raises(InvalidStatus) as refused:
        await running.websocket(CHAT).__aenter__()
    response = refused.value.response
    assert (response.status_code, response.body) == (status, refusal.body)
    assert response.headers["Retry-After"] == "3"
    assert "Proxy-Status" not in response.headers
    assert "Upgrade" not in response.headers


async def test_a_key_that_hume_refuses_is_hume_s_401(
    hume: HumeEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not scripted: the emulator's own judgement of a wrong key reaches the client."""
    monkeypatch.setenv("HUME_API_KEY", "dummy-wrong-key")
    async with preset_keyrelay({"hume": {"provider": "hume", "upstream": hume.origin}}) as running:
        with pytest.raises(InvalidStatus) as refused:
            await running.websocket(CHAT).__aenter__()
    assert refused.value.response.status_code == 401
    assert b"Invalid ApiKey" in (refused.value.response.body or b"")


@pytest.mark.parametrize("status", [302, 307])
async def test_a_redirected_handshake_is_not_followed(
    hume: HumeEmulator, running: Running, elsewhere: str, status: int
) -> None:
    """A redirected handshake gets that response; no request with the key goes there."""
    hume.answer_next(redirect(f"{elsewhere}/v0/evi/chat", status))
    handshake = HANDSHAKE.replace(b"tts/stream/input", b"evi/chat")
    answer = await exchange(running.port, handshake)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert f"Location: {elsewhere}/v0/evi/chat\r\n".encode() in answer


async def test_an_answer_of_200_to_a_handshake_passes_as_it_is(
    hume: HumeEmulator, running: Running
) -> None:
    """A provider that does not upgrade has answered: the client sees what it said."""
    hume.answer_next(text_answer(200, "no socket here"))
    answer = await exchange(running.port, HANDSHAKE)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"no socket here")


@pytest.mark.parametrize(
    ("offered", "seen", "selected"),
    [
        ([], "", None),
        (["json"], "json", "json"),
        (["v2", "v1"], "v2, v1", "v2"),
        (["openai-insecure-api-key.client-dummy"], "", "openai-insecure-api-key.client-dummy"),
        (["realtime", "openai-insecure-api-key.client-dummy"], "realtime", "realtime"),
        (["bearer_client-dummy", "v1"], "v1", "v1"),
    ],
    ids=["none", "one", "two", "only-secret", "openai", "bearer"],
)
async def test_secret_subprotocols_stay_here_and_one_is_selected(
    hume: HumeEmulator, running: Running, offered: list[str], seen: str, selected: str | None
) -> None:
    """No key in a subprotocol crosses; clients insist that one of their offers is selected."""
    async with running.websocket(STREAM, subprotocols=offered) as socket:
        assert socket.subprotocol == selected
        await socket.send("hello")
        assert await socket.recv() == "hello"
    assert hume.faults == []
    assert hume.requests[0].value("Sec-WebSocket-Protocol") == seen


async def test_messages_may_follow_the_handshake_at_once(
    hume: HumeEmulator, running: Running
) -> None:
    """Frames sent before the 101 has arrived are not lost."""
    frame = b"\x81\x85\x00\x00\x00\x00hello"
    async with connection(running.port) as (reader, writer):
        writer.write(HANDSHAKE + frame)
        assert (await read_head(reader)).startswith(b"HTTP/1.1 101 ")
        async with asyncio.timeout(5):
            assert await reader.readexactly(7) == b"\x81\x05hello"
    assert await hume.ended(0) == "client left"


async def test_sockets_and_requests_run_side_by_side(hume: HumeEmulator, running: Running) -> None:
    """Twenty sockets and as many requests at once: each gets its own."""

    async def talk(number: int) -> None:
        async with running.websocket(f"{STREAM}?n={number}") as socket:
            for turn in range(5):
                await socket.send(f"{number}/{turn}")
                assert await socket.recv() == f"{number}/{turn}"

    async with client() as http, asyncio.TaskGroup() as tasks:

        async def ask(number: int) -> None:
            async with http.get(f"{running.url}/hume/v0/x?n={number}") as answer:
                assert (await answer.json())["target"] == f"/v0/x?n={number}"

        for number in range(20):
            tasks.create_task(talk(number))
            tasks.create_task(ask(number))
    assert hume.faults == []
    assert len(hume.requests) == 40


@pytest.mark.parametrize(
    ("field", "status"),
    [
        (b"Sec-WebSocket-Version: 8", 426),
        (b"Sec-WebSocket-Key: short", 400),
        (b"Content-Length: 3", 400),
    ],
)
async def test_a_bad_handshake_is_refused_before_anything_is_dialled(
    hume: HumeEmulator, running: Running, field: bytes, status: int
) -> None:
    """What is no handshake of RFC 6455 is answered here, as plain HTTP."""
    name = field.partition(b":")[0]
    kept = [line for line in HANDSHAKE[:-4].split(b"\r\n") if not line.startswith(name + b":")]
    answer = await exchange(running.port, b"\r\n".join([*kept, field, b"", b""]))
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert hume.connections == 0
