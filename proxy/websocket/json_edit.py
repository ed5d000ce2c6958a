"""Set and remove single members of a JSON text; every other character stays as it is written.

The text is edited, not parsed and serialised again: order, spacing, numbers and escapes of the
other members are preserved. Pure, without I/O. Time and memory are linear in the size of the text.
No error contains a part of the text, which may hold a credential.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
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


def edit_members(
    text: str, *, remove: Iterable[Pointer] = (), members: Iterable[tuple[Pointer, str]] = ()
) -> str:
    """Return the text without some members, and with others replaced or added.

    remove   members, each of which goes with its comma; those that are missing are ignored
    members  each with the JSON text of its new value; objects that are missing on the way are
             added too, elements of arrays are only replaced

    All pointers address the text as it is given: an element of an array has the same index whatever
    else is removed. A member that is both removed and set, or contains one that is set, has only
    what is set. ``text`` is one that ``parse_json`` accepts. Raises JsonEditError if a pointer of
    ``members`` leads through another value than an object or array.
    """
    root = _Edit()
    for pointer in remove:
        root.below(pointer).removed = True
    for pointer, value in members:
        root.below(pointer).value = value
    at = _skip(text, 0)
    end = _value_end(text, at)
    return text[:at] + _edited(text, at, end, root) + text[end:]


@dataclass(slots=True)
class _Edit:
    """What becomes of a value: it is removed, replaced by ``value``, or edited inside."""

    removed: bool = False
    value: str | None = None
    inside: dict[str, _Edit] = field(default_factory=dict)

    def below(self, pointer: Pointer) -> _Edit:
        """Return the edit at a pointer below this one, which is added if it is missing."""
        edit = self
        for token in pointer.tokens:
            edit = edit.inside.setdefault(token, _Edit())
        return edit

    @property
    def sets(self) -> bool:
        """Whether a value is set here or inside."""
        return self.value is not None or any(one.sets for one in self.inside.values())

    def new_value(self) -> str:
        """Return the JSON text of what is set, without anything of the original."""
        if self.value is not None:
            return self.value
        return "{" + ",".join(self.new_members()) + "}"

    def new_members(self) -> Iterator[str]:
        for name, one in self.inside.items():
            if one.sets:
                yield f"{json.dumps(name)}:{one.new_value()}"


def _edited(text: str, at: int, end: int, edit: _Edit) -> str:
    """Return the text of the value from ``at`` to ``end`` after the edits inside it."""
    if text[at] not in "{[":
        if edit.sets:
            raise JsonEditError("a value on the way to the member is no object")
        return text[at:end]
    members = list(_members(text, at))
    missing = _Edit(inside=dict(edit.inside))
    result, kept = "", False
    for position, member in enumerate(members):
        one = missing.inside.pop(member.name, _Edit())
        if one.removed and not one.sets:
            continue
        # With the comma and spaces between it and the member that precedes it in the original.
        result += (
            text[members[position - 1].end : member.value]
            if kept
            else text[member.start : member.value]
        )
        kept = True
        whole = one.value is not None or one.removed
        result += one.new_value() if whole else _edited(text, member.value, member.end, one)
    if text[at] == "[" and missing.sets:
        raise JsonEditError("an array on the way to the member has no such element")
    before = text[at : members[0].start] if members else text[at : at + 1]
    behind = text[members[-1].end if members else at + 1 : end]
    added = ",".join(missing.new_members())
    if not kept:
        return before[:1] + added + before[1:] + behind
    return before + result + ("," + added if added else "") + behind


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
