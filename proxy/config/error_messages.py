"""Translate pydantic's validation errors into findings with a position in the YAML.

A message names keys and what was expected; it never quotes a value, which may be a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from proxy.config import yaml_mistakes
from proxy.config.document import Document, Path, Position
from proxy.config.fields import Node
from proxy.config.route import RouteSettings
from proxy.config.settings import Settings
from proxy.config.token import TOKENS
from proxy.config.unknown_keys import unknown_key
from proxy.errors import ConfigValueError

_EXPECTED = {
    "string_type": "a string",
    "bool_type": "true or false",
    "float_type": "a number",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list of strings",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
}


def collect_errors(
    document: Document, error: ValidationError, model: type[Node], prefix: Path
) -> set[str]:
    """Add the findings of ``error`` to the document.

    ``prefix`` is the path in the file of the data of ``model``. Returns the names of the model's
    invalid fields; empty if the data is invalid as a whole.
    """
    broken = set()
    for details in error.errors(include_url=False):
        location = details["loc"]
        if details["type"] == "too_short" and details["input"]:
            continue  # pydantic counts valid items only; the invalid ones have their own errors
        path, key = _locate(document, prefix, location)
        message, advice = _message(details, model, location)
        position = _position(document, path, details["type"], key=key)
        document.add(position, message, advice)
        if location:
            broken.add(str(location[0]))
    return broken


def _locate(document: Document, prefix: Path, location: Sequence[str | int]) -> tuple[Path, bool]:
    """Return the path in the file of a location in the models, and whether it is a key.

    Locations have steps that the file lacks (the single item of what may be a list, the tag of a
    placement); these are skipped.
    """
    path = prefix
    for step in location:
        if step == "[key]":
            return path, True
        if (*path, step) in document.values:
            path = (*path, step)
    return path, False


def _position(document: Document, path: Path, kind: str, *, key: bool) -> Position:
    named = bool(path) and isinstance(path[-1], str)
    return document.position(path, key=key or (named and kind in {"extra_forbidden", "missing"}))


def _message(
    details: ErrorDetails, model: type[Node], location: Sequence[str | int]
) -> tuple[str, str]:
    """Return message and hint for one error."""
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "value_error":
        error = context["error"]
        hint = error.hint if isinstance(error, ConfigValueError) else ""
        return error.message if isinstance(error, ConfigValueError) else str(error), hint
    if kind == "extra_forbidden":
        return unknown_key(str(location[-1]), model, location)
    if kind == "missing":
        return f'"{location[-1]}" is missing', f"add {location[-1]}: beside the others"
    if kind in {"union_tag_not_found", "union_tag_invalid"}:
        return _no_tag(value, location)
    if kind == "literal_error":
        return _no_choice(value, str(context["expected"]))
    if kind == "too_short":
        return "expected at least one, got none", "add one, or leave the key out"
    if kind in _BOUNDS:
        bound, word = _BOUNDS[kind]
        advice = "the unit is seconds" if str(location[-1]).endswith("_seconds") else ""
        return f"expected {word} {context[bound]:g}, got another number", advice
    if kind == "string_type" and value is None and "origins" in location:
        return (
            "null would admit any sandboxed page",
            "list the exact origin of your page, such as http://localhost:5173",
        )
    if kind in {"int_type", "int_parsing"}:
        return f"expected a number, got {_kind(value)}", yaml_mistakes.of_unit(value, seconds=False)
    if kind in _EXPECTED:
        strategies = kind == "tuple_type" and location[-1:] == ("auth",)
        expected = "a list of strategies" if strategies else _EXPECTED[kind]
        advice = _example(model, value, location) or _hint(kind, value, location)
        return f"expected {expected}, got {_kind(value)}", advice
    return "invalid value", "see the description of the key in the docs or in your editor"


def _no_tag(value: Any, location: Sequence[str | int]) -> tuple[str, str]:
    """Return message and hint for a token without a type, or a placement without a target."""
    mapping = isinstance(value, dict)
    if location[-1] == "token":
        return (
            "the token has no type, or an unknown one"
            if mapping
            else f"expected a mapping, got {_kind(value)}",
            f"write type: and one of {', '.join(TOKENS)}",
        )
    return (
        "the placement has no target" if mapping else f"expected a placement, got {_kind(value)}",
        'write {header: NAME, value: "{api_key}"}; or basic:, query:, path:, cookie:, message:',
    )


def _no_choice(value: Any, expected: str) -> tuple[str, str]:
    """Return message and hint for a value that is none of the words in ``expected``."""
    if isinstance(value, bool):
        quoted = expected.replace("'", '"')
        return (
            "YAML reads off, no and yes without quotes as true or false",
            f"put it in quotes: {quoted}",
        )
    return "invalid value", f"write {expected}"


def _example(model: type[Node], value: Any, location: Sequence[str | int]) -> str:
    """Return an example of what is often written in another form, else an empty string."""
    if location[-1:] == ("browsers",):
        return "write browsers: {origins: [http://localhost:5173]}"
    if model is Settings and not location:
        return "write routes: and a route, indented below it, such as hume: {provider: hume}"
    if model is RouteSettings and not location and isinstance(value, str):
        return "write NAME: {provider: PRESET}, such as hume: {provider: hume}"
    return ""


def _hint(kind: str, value: Any, location: Sequence[str | int]) -> str:
    if kind == "string_type" and isinstance(value, dict) and location[-1] in {"value", "path"}:
        return 'a value with braces needs quotes, as value: "{key}"'
    if kind == "string_type" and isinstance(value, bool | int | float):
        if "listen" in location:
            return "write an address such as 127.0.0.1:8080"
        if location[-1] == "rate":
            return "write for example 60/minute; or second, hour, day"
        return "put it in quotes"
    if kind == "bool_type":
        return "write it without quotes"
    if kind == "float_type" and isinstance(value, str):
        unit = yaml_mistakes.of_unit(value, seconds=True)
        return unit or "write seconds as a bare number, such as 10 or 0.5"
    if kind == "tuple_type":
        return "write it as [one, two], or with - in front of each"
    if value is None:
        return "write a value after the colon, or leave the key out"
    return ""


def _kind(value: Any) -> str:
    """Return the type of a YAML value for a message."""
    for kinds, word in (
        (type(None), "nothing"),
        (bool, "true or false"),
        ((int, float), "a number"),
        (str, "a string"),
        ((list, tuple), "a list"),
        (dict, "a mapping"),
    ):
        if isinstance(value, kinds):
            return word
    return "something else"
