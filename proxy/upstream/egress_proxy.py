"""Egress proxy: an HTTP proxy on the way to providers, used by CONNECT (RFC 9110 section 9.3.6).

The proxy moves bytes. TLS is established through the tunnel with the provider itself, and verified
as without a proxy. Names of providers are resolved by the proxy; its own address is dialled here.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import re
import socket
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from proxy.errors import ConfigValueError, UpstreamFailure
from proxy.http.abnf import AUTHORITY
from proxy.http.address import Origin, bracketed, parse_upstream
from proxy.upstream.address_policy import may_dial
from proxy.upstream.name_lookup import NameLookup, connect

_URL = re.compile(rf"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>{AUTHORITY})/?")
_HEAD_LIMIT = 16 * 1024  # bytes of the proxy's header section
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?\r?\n")
_CHALLENGES = re.compile(rb"\nproxy-authenticate:([^\r\n]*)", re.IGNORECASE)
# A scheme begins a challenge or follows a comma; a parameter has = behind its name (RFC 9110
# section 11.6.1).
_CHALLENGE_SCHEME = re.compile(r"(?:^|,)\s*([A-Za-z][A-Za-z0-9-]{0,20})(?=\s*(?:,|$|\s[^\s=]))")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CREDENTIALS = "Check username: and password: of egress_proxy."
_OTHER_SCHEME = (
    "Run a proxy of your own that signs in to this one, such as px or cntlm, and write its address "
    "as egress_proxy."
)
_WRONG_PROXY = "Write the address of the HTTP proxy of your network as egress_proxy."


def parse_proxy_url(text: str) -> tuple[Origin, bytes]:
    """Parse a proxy's URL into its origin and ``user:password``, empty without one.

    The scheme is http, also by default, as in curl; the port is 1080 by default there, and has to
    be written here. Raises ConfigValueError, without the text.
    """
    found = _URL.fullmatch(text if "://" in text else f"http://{text}")
    if found is None:
        raise ConfigValueError(
            "this is not the URL of a proxy", "write for example http://proxy.example:3128"
        )
    scheme = found["scheme"].lower()
    if scheme == "https":
        raise ConfigValueError(
            "TLS to the proxy itself is not supported",
            "write http://; TLS to the provider passes through the proxy and is verified here",
        )
    if scheme != "http":
        raise ConfigValueError(
            "only HTTP proxies are supported, no SOCKS", "write http://HOST:PORT of an HTTP proxy"
        )
    userinfo, _, place = found["authority"].rpartition("@")
    if not re.search(r":[0-9]+\Z", place):
        raise ConfigValueError("the proxy's port is missing", "write http://HOST:PORT")
    origin, _ = parse_upstream(f"http://{place}")
    credentials = unquote_to_bytes(userinfo)
    # RFC 7617 section 2: the colon is there without a password too.
    return origin, credentials + b":" if credentials and b":" not in credentials else credentials


class NoProxy:
    """Hosts that are reached without the proxy, by the rules of curl's ``NO_PROXY``.

    A comma or spaces separate entries. ``*`` alone is every host. A name covers itself and its
    subdomains, with or without a leading dot; an address covers itself, a network in CIDR notation
    its addresses. Ports are not part of an entry.
    """

    def __init__(self, text: str = "") -> None:
        self.text = text
        self._every = text.strip() == "*"
        self._names: set[str] = set()
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for entry in re.split(r"[,\s]+", text):
            bare = entry.lower().strip(".")
            try:
                self._networks.append(
                    ipaddress.ip_network(bare.replace("[", "").replace("]", ""), strict=False)
                )
            except ValueError:
                if bare:
                    self._names.add(bare)

    def covers(self, host: str) -> bool:
        """Whether a host, in lower case and without brackets, is reached without the proxy."""
        if self._every:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            labels = host.strip(".").split(".")
            return any(".".join(labels[start:]) in self._names for start in range(len(labels)))
        return any(address in network for network in self._networks)


class EgressProxy:
    """A proxy, its credentials, and the hosts that it does not serve.

    url       with ``user:password@`` if the proxy wants them; a secret
    no_proxy  as ``NoProxy`` takes it

    Raises ConfigValueError for an invalid URL. ``repr`` and ``str`` have no credentials.
    """

    __slots__ = ("_lookup", "_no_proxy", "authorization", "origin")

    def __init__(self, url: str, no_proxy: str = "") -> None:
        self.origin, credentials = parse_proxy_url(url)
        # RFC 7617: the value of Proxy-Authorization, empty without credentials. A secret.
        self.authorization = b"Basic " + base64.b64encode(credentials) if credentials else b""
        self._no_proxy = NoProxy(no_proxy)
        self._lookup = NameLookup(self.origin.host, self.origin.port)

    def __repr__(self) -> str:
        return f"<egress proxy {self}>"

    def __str__(self) -> str:
        return f"http://{_place(self.origin)}"

    def identity(self) -> str:
        """A text that is equal for the same proxy, credentials and hosts. A secret."""
        return f"{self} {self.authorization.hex()} {self._no_proxy.text}"

    def serves(self, origin: Origin) -> bool:
        """Whether connections to a provider lead through the proxy.

        Never for this machine: the proxy's loopback is another one.
        """
        return not origin.loopback and not self._no_proxy.covers(origin.host)

    def may_dial(self, address: str) -> bool:
        """Whether the proxy may be at this address: a private network's, or this machine's."""
        return may_dial(address, self.origin, allow_private=True, allow_plaintext=True)

    async def open(self, destination: Origin, is_own: Callable[[str, int], bool]) -> socket.socket:
        """Open a tunnel to ``destination`` and return its socket, which the caller closes.

        is_own  whether keyrelay itself listens at an address and port

        Raises UpstreamFailure. Cancellation closes the connection.
        """
        sock = await self._connect(is_own)
        try:
            status, schemes = await self._request(sock, destination)
        except OSError:
            sock.close()
            raise UpstreamFailure(
                "connection_terminated", f"The egress proxy {self} closed the connection."
            ) from None
        except BaseException:
            sock.close()
            raise
        if 200 <= status < 300:
            return sock
        sock.close()
        raise self.refused(status, destination, schemes)

    async def _connect(self, is_own: Callable[[str, int], bool]) -> socket.socket:
        try:
            found = await self._lookup.addresses()
        except socket.gaierror:
            raise UpstreamFailure(
                "dns_error",
                f"The host name of the egress proxy {self} cannot be resolved.",
                advice="Check egress_proxy, and this machine's DNS.",
            ) from None
        if any(is_own(str(info[4][0]), self.origin.port) for info in found):
            raise UpstreamFailure(
                "proxy_loop_detected", "The egress proxy is keyrelay itself.", advice=_WRONG_PROXY
            )
        allowed = [info for info in found if self.may_dial(str(info[4][0]))]
        if not allowed:
            raise UpstreamFailure(
                "destination_ip_prohibited",
                f"The egress proxy {self} has an address that must not be connected to.",
                advice=_WRONG_PROXY,
            )
        try:
            return await connect(allowed)
        except OSError as error:
            refused = isinstance(error, ConnectionRefusedError)
            what = "refused the connection" if refused else "cannot be reached"
            raise UpstreamFailure(
                "connection_refused" if refused else "destination_unavailable",
                f"The egress proxy {self} {what}.",
                advice="Check egress_proxy, and that the proxy runs.",
            ) from None

    async def _request(
        self, sock: socket.socket, destination: Origin
    ) -> tuple[int, tuple[str, ...]]:
        """Send the CONNECT request; return the status and the schemes of the proxy's challenges.

        Raises OSError, UpstreamFailure.
        """
        loop = asyncio.get_running_loop()
        place = _place(destination).encode("ascii")
        head = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (place, place)
        if self.authorization:
            head += b"Proxy-Authorization: %b\r\n" % self.authorization
        await loop.sock_sendall(sock, head + b"\r\n")
        received = bytearray()
        while (end := _HEAD_END.search(received)) is None:
            data = await loop.sock_recv(sock, 4096)
            received += data
            if not data or len(received) > _HEAD_LIMIT:
                raise self._no_proxy_response()
        status = _STATUS_LINE.match(received)
        if status is None:
            raise self._no_proxy_response()
        code = int(status[1])
        # In TLS and HTTP the client speaks first; bytes of a tunnel here are none of the provider.
        if 200 <= code < 300 and end.end() != len(received):
            raise self._no_proxy_response()
        return code, _schemes(bytes(received[: end.end()]))

    def _no_proxy_response(self) -> UpstreamFailure:
        return UpstreamFailure(
            "http_protocol_error",
            f"The egress proxy {self} did not respond as an HTTP proxy.",
            advice=_WRONG_PROXY,
        )

    def refused(
        self, status: int, destination: Origin, schemes: tuple[str, ...] = ()
    ) -> UpstreamFailure:
        """The failure for a response to CONNECT other than 2xx.

        ``schemes`` are those with which the proxy takes credentials, as far as it names any.
        """
        place = _place(destination)
        if schemes and "basic" not in map(str.lower, schemes):
            return UpstreamFailure(
                "proxy_configuration_error",
                f"The egress proxy {self} wants authentication by {', '.join(schemes)} ({status}), "
                "and keyrelay has Basic only.",
                advice=_OTHER_SCHEME,
            )
        # tinyproxy responds 401 to a wrong password.
        if status in {HTTPStatus.PROXY_AUTHENTICATION_REQUIRED, HTTPStatus.UNAUTHORIZED}:
            detail = (
                "refused the user name and password"
                if self.authorization
                else "wants a user name and password"
            )
            return UpstreamFailure(
                "proxy_configuration_error",
                f"The egress proxy {self} {detail} ({status}).",
                advice=_CREDENTIALS,
            )
        if status in {HTTPStatus.FORBIDDEN, HTTPStatus.METHOD_NOT_ALLOWED}:
            return UpstreamFailure(
                "proxy_configuration_error",
                f"The egress proxy {self} does not permit connections to {place} ({status}).",
                advice="Its administrator has to permit the host, or list it under no_proxy.",
            )
        return UpstreamFailure(
            "destination_unavailable",
            f"The egress proxy {self} could not connect to {place} ({status}).",
            advice="Check the host of the route's upstream, and the proxy's own log.",
            timed_out=status == HTTPStatus.GATEWAY_TIMEOUT,
        )


def _schemes(head: bytes) -> tuple[str, ...]:
    """Authentication schemes of Proxy-Authenticate in a header section."""
    values = (field[1].decode("latin-1").strip() for field in _CHALLENGES.finditer(head))
    return tuple(found[1] for value in values for found in _CHALLENGE_SCHEME.finditer(value))


def _place(origin: Origin) -> str:
    """Host and port, the default port included (RFC 9110 section 9.3.6)."""
    return f"{bracketed(origin.host)}:{origin.port}"
