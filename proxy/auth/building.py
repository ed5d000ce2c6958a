"""From a route's settings and its secrets to its strategies. Secrets are revealed here alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import SecretUnavailable
from ..outgoing import Injection
from ..patterns import PatternSet
from ..placements import Placement
from ..secret import Secret
from ..settings import RouteSettings, StrategySettings
from .base import Strategy
from .injecting import inject
from .static import StaticStrategy


def build_strategies(
    settings: RouteSettings, secrets: Mapping[str, Secret]
) -> tuple[Strategy, ...]:
    """The strategies whose secrets are all there, in order. Building does no I/O.

    Raises SecretUnavailable for a value that cannot be put into its placement.
    """
    return tuple(
        _build(one, name_of(one, position), secrets)
        for position, one in enumerate(settings.auth, 1)
        if one.secret_names <= secrets.keys() and settings.strategy in {None, one.name}
    )


def name_of(settings: StrategySettings, position: int) -> str:
    """What a strategy is called: as configured, else by its place in the list, from 1."""
    return settings.name or f"strategy {position}"


def _build(settings: StrategySettings, name: str, secrets: Mapping[str, Secret]) -> Strategy:
    values = {one: secrets[one].reveal() for one in settings.secret_names}

    def injection(placements: Iterable[Placement] | None) -> Injection | None:
        return None if placements is None else inject(placements, values)

    try:
        return StaticStrategy(
            name,
            PatternSet(settings.paths) if settings.paths else None,
            http=injection(settings.http),
            websocket=injection(settings.websocket),
        )
    except ValueError as error:
        raise SecretUnavailable(", ".join(sorted(values)), str(error)) from None
