"""The way to a host for dials: its addresses, by one lookup at a time, and a connected socket."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from aiohappyeyeballs import AddrInfoType, start_connection

# Delay before the next address is tried in parallel (seconds, RFC 8305 section 5).
_HAPPY_EYEBALLS_DELAY = 0.25


class NameLookup:
    """The addresses of one host and port, by one lookup at a time that all dials share.

    A lookup holds a thread, also after its dials have given up: a name whose servers do not
    respond would otherwise take all threads from the lookups of other names.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._lookup: asyncio.Task[list[AddrInfoType]] | None = None

    async def addresses(self) -> list[AddrInfoType]:
        """Raises ``socket.gaierror``. Cancellation leaves the lookup to the other dials."""
        if literal := _literal(self._host, self._port):
            return literal
        if self._lookup is None:
            self._lookup = asyncio.get_running_loop().create_task(self._resolve())
            self._lookup.add_done_callback(self._looked_up)
        return await asyncio.shield(self._lookup)

    async def _resolve(self) -> list[AddrInfoType]:
        loop = asyncio.get_running_loop()
        return list(await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM))

    def _looked_up(self, lookup: asyncio.Task[list[AddrInfoType]]) -> None:
        self._lookup = None
        if not lookup.cancelled():
            lookup.exception()  # retrieved, even if no dial waits for it any more


async def connect(addresses: list[AddrInfoType]) -> socket.socket:
    """Connect to the first of the addresses that responds. Raises OSError. Cancelling is safe."""
    sock = await start_connection(addresses, happy_eyeballs_delay=_HAPPY_EYEBALLS_DELAY)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _literal(host: str, port: int) -> list[AddrInfoType]:
    """The address if the host is one, which needs no resolver thread; empty for a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return []
    if address.version == 4:
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]
    sockaddr = (host, port, 0, 0)
    return [(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", sockaddr)]
