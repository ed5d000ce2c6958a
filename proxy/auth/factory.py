"""Build the strategies of a route from its settings and secrets.

Reveals the secrets that are sent to the provider.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from proxy.auth.credential import Credential, SecretState, StaticCredential
from proxy.auth.injection import Placements
from proxy.auth.secret_rotation import RotatingCredential, Variant
from proxy.auth.strategy import AuthContext, Strategy
from proxy.auth.token_cache import TokenCache
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
    """Return the strategies whose secrets are all available, in order. Does no I/O.

    A strategy whose secret has several values tries them in order. Without ``context`` the
    strategies are for display only: ``<token>`` replaces the token.

    Raises SecretUnavailable for a value that does not fit its placement.
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
    """Return a strategy; its credential rotates if a secret has several values."""
    used = {one: secrets[one] for one in sorted(settings.secret_names)}
    turns = range(max(map(len, used.values()), default=1))
    sets = [
        {one: given[min(turn, len(given) - 1)].reveal() for one, given in used.items()}
        for turn in turns
    ]
    # Per variant the token in use and its predecessor.
    recent: deque[bytes] = deque(maxlen=2 * len(turns))
    names = {name: given[0].reference for name, given in used.items()}
    placements = Placements(settings.http, settings.websocket)
    variants = [
        Variant(
            _build(
                _Parts(route, whole, settings, placements, names, recent, context),
                sets[turn],
                sets[:turn] + sets[turn + 1 :],
                tuple(_source(given[min(turn, len(given) - 1)]) for given in used.values()),
            ),
            # Without the secrets that all variants share: no rejection is due to one of those.
            tuple(given[turn] for given in used.values() if turn < len(given) > 1),
        )
        for turn in turns
    ]
    credential = variants[0].credential
    if context is not None and len(variants) > 1:
        credential = RotatingCredential(
            variants,
            refused=frozenset(settings.refused),
            clock=context.clock,
            warn=lambda line: context.warn(f"{route}: {line}"),
        )
    paths = PatternSet(settings.paths) if settings.paths else None
    return Strategy(name, paths, placements, credential)


def _source(secret: Secret) -> SecretState:
    return SecretState(secret.name, secret.reference, secret.fingerprint())


def name_of(settings: StrategySettings, position: int) -> str:
    """Return the name of a strategy: as configured, else by its position in the list, from 1."""
    return settings.name or f"strategy {position}"


@dataclass(frozen=True, slots=True, repr=False)
class _Parts:
    """Common inputs of all variants of a credential.

    references  the sources of the secrets, by name
    recent      the last tokens of all variants
    """

    route: str
    whole: RouteSettings
    settings: StrategySettings
    placements: Placements
    references: Mapping[str, str]
    recent: deque[bytes]
    context: AuthContext | None


def _build(
    parts: _Parts,
    values: dict[str, bytes],
    others: Sequence[Mapping[str, bytes]],
    sources: tuple[SecretState, ...],
) -> Credential:
    """Return the credential for one set of values; ``others`` are those of its other variants."""
    settings = parts.settings
    try:
        if settings.token is not None and parts.context is not None:
            return _build_token(parts, settings.token, parts.context, values, others, sources)
        if settings.token is not None:
            values = {**values, "token": b"<token>"}
            others = [{**one, "token": b"<token>"} for one in others]
        return StaticCredential(parts.placements.inject(values, others), sources)
    except ValueError as error:
        raise SecretUnavailable(", ".join(sorted(values)), str(error)) from None


def _build_token(
    parts: _Parts,
    token: TokenSettings,
    context: AuthContext,
    values: dict[str, bytes],
    others: Sequence[Mapping[str, bytes]],
    sources: tuple[SecretState, ...],
) -> Credential:
    # Here, because most configurations have no token, and its sources are a dozen modules.
    from proxy.auth.token_credential import TokenCredential
    from proxy.auth.tokens.factory import make_source
    from proxy.auth.tokens.inputs import SourceInputs, identity_of
    from proxy.auth.tokens.oauth2_factory import make_prover

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
        authorities=context.authorities,
        egress_proxy=context.egress_proxy,
    )

    def warn(line: str) -> None:
        context.warn(f"{parts.route}: {line}")

    def make() -> TokenCache:
        return TokenCache(
            make_source(token, inputs, context),
            context.clock,
            context.spawn,
            warn=warn,
            # With several values the rotation reports which of them is used.
            trouble=None if others else warn,
        )

    # Also created if the cache exists already: it checks that the secrets fit.
    prover = make_prover(token, values, context)
    cache = (
        make() if context.caches is None else context.caches.cache(identity_of(token, inputs), make)
    )
    try:
        return TokenCredential(
            cache,
            parts.placements,
            values=values,
            others=others,
            sources=sources,
            recent=parts.recent,
            refused=frozenset(token.refused),
            vends=not (isinstance(token, Jwt) and token.discloses),
            prove=None if prover is None else partial(prover.bound_to, _origin(upstream)),
        )
    except ValueError:
        cache.close()
        raise


def _origin(upstream: str) -> str:
    """Return scheme and authority of the upstream, as in requests to it."""
    return str(parse_upstream(upstream)[0])
