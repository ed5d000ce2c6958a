"""Token sources of the OAuth 2.0 grants, made from their settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.auth.strategy import AuthContext
from proxy.auth.token import TokenSource
from proxy.auth.token_store import FileTokenStore, TokenStore
from proxy.auth.tokens.client import SendTokenRequest, TokenClient, TokenRequest
from proxy.auth.tokens.inputs import (
    SourceInputs,
    Values,
    decode,
    endpoint_url,
    fill,
    identity_of,
    render,
    render_optional,
    render_text,
)
from proxy.auth.tokens.oauth2 import (
    EXPIRY,
    ClientAuthentication,
    RequestTokenSource,
    form_of,
    token_request,
)
from proxy.auth.tokens.refresh_token import RefreshTokenSource
from proxy.auth.tokens.response import TokenFields
from proxy.clock import Clock
from proxy.config.oauth2 import (
    ClientAssertion,
    ClientCredentials,
    DPoP,
    JwtBearer,
    RefreshToken,
)
from proxy.config.template import parse_template
from proxy.config.token import Assertion, Jwt, TokenSettings
from proxy.upstream.tls import client_tls_context

if TYPE_CHECKING:
    from proxy.auth.tokens.dpop import DPoPProver
    from proxy.auth.tokens.jwt import Signer

# RFC 7523 section 8.1.
_JWT_BEARER = b"urn:ietf:params:oauth:grant-type:jwt-bearer"


def make_prover(settings: TokenSettings, values: Values, context: AuthContext) -> DPoPProver | None:
    """The prover for ``dpop:`` of a token; None for a token that is not bound to a key.

    Raises ValueError, without the key, if the key does not fit the algorithm.
    """
    dpop = getattr(settings, "dpop", None)
    if not isinstance(dpop, DPoP):
        return None
    from proxy.auth.tokens.dpop import DPoPProver

    return DPoPProver(context.clock, algorithm=dpop.algorithm, key=render(dpop.key, values))


def make_oauth2_source(
    settings: ClientCredentials | RefreshToken | JwtBearer,
    inputs: SourceInputs,
    context: AuthContext,
) -> TokenSource:
    """RFC 6749 sections 4.4 and 6, RFC 7523 section 2.1."""
    values = inputs.values
    tls = context.tls
    if settings.client_certificate is not None and settings.client_key is not None:
        tls = client_tls_context(
            render(settings.client_certificate, values),
            render(settings.client_key, values),
            inputs.authorities,
        )
    send = TokenClient(
        tls,
        context.clock.wall,
        allow_private=inputs.allow_private,
        allow_plaintext=inputs.allow_plaintext,
        call_seconds=settings.timeout_seconds,
        egress_proxy=inputs.egress_proxy,
    )
    url = endpoint_url(settings.url, values, inputs.base)
    client = _client(settings, inputs, context, url)
    prover = make_prover(settings, values, context)
    scope = None if settings.scope is None else render_text(settings.scope, values)
    common = form_of(
        {
            "scope": None if scope is None else scope.encode(),
            "audience": render_optional(settings.audience, values),
            "resource": [render(one, values) for one in settings.resource],
            **{
                name: render(one, values)
                if isinstance(one, str)
                else [render(each, values) for each in one]
                for name, one in settings.form.items()
            },
        }
    )
    fields = TokenFields(
        "access_token",
        EXPIRY,
        settings.lifetime_seconds,
        zero=settings.zero_lifetime,
        scope=scope,
        token_type=None if settings.dpop is None else "dpop",
    )
    match settings:
        case RefreshToken():
            return _refresh_token(
                settings,
                inputs,
                context,
                send,
                fields,
                lambda token: token_request(
                    url,
                    (("grant_type", b"refresh_token"), ("refresh_token", token), *common),
                    client,
                    prover,
                ),
            )
        case JwtBearer():
            signer = make_signer(settings, values, context.clock)
            return RequestTokenSource(
                send,
                lambda: token_request(
                    url,
                    (("grant_type", _JWT_BEARER), ("assertion", signer.sign()), *common),
                    client,
                    prover,
                ),
                fields,
            )
    form = (("grant_type", b"client_credentials"), *common)
    return RequestTokenSource(send, lambda: token_request(url, form, client, prover), fields)


def _refresh_token(
    settings: RefreshToken,
    inputs: SourceInputs,
    context: AuthContext,
    send: SendTokenRequest,
    fields: TokenFields,
    make: Callable[[bytes], TokenRequest],
) -> RefreshTokenSource:
    first = render(settings.refresh_token, inputs.values)
    store: TokenStore | None = None
    if context.shared is not None:
        store = context.shared.store(first, settings.timeout_seconds)
    elif settings.store is not None:
        store = FileTokenStore(Path(settings.store), first, call_seconds=settings.timeout_seconds)
    return RefreshTokenSource(
        send,
        make,
        fields,
        first=first,
        store=store,
        identity=identity_of(settings, inputs),
        wall=context.clock.wall,
        warn=lambda line: context.warn(f"{inputs.route}: {line}"),
    )


def _client(
    settings: ClientCredentials | RefreshToken | JwtBearer,
    inputs: SourceInputs,
    context: AuthContext,
    url: str,
) -> ClientAuthentication | None:
    """Client authentication by the settings; None for a grant without a client."""
    values = inputs.values
    if settings.client_id is None:
        return None
    client_id = render(settings.client_id, values)
    secret = render_optional(settings.client_secret, values)
    sign = None
    templates = [settings.client_id, settings.client_secret]
    if settings.client_auth in {"private_key_jwt", "client_secret_jwt"}:
        sign = _client_assertion(settings, inputs, context, url, client_id, secret)
        if settings.client_assertion is not None:
            templates.append(settings.client_assertion.key)
        secret = None
    names = dict.fromkeys(
        inputs.references.get(name, name)
        for template in templates
        if template is not None
        for name in sorted(parse_template(template).names)
    )
    return ClientAuthentication(settings.client_auth, client_id, secret, sign, ", ".join(names))


def _client_assertion(
    settings: ClientCredentials | RefreshToken | JwtBearer,
    inputs: SourceInputs,
    context: AuthContext,
    url: str,
    client_id: bytes,
    secret: bytes | None,
) -> Callable[[], bytes]:
    """Return a function that signs assertions of the client (RFC 7523 section 3)."""
    from proxy.auth.tokens.jwt import Signer

    assertion = settings.client_assertion or ClientAssertion()
    values = inputs.values
    shared = settings.client_auth == "client_secret_jwt"
    key = secret if shared else render_optional(assertion.key, values)
    assert key is not None, "the settings are checked"
    name = decode(client_id)
    audience = url.partition("?")[0]
    if assertion.audience is not None:
        audience = render_text(assertion.audience, values)
    return Signer(
        context.clock,
        algorithm=assertion.algorithm or ("HS256" if shared else "RS256"),
        key=key,
        key_id=None if assertion.key_id is None else render_text(assertion.key_id, values),
        header_type=assertion.header_type,
        claims={"iss": name, "sub": name, "aud": audience},
        valid_seconds=assertion.valid_seconds,
        leeway_seconds=assertion.leeway_seconds,
    ).sign


def make_signer(settings: Assertion | Jwt | JwtBearer, values: Values, clock: Clock) -> Signer:
    """The signer for these settings. Raises ValueError, without the key, if it does not fit."""
    # PyJWT and cryptography take 9 MB, which routes that sign nothing do without.
    from proxy.auth.tokens.jwt import Signer

    return Signer(
        clock,
        algorithm=settings.algorithm,
        key=render(settings.key, values),
        key_id=None if settings.key_id is None else render_text(settings.key_id, values),
        header_type=settings.header_type,
        claims=fill(settings.claims, values),
        valid_seconds=settings.valid_seconds,
        leeway_seconds=settings.leeway_seconds,
    )
