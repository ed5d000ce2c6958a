"""The snippets of config/clients.yaml: what to write so that a package reaches its provider."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

_REGISTRIES = {"pypi": "Python", "npm": "Node"}
_FUNCTION = r"(async )?def "
_ENDS_WITH_FUNCTION = re.compile(rf"^{_FUNCTION}.*\n(\s.*\n)*\Z", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Snippet:
    """One program for one package.

    title  package, language, version and setting, in one line
    """

    title: str
    program: str


def snippets(preset: str) -> Iterator[Snippet]:
    """The programs that use the routes of ``preset``: a request and a WebSocket of each package."""
    text = (resources.files("proxy.config") / "clients.yaml").read_text(encoding="utf-8")
    # The C loader, where PyYAML has it, is ten times as fast. Both construct plain data only.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    for entry in loader.get_single_data():
        if preset in entry["routes"]:
            for call in _shown(entry["calls"]):
                language = _REGISTRIES[entry["registry"]]
                title = f"{entry['package']} {entry['version']}, {language}: {entry['setting']}"
                yield Snippet(title, join((entry.get("setup", ""), entry["routed"], call["write"])))


def join(parts: Iterable[str]) -> str:
    """A program of its parts, with one blank line between them, two beside a Python function."""
    text = ""
    for part in (part.strip("\n") for part in parts if part):
        apart = re.match(_FUNCTION, part) or _ENDS_WITH_FUNCTION.search(text)
        between = "" if not text else "\n\n" if apart else "\n"
        text += f"{between}{part}\n"
    return text


def _shown(calls: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first call, and the first of a WebSocket."""
    sockets = [call for call in calls.values() if str(call["sends"]).startswith("WS ")]
    first = next(iter(calls.values()))
    return [first, *(call for call in sockets[:1] if call is not first)]
