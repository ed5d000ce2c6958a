"""proxy.config.validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set

from proxy.config.document import Document, Position
from proxy.config.document import Path as Place
from proxy.config.messages import suggest
from proxy.config.route import RouteSettings
from proxy.config.settings import Settings
from proxy.config.template import parse_template
from proxy.http.address import (
    LOOPBACK_NAMES,
    ListenAddress,
    bracketed,
    check_guarded,
    check_served_host,
    parse_listen,
    parse_upstream,
)


def _check_overlaps(
    document: Document, routes: Mapping[str, RouteSettings], settings: Settings | None
) -> None:
    """No two things may answer at the same address, and no route may lead back here."""
    paths: dict[str, str] = {}
    listeners: dict[str, str] = {}
    if settings is not None:
        for index, text in enumerate(settings.listen):
            place: Place = ("listen", index)
            _claim(document, document.position(place), listeners, text, "the main listener")
        if settings.admin is not None:
            place = ("admin", "listen") if ("admin", "listen") in document.values else ("admin",)
            text = settings.admin.listen
            _claim(document, document.position(place), listeners, text, "the admin listener")
    for name, route in routes.items():
        path = route.path or f"/{name}"
        if path in paths:
            document.add(
                document.position(("routes", name, "path")),
                f"the route {paths[path]} answers at this path already",
                "give one of them another path:",
            )
        paths.setdefault(path, name)
        for index, text in enumerate(route.listen):
            place = _existing(document, ("routes", name, "listen"), index)
            _claim(document, document.position(place), listeners, text, f"the route {name}")
    for name, route in routes.items():
        if route.upstream is None:
            continue
        origin, _ = parse_upstream(route.upstream)
        hosts = ("127.0.0.1", "::1") if origin.host == "localhost" else (origin.host,)
        dialled = [str(ListenAddress(host, origin.port, None)) for host in hosts]
        if origin.loopback:
            dialled += [f"0.0.0.0:{origin.port}", f"[::]:{origin.port}"]
        if not origin.builtin and any(one in listeners for one in dialled):
            document.add(
                document.position(("routes", name, "upstream")),
                "the route would lead back to keyrelay itself",
                "write the address of the provider",
            )


def _check_exposure(
    document: Document,
    routes: Mapping[str, RouteSettings],
    settings: Settings,
    broken: frozenset[str],
) -> None:
    """Nobody may come in from elsewhere without a token, nor under a name that is no host's."""
    places: list[tuple[Place, tuple[str, ...]]] = []
    if "listen" not in broken:
        places.append((("listen",), settings.listen))
    places += [(("routes", name, "listen"), route.listen) for name, route in routes.items()]
    for place, texts in places:
        for index, text in enumerate(texts):
            position = document.position(_existing(document, place, index))
            if settings.inbound_token is None and "inbound_token" not in broken:
                _check(document, position, check_guarded, text)
            elif settings.peer_uid == "enforce" and parse_listen(text).exposed:
                document.add(
                    position,
                    "peer_uid: enforce refuses whoever connects from another machine",
                    "listen on loopback, or set peer_uid: warn",
                )
    for index, name in enumerate(settings.hosts):
        _check(document, document.position(("hosts", index)), check_served_host, name)


def _check(
    document: Document, position: Position, check: Callable[[str], object], text: str
) -> None:
    """Note what ``check`` raises."""
    try:
        check(text)
    except ValueError as error:
        message, _, advice = str(error).partition("\n")
        document.add(position, message, advice)


def _existing(document: Document, place: Place, index: int) -> Place:
    return (*place, index) if (*place, index) in document.values else place


def _claim(
    document: Document, position: Position, listeners: dict[str, str], text: str, owner: str
) -> None:
    address = parse_listen(text)
    if address.unix_path is None and address.port == 0:
        return  # the system takes a free port for each
    for other, whose in listeners.items():
        if other == str(address) or address.overlaps(parse_listen(other)):
            document.add(
                position, f"{whose} listens there already", "give one of them another port"
            )
            break
    listeners.setdefault(str(address), owner)


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
                document.position((*base, "name")),
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
            document.position(place),
            f'"{{{name}}}" names no secret',
            suggest(name, merged.secrets)
            if merged.secrets
            else f"add secrets: {{{name}: env:NAME}}",
        )


def listen_places(settings: Settings) -> Iterator[tuple[str, str | None]]:
    """Every address at which something listens, and the route that it is for; None for all."""
    for text in settings.listen:
        yield text, None
    for name, route in settings.routes.items():
        for text in route.listen:
            yield text, name


def served_hosts(settings: Settings) -> frozenset[str]:
    """The host names that stand for this keyrelay, beside those of routes.

    The addresses that were written as listeners too: no page's own name can be one of them.
    """
    addresses = [parse_listen(text) for text, _ in listen_places(settings)]
    literals = {
        bracketed(one.host) for one in addresses if one.host is not None and not one.wildcard
    }
    return LOOPBACK_NAMES | literals | frozenset(settings.hosts)
