"""proxy.routing.route_secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from proxy.config.route import RouteSettings
from proxy.config.secret import SecretSettings
from proxy.config.settings import Settings
from proxy.config.template import parse_template
from proxy.config.token import ClientCredentials, JwtBearer, RefreshToken, Request, TokenSettings
from proxy.errors import SecretUnavailable
from proxy.http.address import Origin, parse_upstream
from proxy.secrets import resolver
from proxy.secrets.envelope import seal_binding
from proxy.secrets.secret import Secret

Resolve = Callable[[str, SecretSettings], tuple[Secret, ...]]
"""Reads a secret: every value of it that is there, or raises SecretUnavailable."""


@dataclass(frozen=True, slots=True)
class ResolvedSecrets:
    """The secrets of a route as they were read.

    secrets  those that are there; several values of one while it is rotated, the first to be used
    lacking  what to do about each of the others, by its name
    """

    secrets: Mapping[str, tuple[Secret, ...]]
    lacking: Mapping[str, str]

    def same(self, other: ResolvedSecrets) -> bool:
        """Whether ``other`` has the same values from the same places."""
        return self._digests() == other._digests() and self.lacking.keys() == other.lacking.keys()

    def _digests(self) -> dict[str, list[tuple[str, bytes]]]:
        return {
            name: [(one.reference, one.digest()) for one in values]
            for name, values in self.secrets.items()
        }


def find_secrets(settings: RouteSettings, resolve: Resolve) -> ResolvedSecrets:
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
    return ResolvedSecrets(secrets, lacking)


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


def variables_in(settings: Settings) -> frozenset[str]:
    """Every variable of the environment that a secret of these settings may come from."""
    own = () if settings.inbound_token is None else (settings.inbound_token,)
    secrets = (one for route in settings.routes.values() for one in route.secrets.values())
    return resolver.variables_of((*own, *secrets))


def hidden_from(settings: RouteSettings, variables: frozenset[str]) -> frozenset[str]:
    """Of ``variables``, those of all secrets, what commands of this route do not get to see."""
    return variables - resolver.variables_of(settings.secrets.values())


def secrets_of(
    name: str, settings: RouteSettings, variables: frozenset[str] = frozenset()
) -> ResolvedSecrets:
    """The secrets of a route as they are now. Blocking: programs may be asked for them.

    Of ``variables``, those of all secrets, such a program inherits the route's own.
    """
    assert settings.upstream is not None, "the loader lets no route without upstream pass"
    place = seal_binding(name, settings.upstream)
    hidden = hidden_from(settings, variables)
    return find_secrets(settings, partial(resolver.resolve_all, binding=place, hidden=hidden))


def read_secrets(settings: Settings) -> dict[str, ResolvedSecrets]:
    """The secrets of every route, by its name. Blocking, as ``secrets_of``."""
    variables = variables_in(settings)
    return {name: secrets_of(name, route, variables) for name, route in settings.routes.items()}
