"""Build routes from settings, with everything that can be computed before a request."""

from __future__ import annotations

import re
from collections.abc import Iterator

from proxy.auth.factory import build_strategies
from proxy.auth.strategy import AuthContext
from proxy.config.placement import (
    HeaderPlacement,
    MessagePlacement,
    PathPlacement,
    Placement,
    QueryPlacement,
)
from proxy.config.presets import presets
from proxy.config.route import RouteSettings
from proxy.config.template import parse_template
from proxy.errors import SecretUnavailable
from proxy.http.address import parse_upstream
from proxy.http.headers import (
    CREDENTIAL_SUBPROTOCOLS,
    DROPPED_FROM_REQUESTS,
    FORWARDING_FIELDS,
    URL_FIELDS,
)
from proxy.http.path_patterns import PatternSet
from proxy.routing.route import RewriteRules, Route
from proxy.routing.route_secrets import ResolvedSecrets
from proxy.routing.secret_remarks import secret_remarks
from proxy.websocket.json_edit import parse_pointer


def compile_route(
    name: str,
    settings: RouteSettings,
    found: ResolvedSecrets,
    means: AuthContext | None = None,
    withheld: frozenset[bytes] = frozenset(),
) -> Route:
    """Build the route from validated settings and its resolved secrets.

    means     for strategies that obtain tokens; None for a route that is only displayed
    withheld  lower-case names of further fields that are dropped from requests

    A missing secret makes the route unready; the start does not fail, and other routes serve.
    """
    assert settings.upstream is not None, "the loader rejects a route without upstream"
    origin, base_path = parse_upstream(settings.upstream)
    missing = [remedy for one, remedy in found.lacking.items() if needs(settings, one)]
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
    if any(getattr(one.token, "dpop", None) is not None for one in settings.auth):
        carriers.add("DPoP")
    if settings.strip.messages or any(isinstance(one, MessagePlacement) for one in placements):
        # Messages that are parsed must not be compressed, nor extended in any other way.
        carriers.add("Sec-WebSocket-Extensions")
    return Route(
        name=name,
        prefix=(settings.path or f"/{name}").encode("ascii"),
        origin=origin,
        rules=RewriteRules(
            host=origin.authority.encode("ascii"),
            base_path=base_path.encode("ascii"),
            dropped_headers=DROPPED_FROM_REQUESTS
            | withheld
            | (frozenset() if settings.pass_forwarded else FORWARDING_FIELDS)
            # Bodies to be redacted should not be compressed.
            | ({b"accept-encoding"} if settings.mask_bodies else frozenset())
            | {header.lower().encode() for header in carriers}
            # The variant of a name that contains ``_`` itself.
            | {header.lower().replace("_", "-").encode() for header in carriers},
            dropped_query=frozenset(
                one.query.encode() for one in placements if isinstance(one, QueryPlacement)
            )
            | {parameter.encode() for parameter in settings.strip.query},
            subprotocols=CREDENTIAL_SUBPROTOCOLS
            + tuple(prefix.lower().encode() for prefix in settings.strip.subprotocols),
            url_fields=URL_FIELDS | {field.lower().encode() for field in settings.url_fields},
            message_members=tuple(map(parse_pointer, settings.strip.messages)),
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
        remarks=secret_remarks(settings, found),
        preset=settings.provider or name,
        preset_rules=_preset_rules(name, settings),
    )


def _preset_rules(name: str, settings: RouteSettings) -> frozenset[str] | None:
    """The route's patterns that a shipped preset brings: messages name the place of a pattern.

    None for another preset: the merged settings do not show what it brought.
    """
    # A preset that the command line names is a route of its name without ``provider``.
    preset = presets().get(settings.provider or name)
    if preset is None:
        return None if settings.provider else frozenset()
    return frozenset(preset.deny + (preset.allow or ())) & frozenset(
        settings.deny + (settings.allow or ())
    )


def needs(settings: RouteSettings, lacking: str) -> bool:
    """Whether the route is not ready without a secret, or the egress proxy or CAs, of this name."""
    secret = settings.secrets.get(lacking)
    return secret is None or not secret.optional


def _placements(settings: RouteSettings) -> Iterator[Placement]:
    for strategy in settings.auth:
        yield from strategy.http or ()
        yield from strategy.websocket or ()


def _credential_path(placement: PathPlacement) -> re.Pattern[bytes]:
    """Matches the beginning of a path that contains this placement with any value."""
    parts = (
        re.escape(piece) if isinstance(piece, bytes) else b"[^/]+"
        for piece in parse_template(placement.path).pieces
    )
    return re.compile(b"".join(parts) + rb"(?=/|\Z)")
