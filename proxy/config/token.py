"""Settings of tokens: the ``token:`` of a strategy, one model per type.

``auth.tokens`` fetches or signs them. Imports neither aiohttp nor asyncio.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, Strict, Tag, model_validator

from proxy.config.fields import Line, Node, Seconds, check_header_field_name, checked_by
from proxy.config.template import parse_template
from proxy.errors import ConfigValueError
from proxy.http.address import parse_upstream

TAG_PREFIX = "token:"

Algorithm: TypeAlias = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512", "EdDSA",
]  # fmt: skip


def _check_url(text: str) -> None:
    """Check a URL, or a path at the route's upstream. The path may name secrets."""
    plain = "".join(
        "x" if isinstance(piece, str) else piece.decode() for piece in parse_template(text).pieces
    )
    if not plain.startswith("/"):
        address, _, query = plain.partition("?")
        origin, _ = parse_upstream(address)
        if origin.scheme == "http" and not origin.loopback:
            raise ConfigValueError(
                "credentials would go to the token endpoint over plain http", "write https://"
            )
        if not re.fullmatch(r"[!\"$-~]*", query):
            raise ConfigValueError(
                "the query has a space or a fragment", "write it percent-encoded"
            )
    elif not re.fullmatch(r"/(?!/)[!\"$-\[\]-~]*", plain):
        raise ConfigValueError("invalid path", "write /oauth2/token for a path at the upstream")


def _check_path(path: str) -> None:
    if not path.startswith("/") or path.endswith("/") or not path.isprintable():
        raise ConfigValueError("invalid absolute path of a file", "write /var/lib/keyrelay/name")


def _refusal(status: int) -> int:
    """Check a status with which a provider can reject a credential."""
    if not 400 <= status <= 499:
        raise ConfigValueError(
            "invalid status for a rejection", "write 401, or another from 400 to 499"
        )
    return status


def _check_document(value: Any) -> None:
    """Check a value that is sent as JSON, with templates for strings."""
    for _, text in texts_in(value):
        parse_template(text)
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise ConfigValueError("invalid JSON number", "use a finite one") from None


_Template = Annotated[str, checked_by(parse_template)]
_Header = Annotated[str, checked_by(check_header_field_name)]
_Refusal = Annotated[int, Strict(), AfterValidator(_refusal)]
_Url = Annotated[str, checked_by(_check_url)]
_Path = Annotated[str, checked_by(_check_path)]

_URL = (
    "Token endpoint: a URL, or a path such as `/oauth2/token` at the route's upstream, so that "
    "overriding `upstream` moves both."
)
_TYPE = "How tokens are obtained."
_CLIENT_ID = "The client's ID, such as `{client_id}`."
_CLIENT_KEY = "The client's secret, such as `{client_secret}`."
_SCOPE = "Scopes, separated by spaces. None by default."


class _Token(Node):
    """Settings of all token types."""

    lifetime_seconds: Seconds = Field(
        default=300,
        gt=0,
        le=31_536_000,
        description="Seconds that a token is valid if the response does not specify it. 300 by "
        "default.",
    )
    refused: tuple[_Refusal, ...] = Field(
        default=(401,),
        min_length=1,
        description="Statuses with which the provider rejects a token. 401 by default. A rejected "
        "token is replaced and the request sent once more.",
    )

    @property
    def templates(self) -> dict[tuple[str | int, ...], str]:
        """All strings, which may name secrets, by their path below ``token:`` in the YAML."""
        return dict(texts_in(self.model_dump(by_alias=True)))

    @property
    def given(self) -> frozenset[str]:
        """Names in the templates that are not secrets."""
        return frozenset()


def texts_in(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, str]]:
    """Yield the path and text of every string within lists and mappings."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from texts_in(one, (*path, key))
    elif isinstance(value, list | tuple):
        for index, one in enumerate(value):
            yield from texts_in(one, (*path, index))


class ClientCredentials(_Token):
    """OAuth 2.0 client credentials (RFC 6749 section 4.4)."""

    type: Literal["oauth2_client_credentials"] = Field(description=_TYPE)
    url: _Url = Field(description=_URL)
    client_id: _Template = Field(description=_CLIENT_ID)
    client_secret: _Template = Field(description=_CLIENT_KEY)
    client_auth: Literal["basic", "form"] = Field(
        default="basic",
        description="Where ID and secret go: `basic` authorization (the default, which every "
        "server must support) or the `form`.",
    )
    scope: _Template | None = Field(default=None, description=_SCOPE)
    audience: _Template | None = Field(
        default=None, description="The API that the token is for, if the server requires it."
    )


class RefreshToken(_Token):
    """OAuth 2.0 refresh token (RFC 6749 section 6)."""

    type: Literal["oauth2_refresh_token"] = Field(description=_TYPE)
    url: _Url = Field(description=_URL)
    refresh_token: _Template = Field(description="The refresh token, such as `{refresh_token}`.")
    client_id: _Template = Field(description=_CLIENT_ID)
    client_secret: _Template | None = Field(
        default=None, description=_CLIENT_KEY + " Omitted for public clients."
    )
    client_auth: Literal["basic", "form"] = Field(
        default="basic", description="Where ID and secret go: `basic` (the default) or the `form`."
    )
    scope: _Template | None = Field(default=None, description=_SCOPE)
    store: _Path | None = Field(
        default=None,
        description="A file for the newest refresh token, for servers that issue a new one each "
        "time and then reject the old. Its directory must exist and be yours. None by default: a "
        "new one is kept in memory only.",
    )


class _Signed(Node):
    """Signing key and claims of a JWT (RFC 7519)."""

    algorithm: Algorithm = Field(
        description="Signing algorithm; must fit the key. `none` is not supported."
    )
    key: _Template = Field(
        description="The key: PEM for all but HS…, where it is the shared secret itself."
    )
    key_id: _Template | None = Field(
        default=None, description="`kid` of the header, where the provider has several keys."
    )
    claims: Mapping[Line, Any] = Field(
        default={},
        description="Claims, such as `iss` and `aud`. `iat`, `exp` and `jti` are set here.",
    )
    header_type: Line = Field(default="JWT", description="`typ` of the header. JWT by default.")
    valid_seconds: Seconds = Field(
        default=300,
        gt=0,
        le=86_400,
        description="Seconds from now to `exp`. 300 by default; short, as it is signed again.",
    )

    @model_validator(mode="after")
    def _claims_can_be_sent(self) -> _Signed:
        _check_document(self.claims)
        for name in ("iat", "exp", "jti"):
            if name in self.claims:
                raise ConfigValueError(
                    f"the claim {name} is set by keyrelay", "remove it; see valid_seconds"
                )
        return self


class Jwt(_Token, _Signed):
    """A JWT that keyrelay signs and that is the token itself."""

    type: Literal["jwt"] = Field(description=_TYPE)


class JwtBearer(_Token, _Signed):
    """A signed JWT, exchanged for a token (RFC 7523 section 2.1): Google service accounts."""

    type: Literal["jwt_bearer"] = Field(description=_TYPE)
    url: _Url = Field(description=_URL)
    scope: _Template | None = Field(
        default=None, description="Scopes as a form field; Google requires a claim instead."
    )


class Assertion(_Signed):
    """A signed JWT that a `request` can name as `{jwt}`."""


class Request(_Token):
    """Any other request whose response has a token in JSON."""

    type: Literal["request"] = Field(description=_TYPE)
    url: _Url = Field(description=_URL)
    method: Literal["GET", "POST"] = Field(default="POST", description="POST by default.")
    headers: Mapping[_Header, _Template] = Field(
        default={}, description='Headers, such as `Authorization: "Token {api_key}"`.'
    )
    form: Mapping[Line, _Template] | None = Field(
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
        _check_document(self.json_body)
        return self

    @model_validator(mode="after")
    def _headers_once(self) -> Request:
        if len({name.lower() for name in self.headers}) < len(self.headers):
            raise ConfigValueError("duplicate header", "keep one; names are case-insensitive")
        return self

    @property
    def given(self) -> frozenset[str]:
        return frozenset() if self.assertion is None else frozenset({"jwt"})


class Inworld(_Token):
    """Inworld's session token, for a request signed with IW1-HMAC-SHA256."""

    type: Literal["inworld"] = Field(description=_TYPE)
    key: _Template | None = Field(default=None, description="The key's ID. With `secret`.")
    secret: _Template | None = Field(default=None, description="The key's secret. With `key`.")
    portal: _Template | None = Field(
        default=None, description="The Base64 string of the portal, which contains both."
    )
    variant: Literal["session", "sample"] = Field(
        default="session",
        description="Which request: `session` as documented (the default), `sample` as in the "
        "Node.js sample application.",
    )
    workspace: _Template | None = Field(
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


class Exec(_Token):
    """A command that prints a token: `{"token": "…", "expires_in": 3600}`, or just the token."""

    type: Literal["exec"] = Field(description=_TYPE)
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


TOKENS: dict[str, type[_Token]] = {
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
