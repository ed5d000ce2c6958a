"""Row T44: credentials in the messages of a WebSocket, whatever a client or a provider sends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from proxy.secrets.redaction import Redactor
from proxy.websocket.first_messages import FirstMessages
from proxy.websocket.frames import FrameReader, Opcode
from proxy.websocket.incoming_messages import Failure
from proxy.websocket.message_rules import MessageRules
from tests.emulators.in_band import Asking, FirstMessage
from tests.support.frames import compressed, cut
from tests.support.keyrelay import RawClient, both_loops, keyrelay, until
from tests.support.messages import frames, reply, send_rules, set_rules, text
from tests.support.websocket import HANDSHAKE

SECRET = b"dummy-real-key"
OWN = "dummy-of-the-client"

# Messages of a client: the one that is meant, in several spellings, others, and what is none.
MESSAGES = st.sampled_from(
    [
        text(f'{{"type":"auth","key":"{OWN}"}}'),
        text(f'{{"key":"{OWN}","type":"auth"}}'),
        text('{"type":"auth"}'),
        text('{"type":"auth","key":{"a":[1]}}'),
        text(f'{{"type":"auth","k\\u0065y":"{OWN}"}}'),
        text(f'{{"type":"auth","key":"{OWN}","key":"{OWN}"}}'),
        text(f'{{"type":"other","key":"{OWN}"}}'),
        text(f'{{"type":["auth"],"key":"{OWN}"}}'),
        text('{"ty', fin=False) + text('pe":"auth"}', opcode=Opcode.CONTINUATION),
        text("{}", fin=False),
        text("[]"),
        text(OWN),
        text(OWN, opcode=Opcode.BINARY),
        text("x", opcode=Opcode.PING),
        text(b"\x03\xe8", opcode=Opcode.CLOSE),
        compressed(text('{"type":"auth"}')),
        reply('{"type":"auth"}'),
        b"\x00",
        b"\xff",
    ]
)
REPLIES = st.sampled_from(
    [
        reply('{"type":"auth_required"}'),
        reply('{"type":"auth_required","echo":"dummy-real-key"}'),
        reply('{"type":"other"}'),
        reply("dummy-real", fin=False) + reply("-key", opcode=Opcode.CONTINUATION),
        reply(b"\x0f\xa4dummy-real-key", opcode=Opcode.CLOSE),
        reply(b"dummy-real-key", opcode=Opcode.PING),
        reply(bytes(300), opcode=Opcode.BINARY),
        b"\x00",
    ]
)
SCRIPTS = st.lists(
    st.one_of(st.tuples(st.just(True), MESSAGES), st.tuples(st.just(False), REPLIES))
)


def whole(data: bytes) -> list[tuple[Opcode, bool, bytes]]:
    """The whole frames to the provider; behind the splice anything may follow."""
    reader = FrameReader(True, limit=1 << 20)
    return [(one.opcode, one.fin, one.payload) for one in reader.feed(data)]


def run(rules: MessageRules, script: list[tuple[bool, bytes]], borders: list[int]) -> FirstMessages:
    """Both sides' bytes in pieces, in turns; a failure ends it."""
    messages = FirstMessages(rules, Redactor([SECRET]))
    try:
        for from_client, data in script:
            for piece in cut(data, borders):
                (messages.from_client if from_client else messages.from_provider)(piece)
                if messages.client_done:
                    return messages
    except Failure:
        pass
    return messages


@given(SCRIPTS, st.lists(st.integers(min_value=0), max_size=3), st.integers(1, 3))
def test_t44_the_credential_is_in_the_message_that_is_meant(
    script: list[tuple[bool, bytes]], borders: list[int], within: int
) -> None:
    """In no other frame, and at its place alone; until then nothing of the client's own at that
    place is sent, in any message.
    """
    rules = set_rules("/key", {"type": "auth"}, within=within)
    messages = run(rules, script, borders)
    sent = whole(bytes(messages.to_provider))
    holding = [one for one in sent if SECRET in one[2]]
    assert len(holding) == messages.placed
    for opcode, fin, payload in holding:
        assert (opcode, fin) == (Opcode.TEXT, True)
        value = json.loads(payload)
        assert (value["type"], value["key"]) == ("auth", SECRET.decode())
        assert payload.count(SECRET) == 1
    before = sent if not holding else sent[: sent.index(holding[0]) + 1]
    assert OWN.encode() not in b"".join(one[2] for one in before)


@given(SCRIPTS, st.lists(st.integers(min_value=0), max_size=3), st.integers(1, 3))
def test_t44_the_credential_is_sent_when_it_is_asked_for(
    script: list[tuple[bool, bytes]], borders: list[int], within: int
) -> None:
    """Once, as the message that the settings name, behind the provider's request for it; the
    client's own such message is not sent.
    """
    messages = run(send_rules(within=within), script, borders)
    sent = whole(bytes(messages.to_provider))
    holding = [one for one in sent if SECRET in one[2]]
    message = (Opcode.TEXT, True, b'{"type":"auth","key":"dummy-real-key"}')
    assert holding == [message] * messages.placed
    if messages.placed:
        assert b"auth_required" in messages.to_client
    own = [one for one in sent if b'"type":"auth"' in one[2] and one != message]
    assert not own or messages.client_done


@given(SCRIPTS, st.lists(st.integers(min_value=0), max_size=3))
def test_t44_echoes_are_redacted_while_messages_are_parsed(
    script: list[tuple[bool, bytes]], borders: list[int]
) -> None:
    """In no frame to the client is the credential, until the direction is spliced."""
    messages = FirstMessages(set_rules("/key", {"type": "auth"}, within=3), Redactor([SECRET]))
    try:
        for from_client, data in script:
            for piece in cut(data, borders):
                before = len(messages.to_client)
                (messages.from_client if from_client else messages.from_provider)(piece)
                if messages.provider_done:
                    del messages.to_client[before:]
                    break
    except Failure:
        pass
    reader = FrameReader(False, limit=1 << 20)
    content = b"".join(one.payload for one in reader.feed(bytes(messages.to_client)))
    assert SECRET not in content


def route(upstream: str, message: Any) -> dict[str, Any]:
    return {
        "upstream": upstream,
        "secrets": {"key": "env:DUMMY_KEY"},
        "auth": [{"name": "key", "websocket": {"message": message}}],
    }


@both_loops
@pytest.mark.parametrize(
    "data",
    [
        text(OWN),
        text(f'{{"X-API-Key":"{OWN}","X-API-Key":"{OWN}"}}'),
        text(f'["{OWN}"]'),
        text(f'{{"X-API-Key":"{OWN}"}}', opcode=Opcode.BINARY),
        compressed(text(f'{{"X-API-Key":"{OWN}"}}')),
        text(f'{{"X-API-Key":"{OWN}"}}', fin=False),
        text(f'{{"X-API-Key":"{OWN}"}}')[:-1],
        reply(f'{{"X-API-Key":"{OWN}"}}'),
    ],
)
async def test_t44_a_dummy_never_arrives(dummy_key: bytes, data: bytes) -> None:
    """Of what cannot get the credential nothing reaches the provider, and the log has neither."""
    message = {"set": "/X-API-Key", "value": "{key}"}
    async with (
        FirstMessage({SECRET.decode()}).running() as service,
        keyrelay({"api": route(service.origin, message)}) as running,
    ):
        async with await RawClient.to(running.port) as client:
            client.send(HANDSHAKE + data)
            await client.head()
            client.writer.write_eof()
            await client.rest()
        await until(lambda: service.ends and running.lines)
        assert service.sessions == [[]]
        log = "".join(running.lines)
        assert OWN not in log
        assert SECRET.decode() not in log


@both_loops
async def test_t44_the_service_s_echo(dummy_key: bytes) -> None:
    """A service that quotes the credential in its refusal does not disclose it to the client."""
    message = {
        "send": {"type": "auth", "access_token": "{key}"},
        "after": {"type": "auth_required"},
    }
    async with (
        Asking({"another"}).running() as service,
        keyrelay({"api": route(service.origin, message)}) as running,
        running.websocket("/api/x") as client,
    ):
        received = []
        try:
            while True:
                received.append(str(await client.recv()))
        except ConnectionClosed:
            pass
    assert received[-1] == '{"type": "auth_invalid", "message": "no **************"}'
    assert SECRET.decode() not in "".join(received)


def test_t44_what_is_shown() -> None:
    """Rules hold the credential, and print without it."""
    for rules in (set_rules(), send_rules()):
        assert rules.placement is not None
        for thing in (rules, rules.placement, rules.placement.place, rules.placement.refused):
            assert SECRET.decode() not in f"{thing!r} {thing}"
    assert frames(text("{}"), masked=True) == [(Opcode.TEXT, True, b"{}")]
