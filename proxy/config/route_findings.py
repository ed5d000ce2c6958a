"""Merge each route of a file with its preset, and find what is wrong with the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy.config.document import Document, display_key
from proxy.config.document import Path as Place
from proxy.config.fields import check_route_name, listed
from proxy.config.presets import (
    Preset,
    merge,
    secret_names,
    valid_strategies,
    validated,
)
from proxy.config.route import RouteSettings, StrategySettings
from proxy.config.token import Jwt
from proxy.config.unknown_keys import suggest
from proxy.config.validation import check_auth
from proxy.errors import ConfigValueError, Finding
from proxy.http.address import parse_listen, parse_upstream

# Stands for an invalid address in the checks of the others, which then find nothing about it.
_ANY_LISTENER = "127.0.0.1:0"


def complete_routes(
    document: Document,
    named: Mapping[str, Any],
    known: Mapping[str, Preset],
    findings: list[Finding],
) -> dict[str, RouteSettings]:
    """Return every route merged with its preset.

    Findings go to the document, those at a preset's position to ``findings``.
    """
    routes = {}
    for name, data in named.items():
        place: Place = ("routes", name)
        try:
            check_route_name(name)
        except ConfigValueError as error:
            document.add(document.position(place, key=True), error.message, error.hint)
        own, broken = validated(document, RouteSettings, data, place)
        strategies = valid_strategies(own, data, broken)
        if "listen" in broken and isinstance(data, dict):
            own = own.model_copy(update={"listen": valid_listeners(data.get("listen"))})
        preset = known.get(own.provider or "")
        route = _Route(document, name, place, own, strategies, broken, preset, findings)
        routes[name] = route.complete(known)
    return routes


def valid_listeners(value: Any) -> tuple[str, ...]:
    """Return the addresses of an invalid ``listen``, with a stand-in for each invalid one."""
    addresses = []
    for text in listed(value):
        try:
            parse_listen(text)
        except (ValueError, AttributeError):
            text = _ANY_LISTENER
        addresses.append(text)
    return tuple(addresses)


@dataclass(frozen=True, slots=True)
class _Route:
    """One route during validation: its own settings and its preset."""

    document: Document
    name: str
    place: Place
    own: RouteSettings
    strategies: Mapping[int, StrategySettings]
    broken: frozenset[str]
    preset: Preset | None
    findings: list[Finding]

    def complete(self, known: Mapping[str, Preset]) -> RouteSettings:
        """Return the merged settings; add all findings about them."""
        merged = merge(self.preset.settings if self.preset else None, self.own, self.name)
        if self.own.provider is not None and self.preset is None:
            self.document.add(
                self.document.position((*self.place, "provider")),
                f"unknown provider {display_key(self.own.provider)}",
                suggest(self.own.provider, known),
            )
            # Secrets and auth of the intended preset are not known.
            self.findings.extend(check_auth(self.document, self.place, self.strategies, None))
            self._check_plaintext(merged)
            return merged
        broken = self.broken | (self.preset.broken if self.preset else frozenset())
        secrets = secret_names(self.document, self.place, merged)
        if self.preset is not None:
            secrets |= secret_names(self.preset.document, (), self.preset.settings)
        self.findings.extend(check_auth(self.document, self.place, self.strategies, secrets))
        self._check_secrets(merged)
        if merged.upstream is None and not {"upstream", "provider"} & broken:
            self._add((), "route has no upstream", "add upstream: https://…")
        if not merged.auth and not {"auth", "provider"} & broken:
            self._add(
                (),
                "route has no auth",
                "add provider:, or auth: with a placement",
            )
        self._check_plaintext(merged)
        self._check_vend(merged)
        names = {strategy.name for strategy in merged.auth if strategy.name}
        if merged.strategy is not None and merged.strategy not in names and "auth" not in broken:
            self._add(
                ("strategy",),
                f"unknown strategy {display_key(merged.strategy)}",
                suggest(merged.strategy, names) if names else "give the strategy a name:",
            )
        return merged

    def _add(self, below: Place, message: str, advice: str) -> None:
        """Add a finding at a field of the route, or of its preset if the field comes from there."""
        if below and below[0] not in self.own.model_fields_set and self.preset is not None:
            preset = self.preset.document  # shared between loads, so not modified
            found = Finding(preset.file, *preset.position(below), message, advice)
            self.findings.extend([found] if found not in self.findings else [])
            return
        self.document.add(
            self.document.position((*self.place, *below), key=not below), message, advice
        )

    def _check_secrets(self, merged: RouteSettings) -> None:
        """Report secrets that the preset does not define and no strategy uses: typing errors."""
        if self.preset is None or "auth" in self.own.model_fields_set:
            return
        for secret in self.own.secrets:
            if secret not in self.preset.settings.secrets:
                self.document.add(
                    self.document.position((*self.place, "secrets", secret), key=True),
                    f"the provider has no secret {display_key(secret)}",
                    suggest(secret, self.preset.settings.secrets),
                )

    def _check_vend(self, merged: RouteSettings) -> None:
        """Report tokens that would carry a secret to pages, a sealed one among them."""
        disclosed: set[str] = set()
        for strategy in merged.auth:
            if isinstance(strategy.token, Jwt):
                disclosed |= strategy.token.discloses
        if merged.vend and disclosed:
            self._add(
                ("vend",),
                f"the token can be read, and its claims contain {', '.join(sorted(disclosed))}",
                "remove vend:, or write the values themselves if they are no secrets",
            )

    def _check_plaintext(self, merged: RouteSettings) -> None:
        if merged.upstream is None or merged.allow_plaintext or "allow_plaintext" in self.broken:
            return
        origin, _ = parse_upstream(merged.upstream)
        if origin.scheme == "http" and not origin.loopback:
            self._add(
                ("upstream",),
                "the credential would go over plain http to another machine",
                "write https://, or allow_plaintext: true if the network path is trusted",
            )
