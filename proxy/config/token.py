"""Settings of tokens: the ``token:`` of a strategy, one model per type.

``auth.tokens`` fetches or signs them. Imports neither aiohttp nor asyncio.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from proxy.config.fields import Line, Seconds
from proxy.config.oauth2 import ClientCredentials, JwtBearer, RefreshToken
from proxy.config.token_base import (
    TYPE_DESCRIPTION,
    URL_DESCRIPTION,
    HeaderName,
    Signed,
    TemplateText,
    TokenBase,
    TokenUrl,
    check_document,
)
from proxy.errors import ConfigValueError

TAG_PREFIX = "token:"


class Jwt(TokenBase, Signed):
    """A JWT that keyrelay signs and that is the token itself."""

    type: Literal["jwt"] = Field(description=TYPE_DESCRIPTION)


class Assertion(Signed):
    """A signed JWT that a `request` can name as `{jwt}`."""


class Request(TokenBase):
    """Any other request whose response has a token in JSON."""

    type: Literal["request"] = Field(description=TYPE_DESCRIPTION)
    url: TokenUrl = Field(description=URL_DESCRIPTION)
    method: Literal["GET", "POST"] = Field(default="POST", description="POST by default.")
    headers: Mapping[HeaderName, TemplateText] = Field(
        default={}, description='Headers, such as `Authorization: "Token {api_key}"`.'
    )
    form: Mapping[Line, TemplateText] | None = Field(
        default=None, description="Form fields of the body. None by default."
    )
    json_body: Mapping[Line, Any] | None = Field(
        default=None, alias="json", description="The body as JSON. None by default."
    )
    assertion: Assertion | None = Field(
        default=None, description="A JWT to sign for the request; `{jwt}` names it."
    )
    token: Line = Field(
        default="access_token",
        description="Path of the token in the response; dots select members of objects. "
        "`access_token` by default.",
    )
    expiry: Line = Field(
        default="expires_in",
        description="Path of the token's expiry in the response: seconds, or a point in time. "
        "`expires_in` by default.",
    )

    @model_validator(mode="after")
    def _one_body(self) -> Request:
        if self.form is not None and self.json_body is not None:
            raise ConfigValueError("a request has one body", "keep form: or json:")
        if self.method == "GET" and not (self.form is None and self.json_body is None):
            raise ConfigValueError(
                "a GET has no body", "write method: POST, or remove form: and json:"
            )
        check_document(self.json_body)
        return self

    @model_validator(mode="after")
    def _headers_once(self) -> Request:
        if len({name.lower() for name in self.headers}) < len(self.headers):
            raise ConfigValueError("duplicate header", "keep one; names are case-insensitive")
        return self

    @property
    def given(self) -> frozenset[str]:
        return frozenset() if self.assertion is None else frozenset({"jwt"})


class Inworld(TokenBase):
    """Inworld's session token, for a request signed with IW1-HMAC-SHA256."""

    type: Literal["inworld"] = Field(description=TYPE_DESCRIPTION)
    key: TemplateText | None = Field(default=None, description="The key's ID. With `secret`.")
    secret: TemplateText | None = Field(default=None, description="The key's secret. With `key`.")
    portal: TemplateText | None = Field(
        default=None, description="The Base64 string of the portal, which contains both."
    )
    variant: Literal["session", "sample"] = Field(
        default="session",
        description="Which request: `session` as documented (the default), `sample` as in the "
        "Node.js sample application.",
    )
    workspace: TemplateText | None = Field(
        default=None, description="`workspaces/…` that a `sample` token is for. None by default."
    )

    @model_validator(mode="after")
    def _one_form(self) -> Inworld:
        if (self.portal is None) == (self.key is None) or (self.key is None) != (
            self.secret is None
        ):
            raise ConfigValueError("missing or duplicate key", "write portal:, or key: and secret:")
        if self.workspace is not None and self.variant != "sample":
            raise ConfigValueError(
                "this request has no workspace", "write variant: sample, or remove it"
            )
        return self


class Exec(TokenBase):
    """A command that prints a token: `{"token": "…", "expires_in": 3600}`, or just the token."""

    type: Literal["exec"] = Field(description=TYPE_DESCRIPTION)
    command: tuple[Line, ...] = Field(
        min_length=1,
        description="The program and its arguments. No shell: nothing is expanded. Inherits "
        "keyrelay's environment without the variables of other routes' secrets.",
    )
    timeout_seconds: Seconds = Field(
        default=30, gt=0, le=300, description="Seconds that it may take. 30 by default."
    )
    token: Line = Field(default="token", description="Path of the token in the JSON.")
    expiry: Line = Field(default="expires_in", description="Path of the expiry in the JSON.")

    @property
    def templates(self) -> dict[tuple[str | int, ...], str]:
        return {}  # braces in a command are literal


TOKENS: dict[str, type[TokenBase]] = {
    "oauth2_client_credentials": ClientCredentials,
    "oauth2_refresh_token": RefreshToken,
    "jwt": Jwt,
    "jwt_bearer": JwtBearer,
    "request": Request,
    "inworld": Inworld,
    "exec": Exec,
}


def _tag(value: Any) -> str | None:
    found = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return TAG_PREFIX + found if isinstance(found, str) and found in TOKENS else None


TokenSettings: TypeAlias = Annotated[
    Annotated[ClientCredentials, Tag(TAG_PREFIX + "oauth2_client_credentials")]
    | Annotated[RefreshToken, Tag(TAG_PREFIX + "oauth2_refresh_token")]
    | Annotated[Jwt, Tag(TAG_PREFIX + "jwt")]
    | Annotated[JwtBearer, Tag(TAG_PREFIX + "jwt_bearer")]
    | Annotated[Request, Tag(TAG_PREFIX + "request")]
    | Annotated[Inworld, Tag(TAG_PREFIX + "inworld")]
    | Annotated[Exec, Tag(TAG_PREFIX + "exec")],
    Discriminator(_tag),
]
