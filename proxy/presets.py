"""Presets: the YAML files that say how a provider authenticates, and what a route makes of one."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from . import filemodes
from .errors import ConfigError, Finding
from .routesettings import RouteSettings, Strip
from .spelling import Node
from .templates import parse_template
from .wording import advise, note_errors
from .yamlnodes import Document, read_yaml
from .yamlnodes import Path as Place

FILE_LIMIT_BYTES = 1024 * 1024
"""Largest configuration file: a thousand times a long one."""

_SHIPPED = Path(__file__).parent / "providers"
_ROUTE_ONLY = ("provider", "path", "listen")  # what says where a route is, not what a provider is
_M = TypeVar("_M", bound=Node)


@dataclass(frozen=True, slots=True)
class Preset:
    """A preset as it was read. ``settings`` has what could be used of it.

    ``broken`` names the fields that could not; they are not missed a second time.
    """

    document: Document
    settings: RouteSettings
    broken: frozenset[str]


def read_text(path: Path, *, ours: bool = False) -> str:
    """The text of a configuration file. ConfigError if there is none, or more than 1 MiB.

    Nor may other users be able to change it, unless it is ``ours``: it ships with keyrelay, and
    whoever can change that can change the code.
    """
    try:
        with path.open("rb") as file:
            fault = None
            if not ours:
                fault = filemodes.writable_by_others(str(path), os.fstat(file.fileno()))
            raw = file.read(FILE_LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise _refusal(path, "there is no such file", "name another file") from None
    except IsADirectoryError:
        raise _refusal(path, "this is a directory", "name a file in it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the name cannot be used"
        raise _refusal(path, f"the file cannot be read: {reason}", "check it") from None
    if len(raw) > FILE_LIMIT_BYTES:
        raise _refusal(path, "the file is larger than 1 MiB", "is it the right one?")
    if fault is not None:
        raise _refusal(path, fault[0], f"run: {fault[1]}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise ConfigError(
            [Finding(str(path), line, column, "this is not UTF-8", "save the file as UTF-8")]
        ) from None


def _refusal(path: Path, message: str, advice: str) -> ConfigError:
    return ConfigError([Finding(str(path), 0, 0, message, advice)])


def validated(
    document: Document, model: type[_M], data: Any, prefix: Place
) -> tuple[_M, frozenset[str]]:
    """As much of ``data`` as the model takes, and the fields that it does not.

    Everything else is noted in the document, so that one wrong value does not hide the next.
    """
    try:
        return model.model_validate(data), frozenset()
    except ValidationError as error:
        broken = note_errors(document, error, model, prefix)
    if not isinstance(data, dict) or not broken:
        return model(), frozenset(model.model_fields)
    rest = {key: value for key, value in data.items() if key not in broken}
    return model.model_validate(rest), frozenset(broken)


def read_preset(text: str, file: str) -> Preset:
    """Read one preset and check what it says by itself."""
    document = read_yaml(text, file)
    if document.data is None:
        if not document.findings:
            document.add((1, 1), "expected a mapping, got nothing", "write upstream: and auth:")
        return Preset(document, RouteSettings(), frozenset(RouteSettings.model_fields))
    settings, broken = validated(document, RouteSettings, document.data, ())
    for key in _ROUTE_ONLY:
        if (key,) in document.keys:
            document.add(
                document.keys[(key,)], f'"{key}" has no place in a preset', "write it at the route"
            )
    check_auth(document, (), settings, settings, broken)
    return Preset(document, settings, broken)


def check_auth(
    document: Document,
    prefix: Place,
    own: RouteSettings,
    merged: RouteSettings,
    broken: frozenset[str],
) -> None:
    """Note what is wrong between the strategies of ``own`` and the secrets of ``merged``."""
    seen: set[str] = set()
    for index, strategy in enumerate(own.auth):
        base: Place = (*prefix, "auth", index)
        if strategy.name in seen:
            document.add(
                document.place((*base, "name")),
                "another strategy has this name",
                "give each its own; journal and explain name them",
            )
        seen |= {strategy.name} if strategy.name else set()
        if "secrets" in broken:
            continue
        given = {"token"} if strategy.token else set[str]()
        for kind in ("http", "websocket"):
            for number, placement in enumerate(getattr(strategy, kind) or ()):
                for key, template in placement.templates.items():
                    place = _first(document, base, ((kind, number), (kind,), ()), key)
                    _check_names(document, place, template, merged, given)
        if strategy.token is not None:
            for key, template in strategy.token.templates.items():
                place = _first(document, base, (("token",),), key)
                _check_names(document, place, template, merged, strategy.token.given)


def _first(document: Document, base: Place, middles: Iterable[Place], key: Place) -> Place:
    """Where a template stands: in a list, as the one placement, or as the strategy itself."""
    for middle in middles:
        if (*base, *middle, *key) in document.values:
            return (*base, *middle, *key)
    return base


def _check_names(
    document: Document,
    place: Place,
    template: str,
    merged: RouteSettings,
    given: Set[str],
) -> None:
    """Note each name of a template that is neither a secret nor ``given``."""
    for name in sorted(parse_template(template).names - merged.secrets.keys() - given):
        document.add(
            document.place(place),
            f'"{{{name}}}" names no secret',
            advise(name, merged.secrets)
            if merged.secrets
            else f"add secrets: {{{name}: env:NAME}}",
        )


def merge(preset: RouteSettings | None, route: RouteSettings, name: str) -> RouteSettings:
    """The complete settings of the route ``name``: its preset's, overlaid with its own."""
    base = preset or RouteSettings()
    update: dict[str, Any] = {key: getattr(route, key) for key in route.model_fields_set}
    update["path"] = route.path or f"/{name}"
    update["secrets"] = {**base.secrets, **route.secrets}
    if route.deny:
        update["deny"] = tuple(dict.fromkeys(base.deny + route.deny))
    update["strip"] = Strip(
        headers=tuple(dict.fromkeys(base.strip.headers + route.strip.headers)),
        query=tuple(dict.fromkeys(base.strip.query + route.strip.query)),
        subprotocols=tuple(dict.fromkeys(base.strip.subprotocols + route.strip.subprotocols)),
    )
    return base.model_copy(update=update)


@functools.cache
def shipped() -> Mapping[str, Preset]:
    """The presets that come with keyrelay, by name. Read once. ConfigError if one is broken."""
    found = {
        path.stem: read_preset(read_text(path, ours=True), str(path))
        for path in sorted(_SHIPPED.glob("*.yaml"))
    }
    findings = [finding for preset in found.values() for finding in preset.document.findings]
    if findings:
        raise ConfigError(findings)
    return MappingProxyType(found)


def presets() -> Mapping[str, RouteSettings]:
    """The settings of every shipped preset, by the provider's name."""
    return MappingProxyType({name: preset.settings for name, preset in shipped().items()})
