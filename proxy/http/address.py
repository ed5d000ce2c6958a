"""Parse and validate listen addresses, upstream URLs and browser origins.

Pure: no function resolves a name or opens a socket. Every parser raises ``ValueError`` for an
invalid string; the first line of the message is the error, the second line the correction. The
message never repeats the string, because a URL may contain a password.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field, replace

import idna

from proxy.errors import ConfigValueError
from proxy.http.abnf import AUTHORITY, PATH_CHARS, PORT

DEMO_UPSTREAM = "builtin:demo"
"""Upstream of the built-in demo provider: served inside this process, never resolved by name."""

_PORTS = {"http": 80, "https": 443}
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")
_URL = re.compile(
    rf"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>{AUTHORITY})(?P<path>/[^?#]*)?(?P<rest>.*)",
    re.DOTALL,
)
# RFC 3986 section 3.3: the characters of a path, with complete percent escapes only.
_PATH = re.compile(rf"(?:/(?:[{PATH_CHARS}]|%[0-9A-Fa-f]{{2}})+)*")
_DOTS = re.compile(r"(?:\.|%2e){1,2}", re.IGNORECASE)
_UNIX_LIMIT = 107  # bytes of sun_path on Linux, less the closing NUL
_SIDECAR = (
    "listen on 127.0.0.1, [::1] or unix:/path, or set inbound_token in the routes file; in "
    'containers let the client share keyrelay\'s network (network_mode: "service:keyrelay")'
)
_EVERY_NETWORK = "this would listen on every network of the machine"


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Address of a listener: ``host``, an IP address, and ``port``; or ``unix_path``.

    ``port`` 0 requests a free port from the system. ``tls``: clients connect with TLS, the URL has
    the scheme https; an address is the same with it and without.
    """

    host: str | None
    port: int
    unix_path: str | None
    tls: bool = field(default=False, compare=False)

    @property
    def exposed(self) -> bool:
        """Whether other machines can connect, so that an inbound token is required."""
        return self.host is not None and not ipaddress.ip_address(self.host).is_loopback

    @property
    def wildcard(self) -> bool:
        """Whether the listener binds every address of the machine."""
        return self.host is not None and ipaddress.ip_address(self.host).is_unspecified

    def overlaps(self, other: ListenAddress) -> bool:
        """Whether the same connection could reach both: equal addresses, or one is a wildcard.

        ``[::]`` covers IPv6 addresses only, because listeners are opened with IPV6_V6ONLY.
        """
        if self.host is None or other.host is None or self.port != other.port:
            return self == other
        if (":" in self.host) != (":" in other.host):
            return False
        return self.host == other.host or self.wildcard or other.wildcard

    def __str__(self) -> str:
        if self.host is None:
            return f"unix:{self.unix_path}"
        return f"{bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a provider: the only destination of its credential.

    ``host`` is lower-case ASCII (IDNA) or a canonical IP literal without brackets. ``builtin``
    marks the demo provider, whose host name is never resolved.
    """

    scheme: str
    host: str
    port: int
    builtin: bool = False

    @property
    def authority(self) -> str:
        """Value of ``Host``: default port omitted, IPv6 in brackets (RFC 9110 section 7.2)."""
        host = bracketed(self.host)
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether traffic to the origin stays on this machine, so that plain http is no leak."""
        if self.builtin or self.host == "localhost":
            return True
        address = _address(self.host)
        return address is not None and address.is_loopback

    @property
    def literal(self) -> bool:
        """Whether the host is an IP address."""
        return _address(self.host) is not None

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def bracketed(host: str) -> str:
    """``host`` as written before a port: IPv6 in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def parse_listen(text: str) -> ListenAddress:
    """Parse a listen address: ``127.0.0.1:8080``, ``[::1]:8080`` or ``unix:/abs/path``.

    With ``https://`` before an IP address clients connect with TLS.

    The wildcard address is accepted as ``0.0.0.0`` or ``[::]`` only, in none of the other spellings
    that a system may accept. ``check_guarded`` decides whether an inbound token is required.
    Raises ValueError.
    """
    if text.startswith("https://"):
        address = parse_listen(text.removeprefix("https://"))
        if address.unix_path is not None:
            raise ConfigValueError("TLS is for IP addresses", "write it without https://")
        return replace(address, tls=True)
    if text.startswith("http://"):
        raise ConfigValueError(
            "a listener without TLS is written without a scheme", "write 127.0.0.1:8080"
        )
    if text.startswith("unix:"):
        return ListenAddress(None, 0, _unix_path(text.removeprefix("unix:")))
    return _parse_ip_listen(text)


def _parse_ip_listen(text: str) -> ListenAddress:
    host, colon, digits = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")) or "]" in digits:
        if ":" in text and not text.startswith("["):
            raise ConfigValueError(
                "an IPv6 address needs brackets", "write it as '[::1]:8080', in quotes"
            )
        raise ConfigValueError("the port is missing", "write an address such as 127.0.0.1:8080")
    if not PORT.fullmatch(digits) or int(digits) > 65535:
        raise ConfigValueError("the port is not a number from 0 to 65535", "write for example 8080")
    if host.lower().rstrip(".") == "localhost":
        raise ConfigValueError(
            "localhost may mean several addresses",
            f"write 127.0.0.1:{int(digits)}; clients may still use localhost",
        )
    address = _address(host.removeprefix("[").removesuffix("]"))
    if address is None or (address.version == 6) != host.startswith("["):
        if host in {"", "*"} or _NUMERIC.fullmatch(host.lower()):
            raise ConfigValueError(_EVERY_NETWORK, _SIDECAR)
        raise ConfigValueError(
            "a listener needs an IP address, not a name",
            "write 127.0.0.1:8080, '[::1]:8080' or unix:/abs/path",
        )
    mapped = address.ipv4_mapped if address.version == 6 else None
    if (address.is_unspecified and host not in {"0.0.0.0", "[::]"}) or (  # noqa: S104
        mapped is not None and mapped.is_unspecified
    ):
        raise ConfigValueError(_EVERY_NETWORK, _SIDECAR)
    if mapped is not None:
        raise ConfigValueError("this is an IPv4 address in IPv6", f"write {mapped}:{int(digits)}")
    return ListenAddress(str(address), int(digits), None)


def check_guarded(text: str) -> None:
    """Raise ValueError for an address that is safe with an inbound token only.

    Every client that can connect uses the credentials.
    """
    address = parse_listen(text)
    if address.wildcard:
        raise ConfigValueError(_EVERY_NETWORK, _SIDECAR)
    if address.exposed:
        raise ConfigValueError(
            "this address is not loopback: any client that reaches it could use the credentials",
            _SIDECAR,
        )


def check_served_host(text: str) -> None:
    """Raise ValueError for a host name that clients must not use for keyrelay.

    Browsers connect ``0.0.0.0`` to this machine, also from pages of another origin.
    """
    address = _address(text.removeprefix("[").removesuffix("]"))
    if address is not None and address.is_unspecified:
        raise ConfigValueError(
            "this names no machine", "write the name or address that clients use"
        )
    if address is None and _NUMERIC.fullmatch(text.rpartition(".")[2]):
        raise ConfigValueError("this is an address in an unusual spelling", "write it as 192.0.2.1")


def parse_upstream(text: str) -> tuple[Origin, str]:
    """Parse a provider's base URL into its origin and its base path.

    The path has no trailing slash and may be empty. Raises ValueError.
    """
    if text == DEMO_UPSTREAM:
        return Origin("http", "demo.localhost", 80, builtin=True), ""
    found = _URL.fullmatch(text)
    if found is None:
        raise ConfigValueError("this is not a URL", "write for example https://api.example.com")
    scheme = found["scheme"].lower()
    if scheme in {"ws", "wss"}:
        raise ConfigValueError(
            "an upstream is written with http or https; it serves WebSockets as well",
            "write https:// instead of wss://",
        )
    if scheme not in _PORTS:
        raise ConfigValueError("the scheme is neither https nor http", "write https://…")
    if "@" in found["authority"]:
        raise ConfigValueError(
            "a URL with a user or a password in it cannot be used",
            "put the credential into secrets: and its place into auth:",
        )
    if found["rest"]:
        raise ConfigValueError(
            "an upstream has no query and no fragment", "end it before the ? or #"
        )
    host, port = _split_authority(found["authority"])
    path = (found["path"] or "").removesuffix("/")
    if not _PATH.fullmatch(path):
        raise ConfigValueError(
            "the path of the upstream has an empty segment or a character that a URL cannot hold",
            "write it percent-encoded and with single slashes",
        )
    if any(_DOTS.fullmatch(segment) for segment in path.split("/")):
        raise ConfigValueError(
            "the path of the upstream has a dot segment", "write the path it leads to"
        )
    return Origin(scheme, host, port or _PORTS[scheme]), path


def parse_browser_origin(text: str) -> tuple[str, str, int | None]:
    """Parse the origin of a page exactly as a browser sends it: scheme, host, port (None: default).

    RFC 6454 section 6.2. ``null`` is the origin of sandboxed frames and local files of any author,
    ``*`` matches every page, so neither can be listed. Raises ValueError.
    """
    if text in {"null", "*"}:
        raise ConfigValueError(
            f"{text} would allow pages that were not chosen",
            "list the exact origin of your page, such as http://localhost:5173",
        )
    found = _URL.fullmatch(text)
    if found is None:
        raise ConfigValueError(
            "this is not an origin", "write scheme://host:port, as http://localhost:5173"
        )
    if found["path"] or found["rest"] or "@" in found["authority"]:
        raise ConfigValueError(
            "an origin ends after host and port", "write it without path and slash"
        )
    if not text.isascii():
        raise ConfigValueError(
            "browsers send international names encoded", "write it as http://xn--…"
        )
    if text != text.lower():
        raise ConfigValueError("browsers send origins in lower case", "write it in lower case")
    scheme = found["scheme"]
    host, port = _split_authority(found["authority"])
    if port is not None and port == _PORTS.get(scheme):
        raise ConfigValueError("browsers leave the default port out", f"write it without :{port}")
    return scheme, host, port


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address in ``text``, or None. A zone is rejected: it is local to one machine."""
    if "%" in text:
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None  # not an address: the result, not an error


def _unix_path(path: str) -> str:
    if not path.startswith("/") or path.endswith("/") or not path.isprintable():
        raise ConfigValueError(
            "a unix socket needs an absolute path", "write unix:/run/keyrelay/socket"
        )
    if len(path.encode()) > _UNIX_LIMIT:
        raise ConfigValueError(
            f"the path of a unix socket has at most {_UNIX_LIMIT} bytes", "use a shorter directory"
        )
    return path


def _split_authority(authority: str) -> tuple[str, int | None]:
    """The canonical host, and the port if one is present. Raises ValueError."""
    found = re.fullmatch(rf"(\[[^\]]*\]|[^:\[\]]*)(?::({PORT.pattern}))?", authority)
    if found is None:
        raise ConfigValueError("host and port cannot be read", "write host or host:port")
    port = int(found[2]) if found[2] else None
    if port is not None and not 0 < port < 65536:
        raise ConfigValueError(
            "the port is not a number from 1 to 65535", "write the provider's port"
        )
    return _canonical_host(found[1]), port


def _canonical_host(text: str) -> str:
    if text.startswith("["):
        address = _address(text[1:-1])
        if address is None or address.version != 6:
            raise ConfigValueError("this is no IPv6 address", "write for example [2001:db8::1]")
        return str(address)
    if not text or len(text) > 253:
        raise ConfigValueError(
            "the host is missing or too long", "write for example api.example.com"
        )
    host = text.lower()
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError:
            raise ConfigValueError(
                "the host is no valid international name", "check its letters"
            ) from None
    if _address(host) is not None:
        return host
    if _NUMERIC.fullmatch(host.rpartition(".")[2]):
        # Resolvers accept 0x7f.1 or 2130706433 as addresses; the checked and the dialled address
        # must be the same.
        raise ConfigValueError(
            "the host is an address in an unusual spelling", "write it as 192.0.2.1"
        )
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise ConfigValueError(
            "the host is not a valid name",
            "write letters, digits, - and dots, without a dot at the end",
        )
    return host


LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
