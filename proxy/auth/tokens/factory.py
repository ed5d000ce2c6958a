"""Chooses what mints the tokens of a strategy, by the type that its settings say."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes, urlencode

from proxy.auth.strategy import AuthContext
from proxy.auth.token_cache import TokenSource
from proxy.auth.tokens.client import Ask, TokenClient, TokenRequest
from proxy.auth.tokens.command import CommandTokenSource
from proxy.auth.tokens.inworld import session_call, split_portal_string
from proxy.auth.tokens.oauth2 import RequestTokenSource, oauth2_call, oauth2_fields
from proxy.auth.tokens.refresh_token import RefreshTokenSource
from proxy.auth.tokens.response import TokenFields
from proxy.config.template import Template, parse_template
from proxy.config.token import (
    Assertion,
    ClientCredentials,
    Exec,
    Inworld,
    Jwt,
    JwtBearer,
    RefreshToken,
    Request,
    TokenSettings,
)

if TYPE_CHECKING:
    from proxy.auth.tokens.jwt import Signer

Values = Mapping[str, bytes]

# RFC 7523 section 8.1.
_JWT_BEARER = b"urn:ietf:params:oauth:grant-type:jwt-bearer"
# As every call spells them, so that one in another case takes its place and is no second one.
_SPELLED = {name.lower(): name for name in ("Accept", "Accept-Encoding", "Content-Type")}


def make_mint(
    settings: TokenSettings, values: Values, base: str, means: AuthContext, *, allow_private: bool
) -> TokenSource:
    """The mint for ``settings``. ``values`` are the secrets; ``base`` is the route's upstream.

    Raises ValueError, without a value, if a secret is not what the type needs.
    """
    token_source = _make(settings, values, base, means, allow_private=allow_private)
    if means.share is None:
        return token_source
    return means.share(_identity(settings, values, base, allow_private=allow_private), token_source)


def _identity(settings: TokenSettings, values: Values, base: str, *, allow_private: bool) -> str:
    """A digest of everything that decides which token one gets, and from where."""
    digest = hashlib.sha256(b"keyrelay token\0")
    parts = [settings.model_dump_json().encode(), base.encode(), b"%d" % allow_private]
    for name, value in sorted(values.items()):
        parts += [name.encode(), value]
    for part in parts:
        digest.update(b"%d:" % len(part) + part)
    return digest.hexdigest()


def _make(
    settings: TokenSettings, values: Values, base: str, means: AuthContext, *, allow_private: bool
) -> TokenSource:
    ask = TokenClient(means.tls, means.clock.wall, allow_private=allow_private)
    match settings:
        case ClientCredentials():
            return _client_credentials(settings, values, base, ask)
        case RefreshToken():
            return _refresh_token(settings, values, base, ask)
        case Jwt():
            from proxy.auth.tokens.jwt import JwtTokenSource

            return JwtTokenSource(_signer(settings, values, means))
        case JwtBearer():
            return _jwt_bearer(settings, values, base, ask, means)
        case Request():
            return _request(settings, values, base, ask, means)
        case Inworld():
            return _inworld(settings, values, base, ask, means)
        case Exec():
            fields = TokenFields(
                settings.token, (settings.expiry,), settings.lifetime_seconds, bearer=False
            )
            return CommandTokenSource(
                settings.command,
                fields,
                means.clock,
                timeout_seconds=settings.timeout_seconds,
                hidden=means.hidden,
            )


def _client_credentials(
    settings: ClientCredentials, values: Values, base: str, ask: Ask
) -> RequestTokenSource:
    """RFC 6749 section 4.4."""
    call = oauth2_call(
        _url(settings.url, values, base),
        {
            "grant_type": b"client_credentials",
            "scope": _optional(settings.scope, values),
            "audience": _optional(settings.audience, values),
        },
        client_auth=settings.client_auth,
        client_id=_render(settings.client_id, values),
        client_secret=_render(settings.client_secret, values),
    )
    return RequestTokenSource(ask, lambda: call, oauth2_fields(settings.lifetime_seconds))


def _refresh_token(
    settings: RefreshToken, values: Values, base: str, ask: Ask
) -> RefreshTokenSource:
    """RFC 6749 section 6."""
    url = _url(settings.url, values, base)
    scope = _optional(settings.scope, values)
    client_id = _render(settings.client_id, values)
    client_secret = _optional(settings.client_secret, values)

    def make(refresh_token: bytes) -> TokenRequest:
        return oauth2_call(
            url,
            {"grant_type": b"refresh_token", "refresh_token": refresh_token, "scope": scope},
            client_auth=settings.client_auth,
            client_id=client_id,
            client_secret=client_secret,
        )

    return RefreshTokenSource(
        ask,
        make,
        oauth2_fields(settings.lifetime_seconds),
        first=_render(settings.refresh_token, values),
        store=None if settings.store is None else Path(settings.store),
    )


def _jwt_bearer(
    settings: JwtBearer, values: Values, base: str, ask: Ask, means: AuthContext
) -> RequestTokenSource:
    """RFC 7523 section 2.1."""
    url = _url(settings.url, values, base)
    scope = _optional(settings.scope, values)
    signer = _signer(settings, values, means)

    def make() -> TokenRequest:
        form = {"grant_type": _JWT_BEARER, "assertion": signer.sign()}
        if scope is not None:
            form["scope"] = scope
        content_type = {"Content-Type": "application/x-www-form-urlencoded"}
        return TokenRequest("POST", url, content_type, urlencode(form).encode("ascii"))

    return RequestTokenSource(ask, make, oauth2_fields(settings.lifetime_seconds))


def _request(
    settings: Request, values: Values, base: str, ask: Ask, means: AuthContext
) -> RequestTokenSource:
    url = _url(settings.url, values, base)
    signer = None if settings.assertion is None else _signer(settings.assertion, values, means)

    def make() -> TokenRequest:
        given = values if signer is None else {**values, "jwt": signer.sign()}
        headers = {
            _SPELLED.get(name.lower(), name): _field(name, value, given)
            for name, value in settings.headers.items()
        }
        body: bytes | None = None
        if settings.form is not None:
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
            form = {name: _render(value, given) for name, value in settings.form.items()}
            body = urlencode(form).encode("ascii")
        elif settings.json_body is not None:
            headers.setdefault("Content-Type", "application/json")
            body = json.dumps(_filled(settings.json_body, given), allow_nan=False).encode()
        return TokenRequest(settings.method, url, headers, body)

    make()  # what cannot be rendered is found when the route is built
    fields = TokenFields(
        settings.token, (settings.expiry,), settings.lifetime_seconds, bearer=False
    )
    return RequestTokenSource(ask, make, fields)


def _inworld(
    settings: Inworld, values: Values, base: str, ask: Ask, means: AuthContext
) -> RequestTokenSource:
    if settings.portal is not None:
        key, secret = split_portal_string(_render(settings.portal, values))
    else:
        assert settings.key is not None
        assert settings.secret is not None
        key, secret = _render(settings.key, values), _render(settings.secret, values)
    workspace = None if settings.workspace is None else _text(settings.workspace, values)

    def make() -> TokenRequest:
        return session_call(base, settings.variant, key, secret, workspace, means.clock.wall)

    return RequestTokenSource(
        ask, make, TokenFields("token", ("expirationTime",), settings.lifetime_seconds)
    )


def _signer(settings: Assertion | Jwt | JwtBearer, values: Values, means: AuthContext) -> Signer:
    # PyJWT and cryptography take 9 MB, which routes that sign nothing do without.
    from proxy.auth.tokens.jwt import Signer

    return Signer(
        means.clock,
        algorithm=settings.algorithm,
        key=_render(settings.key, values),
        key_id=None if settings.key_id is None else _text(settings.key_id, values),
        header_type=settings.header_type,
        claims=_filled(settings.claims, values),
        valid_seconds=settings.valid_seconds,
    )


def _url(template: str, values: Values, base: str) -> str:
    """The URL, at the route's upstream if it is a path; values in it percent-encoded."""
    url = "".join(
        # By itself, as a field of a secret can only be found before it is encoded.
        quote_from_bytes(Template((piece,)).render(values), safe="")
        if isinstance(piece, str)
        else piece.decode("ascii")
        for piece in parse_template(template).pieces
    )
    return base + url if url.startswith("/") else url


def _render(template: str, values: Values) -> bytes:
    return parse_template(template).render(values)


def _text(template: str, values: Values) -> str:
    try:
        return _render(template, values).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("a secret that goes into a text is not UTF-8") from None


def _field(name: str, template: str, values: Values) -> str:
    value = _text(template, values)
    if re.search(r"[\0\r\n]", value):
        raise ValueError(f"a value for the header {name} has a line break")
    return value


def _optional(template: str | None, values: Values) -> bytes | None:
    return None if template is None else _render(template, values)


def _filled(value: Any, values: Values) -> Any:
    """``value`` with every text in it rendered, however deep."""
    if isinstance(value, str):
        return _text(value, values)
    if isinstance(value, Mapping):
        return {key: _filled(one, values) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(one, values) for one in value]
    return value
