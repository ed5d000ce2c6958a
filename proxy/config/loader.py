"""Load YAML and presets into ``Settings``, or raise one ConfigError with every finding.

Reads configuration files only; secrets are resolved later, per route. Blocking; called at start
and reload.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.config.document import Document, display_key, read_yaml
from proxy.config.document import Path as Place
from proxy.config.egress import EgressProxySettings
from proxy.config.files import read_text
from proxy.config.placement import PLACEMENTS
from proxy.config.presets import (
    Preset,
    ReadOnDemand,
    merge,
    read_preset,
    shipped,
    validated,
)
from proxy.config.route import RouteSettings
from proxy.config.route_findings import complete_routes, valid_listeners
from proxy.config.secret import SecretSettings
from proxy.config.settings import AdminSettings, Browsers, Settings
from proxy.config.unknown_keys import suggest
from proxy.config.validation import (
    COMMAND_LINE,
    Source,
    check_exposure,
    check_overlaps,
    check_stores,
)
from proxy.errors import ConfigError, ConfigValueError, Finding
from proxy.upstream.authorities import read_authorities

# Stands for invalid settings in the checks of the others, which then find nothing about it.
_ANY_SECRET = SecretSettings(references=("builtin:demo",))


@dataclass(frozen=True, slots=True)
class Overrides:
    """Settings that options of the command line replace, and origins that they add."""

    listen: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    admin: AdminSettings | None = None
    workers: int | None = None
    egress_proxy: EgressProxySettings | None = None

    def apply(self, settings: Settings) -> Settings:
        """Return the settings in force."""
        update: dict[str, Any] = {key: getattr(self, key) for key in self.replaced}
        if self.origins:
            origins = (*settings.browsers.origins, *self.origins)
            update["browsers"] = Browsers(origins=origins)
        return settings.model_copy(update=update)

    @property
    def replaced(self) -> frozenset[str]:
        """Names of the settings that are replaced."""
        given = {
            "listen": bool(self.listen),
            "admin": self.admin,
            "workers": self.workers,
            "egress_proxy": self.egress_proxy,
        }
        return frozenset(key for key, value in given.items() if value)


NO_OVERRIDES = Overrides()


def load(path: Path, *, ours: bool = False, overrides: Overrides = NO_OVERRIDES) -> Settings:
    """Load a routes file; every route is merged with its preset.

    ``ours`` marks the file that ships with keyrelay: see ``files.read_text``. ``overrides`` apply
    before the checks of listeners. Raises ConfigError for any invalid file.
    """
    return load_text(read_text(path, ours=ours), str(path), path.parent, overrides)


def files(path: Path | None, settings: Settings) -> Iterator[Path]:
    """Yield the files and directories whose change may change the settings of ``path``."""
    if path is None:
        return
    yield path
    yield from {Path(one.ca_file) for one in settings.routes.values() if one.ca_file is not None}
    if settings.tls is not None:
        yield from map(Path, (settings.tls.certificate, settings.tls.key))
    for name in settings.providers:
        directory = path.parent / name
        yield directory
        yield from directory.glob("*.yaml")


def load_text(
    text: str, file: str, folder: Path | None = None, overrides: Overrides = NO_OVERRIDES
) -> Settings:
    """Load settings from a text. Paths are relative to ``folder``, by default that of ``file``."""
    document = read_yaml(text, file)
    if document.data is None:
        if not document.findings:
            document.add((1, 1), "expected a mapping, got nothing", "write routes: and one route")
        raise ConfigError(document.findings)
    data, named = document.data, None
    if isinstance(data, dict):
        named = data.get("routes")
        data = {key: value for key, value in data.items() if key != "routes"}
    settings, broken = validated(document, Settings, data, ())
    own, findings = _own_presets(document, settings, folder or Path(file).parent)
    routes: dict[str, RouteSettings] = {}
    if isinstance(named, dict) and named:
        known = ReadOnDemand([*own, *shipped()], lambda name: own.get(name) or shipped()[name])
        routes = complete_routes(document, named, known, findings)
    elif isinstance(named, list):
        document.add(
            document.position(("routes",)),
            "expected a mapping, got a list",
            "write each route as NAME: {provider: PRESET}, such as hume: {provider: hume}",
        )
    elif isinstance(data, dict):
        document.add(
            document.position(("routes",), key=True),
            "no routes",
            "write routes: and a route, indented below it, such as hume: {provider: hume}",
        )
    whole = overrides.apply(settings.model_copy(update={"routes": routes}))
    whole = _with_egress(whole, document, folder or Path(file).parent)
    source = Source(document, overrides.replaced)
    checked = whole
    if "listen" in broken and not overrides.listen:
        listen = data.get("listen") if isinstance(data, dict) else ()
        checked = checked.model_copy(update={"listen": valid_listeners(listen)})
    if "inbound_token" in broken:
        checked = checked.model_copy(update={"inbound_token": _ANY_SECRET})
    for check in (check_overlaps, check_exposure, check_stores):
        findings += check(checked, source)
    findings += document.findings
    if findings:
        # Aliases lead to the same place several times.
        raise ConfigError(list(dict.fromkeys(findings)))
    return whole


def _with_egress(
    settings: Settings, document: Document | None = None, folder: Path | None = None
) -> Settings:
    """Return the settings with the way to the provider in every route, and absolute paths.

    Adds a finding to the document for each file without a certificate.
    """
    routes = {}
    for name, route in settings.routes.items():
        update: dict[str, Any] = {}
        if route.egress_proxy is None and settings.egress_proxy is not None:
            update["egress_proxy"] = settings.egress_proxy
        ca_file = route.ca_file or settings.ca_file
        if ca_file is not None and document is not None and folder is not None:
            path = (folder / ca_file).absolute()
            update["ca_file"] = str(path)
            try:
                read_authorities(path)
            except ConfigValueError as error:
                place: Place = (
                    ("ca_file",) if route.ca_file is None else ("routes", name, "ca_file")
                )
                document.add(document.position(place), error.message, error.hint)
        routes[name] = route.model_copy(update=update) if update else route
    changed: dict[str, Any] = {"routes": routes}
    if settings.tls is not None and folder is not None:
        changed["tls"] = settings.tls.below(folder)
    return settings.model_copy(update=changed)


def from_providers(names: Iterable[str], overrides: Overrides = NO_OVERRIDES) -> Settings:
    """Build settings with one route per preset, without a file: ``keyrelay run hume camb``.

    Raises ConfigError for an unknown preset, one without an upstream, or invalid overrides.
    """
    known = shipped()
    wanted = list(dict.fromkeys(names))
    findings = [
        Finding(COMMAND_LINE, 0, 0, f"unknown provider {display_key(name)}", suggest(name, known))
        for name in wanted
        if name not in known
    ]
    if not wanted:
        findings.append(Finding(COMMAND_LINE, 0, 0, "no provider given", suggest("", known)))
    routes = {
        name: merge(known[name].settings, RouteSettings(), name) for name in wanted if name in known
    }
    findings += [
        Finding(
            COMMAND_LINE,
            0,
            0,
            f"the provider {display_key(name)} has no default upstream",
            "write a routes file in which the route has upstream:",
        )
        for name, route in routes.items()
        if route.upstream is None
    ]
    settings = _with_egress(overrides.apply(Settings(routes=routes)))
    findings += check_overlaps(settings) + check_exposure(settings)
    if findings:
        raise ConfigError(findings)
    return settings


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a routes file, for editors, generated from the models."""
    generated = Settings.model_json_schema()
    parts = generated["$defs"]
    strategy = parts["StrategySettings"]["properties"]
    for placement in PLACEMENTS.values():  # a strategy may be written as a placement
        for key, value in parts[placement.__name__]["properties"].items():
            strategy.setdefault(key, value)
    generated["required"] = ["routes"]
    generated["properties"]["routes"]["minProperties"] = 1
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **generated,
        "title": "Routes of keyrelay",
    }


def _own_presets(
    document: Document, settings: Settings, folder: Path
) -> tuple[dict[str, Preset], list[Finding]]:
    """Read the user's presets: by name, and the findings in them."""
    found: dict[str, Preset] = {}
    findings: list[Finding] = []
    for index, name in enumerate(settings.providers):
        position = document.position(("providers", index))
        directory = folder / name
        if not directory.is_dir():
            document.add(position, "no such directory", "the path is relative to this file")
            continue
        for path in sorted(directory.glob("*.yaml")):
            if path.stem in found:
                document.add(
                    position,
                    f"the preset {display_key(path.stem)} is in two of the directories",
                    "keep one of them",
                )
                continue
            try:
                found[path.stem] = read_preset(read_text(path), str(path))
            except ConfigError as error:
                findings += error.findings
            else:
                findings += found[path.stem].document.findings
    return found, findings
