"""The way to a route's provider: its egress proxy with credentials, and its further CAs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_from_bytes

from proxy.config.egress import DIRECT, EgressProxySettings
from proxy.config.route import RouteSettings
from proxy.errors import ConfigValueError, SecretUnavailable
from proxy.secrets import resolver
from proxy.secrets.env import variable
from proxy.secrets.secret import Secret
from proxy.upstream.authorities import read_authorities
from proxy.upstream.egress_proxy import EgressProxy, parse_proxy_url

PROXY = "egress_proxy"
CA_FILE = "ca_file"


@dataclass(frozen=True, slots=True)
class ResolvedEgress:
    """What was read for the way to the provider.

    proxy        URL of the proxy, with user name and password; None without a proxy
    no_proxy     as ``NoProxy`` takes it
    authorities  further CAs in PEM
    """

    proxy: Secret | None = None
    no_proxy: str = ""
    authorities: str = ""

    def same(self, other: ResolvedEgress) -> bool:
        """Whether ``other`` is the same way."""
        return self._digests() == other._digests()

    def _digests(self) -> tuple[bytes | None, str, str]:
        digest = None if self.proxy is None else self.proxy.digest()
        return digest, self.no_proxy, self.authorities

    def egress_proxy(self) -> EgressProxy | None:
        """The proxy, None without one."""
        if self.proxy is None:
            return None
        return EgressProxy(self.proxy.reveal().decode("ascii"), self.no_proxy)


def find_egress(
    settings: RouteSettings, lacking: dict[str, str], hidden: Collection[str] = frozenset()
) -> ResolvedEgress:
    """Read the way to the provider; add to ``lacking`` what cannot be read. Blocking.

    ``hidden`` are environment variables that programs (``exec:``) do not inherit.
    """
    authorities = ""
    if settings.ca_file is not None:
        try:
            authorities = read_authorities(Path(settings.ca_file))
        except ConfigValueError as error:
            lacking[CA_FILE] = f"repair ca_file: {error.message}"
    wanted = settings.egress_proxy
    if wanted is None or wanted.url == DIRECT:
        return ResolvedEgress(authorities=authorities)
    try:
        proxy = Secret(PROXY, _url(wanted, hidden), wanted.url)
    except SecretUnavailable as error:
        lacking[PROXY] = f"{error.remedy} (for egress_proxy)"
        return ResolvedEgress(authorities=authorities)
    return ResolvedEgress(proxy, _no_proxy(wanted), authorities)


def _url(settings: EgressProxySettings, hidden: Collection[str]) -> bytes:
    """The URL with credentials. Raises SecretUnavailable."""
    text = settings.url
    if settings.reference is not None:
        text = resolver.resolve(PROXY, settings.reference, hidden=hidden).reveal().decode("latin-1")
        try:
            parse_proxy_url(text)
        except ConfigValueError as error:
            raise SecretUnavailable(
                PROXY, f"set {settings.url} to another value: {error.message}; {error.hint}"
            ) from None
    if settings.username is not None and settings.password is not None:
        password = resolver.resolve(PROXY, settings.password, hidden=hidden).reveal()
        scheme, separator, place = text.rpartition("://")
        credentials = f"{quote(settings.username, safe='')}:{quote_from_bytes(password, safe='')}"
        text = f"{scheme}{separator}{credentials}@{place.rpartition('@')[2]}"
    return text.encode("latin-1")


def _no_proxy(settings: EgressProxySettings) -> str:
    """The hosts without a proxy. Programs disagree on the case of the variable; either is read."""
    texts = []
    for entry in settings.excluded:
        name = entry.removeprefix("env:")
        if name == entry:
            texts.append(entry)
        else:
            texts.append(variable(name.lower()) or variable(name) or "")
    return ",".join(filter(None, texts))
