"""From a route's settings and its secrets to its strategies.

What goes to a provider is revealed here and nowhere else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from proxy.auth.injection import Injection, inject
from proxy.auth.rotation import RotatingStrategy, Variant
from proxy.auth.strategy import AuthContext, StaticStrategy, Strategy
from proxy.auth.token_cache import TokenCache
from proxy.auth.token_strategy import TokenStrategy
from proxy.auth.tokens.factory import make_mint
from proxy.config.placement import Placement
from proxy.config.route import RouteSettings, StrategySettings
from proxy.errors import SecretUnavailable
from proxy.http.path_patterns import PatternSet
from proxy.secrets.secret import Secret


def build_strategies(
    route: str,
    settings: RouteSettings,
    secrets: Mapping[str, tuple[Secret, ...]],
    means: AuthContext | None,
) -> tuple[Strategy, ...]:
    """The strategies whose secrets are all there, in order. Building does no I/O.

    Where a secret has several values the strategy tries them in their order. Without ``means`` the
    strategies are only for showing: ``<token>`` stands where a token would be.

    Raises SecretUnavailable for a value that cannot be used where it is meant to be.
    """
    return tuple(
        _build_all(one, name_of(one, position), secrets, route, settings, means)
        for position, one in enumerate(settings.auth, 1)
        if one.secret_names <= secrets.keys() and settings.strategy in {None, one.name}
    )


def _build_all(
    settings: StrategySettings,
    name: str,
    secrets: Mapping[str, tuple[Secret, ...]],
    route: str,
    whole: RouteSettings,
    means: AuthContext | None,
) -> Strategy:
    """One strategy for each set of values, the first values first; one of several if there are."""
    used = {one: secrets[one] for one in sorted(settings.secret_names)}
    turns = range(max(map(len, used.values()), default=1))
    sets = [
        {one: given[min(turn, len(given) - 1)].reveal() for one, given in used.items()}
        for turn in turns
    ]
    # Of each variant the token in use and its predecessor.
    recent: deque[bytes] = deque(maxlen=2 * len(turns))
    variants = [
        Variant(
            _build(
                settings, name, sets[turn], sets[:turn] + sets[turn + 1 :], recent, whole, means
            ),
            # What all variants share is nothing that one of them could be refused for.
            tuple(given[turn] for given in used.values() if turn < len(given) > 1),
        )
        for turn in turns
    ]
    if means is None or len(variants) == 1:
        return variants[0].strategy
    return RotatingStrategy(
        name,
        PatternSet(settings.paths) if settings.paths else None,
        variants,
        refused=frozenset(settings.refused),
        clock=means.clock,
        warn=lambda line: means.warn(f"{route}: {line}"),
    )


def name_of(settings: StrategySettings, position: int) -> str:
    """What a strategy is called: as configured, else by its place in the list, from 1."""
    return settings.name or f"strategy {position}"


def _build(
    settings: StrategySettings,
    name: str,
    values: dict[str, bytes],
    others: Sequence[Mapping[str, bytes]],
    recent: deque[bytes],
    route: RouteSettings,
    means: AuthContext | None,
) -> Strategy:
    """The strategy for one set of values; ``others`` are the values of its other variants."""
    paths = PatternSet(settings.paths) if settings.paths else None
    try:
        if settings.token is not None and means is None:
            values = {**values, "token": b"<token>"}
            others = [{**one, "token": b"<token>"} for one in others]
        elif settings.token is not None and means is not None:
            assert route.upstream is not None
            token_source = make_mint(
                settings.token,
                values,
                route.upstream.rstrip("/"),
                means,
                allow_private=route.allow_private,
            )
            return TokenStrategy(
                name,
                paths,
                TokenCache(token_source, means.clock, means.spawn),
                http=settings.http,
                websocket=settings.websocket,
                values=values,
                others=others,
                recent=recent,
                refused=frozenset(settings.token.refused),
            )
        return StaticStrategy(
            name,
            paths,
            http=_injection(settings.http, values, others),
            websocket=_injection(settings.websocket, values, others),
        )
    except ValueError as error:
        raise SecretUnavailable(", ".join(sorted(values)), str(error)) from None


def _injection(
    placements: Iterable[Placement] | None,
    values: Mapping[str, bytes],
    others: Sequence[Mapping[str, bytes]],
) -> Injection | None:
    return None if placements is None else inject(placements, values, others)
