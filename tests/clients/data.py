"""proxy/config/clients.yaml, read and checked: what to write, and what cannot work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from proxy.config.clients import join

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "proxy" / "config" / "clients.yaml"

Mode = Literal["prefix", "listen", "tls", "exec", "intercept"]
MODES: tuple[Mode, ...] = ("prefix", "listen", "tls", "exec", "intercept")
ROUTED: tuple[Mode, ...] = ("prefix", "listen", "tls")
"""The modes in which the program itself gives the client its base URL."""

BUILT: tuple[Mode, ...] = ("prefix", "listen")
"""The modes that keyrelay has; the others are described already, and not run."""

BASE = "http://127.0.0.1:8080"
"""The main listener in every snippet, as `keyrelay run` has it by default."""

_CLIENT_KEYS = {
    "package", "variant", "registry", "version", "ci", "routes", "setting", "variables", "notes",
    "setup", "routed", "plain", "calls", "cannot", "browser", "listen",
}  # fmt: skip
_CALL_KEYS = {"write", "sends", "uses", "cannot", "kind"}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call cannot work in a mode, and the regular expression that its symptom matches."""

    why: str
    shows: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a client.

    name    ``rest``, ``stream``, ``upload``, ``socket`` or a further word
    write   the program's last part
    sends   ``METHOD host/path`` of each request that has to arrive, without queries
    cannot  the modes in which the call fails
    """

    name: str
    write: str
    sends: tuple[str, ...]
    cannot: Mapping[Mode, Failure]


@dataclass(frozen=True, slots=True)
class Client:
    """One package of PyPI or npm.

    variant    tells entries of one package apart: a provider, or a part of the package
    setup      the program's first part: its imports
    routed     the client with its base URL and a dummy key
    plain      the client as its README writes it: no URL, and the key from the environment
    variables  the environment variables from which it reads its base URL
    browser    runs in a page too
    """

    package: str
    variant: str
    registry: Literal["pypi", "npm"]
    version: str
    ci: bool
    routes: tuple[str, ...]
    setting: str
    variables: tuple[str, ...]
    notes: str
    setup: str
    routed: str
    plain: str
    browser: bool
    calls: tuple[Call, ...]

    @property
    def slug(self) -> str:
        """The name of its page, and of its tests: ``pypi-hume``, ``npm-camb-ai-sdk``."""
        words = (self.registry, self.package.lstrip("@").replace("/", "-"), self.variant)
        return "-".join(word for word in words if word).lower()

    @property
    def name(self) -> str:
        """The package, and what of it is meant if that has an entry of its own."""
        return f"{self.package} ({self.variant})" if self.variant else self.package

    def program(self, call: Call, *, plain: bool = False) -> str:
        """The whole program of one call."""
        parts = (self.setup, self.plain if plain else self.routed, call.write)
        return join(parts)


def clients(file: Path = FILE) -> tuple[Client, ...]:
    """Every client of the file, in its order. ValueError names the first entry that is wrong."""
    document = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return tuple(_client(entry) for entry in document)


def _client(entry: Mapping[str, Any]) -> Client:
    label = entry.get("package", "an entry without package")
    if unknown := entry.keys() - _CLIENT_KEYS:
        raise ValueError(f"{label}: unknown keys {sorted(unknown)}")
    shared = _failures(entry.get("cannot", {}))
    return Client(
        package=entry["package"],
        variant=entry.get("variant", ""),
        registry=entry["registry"],
        version=str(entry["version"]),
        ci=entry.get("ci", False),
        routes=tuple(entry["routes"]),
        setting=entry["setting"],
        variables=tuple(entry.get("variables", ())),
        notes=entry.get("notes", "").strip(),
        setup=entry.get("setup", ""),
        routed=entry.get("routed", ""),
        plain=entry.get("plain", ""),
        browser=entry.get("browser", False),
        calls=tuple(_call(label, name, call, shared) for name, call in entry["calls"].items()),
    )


def _call(label: str, name: str, entry: Mapping[str, Any], shared: Mapping[Mode, Failure]) -> Call:
    if unknown := entry.keys() - _CALL_KEYS:
        raise ValueError(f"{label}, {name}: unknown keys {sorted(unknown)}")
    sends = entry["sends"]
    return Call(
        name=name,
        write=entry["write"],
        sends=(sends,) if isinstance(sends, str) else tuple(sends),
        cannot={**shared, **_failures(entry.get("cannot", {}))},
    )


def _failures(entry: Mapping[str, Any]) -> dict[Mode, Failure]:
    found: dict[Mode, Failure] = {}
    for modes, failure in entry.items():
        for mode in modes.split():
            if mode not in MODES:
                raise ValueError(f"unknown mode {mode}; the modes are {', '.join(MODES)}")
            found[mode] = Failure(failure["why"], failure["shows"])
    return found
