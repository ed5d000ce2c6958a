"""Calls to token endpoints: one HTTP request each, and the token out of the JSON answer.

aiohttp's client does the talking; speed does not matter here. No redirect is followed, no cookie
kept, no compression taken, no proxy or ``.netrc`` of the environment used; TLS is verified and
addresses are checked as for providers. Nothing that an endpoint says is repeated: its body may
quote the credential.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from proxy.auth.token_cache import TokenError
from proxy.http.address import Origin, parse_upstream
from proxy.upstream.address_policy import may_dial

# A call as a whole (seconds); the longest answer that is read (bytes).
_CALL_SECONDS = 10.0
_ANSWER_LIMIT = 64 * 1024
# A pause that an endpoint may ask for (seconds).
_PAUSE_MOST = 3600.0
# The error codes of RFC 6749 section 5.2: the only words of an endpoint that are repeated.
_ERRORS = frozenset(
    {
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)
_ASKED = {"Accept": "application/json", "Accept-Encoding": "identity"}
_FORBIDDEN = (
    "its name points at an address that routes must not reach; "
    "a private one can be allowed with allow_private: true"
)
# Asking again will not help soon, and might lock an account (seconds).
_HOPELESS_SECONDS = 60.0


@dataclass(frozen=True, slots=True, repr=False)
class TokenRequest:
    """One request to a token endpoint. Holds secret bytes: never printed."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


Ask = Callable[[TokenRequest], Awaitable[tuple[Any, float]]]
"""Makes a call: the answer's JSON, and when it came, in seconds since the epoch."""


class TokenClient:
    """Makes calls on behalf of one strategy. An ``Ask``.

    allow_private  as of the route: see ``addresses.may_dial``
    """

    def __init__(
        self, tls: ssl.SSLContext, wall: Callable[[], float], *, allow_private: bool
    ) -> None:
        self._tls = tls
        self._wall = wall
        self._allow_private = allow_private

    async def __call__(self, call: TokenRequest) -> tuple[Any, float]:
        """Raises TokenError. Cancelling closes the connection."""
        try:
            origin, _ = parse_upstream(call.url.partition("?")[0])
            sockets = _CheckedSockets(origin, allow_private=self._allow_private)
        except ValueError:
            raise TokenError("the token endpoint's URL cannot be used") from None
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(
                        ssl=self._tls, force_close=True, socket_factory=sockets
                    ),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=aiohttp.ClientTimeout(total=_CALL_SECONDS),
                    trust_env=False,
                    auto_decompress=False,
                ) as session,
                session.request(
                    call.method,
                    URL(call.url, encoded=True),
                    headers={**_ASKED, **call.headers},
                    data=call.body,
                    allow_redirects=False,
                ) as response,
            ):
                return _judged(response, await _limited(response)), self._wall()
        except TimeoutError:
            raise TokenError("the token endpoint did not answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # What the library says may hold the URL and the headers.
            kind = _FORBIDDEN if sockets.forbidden else _kind(error)
            raise TokenError(f"the token endpoint cannot be reached ({kind})") from None


class _CheckedSockets:
    """Makes sockets only for addresses that routes may reach; sees literals and DNS answers."""

    def __init__(self, origin: Origin, *, allow_private: bool) -> None:
        self._origin = origin
        self._allow_private = allow_private
        self.forbidden = False

    def __call__(self, info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if not may_dial(str(address[0]), self._origin, allow_private=self._allow_private):
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
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _ANSWER_LIMIT:
            raise TokenError("the token endpoint's answer is too large", bad_answer=True)
    return bytes(body)


def _judged(response: aiohttp.ClientResponse, body: bytes) -> Any:
    """The JSON of an answer that can be used. Raises TokenError for any other."""
    status = response.status
    document: Any = None
    is_json = re.fullmatch(r"application/(?:[\w.+-]+\+)?json", response.content_type)
    if is_json:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            is_json = None
    if 300 <= status < 400:
        raise TokenError(
            f"the token endpoint redirects ({status}), which is not followed", bad_answer=True
        )
    if status >= 400:
        said = document.get("error") if isinstance(document, dict) else None
        code = f", {said}" if isinstance(said, str) and said in _ERRORS else ""
        least = _HOPELESS_SECONDS if status in {400, 401, 403} else 0.0
        raise TokenError(
            f"the token endpoint answered {status}{code}",
            pause_seconds=max(least, _retry_after(response)),
        )
    if not is_json:
        raise TokenError("the token endpoint's answer is not JSON", bad_answer=True)
    return document


def _retry_after(response: aiohttp.ClientResponse) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), _PAUSE_MOST) if re.fullmatch(r"[0-9]{1,6}", text) else 0.0
