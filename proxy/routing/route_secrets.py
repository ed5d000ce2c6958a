"""Resolve the secrets of routes, each only for the destinations that it may be sent to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from proxy.auth.egress import ResolvedEgress, find_egress
from proxy.config.oauth2 import OAuth2
from proxy.config.route import RouteSettings
from proxy.config.secret import SecretSettings
from proxy.config.settings import Settings
from proxy.config.template import parse_template
from proxy.config.token import Request, TokenSettings
from proxy.errors import SecretUnavailable
from proxy.http.address import Origin, parse_upstream
from proxy.secrets import resolver
from proxy.secrets.envelope import seal_binding
from proxy.secrets.secret import Secret

Resolve = Callable[[str, SecretSettings], tuple[Secret, ...]]
"""Resolves a secret to all of its available values; raises SecretUnavailable without one."""


@dataclass(frozen=True, slots=True)
class ResolvedSecrets:
    """The resolved secrets of a route.

    secrets  the available ones by name; several values during a rotation, the preferred one first
    lacking  the correction for each unavailable one, by name, and for ``egress_proxy`` and
             ``ca_file``
    egress   the way to the provider
    """

    secrets: Mapping[str, tuple[Secret, ...]]
    lacking: Mapping[str, str]
    egress: ResolvedEgress = field(default_factory=ResolvedEgress)

    def same(self, other: ResolvedSecrets) -> bool:
        """Whether ``other`` has the same values from the same sources."""
        return (
            self._digests() == other._digests()
            and self.lacking.keys() == other.lacking.keys()
            and self.egress.same(other.egress)
        )

    def _digests(self) -> dict[str, list[tuple[str, bytes]]]:
        return {
            name: [(one.reference, one.digest()) for one in values]
            for name, values in self.secrets.items()
        }


def find_secrets(settings: RouteSettings, resolve: Resolve) -> ResolvedSecrets:
    """Resolve the secrets of a route. Blocking if ``resolve`` is.

    A sealed value that is used for a token endpoint at another origin is not unsealed: it is sealed
    for the upstream, and write access to the routes file must not suffice to redirect it.
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
    """Names of the secrets that are sent to a token endpoint at another origin."""
    assert settings.upstream is not None, "the loader rejects a route without upstream"
    origin, _ = parse_upstream(settings.upstream)
    return frozenset(
        name
        for strategy in settings.auth
        if strategy.token is not None and not _stays(strategy.token, origin)
        for text in strategy.token.templates.values()
        for name in parse_template(text).names - strategy.token.given
    )


def _stays(token: TokenSettings, origin: Origin) -> bool:
    """Whether the credentials of the token source are sent to that origin alone, or nowhere."""
    if not isinstance(token, OAuth2 | Request):
        return True
    if token.url.startswith("/"):
        return True
    # With a placeholder in the authority the secret determines the host.
    authority = "/".join(token.url.split("/")[:3]).partition("?")[0]
    return "{" not in authority and parse_upstream(authority)[0] == origin


def variables_in(settings: Settings) -> frozenset[str]:
    """Every environment variable that is a source of a secret in these settings."""
    own = [] if settings.inbound_token is None else [settings.inbound_token]
    own += [] if settings.tokens is None else settings.tokens.secrets
    secrets = (one for route in settings.routes.values() for one in route.secrets.values())
    # The variable with a proxy's URL is not one of keyrelay's: other programs need it too.
    proxies = (route.egress_proxy for route in settings.routes.values())
    passwords = (one.password for one in proxies if one is not None and one.password is not None)
    return resolver.variables_of((*own, *secrets, *passwords))


def hidden_from(settings: RouteSettings, variables: frozenset[str]) -> frozenset[str]:
    """Environment variables that commands of this route must not inherit.

    ``variables`` are those of all secrets; the route's own are excepted.
    """
    return variables - resolver.variables_of(settings.every_secret)


def secrets_of(
    name: str, settings: RouteSettings, variables: frozenset[str] = frozenset()
) -> ResolvedSecrets:
    """Resolve the current secrets of a route. Blocking: a source may be a command.

    Of ``variables``, those of all secrets, such a command inherits only the route's own.
    """
    assert settings.upstream is not None, "the loader rejects a route without upstream"
    binding = seal_binding(name, settings.upstream)
    hidden = hidden_from(settings, variables)
    found = find_secrets(settings, partial(resolver.resolve_all, binding=binding, hidden=hidden))
    lacking = dict(found.lacking)
    egress = find_egress(settings, lacking, hidden)
    return ResolvedSecrets(found.secrets, lacking, egress)


def read_secrets(settings: Settings) -> dict[str, ResolvedSecrets]:
    """Resolve the secrets of every route, by its name. Blocking, as ``secrets_of``."""
    variables = variables_in(settings)
    return {name: secrets_of(name, route, variables) for name, route in settings.routes.items()}
