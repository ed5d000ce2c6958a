"""Open a connection to a provider: resolve, check each address, connect, verify TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Collection
from typing import TypeVar

from aiohappyeyeballs import AddrInfoType

from proxy.errors import UpstreamFailure
from proxy.http.address import Origin
from proxy.upstream.address_policy import dialled_address, may_dial
from proxy.upstream.egress_proxy import EgressProxy
from proxy.upstream.interfaces import DialClock
from proxy.upstream.name_lookup import NameLookup, connect

P = TypeVar("P", bound=asyncio.Protocol)


class Dialer:
    """Opens connections to one origin.

    connect_seconds  limit for resolution, connect and TLS handshake together
    allow_private    see ``address_policy.may_dial``, as for ``allow_plaintext``
    tls              required for an https origin
    address          (host, port) to dial without resolution, for the built-in provider
    own              the (host, port) pairs of keyrelay's own listeners, which are never dialled
    egress_proxy     the proxy through which origins that it serves are reached
    """

    def __init__(
        self,
        origin: Origin,
        *,
        connect_seconds: float,
        allow_private: bool = False,
        allow_plaintext: bool = True,
        tls: ssl.SSLContext | None = None,
        address: tuple[str, int] | None = None,
        own: Callable[[], Collection[tuple[str, int]]] = tuple,
        egress_proxy: EgressProxy | None = None,
    ) -> None:
        if origin.scheme == "https" and tls is None:
            raise ValueError("an https origin needs a TLS context")
        self._origin = origin
        self._connect_seconds = connect_seconds
        self._allow_private = allow_private
        self._allow_plaintext = allow_plaintext
        self._tls = tls if origin.scheme == "https" else None
        self._server_name = origin.host if self._tls else None
        self._address = address
        self._own = own
        served = egress_proxy is not None and egress_proxy.serves(origin)
        self._egress_proxy = egress_proxy if served else None
        self._lookup = NameLookup(origin.host, origin.port)

    async def dial(self, protocol: Callable[[], P], clock: DialClock | None = None) -> P:
        """Open a connection with ``protocol``, TLS included. ``clock`` receives its parts.

        Raises UpstreamFailure. Cancellation closes the half-open connection.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_seconds):
                if self._egress_proxy is not None:
                    # The proxy resolves names; an address can be checked here.
                    if self._origin.literal and not self._may_dial(self._origin.host):
                        raise _prohibited()
                    sock = await self._egress_proxy.open(self._origin, self._is_own_listener)
                    return await self._over(sock, protocol, loop, clock)
                found = await self._resolve()
                if clock is not None:
                    clock.resolved()
                elif len(found) == 1 and found[0][0] == socket.AF_INET:
                    # Without a race the loop connects with less overhead and sets TCP_NODELAY.
                    host, port = found[0][4]
                    _, connection = await loop.create_connection(
                        protocol, host, port, ssl=self._tls, server_hostname=self._server_name
                    )
                    return connection
                return await self._over(await connect(found), protocol, loop, clock)
        except TimeoutError:
            way = "" if self._egress_proxy is None else f" through the proxy {self._egress_proxy}"
            raise UpstreamFailure(
                "connection_timeout",
                f"The provider could not be reached in time{way}.",
                timed_out=True,
            ) from None
        except ssl.SSLCertVerificationError as error:
            raise UpstreamFailure(
                "tls_certificate_error",
                f"The provider's certificate is not valid ({error.verify_message}).",
            ) from None
        except ssl.SSLError:
            raise UpstreamFailure(
                "tls_protocol_error", "The TLS handshake with the provider failed."
            ) from None
        except ConnectionRefusedError:
            raise UpstreamFailure(
                "connection_refused", "The provider refused the connection."
            ) from None
        except OSError:
            raise UpstreamFailure(
                "destination_unavailable", "The provider cannot be reached from here."
            ) from None

    async def _over(
        self,
        sock: socket.socket,
        protocol: Callable[[], P],
        loop: asyncio.AbstractEventLoop,
        clock: DialClock | None,
    ) -> P:
        """The connection over an open socket, TLS with the provider included."""
        if clock is not None:
            clock.connected()
        _, connection = await loop.create_connection(
            protocol, sock=sock, ssl=self._tls, server_hostname=self._server_name
        )
        if clock is not None and self._tls is not None:
            clock.secured()
        return connection

    async def _resolve(self) -> list[AddrInfoType]:
        if self._address is not None:
            family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
            return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", self._address)]
        origin = self._origin
        try:
            found = await self._lookup.addresses()
        except socket.gaierror:
            raise UpstreamFailure(
                "dns_error", "The provider's host name cannot be resolved."
            ) from None
        allowed = [info for info in found if self._may_dial(str(info[4][0]))]
        if not allowed and origin.loopback and origin.scheme == "http":
            raise UpstreamFailure(
                "destination_ip_prohibited",
                "The upstream's host name resolves to another machine, to which the credential "
                "would go over plain http; allow_plaintext: true would allow it.",
            )
        if not allowed:
            raise _prohibited()
        if any(self._is_own_listener(str(info[4][0]), origin.port) for info in allowed):
            raise UpstreamFailure(
                "proxy_loop_detected", "The route's upstream leads back to keyrelay itself."
            )
        return allowed

    def _may_dial(self, address: str) -> bool:
        return may_dial(
            address,
            self._origin,
            allow_private=self._allow_private,
            allow_plaintext=self._allow_plaintext,
        )

    def _is_own_listener(self, address: str, dialled_port: int) -> bool:
        """Whether keyrelay listens at the address. A request would loop until a limit is hit."""
        target = dialled_address(address)
        for host, port in self._own():
            own = dialled_address(host)
            if port == dialled_port and (
                own == target or (own.is_unspecified and target.is_loopback)
            ):
                return True
        return False


def _prohibited() -> UpstreamFailure:
    return UpstreamFailure(
        "destination_ip_prohibited",
        "The provider's host name resolves to an address that routes must not reach; "
        "a private one can be allowed with allow_private: true.",
    )
