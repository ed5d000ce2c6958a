"""Calls to token endpoints: one HTTP request each, and the JSON of the response.

aiohttp's client does the work; speed does not matter here. No redirect is followed, no cookie kept,
no proxy or ``.netrc`` of the environment used; TLS is verified and addresses are checked as for
providers. Of what an endpoint writes clients get the error codes of RFC 6749 alone; the operator
gets code and text, cut and redacted, since they may quote the credential.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import aiohttp
from yarl import URL

from proxy.auth.token import TokenError
from proxy.auth.tokens.response import TokenEndpointError, error_in, parse_body
from proxy.http.address import Origin, parse_upstream
from proxy.http.content_coding import decoder
from proxy.upstream.address_policy import may_dial

# A call as a whole, unless the settings say otherwise (seconds); the longest body (bytes).
CALL_SECONDS = 10.0
_BODY_LIMIT = 64 * 1024
# A pause that an endpoint may ask for (seconds).
_PAUSE_MOST = 3600.0
_ASKED = {"Accept": "application/json", "Accept-Encoding": "identity"}
_FORBIDDEN = (
    "its name points at an address that routes must not reach; "
    "a private one can be allowed with allow_private: true"
)
# Asking again will not help soon, and might lock an account (seconds).
_REFUSED_SECONDS = 60.0
_REFUSED = frozenset({400, 401, 403})
_ENCODED = (
    "The encoding of RFC 6749 section 2.3.1 changes this id or secret, which some servers do not "
    "undo: try client_auth: basic_plain, or form."
)
# RFC 9449 section 8: the server wants its nonce in the proof, and has sent it.
_WANTS_NONCE = "use_dpop_nonce"


class Prover(Protocol):
    """Proves possession of a key for a request (RFC 9449)."""

    def proof(self, method: str, url: str) -> str:
        """The value of the field ``DPoP`` for a request without a token."""

    def take_nonce(self, url: str, nonce: str) -> None:
        """The server at ``url`` wants this nonce in proofs from now on."""


@dataclass(frozen=True, slots=True, repr=False)
class TokenRequest:
    """One request to a token endpoint. Holds secret bytes: never printed.

    secrets  values in it that the endpoint may quote, as they are redacted in what it writes
    encoded  whether Basic authorization holds an id or secret that form-encoding has changed
    client   what identifies the client, for the operator: ``env:ID, env:SECRET``
    prover   for a DPoP proof, made anew for each try
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    secrets: tuple[bytes, ...] = ()
    encoded: bool = False
    client: str = ""
    prover: Prover | None = None


Ask = Callable[[TokenRequest], Awaitable[tuple[Any, float]]]
"""Makes a call: the response's JSON, and when it came, in seconds since the epoch."""


@dataclass(frozen=True, slots=True, repr=False)
class _Response:
    """What is kept of a response. Holds secret bytes: never printed."""

    status: int
    headers: Mapping[str, str]
    document: Any


class TokenClient:
    """Makes calls on behalf of one strategy. An ``Ask``.

    tls            with the client's certificate, if it has one
    call_seconds   how long a call may take
    allow_private  as of the route, like ``allow_plaintext``: see ``address_policy.may_dial``
    """

    def __init__(
        self,
        tls: ssl.SSLContext,
        wall: Callable[[], float],
        *,
        allow_private: bool,
        allow_plaintext: bool = False,
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        self._tls = tls
        self._wall = wall
        self._allow_private = allow_private
        self._allow_plaintext = allow_plaintext
        self._call_seconds = call_seconds

    async def __call__(self, request: TokenRequest) -> tuple[Any, float]:
        """Raises TokenError. Cancelling closes the connection."""
        if request.prover is None:
            return _judged(request, await self._send(request)), self._wall()
        response = await self._prove(request, request.prover)
        if (
            response.status >= 400
            and "DPoP-Nonce" in response.headers
            and error_in(response.document).code == _WANTS_NONCE
        ):
            response = await self._prove(request, request.prover)
        return _judged(request, response), self._wall()

    async def _prove(self, request: TokenRequest, prover: Prover) -> _Response:
        address = request.url.partition("?")[0]
        headers = {**request.headers, "DPoP": prover.proof(request.method, address)}
        response = await self._send(replace(request, headers=headers))
        if nonce := response.headers.get("DPoP-Nonce", ""):
            prover.take_nonce(address, nonce)
        return response

    async def _send(self, request: TokenRequest) -> _Response:
        try:
            origin, _ = parse_upstream(request.url.partition("?")[0])
            sockets = _CheckedSockets(
                origin,
                allow_private=self._allow_private,
                allow_plaintext=self._allow_plaintext,
            )
        except ValueError:
            raise TokenError("the token endpoint's URL cannot be used") from None
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(
                        ssl=self._tls, force_close=True, socket_factory=sockets
                    ),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=aiohttp.ClientTimeout(total=self._call_seconds),
                    trust_env=False,
                    auto_decompress=False,
                ) as session,
                session.request(
                    request.method,
                    URL(request.url, encoded=True),
                    headers={**_ASKED, **request.headers},
                    data=request.body,
                    allow_redirects=False,
                ) as response,
            ):
                body = await _limited(response)
                document = parse_body(body, response.content_type)
                return _Response(response.status, response.headers, document)
        except TimeoutError:
            raise TokenError(
                "the token endpoint did not answer in time",
                details=f"the token endpoint did not answer within {self._call_seconds:g} s",
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # What the library says may hold the URL and the headers.
            kind = _FORBIDDEN if sockets.forbidden else _kind(error)
            raise TokenError(f"the token endpoint cannot be reached ({kind})") from None


class _CheckedSockets:
    """Makes sockets only for addresses that routes may reach; sees literals and DNS answers."""

    def __init__(self, origin: Origin, *, allow_private: bool, allow_plaintext: bool) -> None:
        self._origin = origin
        self._allow_private = allow_private
        self._allow_plaintext = allow_plaintext
        self.forbidden = False

    def __call__(self, info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if not may_dial(
            str(address[0]),
            self._origin,
            allow_private=self._allow_private,
            allow_plaintext=self._allow_plaintext,
        ):
            self.forbidden = True
            raise OSError("the address is not allowed")
        return socket.socket(family, kind, protocol)


def _kind(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate is not valid"
        case aiohttp.ClientSSLError():
            return "the TLS handshake failed"
        case aiohttp.ClientConnectorDNSError():
            return "its name cannot be resolved"
        case aiohttp.ClientConnectorError():
            return "no connection"
        case aiohttp.ClientError() | OSError():
            return "the connection broke"
    return "the call cannot be written with these values"


async def _limited(response: aiohttp.ClientResponse) -> bytes:
    """The body without its content coding, which some servers apply unasked."""
    coding = decoder(response.headers.get("Content-Encoding", ""))
    body = bytearray()
    async for piece in response.content.iter_any():
        try:
            for plain in (piece,) if coding is None else coding.feed(piece):
                body += plain
                if len(body) > _BODY_LIMIT:
                    raise TokenError("the token endpoint's answer is too large", bad_answer=True)
        except ValueError:
            raise TokenError(
                "the token endpoint's answer cannot be decompressed", bad_answer=True
            ) from None
    return bytes(body)


def _judged(request: TokenRequest, response: _Response) -> Any:
    """The document of a response that can be used. Raises TokenError for any other."""
    status, document = response.status, response.document
    if 300 <= status < 400:
        raise TokenError(
            f"the token endpoint redirects ({status}), which is not followed", bad_answer=True
        )
    if status >= 400:
        raise _refused(request, response, error_in(document))
    if document is None:
        raise TokenError("the token endpoint's answer is not JSON", bad_answer=True)
    return document


def _refused(
    request: TokenRequest, response: _Response, error: TokenEndpointError
) -> TokenEndpointFailure:
    status = response.status
    public = f", {error.public}" if error.public else ""
    words = error.redacted(request.secrets)
    least = _REFUSED_SECONDS if status in _REFUSED else 0.0
    asked = _retry_after(response)
    advice = _advice(request, status, error.code)
    return TokenEndpointFailure(
        status,
        error.code,
        f"the token endpoint answered {status}{public}",
        details=f"the token endpoint answered {status}{f', {words}' if words else ''}",
        advice=advice,
        pause_seconds=max(least, asked),
        # What the endpoint asked for itself is kept to.
        probes=status in _REFUSED and not asked,
        lasting=status in _REFUSED and not asked,
    )


class TokenEndpointFailure(TokenError):
    """A token endpoint refused. ``status`` and ``code`` are its own, the code as it came."""

    def __init__(self, status: int, code: str, reason: str, **more: Any) -> None:
        super().__init__(reason, **more)
        self.status = status
        self.code = code


def _advice(request: TokenRequest, status: int, code: str) -> str:
    """What the operator can do about a refusal."""
    if status not in _REFUSED:
        return ""
    client = f" ({request.client})" if request.client else ""
    advice = ""
    match code:
        case "invalid_client" | "unauthorized_client":
            advice = f"Check the client's id and secret{client}."
        case "invalid_scope" | "scope_invalid":
            advice = "Check scope: of the token."
        case "invalid_target":
            advice = "Check resource: and audience: of the token."
        case "invalid_dpop_proof" | "use_dpop_nonce":
            advice = "Check dpop: of the token, and this machine's clock."
        case "unsupported_grant_type":
            advice = "The server does not know this type: of token."
        case _ if status == 401:
            advice = f"Check the client's id and secret{client}."
        case _ if status == 403:
            advice = f"Some servers mean a wrong client id or secret by 403{client}."
    return f"{advice} {_ENCODED}".strip() if request.encoded else advice


def _retry_after(response: _Response) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), _PAUSE_MOST) if re.fullmatch(r"[0-9]{1,6}", text) else 0.0
