"""Set and remove single members of a JSON text; every other character stays as it is written.

The text is edited, not parsed and serialised again: order, spacing, numbers and escapes of the
other members are preserved. Pure, without I/O. Time and memory are linear in the size of the text.
No error contains a part of the text, which may hold a credential.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeAlias

Json: TypeAlias = Any
"""A parsed JSON value."""

ANY: Final = object()
"""Expected value that matches every value."""

_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_SPACE = re.compile(r"[ \t\n\r]*")
_NAME = re.compile(_STRING)
_SCALAR = re.compile(rf"{_STRING}|[^ \t\n\r,\]}}]+")
# Strings are matched whole, because they may contain brackets.
_STRUCTURE = re.compile(rf"{_STRING}|(?P<opens>[\[{{])|(?P<closes>[\]}}])")
# An integer of more digits is compared as a floating-point number: conversion takes quadratic time.
_MOST_DIGITS = 20


class JsonEditError(ValueError):
    """The text is no JSON, is ambiguous, or has no place for the member."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """A JSON pointer (RFC 6901) to a member below the root."""

    tokens: tuple[str, ...]

    def __str__(self) -> str:
        return "".join("/" + one.replace("~", "~0").replace("/", "~1") for one in self.tokens)


def parse_pointer(text: str) -> Pointer:
    """Parse a JSON pointer. Raises ValueError for an invalid one, and for that of the root."""
    if not text.startswith("/") or re.search(r"~(?![01])", text):
        raise ValueError("not a JSON pointer (RFC 6901)")
    tokens = text[1:].split("/")
    return Pointer(tuple(one.replace("~1", "/").replace("~0", "~") for one in tokens))


def parse_json(text: str) -> Json:
    """Parse a message (RFC 8259). Raises JsonEditError.

    An object with two members of the same name is rejected: which of them counts depends on the
    parser, so that a member could be checked here and another one be read by the provider.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_constant=_constant,
        )
    except JsonEditError:
        raise
    except (ValueError, RecursionError):
        raise JsonEditError("the message is no JSON") from None


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise JsonEditError("the message has two members of the same name")
    return members


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def _constant(_name: str) -> NoReturn:
    raise JsonEditError("the message is no JSON")


def matches(value: Json, expected: Json) -> bool:
    """Return whether a value has all expected members, at any depth.

    A list of expected values means one of them. Numbers are equal by value; ``true`` is not 1.
    """
    if expected is ANY:
        return True
    if isinstance(expected, Mapping):
        return isinstance(value, dict) and all(
            name in value and matches(value[name], one) for name, one in expected.items()
        )
    if isinstance(expected, list | tuple):
        return any(matches(value, one) for one in expected)
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    return bool(value == expected)


def set_member(text: str, pointer: Pointer, value: str) -> str:
    """Return the text with the member replaced or added. ``value`` is a JSON text.

    Objects that are missing on the way are added too; elements of arrays are only replaced.
    ``text`` is one that ``parse_json`` accepts. Raises JsonEditError if the pointer leads through
    another value than an object or array.
    """
    at = _skip(text, 0)
    for depth, token in enumerate(pointer.tokens, 1):
        last = depth == len(pointer.tokens)
        members = list(_members(text, at))
        found = _find(text, at, members, token)
        if found is None:
            for one in reversed(pointer.tokens[depth:]):
                value = f"{{{json.dumps(one)}:{value}}}"
            comma, end = (",", members[-1].end) if members else ("", at + 1)
            return f"{text[:end]}{comma}{json.dumps(token)}:{value}{text[end:]}"
        if last:
            return text[: found.value] + value + text[found.end :]
        at = found.value
    raise AssertionError("a pointer has at least one token")


def remove_member(text: str, pointer: Pointer) -> str:
    """Return the text without the member and its comma; unchanged if there is no such member.

    ``text`` is one that ``parse_json`` accepts.
    """
    at = _skip(text, 0)
    for depth, token in enumerate(pointer.tokens, 1):
        if text[at] not in "{[":
            return text
        members = list(_members(text, at))
        position = next((n for n, one in enumerate(members) if one.name == token), None)
        if position is None:
            return text
        found = members[position]
        if depth < len(pointer.tokens):
            at = found.value
        elif position:
            return text[: members[position - 1].end] + text[found.end :]
        elif len(members) > 1:
            return text[: found.start] + text[members[1].start :]
        else:
            return text[: found.start] + text[found.end :]
    return text


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of an object, or an element of an array under its index.

    start  position of its name, or of an element's value
    value  position of its value
    end    position behind its value
    """

    name: str
    start: int
    value: int
    end: int


def _find(text: str, at: int, members: list[_Member], token: str) -> _Member | None:
    """Return the member of the container at ``at``; None if it can be added. Raises otherwise."""
    if text[at] not in "{[":
        raise JsonEditError("a value on the way to the member is no object")
    found = next((one for one in members if one.name == token), None)
    if found is None and text[at] == "[":
        raise JsonEditError("an array on the way to the member has no such element")
    return found


def _members(text: str, at: int) -> Iterator[_Member]:
    """Yield the members of the object or array at ``at``; nothing for another value."""
    if text[at] not in "{[":
        return
    is_object = text[at] == "{"
    at, index = _skip(text, at + 1), 0
    while text[at] not in "]}":
        start, name = at, str(index)
        if is_object:
            literal = _NAME.match(text, at)
            assert literal is not None, "parse_json has accepted the text"
            name = json.loads(literal[0])
            at = _skip(text, _skip(text, literal.end()) + 1)
        end = _value_end(text, at)
        yield _Member(name, start, at, end)
        at, index = _skip(text, end), index + 1
        if text[at] == ",":
            at = _skip(text, at + 1)


def _value_end(text: str, at: int) -> int:
    if text[at] not in "{[":
        scalar = _SCALAR.match(text, at)
        assert scalar is not None, "parse_json has accepted the text"
        return scalar.end()
    depth = 0
    for found in _STRUCTURE.finditer(text, at):
        depth += bool(found["opens"]) - bool(found["closes"])
        if not depth:
            return found.end()
    raise AssertionError("parse_json has accepted the text")


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    assert space is not None
    return space.end()
