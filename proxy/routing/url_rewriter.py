"""Rewrite the provider's URLs in header fields, so that a client follows them through its route.

A URL is resolved as the client would, then mounted inside the route. One that leads to another
place is forwarded unchanged: the client goes there without a credential. One that leads to this
process by any other way than the route is refused, since another route's credential would be added
to the request. URLs in bodies are not rewritten.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import unquote

from proxy.errors import UpstreamFailure
from proxy.http.address import bracketed
from proxy.http.headers import strip_query
from proxy.http.request import Request
from proxy.routing.route import Route

REDIRECTS = frozenset({301, 302, 303, 307, 308})

# RFC 3986 appendix B without the authority: scheme, the rest up to query or fragment, query, and
# the fragment with its ``#``.
_REFERENCE = re.compile(rb"(?:([A-Za-z][A-Za-z0-9+.-]*):)?([^?#]*)(?:\?([^#]*))?(#.*)?", re.DOTALL)
# WebSocket schemes denote the same origins as those of HTTP (RFC 6455 section 3).
_SCHEMES = {b"http": b"http", b"https": b"https", b"ws": b"http", b"wss": b"https"}
_PORTS = {b"http": 80, b"https": 443}
_AUTHORITY = re.compile(rb"(\[[^\]]*\]|[^:@]*)(?::([0-9]{0,5}))?")
# Dot segments, also encoded: browsers resolve those as well (WHATWG URL, "double-dot segment").
_DOT = re.compile(rb"(?:\.|%2e){1,2}", re.IGNORECASE)
# RFC 8288 section 3: each target is enclosed in angle brackets.
_LINK_TARGET = re.compile(rb"<([^<>]*)>")
# HTML section 4.2.5.3, shared declarative refresh steps.
_REFRESH = re.compile(
    rb"([ \t]*[0-9.]*[ \t]*[;,]?[ \t]*(?:url[ \t]*=[ \t]*)?)"
    rb"(?:'([^']*)'?.*|\"([^\"]*)\"?.*|([^'\"].*))",
    re.IGNORECASE | re.DOTALL,
)
_HOST_AND_PORT = re.compile(r"[a-z0-9.-]{1,100}(:[0-9]{1,5})?")
# Segments in the place of a credential, which this module does not have. In no field value.
_CREDENTIAL = b"/\0"


@dataclass(slots=True)  # not frozen: created per response, and freezing triples the cost
class UrlRewriter:
    """Rewrites the URLs of one response.

    mount      raw path before the provider's path in the client's URL
    rest       raw path behind it, in the request
    hosts      host names, in lower case, under which this process serves
    own_ports  the ports on which it listens
    redirects  whether the status is 3xx: ``Location`` is then relative, as every client resolves it
    tls        whether the client is connected with TLS
    """

    route: Route
    mount: bytes
    rest: bytes
    hosts: frozenset[str] = frozenset()
    request: Request | None = None
    own_ports: Callable[[], Collection[int]] = tuple
    redirects: bool = True
    tls: bool = False

    def __call__(self, name: bytes, value: bytes) -> bytes:
        """The value of the field of this lower-case name for the client.

        Raises UpstreamFailure if it leads to this process outside the route.
        """
        if name == b"link":
            return _LINK_TARGET.sub(lambda found: b"<%b>" % self._rewritten(name, found[1]), value)
        if name == b"refresh":
            found = _REFRESH.fullmatch(value)
            target = None if found is None else found[2] or found[3] or found[4]
            return (
                value if found is None or not target else found[1] + self._rewritten(name, target)
            )
        return self._rewritten(name, value)

    def _rewritten(self, name: bytes, reference: bytes) -> bytes:
        # Browsers remove tabs, and spaces at the ends, before they parse.
        parts = _REFERENCE.fullmatch(reference.strip(b" \t").replace(b"\t", b""))
        assert parts is not None, "the regular expression matches every string"
        given_scheme, hierarchy, query, fragment = parts.groups()
        if not (given_scheme or hierarchy or query):
            return reference  # the document itself
        scheme = _SCHEMES.get((given_scheme or b"http").lower())
        if scheme is None:
            return reference
        # Only browsers take a backslash for a slash; others find a path in "/\\host".
        ambiguous = given_scheme is None and not hierarchy.startswith(b"//")
        hierarchy = hierarchy.replace(b"\\", b"/")
        authority: bytes | None = None
        if given_scheme is not None or hierarchy.startswith(b"//"):
            slashes = b"//+" if ambiguous else b"//"
            found = re.fullmatch(slashes + rb"([^/]+)(.*)", hierarchy, re.DOTALL)
            if found is None and not ambiguous:
                # Clients differ on other numbers of slashes: some take the path for a host.
                raise _leads_here(name)
            authority, path = (None, hierarchy) if found is None else found.groups()
            if authority is not None and not self._is_provider(
                None if given_scheme is None else scheme, authority
            ):
                if self._is_own(scheme, authority):
                    raise _leads_here(name)
                if not ambiguous:
                    return reference
                authority, path = None, hierarchy
        elif hierarchy.startswith(b"/"):
            path = hierarchy
        elif hierarchy:
            base = self._provider_path()
            path = base[: base.rfind(b"/") + 1] + hierarchy
        else:
            path = b""
        if query:
            # An empty reference would denote the query of the request.
            query = strip_query(query, self.route.rules.dropped_query) or (
                None if authority or hierarchy else b""
            )
        if authority or hierarchy:
            path = self._mounted(_without_dots(path))
        if authority is not None and given_scheme is not None:
            path = self._own_origin(name) + path
        return path + (b"" if query is None else b"?" + query) + (fragment or b"")

    def _provider_path(self) -> bytes:
        """The path of the request at the provider, with a placeholder for the credential."""
        credential = _CREDENTIAL if self.route.path_credentials else b""
        return self.route.rules.base_path + credential + self.rest or b"/"

    def _own_origin(self, name: bytes) -> bytes:
        """The origin under which the client requested the route; empty where a path suffices.

        SDKs use the URL of a next page, of an operation or of an upload without resolving it.
        """
        if self.request is None or (name == b"location" and self.redirects):
            return b""
        host = self.request.headers.get("Host", "")
        # Or of a server in front that terminates TLS. The response reaches that client alone.
        forwarded = self.request.headers.get("X-Forwarded-Proto", "")
        https = self.tls or forwarded.lower() == "https"
        return f"{'https' if https else 'http'}://{host}".encode("latin-1") if host else b""

    def _is_provider(self, scheme: bytes | None, authority: bytes) -> bool:
        """Whether this is the route's origin, or the same host over http.

        The latter is requested over https all the same, since the client's request comes here.
        """
        origin = self.route.origin
        own = origin.scheme.encode()
        found = _AUTHORITY.fullmatch(authority)
        if found is None or found[1].lower() != bracketed(origin.host).encode():
            return False
        scheme = scheme or own
        port = int(found[2] or _PORTS[scheme])
        if scheme == own:
            return port == origin.port
        return own == b"https" and (port == origin.port or (port, origin.port) == (80, 443))

    def _mounted(self, path: bytes) -> bytes:
        """Map a path at the provider's origin to one at this proxy's."""
        base = self.route.rules.base_path
        if path == base or path.startswith(base + b"/"):
            path = path[len(base) :]
        for credential in self.route.path_credentials:
            if found := credential.match(path):
                path = path[found.end() :]
                break
        path = path.removeprefix(_CREDENTIAL)
        # Never "//…": it would denote another host.
        return (self.mount + b"/" + path.lstrip(b"/")) if path else self.mount or b"/"

    def _is_own(self, scheme: bytes, authority: bytes) -> bool:
        """Whether a request to this authority may reach one of this process's listeners."""
        text = unicodedata.normalize("NFKC", unquote(authority.decode("utf-8", "replace")))
        found = re.fullmatch(
            r"(?:.*@)?(\[[^\]]*\]|[^:]*)(?::([0-9]{0,5}))?", text.replace("\u3002", "."), re.DOTALL
        )
        if found is None:
            return True  # clients differ on its host
        host, port = found[1].lower().rstrip("."), int(found[2] or _PORTS[scheme])
        address = _address(host)
        if address is not None:
            local = address.is_loopback or address.is_unspecified
            return (local or bracketed(str(address)) in self.hosts) and port in self._ports()
        if host == "localhost":
            return port in self._ports()
        return host.endswith(".localhost") or host in self.hosts

    def _ports(self) -> set[int]:
        """The ports of this process, with that of the request: a container may publish another."""
        if self.request is None:
            return set(self.own_ports())
        host = self.request.headers.get("Host", "")
        _, _, port = host.rpartition("]" if host.endswith("]") else ":")
        usual = _PORTS[b"https" if self.tls else b"http"]
        return {*self.own_ports(), int(port) if port.isdecimal() else usual}


def redirect_note(route: Route, location: bytes) -> str:
    """For log and inspector: the host to which a redirect leads from the provider; else "".

    Clients follow it directly, without the credential or with their dummy key.
    """
    parts = _REFERENCE.fullmatch(location.strip(b" \t"))
    found = None if parts is None else re.match(rb"//([^/]+)", parts[2])
    scheme = None if parts is None or parts[1] is None else _SCHEMES.get(parts[1].lower())
    if found is None or UrlRewriter(route, b"", b"")._is_provider(scheme, found[1]):
        return ""
    # Without user and password.
    name = found[1].rpartition(b"@")[2].decode("latin-1").lower()
    if _HOST_AND_PORT.fullmatch(name) is None:
        return "redirects to another host"
    return f"redirects to {name}; if that is the provider, set upstream: https://{name}"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address of a host in any spelling that clients accept; None for a name."""
    try:
        if host.startswith("["):
            address = ipaddress.IPv6Address(host[1:-1].partition("%")[0])
            return address.ipv4_mapped or address
        if re.fullmatch(r"[0-9a-fx.]+", host):
            return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        pass
    return None


def _without_dots(path: bytes) -> bytes:
    """RFC 3986 section 5.2.4; empty segments stay."""
    if b"." not in path and b"%" not in path:
        return path
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for at, segment in enumerate(segments, 1):
        if _DOT.fullmatch(segment) is None:
            kept.append(segment)
            continue
        if segment.lower().replace(b"%2e", b".") == b"..":
            del kept[-1:]
        if at == len(segments):
            kept.append(b"")
    return b"".join(b"/" + segment for segment in kept)


def _leads_here(name: bytes) -> UpstreamFailure:
    return UpstreamFailure(
        "http_protocol_error",
        f"The provider's {name.decode('latin-1').title()} field leads to keyrelay itself, "
        "by another way than this route.",
    )
