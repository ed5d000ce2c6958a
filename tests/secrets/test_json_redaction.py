"""proxy.secrets.json_redaction: credentials in JSON strings, however they are escaped."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.secrets.json_redaction import redact_json
from proxy.secrets.redaction import Redactor

SECRET = 'dummy-kéy/😀"1\\x'
REDACTOR = Redactor([SECRET.encode()])
SHORT = {'"': '\\"', "\\": "\\\\", "/": "\\/"}


def spelled(character: str, choice: int) -> str:
    """One of the spellings of a character in a JSON string."""
    units = character.encode("utf-16-be").hex(" ", 2).split()
    escaped = "".join(f"\\u{one.upper() if choice == 2 else one}" for one in units)
    plain = SHORT.get(character, character)
    return [plain, escaped, escaped, plain if character != "/" else "/"][choice]


@given(
    st.text(max_size=8),
    st.lists(st.integers(0, 3), min_size=len(SECRET), max_size=len(SECRET)),
    st.text(max_size=8),
)
def test_no_spelling_is_left(before: str, choices: list[int], behind: str) -> None:
    """A parser of the redacted text finds no credential; its length and the rest stay."""
    middle = "".join(map(spelled, SECRET, choices))
    ends = [json.dumps(one)[1:-1] for one in (before, behind)]
    data = f'{{"error":"{ends[0]}{middle}{ends[1]}"}}'.encode()
    assert SECRET in json.loads(data)["error"]
    redacted = redact_json(REDACTOR, data)
    stars = "*" * len(middle.encode())
    assert redacted == f'{{"error":"{ends[0]}{stars}{ends[1]}"}}'.encode()


@pytest.mark.parametrize(
    "text",
    [
        r'{"path":"C:\\dummy\\u0041","name":"\ud800\udc00 \ud800 \udc00"}',
        r"\u00 \x41 \ ",
        "",
        '{"a":1}',
        "\\",
    ],
)
def test_other_text_stays(text: str) -> None:
    """Whatever it escapes, and whether it is JSON or not."""
    assert redact_json(REDACTOR, text.encode()) == text.encode()
    assert redact_json(Redactor(()), text.encode()) == text.encode()


def test_a_backslash_is_no_beginning_of_an_escape_behind_another() -> None:
    r"""``\\u0064`` is a backslash and letters: the value is not in this text."""
    data = rb'{"error":"\\u0064ummy-real-key"}'
    assert redact_json(Redactor([b"dummy-real-key"]), data) == data


def test_two_occurrences() -> None:
    """One that is escaped in part and one that is not, in a name and in a value."""
    data = rb'{"dummy\u002dreal-key":"\u0064ummy-real-key dummy-real-key"}'
    redacted = redact_json(Redactor([b"dummy-real-key"]), data)
    assert redacted == b'{"' + b"*" * 19 + b'":"' + b"*" * 19 + b" " + b"*" * 14 + b'"}'
