"""Checks of the configuration that concern more than one setting. Each returns its findings.

The checks of listeners run on the settings in force: after options of the command line have
replaced settings of the file. A finding about such a setting names the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from proxy.config.document import Document
from proxy.config.document import Path as Place
from proxy.config.oauth2 import RefreshToken
from proxy.config.placement import BasicCredentials
from proxy.config.route import NO_SECRET_USED, RouteSettings, StrategySettings
from proxy.config.settings import Settings
from proxy.config.template import parse_template
from proxy.config.unknown_keys import suggest
from proxy.errors import ConfigValueError, Finding
from proxy.http.address import (
    LOOPBACK_NAMES,
    ListenAddress,
    bracketed,
    check_guarded,
    check_served_host,
    parse_listen,
    parse_upstream,
)

COMMAND_LINE = "command line"
"""Stands for the file in findings about options and arguments."""

# Keys of placements whose values are templates.
_TEMPLATES = frozenset({"value", "path", *BasicCredentials.model_fields})


@dataclass(frozen=True, slots=True)
class Source:
    """Where settings come from, for the positions of findings.

    ``document`` is None without a file; ``overridden`` names the settings that options replaced.
    """

    document: Document | None = None
    overridden: frozenset[str] = frozenset()

    def finding(self, place: Place, message: str, hint: str, *, key: bool = False) -> Finding:
        """Return a finding at a place of the file, or of the command line."""
        if self.document is None or (place and place[0] in self.overridden):
            return Finding(COMMAND_LINE, 0, 0, message, hint)
        position = self.document.position(place, key=key)
        return Finding(self.document.file, *position, message, hint)


_NO_FILE = Source()


def check_overlaps(settings: Settings, source: Source = _NO_FILE) -> list[Finding]:
    """Return findings for paths and addresses used twice, and upstreams that are keyrelay."""
    listeners: dict[str, str] = {}
    findings = [
        source.finding(place, f"{owner} listens there already", "give one of them another port")
        for place, text, name in _listeners(settings)
        if (owner := _claim(listeners, text, name)) is not None
    ]
    paths: dict[str, str] = {}
    for name, route in settings.routes.items():
        path = route.path or f"/{name}"
        if path in paths:
            findings.append(
                source.finding(
                    ("routes", name, "path"),
                    f"the route {paths[path]} has this path already",
                    "give one of them another path:",
                )
            )
        paths.setdefault(path, name)
        if any(one in listeners for one in _dialled(route)):
            findings.append(
                source.finding(
                    ("routes", name, "upstream"),
                    "the upstream is keyrelay itself",
                    "write the address of the provider",
                )
            )
    return findings


def check_exposure(settings: Settings, source: Source = _NO_FILE) -> list[Finding]:
    """Return findings for addresses that other machines reach without a token, and invalid hosts.

    The only place that decides whether an address needs a token.
    """
    findings: list[Finding] = []
    for place, text in _addresses(settings):
        address = parse_listen(text)
        if settings.inbound_token is None:
            findings += _run(source, place, check_guarded, text)
        elif settings.peer_uid == "enforce" and address.exposed:
            findings.append(
                source.finding(
                    place,
                    "peer_uid: enforce refuses every connection from another machine",
                    "listen on loopback, or set peer_uid: warn",
                )
            )
        if address.tls and address.exposed and settings.tls is None:
            findings.append(
                source.finding(
                    place,
                    "the local authority certifies loopback only",
                    "write tls: {certificate: FILE, key: FILE}, or listen on loopback",
                )
            )
    for index, name in enumerate(settings.hosts):
        findings += _run(source, ("hosts", index), check_served_host, name)
    return findings


def check_auth(
    document: Document,
    prefix: Place,
    strategies: Mapping[int, StrategySettings],
    secrets: Set[str] | None,
) -> list[Finding]:
    """Return findings for strategies with the same name, and templates that name no secret.

    prefix      path of the route, or of the preset, in the document
    strategies  the valid strategies by their index below ``auth``
    secrets     names of all secrets, also of invalid ones; None if they are not known
    """
    source = Source(document)
    findings: list[Finding] = []
    names: set[str] = set()
    for index, strategy in strategies.items():
        base: Place = (*prefix, "auth", index)
        if strategy.name in names:
            findings.append(
                source.finding(
                    (*base, "name"),
                    "another strategy has this name",
                    "give each its own; the log and explain show them",
                )
            )
        names |= {strategy.name} if strategy.name else set()
        if secrets is None:
            continue
        given = {"token"} if strategy.token else set[str]()
        for kind in ("http", "websocket"):
            for number, placement in enumerate(getattr(strategy, kind) or ()):
                for key, template in placement.templates.items():
                    place = _first(document, base, ((kind, number), (kind,), ()), key)
                    findings += _unknown_names(source, place, template, secrets, given)
        if strategy.token is not None:
            for key, template in strategy.token.templates.items():
                place = _first(document, base, (("token",),), key)
                given = set(strategy.token.given)
                findings += _unknown_names(source, place, template, secrets, given)
    if secrets is not None:
        findings += _check_invalid(document, (*prefix, "auth"), strategies.keys(), secrets)
    return list(dict.fromkeys(findings))  # one placement may serve HTTP and WebSocket


def check_stores(settings: Settings, source: Source = _NO_FILE) -> list[Finding]:
    """Return findings for refresh tokens with a file, which ``tokens:`` keeps in Redis."""
    if settings.tokens is None:
        return []
    return [
        source.finding(
            ("routes", name),
            "tokens.share keeps the refresh token of this route in Redis, and store: in a file",
            "remove store:, and put refresh_token of that file into the secret",
            key=True,
        )
        for name, route in settings.routes.items()
        for strategy in route.auth
        if isinstance(strategy.token, RefreshToken) and strategy.token.store is not None
    ]


def listen_places(settings: Settings) -> Iterator[tuple[str, str | None]]:
    """Yield every listening address and its route; None for the main listener."""
    for text in settings.listen:
        yield text, None
    for name, route in settings.routes.items():
        for text in route.listen:
            yield text, name


def served_hosts(settings: Settings) -> frozenset[str]:
    """Return the host names of this keyrelay besides those of routes.

    Includes the literal addresses of listeners: no web page can have one of them as its host.
    """
    addresses = [parse_listen(text) for text, _ in listen_places(settings)]
    literals = {
        bracketed(one.host) for one in addresses if one.host is not None and not one.wildcard
    }
    services = {name for one in settings.hosts for name in _service_names(one)}
    return LOOPBACK_NAMES | literals | frozenset(settings.hosts) | services


def _service_names(host: str) -> Iterator[str]:
    """Yield the further names of a Kubernetes Service that is listed as ``<name>.<namespace>.svc``.

    Not ``<name>.<namespace>``: many namespaces, such as dev, are also public top-level domains.
    """
    labels = host.split(".")
    if len(labels) == 3 and labels[2] == "svc":
        yield labels[0]
        yield f"{host}.cluster.local"


def _addresses(settings: Settings) -> Iterator[tuple[Place, str]]:
    """Yield every address that accepts requests for routes, with its place."""
    for index, text in enumerate(settings.listen):
        yield ("listen", index), text
    for name, route in settings.routes.items():
        for index, text in enumerate(route.listen):
            yield ("routes", name, "listen", index), text


def _listeners(settings: Settings) -> Iterator[tuple[Place, str, str]]:
    """Yield every listening address with its place and the name of the listener."""
    for place, text in _addresses(settings):
        if place[0] == "listen":
            yield place, text, "the main listener"
    if settings.admin is not None:
        yield ("admin", "listen"), settings.admin.listen, "the admin listener"
    for place, text in _addresses(settings):
        if place[0] == "routes":
            yield place, text, f"the route {place[1]}"


def _claim(listeners: dict[str, str], text: str, name: str) -> str | None:
    """Register an address for a listener; return the listener that overlaps it, if any."""
    address = parse_listen(text)
    if address.unix_path is None and address.port == 0:
        return None  # the system assigns a free port to each
    owner = next(
        (
            owner
            for other, owner in listeners.items()
            if other == str(address) or address.overlaps(parse_listen(other))
        ),
        None,
    )
    listeners.setdefault(str(address), name)
    return owner


def _dialled(route: RouteSettings) -> list[str]:
    """Return the addresses of listeners that connections to the upstream may reach."""
    if route.upstream is None:
        return []
    origin, _ = parse_upstream(route.upstream)
    if origin.builtin:
        return []
    hosts = ("127.0.0.1", "::1") if origin.host == "localhost" else (origin.host,)
    dialled = [str(ListenAddress(host, origin.port, None)) for host in hosts]
    if origin.loopback:
        dialled += [f"0.0.0.0:{origin.port}", f"[::]:{origin.port}"]
    return dialled


def _run(source: Source, place: Place, check: Callable[[str], object], text: str) -> list[Finding]:
    """Return what ``check`` raises as a finding."""
    try:
        check(text)
    except ConfigValueError as error:
        return [source.finding(place, error.message, error.hint)]
    return []


def _first(document: Document, base: Place, middles: Iterable[Place], key: Place) -> Place:
    """Return the place of a template: in a list, in the single placement, or in the strategy."""
    for middle in middles:
        if (*base, *middle, *key) in document.values:
            return (*base, *middle, *key)
    return base


def _check_invalid(
    document: Document, auth: Place, valid: Set[int], secrets: Set[str]
) -> Iterator[Finding]:
    """Yield findings for the templates in strategies that are invalid for another reason."""
    source, fixed = Source(document), dict[int, bool]()
    for index, place, template in _invalid_templates(document, auth, valid):
        try:
            uses = bool(parse_template(template).names)
        except ConfigValueError:
            uses = True  # reported already
        else:
            yield from _unknown_names(source, place, template, secrets, {"token"})
        fixed[index] = fixed.get(index, True) and not uses
    for index, one in fixed.items():
        if one:
            yield source.finding((*auth, index), *NO_SECRET_USED)


def _invalid_templates(
    document: Document, auth: Place, valid: Set[int]
) -> Iterator[tuple[int, Place, str]]:
    """Yield what is to be a template in placements of invalid strategies.

    Each with the index of its strategy, and its place.
    """
    for place in document.values:
        index = place[len(auth)] if len(place) > len(auth) else None
        if place[: len(auth)] != auth or not isinstance(index, int) or index in valid:
            continue
        inside = place[len(auth) + 1 :]
        if "token" in inside or not ("send" in inside or _TEMPLATES & {*inside[-1:]}):
            continue
        text: Any = document.data
        for step in place:
            text = text[step]
        if isinstance(text, str):
            yield index, place, text


def _unknown_names(
    source: Source, place: Place, template: str, secrets: Set[str], given: Set[str]
) -> Iterator[Finding]:
    """Yield a finding for each name in a template that is neither a secret nor ``given``."""
    for name in sorted(parse_template(template).names - secrets - given):
        yield source.finding(
            place,
            f'"{{{name}}}" names no secret',
            suggest(name, secrets) if secrets else f"add secrets: {{{name}: env:NAME}}",
        )


def unshared_refresh_tokens(routes: Mapping[str, RouteSettings]) -> Iterator[str]:
    """A line for each refresh token that is named several times and not kept in one store.

    Each use would replace it for the others, which may cost the whole grant.
    """
    uses: dict[tuple[bytes | tuple[str, ...], ...], list[tuple[str, str | None]]] = {}
    for name, route in routes.items():
        for strategy in route.auth:
            token = strategy.token
            if not isinstance(token, RefreshToken):
                continue
            pieces = parse_template(token.refresh_token).pieces
            key = tuple(_referenced(piece, route) for piece in pieces)
            uses.setdefault(key, []).append((name, token.store))
    for used in uses.values():
        stores = {store for _, store in used}
        if len(used) > 1 and (len(stores) > 1 or None in stores):
            names = ", ".join(dict.fromkeys(name for name, _ in used))
            yield (
                f"{names}: one refresh token is used {len(used)} times without a common store:; "
                "where the server replaces it, one use costs the others the grant; "
                "write the same store: /var/lib/keyrelay/NAME.json in token: of each"
            )


def _referenced(piece: bytes | str, route: RouteSettings) -> bytes | tuple[str, ...]:
    """A piece of a template with its secret's references in place of the name in this route."""
    if isinstance(piece, bytes):
        return piece
    name, _, field = piece.partition(".")
    secret = route.secrets.get(name)
    return (field, name) if secret is None else (field, *secret.references)
