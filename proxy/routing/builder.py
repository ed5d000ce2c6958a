"""From settings to routes: what can be worked out beforehand is worked out here."""

from __future__ import annotations

import re
from collections.abc import Iterator

from proxy.auth.factory import build_strategies
from proxy.auth.strategy import AuthContext
from proxy.config.placement import HeaderPlacement, PathPlacement, Placement, QueryPlacement
from proxy.config.route import RouteSettings
from proxy.errors import SecretUnavailable
from proxy.http.address import parse_upstream
from proxy.http.headers import CREDENTIAL_SUBPROTOCOLS, DROPPED_FROM_REQUESTS
from proxy.http.path_patterns import PatternSet
from proxy.routing.route import RewriteRules, Route
from proxy.routing.route_secrets import ResolvedSecrets


def compile_route(
    name: str,
    settings: RouteSettings,
    found: ResolvedSecrets,
    means: AuthContext | None = None,
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
        rules=RewriteRules(
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
