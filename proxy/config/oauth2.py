"""Settings of the OAuth 2.0 grants under ``token:``.

RFC 6749, with RFC 7523 (assertions), 8705 (certificates), 8707 (resources) and 9449 (DPoP).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from proxy.config.fields import Line, Node, Seconds
from proxy.config.token_base import (
    LEEWAY_DESCRIPTION,
    SCOPE_DESCRIPTION,
    TYPE_DESCRIPTION,
    URL_DESCRIPTION,
    Algorithm,
    FilePath,
    Signed,
    TemplateText,
    TokenBase,
    TokenUrl,
)
from proxy.errors import ConfigValueError

_CLIENT_ID = "The client's ID, such as `{client_id}`."
_CLIENT_KEY = "The client's secret, such as `{client_secret}`."
# Form fields with a setting of their own, or with a value that the grant determines.
_RESERVED = frozenset(
    {
        "assertion",
        "audience",
        "client_assertion",
        "client_assertion_type",
        "client_id",
        "client_secret",
        "grant_type",
        "refresh_token",
        "resource",
        "scope",
    }
)


class ClientAssertion(Node):
    """Assertion that authenticates the client (RFC 7523 section 2.2)."""

    algorithm: Algorithm | None = Field(
        default=None,
        description="Signing algorithm. RS256 by default, HS256 for `client_secret_jwt`.",
    )
    key: TemplateText | None = Field(
        default=None, description="The private key in PEM, for `private_key_jwt`."
    )
    key_id: TemplateText | None = Field(
        default=None,
        description="`kid` of the header, for servers that hold several keys of a client.",
    )
    audience: TemplateText | None = Field(
        default=None,
        description="`aud`: the token endpoint's URL by default; some servers require their "
        "issuer.",
    )
    header_type: Line = Field(default="JWT", description="`typ` of the header. JWT by default.")
    valid_seconds: Seconds = Field(
        default=60, gt=0, le=86_400, description="Seconds from `iat` to `exp`. 60 by default."
    )
    leeway_seconds: Seconds = Field(default=5, ge=0, le=300, description=LEEWAY_DESCRIPTION)


class DPoP(Node):
    """Proof of possession for token requests and for requests to the provider (RFC 9449)."""

    key: TemplateText = Field(description="The private key in PEM, such as `{dpop_key}`.")
    algorithm: Literal["ES256", "ES384", "ES512", "RS256", "PS256", "EdDSA"] = Field(
        default="ES256",
        description="Signing algorithm of proofs; must fit the key. ES256 by default.",
    )


class OAuth2(TokenBase):
    """Settings of all OAuth 2.0 grants."""

    url: TokenUrl = Field(description=URL_DESCRIPTION)
    scope: TemplateText | None = Field(default=None, description=SCOPE_DESCRIPTION)
    audience: TemplateText | None = Field(
        default=None,
        description="The API that the token is for, for servers that require the parameter.",
    )
    resource: tuple[TemplateText, ...] = Field(
        default=(),
        description="Resource indicators (RFC 8707): URLs of the APIs that the token is for, one "
        "or a list. None by default.",
    )
    form: Mapping[Line, TemplateText | tuple[TemplateText, ...]] = Field(
        default={},
        description="Additional form fields of the token request; a list repeats a field. None by "
        "default.",
    )
    client_auth: Literal[
        "basic", "basic_plain", "form", "private_key_jwt", "client_secret_jwt", "tls"
    ] = Field(
        default="basic",
        description="Method of client authentication: `basic` (the default), `basic_plain` for "
        "servers that do not decode the percent-encoding of RFC 6749 section 2.3.1, "
        "`form` fields, a signed assertion (`private_key_jwt`, `client_secret_jwt`), "
        "or a client certificate (`tls`).",
    )
    client_assertion: ClientAssertion | None = Field(
        default=None,
        description="Settings of the assertion, for `private_key_jwt` and `client_secret_jwt`.",
    )
    client_certificate: TemplateText | None = Field(
        default=None,
        description="Client certificate in PEM with its intermediates, for TLS to the token "
        "endpoint (RFC 8705). Requires `client_key`.",
    )
    client_key: TemplateText | None = Field(
        default=None, description="The private key of `client_certificate`, in PEM."
    )
    dpop: DPoP | None = Field(
        default=None,
        description="Proof of possession (RFC 9449). Requires the placement `DPoP {token}`. None "
        "by default.",
    )
    timeout_seconds: Seconds = Field(
        default=10,
        gt=0,
        le=300,
        description="Seconds after which a token request fails. 10 by default.",
    )

    @field_validator("resource", mode="before")
    @classmethod
    def _one_resource(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("form", mode="before")
    @classmethod
    def _lists_of_fields(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: tuple(one) if isinstance(one, list) else one for name, one in value.items()}

    @model_validator(mode="after")
    def _fields_once(self) -> OAuth2:
        for name in self.form:
            if name in _RESERVED:
                raise ConfigValueError(
                    f"the form field {name} is set by keyrelay",
                    "remove it from form:; where a setting has that name, use the setting",
                )
        return self

    @model_validator(mode="after")
    def _authentication_is_whole(self) -> OAuth2:
        if (self.client_certificate is None) != (self.client_key is None):
            raise ConfigValueError(
                "a certificate and its key belong together",
                "write client_certificate: and client_key:",
            )
        if self.client_auth == "tls" and self.client_certificate is None:
            raise ConfigValueError(
                "client_auth: tls needs a certificate", "write client_certificate: and client_key:"
            )
        assertion = self.client_assertion
        signed = self.client_auth in {"private_key_jwt", "client_secret_jwt"}
        if assertion is not None and not signed:
            raise ConfigValueError(
                "client_assertion: is not used",
                "write client_auth: private_key_jwt, or client_secret_jwt",
            )
        shared = assertion is not None and (assertion.algorithm or "")[:2] == "HS"
        if self.client_auth == "private_key_jwt" and (
            assertion is None or assertion.key is None or shared
        ):
            raise ConfigValueError(
                "private_key_jwt needs a private key",
                "write client_assertion: {key: …} with an algorithm for it",
            )
        if self.client_auth == "client_secret_jwt" and assertion is not None:
            if assertion.key is not None:
                raise ConfigValueError(
                    "client_secret_jwt is signed with the client's secret",
                    "remove key: of client_assertion",
                )
            if assertion.algorithm is not None and not shared:
                raise ConfigValueError(
                    "client_secret_jwt is signed with an HMAC",
                    "write algorithm: HS256, or remove it",
                )
        return self


def _needs_secret(settings: ClientCredentials | RefreshToken | JwtBearer, *, always: bool) -> None:
    """Require the client's secret where it is used, and reject it elsewhere.

    always  whether the grant excludes public clients. Raises ConfigValueError
    """
    used = settings.client_auth in {"basic", "basic_plain", "form", "client_secret_jwt"}
    if settings.client_secret is not None and not used:
        raise ConfigValueError(
            f"client_secret: is not used with client_auth: {settings.client_auth}", "remove it"
        )
    must = always or settings.client_auth == "client_secret_jwt"
    if settings.client_secret is None and used and must:
        raise ConfigValueError(
            f"client_auth: {settings.client_auth} needs a secret", "write client_secret:"
        )


class ClientCredentials(OAuth2):
    """OAuth 2.0 client credentials (RFC 6749 section 4.4)."""

    type: Literal["oauth2_client_credentials"] = Field(description=TYPE_DESCRIPTION)
    client_id: TemplateText = Field(description=_CLIENT_ID)
    client_secret: TemplateText | None = Field(
        default=None, description=_CLIENT_KEY + " Left out with `private_key_jwt` and `tls`."
    )

    @model_validator(mode="after")
    def _secret(self) -> ClientCredentials:
        _needs_secret(self, always=True)
        return self


class RefreshToken(OAuth2):
    """OAuth 2.0 refresh token (RFC 6749 section 6)."""

    type: Literal["oauth2_refresh_token"] = Field(description=TYPE_DESCRIPTION)
    refresh_token: TemplateText = Field(description="The refresh token, such as `{refresh_token}`.")
    client_id: TemplateText = Field(description=_CLIENT_ID)
    client_secret: TemplateText | None = Field(
        default=None, description=_CLIENT_KEY + " Omitted for public clients."
    )
    store: FilePath | None = Field(
        default=None,
        description="File for the current refresh token and its access token, for servers that "
        "rotate refresh tokens. Processes with the same file exchange the token one at a time. "
        "Its directory must exist and belong to the user of keyrelay. None by default: a successor "
        "is kept in memory only.",
    )
    timeout_seconds: Seconds = Field(
        default=30,
        gt=0,
        le=300,
        description="Seconds after which a token request fails. 30 by default: a server that "
        "responds later may have rotated the refresh token, and the successor is lost.",
    )

    @model_validator(mode="after")
    def _secret(self) -> RefreshToken:
        _needs_secret(self, always=False)
        return self


class JwtBearer(OAuth2, Signed):
    """JWT bearer grant (RFC 7523 section 2.1), such as for Google service accounts."""

    type: Literal["jwt_bearer"] = Field(description=TYPE_DESCRIPTION)
    scope: TemplateText | None = Field(
        default=None, description="Scopes as a form field; Google requires a claim instead."
    )
    client_id: TemplateText | None = Field(
        default=None,
        description=_CLIENT_ID + " None by default: most servers require the JWT only.",
    )
    client_secret: TemplateText | None = Field(default=None, description=_CLIENT_KEY)

    @model_validator(mode="after")
    def _client(self) -> JwtBearer:
        needs = self.client_secret is not None or self.client_auth not in {"basic", "form"}
        if needs and self.client_id is None:
            raise ConfigValueError("client authentication requires an ID", "write client_id:")
        _needs_secret(self, always=False)
        return self
