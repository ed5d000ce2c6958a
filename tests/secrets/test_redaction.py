"""What a provider sends back holds no form of the credential, however it is cut."""

from __future__ import annotations

import base64
import copy
import itertools
import json
import pickle
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.secrets.redaction import SHORTEST, Redactor, StreamRedactor

KEY = b"dummy-key/with+signs=~ and(\xc3\xa9)<&>'\""
PLAIN = b"dummy-key-0123456789"
USER = b"dummy-user:" + PLAIN


def lower_escapes(text: str) -> str:
    """`%2F` as `%2f`; what the test values hold is no escape itself."""
    parts = text.split("%")
    return "%".join([parts[0], *(part[:2].lower() + part[2:] for part in parts[1:])])


def cut(text: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


def streamed(redactor: Redactor, chunks: list[bytes]) -> bytes:
    stream = StreamRedactor(redactor)
    return b"".join([*map(stream.feed, chunks), stream.finish()])


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        quote(KEY).encode(),
        quote(KEY, safe="").encode(),
        quote_plus(KEY).encode(),
        lower_escapes(quote(KEY, safe="")).encode(),
        lower_escapes(quote_plus(KEY)).encode(),
        quote(KEY, safe="!'()*").encode(),  # encodeURIComponent
        quote_plus(KEY, safe="*").replace("~", "%7E").encode(),  # URLSearchParams
        json.dumps(KEY.decode())[1:-1].encode(),
        json.dumps(KEY.decode(), ensure_ascii=False)[1:-1].encode(),
        json.dumps(KEY.decode())[1:-1].replace("/", "\\/").encode(),  # PHP
        json.dumps(KEY.decode())[1:-1]
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
        .encode(),  # Go
        "".join(f"\\u{ord(one):04x}" for one in KEY.decode()).encode(),  # every character
        "".join(f"\\u{ord(one):04X}" for one in KEY.decode()).encode(),
        base64.b64encode(KEY),
        base64.b64encode(KEY).rstrip(b"="),
        base64.urlsafe_b64encode(KEY),
        quote(base64.b64encode(KEY), safe="").encode(),
        KEY.hex().encode(),
        KEY.hex().upper().encode(),
    ],
    ids=lambda form: form.decode(),
)
def test_each_form_is_masked(form: bytes) -> None:
    """A form in the middle of a text becomes as many stars, and the rest stays as it is."""
    masked = Redactor([KEY]).redact(b'{"seen": "' + form + b'"}\r\n')
    assert masked == b'{"seen": "' + b"*" * len(form) + b'"}\r\n'


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("before", [b"", b"a", b"ab", b"abc", b"Bearer ", b"user:"])
@pytest.mark.parametrize("after", [b"", b":", b"?>", b"xyz"])
def test_the_value_is_found_inside_base64(
    encode: Callable[[bytes], bytes], before: bytes, after: bytes
) -> None:
    """At every alignment only digits that a neighbour has a part in are left."""
    value = b"dummy\xfb\xff\xbe-value\xff\xff\xfe"
    digits = encode(before + value + after)
    masked = Redactor([value]).redact(b"[" + digits + b"]")
    assert len(masked) == len(digits) + 2
    stars = masked.strip(b"[]")
    # Of six bits each: those that the neighbours own wholly or in part.
    kept_before = -(-len(before) * 8 // 6)
    kept_after = len(digits) - (len(before + value) * 8 // 6)
    end = len(digits) - kept_after if after else len(digits)
    assert stars[:kept_before] == digits[:kept_before]
    assert set(stars[kept_before:end]) == set(b"*")
    if after:
        assert stars[end + 1 :] == digits[end + 1 :]


def test_a_basic_credential_is_masked_whole() -> None:
    """Given as a value of its own, the Basic form leaves nothing to see."""
    basic = base64.b64encode(USER)
    redactor = Redactor([PLAIN, basic])
    assert redactor.redact(b"Authorization: Basic " + basic) == (
        b"Authorization: Basic " + b"*" * len(basic)
    )
    quoted = quote(basic.decode(), safe="").encode()
    assert redactor.redact(quoted) == b"*" * len(quoted)


def test_every_occurrence_is_masked() -> None:
    """Several values, several times, side by side and overlapping."""
    redactor = Redactor([b"dummy-one", b"one-dummy-two", b"ababab"])
    assert redactor.redact(b"dummy-onedummy-one") == b"*" * 18
    assert redactor.redact(b"dummy-one-dummy-two!") == b"*" * 19 + b"!"
    assert redactor.redact(b"xabababababx") == b"x" + b"*" * 10 + b"x"


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\n\r\n", PLAIN[:-1], PLAIN[1:] * 3])
def test_nothing_found_gives_the_same_object(data: bytes) -> None:
    """What holds no occurrence is not even copied."""
    assert Redactor([PLAIN]).redact(data) is data
    assert Redactor([]).redact(data) is data


def test_short_values_are_left_alone() -> None:
    """A value that ordinary text is full of is not masked, and the masker says that it is idle."""
    short = b"x" * (SHORTEST - 1)
    idle = Redactor([short, b""])
    assert not idle
    assert idle.longest == 0
    assert idle.redact(b"-" + short + b"-") == b"-" + short + b"-"
    assert Redactor([short + b"x"]).redact(b"-xxxxxx-") == b"-******-"


@pytest.mark.parametrize("value", [b"\xff\xfe\xfd\xfc\xfb\xfa", b"\0\n\r\t\x1b\x7f", b"++//==++//"])
def test_values_that_are_no_text_are_masked(value: bytes) -> None:
    """Bytes that no coding leaves as they are have their forms as well."""
    redactor = Redactor([value])
    for form in (value, quote(value, safe="").encode(), base64.b64encode(b"a:" + value)[3:]):
        masked = redactor.redact(b"<" + form + b">")
        assert len(masked) == len(form) + 2
        assert masked.count(b"*") >= len(form) - 1


def test_longest_is_the_length_of_the_longest_form() -> None:
    """Six bytes for each of the value: all of it as escapes of JSON."""
    redactor = Redactor([2 * PLAIN])
    assert redactor
    assert redactor.longest == 6 * 2 * len(PLAIN)


# Values that overlap themselves and each other, and what gets close to them.
OVERLAPPING = [b"ababab", b"babaXa", b"Xababa/+=", b"dummy-key", b"keydummy-"]
PIECES = [
    *OVERLAPPING,
    *(base64.b64encode(b"u:" + value) for value in OVERLAPPING),
    *(quote(value, safe="").encode() for value in OVERLAPPING),
    *(value.hex().encode() for value in OVERLAPPING),
    *(value[:size] for value in OVERLAPPING for size in range(1, len(value))),
    b"\n",
    b" ",
]
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=3))).map(b"".join)
PLACES = st.lists(st.integers(min_value=0, max_value=10_000), max_size=30)


@given(text=TEXTS, places=PLACES)
def test_chunks_make_no_difference(text: bytes, places: list[int]) -> None:
    """However a text is cut, what comes out is the whole text masked."""
    redactor = Redactor(OVERLAPPING)
    assert streamed(redactor, cut(text, places)) == redactor.redact(text)


@given(
    values=st.lists(st.binary(min_size=6, max_size=12), min_size=1, max_size=3),
    parts=st.lists(st.one_of(st.integers(0, 2), st.binary(max_size=4)), max_size=12),
    places=PLACES,
)
def test_any_values_are_masked_in_any_chunks(
    values: list[bytes], parts: list[int | bytes], places: list[int]
) -> None:
    """With arbitrary values too: chunks make no difference, and lengths and other bytes stay."""
    text = b"".join(
        part if isinstance(part, bytes) else values[part % len(values)] for part in parts
    )
    redactor = Redactor(values)
    masked = redactor.redact(text)
    assert streamed(redactor, cut(text, places)) == masked
    assert len(masked) == len(text)
    assert all(new in (old, ord("*")) for old, new in zip(text, masked, strict=True))
    covered = bytearray(len(text))
    for value in values:
        at = text.find(value)
        while at >= 0:
            covered[at : at + len(value)] = b"\1" * len(value)
            at = text.find(value, at + 1)
    assert all(new == ord("*") for new, hit in zip(masked, covered, strict=True) if hit)


@given(text=TEXTS, places=PLACES)
def test_little_is_kept_back(text: bytes, places: list[int]) -> None:
    """Never more than may begin an occurrence; an end that begins none is never waited with."""
    redactor = Redactor(OVERLAPPING)
    stream = StreamRedactor(redactor)
    came = left = 0
    for chunk in cut(text, places):
        came += len(chunk)
        left += len(stream.feed(chunk))
        assert 0 <= came - left < redactor.longest
        # What is kept is the beginning of a form, so it has none inside that is done with.
        assert redactor.pending(text[left:came]) == 0 or left == came
    left += len(stream.feed(b"\n\n"))
    assert left == came + 2


def test_events_leave_at_once() -> None:
    """An event of a stream that holds nothing suspicious goes out as the very object that came."""
    stream = StreamRedactor(Redactor([PLAIN, USER]))
    for number in range(3):
        event = b'data: {"delta": "d%d"}\n\n' % number
        assert stream.feed(event) is event
    assert stream.finish() == b""


def test_a_beginning_that_comes_to_nothing_is_let_go() -> None:
    """What was kept leaves unchanged with the byte that clears it, or at the end."""
    stream = StreamRedactor(Redactor([PLAIN]))
    assert stream.feed(b"x" + PLAIN[:-1]) == b"x"
    assert stream.feed(b"!") == PLAIN[:-1] + b"!"
    assert stream.feed(PLAIN[:-1]) == b""
    assert stream.finish() == PLAIN[:-1]
    assert stream.finish() == b""


@pytest.mark.parametrize("form", [PLAIN, PLAIN.hex().encode(), base64.b64encode(PLAIN)])
def test_every_cut_of_a_form_is_mended(form: bytes) -> None:
    """Wherever the border falls, even next to the end of the longest form, all of it is masked."""
    for at in range(len(form) + 1):
        stream = StreamRedactor(Redactor([PLAIN]))
        assert stream.feed(b"<" + form[:at]) == b"<" + (b"*" * at if at == len(form) else b"")
        assert stream.feed(form[at:] + b">") == b"*" * (len(form) if at < len(form) else 0) + b">"


def test_one_byte_at_a_time() -> None:
    """The worst of cuts hides nothing."""
    text = b"a " + PLAIN + b" b " + base64.b64encode(b"user:" + PLAIN) + b" c"
    redactor = Redactor([PLAIN])
    chunks = [text[at : at + 1] for at in range(len(text))]
    assert streamed(redactor, chunks) == redactor.redact(text)
    assert PLAIN not in redactor.redact(text)


@pytest.mark.parametrize(
    "shown", [repr, str, lambda one: f"{one} {one!r}", lambda one: json.dumps(one, default=str)]
)
def test_printing_shows_no_value(shown: Callable[[object], str]) -> None:
    """T37: neither a masker nor a stream that is in the middle of a value shows any of it."""
    redactor = Redactor([PLAIN])
    stream = StreamRedactor(redactor)
    stream.feed(PLAIN[:-1])
    for text in (shown(redactor), shown(stream)):
        assert "dummy" not in text
        assert PLAIN.hex()[:8] not in text


@pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, copy.deepcopy, vars, json.dumps])
def test_maskers_are_not_copied(leak: Callable[[object], object]) -> None:
    """T40: no way to a disk."""
    redactor = Redactor([PLAIN])
    for one in (redactor, StreamRedactor(redactor)):
        with pytest.raises(TypeError) as caught:
            leak(one)
        assert "dummy" not in str(caught.value)
