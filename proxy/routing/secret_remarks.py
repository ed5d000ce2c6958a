"""What is odd about the values of a route's secrets, judged by where they are placed."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.config.placement import BasicPlacement, HeaderPlacement
from proxy.config.route import RouteSettings
from proxy.config.template import parse_template
from proxy.routing.route_secrets import ResolvedSecrets
from proxy.secrets.oddities import Usage


@dataclass(frozen=True, slots=True)
class SecretRemark:
    """One oddity of a value: the secret's name, what was found, and what to do. Never the value."""

    secret: str
    reference: str
    finding: str
    advice: str

    def __str__(self) -> str:
        return f"{self.secret}: the value from {self.reference} {self.finding}; {self.advice}"


def secret_remarks(settings: RouteSettings, found: ResolvedSecrets) -> tuple[SecretRemark, ...]:
    """Describe the oddities of all values of a route's secrets."""
    remarks = []
    for name, values in found.secrets.items():
        if name not in settings.secrets:
            continue
        usage = _usage(name, settings)
        for secret in values:
            for text in secret.oddities(usage):
                finding, _, advice = text.partition(": ")
                remarks.append(SecretRemark(name, secret.reference, finding, advice))
    return tuple(remarks)


def _usage(name: str, settings: RouteSettings) -> Usage:
    """How the placements use a secret."""
    schemes: set[str] = set()
    whole_field = password = False
    for strategy in settings.auth:
        for placement in (*(strategy.http or ()), *(strategy.websocket or ())):
            if isinstance(placement, BasicPlacement):
                names = {
                    one for t in placement.templates.values() for one in parse_template(t).names
                }
                password = password or name in names
            elif isinstance(placement, HeaderPlacement):
                pieces = parse_template(placement.value).pieces
                if pieces == (name,):
                    whole_field = whole_field or placement.header.lower() == "authorization"
                elif len(pieces) > 1 and pieces[1] == name and isinstance(pieces[0], bytes):
                    schemes.add(pieces[0].decode("ascii").strip().lower())
    secret = settings.secrets[name]
    return Usage(
        schemes, whole_field, password, document=secret.multiline, placeholder=secret.placeholder
    )
