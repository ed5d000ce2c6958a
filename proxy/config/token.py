"""What the YAML may say about tokens: the ``token:`` of a strategy, one model per type.

``auth`` has what asks or signs for each. Neither aiohttp nor asyncio.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, Strict, Tag, model_validator

from proxy.config.fields import Line, Node, Seconds, check_header_field_name, checked_by
from proxy.config.template import parse_template
from proxy.http.address import parse_upstream

TAG_PREFIX = "token:"

Algorithm: TypeAlias = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512", "EdDSA",
]  # fmt: skip


def _check_url(text: str) -> None:
    """A URL, or a path at the route's upstream. May name secrets in its path."""
    plain = "".join(
        "x" if isinstance(piece, str) else piece.decode() for piece in parse_template(text).pieces
    )
    if not plain.startswith("/"):
        address, _, query = plain.partition("?")
        origin, _ = parse_upstream(address)
        if origin.scheme == "http" and not origin.loopback:
            raise ValueError(
                "credentials would go to the token endpoint over plain http\nwrite https://"
            )
        if not re.fullmatch(r"[!\"$-~]*", query):
            raise ValueError("the query has a blank or a fragment\nwrite it percent-encoded")
    elif not re.fullmatch(r"/(?!/)[!\"$-\[\]-~]*", plain):
        raise ValueError("this is no path\nwrite /oauth2/token for a path at the upstream")


def _check_path(path: str) -> None:
    if not path.startswith("/") or path.endswith("/") or not path.isprintable():
        raise ValueError("this is no absolute path of a file\nwrite /var/lib/keyrelay/name")


def _refusal(status: int) -> int:
    """A status by which a provider can say that a credential is not good."""
    if not 400 <= status <= 499:
        raise ValueError("this status refuses no credential\nwrite 401, or another from 400 to 499")
    return status


def _check_document(value: Any) -> None:
    """What will be sent as JSON, with templates for texts."""
    for _, text in texts_in(value):
        parse_template(text)
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise ValueError("JSON has no such number\nuse a finite one") from None


_Template = Annotated[str, checked_by(parse_template)]
_Header = Annotated[str, checked_by(check_header_field_name)]
_Refusal = Annotated[int, Strict(), AfterValidator(_refusal)]
_Url = Annotated[str, checked_by(_check_url)]
_Path = Annotated[str, checked_by(_check_path)]

_URL = (
    "Where tokens are asked for: a URL, or a path such as `/oauth2/token` at the route's upstream, "
    "so that overriding `upstream` moves both."
)
_TYPE = "How tokens are obtained."
_CLIENT_ID = "The client's id, such as `{client_id}`."
_CLIENT_KEY = "The client's secret, such as `{client_secret}`."
_SCOPE = "Scopes, parted by blanks. None by default."


class _Token(Node):
    """What all types have in common."""

    lifetime_seconds: Seconds = Field(
        default=300,
        gt=0,
        le=31_536_000,
        description="Seconds that a token lives if its answer does not say. 300 by default.",
    )
    refused: tuple[_Refusal, ...] = Field(
        default=(401,),
        min_length=1,
        description="Statuses by which the provider refuses a token. 401 by default. A refused "
        "token is replaced and the request sent once more.",
    )

    @property
    def templates(self) -> dict[tuple[str | int, ...], str]:
        """The texts in which secrets may be named, which are all, by their place in the YAML."""
        return dict(texts_in(self.model_dump(by_alias=True)))

    @property
    def given(self) -> frozenset[str]:
        """Names in the templates that stand for something else than a secret."""
        return frozenset()


def texts_in(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, str]]:
    """Every text within lists and mappings, with the way to it."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from texts_in(one, (*place, key))
    elif isinstance(value, list | tuple):
        for index, one in enumerate(value):
            yield from texts_in(one, (*place, index))


class ClientCredentials(_Token):
    """OAuth 2.0 client credentials (RFC 6749 section 4.4)."""

    type: Literal["oauth2_client_credentials"] = Field(description=_TYPE)
    url: _Url = Field(description=_URL)
    client_id: _Template = Field(description=_CLIENT_ID)
    client_secret: _Template = Field(description=_CLIENT_KEY)
    client_auth: Literal["basic", "form"] = Field(
        default="basic",
        description="Where id and secret go: `basic` authorization (the default, which every "
        "server must take) or the `form`.",
    )
    scope: _Template | None = Field(default=None, description=_SCOPE)
    audience: _Template | None = Field(
        default=None, description="The API that the token is for, where the server wants it said."
    )


class RefreshToken(_Token):
    """OAuth 2.0 refresh token (RFC 6749 section 6)."""

    type: Literal["oauth2_refresh_token"] = Field(description=_TYPE)
    url: _Url = Field(description=_URL)
    refresh_token: _Template = Field(description="The refresh token, such as `{refresh_token}`.")
    client_id: _Template = Field(description=_CLIENT_ID)
    client_secret: _Template | None = Field(
        default=None, description=_CLIENT_KEY + " Left out for public clients."
    )
    client_auth: Literal["basic", "form"] = Field(
        default="basic", description="Where id and secret go: `basic` (the default) or the `form`."
    )
    scope: _Template | None = Field(default=None, description=_SCOPE)
    store: _Path | None = Field(
        default=None,
        description="A file in which the newest refresh token is kept, for servers that give a new "
        "one each time and then refuse the old. Its directory must exist and be yours. None by "
        "default: a new one is kept in memory only.",
    )


class _Signed(Node):
    """How a JWT is signed and what it says (RFC 7519)."""

    algorithm: Algorithm = Field(
        description="How it is signed; must fit the key. `none` does not exist here."
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
        description="Seconds from now to `exp`. 300 by default; short, since it is made anew.",
    )

    @model_validator(mode="after")
    def _claims_can_be_sent(self) -> _Signed:
        _check_document(self.claims)
        for name in ("iat", "exp", "jti"):
            if name in self.claims:
                raise ValueError(
                    f"the claim {name} is set for each token\nremove it; see valid_seconds"
                )
        return self


class Jwt(_Token, _Signed):
    """A JWT that is signed here and is itself the token."""

    type: Literal["jwt"] = Field(description=_TYPE)


class JwtBearer(_Token, _Signed):
    """A JWT signed here, exchanged for a token (RFC 7523 section 2.1): Google service accounts."""

    type: Literal["jwt_bearer"] = Field(description=_TYPE)
    url: _Url = Field(description=_URL)
    scope: _Template | None = Field(
        default=None, description="Scopes as a form field; Google wants them as a claim instead."
    )


class Assertion(_Signed):
    """A JWT that a `request` can name as `{jwt}`."""


class Request(_Token):
    """Any other call that answers with a token in JSON."""

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
        default=None, description="A JWT to be signed for the call; `{jwt}` names it."
    )
    token: Line = Field(
        default="access_token",
        description="Where the answer has the token; dots lead into objects. `access_token` by "
        "default.",
    )
    expiry: Line = Field(
        default="expires_in",
        description="Where the answer has the token's end: seconds, or a moment. `expires_in` by "
        "default.",
    )

    @model_validator(mode="after")
    def _one_body(self) -> Request:
        if self.form is not None and self.json_body is not None:
            raise ValueError("a request has one body\nkeep form: or json:")
        if self.method == "GET" and not (self.form is None and self.json_body is None):
            raise ValueError("a GET has no body\nwrite method: POST, or leave form: and json: out")
        _check_document(self.json_body)
        return self

    @model_validator(mode="after")
    def _headers_once(self) -> Request:
        if len({name.lower() for name in self.headers}) < len(self.headers):
            raise ValueError("a header stands here twice\nkeep one; case makes no difference")
        return self

    @property
    def given(self) -> frozenset[str]:
        return frozenset() if self.assertion is None else frozenset({"jwt"})


class Inworld(_Token):
    """Inworld's session token, for a call that is signed with IW1-HMAC-SHA256."""

    type: Literal["inworld"] = Field(description=_TYPE)
    key: _Template | None = Field(default=None, description="The key's id. With `secret`.")
    secret: _Template | None = Field(default=None, description="The key's secret. With `key`.")
    portal: _Template | None = Field(
        default=None, description="The Base64 string of the portal, which is both."
    )
    variant: Literal["session", "sample"] = Field(
        default="session",
        description="Which call: `session` as documented (the default), `sample` as in the Node.js "
        "sample application.",
    )
    workspace: _Template | None = Field(
        default=None, description="`workspaces/…` that a `sample` token is for. None by default."
    )

    @model_validator(mode="after")
    def _one_form(self) -> Inworld:
        if (self.portal is None) == (self.key is None) or (self.key is None) != (
            self.secret is None
        ):
            raise ValueError(
                "the key is missing or given twice\nwrite portal:, or key: and secret:"
            )
        if self.workspace is not None and self.variant != "sample":
            raise ValueError("this call names no workspace\nwrite variant: sample, or remove it")
        return self


class Exec(_Token):
    """A command that prints a token: `{"token": "…", "expires_in": 3600}`, or the text alone."""

    type: Literal["exec"] = Field(description=_TYPE)
    command: tuple[Line, ...] = Field(
        min_length=1,
        description="The program and its arguments. No shell: nothing is expanded. Its environment "
        "is keyrelay's, without the variables of other routes' secrets.",
    )
    timeout_seconds: Seconds = Field(
        default=30, gt=0, le=300, description="Seconds that it may take. 30 by default."
    )
    token: Line = Field(default="token", description="Where the JSON has the token.")
    expiry: Line = Field(default="expires_in", description="Where the JSON has the token's end.")

    @property
    def templates(self) -> dict[tuple[str | int, ...], str]:
        return {}  # braces of a command are its own


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
