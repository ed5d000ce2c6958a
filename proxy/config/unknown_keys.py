"""Advice on an unknown key: the key that is probably meant, or the keys that are valid there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from proxy.config import yaml_mistakes
from proxy.config.document import display_key
from proxy.config.egress import EgressProxySettings
from proxy.config.fields import Node
from proxy.config.message_placement import MessageRefused, MessageSettings
from proxy.config.placement import PLACEMENTS, TAG_PREFIX, BasicCredentials
from proxy.config.route import RouteSettings, StrategySettings, Strip
from proxy.config.secret import SecretSettings
from proxy.config.settings import AdminSettings, Browsers, Settings
from proxy.config.token import TAG_PREFIX as TOKEN_PREFIX
from proxy.config.token import TOKENS, Assertion
from proxy.config.token_sharing import TokenSharing
from proxy.secrets.reference import SOURCES

# Similarity from which a word is a mistyped key, and a mistyped part of a key (0 to 1).
_SIMILAR = 0.6
_SIMILAR_PART = 0.8


def unknown_key(key: str, model: type[Node], location: Sequence[str | int]) -> tuple[str, str]:
    """Return message and hint for a key that ``model`` does not have at ``location``."""
    known = _vocabulary(model, location)
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


def _vocabulary(model: type[Node], location: Sequence[str | int]) -> set[str]:
    """Return the valid keys at the location of an unknown one."""
    names = [step for step in location[:-1] if isinstance(step, str)]
    if not names:
        return set(model.model_fields)
    in_proxy = names[0] == "egress_proxy"
    in_tokens = names[0] == "tokens"
    secret = (in_proxy or in_tokens) and not {"password", "key"}.isdisjoint(names)
    if names[0] in {"secrets", "inbound_token"} or secret:
        return ({*SOURCES} | set(SecretSettings.model_fields)) - {"builtin"}
    if in_proxy:
        return set(EgressProxySettings.model_fields)
    if in_tokens:
        return set(TokenSharing.model_fields)
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
