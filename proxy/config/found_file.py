"""The routes file of the working directory, which is used although no option names it.

Its place says less than a name that was written out: a directory may come from elsewhere (a
download, a clone), with a routes file in it that belongs to the user all the same. So such a file
does what a preset does, and nothing that reaches further: see ``check_found``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from proxy.config.document import Path as Place
from proxy.config.document import display_key, read_yaml
from proxy.config.files import read_text
from proxy.config.presets import shipped
from proxy.config.route import RouteSettings
from proxy.config.secret import SecretSettings
from proxy.config.settings import Settings
from proxy.errors import ConfigError, Finding
from proxy.http.address import parse_browser_origin, parse_upstream
from proxy.secrets.file_permissions import is_mount

NAMES = ("routes.yaml", "keyrelay.yaml")
"""Names under which the file is looked for."""

# Sources of secrets that such a file may name: they run nothing, and read nothing that exists for
# another purpose. ``file:`` is judged by its path.
_PLAIN_SOURCES = frozenset({"env", "sealed", "credential", "builtin"})
_PRESETS = Path(__file__).parent.parent / "providers"


def find_routes_file(folder: Path) -> Path | None:
    """Return the routes file in ``folder``, as a path relative to it; None if there is none.

    Raises ConfigError if there are two, or if it belongs to another user.
    """
    found = [name for name in NAMES if os.path.lexists(folder / name)]
    if not found:
        return None
    if len(found) > 1:
        raise _refusal(
            found[0], f"{found[1]} is here as well", f"keep one, or name it: -c {found[0]}"
        )
    try:
        owner = (folder / found[0]).stat().st_uid
    except OSError as error:
        raise _refusal(found[0], f"the file cannot be read: {error.strerror}", "check it") from None
    if owner != os.geteuid():
        raise _refusal(
            found[0],
            "the file belongs to another user and is not named",
            f"if you trust it, name it: -c {found[0]}",
        )
    return Path(found[0])


def _refusal(name: str, message: str, advice: str) -> ConfigError:
    return ConfigError([Finding(name, 0, 0, message, advice)])


def check_found(path: Path, settings: Settings) -> None:
    """Raise ConfigError if the settings of a found file need its name to be written out.

    They do if they run a program, read a keyring or a file elsewhere, write a file, trust an
    authority, send requests through a proxy, share tokens through a server, admit pages of other
    machines, or send the variable of a shipped preset to another origin than that preset's.
    """
    document = read_yaml(read_text(path), str(path))
    findings = [
        Finding(
            str(path),
            *document.position(place),
            f"{what}, and the file is not named",
            f"if you trust it, name it: -c {path}",
        )
        for place, what in _reaches(settings, path.parent.resolve())
    ]
    if findings:
        raise ConfigError(findings)


def _reaches(settings: Settings, folder: Path) -> Iterator[tuple[Place, str]]:
    """Yield the place and the effect of each setting that reaches too far."""
    for index, origin in enumerate(settings.browsers.origins):
        host = parse_browser_origin(origin)[1]
        if host not in {"localhost", "127.0.0.1", "[::1]"} and not host.endswith(".localhost"):
            yield ("browsers", "origins", index), "this page is of another machine"
    if settings.ca_file is not None:
        yield ("ca_file",), "ca_file trusts further authorities"
    if settings.egress_proxy is not None:
        yield ("egress_proxy",), "egress_proxy sends requests through a proxy"
    if settings.tokens is not None:
        yield ("tokens",), "tokens: sends a password and sealed tokens to a server"
    if settings.inbound_token is not None:
        yield from _sources(("inbound_token",), settings.inbound_token, folder)
    for name, route in settings.routes.items():
        yield from _route_reaches(("routes", name), route, settings, folder)


def _route_reaches(
    place: Place, route: RouteSettings, settings: Settings, folder: Path
) -> Iterator[tuple[Place, str]]:
    if route.ca_file is not None and settings.ca_file is None:
        yield (*place, "ca_file"), "ca_file trusts further authorities"
    if route.egress_proxy is not None and settings.egress_proxy is None:
        yield (*place, "egress_proxy"), "egress_proxy sends requests through a proxy"
    for key, secret in route.secrets.items():
        yield from _sources((*place, "secrets", key), secret, folder)
    for index, strategy in enumerate(route.auth):
        token = strategy.token
        if token is not None and token.type == "exec":
            yield (*place, "auth", index, "token"), "a program prints the token"
        elif token is not None and token.type == "oauth2_refresh_token" and token.store:
            yield (*place, "auth", index, "token", "store"), "store: writes a file"
    yield from _diverted(place, route)


def _sources(place: Place, secret: SecretSettings, folder: Path) -> Iterator[tuple[Place, str]]:
    for reference in secret.references:
        source, _, rest = reference.partition(":")
        if source == "exec":
            yield place, "exec: runs a program"
        elif source == "file":
            if not is_mount(rest) and not Path(rest).resolve().is_relative_to(folder):
                yield place, "file: reads a file of another directory"
        elif source not in _PLAIN_SOURCES:
            yield place, f"{display_key(source)} reads a store of secrets"


def _diverted(place: Place, route: RouteSettings) -> Iterator[tuple[Place, str]]:
    """Yield the variables of shipped presets that would leave for another origin than theirs."""
    for key, secret in route.secrets.items():
        for reference in secret.references:
            if not reference.startswith("env:"):
                continue
            variable = reference.removeprefix("env:")
            owners = _readers(variable)
            if owners and not any(_same_target(route, owner) for owner in owners):
                yield (*place, "secrets", key), f"{variable} would be sent to another provider"


def _readers(variable: str) -> list[RouteSettings]:
    """The shipped presets with an upstream that read a variable.

    Parsing every preset would take most of a start: their texts select those that are parsed.
    """
    named = [
        shipped()[path.stem].settings
        for path in sorted(_PRESETS.glob("*.yaml"))
        if variable in path.read_text(encoding="utf-8")
    ]
    return [
        preset
        for preset in named
        if preset.upstream is not None
        and any(f"env:{variable}" in one.references for one in preset.secrets.values())
    ]


def _same_target(route: RouteSettings, preset: RouteSettings) -> bool:
    """Whether a route sends to the preset's origin, and fetches tokens as the preset does."""
    if route.upstream is None or preset.upstream is None:
        return False
    tokens = [one.token for one in preset.auth]
    return parse_upstream(route.upstream)[0] == parse_upstream(preset.upstream)[0] and all(
        one.token is None or one.token in tokens for one in route.auth
    )
