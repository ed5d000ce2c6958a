"""What the YAML may say: one vocabulary for routes and for presets.

Every field says its unit, its default and the reason; editors show these texts through the JSON
Schema. The models check each value by itself; what only the whole file can tell (does the provider
exist, do two routes overlap) is checked by ``loader``. No I/O, neither aiohttp nor asyncio.

A validator raises ``ValueError``: the first line of its message says what is wrong, the second what
to write. Neither ever repeats a value, which may be a secret in the wrong place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from proxy.config.fields import Flag, Line, Node, Seconds, check_host, check_route_name, checked_by
from proxy.config.route import Listen, RouteSettings
from proxy.config.secret import AnySecret
from proxy.http.address import parse_browser_origin, parse_listen


class Browsers(Node):
    """Which pages may use the routes."""

    origins: tuple[Annotated[str, checked_by(parse_browser_origin)], ...] = Field(
        default=(),
        description="Exact origins of pages, such as `http://localhost:5173`. None by default: any "
        "page in your browser could otherwise spend your keys. Never `null` or `*`.",
    )


def _check_admin_listen(text: str) -> None:
    if parse_listen(text).exposed:
        raise ValueError(
            "the admin listener stays on this machine, whatever token clients bring\n"
            "listen on 127.0.0.1, [::1] or unix:/path, and tunnel to it from elsewhere"
        )


class AdminSettings(Node):
    """Where keyrelay itself can be looked at: status, metrics, reload, the live inspector."""

    listen: Annotated[str, checked_by(_check_admin_listen)] = Field(
        default="127.0.0.1:8081",
        description="One address on loopback, or `unix:/abs/path`; 127.0.0.1:8081 by default. "
        "Never beyond this machine, whatever token clients bring: use a tunnel for that.",
    )


class Settings(Node):
    """The whole file."""

    admin: AdminSettings | None = Field(
        default=None,
        description="The admin listener with the live inspector, `/metrics` and what `keyrelay "
        "status` asks. Off by default. A new token is printed at every start.",
    )

    inbound_token: AnySecret | None = Field(
        default=None,
        description="A secret that every request has to bring, as `Authorization: Bearer`, "
        "`X-Keyrelay-Token`, or WebSocket subprotocol `keyrelay.token.…`. None by default, since "
        "only this machine can connect. Needed to listen beyond loopback.",
    )
    hosts: tuple[Annotated[str, checked_by(check_host)], ...] = Field(
        default=(),
        description="More host names under which keyrelay is called, such as a container's "
        "`keyrelay`. By default 127.0.0.1, localhost, [::1] and <route>.localhost.",
    )
    peer_uid: Literal["off", "warn", "enforce"] = Field(
        default="warn",
        description="What happens when another user of this machine connects: `warn` once (the "
        "default), `enforce` refuses, `off` does not look. Linux only.",
    )
    max_connections: int = Field(
        default=1024,
        ge=1,
        strict=True,
        description="Connections of clients at the same time, open WebSockets aside; more get 503. "
        "1024 by default.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        strict=True,
        description="Processes that serve; another one supervises them if there are several. 1 by "
        "default, which fills one core. `rate`, `concurrency` and `max_connections` are shared out "
        "among them. Changed by a restart.",
    )

    listen: Listen = Field(
        default=("127.0.0.1:8080",),
        min_length=1,
        description="Address or list of addresses: `127.0.0.1:8080`, `'[::1]:8080'` (in quotes) or "
        "`unix:/abs/path`. Port 0 takes a free one. Loopback only, as whoever can connect spends "
        "your keys; with `inbound_token` also others, such as `0.0.0.0:8080`.",
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
    tracing: Flag = Field(
        default=False,
        description="Whether each exchange with a provider becomes a span of OpenTelemetry. Where "
        "spans go is said by its variables `OTEL_…`; needs `pip install 'keyrelay[tracing]'`. "
        "False by default: the client's own `traceparent` passes through. Changed by a restart.",
    )
    drain_seconds: Seconds = Field(
        default=10,
        ge=0,
        le=600,
        description="Seconds that what is in flight has to end after SIGTERM. 10 by default, "
        "as long as container engines wait.",
    )
    keepalive_seconds: Seconds = Field(
        default=75,
        ge=0,
        le=3_600,
        description="Seconds that an unused connection of a client is kept. 75 by default, "
        "longer than clients keep theirs.",
    )
    head_timeout_seconds: Seconds = Field(
        default=15,
        gt=0,
        le=300,
        description="Seconds in which a client has to send the head of a request. 15 by default; "
        "a slower one holds a connection for nothing.",
    )
