"""The configuration that a worker receives: settings, secrets and the supervisor's listeners.

Only the supervisor reads files and resolves secrets. So all workers serve the same configuration, a
command that prints a secret runs once, and a passphrase is prompted for once.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.auth.egress import ResolvedEgress
from proxy.config.route import RouteSettings
from proxy.config.settings import Settings
from proxy.http.address import ListenAddress
from proxy.process.worker_listeners import ListenerOffer
from proxy.routing.route_secrets import ResolvedSecrets
from proxy.secrets.key_pair import KeyPair
from proxy.secrets.secret import Secret


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """One configuration.

    found    the secrets of each route, by its name
    inbound  the inbound token, None without one
    offers   every listener of the supervisor
    own      further addresses of keyrelay, which no route may have as its upstream
    key_pair  the certificate of the TLS listeners, None without one
    """

    settings: Settings
    found: Mapping[str, ResolvedSecrets]
    inbound: Secret | None
    offers: tuple[ListenerOffer, ...]
    own: tuple[ListenAddress, ...] = ()
    key_pair: KeyPair | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the configuration as JSON-able data, secrets included: for the channel only."""
        return {
            # Unset fields stay unset: some settings are invalid where they have no effect.
            "settings": self.settings.model_dump(mode="json", by_alias=True, exclude_unset=True),
            "found": {
                name: {
                    "secrets": {
                        secret: [secret_as_json(one) for one in values]
                        for secret, values in found.secrets.items()
                    },
                    "lacking": dict(found.lacking),
                    "egress": {
                        "proxy": None
                        if found.egress.proxy is None
                        else secret_as_json(found.egress.proxy),
                        "no_proxy": found.egress.no_proxy,
                        "authorities": found.egress.authorities,
                    },
                }
                for name, found in self.found.items()
            },
            "inbound": None if self.inbound is None else secret_as_json(self.inbound),
            "offers": [[one.text, one.owner, _address(one.address)] for one in self.offers],
            "own": [_address(one) for one in self.own],
            "key_pair": None
            if self.key_pair is None
            else [self.key_pair.certificate.decode("ascii"), self.key_pair.key.decode("ascii")],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> WorkerConfig:
        """Parse the output of ``as_json``."""
        inbound = document["inbound"]
        return cls(
            Settings.model_validate(document["settings"]),
            {
                name: ResolvedSecrets(
                    {
                        secret: tuple(secret_from_json(one) for one in values)
                        for secret, values in found["secrets"].items()
                    },
                    found["lacking"],
                    _egress(found["egress"]),
                )
                for name, found in document["found"].items()
            },
            None if inbound is None else secret_from_json(inbound),
            tuple(
                ListenerOffer(text, owner, ListenAddress(*address))
                for text, owner, address in document["offers"]
            ),
            tuple(ListenAddress(*address) for address in document["own"]),
            # The supervisor renews it.
            None
            if document["key_pair"] is None
            else KeyPair(*(text.encode("ascii") for text in document["key_pair"])),
        )


def _egress(document: Mapping[str, Any]) -> ResolvedEgress:
    proxy = document["proxy"]
    return ResolvedEgress(
        None if proxy is None else secret_from_json(proxy),
        document["no_proxy"],
        document["authorities"],
    )


def share_of(settings: Settings, index: int, workers: int) -> Settings:
    """Return the settings of one of ``workers`` workers, with its share of each bound.

    The shares add up to the bound, but each is at least 1.
    """
    routes = {
        name: route.model_copy(update=dict(_shares(route, index, workers)))
        for name, route in settings.routes.items()
    }
    connections = _share(settings.max_connections, index, workers)
    return settings.model_copy(update={"routes": routes, "max_connections": connections})


def _shares(route: RouteSettings, index: int, workers: int) -> Iterable[tuple[str, int | str]]:
    if route.concurrency is not None:
        yield "concurrency", _share(route.concurrency, index, workers)
    if route.rate is not None:
        number, _, span = route.rate.partition("/")
        yield "rate", f"{_share(int(number), index, workers)}/{span}"


def _share(bound: int, index: int, workers: int) -> int:
    return max(1, bound // workers + (index < bound % workers))


def _address(address: ListenAddress) -> list[str | int | None]:
    return [address.host, address.port, address.unix_path, address.tls]


def secret_as_json(secret: Secret) -> dict[str, str]:
    """Return a secret as JSON-able data, for the channel only: it holds the value."""
    value = base64.b64encode(secret.reveal()).decode("ascii")
    return {"name": secret.name, "value": value, "reference": secret.reference}


def secret_from_json(document: dict[str, str]) -> Secret:
    """Parse the output of ``secret_as_json``."""
    value = base64.b64decode(document["value"])
    return Secret(document["name"], value, document["reference"])
