"""proxy.websocket.opening: sessions through keyrelay whose credential is in a message."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

from proxy.secrets.redaction import Redactor
from proxy.websocket.first_messages import FirstMessages
from proxy.websocket.frames import Opcode
from proxy.websocket.message_rules import MessageRules
from proxy.websocket.opening import OpeningRelay
from proxy.websocket.relay import Relay, RelaySide
from tests.emulators.in_band import Asking, FirstMessage, Gateway, InBand
from tests.support.certificates import Authority
from tests.support.keyrelay import (
    SECRET,
    RawClient,
    Running,
    both_loops,
    keyrelay,
    raw_provider,
    read_head,
    until,
)
from tests.support.messages import frames, pointers, reply, send_rules, set_rules, text
from tests.support.websocket import HANDSHAKE, MEBIBYTE, ended, pair, switching

pytestmark = both_loops

KEY = SECRET.decode()
IN_FIRST = {"set": "/X-API-Key", "value": "{key}"}
ASKED = {
    "send": {"type": "auth", "access_token": "{key}"},
    "after": {"type": "auth_required"},
    "refused": {"message": {"type": "auth_invalid"}},
}
IN_GATEWAY = {
    "set": "/d/token",
    "value": "{key}",
    "when": {"op": [2, 6]},
    "within": 3,
    "refused": {"close": [4004]},
}


def route(upstream: str, message: Any, **more: Any) -> dict[str, Any]:
    """A route whose credential is in a message."""
    return {
        "upstream": upstream,
        "spares": 0,
        "secrets": {"key": "env:DUMMY_KEY"},
        "auth": [{"name": "key", "websocket": {"message": message}}],
        **more,
    }


def is_spliced(running: Running) -> bool:
    """Whether the one open session is as one without parsers."""
    (relay,) = running.app._context.relays
    assert isinstance(relay, OpeningRelay)
    sides = (relay._client, relay._provider)
    return all(type(one) is RelaySide for one in sides) and relay._messages is None


# -- the forms ---------------------------------------------------------------------------------


async def test_the_key_in_the_first_message(dummy_key: bytes) -> None:
    """The service gets the client's message with the real key, and then everything as it comes;
    nothing of the parsers stays.
    """
    first = '{ "voice" : "ä", "X-API-Key":"dummy", "speed": 1.0 }'
    async with (
        FirstMessage({KEY}).running() as service,
        keyrelay({"api": route(service.origin, IN_FIRST)}) as running,
    ):
        async with running.websocket("/api/stream") as client:
            await client.send(first)
            for message in ("no JSON", b"\x00" * 100_000, "ü" * 50_000, ""):
                await client.send(message)
                assert await client.recv() == message
            assert is_spliced(running)
            await (await client.ping())
            await client.close(3001, "done")
        assert service.sessions[0][0] == first.replace("dummy", KEY)
        await until(lambda: service.ends)
        assert service.ends == [(3001, "done")]


async def test_the_service_asks(dummy_key: bytes) -> None:
    """Keyrelay sends the message, and the client's own one with a dummy does not arrive."""
    async with (
        Asking({KEY}).running() as service,
        keyrelay({"api": route(service.origin, ASKED)}) as running,
        running.websocket("/api/websocket") as client,
    ):
        assert json.loads(await client.recv())["type"] == "auth_required"
        await client.send('{"type": "auth", "access_token": "dummy"}')
        assert json.loads(await client.recv())["type"] == "auth_ok"
        await client.send('{"id":1}')
        assert await client.recv() == '{"id":1}'
        assert is_spliced(running)
        assert service.sessions == [[f'{{"type":"auth","access_token":"{KEY}"}}', '{"id":1}']]


@pytest.mark.parametrize("op", [2, 6])
async def test_a_message_that_is_not_the_first(dummy_key: bytes, op: int) -> None:
    """Heartbeats before it pass without the credential; both messages that need it get it."""
    message = json.dumps({"op": op, "d": {"token": "dummy", "seq": 1}})
    async with (
        Gateway({KEY}).running() as service,
        keyrelay({"api": route(service.origin, IN_GATEWAY)}) as running,
        running.websocket("/api/?v=10") as client,
    ):
        await client.recv()
        await client.send('{"op":1,"d":null}')
        assert json.loads(await client.recv()) == {"op": 11}
        await client.send(message)
        assert json.loads(await client.recv())["t"] == "READY"
        assert service.sessions[0] == ['{"op":1,"d":null}', message.replace("dummy", KEY)]


async def test_a_key_in_the_handshake_and_one_in_a_message(dummy_key: bytes) -> None:
    """Both placements of a strategy are used; two members of one message too."""
    both: Any = [
        {"header": "X-Api-Key", "value": "{key}"},
        {"message": IN_FIRST},
        {"message": {"set": "/team/key", "value": "t-{key}"}},
    ]
    async with FirstMessage({KEY}).running() as service:
        settings = route(service.origin, IN_FIRST)
        settings["auth"][0]["websocket"] = both
        async with keyrelay({"api": settings}) as running:
            headers = [("X-Api-Key", "dummy")]
            async with running.websocket("/api/x", headers) as client:
                await client.send("{}")
                await client.send("1")
                assert await client.recv() == "1"
        assert service.handshakes[0].headers.get_all("X-Api-Key") == [KEY]
        assert json.loads(service.sessions[0][0]) == {
            "X-API-Key": KEY,
            "team": {"key": f"t-{KEY}"},
        }


async def test_members_are_stripped_beside_a_key_in_the_handshake(dummy_key: bytes) -> None:
    """``strip: {messages: …}`` alone: the first message has no dummy, binary ones pass."""
    settings = route("", IN_FIRST, strip={"messages": ["/X-API-Key", "/auth"]})
    settings["auth"][0]["websocket"] = {"header": "X-Api-Key", "value": "{key}"}
    async with FirstMessage({""}).running() as service:
        service.keys = {None}  # type: ignore[arg-type]
        settings["upstream"] = service.origin
        async with (
            keyrelay({"api": settings}) as running,
            running.websocket("/api/x") as client,
        ):
            await client.send('{"auth":{"k":"dummy"},"n":1,"X-API-Key":"dummy"}')
            await client.send("1")
            assert await client.recv() == "1"
            assert is_spliced(running)
        assert service.sessions[0][0] == '{"n":1}'


async def test_over_tls(dummy_key: bytes, trusted: Authority) -> None:
    """The connections are spliced within a read of TLS as well."""
    async with (
        Asking({KEY}).running(trusted.server("127.0.0.1")) as service,
        keyrelay({"api": route(service.origin.replace("http", "https"), ASKED)}) as running,
        running.websocket("/api/websocket") as client,
    ):
        await client.recv()
        await client.send('{"type": "auth", "access_token": "dummy"}')
        assert json.loads(await client.recv())["type"] == "auth_ok"
        await client.send(bytes(MEBIBYTE))
        assert await client.recv() == bytes(MEBIBYTE)
        assert is_spliced(running)


async def test_a_message_that_arrives_with_the_handshake(dummy_key: bytes) -> None:
    """Bytes behind the handshake are parsed like any other."""
    async with (
        FirstMessage({KEY}).running() as service,
        keyrelay({"api": route(service.origin, IN_FIRST)}) as running,
        await RawClient.to(running.port) as client,
    ):
        client.send(HANDSHAKE + text('{"X-API-Key":"dummy"}') + text("hi"))
        assert b" 101 " in await client.head()
        assert await client.exactly(4) == b"\x81\x02hi"
        assert service.sessions[0] == [f'{{"X-API-Key":"{KEY}"}}', "hi"]


# -- compression -------------------------------------------------------------------------------


@pytest.mark.parametrize("strip", [True, False])
async def test_no_compression_is_offered(dummy_key: bytes, strip: bool) -> None:
    """To neither side, on a route whose messages are parsed."""
    async with FirstMessage({KEY}).running() as service:
        settings = route(service.origin, IN_FIRST)
        if strip:
            settings["auth"][0]["websocket"] = {"header": "X-Api-Key", "value": "{key}"}
            settings["strip"] = {"messages": ["/auth"]}
        async with (
            keyrelay({"api": settings}) as running,
            running.websocket("/api/x", compression="deflate") as client,
        ):
            assert client.protocol.extensions == []
        assert "Sec-WebSocket-Extensions" not in service.handshakes[0].headers


async def test_a_provider_that_compresses_unasked(dummy_key: bytes) -> None:
    """Its handshake is invalid (RFC 6455 section 4.1, item 5): 502, and no session."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(
            switching().replace(
                b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
            )
        )
        await reader.read()

    async with (
        raw_provider(serve) as provider,
        keyrelay({"api": route(provider.url, IN_FIRST)}) as running,
        await RawClient.to(running.port) as client,
    ):
        client.send(HANDSHAKE)
        status, _, _ = await client.answer()
        assert status == 502


# -- what goes wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("dummy", "the message is no JSON"),
        (b"{}", "a binary message arrived before the credential was placed"),
        ("[1]", "the first message has no place for the credential"),
        (
            "[" + " " * 65_536 + "]",
            "the message is longer than 64 KiB, or has more than 1024 fragments",
        ),
    ],
)
async def test_the_session_ends_with_a_reason(
    dummy_key: bytes, message: str | bytes, reason: str
) -> None:
    """The client gets 1008 with it, the service 1001 and no message, the log the reason."""
    async with (
        FirstMessage({KEY}).running() as service,
        keyrelay({"api": route(service.origin, IN_FIRST)}) as running,
    ):
        async with running.websocket("/api/x") as client:
            await client.send(message)
            with pytest.raises(ConnectionClosedError) as closed:
                await client.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, f"keyrelay: {reason}")
        await ended(running)
        await until(lambda: service.ends)
        assert service.sessions == [[]]
        assert service.ends == [(1001, "")]
        await until(lambda: running.lines)
        assert f"no-credential-message, {reason}" in running.lines[0]


async def test_the_service_does_not_ask(dummy_key: bytes) -> None:
    """The client gets 1011 behind the service's message, the service nothing but the end."""
    async with (
        Gateway({KEY}).running() as service,
        keyrelay({"api": route(service.origin, ASKED)}) as running,
        running.websocket("/api/x") as client,
    ):
        assert "heartbeat" in str(await client.recv())
        with pytest.raises(ConnectionClosedError) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
        await until(lambda: service.ends)
        assert service.sessions == [[]]


async def test_a_client_that_leaves_before(dummy_key: bytes) -> None:
    """The service gets its Close frame, else one of keyrelay's own, and no message."""
    async with (
        FirstMessage({KEY}).running() as service,
        keyrelay({"api": route(service.origin, IN_FIRST)}) as running,
    ):
        async with running.websocket("/api/x") as client:
            await client.close(1000, "never mind")
        await ended(running)
        async with await RawClient.to(running.port) as raw:
            raw.send(HANDSHAKE + text('{"X-API-Key":')[:-2])
            await raw.head()
        await until(lambda: len(service.ends) == 2)
        assert service.ends == [(1000, "never mind"), (1001, "")]
        assert service.sessions == [[], []]


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[InBand, Running, RawClient]]:
    """A session whose service waits for its first message, and the client after the 101."""
    async with (
        FirstMessage({KEY}).running() as service,
        keyrelay({"api": route(service.origin, IN_FIRST)}) as running,
        await RawClient.to(running.port) as client,
    ):
        client.send(HANDSHAKE)
        await client.head()
        yield service, running, client


async def test_two_fragments_and_an_impatient_ping(dummy_key: bytes) -> None:
    """A ping within the first message is answered by the service before the message is complete."""
    data = text('{"X-API-Key":', fin=False) + text(b"?", opcode=Opcode.PING)
    async with opened() as (service, _, client):
        for at in range(len(data)):
            client.send(data[at : at + 1])
            await asyncio.sleep(0)
        assert await client.exactly(3) == b"\x8a\x01?"
        client.send(text('"dummy"}', opcode=Opcode.CONTINUATION) + text("hi"))
        assert await client.exactly(4) == b"\x81\x02hi"
        assert service.sessions[0][0] == f'{{"X-API-Key":"{KEY}"}}'


async def test_the_drain_ends_a_session_that_waits(dummy_key: bytes) -> None:
    """Both sides get 1001, at a frame boundary; the client's incomplete message is not sent."""
    async with opened() as (service, running, client):
        client.send(text('{"X-API-Key":"dummy"}')[:-1])
        await until(lambda: running.app._context.relays)
        (relay,) = running.app._context.relays
        relay.close_gracefully(5)
        relay.close_gracefully(5)
        assert await client.exactly(4) == b"\x88\x02\x03\xe9"
        client.send(text(b"\x03\xe9", opcode=Opcode.CLOSE))
        await until(lambda: service.ends)
        assert (service.ends, service.sessions) == ([(1001, "")], [[]])


async def test_the_drain_ends_a_session_that_has_begun(dummy_key: bytes) -> None:
    """Also while the service's response is still parsed."""
    async with (
        FirstMessage({KEY}).running() as service,
        keyrelay({"api": route(service.origin, IN_FIRST)}) as running,
        running.websocket("/api/x") as client,
    ):
        await client.send('{"X-API-Key":"dummy"}')
        await until(lambda: service.sessions and service.sessions[0])
        (relay,) = running.app._context.relays
        assert not is_spliced(running)
        relay.close_gracefully(5)
        assert is_spliced(running)
        with pytest.raises(ConnectionClosedOK) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        await until(lambda: service.ends)
        assert service.ends == [(1001, "")]


@asynccontextmanager
async def accepted() -> AsyncIterator[tuple[InBand, Running, RawClient]]:
    """A session whose service has got its credential from keyrelay, and said so; the client has
    sent no message yet.
    """
    async with (
        Asking({KEY}).running() as service,
        keyrelay({"api": route(service.origin, ASKED)}) as running,
        await RawClient.to(running.port) as client,
    ):
        client.send(HANDSHAKE)
        await client.head()
        received = b""
        while b"auth_ok" not in received:
            received += await client.exactly(1)
        assert await client.exactly(2) == b'"}'
        yield service, running, client


async def test_the_drain_ends_a_session_whose_service_is_satisfied(dummy_key: bytes) -> None:
    """Both sides get 1001 while a message of the client's own is still expected."""
    async with accepted() as (service, running, client):
        (relay,) = running.app._context.relays
        relay.close_gracefully(5)
        assert await client.exactly(4) == b"\x88\x02\x03\xe9"
        client.send(text(b"\x03\xe9", opcode=Opcode.CLOSE))
        await until(lambda: service.ends)
        assert service.ends == [(1001, "")]


async def test_a_reason_for_a_client_whose_service_is_satisfied(dummy_key: bytes) -> None:
    """A message that cannot be searched ends the session with a reason, not without one."""
    async with accepted() as (service, running, client):
        client.send(text("no JSON"))
        reason = b"keyrelay: the message is no JSON"
        assert await client.exactly(4 + len(reason)) == b"\x88\x22\x03\xf0" + reason
        client.send(text(b"\x03\xf0", opcode=Opcode.CLOSE))
        await until(lambda: service.ends)
        assert service.ends == [(1001, "")]
        await until(lambda: running.lines)
        assert "no-credential-message" in running.lines[0]


async def test_the_drain_while_a_satisfied_service_sends(dummy_key: bytes) -> None:
    """The Close frame does not interrupt a frame that has begun: the session is spliced, and ends
    as one without a credential in a message.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(switching() + reply('{"type":"auth_required"}'))
        await reader.readexactly(6)
        writer.write(reply('{"type":"auth_ok"}') + reply("no JSON") + reply(bytes(300))[:-1])
        await reader.read()

    async with (
        raw_provider(serve) as provider,
        keyrelay({"api": route(provider.url, ASKED)}) as running,
        await RawClient.to(running.port) as client,
    ):
        client.send(HANDSHAKE)
        await client.head()
        expected = reply('{"type":"auth_required"}') + reply('{"type":"auth_ok"}')
        expected += reply("no JSON") + reply(bytes(300))[:-1]
        assert await client.exactly(len(expected)) == expected
        (relay,) = running.app._context.relays
        assert not is_spliced(running)
        relay.close_gracefully(1)
        assert is_spliced(running)
        await ended(running)


# -- a peer that ends its sending direction ------------------------------------------------------


async def test_a_client_ends_its_direction_before_the_credential(dummy_key: bytes) -> None:
    """It can send no message any more: it gets 1008 and the reason, the service 1001."""
    async with opened() as (service, running, client):
        client.send(text('{"X-API-Key":"dummy"}')[:-1])
        client.writer.write_eof()
        reason = b"keyrelay: the client ended the connection before the credential was placed"
        assert (await client.exactly(4 + len(reason)))[2:] == b"\x03\xf0" + reason
        assert await client.rest() == b""
        await ended(running)
        await until(lambda: service.ends)
        assert (service.ends, service.sessions) == ([(1001, "")], [[]])


async def test_a_client_ends_its_direction_behind_what_waits(dummy_key: bytes) -> None:
    """What it has sent waits for the credential, and its end behind that; it gets the rest."""
    received = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(switching())
        await asyncio.sleep(0.2)
        writer.write(reply('{"type":"auth_required"}'))
        received.extend(await reader.read())
        writer.write(reply("result"))
        writer.close()

    async with (
        raw_provider(serve) as provider,
        keyrelay({"api": route(provider.url, ASKED)}) as running,
        await RawClient.to(running.port) as client,
    ):
        client.send(HANDSHAKE)
        await client.head()
        client.send(text('{"id":1}') + text('{"id":2}'))
        client.writer.write_eof()
        assert await client.rest() == reply('{"type":"auth_required"}') + reply("result")
        await ended(running)
    sent = [one[2].decode() for one in frames(received, masked=True)]
    assert sent == [f'{{"type":"auth","access_token":"{KEY}"}}', '{"id":1}', '{"id":2}']


async def test_a_client_ends_its_direction_while_its_own_message_is_expected(
    dummy_key: bytes,
) -> None:
    """The service gets the end, and the client what the service sends then."""
    async with accepted() as (service, running, client):
        client.writer.write_eof()
        await client.rest()
        await ended(running)
        await until(lambda: service.ends)
        assert len(service.sessions[0]) == 1


@pytest.mark.parametrize("message", [IN_FIRST, ASKED])
async def test_a_provider_ends_its_direction_before_the_credential(
    dummy_key: bytes, message: Any
) -> None:
    """It could neither ask nor respond: the client gets 1011 and the reason."""
    received = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(switching())
        writer.write_eof()
        received.extend(await reader.read())

    async with (
        raw_provider(serve) as provider,
        keyrelay({"api": route(provider.url, message)}) as running,
        await RawClient.to(running.port) as client,
    ):
        client.send(HANDSHAKE)
        await client.head()
        reason = b"keyrelay: the provider ended the connection before the credential was placed"
        assert (await client.exactly(4 + len(reason)))[2:] == b"\x03\xf3" + reason
        client.send(text(b"\x03\xf3", opcode=Opcode.CLOSE))
        assert await client.rest() == b""
        await ended(running)
    assert frames(received, masked=True) == [(Opcode.CLOSE, True, b"\x03\xe9")]


@pytest.mark.parametrize("half_closed", [True, False])
async def test_a_provider_s_malformed_frame_behind_a_spliced_client(
    dummy_key: bytes, half_closed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The client gets 1011 and may go on sending, or have ended: nothing fails because of it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(switching())
        await reader.readexactly(6)
        if half_closed:
            await reader.read()
        writer.write(b"\xf1\x00")
        await reader.read()

    async with (
        raw_provider(serve) as provider,
        keyrelay({"api": route(provider.url, {**IN_FIRST, "within": 5})}) as running,
        await RawClient.to(running.port) as client,
    ):
        client.send(HANDSHAKE)
        await client.head()
        client.send(text('{"X-API-Key":"dummy"}'))
        if half_closed:
            client.writer.write_eof()
        assert (await client.exactly(4))[2:] == b"\x03\xf3"
        if not half_closed:
            client.send(text("audio") * 100)
            client.send(text(b"\x03\xf3", opcode=Opcode.CLOSE))
        await client.rest()
        await ended(running)
    assert not caplog.records


@pytest.mark.parametrize("by_provider", [True, False])
async def test_half_closed_sessions_do_not_disturb_the_drain(
    dummy_key: bytes, by_provider: bool
) -> None:
    """All sessions are closed, however many have ended one direction."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(switching())
        if by_provider:
            writer.write_eof()
        await reader.read()

    async with (
        raw_provider(serve) as provider,
        keyrelay({"api": route(provider.url, ASKED)}) as running,
    ):
        clients = [await RawClient.to(running.port) for _ in range(4)]
        for at, client in enumerate(clients):
            client.send(HANDSHAKE)
            await client.head()
            if at % 2 and not by_provider:
                client.writer.write_eof()
        await asyncio.sleep(0.05)
        for relay in list(running.app._context.relays):
            relay.close_gracefully(1)
        for client in clients:
            assert (await client.rest())[:1] in {b"\x88", b""}
            client.close()
        await until(lambda: not running.app._context.relays)


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def on_failure(self, reason: str) -> None:
        self.failures.append(reason)

    def on_rejection(self, how: str) -> None:
        raise AssertionError(how)


@pytest.mark.parametrize(
    ("rules", "code", "reason"),
    [
        (set_rules(), 1008, "no message for the credential arrived in time"),
        (send_rules(), 1011, "the provider did not ask for the credential in time"),
        (MessageRules(None, pointers("/auth")), 0, ""),
    ],
)
async def test_time_runs_out(rules: MessageRules, code: int, reason: str) -> None:
    """The client gets the code and reason; a route that only strips has no limit of time."""
    loop = asyncio.get_running_loop()
    listener, ends = Listener(), []
    async with pair() as (client_transport, client), pair() as (provider_transport, provider):
        relay = OpeningRelay(
            client_transport,
            provider_transport,
            loop,
            lambda _relay, sent, received: ends.append((sent, received)),
            None,
            messages=FirstMessages(rules, Redactor(())),
            listener=listener,
            seconds=0.02,
        )
        relay.start(from_client=b"", from_provider=b"")
        if not code:
            await client.nothing()
            relay.abort()
        else:
            ((opcode, _, payload),) = frames(
                await client.exactly(4 + len("keyrelay: ") + len(reason)), masked=False
            )
            assert opcode is Opcode.CLOSE
            assert payload == code.to_bytes(2) + f"keyrelay: {reason}".encode()
            assert frames(await provider.exactly(8), masked=True)[0][2] == b"\x03\xe9"
            client.send(text(payload[:2], opcode=Opcode.CLOSE))
            assert await client.rest() == b""
            # The provider does not respond: it is disconnected, soon.
            assert await provider.rest() == b""
        await until(lambda: ends)
        assert listener.failures == [reason] * bool(code)
        assert isinstance(relay, Relay)
