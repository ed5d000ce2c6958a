"""Requests to the token endpoints of OAuth 2.0 servers, and how clients authenticate there.

RFC 6749 for id and secret, RFC 7523 for signed assertions, RFC 8705 for certificates, RFC 8707 for
resources, RFC 9449 for proofs of possession.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, urlencode

from proxy.auth.token import FetchedToken
from proxy.auth.tokens.client import Ask, Prover, TokenRequest
from proxy.auth.tokens.response import TokenFields, read_token

EXPIRY = ("expires_in", "expires_at")
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
# RFC 7523 section 2.2.
_ASSERTION_TYPE = b"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

Form = Sequence[tuple[str, bytes]]
"""Fields in their order; a name may stand there several times."""


@dataclass(frozen=True, slots=True, repr=False)
class ClientAuthentication:
    """Client authentication at a token endpoint. Holds secret bytes: never printed.

    method  ``basic``: id and secret form-encoded, as RFC 6749 section 2.3.1 wants it.
            ``basic_plain``: as they are, for servers that do not decode. ``form``: as fields.
            ``private_key_jwt``, ``client_secret_jwt``: a signed assertion. ``tls``: the
            certificate of the connection
    secret  None for public clients, assertions and certificates
    sign    makes an assertion
    names   the secrets that it is made of, for the operator: ``env:ID, env:SECRET``
    """

    method: str
    client_id: bytes
    secret: bytes | None = None
    sign: Callable[[], bytes] | None = None
    names: str = ""

    def apply(self, form: Form) -> tuple[dict[str, str], Form, bool]:
        """Header fields, the form with what is due, and whether encoding changed id or secret."""
        if self.sign is not None:
            assertion = self.sign()
            return (
                {},
                (
                    *form,
                    ("client_id", self.client_id),
                    ("client_assertion_type", _ASSERTION_TYPE),
                    ("client_assertion", assertion),
                ),
                False,
            )
        if self.secret is None:
            return {}, (*form, ("client_id", self.client_id)), False
        if self.method == "form":
            fields = (("client_id", self.client_id), ("client_secret", self.secret))
            return {}, (*form, *fields), False
        plain = self.client_id + b":" + self.secret
        pair = plain
        if self.method == "basic":
            # %20 and not +: servers that undo one of the two undo this one.
            pair = b":".join(
                quote_from_bytes(one, safe="").encode("ascii")
                for one in (self.client_id, self.secret)
            )
        authorization = f"Basic {base64.b64encode(pair).decode('ascii')}"
        return {"Authorization": authorization}, form, pair != plain


def token_request(
    url: str,
    form: Form,
    client: ClientAuthentication | None = None,
    prover: Prover | None = None,
) -> TokenRequest:
    """A request to a token endpoint. ``form`` is without the client's credentials."""
    headers, fields, encoded = ({}, form, False) if client is None else client.apply(form)
    secrets = [value for name, value in fields if name in _SECRET_FIELDS]
    if client is not None and client.secret is not None:
        secrets.append(client.secret)
    if "Authorization" in headers:
        secrets.append(headers["Authorization"].removeprefix("Basic ").encode("ascii"))
    return TokenRequest(
        "POST",
        url,
        {**_FORM, **headers},
        urlencode(fields).encode("ascii"),
        secrets=tuple(secrets),
        encoded=encoded,
        client="" if client is None else client.names,
        prover=prover,
    )


# What an endpoint must not get into a log by quoting it.
_SECRET_FIELDS = frozenset(
    {"assertion", "client_assertion", "client_secret", "password", "refresh_token"}
)


class RequestTokenSource:
    """The same call each time: client credentials, or whatever else needs nothing new."""

    def __init__(self, ask: Ask, make: Callable[[], TokenRequest], fields: TokenFields) -> None:
        self._ask = ask
        self._make = make
        self._fields = fields

    async def fetch(self) -> FetchedToken:
        answer, now = await self._ask(self._make())
        return read_token(answer, self._fields, now)


def form_of(fields: Mapping[str, bytes | Sequence[bytes] | None]) -> Form:
    """Fields with one value, with several, or with none at all."""
    form: list[tuple[str, bytes]] = []
    for name, value in fields.items():
        if isinstance(value, bytes):
            form.append((name, value))
        elif value is not None:
            form += [(name, one) for one in value]
    return form
