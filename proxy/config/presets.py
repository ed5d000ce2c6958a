"""Presets: YAML files with the settings of a provider, and merging them with a route."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from proxy.config.document import Document, read_yaml
from proxy.config.document import Path as Place
from proxy.config.error_messages import collect_errors
from proxy.config.fields import Node
from proxy.config.files import read_text
from proxy.config.route import RouteSettings, StrategySettings, Strip
from proxy.config.validation import check_auth
from proxy.errors import ConfigError

_SHIPPED = Path(__file__).parent.parent / "providers"
# Settings of a route, not of a provider.
_ROUTE_ONLY = ("provider", "path", "listen", "egress_proxy", "ca_file")
_M = TypeVar("_M", bound=Node)
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Preset:
    """A parsed preset. ``settings`` has its valid fields.

    ``broken`` names the invalid fields, which are not reported as missing again.
    """

    document: Document
    settings: RouteSettings
    broken: frozenset[str]


def validated(
    document: Document, model: type[_M], data: Any, prefix: Place
) -> tuple[_M, frozenset[str]]:
    """Validate ``data``: return a model of its valid fields, and the names of the invalid ones.

    Adds a finding for each error, so that one invalid value does not hide the next.
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
    """Read and check one preset. Findings are in its ``document``."""
    document = read_yaml(text, file)
    if document.data is None:
        if not document.findings:
            document.add((1, 1), "expected a mapping, got nothing", "write upstream: and auth:")
        return Preset(document, RouteSettings(), frozenset(RouteSettings.model_fields))
    settings, broken = validated(document, RouteSettings, document.data, ())
    for key in _ROUTE_ONLY:
        if (key,) in document.keys:
            document.add(
                document.keys[(key,)], f'"{key}" is not for presets', "move it to the route"
            )
    strategies = valid_strategies(settings, document.data, broken)
    for finding in check_auth(document, (), strategies, secret_names(document, (), settings)):
        document.add((finding.line, finding.column), finding.message, finding.advice)
    return Preset(document, settings, broken)


def valid_strategies(
    settings: RouteSettings, data: Any, broken: frozenset[str]
) -> dict[int, StrategySettings]:
    """Return the valid strategies of a route or preset by index, also if others are invalid."""
    if "auth" not in broken:
        return dict(enumerate(settings.auth))
    raw = data.get("auth") if isinstance(data, dict) else None
    valid: dict[int, StrategySettings] = {}
    for index, one in enumerate(raw if isinstance(raw, list) else ()):
        with suppress(ValidationError):
            valid[index] = StrategySettings.model_validate(one)
    return valid


def secret_names(document: Document, prefix: Place, settings: RouteSettings) -> frozenset[str]:
    """Return the names below ``secrets:`` of a route or preset, also those of invalid secrets."""
    parent = (*prefix, "secrets")
    written = {str(path[-1]) for path in document.keys if path[:-1] == parent}
    return frozenset(settings.secrets) | written


def merge(preset: RouteSettings | None, route: RouteSettings, name: str) -> RouteSettings:
    """Return the settings of the route ``name``: its preset's, overridden by its own."""
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
        messages=tuple(dict.fromkeys(base.strip.messages + route.strip.messages)),
    )
    return base.model_copy(update=update)


class ReadOnDemand(Mapping[str, _V]):
    """A mapping that computes each value once, on first access: a start needs few presets."""

    def __init__(self, names: Iterable[str], read: Callable[[str], _V]) -> None:
        self._names = dict.fromkeys(names)
        self._read = functools.cache(read)

    def __getitem__(self, name: str) -> _V:
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


def _read_shipped(name: str) -> Preset:
    path = _SHIPPED / f"{name}.yaml"
    preset = read_preset(read_text(path, ours=True), str(path))
    if preset.document.findings:
        raise ConfigError(preset.document.findings)
    return preset


@functools.cache
def shipped() -> Mapping[str, Preset]:
    """Return the presets that ship with keyrelay, by name. Each is read once, on access.

    Accessing an invalid one raises ConfigError.
    """
    return ReadOnDemand(sorted(path.stem for path in _SHIPPED.glob("*.yaml")), _read_shipped)


@functools.cache
def presets() -> Mapping[str, RouteSettings]:
    """Return the settings of every shipped preset, by the provider's name; see ``shipped``."""
    return ReadOnDemand(shipped(), lambda name: shipped()[name].settings)
