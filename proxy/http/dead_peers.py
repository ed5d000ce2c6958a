"""TCP options by which the system closes connections whose peer is gone.

A peer that vanishes (sleep, a VPN that changes, a NAT that forgets) sends nothing, so without these
options an idle connection stays open for ever, and a request on it waits for some 15 minutes.
"""

from __future__ import annotations

import errno
import functools
import ipaddress
import socket
import struct
from typing import Any, Protocol

_IP = frozenset({socket.AF_INET, socket.AF_INET6})
# How many times as long a peer is given that may pause reading.
PAUSE_FACTOR = 5
# Errors of a connection whose peer has acknowledged nothing for too long.
_GONE = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN})
# Probes of an idle connection: the first after half of the time, the rest within the other half.
_PROBES = 3
# ``tcpi_unacked`` of ``struct tcp_info`` (linux/tcp.h), after eight bytes and four numbers.
_UNACKED = struct.Struct("=24xI")


class Transport(Protocol):
    """What is needed of ``asyncio.BaseTransport``."""

    def get_extra_info(self, name: str, default: Any = None, /) -> Any:
        """Return the socket, or the address of its peer."""


def detect_dead_peer(transport: Transport, seconds: float, *, may_pause: bool = False) -> None:
    """Let the system close the connection once its peer has been gone for ``seconds``.

    Idle connections are probed (SO_KEEPALIVE), sent data must be acknowledged (TCP_USER_TIMEOUT,
    RFC 5482), each where the platform has it. ``may_pause``: the peer may rightly read nothing for
    some time, which the second option does not distinguish, so it gets ``PAUSE_FACTOR`` as long. A
    peer on this machine cannot vanish, and is only probed. 0 leaves all to the system.
    """
    sock = transport.get_extra_info("socket")
    if not seconds or sock is None or sock.family not in _IP:
        return
    options = {
        # macOS has another name for it.
        "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE": seconds / 2,
        "TCP_KEEPINTVL": seconds / 2 / _PROBES,
        "TCP_KEEPCNT": _PROBES,
    }
    if not _is_local(transport):
        options["TCP_USER_TIMEOUT"] = seconds * 1000 * (PAUSE_FACTOR if may_pause else 1)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options.items():
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, max(1, round(value)))
    except OSError:
        # Some systems refuse options of a connection that has just ended.
        return


def is_gone(error: Exception | None) -> bool:
    """Whether a connection ended because its peer could no longer be reached."""
    return isinstance(error, OSError) and error.errno in _GONE


def unacknowledged(transport: Transport) -> bool:
    """Whether the peer has not acknowledged some of what was sent. False where it is unknown."""
    sock = transport.get_extra_info("socket")
    if not hasattr(socket, "TCP_INFO") or sock is None or sock.family not in _IP:
        return False
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED.size)
    return len(info) == _UNACKED.size and _UNACKED.unpack(info)[0] > 0


def _is_local(transport: Transport) -> bool:
    peer = transport.get_extra_info("peername")
    # None for a connection that has ended already.
    return not peer or _is_loopback(peer[0])


@functools.lru_cache(maxsize=256)
def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback
