"""Global settings, the root model of a routes file.

Every field description has unit, default and reason; editors display it through the JSON Schema.
The models check each value by itself; ``loader`` and ``validation`` check what depends on the whole
file, such as unknown providers and overlapping routes. No I/O, neither aiohttp nor asyncio.

A validator raises ``ConfigValueError`` with a message and a hint. Neither quotes a value, which may
be a misplaced secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from proxy.config.egress import AnyEgressProxy, check_ca_file
from proxy.config.fields import Flag, Line, Node, Seconds, check_host, check_route_name, checked_by
from proxy.config.route import Listen, RouteSettings
from proxy.config.secret import AnySecret
from proxy.config.token_sharing import TokenSharing
from proxy.errors import ConfigValueError
from proxy.http.address import parse_browser_origin, parse_listen


class Browsers(Node):
    """Web pages that may use the routes."""

    origins: tuple[Annotated[str, checked_by(parse_browser_origin)], ...] = Field(
        default=(),
        description="Allowlist of exact page origins, such as `http://localhost:5173`. None by "
        "default: any page in your browser could otherwise use your keys. Never `null` or `*`.",
    )


def _check_admin_listen(text: str) -> None:
    address = parse_listen(text)
    if address.tls:
        raise ConfigValueError("the admin listener has no TLS", "write it without https://")
    if address.exposed:
        raise ConfigValueError(
            "the admin listener is for loopback only, also with a token",
            "listen on 127.0.0.1, [::1] or unix:/path, and tunnel to it from elsewhere",
        )


class AdminSettings(Node):
    """The admin listener: status, metrics, reload, and the live inspector."""

    listen: Annotated[str, checked_by(_check_admin_listen)] = Field(
        default="127.0.0.1:8081",
        description="One address on loopback, or `unix:/abs/path`; 127.0.0.1:8081 by default. "
        "Loopback only, also with a token: use a tunnel for access from elsewhere.",
    )


class TlsSettings(Node):
    """The certificate of the listeners with ``https://``."""

    certificate: Annotated[str, checked_by(check_ca_file)] = Field(
        description="PEM file with the certificate, and those between it and its authority, "
        "relative to this file.",
    )
    key: Annotated[str, checked_by(check_ca_file)] = Field(
        description="PEM file with its private key, not encrypted, relative to this file. Other "
        "users must not be able to read it.",
    )

    def below(self, folder: Path) -> TlsSettings:
        """Return the settings with absolute paths; relative ones are below ``folder``."""
        paths = {
            name: str((folder / getattr(self, name)).absolute()) for name in ("certificate", "key")
        }
        return self.model_copy(update=paths)


class Settings(Node):
    """The whole file."""

    admin: AdminSettings | None = Field(
        default=None,
        description="The admin listener with the live inspector, `/metrics` and the data of "
        "`keyrelay status`. Off by default. A new token is printed at every start.",
    )

    inbound_token: AnySecret | None = Field(
        default=None,
        description="A secret that every request must carry, as `Authorization: Bearer`, "
        "`X-Keyrelay-Token`, or WebSocket subprotocol `keyrelay.token.…`. None by default, since "
        "only this machine can connect. Needed to listen beyond loopback.",
    )
    hosts: tuple[Annotated[str, checked_by(check_host)], ...] = Field(
        default=(),
        description="Further host names at which keyrelay is reached, such as a container's "
        "`keyrelay`. `keyrelay.<namespace>.svc` covers a Kubernetes Service's `keyrelay` and "
        "`keyrelay.<namespace>.svc.cluster.local` as well. By default 127.0.0.1, localhost, [::1] "
        "and <route>.localhost.",
    )
    peer_uid: Literal["off", "warn", "enforce"] = Field(
        default="warn",
        description="What happens when another user of this machine connects: `warn` once (the "
        "default), `enforce` refuses, `off` does not check. Linux only.",
    )
    max_connections: int = Field(
        default=1024,
        ge=1,
        strict=True,
        description="Maximum client connections, not counting open WebSockets; more get 503. "
        "1024 by default.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        strict=True,
        description="Worker processes; a further process supervises them if there are several. 1 "
        "by default, which uses one core. `rate`, `concurrency` and `max_connections` are divided "
        "among them. Changed by a restart.",
    )

    listen: Listen = Field(
        default=("127.0.0.1:8080",),
        min_length=1,
        description="Address or list of addresses: `127.0.0.1:8080`, `'[::1]:8080'` (in quotes) or "
        "`unix:/abs/path`. Port 0 takes a free one. `https://127.0.0.1:8443` listens with TLS. "
        "Loopback only, as every client that connects uses your keys; with `inbound_token` also "
        "others, such as `0.0.0.0:8080`.",
    )
    tls: TlsSettings | None = Field(
        default=None,
        description="Certificate and key of the listeners with `https://`. By default keyrelay "
        "issues a certificate for localhost by the authority that `keyrelay ca` makes.",
    )
    browsers: Browsers = Field(
        default=Browsers(), description="Pages that may use the routes. None by default."
    )
    providers: tuple[Line, ...] = Field(
        default=(),
        description="Directories with presets of your own, one `<name>.yaml` each, relative to "
        "this file. One of yours replaces the shipped one of the same name. None by default.",
    )
    routes: Mapping[Annotated[str, checked_by(check_route_name)], RouteSettings] = Field(
        default={}, description="The routes by name. At least one."
    )
    egress_proxy: AnyEgressProxy | None = Field(
        default=None,
        description="The HTTP proxy through which providers and token endpoints are reached, by "
        "CONNECT: `http://proxy.example:3128`, `env:HTTPS_PROXY`, or a mapping with user name and "
        "password. None by default, whatever the environment has. Routes may have their own.",
    )
    ca_file: Annotated[str, checked_by(check_ca_file)] | None = Field(
        default=None,
        description="PEM file with certificate authorities to trust beside the system's, relative "
        "to this file. None by default. Routes may have their own.",
    )
    tokens: TokenSharing | None = Field(
        default=None,
        description="Tokens that several keyrelays with the same routes share through Redis, so "
        "that each is obtained once for all. None by default: each keyrelay obtains its own. "
        "Changed by a restart.",
    )
    tracing: Flag = Field(
        default=False,
        description="Whether each exchange with a provider becomes a span of OpenTelemetry. Its "
        "variables `OTEL_…` set the collector; needs the extra `tracing`. False by default: the "
        "client's `traceparent` passes unchanged. Changed by a restart.",
    )
    drain_seconds: Seconds = Field(
        default=10,
        ge=0,
        le=600,
        description="Seconds for exchanges in flight to complete after SIGTERM (graceful "
        "shutdown). 10 by default, as long as container engines wait.",
    )
    keepalive_seconds: Seconds = Field(
        default=75,
        ge=0,
        le=3_600,
        description="Seconds that an unused connection of a client is kept. 75 by default, "
        "longer than clients keep theirs.",
    )
    dead_peer_seconds: Seconds = Field(
        default=60,
        ge=0,
        le=86_400,
        description="Seconds after which a connection is closed whose client or provider is gone "
        "without a trace (sleep, VPN, NAT), found by TCP keepalive probes and unacknowledged data. "
        "60 by default; 0 leaves it to the system. For data that a client on another machine does "
        "not take, five times as long.",
    )
    head_timeout_seconds: Seconds = Field(
        default=15,
        gt=0,
        le=300,
        description="Seconds for a client to send the header section of a request. 15 by default; "
        "a slower client occupies a connection without use.",
    )
