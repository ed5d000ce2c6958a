"""Translate pydantic's validation errors into findings with a position in the YAML.

A message names keys and what was expected; it never quotes a value, which may be a secret.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from proxy.config import yaml_mistakes
from proxy.config.document import Document, Path, Position, display_key
from proxy.config.egress import EgressProxySettings
from proxy.config.fields import Node
from proxy.config.message_placement import MessageRefused, MessageSettings
from proxy.config.placement import PLACEMENTS, TAG_PREFIX, BasicCredentials
from proxy.config.route import RouteSettings, StrategySettings, Strip
from proxy.config.secret import SecretSettings
from proxy.config.settings import AdminSettings, Browsers, Settings
from proxy.config.token import TAG_PREFIX as TOKEN_PREFIX
from proxy.config.token import TOKENS, Assertion
from proxy.errors import ConfigValueError
from proxy.secrets.reference import SOURCES

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
# Similarity from which a word is a mistyped key, and a mistyped part of a key (0 to 1).
_SIMILAR = 0.6
_SIMILAR_PART = 0.8
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
}


def suggest(word: str, known: Iterable[str], further: Iterable[str] = ()) -> str:
    """Return the known word nearest to ``word``, else a list: ``known`` first, then ``further``."""
    choices = sorted(known)
    choices += sorted(set(further).difference(choices))
    lowered = word.lower()
    near = difflib.get_close_matches(lowered, choices, n=1, cutoff=_SIMILAR)
    best = _similarity(lowered, near[0]) if near else 0.0
    partial = {choice: _partial_similarity(lowered, choice) for choice in choices}
    top = max(partial.values(), default=0.0)
    if top >= _SIMILAR_PART and top > best:
        near = [choice for choice in choices if partial[choice] == top]
    if near:
        quoted = " or ".join(f'"{choice}"' for choice in near)
        return f"did you mean {quoted}?"
    return f"known are: {', '.join(choices)}"


def _similarity(word: str, choice: str) -> float:
    return difflib.SequenceMatcher(None, choice, word).ratio()


def _partial_similarity(word: str, choice: str) -> float:
    """Return the similarity to the most similar part of a choice, as in connect_TIMEOUT_seconds."""
    steps = choice.split("_")
    ends = range(1, len(steps) + 1)
    parts = {"_".join(steps[start:end]) for end in ends for start in range(end)} - {choice}
    return max((_similarity(word, part) for part in parts), default=0.0)


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
        return _unknown_key(str(location[-1]), _vocabulary(model, location))
    if kind == "missing":
        return f'"{location[-1]}" is missing', f"add {location[-1]}: beside the others"
    if kind in {"union_tag_not_found", "union_tag_invalid"} and location[-1] == "token":
        return (
            "the token has no type, or an unknown one"
            if isinstance(value, dict)
            else f"expected a mapping, got {_kind(value)}",
            f"write type: and one of {', '.join(TOKENS)}",
        )
    if kind == "literal_error" and isinstance(value, bool):
        expected = str(context["expected"]).replace("'", '"')
        return (
            "YAML reads off, no and yes without quotes as true or false",
            f"put it in quotes: {expected}",
        )
    if kind == "literal_error":
        return "invalid value", f"write {context['expected']}"
    if kind in {"union_tag_not_found", "union_tag_invalid"}:
        return (
            "the placement has no target"
            if isinstance(value, dict)
            else f"expected a placement, got {_kind(value)}",
            'write {header: NAME, value: "{api_key}"}; or basic:, query:, path:, cookie:, message:',
        )
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
        expected = _EXPECTED[kind]
        if kind == "tuple_type" and location and location[-1] == "auth":
            expected = "a list of strategies"
        advice = _hint(kind, value, location)
        if model is RouteSettings and not location and isinstance(value, str):
            advice = "write NAME: {provider: PRESET}, such as hume: {provider: hume}"
        if location[-1:] == ("browsers",):
            advice = "write browsers: {origins: [http://localhost:5173]}"
        if model is Settings and not location:
            advice = "write routes: and a route, indented below it, such as hume: {provider: hume}"
        return f"expected {expected}, got {_kind(value)}", advice
    return "invalid value", "see the description of the key in the docs or in your editor"


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


def _unknown_key(key: str, known: set[str]) -> tuple[str, str]:
    if key in PLACEMENTS and known >= PLACEMENTS.keys():
        if "http" in known:
            return (
                f'a strategy with http: or websocket: has no "{key}" beside them',
                "move it below http: or websocket:, or remove those",
            )
        return (
            f'a placement has one target, so it cannot have "{key}" as well',
            "write two placements as a list",
        )
    return f"unknown key {display_key(key)}", yaml_mistakes.of_key(key) or suggest(key, known)


def _vocabulary(model: type[Node], location: Sequence[str | int]) -> set[str]:
    """Return the valid keys at the location of an unknown one."""
    names = [step for step in location[:-1] if isinstance(step, str)]
    if not names:
        return set(model.model_fields)
    in_proxy = names[0] == "egress_proxy"
    if names[0] in {"secrets", "inbound_token"} or (in_proxy and "password" in names):
        return ({*SOURCES} | set(SecretSettings.model_fields)) - {"builtin"}
    if in_proxy:
        return set(EgressProxySettings.model_fields)
    if model is Settings:
        return set((AdminSettings if names[0] == "admin" else Browsers).model_fields)
    assert model is RouteSettings
    if names[0] == "strip":
        return set(Strip.model_fields)
    if names[-1] == "basic":
        return set(BasicCredentials.model_fields)
    if "message" in names:
        refused = names[-1] == "refused"
        return set((MessageRefused if refused else MessageSettings).model_fields)
    if names[-1].startswith(TAG_PREFIX):
        kind = PLACEMENTS[names[-1].removeprefix(TAG_PREFIX)]
        return set(kind.model_fields) | PLACEMENTS.keys()
    kinds = [name for name in names if name.startswith(TOKEN_PREFIX)]
    if kinds:
        if names[-1] == "assertion":
            return set(Assertion.model_fields)
        kind_fields = TOKENS[kinds[-1].removeprefix(TOKEN_PREFIX)].model_fields
        return {field.alias or name for name, field in kind_fields.items()}
    return set(StrategySettings.model_fields) | PLACEMENTS.keys()
