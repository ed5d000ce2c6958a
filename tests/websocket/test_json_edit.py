"""proxy.websocket.json_edit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.websocket.json_edit import (
    ANY,
    JsonEditError,
    Pointer,
    edit_members,
    matches,
    parse_json,
    parse_pointer,
)

SPACES = st.text(alphabet=" \t\r\n", max_size=3)
NAMES = st.text(max_size=4)
SCALARS = st.one_of(
    st.sampled_from(["1", "-0.50", "1E+2", "true", "false", "null", "12345678901234567890123"]),
    st.text(max_size=6).map(json.dumps),
    st.text(max_size=6).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from([r'"\u0041\/"', r'"\\"', r'"\"}"', '"]{"']),
)


Parts = tuple[str, str, str, str, str]


def set_member(text: str, pointer: str, value: str) -> str:
    return edit_members(text, members=[(parse_pointer(pointer), value)])


def without(text: str, *pointers: str) -> str:
    return edit_members(text, remove=map(parse_pointer, pointers))


@st.composite
def name_literals(draw: st.DrawFn, name: str) -> str:
    """A name, as one of the texts that mean it."""
    escaped = "".join(f"\\u{ord(one):04x}" if ord(one) < 0xD800 else one for one in name)
    return draw(
        st.sampled_from([json.dumps(name), json.dumps(name, ensure_ascii=False), f'"{escaped}"'])
    )


def _list(draw: st.DrawFn, values: list[str], brackets: str) -> str:
    parts = [draw(SPACES) + one + draw(SPACES) for one in values]
    inner = ",".join(parts) if parts else draw(SPACES)
    return brackets[0] + inner + brackets[1]


@st.composite
def json_texts(draw: st.DrawFn, depth: int = 2) -> str:
    """A JSON text in any spelling."""
    kind = draw(st.sampled_from(["scalar", "object", "array"])) if depth else "scalar"
    if kind == "scalar":
        return draw(SCALARS)
    size = draw(st.integers(0, 3))
    values = [draw(json_texts(depth - 1)) for _ in range(size)]
    if kind == "array":
        return _list(draw, values, "[]")
    names = draw(st.lists(NAMES, min_size=size, max_size=size, unique=True))
    members = [
        draw(name_literals(name)) + draw(SPACES) + ":" + draw(SPACES) + value
        for name, value in zip(names, values, strict=True)
    ]
    return _list(draw, members, "{}")


@st.composite
def objects_around(draw: st.DrawFn) -> Parts:
    """An object with one member "key" in it: before, its name, its value, and behind."""
    names = draw(st.lists(NAMES.filter(lambda name: name != "key"), max_size=4, unique=True))
    members = [
        draw(SPACES)
        + draw(name_literals(name))
        + draw(SPACES)
        + ":"
        + draw(SPACES)
        + draw(json_texts())
        + draw(SPACES)
        for name in names
    ]
    at = draw(st.integers(0, len(members)))
    before = draw(SPACES) + "{" + "".join(one + "," for one in members[:at]) + draw(SPACES)
    name = draw(name_literals("key")) + draw(SPACES) + ":" + draw(SPACES)
    value = draw(json_texts())
    behind = draw(SPACES) + "".join("," + one for one in members[at:]) + "}" + draw(SPACES)
    return before, name, value, behind, draw(SCALARS)


@given(objects_around())
def test_setting_a_member_replaces_its_value_alone(parts: Parts) -> None:
    """Every character but those of the member's value stays, whatever surrounds it."""
    before, name, value, behind, new = parts
    text = before + name + value + behind
    parse_json(text)
    assert set_member(text, "/key", new) == before + name + new + behind


@given(objects_around())
def test_removing_a_member_removes_it_and_one_comma(parts: Parts) -> None:
    """The rest is the same object without the member; what is removed is one piece."""
    before, name, value, behind, _ = parts
    text = before + name + value + behind
    rest = without(text, "/key")
    expected = parse_json(text)
    del expected["key"]
    assert parse_json(rest) == expected
    common = next((n for n, (a, b) in enumerate(zip(text, rest, strict=False)) if a != b), None)
    at = len(rest) if common is None else common
    removed = len(text) - len(rest)
    assert any(text[:n] + text[n + removed :] == rest for n in range(at + 1))


@given(json_texts(), st.lists(NAMES, min_size=1, max_size=3), SCALARS)
def test_a_member_that_is_missing_is_added(text: str, names: list[str], new: str) -> None:
    """Adding changes nothing but the member, at any depth; where it cannot be added, nothing."""
    pointer = "".join("/" + n.replace("~", "~0").replace("/", "~1") for n in names)
    try:
        edited = set_member(text, pointer, new)
    except JsonEditError:
        return
    found: Any = parse_json(edited)
    for name in names:
        found = found[int(name)] if isinstance(found, list) else found[name]
    assert found == parse_json(new)
    assert without(edited, "/" + "x" * 9) == edited


@given(json_texts())
def test_a_member_that_is_not_there_is_not_removed(text: str) -> None:
    """Removing what is missing changes nothing."""
    assert without(text, "/absent/one") == text


@pytest.mark.parametrize(
    ("text", "pointer", "result"),
    [
        ("{}", "/a", '{"a":1}'),
        ("{ }", "/a", '{"a":1 }'),
        ('{"b":2 }', "/a", '{"b":2,"a":1 }'),
        ('{"a":{}}', "/a/b", '{"a":{"b":1}}'),
        ("{}", "/a/b/c", '{"a":{"b":{"c":1}}}'),
        ('{"a":[0,{"b":9}]}', "/a/1/b", '{"a":[0,{"b":1}]}'),
        ('{"a/b":0,"~":{"c":0}}', "/a~1b", '{"a/b":1,"~":{"c":0}}'),
        ('{"a/b":0,"~":{"c":0}}', "/~0/c", '{"a/b":0,"~":{"c":1}}'),
        ('{"":0}', "/", '{"":1}'),
        (r'{"\u0061":"\"a\":7","b":"a"}', "/a", r'{"\u0061":1,"b":"a"}'),
    ],
)
def test_members_are_set(text: str, pointer: str, result: str) -> None:
    """At any depth, by any spelling of the name, and added at the end of the object."""
    assert set_member(text, pointer, "1") == result


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ("1", "/a"),
        ('"a"', "/a"),
        ('{"a":null}', "/a/b"),
        ('{"a":"b"}', "/a/b"),
        ("[]", "/0"),
        ("[1]", "/-"),
        ("[1]", "/01"),
        ("[1]", "/a"),
    ],
)
def test_a_pointer_that_leads_nowhere(text: str, pointer: str) -> None:
    """A credential is not added to an array, nor in place of a value that is no object."""
    with pytest.raises(JsonEditError):
        set_member(text, pointer, "1")


@pytest.mark.parametrize(
    ("text", "pointer", "result"),
    [
        ('{ "a" : 1 }', "/a", "{  }"),
        ('{ "a" : 1 , "b":2}', "/a", '{ "b":2}'),
        ('{"b":2 , "a" : 1 }', "/a", '{"b":2 }'),
        ('{"b":{"a":1,"c":2},"a":3}', "/b/a", '{"b":{"c":2},"a":3}'),
        ("[1,2,3]", "/1", "[1,3]"),
        ('"a"', "/a", '"a"'),
    ],
)
def test_members_are_removed(text: str, pointer: str, result: str) -> None:
    """With the comma that separated the member, and nothing else."""
    assert without(text, pointer) == result


@pytest.mark.parametrize(
    ("text", "remove", "members", "result"),
    [
        ('{"keys":["A","B"]}', ["/keys/0"], {"/keys/1": "1"}, '{"keys":[1]}'),
        ('{"keys":["A","B"]}', [], {"/keys/0": "1", "/keys/1": "2"}, '{"keys":[1,2]}'),
        ('{"keys":["A", "B" ,"C"]}', ["/keys/0", "/keys/1"], {}, '{"keys":["C"]}'),
        ('{"keys":["A","B"]}', ["/keys/0", "/keys/1"], {}, '{"keys":[]}'),
        ('[ "A" , "B" , "C" ]', ["/2", "/0"], {}, '[ "B" ]'),
        ('{"a":1,"b":2,"c":3}', ["/b", "/c"], {"/d": "4"}, '{"a":1,"d":4}'),
        ('{ "a":1 }', ["/a"], {"/b": "2"}, '{"b":2  }'),
        ('{"a":1}', ["/a"], {"/a": "2"}, '{"a":2}'),
        ('{"a":{"b":1,"c":2},"d":3}', ["/a"], {"/a/b": "4"}, '{"a":{"b":4},"d":3}'),
        ('["A","B"]', ["/0"], {"/0/b": "4"}, '[{"b":4},"B"]'),
        ('{"a":{"b":1,"c":2}}', ["/a/c"], {"/a/b": "4"}, '{"a":{"b":4}}'),
        ('{"a":{"b":1,"c":2}}', ["/a", "/a/c"], {}, "{}"),
        (
            '{"a":{}}',
            [],
            {"/a/b/c": "1", "/a/b/d": "2", "/e": "3"},
            '{"a":{"b":{"c":1,"d":2}},"e":3}',
        ),
        (' {"a":"A"} ', [], {"/a": "1"}, ' {"a":1} '),
    ],
)
def test_several_edits_address_the_text_as_it_was(
    text: str, remove: list[str], members: dict[str, str], result: str
) -> None:
    """What is removed shifts no other element, in whatever order the pointers are given."""
    pairs = [(parse_pointer(pointer), value) for pointer, value in members.items()]
    pointers = [parse_pointer(one) for one in remove]
    assert edit_members(text, remove=pointers, members=pairs) == result
    other_order = edit_members(text, remove=pointers[::-1], members=pairs[::-1])
    assert parse_json(other_order) == parse_json(result)


@given(json_texts(depth=3), st.data())
def test_removing_several_members_leaves_the_others(text: str, data: st.DataObject) -> None:
    """The result is what removing them from the parsed value gives; the rest stays as written."""
    value = parse_json(text)
    places = list(_places(value, ()))
    chosen = data.draw(st.lists(st.sampled_from(places), max_size=4)) if places else []
    pointers = [Pointer(tuple(map(str, one))) for one in chosen]
    edited = edit_members(text, remove=pointers)
    assert parse_json(edited) == _without(value, set(chosen), ())
    if not chosen:
        assert edited == text


Place = tuple[str | int, ...]


def _places(value: Any, base: Place) -> Iterator[Place]:
    """Every member of a value, at any depth."""
    if isinstance(value, dict | list):
        for name, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*base, name)
            yield from _places(one, (*base, name))


def _without(value: Any, gone: set[Place], base: Place) -> Any:
    if isinstance(value, dict):
        return {
            name: _without(one, gone, (*base, name))
            for name, one in value.items()
            if (*base, name) not in gone
        }
    if isinstance(value, list):
        return [
            _without(one, gone, (*base, index))
            for index, one in enumerate(value)
            if (*base, index) not in gone
        ]
    return value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{'a':1}",
        '{"a":1,}',
        "NaN",
        '{"a":Infinity}',
        '"\n"',
        "1 2",
        "\ufeff{}",
        "[" * 60_000,
    ],
)
def test_what_is_no_json_is_rejected(text: str) -> None:
    """Also what Python would accept, and what is nested too deeply to be parsed."""
    with pytest.raises(JsonEditError, match="no JSON"):
        parse_json(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}',
        r'[{"b":{"a":1,"\u0061":1}}]',
        r'{"/":1,"\/":2}',
        r'{"\ud83d\ude00":1,"😀":2}',
    ],
)
def test_two_members_of_one_name_are_rejected(text: str) -> None:
    """Parsers disagree on which of them counts."""
    with pytest.raises(JsonEditError, match="same name"):
        parse_json(text)


def test_a_number_of_many_digits_is_parsed_in_time() -> None:
    """Python refuses to convert it to an integer; as a member of a message it is valid."""
    assert parse_json("9" * 60_000) == float("inf")


@pytest.mark.parametrize(
    ("value", "expected", "result"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, True),
        ({"a": 2}, {"a": [1, 2]}, True),
        ({"a": 3}, {"a": [1, 2]}, False),
        ({"a": 2.0}, {"a": 2}, True),
        ({"a": True}, {"a": 1}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": None}, {"a": None}, True),
        ({}, {"a": None}, False),
        ({"a": None}, {"a": ANY}, True),
        ({}, {"a": ANY}, False),
        ([], {}, False),
        (None, {}, False),
    ],
)
def test_messages_are_recognised_by_members(value: Any, expected: Any, result: bool) -> None:
    """All expected members are there, with these values; lists mean one of them."""
    assert matches(value, expected) is result


@pytest.mark.parametrize("text", ["", "a", "a/b", "/a~", "/~2"])
def test_invalid_pointers(text: str) -> None:
    """The root is no member; a tilde is escaped."""
    with pytest.raises(ValueError, match="JSON pointer"):
        parse_pointer(text)


def test_a_pointer_prints_as_it_is_written() -> None:
    """With its escapes."""
    assert str(parse_pointer("/a~1b/~0")) == "/a~1b/~0"


@pytest.mark.parametrize("number", ["1e400", "-0.0E-5", "2e0", "0." + "0" * 60_000 + "1"])
def test_numbers_stay_as_they_are_written(number: str) -> None:
    """Also those that no floating-point number represents."""
    text = f'{{"n":{number},"key":"dummy"}}'
    parse_json(text)
    edited = edit_members(text, members=[(parse_pointer("/key"), '"new"')])
    assert edited == f'{{"n":{number},"key":"new"}}'
