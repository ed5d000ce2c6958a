"""Settings of a route, and of a preset: both have the same keys.

The conventions of ``settings`` apply.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, model_validator

from proxy.config.egress import AnyEgressProxy, check_ca_file
from proxy.config.fields import (
    Flag,
    Line,
    Node,
    Seconds,
    check_base_template,
    check_header_field_name,
    check_method,
    check_rate,
    check_route_path,
    check_secret_name,
    check_strategy_path,
    check_verify,
    checked_by,
    listed,
)
from proxy.config.message_placement import check_messages, check_pointer
from proxy.config.placement import PLACEMENTS, MessagePlacement, Placement
from proxy.config.secret import AnySecret, SecretSettings
from proxy.config.template import parse_template
from proxy.config.token import TokenSettings
from proxy.errors import ConfigValueError
from proxy.http.address import parse_listen, parse_upstream
from proxy.http.path_patterns import check_pattern
from proxy.secrets.reference import check_env_name

Listen = Annotated[
    tuple[Annotated[str, checked_by(parse_listen)], ...],
    BeforeValidator(listed, json_schema_input_type=str | tuple[str, ...]),
]
_Placements = Annotated[
    tuple[Placement, ...],
    BeforeValidator(listed, json_schema_input_type=Placement | tuple[Placement, ...]),
]
_Pattern = Annotated[str, checked_by(check_pattern)]


NO_SECRET_USED: Final = (
    "no placement uses a secret",
    'name one in braces, as value: "{api_key}"; a secret itself never belongs in this file',
)
"""Message and hint for a strategy whose templates are all fixed."""


class StrategySettings(Node):
    """One way the provider authenticates: the credential, its placements, and the paths.

    A strategy written as a placement applies to HTTP and WebSocket requests; one in a message, to
    WebSockets.
    """

    name: Line | None = Field(
        default=None,
        description="A name for the log, and for `strategy:` of a route. None by default.",
    )
    paths: tuple[Annotated[str, checked_by(check_strategy_path)], ...] = Field(
        default=(),
        description="Path patterns of the strategy's requests, such as `/v1/**`. Empty: all paths.",
    )
    token: TokenSettings | None = Field(
        default=None,
        description="How to obtain the token that placements name as `{token}`. None by default: "
        "the secrets themselves are the credential.",
    )
    refused: tuple[Annotated[int, Field(ge=400, le=499, strict=True)], ...] = Field(
        default=(401,),
        min_length=1,
        description="Statuses with which the provider rejects the credential; with two values of a "
        "secret the next one is tried then. `[401]` by default. A token has its own.",
    )
    http: _Placements | None = Field(
        default=None,
        description="Where the credential goes in an HTTP request: one placement or a list. "
        "Omitted: the strategy does not apply to HTTP requests.",
    )
    websocket: _Placements | None = Field(
        default=None,
        description="Where the credential goes in a WebSocket handshake, or in its first messages: "
        "one placement or a list. "
        "Omitted: the strategy does not apply to WebSockets.",
    )

    @model_validator(mode="before")
    @classmethod
    def _inline_placement(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not PLACEMENTS.keys() & value.keys():
            return value
        if {"http", "websocket"} & value.keys():
            return value  # both forms mixed: the placement's keys are reported as unknown
        own = {key: value[key] for key in ("name", "paths", "token", "refused") if key in value}
        placement = {key: one for key, one in value.items() if key not in own}
        if "message" in placement:  # HTTP has none
            return {**own, "websocket": placement}
        return {**own, "http": placement, "websocket": placement}

    @model_validator(mode="after")
    def _serves_something(self) -> StrategySettings:
        if not self.http and not self.websocket:
            raise ConfigValueError(
                "strategy has no placement",
                'write http: {header: X-Api-Key, value: "{api_key}"}, and websocket: likewise',
            )
        if any(isinstance(one, MessagePlacement) for one in self.http or ()):
            raise ConfigValueError(
                "only a WebSocket has messages", "write websocket: {message: {…}}"
            )
        messages = [
            one.message for one in self.websocket or () if isinstance(one, MessagePlacement)
        ]
        if messages:
            check_messages(messages)
        for placements in (self.http, self.websocket):
            if placements is None:
                continue
            targets = [placement.target for placement in placements]
            for target in targets:
                if targets.count(target) > 1:
                    raise ConfigValueError(f"duplicate {target}", "keep one of the placements")
            names = _names(placements)
            if self.token is not None and "token" not in names:
                raise ConfigValueError(
                    "no placement uses the token", 'name it, as value: "Bearer {token}"'
                )
            if not names:
                raise ConfigValueError(*NO_SECRET_USED)
        return self

    @property
    def secret_names(self) -> frozenset[str]:
        """The secrets that the strategy needs for HTTP or WebSocket requests."""
        names = _names((*(self.http or ()), *(self.websocket or ())))
        if self.token is None:
            return names
        texts = self.token.templates.values()
        used = {name for text in texts for name in parse_template(text).names}
        return (names - {"token"}) | (used - self.token.given)


def _names(placements: Iterable[Placement]) -> frozenset[str]:
    """Return the names in the templates of the placements."""
    return frozenset(
        name
        for placement in placements
        for template in placement.templates.values()
        for name in parse_template(template).names
    )


class Strip(Node):
    """Where clients put their own credentials, which are removed before the route's is added.

    In addition to what is always removed: Authorization, Cookie and the well-known key headers.
    """

    headers: tuple[Annotated[str, checked_by(check_header_field_name)], ...] = Field(
        default=(), description="Names of headers, in any case."
    )
    query: tuple[Line, ...] = Field(
        default=(), description="Names of query parameters, decoded and exact."
    )
    subprotocols: tuple[Line, ...] = Field(
        default=(), description="Prefixes of WebSocket subprotocols, such as `bearer_`."
    )
    messages: tuple[Annotated[str, checked_by(check_pointer)], ...] = Field(
        default=(),
        description="Members of a WebSocket client's first message, as JSON pointers such as "
        "`/auth`; with a `message:` placement, of each one until the credential is placed.",
    )


class RouteSettings(Node):
    """One route, or one preset. A route's preset supplies the fields that the route does not set.

    Three fields extend the preset's instead of replacing them, because dropping the preset's by
    accident would open a hole: `deny` (unless it is an empty list), `strip` and `withhold`. Secrets
    are merged by name.
    """

    provider: Line | None = Field(
        default=None,
        description="Name of the preset that supplies the route's defaults. Omitted: the route has "
        "all settings itself.",
    )
    title: Line | None = Field(default=None, description="Name of the API, for people.")
    docs: Line | None = Field(
        default=None, description="URL of the page on which the provider explains its keys."
    )
    path: Annotated[str, checked_by(check_route_path)] | None = Field(
        default=None,
        description="Path prefix of the route on the main listener. `/<name>` by default.",
    )
    listen: Listen = Field(
        default=(),
        description="Addresses that serve the route without a prefix, such as 127.0.0.1:8082. None "
        "by default. For clients that drop the path of a base URL.",
    )
    upstream: Annotated[str, checked_by(parse_upstream)] | None = Field(
        default=None,
        description="Base URL of the provider: https, or http for a loopback host. The rest of the "
        "path after the route's prefix is appended to its path.",
    )
    secrets: Mapping[Annotated[str, checked_by(check_secret_name)], AnySecret] = Field(
        default={},
        description="The secrets by name, each with its source: `env:NAME` or `file:/path`. "
        "By default the variables that the provider's SDK reads.",
    )
    auth: tuple[StrategySettings, ...] = Field(
        default=(),
        description="Strategies in order: the first whose secrets are available and whose paths "
        "match is used.",
    )
    allow: tuple[_Pattern, ...] | None = Field(
        default=None,
        min_length=1,
        description="Patterns of the only requests that are forwarded, such as `POST /v1/speech` "
        "or `/v1/**`. None by default: all that is not denied is forwarded.",
    )
    deny: tuple[_Pattern, ...] = Field(
        default=(),
        description="Patterns of requests that are never forwarded, in any encoding of the path. "
        "Added to the preset's; an empty list removes those too, which lets clients mint "
        "credentials for themselves.",
    )
    methods: tuple[Annotated[str, checked_by(check_method)], ...] = Field(
        default=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"),
        min_length=1,
        description="Methods that are forwarded. By default all but CONNECT and TRACE, which never "
        "are.",
    )
    strategy: Line | None = Field(
        default=None,
        description="Name of the only strategy to use. None by default: the first that matches.",
    )
    allow_private: Flag = Field(
        default=False,
        description="Whether the upstream's name may resolve to a private address. False by "
        "default: DNS rebinding could otherwise reach the internal network. True for an API of "
        "your own.",
    )
    allow_plaintext: Flag = Field(
        default=False,
        description="Whether the credential may go over plain http to another machine. False by "
        "default: any host on the network path could read it.",
    )
    egress_proxy: AnyEgressProxy | None = Field(
        default=None,
        description="The HTTP proxy through which this route reaches its provider and its token "
        "endpoint; `direct` for none. By default that of the whole file.",
    )
    ca_file: Annotated[str, checked_by(check_ca_file)] | None = Field(
        default=None,
        description="PEM file with certificate authorities to trust beside the system's, relative "
        "to this file. By default that of the whole file.",
    )
    strip: Strip = Field(
        default=Strip(),
        description="Further headers, parameters and subprotocols from which client credentials "
        "are removed. Added to the preset's. None by default.",
    )
    url_fields: tuple[Annotated[str, checked_by(check_header_field_name)], ...] = Field(
        default=(),
        description="Further response headers whose value is a URL of the provider that clients "
        "request next. Like Location, Link, Operation-Location and the other well-known ones, they "
        "are rewritten to the route. None by default.",
    )
    concurrency: int | None = Field(
        default=None,
        ge=1,
        strict=True,
        description="Maximum concurrent requests and WebSockets of the route; more get 503. "
        "Unlimited by default.",
    )
    rate: Annotated[str, checked_by(check_rate)] | None = Field(
        default=None,
        description="Maximum requests per unit of time, such as `60/minute` or `5/second`; more "
        "get 429 with `Retry-After`. None by default. Protects the account from a front end that "
        "sends requests in a loop.",
    )
    max_body_bytes: int | None = Field(
        default=None,
        ge=0,
        strict=True,
        description="Maximum request body in bytes; larger ones get 413. Unlimited by default: "
        "bodies are streamed, not buffered.",
    )
    mask_bodies: Flag = Field(
        default=False,
        description="Whether the credential is redacted in every response body, not only in "
        "headers and in bodies of errors. False by default: it costs time and compression.",
    )
    pass_forwarded: Flag = Field(
        default=False,
        description="Whether `Forwarded`, `Via`, `X-Forwarded-*`, `X-Real-IP` and similar headers "
        "of proxies in front of keyrelay reach the provider. False by default: they describe this "
        "machine and its network. True for an API of your own that evaluates them.",
    )
    connect_timeout_seconds: Seconds = Field(
        default=10,
        gt=0,
        le=300,
        description="Seconds to establish a connection to the provider, TLS included. 10 by "
        "default.",
    )
    answer_timeout_seconds: Seconds = Field(
        default=600,
        gt=0,
        le=86_400,
        description="Seconds without data from the provider while a response is outstanding. 600 "
        "by default, as models compute for minutes. Less to fail earlier.",
    )
    idle_seconds: Seconds = Field(
        default=50,
        ge=0,
        le=3_600,
        description="Seconds that an unused connection to the provider is kept. 50 by default, "
        "below the 60 after which many load balancers close it. 0 keeps none.",
    )
    spares: int = Field(
        default=1,
        ge=0,
        le=16,
        strict=True,
        description="Connections to the provider that are kept open while the route is in use, TLS "
        "included, so that a request or a WebSocket after a pause need not wait for one. Idle "
        "reused connections count. 1 by default; 0 for none, as with `idle_seconds` below 4.",
    )
    spare_seconds: Seconds = Field(
        default=300,
        gt=0,
        le=86_400,
        description="Seconds after its last request during which a route counts as in use and has "
        "prewarmed connections. 300 by default. None are opened before the first request.",
    )
    vend: Flag = Field(
        default=False,
        description="Whether `POST /-/token/<route>` returns the provider's short-lived token, "
        "never a key, to a page of an allowed origin. False by default. For front ends that "
        "connect to the provider directly.",
    )
    verify: Annotated[str, checked_by(check_verify)] | None = Field(
        default=None,
        description="A cheap request by which `keyrelay doctor` verifies the credential, such as "
        "`GET /v1/voices`. None by default: doctor sends no request.",
    )
    environment: Mapping[
        Annotated[str, checked_by(check_env_name)], Annotated[str, checked_by(check_base_template)]
    ] = Field(
        default={},
        description="Variables that `keyrelay exec` sets for its command; `{base}` is the address "
        "of the route, `{ws_base}` the same with `ws://`.",
    )
    withhold: tuple[Annotated[str, checked_by(check_env_name)], ...] = Field(
        default=(),
        description="Variables with further credentials of the provider, such as administration "
        "keys, that `keyrelay exec` removes from its command's environment. No secret is read from "
        "them. Added to the preset's. None by default.",
    )

    @property
    def every_secret(self) -> tuple[SecretSettings, ...]:
        """The secrets of the route and of its egress proxy."""
        proxy = self.egress_proxy
        own = () if proxy is None else (proxy.reference, proxy.password)
        return (*self.secrets.values(), *(one for one in own if one is not None))
