"""What the YAML may say about the grants of OAuth 2.0.

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
# Fields of a token request that have a setting of their own, or are set here.
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
    """How the client's own assertion is signed (RFC 7523 section 2.2)."""

    algorithm: Algorithm | None = Field(
        default=None,
        description="How it is signed. RS256 by default, HS256 for `client_secret_jwt`.",
    )
    key: TemplateText | None = Field(
        default=None, description="The private key in PEM, for `private_key_jwt`."
    )
    key_id: TemplateText | None = Field(
        default=None, description="`kid` of the header, where the server knows several keys."
    )
    audience: TemplateText | None = Field(
        default=None,
        description="`aud`: the token endpoint's URL by default; some servers want their issuer.",
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
        default="ES256", description="How proofs are signed; must fit the key. ES256 by default."
    )


class OAuth2(TokenBase):
    """What the grants of OAuth 2.0 have in common."""

    url: TokenUrl = Field(description=URL_DESCRIPTION)
    scope: TemplateText | None = Field(default=None, description=SCOPE_DESCRIPTION)
    audience: TemplateText | None = Field(
        default=None, description="The API that the token is for, where the server wants it named."
    )
    resource: tuple[TemplateText, ...] = Field(
        default=(),
        description="Where the token will be used (RFC 8707): URLs, one or a list. None by "
        "default.",
    )
    form: Mapping[Line, TemplateText | tuple[TemplateText, ...]] = Field(
        default={},
        description="Further fields of the request; a list repeats a field. None by default.",
    )
    client_auth: Literal[
        "basic", "basic_plain", "form", "private_key_jwt", "client_secret_jwt", "tls"
    ] = Field(
        default="basic",
        description="How the client shows who it is: `basic` authorization (the default), "
        "`basic_plain` for servers that do not undo the encoding of RFC 6749 section 2.3.1, the "
        "`form`, a signed assertion (`private_key_jwt`, `client_secret_jwt`), or the certificate "
        "of the connection (`tls`).",
    )
    client_assertion: ClientAssertion | None = Field(
        default=None, description="For `private_key_jwt` and `client_secret_jwt`."
    )
    client_certificate: TemplateText | None = Field(
        default=None,
        description="The certificate in PEM, with those above it, for TLS with the token endpoint "
        "(RFC 8705). With `client_key`.",
    )
    client_key: TemplateText | None = Field(
        default=None, description="The private key of `client_certificate`, in PEM."
    )
    dpop: DPoP | None = Field(
        default=None,
        description="Proof of possession (RFC 9449). The placement is `DPoP {token}` then. None by "
        "default.",
    )
    timeout_seconds: Seconds = Field(
        default=10, gt=0, le=300, description="Seconds that a call may take. 10 by default."
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
                    f"the form field {name} is set here",
                    "use the setting of that name, if there is one",
                )
        return self

    @model_validator(mode="after")
    def _authentication_is_whole(self) -> OAuth2:
        if (self.client_certificate is None) != (self.client_key is None):
            raise ConfigValueError(
                "a certificate goes with its key", "write client_certificate: and client_key:"
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
    """The client's secret is there where it is used, and nowhere else."""
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
        description="A file in which the newest refresh token is kept, with its access token, for "
        "servers that give a new one each time and then refuse the old. Processes that name the "
        "same file take turns. Its directory must exist and be yours. None by default: a new one "
        "is kept in memory only.",
    )
    timeout_seconds: Seconds = Field(
        default=30,
        gt=0,
        le=300,
        description="Seconds that a call may take. 30 by default: a server that answers too late "
        "has replaced the refresh token all the same.",
    )

    @model_validator(mode="after")
    def _secret(self) -> RefreshToken:
        _needs_secret(self, always=False)
        return self


class JwtBearer(OAuth2, Signed):
    """A signed JWT, exchanged for a token (RFC 7523 section 2.1): Google service accounts."""

    type: Literal["jwt_bearer"] = Field(description=TYPE_DESCRIPTION)
    scope: TemplateText | None = Field(
        default=None, description="Scopes as a form field; Google requires a claim instead."
    )
    client_id: TemplateText | None = Field(
        default=None, description=_CLIENT_ID + " None by default: the JWT is enough for most."
    )
    client_secret: TemplateText | None = Field(default=None, description=_CLIENT_KEY)

    @model_validator(mode="after")
    def _client(self) -> JwtBearer:
        needs = self.client_secret is not None or self.client_auth not in {"basic", "form"}
        if needs and self.client_id is None:
            raise ConfigValueError("the client has no id", "write client_id:")
        _needs_secret(self, always=False)
        return self
