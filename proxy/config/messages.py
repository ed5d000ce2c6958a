"""What a validator found, in the words of somebody who writes YAML, with its place in the file.

A message names keys and what was expected; it never repeats a value, which may be a secret.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from proxy.config.document import Document, Path, Position, display_key
from proxy.config.fields import Node
from proxy.config.placement import PLACEMENTS, TAG_PREFIX, BasicCredentials
from proxy.config.route import RouteSettings, StrategySettings, Strip
from proxy.config.secret import SecretSettings
from proxy.config.settings import AdminSettings, Browsers, Settings
from proxy.config.token import TAG_PREFIX as TOKEN_PREFIX
from proxy.config.token import TOKENS, Assertion
from proxy.secrets.reference import SOURCES

_EXPECTED = {
    "string_type": "a text",
    "bool_type": "true or false",
    "float_type": "a number",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list of texts",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
}


def suggest(word: str, known: Iterable[str], further: Iterable[str] = ()) -> str:
    """What was probably meant, or else what there is: the known words first, then further ones."""
    choices = sorted(known)
    choices += sorted(set(further).difference(choices))
    near = difflib.get_close_matches(word.lower(), choices, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known are: {', '.join(choices)}"


def collect_errors(
    document: Document, error: ValidationError, model: type[Node], prefix: Path
) -> set[str]:
    """Add what ``error`` says to the document's findings.

    ``prefix`` is where in the file the data of ``model`` begins. The answer is the names of the
    model's fields that cannot be used; it is empty if the whole cannot.
    """
    broken = set()
    for details in error.errors(include_url=False):
        location = details["loc"]
        if details["type"] == "too_short" and details["input"]:
            continue  # counts only items that were right; the wrong ones are reported themselves
        path, key = _locate(document, prefix, location)
        message, advice = _words(details, model, location)
        position = _position(document, path, details["type"], key=key)
        document.add(position, message, advice)
        if location:
            broken.add(str(location[0]))
    return broken


def _locate(document: Document, prefix: Path, location: Sequence[str | int]) -> tuple[Path, bool]:
    """The path in the file for a location in the models, and whether its key is meant.

    The models have steps that the file need not have (the one item of what may be a list, the kind
    of a placement): what the file does not have is passed over.
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


def _words(
    details: ErrorDetails, model: type[Node], location: Sequence[str | int]
) -> tuple[str, str]:
    """Message and advice for one error."""
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "value_error":
        message, _, advice = str(context["error"]).partition("\n")
        return message, advice
    if kind == "extra_forbidden":
        return _unknown_key(str(location[-1]), _vocabulary(model, location))
    if kind == "missing":
        return f'"{location[-1]}" is missing', f"add {location[-1]}: beside the others"
    if kind in {"union_tag_not_found", "union_tag_invalid"} and location[-1] == "token":
        return (
            "the token does not say of which type it is"
            if isinstance(value, dict)
            else f"expected a mapping, got {_kind(value)}",
            f"write type: and one of {', '.join(TOKENS)}",
        )
    if kind == "literal_error":
        return "this is none of the words that can stand here", f"write {context['expected']}"
    if kind in {"union_tag_not_found", "union_tag_invalid"}:
        return (
            "the placement does not say where the credential goes"
            if isinstance(value, dict)
            else f"expected a placement, got {_kind(value)}",
            'write {header: NAME, value: "{api_key}"}; or basic:, query:, path:, cookie:',
        )
    if kind == "too_short":
        return "expected at least one, got none", "add one, or leave the key out"
    if kind in _BOUNDS:
        bound, word = _BOUNDS[kind]
        advice = "the unit is seconds" if str(location[-1]).endswith("_seconds") else ""
        return f"expected {word} {context[bound]:g}, got another number", advice
    if kind == "string_type" and value is None and "origins" in location:
        return (
            "null would let pages in that nobody chose",
            "list the exact origin of your page, such as http://localhost:5173",
        )
    if kind in _EXPECTED:
        expected = _EXPECTED[kind]
        if kind == "tuple_type" and location and location[-1] == "auth":
            expected = "a list of strategies"
        advice = _how(kind, value, location)
        if model is Settings and not location:
            advice = "write routes: and a route, indented below it, such as hume: {provider: hume}"
        return f"expected {expected}, got {_kind(value)}", advice
    return "this cannot be used here", "see the description of the key in docs or in your editor"


def _how(kind: str, value: Any, location: Sequence[str | int]) -> str:
    if kind == "string_type" and isinstance(value, bool | int | float):
        if "listen" in location:
            return "write an address such as 127.0.0.1:8080"
        if location[-1] == "rate":
            return "write for example 60/minute; or second, hour, day"
        return "put it in quotes"
    if kind == "bool_type":
        return "write it without quotes"
    if kind == "float_type" and isinstance(value, str):
        return "write seconds as a bare number, such as 10 or 0.5"
    if kind == "tuple_type":
        return "write it as [one, two], or with - in front of each"
    if value is None:
        return "write something after the colon, or leave the key out"
    return ""


def _kind(value: Any) -> str:
    """What a value is, in words."""
    for kinds, word in (
        (type(None), "nothing"),
        (bool, "true or false"),
        ((int, float), "a number"),
        (str, "a text"),
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
            f'a placement goes to one place, so it has no "{key}" as well',
            "write two placements as a list",
        )
    return f"{display_key(key)} is not known here", suggest(key, known)


def _vocabulary(model: type[Node], location: Sequence[str | int]) -> set[str]:
    """The keys that could have stood where an unknown one was found."""
    names = [step for step in location[:-1] if isinstance(step, str)]
    if not names:
        return set(model.model_fields)
    if names[0] in {"secrets", "inbound_token"}:
        return ({*SOURCES} | set(SecretSettings.model_fields)) - {"builtin"}
    if model is Settings:
        return set((AdminSettings if names[0] == "admin" else Browsers).model_fields)
    assert model is RouteSettings
    if names[0] == "strip":
        return set(Strip.model_fields)
    if names[-1] == "basic":
        return set(BasicCredentials.model_fields)
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
