"""Tokens of OAuth 2.0 servers: client credentials and refresh tokens (RFC 6749)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from urllib.parse import quote_plus, urlencode

from proxy.auth.token_cache import FetchedToken
from proxy.auth.tokens.client import Ask, TokenRequest
from proxy.auth.tokens.response import TokenFields, read_token

_EXPIRY = ("expires_in", "expires_at")
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def oauth2_fields(lifetime_seconds: float) -> TokenFields:
    """Where an OAuth 2.0 answer has what matters (RFC 6749 section 5.1)."""
    return TokenFields("access_token", _EXPIRY, lifetime_seconds)


def oauth2_call(
    url: str,
    form: Mapping[str, bytes | None],
    *,
    client_auth: str,
    client_id: bytes,
    client_secret: bytes | None,
) -> TokenRequest:
    """A request to a token endpoint. ``form`` without the client's credentials; None is left out.

    Basic authorization carries id and secret form-encoded, which RFC 6749 section 2.3.1 wants and
    many forget: a secret with a ``%`` or ``:`` would arrive as another one.
    """
    headers = dict(_FORM)
    fields = {name: value for name, value in form.items() if value is not None}
    if client_auth == "basic" and client_secret is not None:
        pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode("ascii")
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode('ascii')}"
    else:
        fields["client_id"] = client_id
        if client_secret is not None:
            fields["client_secret"] = client_secret
    return TokenRequest("POST", url, headers, urlencode(fields).encode("ascii"))


class RequestTokenSource:
    """The same call each time: client credentials, or whatever else needs nothing new."""

    def __init__(self, ask: Ask, make: Callable[[], TokenRequest], fields: TokenFields) -> None:
        self._ask = ask
        self._make = make
        self._fields = fields

    async def token_source(self) -> FetchedToken:
        answer, now = await self._ask(self._make())
        return read_token(answer, self._fields, now)
