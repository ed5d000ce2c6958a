"""Field types, common settings and signing settings of all token types."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    Field,
    Strict,
    model_validator,
)

from proxy.config.fields import Line, Node, Seconds, check_header_field_name, checked_by
from proxy.config.template import parse_template
from proxy.errors import ConfigValueError
from proxy.http.address import parse_upstream

Algorithm: TypeAlias = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512", "EdDSA",
]  # fmt: skip


def _check_url(text: str) -> None:
    """Check a token endpoint: a URL, or a path at the route's upstream, with secrets in braces."""
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


def check_document(value: Any) -> None:
    """Check a JSON value whose strings are templates. Raises ConfigValueError."""
    for _, text in texts_in(value):
        parse_template(text)
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise ConfigValueError("invalid JSON number", "use a finite one") from None


TemplateText = Annotated[str, checked_by(parse_template)]
HeaderName = Annotated[str, checked_by(check_header_field_name)]
RefusalStatus = Annotated[int, Strict(), AfterValidator(_refusal)]
TokenUrl = Annotated[str, checked_by(_check_url)]
FilePath = Annotated[str, checked_by(_check_path)]

URL_DESCRIPTION = (
    "Token endpoint: a URL, or a path such as `/oauth2/token` at the route's upstream, so that "
    "overriding `upstream` moves both."
)
TYPE_DESCRIPTION = "Token type: the method by which tokens are obtained."
SCOPE_DESCRIPTION = "Scopes, separated by spaces. None by default."
LEEWAY_DESCRIPTION = (
    "Seconds by which `iat` is set back, for servers whose clock is behind. 5 by default. "
    "`exp` is counted from `iat`, so that the validity stays within the server's limit."
)


class TokenBase(Node):
    """Settings of all token types."""

    lifetime_seconds: Seconds = Field(
        default=300,
        gt=0,
        le=31_536_000,
        description="Seconds that a token is valid if its response states no usable lifetime. 300 "
        "by "
        "default.",
    )
    zero_lifetime: Literal["unknown", "never"] = Field(
        default="unknown",
        description="Meaning of a lifetime of 0 in the response: `unknown` (the default), so that "
        "`lifetime_seconds` applies, or `never` for a token that does not expire.",
    )
    refused: tuple[RefusalStatus, ...] = Field(
        default=(401,),
        min_length=1,
        description="Statuses with which the provider rejects a token. 401 by default. A rejected "
        "token is replaced and the request sent once more.",
    )

    @property
    def templates(self) -> dict[tuple[str | int, ...], str]:
        """All strings, each a template, by their path below ``token:`` in the YAML."""
        return dict(texts_in(self.model_dump(by_alias=True)))

    @property
    def given(self) -> frozenset[str]:
        """Names in templates that are provided at the request and are no secrets."""
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


class Signed(Node):
    """Signing key and claims of a JWT (RFC 7519)."""

    algorithm: Algorithm = Field(
        description="Signing algorithm; must fit the key. `none` is not supported."
    )
    key: TemplateText = Field(
        description="The key: PEM, or the shared secret itself for HS256, HS384 and HS512."
    )
    key_id: TemplateText | None = Field(
        default=None, description="`kid` of the header, for providers that hold several keys."
    )
    claims: Mapping[Line, Any] = Field(
        default={},
        description="Claims, such as `iss` and `aud`. Keyrelay sets `iat`, `exp` and `jti`.",
    )
    header_type: Line = Field(default="JWT", description="`typ` of the header. JWT by default.")
    valid_seconds: Seconds = Field(
        default=300,
        gt=0,
        le=86_400,
        description="Seconds from `iat` to `exp`. 300 by default; each JWT is signed anew.",
    )
    leeway_seconds: Seconds = Field(default=5, ge=0, le=300, description=LEEWAY_DESCRIPTION)

    @property
    def discloses(self) -> frozenset[str]:
        """Names of the secrets that everybody can read in the JWT: it is signed, not encrypted."""
        readable = (self.key_id or "", *(text for _, text in texts_in(self.claims)))
        return frozenset().union(*(parse_template(text).names for text in readable))

    @model_validator(mode="after")
    def _claims_can_be_sent(self) -> Signed:
        check_document(self.claims)
        for name in ("iat", "exp", "jti"):
            if name in self.claims:
                raise ConfigValueError(
                    f"the claim {name} is set by keyrelay", "remove it; see valid_seconds"
                )
        return self
