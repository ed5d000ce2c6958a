"""Token requests (RFC 6749 section 4): one HTTP request each, and the JSON of the token response.

Sent by aiohttp's client, since speed does not matter here. No redirect is followed, no cookie is
stored, no proxy or ``.netrc`` of the environment is used, only ``egress_proxy``; TLS is verified,
addresses are checked as for providers. Of an error response, clients receive the error codes of
RFC 6749 section 5.2 alone; the operator gets code and text, truncated and redacted, since they may
quote the credential.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from proxy.auth.token import TokenError
from proxy.auth.tokens.response import TokenEndpointError, error_in, parse_body
from proxy.http.address import Origin, parse_upstream
from proxy.http.content_coding import decoder
from proxy.upstream.address_policy import may_dial
from proxy.upstream.egress_proxy import EgressProxy
from proxy.upstream.name_lookup import NameLookup

# Default limit for a token request as a whole (seconds); the longest body (bytes).
CALL_SECONDS = 10.0
_BODY_LIMIT = 64 * 1024
# The longest Retry-After that is obeyed (seconds).
_PAUSE_MOST = 3600.0
_FIELDS = {"Accept": "application/json", "Accept-Encoding": "identity"}
_FORBIDDEN = (
    "its name points at an address that routes must not reach; "
    "a private one can be allowed with allow_private: true"
)
# Interval after a refusal (seconds): sooner requests do not help, and may lock an account.
_REFUSED_SECONDS = 60.0
_REFUSED = frozenset({400, 401, 403})
_ENCODED = (
    "The encoding of RFC 6749 section 2.3.1 changes this id or secret, which some servers do not "
    "undo: try client_auth: basic_plain, or form."
)
# RFC 9449 section 8: the proof must contain the nonce of this response.
_USE_DPOP_NONCE = "use_dpop_nonce"


class Prover(Protocol):
    """Proves possession of a key for a request (RFC 9449)."""

    def proof(self, method: str, url: str) -> str:
        """Return the value of the field ``DPoP`` for a request without a token."""

    def take_nonce(self, url: str, nonce: str) -> None:
        """Use this nonce in later proofs for the server at ``url``."""


@dataclass(frozen=True, slots=True, repr=False)
class TokenRequest:
    """A token request. Contains secret bytes: never printed.

    secrets  values that the endpoint may quote; they are redacted in the text of its errors
    encoded  whether form-encoding has changed the id or secret in Basic authorization
    client   the references to the client's credentials, for the operator: ``env:ID, env:SECRET``
    prover   makes a new DPoP proof for each attempt
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    secrets: tuple[bytes, ...] = ()
    encoded: bool = False
    client: str = ""
    prover: Prover | None = None


SendTokenRequest = Callable[[TokenRequest], Awaitable[tuple[Any, float]]]
"""Sends a token request. Returns the JSON document of the response, and the time of its arrival
in seconds since the epoch. Raises TokenError."""


@dataclass(frozen=True, slots=True, repr=False)
class _Response:
    """The parts of a response that are evaluated. Contains secret bytes: never printed."""

    status: int
    headers: Mapping[str, str]
    document: Any


class TokenClient:
    """Sends the token requests of one strategy. A ``SendTokenRequest``.

    tls            with the client's certificate, if any
    call_seconds   time limit of a request
    allow_private  as of the route, like ``allow_plaintext``: see ``address_policy.may_dial``
    egress_proxy   the proxy through which endpoints that it serves are called
    """

    def __init__(
        self,
        tls: ssl.SSLContext,
        wall: Callable[[], float],
        *,
        allow_private: bool,
        allow_plaintext: bool = False,
        call_seconds: float = CALL_SECONDS,
        egress_proxy: EgressProxy | None = None,
    ) -> None:
        self._tls = tls
        self._wall = wall
        self._allow_private = allow_private
        self._allow_plaintext = allow_plaintext
        self._call_seconds = call_seconds
        self._egress_proxy = egress_proxy
        self._resolver = _SharedLookups()

    async def __call__(self, request: TokenRequest) -> tuple[Any, float]:
        """Raises TokenError. Cancelling closes the connection."""
        if request.prover is None:
            return _document_of(request, await self._send(request)), self._wall()
        response = await self._prove(request, request.prover)
        if (
            response.status >= 400
            and "DPoP-Nonce" in response.headers
            and error_in(response.document).code == _USE_DPOP_NONCE
        ):
            response = await self._prove(request, request.prover)
        return _document_of(request, response), self._wall()

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
        except ValueError:
            raise TokenError("the token endpoint's URL cannot be used") from None
        proxy = self._egress_proxy
        if proxy is not None and not proxy.serves(origin):
            proxy = None
        if proxy is not None and origin.literal and not self._may_dial(origin, origin.host):
            raise TokenError(f"the token endpoint cannot be reached ({_FORBIDDEN})")
        sockets = _CheckedSockets(proxy.may_dial if proxy else partial(self._may_dial, origin))
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(
                        ssl=self._tls,
                        force_close=True,
                        socket_factory=sockets,
                        resolver=self._resolver,
                    ),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=aiohttp.ClientTimeout(total=self._call_seconds),
                    trust_env=False,
                    auto_decompress=False,
                ) as session,
                session.request(
                    request.method,
                    URL(request.url, encoded=True),
                    headers={**_FIELDS, **request.headers},
                    data=request.body,
                    allow_redirects=False,
                    # aiohttp sends CONNECT for https, and verifies the endpoint's certificate.
                    proxy=None if proxy is None else str(proxy),
                    proxy_headers=_proxy_fields(proxy),
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
            # The text of the error may contain the URL and the header fields.
            if proxy is not None and isinstance(error, aiohttp.ClientHttpProxyError):
                kind = proxy.refused(error.status, origin).detail.rstrip(".")
            elif proxy is not None:
                kind = f"{_kind(error)}, through the egress proxy {proxy}"
            else:
                kind = _FORBIDDEN if sockets.forbidden else _kind(error)
            raise TokenError(f"the token endpoint cannot be reached ({kind})") from None

    def _may_dial(self, origin: Origin, address: str) -> bool:
        return may_dial(
            address,
            origin,
            allow_private=self._allow_private,
            allow_plaintext=self._allow_plaintext,
        )


def _proxy_fields(proxy: EgressProxy | None) -> dict[str, str] | None:
    if proxy is None or not proxy.authorization:
        return None
    return {"Proxy-Authorization": proxy.authorization.decode("ascii")}


class _SharedLookups(AbstractResolver):
    """Resolves the names of a client's endpoints, each by one lookup that its calls share.

    Calls that have given up would otherwise each leave a thread to a name whose servers do not
    respond.
    """

    def __init__(self) -> None:
        self._lookups: dict[tuple[str, int], NameLookup] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises ``socket.gaierror``."""
        lookup = self._lookups.setdefault((host, port), NameLookup(host, port))
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=found,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found, _, protocol, _, address in await lookup.addresses()
            if family in (socket.AF_UNSPEC, found)
        ]

    async def close(self) -> None:
        """Nothing to close: a lookup in progress ends by itself."""


class _CheckedSockets:
    """Makes sockets only for permitted addresses, be they literal or from DNS."""

    def __init__(self, permitted: Callable[[str], bool]) -> None:
        self._permitted = permitted
        self.forbidden = False

    def __call__(self, info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if not self._permitted(str(address[0])):
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
    """Return the body without its content coding, which some servers apply in any case."""
    coding = decoder(response.headers.get("Content-Encoding", ""))
    body = bytearray()
    async for piece in response.content.iter_any():
        try:
            for plain in (piece,) if coding is None else coding.feed(piece):
                body += plain
                if len(body) > _BODY_LIMIT:
                    raise TokenError(
                        "the token endpoint's response is too large", invalid_response=True
                    )
        except ValueError:
            raise TokenError(
                "the token endpoint's response cannot be decompressed", invalid_response=True
            ) from None
    return bytes(body)


def _document_of(request: TokenRequest, response: _Response) -> Any:
    """Return the document of a successful response. Raises TokenError for any other."""
    status, document = response.status, response.document
    if 300 <= status < 400:
        raise TokenError(
            f"the token endpoint redirects ({status}), which is not followed", invalid_response=True
        )
    if status >= 400:
        raise _failure(request, response, error_in(document))
    if document is None:
        raise TokenError("the token endpoint's response is not JSON", invalid_response=True)
    return document


def _failure(
    request: TokenRequest, response: _Response, error: TokenEndpointError
) -> TokenEndpointFailure:
    status = response.status
    public = f", {error.public}" if error.public else ""
    words = error.redacted(request.secrets)
    least = _REFUSED_SECONDS if status in _REFUSED else 0.0
    requested = _retry_after(response)
    advice = _advice(request, status, error.code)
    return TokenEndpointFailure(
        status,
        error.code,
        f"the token endpoint answered {status}{public}",
        details=f"the token endpoint answered {status}{f', {words}' if words else ''}",
        advice=advice,
        pause_seconds=max(least, requested),
        # Retry-After is obeyed, and means that the refusal may end.
        probes=status in _REFUSED and not requested,
        lasting=status in _REFUSED and not requested,
    )


class TokenEndpointFailure(TokenError):
    """An error response of a token endpoint (RFC 6749 section 5.2): its status and error code."""

    def __init__(self, status: int, code: str, reason: str, **more: Any) -> None:
        super().__init__(reason, **more)
        self.status = status
        self.code = code


def _advice(request: TokenRequest, status: int, code: str) -> str:
    """Return what the operator can do about an error response."""
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
            advice = "The server does not support this type: of token."
        case _ if status == 401:
            advice = f"Check the client's id and secret{client}."
        case _ if status == 403:
            advice = f"Some servers mean a wrong client id or secret by 403{client}."
    return f"{advice} {_ENCODED}".strip() if request.encoded else advice


def _retry_after(response: _Response) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), _PAUSE_MOST) if re.fullmatch(r"[0-9]{1,6}", text) else 0.0
