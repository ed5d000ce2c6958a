"""Decide whether a request is served, before any connection is dialled or token fetched.

The order is part of the contract: syntax of the request, Host, browser origin, inbound token. HTTP
and WebSocket requests pass the same checks. All decisions are made on raw bytes, and the checked
bytes are the ones that are forwarded.

Reasons: keyrelay serves requests without a credential, so everything that can make this machine
send a request could use the keys. A web page can. ``Host`` stops a name that was rebound to
127.0.0.1 (DNS rebinding); ``Origin`` and ``Sec-Fetch-Site`` stop a page that requests
``http://127.0.0.1`` directly. Neither check replaces the other. The inbound token, if configured,
stops other clients that can connect.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes, urlsplit

from proxy.errors import Refusal
from proxy.http.abnf import AUTHORITY, NAME_CHARS
from proxy.http.request import Request
from proxy.server.inbound_token import InboundToken
from proxy.websocket.handshake import check_handshake

# Maximum number of cached Host values; a port can be written in very many ways.
_MAX_CACHED_HOSTS = 64

# RFC 3986 section 3.2.2, narrowed to hosts that can name this machine; any port is accepted.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::[0-9]{0,5})?")
# Origin-form (RFC 9112 section 3.2.1) without ``#`` and ``\``, which servers interpret differently.
_TARGET = re.compile(rb"/(?!/)[\x21\x22\x24-\x5b\x5d-\x7e]*")
_ABSOLUTE = re.compile(rf"[Hh][Tt][Tt][Pp][Ss]?://({AUTHORITY})(.*)".encode(), re.DOTALL)
# A dot segment. Some servers remove path parameters before they resolve it; others parse the
# decoded path a second time, where an encoded ``?`` or ``#`` becomes a delimiter.
_DOT_SEGMENT = re.compile(rb"(?:^|[/\\])\.{1,2}(?=[/\\;?#]|$)")
# Values of Sec-Fetch-Site that a message may repeat.
_SITES = frozenset({"cross-site", "same-origin", "same-site", "none"})
_TOKENS = re.compile(rf"[, \t{NAME_CHARS}]*")

# Destinations that no API call has. They would make pages, frames and workers of all providers
# share this machine's localhost as one browser origin.
_NOT_FOR_PAGES = frozenset(
    {"document", "embed", "frame", "iframe", "object", "script", "serviceworker", "sharedworker"}
    | {"worker"}
)


# Health checks, for supervisors without a token; their responses have no content worth protecting.
_WITHOUT_TOKEN = frozenset({b"/-/health", b"/-/ready"})


# For clients that were given keyrelay as their HTTP proxy.
_NO_FORWARD_PROXY = "The client uses keyrelay as its HTTP proxy; keyrelay is a reverse proxy."
_BASE_URL = (
    "Set the client's base URL to keyrelay (http://127.0.0.1:8080/<route>), and remove keyrelay "
    "from HTTP_PROXY, HTTPS_PROXY and ALL_PROXY or from the client's proxy setting."
)
# For commands copied from a playground or a browser's developer tools.
_LEAVE_OUT = (
    "leave out Origin, Referer, Cookie, every Sec-Fetch-* and sec-ch-ua header and a User-Agent "
    "that begins with Mozilla/; do not list that origin"
)


class Guard:
    """The checks of one listener. ``hosts`` are lower-case names, ``origins`` exact origins.

    token      the inbound token that clients must send; None if none is required
    probes     whether health checks are served by address, for listeners beyond loopback
    own_pages  whether ``/-/health`` at a host is keyrelay's own, which requires no token. At a host
               of a single route it is the provider's.
    own_root   whether paths at a host are a single route's from their beginning. Slashes that begin
               them are then made one.
    """

    def __init__(
        self,
        hosts: frozenset[str],
        origins: frozenset[str],
        token: InboundToken | None = None,
        own_pages: Callable[[str], bool] = lambda _host: False,
        own_root: Callable[[str], bool] = lambda _host: False,
        *,
        probes: bool = False,
    ) -> None:
        self._hosts = hosts
        self._origins = origins
        self._token = token
        self._probes = probes
        self._own_pages = own_pages
        self._own_root = own_root
        # Cache of admitted Host values: clients repeat the same one.
        self._admitted: dict[str, str] = {}
        self._pages = {parts: one for one in origins if (parts := _origin_tuple(one))}

    def admit(self, request: Request) -> tuple[str, str | None]:
        """The requested host, and the origin of the page if the request comes from an allowed one.

        Replaces an absolute-form target by its origin form. Raises Refusal for every other request.
        """
        check_syntax(request)
        if self._probes and self._is_probe(request):
            self._browser(request)
            return "", None
        host = self._host(request)
        if request.websocket:
            check_handshake(request)
        page = self._browser(request)
        if self._token is not None and not self._is_open(request, host, page):
            self._token.require(request, page)
        return host, page

    def _is_probe(self, request: Request) -> bool:
        """Whether this is a health check by address, or by HTTP/1.0 without ``Host``.

        Kubelets and load balancers send no name. No DNS name can be rebound to an address literal,
        and the response has no content.
        """
        if (
            request.target not in _WITHOUT_TOKEN
            or request.method not in {"GET", "HEAD"}
            or request.websocket
            or not self._own_pages("")
        ):
            return False
        values = request.headers.getall("Host", [])
        if not values:
            return request.version == (1, 0)
        match = _HOST.fullmatch(values[0])
        if len(values) != 1 or match is None:
            return False
        try:
            ipaddress.ip_address(match[1].strip("[]"))
        except ValueError:
            return False
        return True

    def _is_open(self, request: Request, host: str, page: str | None) -> bool:
        """Whether a request needs no token because keyrelay responds to it itself.

        Browsers send no token with a preflight.
        """
        if page is not None and is_preflight(request):
            return True
        return request.path in _WITHOUT_TOKEN and self._own_pages(host)

    def _host(self, request: Request) -> str:
        values = request.headers.getall("Host", [])
        host = self._admitted.get(values[0]) if len(values) == 1 else None
        if host is None:
            if len(values) != 1 or (match := _HOST.fullmatch(values[0])) is None:
                raise Refusal(400, "bad-host", "The request needs exactly one valid Host field.")
            host = match[1].lower()
            if host not in self._hosts:
                if _ABSOLUTE.match(request.target):
                    raise _forward_proxy(values[0])
                raise _wrong_host(values[0])
            if len(self._admitted) < _MAX_CACHED_HOSTS:
                self._admitted[values[0]] = host
        if not request.target.startswith(b"/") and request.target != b"*":
            absolute = _ABSOLUTE.fullmatch(request.target)
            if absolute is None:
                raise _bad_target()
            if absolute[1] != values[0].encode("latin-1"):
                # Without user and password, which must not reach the log.
                raise _forward_proxy(absolute[1].rpartition(b"@")[2].decode("latin-1"))
            request.set_target(absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2])
        if request.target.startswith(b"//") and self._own_root(host):
            request.set_target(b"/" + request.target.lstrip(b"/"))
        if request.target != b"*":
            check_target(request)
        return host

    def _browser(self, request: Request) -> str | None:
        """The allowed origin of the page, None for a program. Raises Refusal for any other page.

        ``Sec-Fetch-Mode`` alone does not indicate a browser: Node's fetch sends it too.
        """
        get = request.headers.get
        origin = get("Origin")
        site = get("Sec-Fetch-Site")
        if (
            get("Sec-Fetch-Mode") == "navigate"
            or get("Sec-Fetch-Dest") in _NOT_FOR_PAGES
            or "Service-Worker" in request.headers
        ):
            raise _page_refused(
                "Keyrelay serves no pages, frames, scripts or workers.",
                "Call it with fetch, EventSource or WebSocket from an allowed page.",
            )
        if origin is not None:
            # Browsers serialise an origin in one way only, so strings are compared.
            if len(request.headers.getall("Origin")) == 1 and origin in self._origins:
                return origin
            if site in {"same-origin", "same-site", "none"} and not self._is_served(origin):
                # No browser sends these to keyrelay from a page of another host.
                raise _copied(origin)
            if origin == "null":
                raise _page_refused(
                    "The page has no origin of its own (null): a file, or a sandboxed frame.",
                    "Serve the page, as python3 -m http.server 8000 does, and add its origin, "
                    "http://localhost:8000, to browsers.origins. null cannot be listed: every "
                    "site's sandboxed frames have it. An app's page has an origin that can be "
                    "listed, such as capacitor://localhost or tauri://localhost.",
                    origin,
                )
            raise _page_refused(
                "The page's origin is not allowed to use keyrelay.",
                "Of a page of your own, add the exact origin to browsers.origins in the routes "
                "file, or start with --origin. In a command copied from a browser, "
                f"{_LEAVE_OUT}.",
                origin,
            )
        if site == "same-origin" and request.method in {"GET", "HEAD"}:
            return self._behind_proxy(request)
        agent = get("User-Agent", "")
        referer = get("Referer")
        if site is not None:
            mark = f"Sec-Fetch-Site is {site}" if site in _SITES else "it has Sec-Fetch-Site"
        elif agent.startswith("Mozilla/") and " PowerShell/" not in agent:
            mark = "its User-Agent begins with Mozilla/"
        elif referer is not None and _origin_tuple(referer) not in self._pages:
            mark = "its Referer is of another origin"
        else:
            return None
        raise _page_refused(
            f"The request has a browser's mark ({mark}), but no Origin that is allowed.",
            "Pages use fetch, EventSource or WebSocket from an origin in browsers.origins; a "
            "script sets a User-Agent of its own, such as my-script/1.0. In a command copied from "
            f"a browser, {_LEAVE_OUT}.",
        )

    def _behind_proxy(self, request: Request) -> str:
        """The listed page whose GET a dev server passed on. Raises Refusal for any other page.

        Browsers send no ``Origin`` with it, but ``Sec-Fetch-Site``, which no page can set: page and
        target had one origin (Fetch Metadata, section 2.3). The browser named it in ``Referer``,
        and in ``Host`` unless the dev server has changed that.
        """
        values = request.headers.getall
        referers, hosts = values("Referer", ()), values("Host")
        if len(values("Sec-Fetch-Site")) == 1 and len(referers) <= 1:
            urls = referers or [f"{scheme}://{hosts[0]}" for scheme in ("http", "https")]
            for url in urls:
                if (page := _origin_tuple(url)) is not None and page in self._pages:
                    return self._pages[page]
        if referers and not self._is_served(referers[0]):
            raise _copied(referers[0])
        raise _page_refused(
            "A page behind a dev server's proxy sent this, and neither Referer nor Host names a "
            "listed origin (Sec-Fetch-Site is same-origin).",
            "Of a page of your own, add the exact origin at which the browser shows it, such as "
            "http://localhost:5173, to browsers.origins in the routes file, or start with "
            "--origin.",
            referers[0] if referers else "",
        )

    def _is_served(self, origin: str) -> bool:
        """Whether the host of an origin is one of keyrelay's own names, such as localhost."""
        parts = _origin_tuple(origin)
        return parts is not None and (parts[1] in self._hosts or f"[{parts[1]}]" in self._hosts)


def check_syntax(request: Request) -> None:
    """Check version, method, framing and expectation. Raises Refusal."""
    headers = request.headers
    if request.version not in {(1, 1), (1, 0)}:
        raise Refusal(505, "bad-version", "Keyrelay speaks HTTP/1.1.")
    if request.method in {"CONNECT", "TRACE"}:
        raise Refusal(
            405,
            "method-refused",
            _NO_FORWARD_PROXY if request.method == "CONNECT" else "Keyrelay does not serve TRACE.",
            _BASE_URL if request.method == "CONNECT" else "",
            notice=_NO_FORWARD_PROXY if request.method == "CONNECT" else "",
            headers=(("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),),
        )
    if request.target == b"*" and request.method != "OPTIONS":
        raise _bad_target()
    if "Transfer-Encoding" in headers:
        if request.version == (1, 0) or "Content-Length" in headers:
            raise Refusal(400, "bad-framing", "The request's framing contradicts itself.")
        if [value.lower() for value in headers.getall("Transfer-Encoding")] != ["chunked"]:
            raise Refusal(501, "bad-framing", "Of transfer codings only chunked is served.")
    expectations = headers.getall("Expect", ())
    if any(value.lower() != "100-continue" for value in expectations):
        raise Refusal(417, "bad-expectation", "Of expectations only 100-continue is served.")


def check_target(request: Request) -> None:
    """Check that no server can interpret the target as another path. Raises Refusal."""
    if _TARGET.fullmatch(request.target) is None:
        raise _bad_target()
    path = request.path
    if b"%" not in path and b"/." not in path:
        return
    for _ in range(8):
        if _DOT_SEGMENT.search(path):
            raise Refusal(400, "dot-segment", "The path contains a . or .. segment.")
        decoded = unquote_to_bytes(path)
        if decoded == path:
            break
        path = decoded
    else:
        raise Refusal(400, "dot-segment", "The path is percent-encoded too many times.")
    if b"\0" in path:
        raise _bad_target()


def is_preflight(request: Request) -> bool:
    """Whether this is a CORS preflight, to which keyrelay responds itself. Raises Refusal."""
    headers = request.headers
    if (
        request.method != "OPTIONS"
        or "Origin" not in headers
        or "Access-Control-Request-Method" not in headers
    ):
        return False
    if _TOKENS.fullmatch(headers.get("Access-Control-Request-Headers", "")) is None:
        raise Refusal(400, "bad-preflight", "Access-Control-Request-Headers is no list of names.")
    return True


def _origin_tuple(text: str) -> tuple[str, str, int | None] | None:
    """(scheme, host, port) of a page's URL, None for any other string."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        return None
    return parts.scheme, parts.hostname, port or {"http": 80, "https": 443}[parts.scheme]


def _bad_target() -> Refusal:
    return Refusal(400, "bad-target", "The request target is not a plain absolute path.")


def _wrong_host(received: str) -> Refusal:
    return Refusal(
        421,
        "host-not-allowed",
        "Keyrelay does not serve this host name.",
        "Use 127.0.0.1, localhost or <route>.localhost, or list the name under hosts in the routes "
        "file.",
        log_detail=ascii(received[:200]),
    )


def _forward_proxy(received: str) -> Refusal:
    return Refusal(
        421,
        "host-not-allowed",
        _NO_FORWARD_PROXY,
        _BASE_URL,
        log_detail=ascii(received[:200]),
        notice=_NO_FORWARD_PROXY,
    )


def _copied(origin: str) -> Refusal:
    detail = "The request has a browser's headers of a page elsewhere: a copied command?"
    return Refusal(
        403,
        "browser-not-allowed",
        detail,
        f"In a command copied from a playground, {_LEAVE_OUT}. Only the origin of a page of your "
        "own, such as one behind a dev server's proxy, belongs in browsers.origins.",
        headers=(("Vary", "Origin"),),
        log_detail=ascii(origin[:200]),
        notice=detail,
    )


def _page_refused(detail: str, advice: str, received: str = "") -> Refusal:
    return Refusal(
        403,
        "browser-not-allowed",
        detail,
        advice,
        headers=(("Vary", "Origin"),),
        log_detail=ascii(received[:200]) if received else "",
    )
