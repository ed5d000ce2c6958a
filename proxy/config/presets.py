"""Presets: the YAML files that say how a provider authenticates, and what a route makes of one."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ValidationError

from proxy.config.document import Document, read_yaml
from proxy.config.document import Path as Place
from proxy.config.fields import Node
from proxy.config.files import read_text
from proxy.config.messages import collect_errors
from proxy.config.route import RouteSettings, Strip
from proxy.config.validation import check_auth
from proxy.errors import ConfigError

_SHIPPED = Path(__file__).parent.parent / "providers"
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


def validated(
    document: Document, model: type[_M], data: Any, prefix: Place
) -> tuple[_M, frozenset[str]]:
    """As much of ``data`` as the model takes, and the fields that it does not.

    Everything else is noted in the document, so that one wrong value does not hide the next.
    """
    try:
        return model.model_validate(data), frozenset()
    except ValidationError as error:
        broken = collect_errors(document, error, model, prefix)
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


def merge(preset: RouteSettings | None, route: RouteSettings, name: str) -> RouteSettings:
    """The complete settings of the route ``name``: its preset's, overlaid with its own."""
    base = preset or RouteSettings()
    update: dict[str, Any] = {key: getattr(route, key) for key in route.model_fields_set}
    update["path"] = route.path or f"/{name}"
    update["secrets"] = {**base.secrets, **route.secrets}
    if route.deny:
        update["deny"] = tuple(dict.fromkeys(base.deny + route.deny))
    update["withhold"] = tuple(dict.fromkeys(base.withhold + route.withhold))
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
