"""OAuth 2.0 token requests, and client authentication at token endpoints.

RFC 6749 for id and secret, RFC 7523 for signed assertions, RFC 8705 for certificates, RFC 8707 for
resources, RFC 9449 for proofs of possession.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, urlencode

from proxy.auth.token import FetchedToken
from proxy.auth.tokens.client import Prover, SendTokenRequest, TokenRequest
from proxy.auth.tokens.response import TokenFields, read_token

EXPIRY = ("expires_in", "expires_at")
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
# RFC 7523 section 2.2.
_ASSERTION_TYPE = b"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

Form = Sequence[tuple[str, bytes]]
"""Form parameters in their order; a name may occur several times."""


@dataclass(frozen=True, slots=True, repr=False)
class ClientAuthentication:
    """Client authentication at a token endpoint. Contains secret bytes: never printed.

    method  ``basic``: id and secret form-encoded, as RFC 6749 section 2.3.1 requires.
            ``basic_plain``: as they are, for servers that do not decode. ``form``: as fields.
            ``private_key_jwt``, ``client_secret_jwt``: a signed assertion. ``tls``: the
            certificate of the connection
    secret  None for public clients, assertions and certificates
    sign    makes an assertion
    names   the references to its secrets, for the operator: ``env:ID, env:SECRET``
    """

    method: str
    client_id: bytes
    secret: bytes | None = None
    sign: Callable[[], bytes] | None = None
    names: str = ""

    def apply(self, form: Form) -> tuple[dict[str, str], Form, bool]:
        """Return header fields, the completed form, and whether encoding changed id or secret."""
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
            # %20 instead of +: every server that decodes one of them decodes this one.
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
    """Return a token request. ``form`` is without the client's credentials."""
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


# Values that an error response may quote: redacted in logs.
_SECRET_FIELDS = frozenset(
    {"assertion", "client_assertion", "client_secret", "password", "refresh_token"}
)


class RequestTokenSource:
    """The same token request each time, such as that of the client credentials grant."""

    def __init__(
        self, send: SendTokenRequest, make: Callable[[], TokenRequest], fields: TokenFields
    ) -> None:
        self._send = send
        self._make = make
        self._fields = fields

    async def fetch(self) -> FetchedToken:
        document, now = await self._send(self._make())
        return read_token(document, self._fields, now)


def form_of(fields: Mapping[str, bytes | Sequence[bytes] | None]) -> Form:
    """Return form parameters of which each has one value, several, or none."""
    form: list[tuple[str, bytes]] = []
    for name, value in fields.items():
        if isinstance(value, bytes):
            form.append((name, value))
        elif value is not None:
            form += [(name, one) for one in value]
    return form
