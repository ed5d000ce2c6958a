"""Makes the source of a strategy's tokens, by the type in its settings."""

from __future__ import annotations

import json
from urllib.parse import urlencode

from proxy.auth.strategy import AuthContext
from proxy.auth.token import TokenSource
from proxy.auth.tokens.client import SendTokenRequest, TokenClient, TokenRequest
from proxy.auth.tokens.command import CommandTokenSource
from proxy.auth.tokens.inputs import (
    SourceInputs,
    Values,
    endpoint_url,
    fill,
    header_value,
    identity_of,
    render,
    render_text,
)
from proxy.auth.tokens.inworld import session_call, split_portal_string
from proxy.auth.tokens.oauth2 import RequestTokenSource
from proxy.auth.tokens.oauth2_factory import make_oauth2_source, make_signer
from proxy.auth.tokens.response import TokenFields
from proxy.config.oauth2 import ClientCredentials, JwtBearer, RefreshToken
from proxy.config.template import parse_template
from proxy.config.token import Exec, Inworld, Jwt, Request, TokenSettings

# As every call spells them, so that one in another case takes its place and is no second one.
_SPELLED = {name.lower(): name for name in ("Accept", "Accept-Encoding", "Content-Type")}


def make_source(settings: TokenSettings, inputs: SourceInputs, context: AuthContext) -> TokenSource:
    """The source for ``settings``.

    Raises ValueError, without a value, if a secret is not what the type needs.
    """
    source = _make(settings, inputs, context)
    if context.share is None and context.shared is None:
        return source
    identity = identity_of(settings, inputs)

    def warn(line: str) -> None:
        context.warn(f"{inputs.route}: {line}")

    # A refresh token has a store of its own, and signing costs no call.
    if context.shared is not None and not isinstance(settings, RefreshToken | Jwt):
        if reason := context.shared.unshared(settings, inputs.values):
            warn(f"its tokens are not shared: {reason}")
        else:
            source = context.shared.source(identity, source)
    return source if context.share is None else context.share(identity, source, warn)


def _make(settings: TokenSettings, inputs: SourceInputs, context: AuthContext) -> TokenSource:
    values, base = inputs.values, inputs.base
    match settings:
        case ClientCredentials() | RefreshToken() | JwtBearer():
            return make_oauth2_source(settings, inputs, context)
        case Jwt():
            from proxy.auth.tokens.jwt import JwtTokenSource

            return JwtTokenSource(make_signer(settings, values, context.clock))
        case Exec():
            return CommandTokenSource(
                settings.command,
                _fields(settings, settings.token, (settings.expiry,)),
                context.clock,
                timeout_seconds=settings.timeout_seconds,
                hidden=context.hidden,
            )
    send = TokenClient(
        context.tls,
        context.clock.wall,
        allow_private=inputs.allow_private,
        allow_plaintext=inputs.allow_plaintext,
        egress_proxy=inputs.egress_proxy,
    )
    if isinstance(settings, Request):
        return _request(settings, values, base, send, context)
    return _inworld(settings, values, base, send, context)


def _request(
    settings: Request, values: Values, base: str, send: SendTokenRequest, context: AuthContext
) -> RequestTokenSource:
    url = endpoint_url(settings.url, values, base)
    signer = (
        None
        if settings.assertion is None
        else make_signer(settings.assertion, values, context.clock)
    )

    def make() -> TokenRequest:
        given = values if signer is None else {**values, "jwt": signer.sign()}
        headers = {
            _SPELLED.get(name.lower(), name): header_value(name, value, given)
            for name, value in settings.headers.items()
        }
        body: bytes | None = None
        if settings.form is not None:
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
            form = {name: render(value, given) for name, value in settings.form.items()}
            body = urlencode(form).encode("ascii")
        elif settings.json_body is not None:
            headers.setdefault("Content-Type", "application/json")
            body = json.dumps(fill(settings.json_body, given), allow_nan=False).encode()
        return TokenRequest(
            settings.method, url, headers, body, secrets=tuple(given[name] for name in used)
        )

    used = {name for text in settings.templates.values() for name in parse_template(text).names}
    make()  # what cannot be rendered is found when the route is built
    return RequestTokenSource(send, make, _fields(settings, settings.token, (settings.expiry,)))


def _inworld(
    settings: Inworld, values: Values, base: str, send: SendTokenRequest, context: AuthContext
) -> RequestTokenSource:
    if settings.portal is not None:
        key, secret = split_portal_string(render(settings.portal, values))
    else:
        assert settings.key is not None
        assert settings.secret is not None
        key, secret = render(settings.key, values), render(settings.secret, values)
    workspace = None if settings.workspace is None else render_text(settings.workspace, values)

    def make() -> TokenRequest:
        return session_call(base, settings.variant, key, secret, workspace, context.clock.wall)

    return RequestTokenSource(send, make, _fields(settings, "token", ("expirationTime",)))


def _fields(settings: Request | Inworld | Exec, token: str, expiry: tuple[str, ...]) -> TokenFields:
    return TokenFields(token, expiry, settings.lifetime_seconds, zero=settings.zero_lifetime)
