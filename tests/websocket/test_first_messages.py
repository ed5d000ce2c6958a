"""proxy.websocket.first_messages: what is parsed, forwarded, held back and refused, without I/O."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.secrets.redaction import Redactor
from proxy.websocket.first_messages import LIMIT, MOST_FRAGMENTS, MOST_MESSAGES, FirstMessages
from proxy.websocket.frames import CloseCode, Opcode
from proxy.websocket.incoming_messages import Failure
from proxy.websocket.message_rules import MessageRule, MessageRules, Refused, SetMembers
from tests.support.frames import compressed, cut
from tests.support.messages import frames, pointers, reply, send_rules, set_rules, text, texts

SECRET = b"dummy-real-key"
PING = text(b"are you there", opcode=Opcode.PING)
CLOSE = text(b"\x03\xe8", opcode=Opcode.CLOSE)
ASKS = reply('{"type":"auth_required"}')
OWN = text('{"type":"auth","key":"dummy"}')
SENT = '{"type":"auth","key":"dummy-real-key"}'


def opened(rules: MessageRules) -> FirstMessages:
    return FirstMessages(rules, Redactor([SECRET]))


def failure(messages: FirstMessages, data: bytes, *, provider: bool = False) -> Failure:
    """What ends the session; nothing of the credential was sent before."""
    with pytest.raises(Failure) as caught:
        messages.from_provider(data) if provider else messages.from_client(data)
    assert SECRET not in unmasked(messages.to_provider)
    return caught.value


def unmasked(data: bytes | bytearray) -> bytes:
    return b"".join(one[2] for one in frames(bytes(data), masked=True))


# -- the credential is set ---------------------------------------------------------------------


def test_the_member_is_set_and_the_rest_is_spliced() -> None:
    """The client's value is replaced; what follows, of any kind, goes through untouched."""
    messages = opened(set_rules())
    rest = b"\x82\xff anything"
    messages.from_client(text('{ "key" : "dummy", "n": 1.50 }') + rest)
    edited = bytes(messages.to_provider).removesuffix(rest)
    assert texts(edited) == ['{ "key" : "dummy-real-key", "n": 1.50 }']
    assert (messages.placed, messages.client_done, messages.provider_done) == (True, True, False)
    messages.to_provider.clear()
    messages.from_client(b"\x00")
    assert messages.to_provider == b"\x00"


def test_a_member_that_the_client_left_out_is_added() -> None:
    """A client that needs no key gets the credential as well."""
    messages = opened(set_rules("/auth/key"))
    messages.from_client(text("{}"))
    assert texts(messages.to_provider) == ['{"auth":{"key":"dummy-real-key"}}']


@given(st.lists(st.integers(min_value=0), max_size=12), st.integers(0, 2))
def test_reads_of_any_size_have_the_same_result(places: list[int], pings: int) -> None:
    """Fragments, pings between them, and borders within frames, headers and UTF-8 sequences."""
    content = '{"ü": "🎤", "key": "dummy"}'.encode()
    stream = (
        text(content[:3], fin=False)
        + PING * pings
        + text(content[3:9], fin=False, opcode=Opcode.CONTINUATION)
        + text(b"", fin=False, opcode=Opcode.CONTINUATION)
        + PING
        + text(content[9:], opcode=Opcode.CONTINUATION)
    )
    rest = text("after")
    messages = opened(set_rules())
    for piece in cut(stream + rest, places):
        messages.from_client(piece)
    found = frames(bytes(messages.to_provider), masked=True)
    assert found == [
        *[(Opcode.PING, True, b"are you there")] * (pings + 1),
        (Opcode.TEXT, True, '{"ü": "🎤", "key": "dummy-real-key"}'.encode()),
        (Opcode.TEXT, True, b"after"),
    ]


def test_single_bytes() -> None:
    """One byte per read: nothing is sent before the message is complete."""
    messages = opened(set_rules())
    data = text('{"key":"dummy"}')
    for at in range(len(data) - 1):
        messages.from_client(data[at : at + 1])
        assert not messages.to_provider
    messages.from_client(data[-1:])
    assert texts(messages.to_provider) == ['{"key":"dummy-real-key"}']


def test_messages_before_the_one_that_is_meant_pass() -> None:
    """They are forwarded as they are, in their fragments, without the credential; the client's own
    value at its place is removed.
    """
    messages = opened(set_rules("/d/key", {"op": [2, 6]}, within=4))
    heartbeat = text('{"op":1, ', fin=False) + text('"d":null}', opcode=Opcode.CONTINUATION)
    messages.from_client(heartbeat + text('{"op":3,"d":{"key":"dummy","x":1}}'))
    assert frames(bytes(messages.to_provider), masked=True) == [
        (Opcode.TEXT, False, b'{"op":1, '),
        (Opcode.CONTINUATION, True, b'"d":null}'),
        (Opcode.TEXT, True, b'{"op":3,"d":{"x":1}}'),
    ]
    assert not messages.placed
    messages.to_provider.clear()
    messages.from_client(text('{"op":6,"d":{"key":"dummy"}}'))
    assert texts(messages.to_provider) == ['{"op":6,"d":{"key":"dummy-real-key"}}']


def test_no_message_is_the_one_that_is_meant() -> None:
    """After ``within`` messages the session ends; the last of them is not sent."""
    messages = opened(set_rules(when={"type": "auth"}, within=2))
    messages.from_client(text('{"type":"hello"}'))
    messages.to_provider.clear()
    ended = failure(messages, text('{"type":"hello"}'))
    assert ended.code is CloseCode.POLICY_VIOLATION
    assert "none of the first 2 messages" in ended.reason
    assert not messages.to_provider


REFUSED = {
    "binary": (text(b"{}", opcode=Opcode.BINARY), "binary"),
    "binary, its header only": (text(b"{}", opcode=Opcode.BINARY)[:6], "binary"),
    "compressed": (compressed(text("{}")), "compression"),
    "no JSON": (text("auth dummy"), "no JSON"),
    "two members of one name": (text('{"key":1,"key":2}'), "same name"),
    "no object": (text("[]"), "has no place"),
    "too long": (text("[" + " " * LIMIT + "]"), "64 KiB"),
    "too long, its header only": (text("[" + " " * LIMIT + "]")[:14], "64 KiB"),
    "fragments too long": (
        text("[", fin=False) + text(" " * LIMIT, opcode=Opcode.CONTINUATION)[:14],
        "64 KiB",
    ),
    "too many fragments": (
        text("[", fin=False) + text("", fin=False, opcode=Opcode.CONTINUATION) * MOST_FRAGMENTS,
        "1024 fragments",
    ),
    "no UTF-8": (text(b'"\xc3\x28"'), "UTF-8"),
    "half a UTF-8 sequence": (text(b'"\xf0\x9f"'), "UTF-8"),
    "unmasked": (reply("{}"), "malformed"),
    "continuation of nothing": (text("{}", opcode=Opcode.CONTINUATION), "wrong order"),
    "new message within one": (text("{", fin=False) + text("{}"), "wrong order"),
    "reserved bits": (bytes([0xB1]) + text("{}")[1:], "reserved"),
    "control frame in fragments": (text("", fin=False, opcode=Opcode.PING), "control"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_get_the_credential_is_refused(case: str) -> None:
    """With 1008 and a reason of ASCII that fits into a Close frame; the provider gets nothing."""
    data, reason = REFUSED[case]
    messages = opened(set_rules())
    ended = failure(messages, data)
    assert ended.code is CloseCode.POLICY_VIOLATION
    assert reason in ended.reason
    assert ended.reason.isascii()
    assert len(ended.reason) < 100
    assert not messages.to_provider
    assert "dummy" not in ended.reason


def test_a_value_on_the_way_is_no_object() -> None:
    """The credential is not put in place of something else."""
    messages = opened(set_rules("/d/key"))
    assert "no object" in failure(messages, text('{"d":null}')).reason


def test_the_client_closes_before() -> None:
    """Its Close frame is forwarded, and what follows it is discarded: it could hold a dummy."""
    messages = opened(set_rules())
    messages.from_client(text('{"key":', fin=False) + CLOSE + text('{"key":"dummy"}'))
    messages.from_client(text('{"key":"dummy"}'))
    assert frames(bytes(messages.to_provider), masked=True) == [(Opcode.CLOSE, True, b"\x03\xe8")]
    assert messages.closing


def test_members_are_stripped_from_every_parsed_message() -> None:
    """Also from the one with the credential."""
    messages = opened(set_rules(when={"t": 2}, within=2, strip=("/token",)))
    messages.from_client(text('{"t":1, "token":"dummy"}'))
    messages.from_client(text('{"token":"dummy","t":2}'))
    assert texts(messages.to_provider) == ['{"t":1}', '{"t":2,"key":"dummy-real-key"}']


def test_elements_of_an_array_are_counted_as_the_client_wrote_them() -> None:
    """No dummy passes, and the credential is not put into another element."""
    messages = opened(set_rules("/keys/1", strip=("/keys/0",)))
    messages.from_client(text('{"keys":["dummy-a","dummy-b","c"]}'))
    assert texts(messages.to_provider) == ['{"keys":["dummy-real-key","c"]}']
    two = tuple((one, '"dummy-real-key"') for one in pointers("/keys/0", "/keys/1"))
    rules = MessageRules(MessageRule(SetMembers(two, {"type": "auth"}), within=2))
    messages = opened(rules)
    messages.from_client(text('{"keys":["dummy-a","dummy-b"]}'))
    messages.from_client(text('{"type":"auth","keys":["dummy-a","dummy-b"]}'))
    assert texts(messages.to_provider) == [
        '{"keys":[]}',
        '{"type":"auth","keys":["dummy-real-key","dummy-real-key"]}',
    ]


# -- members are only removed ------------------------------------------------------------------


def test_the_first_message_loses_a_member() -> None:
    """Nothing is placed, and both directions are spliced with that message."""
    messages = opened(MessageRules(None, pointers("/auth")))
    messages.from_provider(reply("hel", fin=False) + b"\x00")
    messages.from_client(text('{"a":1,"auth":{"api_key":"dummy"}}') + b"\x82")
    assert texts(bytes(messages.to_provider)[:-1]) == ['{"a":1}']
    assert messages.to_provider.endswith(b"\x82")
    assert (messages.client_done, messages.provider_done) == (True, True)
    # What was read of the provider's incomplete message has been passed on.
    assert bytes(messages.to_client) == reply("hel", fin=False) + b"\x00"


@pytest.mark.parametrize("read", [6, 100, 70_000])
def test_a_binary_message_ends_the_parsing(read: int) -> None:
    """It has no members: its bytes pass as they come, however long it is."""
    data = text(bytes(LIMIT * 2), opcode=Opcode.BINARY) + b"rest"
    messages = opened(MessageRules(None, pointers("/auth")))
    for at in range(0, len(data), read):
        messages.from_client(data[at : at + read])
    passed = bytes(messages.to_provider)
    # A frame that was read at once may have another mask.
    assert len(passed) == len(data)
    assert passed.endswith(b"rest")
    assert unmasked(passed[:-4]) == bytes(LIMIT * 2)


def test_a_text_that_is_no_json_cannot_be_searched() -> None:
    """It is refused, because a credential in it could not be found."""
    messages = opened(MessageRules(None, pointers("/auth")))
    assert failure(messages, text("auth=dummy")).code is CloseCode.POLICY_VIOLATION


# -- keyrelay sends the message ----------------------------------------------------------------


def test_the_provider_asks_and_gets_the_credential() -> None:
    """Its message passes, and the client's own one does not; then both directions are spliced."""
    messages = opened(send_rules())
    messages.from_provider(ASKS)
    assert texts(messages.to_provider) == [SENT]
    assert bytes(messages.to_client) == ASKS
    assert not messages.client_done
    messages.to_provider.clear()
    messages.from_client(OWN + b"next")
    assert bytes(messages.to_provider) == b"next"
    assert messages.client_done


def test_the_client_does_not_wait_to_be_asked() -> None:
    """Its own message is dropped; those behind it wait for the credential."""
    messages = opened(send_rules())
    messages.from_client(OWN + text("1") + text("2"))
    assert not messages.to_provider
    messages.from_provider(ASKS)
    assert texts(messages.to_provider) == [SENT, "1", "2"]
    assert messages.client_done


def test_a_client_without_a_message_of_its_own() -> None:
    """Its first message waits for the credential, and is forwarded behind it."""
    messages = opened(send_rules())
    messages.from_client(text('{"type":"subscribe"}') + PING)
    assert not messages.to_provider
    messages.from_client(text("1"))
    messages.from_provider(ASKS)
    assert [one[2] for one in frames(bytes(messages.to_provider), masked=True)] == [
        SENT.encode(),
        b'{"type":"subscribe"}',
        b"are you there",
        b"1",
    ]


def test_what_waits_is_bounded() -> None:
    """More than 64 KiB before the credential end the session."""
    messages = opened(send_rules())
    messages.from_client(text("{}"))
    messages.from_client(bytes(LIMIT))
    assert "64 KiB" in failure(messages, b"\x00").reason


def test_the_client_s_own_message_is_dropped_within_the_bound() -> None:
    """With ``within: 3`` two others may precede it, and pass."""
    messages = opened(send_rules(within=3))
    messages.from_client(text('{"type":"hello"}'))
    assert texts(messages.to_provider) == ['{"type":"hello"}']
    messages.from_provider(reply('{"type":"hello"}') + ASKS)
    messages.from_client(text('{"type":"x"}') + OWN + text("1"))
    assert texts(messages.to_provider) == ['{"type":"hello"}', SENT, '{"type":"x"}', "1"]


def test_every_message_of_the_client_s_own_is_dropped() -> None:
    """Before the credential, behind it, and twice: all within the bound."""
    messages = opened(send_rules(within=3))
    messages.from_client(OWN)
    messages.from_provider(ASKS)
    messages.from_client(OWN + text("1") + b"spliced")
    assert bytes(messages.to_provider).endswith(b"spliced")
    assert texts(bytes(messages.to_provider).removesuffix(b"spliced")) == [SENT, "1"]


def test_messages_of_the_client_s_own_that_wait_are_dropped() -> None:
    """Those behind a message that waits for the credential."""
    messages = opened(send_rules(within=3))
    messages.from_client(OWN + text("1") + OWN + text("2"))
    messages.from_provider(ASKS)
    assert texts(messages.to_provider) == [SENT, "1", "2"]
    assert messages.client_done


def test_a_message_of_the_client_s_own_behind_others() -> None:
    """It is dropped wherever it comes, also behind the bound; then the rest is spliced."""
    messages = opened(send_rules())
    messages.from_provider(ASKS)
    messages.from_client(text("1") + text('{"type":"x"}') + text("3") + OWN + b"spliced")
    passed = bytes(messages.to_provider).removesuffix(b"spliced")
    assert texts(passed) == [SENT, "1", '{"type":"x"}', "3"]
    assert messages.client_done


def test_the_search_for_a_message_of_the_client_s_own_is_bounded() -> None:
    """A client that has none is not parsed without end."""
    messages = opened(send_rules())
    messages.from_provider(ASKS)
    messages.from_client(text("1") * (MOST_MESSAGES - 1))
    assert not messages.client_done
    messages.from_client(text("1"))
    assert messages.client_done


BEHIND_THE_BOUND = {
    "binary": text(b"audio", opcode=Opcode.BINARY),
    "no JSON": text("audio"),
    "two members of one name": text('{"a":1,"a":2}'),
    "too long": text("[" + " " * LIMIT + "]"),
    "too many fragments": text("[", fin=False)
    + text("", fin=False, opcode=Opcode.CONTINUATION) * MOST_FRAGMENTS
    + text("]", opcode=Opcode.CONTINUATION),
}


@pytest.mark.parametrize("case", BEHIND_THE_BOUND)
@pytest.mark.parametrize("read", [11, 1 << 20])
def test_what_cannot_be_searched_behind_the_bound_passes(case: str, read: int) -> None:
    """It is no error: it ends the search, and passes byte for byte with all that follows."""
    data = BEHIND_THE_BOUND[case] + text("after")
    messages = opened(send_rules())
    messages.from_provider(ASKS)
    messages.from_client(text("1"))
    messages.to_provider.clear()
    for at in range(0, len(data), read):
        messages.from_client(data[at : at + read])
    assert messages.client_done
    assert frames(messages.to_provider, masked=True) == frames(data, masked=True)


def test_what_cannot_be_searched_within_the_bound_is_refused() -> None:
    """A credential of the client's could be in it."""
    messages = opened(send_rules(within=2))
    messages.from_provider(ASKS)
    messages.to_provider.clear()
    messages.from_client(text("1"))
    assert failure(messages, text("key=dummy")).code is CloseCode.POLICY_VIOLATION


@pytest.mark.parametrize(
    "other", [reply('{"type":"auth_ok"}'), reply("hi"), reply(b"", opcode=Opcode.BINARY)]
)
def test_the_provider_does_not_ask(other: bytes) -> None:
    """The session ends with 1011, and the provider has got nothing."""
    messages = opened(send_rules())
    ended = failure(messages, other, provider=True)
    assert (ended.code, ended.reason) == (
        CloseCode.INTERNAL_ERROR,
        "the provider did not ask for the credential",
    )
    assert not messages.to_provider


@pytest.mark.parametrize(
    "data", [compressed(ASKS), text("{}"), reply("", opcode=Opcode.CONTINUATION)]
)
def test_malformed_frames_of_the_provider(data: bytes) -> None:
    """The session ends with 1011 while they are parsed."""
    for rules in (send_rules(), set_rules()):
        assert failure(opened(rules), data, provider=True).code is CloseCode.INTERNAL_ERROR


def test_time_has_passed() -> None:
    """The side that has not done its part is named."""
    assert opened(set_rules()).expired().code is CloseCode.POLICY_VIOLATION
    assert opened(send_rules()).expired().code is CloseCode.INTERNAL_ERROR


def test_frames_of_a_satisfied_provider_are_counted() -> None:
    """While a message of the client's own is expected, a Close frame may be sent to the client
    between two frames of the provider, which are no longer parsed otherwise.
    """
    messages = opened(send_rules())
    messages.from_provider(ASKS + reply('{"type":"auth_ok"}'))
    assert messages.provider_done
    assert messages.client_at_boundary
    sent = reply("no JSON") + reply(bytes(70_000), opcode=Opcode.BINARY)
    for data, boundary in ((sent[:1], False), (sent[1:20], False), (sent[20:], True)):
        messages.from_provider(data)
        assert messages.client_at_boundary is boundary
    assert bytes(messages.to_client).endswith(sent)
    messages.from_provider(reply(b"\x03\xe8", opcode=Opcode.CLOSE))
    assert messages.closing
    assert not messages.client_at_boundary


def test_malformed_frames_of_a_satisfied_provider_pass() -> None:
    """As behind the splice; no Close frame is then sent to the client."""
    messages = opened(send_rules())
    messages.from_provider(ASKS + reply('{"type":"auth_ok"}') + b"\xff\xff")
    assert bytes(messages.to_client).endswith(b"\xff\xff")
    assert not messages.client_at_boundary


# -- from the provider -------------------------------------------------------------------------


def placed(rules: MessageRules) -> FirstMessages:
    messages = opened(rules)
    messages.from_client(text('{"key":"dummy"}'))
    assert messages.placed
    return messages


def test_echoes_are_redacted_in_the_first_messages() -> None:
    """Also across fragments and in control frames; frames keep their sizes."""
    messages = placed(set_rules(within=1))
    ping = reply(b"ping dummy-real-key", opcode=Opcode.PING)
    fragments = reply('{"error":"dummy-re', fin=False) + ping
    last = reply('al-key is wrong"}', opcode=Opcode.CONTINUATION)
    messages.from_provider(fragments + last + b"\x81")
    stars = b"*" * len(SECRET)
    assert frames(bytes(messages.to_client)[:-1], masked=False) == [
        (Opcode.PING, True, b"ping " + stars),
        (Opcode.TEXT, False, b'{"error":"********'),
        (Opcode.CONTINUATION, True, b'****** is wrong"}'),
    ]
    assert messages.provider_done


@pytest.mark.parametrize("digits", ["04x", "04X"])
def test_an_escaped_echo_is_redacted(digits: str) -> None:
    """Each character of the credential as an escape of JSON."""
    messages = placed(set_rules())
    escaped = "".join(f"\\u{one:{digits}}" for one in SECRET)
    messages.from_provider(reply('{"error":"' + escaped + '"}'))
    assert texts(messages.to_client, masked=False) == ['{"error":"' + "*" * len(escaped) + '"}']


@pytest.mark.parametrize("escaped", [r"dummy\u002dreal\u002Dkey", r"\u0064ummy-real-ke\u0079"])
def test_an_echo_that_is_escaped_in_part_is_redacted(escaped: str) -> None:
    """Some of its characters as escapes of JSON, and across fragments."""
    messages = placed(set_rules())
    last = reply(escaped[8:] + '"}', opcode=Opcode.CONTINUATION)
    messages.from_provider(reply('{"error":"' + escaped[:8], fin=False) + last)
    assert [one[2] for one in frames(messages.to_client, masked=False)] == [
        b'{"error":"********',
        b"*" * (len(escaped) - 8) + b'"}',
    ]


def test_the_reason_of_a_close_frame_is_redacted() -> None:
    """Its code stays."""
    messages = placed(set_rules())
    messages.from_provider(reply(b"\x0f\xa4bad dummy-real-key", opcode=Opcode.CLOSE))
    assert bytes(messages.to_client)[2:] == b"\x0f\xa4bad " + b"*" * len(SECRET)


@pytest.mark.parametrize("read", [1, 7, 4096, 1 << 20])
@pytest.mark.parametrize("kind", [Opcode.BINARY, Opcode.TEXT])
def test_long_and_binary_messages_are_not_held_back(read: int, kind: Opcode) -> None:
    """Audio that arrives before the credential is placed passes as it comes, byte for byte, in
    fragments too; the parsing goes on behind it.
    """
    size = LIMIT + 1 if kind is Opcode.TEXT else 300
    if read == 1 and kind is Opcode.TEXT:
        size = LIMIT + 2
    data = (
        reply(b"a" * size, fin=False, opcode=kind)
        + reply(b"now", opcode=Opcode.PING)
        + reply(b"b" * 200, opcode=Opcode.CONTINUATION)
    )
    messages = opened(set_rules())
    for at in range(0, len(data), read):
        messages.from_provider(data[at : at + read])
    assert bytes(messages.to_client) == data
    assert messages.client_at_boundary
    messages.to_client.clear()
    messages.from_provider(reply("dummy-real-key"))
    assert texts(messages.to_client, masked=False) == ["*" * len(SECRET)]


def test_a_message_of_many_fragments_is_not_kept() -> None:
    """The provider's empty fragments are forwarded as they come, and none is kept."""
    data = reply("", fin=False) + reply("", fin=False, opcode=Opcode.CONTINUATION) * 3000
    messages = opened(set_rules())
    messages.from_provider(data)
    assert bytes(messages.to_client) == data
    assert len(messages._provider.frames) == 1


def test_memory_while_a_long_message_passes() -> None:
    """Of a message that is forwarded as it comes nothing is kept."""
    messages = opened(set_rules())
    messages.from_provider(reply(bytes(1 << 24), opcode=Opcode.BINARY)[:100_000])
    kept = len(messages._provider.reader.unfinished)
    for _ in range(20):
        messages.to_client.clear()
        messages.from_provider(bytes(100_000))
    assert len(messages._provider.reader.unfinished) == kept <= 100_000
    assert not messages.client_at_boundary


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        (reply('{"type":"auth_invalid"}'), "a message"),
        (reply(b"\x0f\xa4", opcode=Opcode.CLOSE), "close code 4004"),
        (reply('{"type":"auth_ok"}'), ""),
        (reply(b"\x03\xe8", opcode=Opcode.CLOSE), ""),
        (reply('{"type":"ack"}') + reply('{"type":"auth_invalid"}'), "a message"),
        (reply('{"type":"ack"}') * 2 + reply('{"type":"auth_invalid"}'), ""),
    ],
)
def test_refusals(data: bytes, refused: str) -> None:
    """A Close frame or a message that the settings name, among the first messages."""
    rules = Refused(frozenset({4004}), {"type": "auth_invalid"})
    messages = placed(set_rules(within=2, refused=rules))
    messages.from_provider(data)
    assert messages.refused == refused
    assert bytes(messages.to_client) == data


def test_a_refusal_needs_a_credential() -> None:
    """What the provider sends before the credential is placed does not refuse it."""
    rules = Refused(frozenset({4004}), {"type": "auth_invalid"})
    messages = opened(set_rules(refused=rules))
    messages.from_provider(
        reply('{"type":"auth_invalid"}') + reply(b"\x0f\xa4", opcode=Opcode.CLOSE)
    )
    assert not messages.refused
