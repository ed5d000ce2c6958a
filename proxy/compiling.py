"""From settings to routes: what can be worked out beforehand is worked out here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from .auth.base import Means
from .auth.building import build_strategies
from .errors import SecretUnavailable
from .headers import CREDENTIAL_SUBPROTOCOLS, DROPPED_FROM_REQUESTS
from .mints import ClientCredentials, JwtBearer, RefreshToken, Request, TokenSettings
from .origins import Origin, parse_upstream
from .outgoing import Rules
from .patterns import PatternSet
from .placements import HeaderPlacement, PathPlacement, Placement, QueryPlacement
from .references import SecretSettings
from .routes import Route
from .routesettings import RouteSettings
from .secret import Secret
from .templates import parse_template

Resolve = Callable[[str, SecretSettings], tuple[Secret, ...]]
"""Reads a secret: every value of it that is there, or raises SecretUnavailable."""


@dataclass(frozen=True, slots=True)
class Found:
    """The secrets of a route as they were read.

    secrets  those that are there; several values of one while it is rotated, the first to be used
    lacking  what to do about each of the others, by its name
    """

    secrets: Mapping[str, tuple[Secret, ...]]
    lacking: Mapping[str, str]

    def same(self, other: Found) -> bool:
        """Whether ``other`` has the same values from the same places."""
        return self._digests() == other._digests() and self.lacking.keys() == other.lacking.keys()

    def _digests(self) -> dict[str, list[tuple[str, bytes]]]:
        return {
            name: [(one.reference, one.digest()) for one in values]
            for name, values in self.secrets.items()
        }


def find_secrets(settings: RouteSettings, resolve: Resolve) -> Found:
    """Read the secrets of a route. Blocking, if ``resolve`` is.

    A sealed value that would go to a token endpoint elsewhere is not even opened: it is sealed for
    the upstream, and whoever may only edit the file must not choose another place for it.
    """
    secrets: dict[str, tuple[Secret, ...]] = {}
    lacking: dict[str, str] = {}
    elsewhere = _names_elsewhere(settings)
    for name, source in settings.secrets.items():
        if name in elsewhere and any(one.startswith("sealed:") for one in source.references):
            lacking[name] = (
                f"take {name} from another source than sealed: (it is used for a token endpoint at "
                "another host than the upstream's, for which no value can be sealed)"
            )
            continue
        try:
            secrets[name] = resolve(name, source)
        except SecretUnavailable as error:
            lacking[name] = error.remedy
    return Found(secrets, lacking)


def _names_elsewhere(settings: RouteSettings) -> frozenset[str]:
    """The secrets from which tokens are made at another origin than the upstream's."""
    assert settings.upstream is not None, "the loader lets no route without upstream pass"
    origin, _ = parse_upstream(settings.upstream)
    return frozenset(
        name
        for strategy in settings.auth
        if strategy.token is not None and not _stays(strategy.token, origin)
        for text in strategy.token.templates.values()
        for name in parse_template(text).names - strategy.token.given
    )


def _stays(token: TokenSettings, origin: Origin) -> bool:
    """Whether what the token is made from goes to that origin alone, or nowhere."""
    if not isinstance(token, ClientCredentials | RefreshToken | JwtBearer | Request):
        return True
    if token.url.startswith("/"):
        return True
    # A name within the host leads to wherever the secret says.
    authority = "/".join(token.url.split("/")[:3]).partition("?")[0]
    return "{" not in authority and parse_upstream(authority)[0] == origin


def compile_route(
    name: str,
    settings: RouteSettings,
    found: Found,
    means: Means | None = None,
    withheld: frozenset[bytes] = frozenset(),
) -> Route:
    """The route of checked settings, with the secrets that were found for it.

    means     for strategies that have to obtain something; None: the route only shows what it would
              do
    withheld  lower-case names of fields that are dropped from requests as well

    A secret that is missing makes the route unready, not the start fail: the others still serve.
    """
    assert settings.upstream is not None, "the loader lets no route without upstream pass"
    origin, base_path = parse_upstream(settings.upstream)
    missing = [
        remedy for one, remedy in found.lacking.items() if not settings.secrets[one].optional
    ]
    try:
        strategies = () if missing else build_strategies(name, settings, found.secrets, means)
        if not strategies and not missing:
            missing.append("no strategy under auth has all of its secrets")
    except SecretUnavailable as error:
        strategies = ()
        missing.append(f"{error.name}: {error.remedy}")
    placements = tuple(_placements(settings))
    carriers = {one.header for one in placements if isinstance(one, HeaderPlacement)}
    carriers.update(settings.strip.headers)
    return Route(
        name=name,
        prefix=(settings.path or f"/{name}").encode("ascii"),
        origin=origin,
        rules=Rules(
            host=origin.authority.encode("ascii"),
            base_path=base_path.encode("ascii"),
            dropped_headers=DROPPED_FROM_REQUESTS
            | withheld
            # A body that is to be looked into had better not be compressed.
            | ({b"accept-encoding"} if settings.mask_bodies else frozenset())
            | {header.lower().encode() for header in carriers}
            # Where the carrier has a ``_`` itself, the other spelling is the twin.
            | {header.lower().replace("_", "-").encode() for header in carriers},
            dropped_query=frozenset(
                one.query.encode() for one in placements if isinstance(one, QueryPlacement)
            )
            | {parameter.encode() for parameter in settings.strip.query},
            subprotocols=CREDENTIAL_SUBPROTOCOLS
            + tuple(prefix.lower().encode() for prefix in settings.strip.subprotocols),
        ),
        strategies=strategies,
        methods=frozenset(settings.methods),
        allow=None if settings.allow is None else PatternSet(settings.allow),
        deny=PatternSet(settings.deny),
        path_credentials=tuple(
            _credential_path(one) for one in placements if isinstance(one, PathPlacement)
        ),
        unready="; ".join(missing),
        vends=settings.vend,
        max_body_bytes=settings.max_body_bytes,
        mask_bodies=settings.mask_bodies,
    )


def _placements(settings: RouteSettings) -> Iterator[Placement]:
    for strategy in settings.auth:
        yield from strategy.http or ()
        yield from strategy.websocket or ()


def _credential_path(placement: PathPlacement) -> re.Pattern[bytes]:
    """What a path begins with that has this placement filled, whatever the value."""
    parts = re.split(r"\{[a-z0-9_]+\}", placement.path)
    return re.compile("[^/]+".join(map(re.escape, parts)).encode("ascii") + rb"(?=/|\Z)")
