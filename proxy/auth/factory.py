"""From a route's settings and its secrets to its strategies.

What goes to a provider is revealed here and nowhere else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from proxy.auth.injection import Injection, inject
from proxy.auth.secret_rotation import RotatingStrategy, Variant
from proxy.auth.strategy import AuthContext, StaticStrategy, Strategy
from proxy.auth.token_cache import TokenCache
from proxy.auth.token_strategy import TokenStrategy
from proxy.auth.tokens.factory import make_source
from proxy.auth.tokens.inputs import SourceInputs, identity_of
from proxy.auth.tokens.oauth2_factory import make_prover
from proxy.config.placement import Placement
from proxy.config.route import RouteSettings, StrategySettings
from proxy.config.token import Jwt, TokenSettings
from proxy.errors import SecretUnavailable
from proxy.http.address import parse_upstream
from proxy.http.path_patterns import PatternSet
from proxy.secrets.secret import Secret


def build_strategies(
    route: str,
    settings: RouteSettings,
    secrets: Mapping[str, tuple[Secret, ...]],
    context: AuthContext | None,
) -> tuple[Strategy, ...]:
    """The strategies whose secrets are all there, in order. Building does no I/O.

    Where a secret has several values the strategy tries them in their order. Without ``context``
    the strategies are only for showing: ``<token>`` stands where a token would be.

    Raises SecretUnavailable for a value that cannot be used where it is meant to be.
    """
    return tuple(
        _build_all(one, name_of(one, position), secrets, route, settings, context)
        for position, one in enumerate(settings.auth, 1)
        if one.secret_names <= secrets.keys() and settings.strategy in {None, one.name}
    )


def _build_all(
    settings: StrategySettings,
    name: str,
    secrets: Mapping[str, tuple[Secret, ...]],
    route: str,
    whole: RouteSettings,
    context: AuthContext | None,
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
    names = {name: given[0].reference for name, given in used.items()}
    variants = [
        Variant(
            _build(
                _Parts(route, whole, settings, name, names, recent, context),
                sets[turn],
                sets[:turn] + sets[turn + 1 :],
            ),
            # What all variants share is nothing that one of them could be refused for.
            tuple(given[turn] for given in used.values() if turn < len(given) > 1),
        )
        for turn in turns
    ]
    if context is None or len(variants) == 1:
        return variants[0].strategy
    return RotatingStrategy(
        name,
        PatternSet(settings.paths) if settings.paths else None,
        variants,
        refused=frozenset(settings.refused),
        clock=context.clock,
        warn=lambda line: context.warn(f"{route}: {line}"),
    )


def name_of(settings: StrategySettings, position: int) -> str:
    """What a strategy is called: as configured, else by its place in the list, from 1."""
    return settings.name or f"strategy {position}"


@dataclass(frozen=True, slots=True)
class _Parts:
    """What all variants of a strategy are built from.

    references  where the secrets come from, by name
    recent      the last tokens of all variants
    """

    route: str
    whole: RouteSettings
    settings: StrategySettings
    name: str
    references: Mapping[str, str]
    recent: deque[bytes]
    context: AuthContext | None

    @property
    def paths(self) -> PatternSet | None:
        return PatternSet(self.settings.paths) if self.settings.paths else None


def _build(
    parts: _Parts, values: dict[str, bytes], others: Sequence[Mapping[str, bytes]]
) -> Strategy:
    """The strategy for one set of values; ``others`` are the values of its other variants."""
    settings = parts.settings
    try:
        if settings.token is not None and parts.context is not None:
            return _build_token(parts, settings.token, parts.context, values, others)
        if settings.token is not None:
            values = {**values, "token": b"<token>"}
            others = [{**one, "token": b"<token>"} for one in others]
        return StaticStrategy(
            parts.name,
            parts.paths,
            http=_injection(settings.http, values, others),
            websocket=_injection(settings.websocket, values, others),
        )
    except ValueError as error:
        raise SecretUnavailable(", ".join(sorted(values)), str(error)) from None


def _build_token(
    parts: _Parts,
    token: TokenSettings,
    context: AuthContext,
    values: dict[str, bytes],
    others: Sequence[Mapping[str, bytes]],
) -> Strategy:
    upstream = parts.whole.upstream
    assert upstream is not None
    base = upstream.rstrip("/")
    inputs = SourceInputs(
        values,
        base,
        allow_private=parts.whole.allow_private,
        allow_plaintext=parts.whole.allow_plaintext,
        references=parts.references,
        route=parts.route,
    )

    def warn(line: str) -> None:
        context.warn(f"{parts.route}: {line}")

    def make() -> TokenCache:
        return TokenCache(
            make_source(token, inputs, context),
            context.clock,
            context.spawn,
            warn=warn,
            # With several values the strategy reports which of them takes over.
            trouble=None if others else warn,
        )

    # Also made where the cache exists already: this checks at once whether the secrets fit.
    prover = make_prover(token, values, context)
    cache = (
        make() if context.caches is None else context.caches.cache(identity_of(token, inputs), make)
    )
    try:
        return TokenStrategy(
            parts.name,
            parts.paths,
            cache,
            http=parts.settings.http,
            websocket=parts.settings.websocket,
            values=values,
            others=others,
            recent=parts.recent,
            refused=frozenset(token.refused),
            vends=not (isinstance(token, Jwt) and token.discloses),
            prove=None if prover is None else partial(prover.bound_to, _origin(upstream)),
        )
    except ValueError:
        cache.close()
        raise


def _origin(upstream: str) -> str:
    """Scheme and authority of the upstream, as requests are sent there."""
    return str(parse_upstream(upstream)[0])


def _injection(
    placements: Iterable[Placement] | None,
    values: Mapping[str, bytes],
    others: Sequence[Mapping[str, bytes]],
) -> Injection | None:
    return None if placements is None else inject(placements, values, others)
