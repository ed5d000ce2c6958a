"""What the YAML may say of a route, and a preset of its provider: one vocabulary for both.

See ``settings`` for the rules that all of it keeps to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

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
from proxy.config.placement import PLACEMENTS, Placement
from proxy.config.secret import AnySecret
from proxy.config.template import parse_template
from proxy.config.token import TokenSettings
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


class StrategySettings(Node):
    """One way the provider authenticates: what is put where, and for which paths.

    A strategy that is itself a placement serves HTTP and WebSocket alike.
    """

    name: Line | None = Field(
        default=None,
        description="A name for the journal, and for `strategy:` of a route. None by default.",
    )
    paths: tuple[Annotated[str, checked_by(check_strategy_path)], ...] = Field(
        default=(),
        description="Path patterns that the strategy serves, such as `/v1/**`. Empty: every path.",
    )
    token: TokenSettings | None = Field(
        default=None,
        description="How a token is obtained that `{token}` names in the placements. None by "
        "default: the secrets themselves are the credential.",
    )
    refused: tuple[Annotated[int, Field(ge=400, le=499, strict=True)], ...] = Field(
        default=(401,),
        min_length=1,
        description="Statuses by which the provider says that it does not take the credential; "
        "where a secret has two values, the next is tried then. `[401]` by default. A token has "
        "its own.",
    )
    http: _Placements | None = Field(
        default=None,
        description="Where the credential goes in an HTTP request: one placement or a list. "
        "Left out: the strategy serves no HTTP.",
    )
    websocket: _Placements | None = Field(
        default=None,
        description="Where the credential goes in a WebSocket handshake: one placement or a list. "
        "Left out: the strategy serves no WebSocket.",
    )

    @model_validator(mode="before")
    @classmethod
    def _inline_placement(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not PLACEMENTS.keys() & value.keys():
            return value
        if {"http", "websocket"} & value.keys():
            return value  # both forms in one: the placement's keys are reported as unknown
        own = {key: value[key] for key in ("name", "paths", "token", "refused") if key in value}
        placement = {key: one for key, one in value.items() if key not in own}
        return {**own, "http": placement, "websocket": placement}

    @model_validator(mode="after")
    def _serves_something(self) -> StrategySettings:
        if not self.http and not self.websocket:
            raise ValueError(
                "the strategy says nowhere where the credential goes\n"
                'write http: {header: X-Api-Key, value: "{api_key}"}, and websocket: likewise'
            )
        for placements in (self.http, self.websocket):
            if placements is None:
                continue
            targets = [placement.target for placement in placements]
            for target in targets:
                if targets.count(target) > 1:
                    raise ValueError(f"the {target} is filled twice\nkeep one of the placements")
            names = _names(placements)
            if self.token is not None and "token" not in names:
                raise ValueError(
                    'none of the placements holds the token\nname it, as value: "Bearer {token}"'
                )
            if not names:
                raise ValueError(
                    "none of the placements holds a secret\n"
                    'name one in braces, as value: "{api_key}"; '
                    "a secret itself never belongs in this file"
                )
        return self

    @property
    def secret_names(self) -> frozenset[str]:
        """The secrets that the strategy needs, over both kinds of request."""
        names = _names((*(self.http or ()), *(self.websocket or ())))
        if self.token is None:
            return names
        texts = self.token.templates.values()
        asked = {name for text in texts for name in parse_template(text).names}
        return (names - {"token"}) | (asked - self.token.given)


def _names(placements: Iterable[Placement]) -> frozenset[str]:
    """What the templates of these placements name."""
    return frozenset(
        name
        for placement in placements
        for template in placement.templates.values()
        for name in parse_template(template).names
    )


class Strip(Node):
    """Where the provider's clients put credentials of their own; removed before ours is added.

    Beside what is removed always: Authorization, Cookie and the well-known key headers.
    """

    headers: tuple[Annotated[str, checked_by(check_header_field_name)], ...] = Field(
        default=(), description="Names of headers, in any case."
    )
    query: tuple[Line, ...] = Field(
        default=(), description="Names of query parameters, decoded and exact."
    )
    subprotocols: tuple[Line, ...] = Field(
        default=(), description="Beginnings of WebSocket subprotocols, such as `bearer_`."
    )


class RouteSettings(Node):
    """One route, or one preset: whatever a route does not say, its provider's preset says.

    Three fields are added to the preset's instead of replacing them, because dropping the preset's
    by accident would open a hole: `deny` (until it is written as an empty list), `strip` and
    `withhold`. Secrets are merged by name.
    """

    provider: Line | None = Field(
        default=None,
        description="Name of the preset that the route is built on. Left out: the route says "
        "everything itself.",
    )
    title: Line | None = Field(default=None, description="Name of the API, for people.")
    docs: Line | None = Field(
        default=None, description="URL of the page on which the provider explains its keys."
    )
    path: Annotated[str, checked_by(check_route_path)] | None = Field(
        default=None,
        description="Prefix at which the route answers on the main listener. `/<name>` by default.",
    )
    listen: Listen = Field(
        default=(),
        description="Addresses at which the route answers without a prefix, such as "
        "127.0.0.1:8082. None by default. For clients that drop the path of a base URL.",
    )
    upstream: Annotated[str, checked_by(parse_upstream)] | None = Field(
        default=None,
        description="Base URL of the provider: https, or http for a loopback host. What follows "
        "the route's prefix is appended to its path.",
    )
    secrets: Mapping[Annotated[str, checked_by(check_secret_name)], AnySecret] = Field(
        default={},
        description="The secrets by name, each with its source: `env:NAME` or `file:/path`. "
        "By default the variables that the provider's own SDK reads.",
    )
    auth: tuple[StrategySettings, ...] = Field(
        default=(),
        description="Strategies in order: the first whose secrets are there and whose paths match "
        "serves the request.",
    )
    allow: tuple[_Pattern, ...] | None = Field(
        default=None,
        min_length=1,
        description="If given, only what matches one of these patterns (`POST /v1/speech`, "
        "`/v1/**`) passes. None by default: everything passes that is not denied.",
    )
    deny: tuple[_Pattern, ...] = Field(
        default=(),
        description="Patterns that never pass, however a path is spelled. Added to the preset's; "
        "an empty list lifts those too, which lets clients mint credentials for themselves.",
    )
    methods: tuple[Annotated[str, checked_by(check_method)], ...] = Field(
        default=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"),
        min_length=1,
        description="Methods that pass. By default all but CONNECT and TRACE, which never pass.",
    )
    strategy: Line | None = Field(
        default=None,
        description="Name of the only strategy to use. None by default: the first that fits.",
    )
    allow_private: Flag = Field(
        default=False,
        description="Whether the upstream's name may lead to a private address. False by default, "
        "so that a name cannot be turned against the inner network. True for an API of your own.",
    )
    allow_plaintext: Flag = Field(
        default=False,
        description="Whether the credential may go over plain http to another machine. False by "
        "default: everybody on the way could read it.",
    )
    strip: Strip = Field(
        default=Strip(),
        description="More places from which credentials of clients are removed. Added to the "
        "preset's. None by default.",
    )
    concurrency: int | None = Field(
        default=None,
        ge=1,
        strict=True,
        description="Requests and WebSockets of the route at the same time; more get 503. No bound "
        "by default.",
    )
    rate: Annotated[str, checked_by(check_rate)] | None = Field(
        default=None,
        description="Requests in a span of time, such as `60/minute` or `5/second`; more get 429 "
        "with `Retry-After`. None by default. A front end whose code runs in a loop cannot then "
        "burn the account.",
    )
    max_body_bytes: int | None = Field(
        default=None,
        ge=0,
        strict=True,
        description="Largest body of a request, in bytes; larger ones get 413. No bound by "
        "default: bodies are streamed, never gathered.",
    )
    mask_bodies: Flag = Field(
        default=False,
        description="Whether the credential is blotted out in every body of the provider, not only "
        "in headers and in bodies of errors. False by default: it costs time and compression.",
    )
    connect_timeout_seconds: Seconds = Field(
        default=10,
        gt=0,
        le=300,
        description="Seconds until a connection to the provider has to stand, TLS included. "
        "10 by default.",
    )
    answer_timeout_seconds: Seconds = Field(
        default=600,
        gt=0,
        le=86_400,
        description="Seconds of silence of a provider that owes an answer. 600 by default, as "
        "models think for minutes. Less where a client would wait for nothing.",
    )
    idle_seconds: Seconds = Field(
        default=50,
        ge=0,
        le=3_600,
        description="Seconds that an unused connection to the provider is kept. 50 by default, "
        "below the 60 after which many load balancers hang up. 0 keeps none.",
    )
    spares: int = Field(
        default=1,
        ge=0,
        le=16,
        strict=True,
        description="Connections to the provider that stand ready while the route is in use, TLS "
        "included, so that a request or a WebSocket after a pause waits for none. Unused ones that "
        "served before count. 1 by default; 0 for none, as below 4 `idle_seconds`.",
    )
    spare_seconds: Seconds = Field(
        default=300,
        gt=0,
        le=86_400,
        description="Seconds after its last request during which a route counts as in use and has "
        "spares. 300 by default. Before the first request nothing is dialled.",
    )
    vend: Flag = Field(
        default=False,
        description="Whether `POST /-/token/<route>` hands the provider's short-lived token, never "
        "a key, to a page of an allowed origin. False by default. For front ends that talk to the "
        "provider directly.",
    )
    verify: Annotated[str, checked_by(check_verify)] | None = Field(
        default=None,
        description="A cheap call by which `keyrelay doctor` proves the credential, such as "
        "`GET /v1/voices`. None by default: doctor does not call.",
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
