"""The user that owns the client's end of a connection. Queried per connection, not per request.

A unix socket has its peer's credentials. For TCP the kernel is queried for the client's socket
(``sock_diag``): one request about one socket, some 15 microseconds. ``/proc/net/tcp`` has the same
information but lists every socket of the machine, which takes ten milliseconds and more with a
large table and blocks the event loop meanwhile. Linux only.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import select
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from proxy.errors import KeyrelayError, Refusal
from proxy.secrets.file_permissions import is_unmapped

_ROOT = 0
# Maximum number of users that are warned about, which bounds the memory for them.
_MAX_WARNINGS = 64

# struct ucred of unix(7): pid, uid, gid.
_CREDENTIALS = struct.Struct("=iII")
# struct nlmsghdr of netlink(7): length, type, flags, sequence, port.
_NETLINK = struct.Struct("=IHHII")
# struct inet_diag_req_v2 of sock_diag(7): family, protocol, extensions, padding, states; then the
# socket: ports, addresses (network order), interface, cookie (all ones: none).
_REQUEST = struct.Struct("=BBBBI")
_PORTS = struct.Struct("!HH")
_NO_INTERFACE_NO_COOKIE = bytes(4) + b"\xff" * 8
# struct inet_diag_msg: behind 64 bytes, uid and inode.
_REPLY_OWNER = struct.Struct("=II")
_OWNER_OFFSET = _NETLINK.size + 64
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1


class Peers:
    """The policy for connections of other users of this machine.

    enforce  refuse them, and connections of unknown users; else only ``warn``
    warn     called with one line for each such user, once
    allowed  user IDs that are accepted: by default this process's, and root, which has all
             privileges anyway

    Raises KeyrelayError for ``enforce`` on a system without peer lookup.
    """

    def __init__(
        self,
        *,
        enforce: bool,
        warn: Callable[[str], object],
        allowed: frozenset[int] | None = None,
    ) -> None:
        if enforce and not lookup_supported():
            raise KeyrelayError(
                "peer_uid: enforce needs Linux with sock_diag, to see which user connects; "
                "set peer_uid: warn, or listen on a unix socket alone with peer_uid: off"
            )
        self._enforce = enforce
        self._warn = warn
        self._allowed = _own_users() if allowed is None else allowed
        self._warned: set[int] = set()

    def refusal(self, transport: asyncio.BaseTransport) -> Refusal | None:
        """The refusal of this connection, None if it is accepted."""
        uid = find_uid(transport)
        if uid in self._allowed:
            return None
        if uid is not None and uid not in self._warned and len(self._warned) < _MAX_WARNINGS:
            self._warned.add(uid)
            self._warn(_warning(uid, refused=self._enforce))
        return _not_allowed() if self._enforce else None


def _own_users() -> frozenset[int]:
    """The user of this process and root, without a number that the kernel shows for others."""
    return frozenset(uid for uid in (os.geteuid(), _ROOT) if not is_unmapped(uid))


def find_uid(transport: asyncio.BaseTransport) -> int | None:
    """The user ID of the peer; None for a peer on another machine, or if the lookup fails.

    The lookup fails for a client that has closed its socket: the kernel then reports root.
    """
    sock = transport.get_extra_info("socket")
    try:
        if sock.family == socket.AF_UNIX:
            return _unix_uid(sock)
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        found = None if peer is None or own is None else _tcp_owner(sock.family, peer, own)
    except OSError:
        return None  # unknown peer: a result, not an error
    return None if found is None or not found.inode else found.uid


def is_gone(transport: asyncio.BaseTransport) -> bool:
    """Whether the client has closed or reset a connection of which it has ended its direction.

    False for a client that still receives. Also False for one on another machine, or in another
    network namespace, that has closed without a reset: TCP does not tell the two apart.
    """
    sock = transport.get_extra_info("socket")
    peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    try:
        ended = select.poll()
        # POLLHUP and POLLERR are always reported. On a unix socket POLLHUP is the peer's close.
        ended.register(sock.fileno(), 0)
        if ended.poll(0):
            return True
        if sock.family == socket.AF_UNIX or not sys.platform.startswith("linux"):
            return False
        found = _tcp_owner(sock.family, peer, own)
    except OSError:
        return False  # unknown
    # A closed socket lives on without a process until its connection has ended.
    return found is not None and not found.inode


def lookup_supported() -> bool:
    """Whether this system reports the peer of a loopback connection."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as client,
        ):
            # The query is for the client's own socket, which exists as long as the client.
            found = _tcp_owner(socket.AF_INET, client.getsockname(), server.getsockname())
            return found is not None and found.inode != 0
    except OSError:
        return False  # unsupported: the result, not an error


def _unix_uid(sock: Any) -> int:
    """The user ID of the peer at the time of connect, see unix(7). Raises OSError."""
    value = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(value)[1]
    return uid


class _Owner(NamedTuple):
    """Owner of a socket. ``inode`` is 0 if no process has it open any more."""

    uid: int
    inode: int


def _tcp_owner(family: int, peer: tuple[Any, ...], own: tuple[Any, ...]) -> _Owner | None:
    """The owner of the socket that is bound to ``peer`` and connected to ``own``; None if unknown.

    Raises OSError. Also found if the client uses IPv4 through an IPv6 socket.
    """
    ends = b"".join(socket.inet_pton(family, end[0]).ljust(16, b"\0") for end in (peer, own))
    request = (
        _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
        + _PORTS.pack(peer[1], own[1])
        + ends
        + _NO_INTERFACE_NO_COOKIE
    )
    size = _NETLINK.size + len(request)
    head = _NETLINK.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_SOCK_DIAG
    ) as kernel:
        kernel.sendto(head + request, (0, 0))
        reply = kernel.recv(4096)  # available when sendto returns
    if len(reply) < _OWNER_OFFSET + _REPLY_OWNER.size:
        return None
    if _NETLINK.unpack_from(reply)[1] != _SOCK_DIAG_BY_FAMILY:
        return None
    return _Owner(*_REPLY_OWNER.unpack_from(reply, _OWNER_OFFSET))


def _warning(uid: int, *, refused: bool) -> str:
    try:
        name = f" ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        name = ""
    if refused:
        return f"Another user of this machine, uid {uid}{name}, was refused (peer_uid: enforce)."
    return (
        f"Another user of this machine, uid {uid}{name}, uses keyrelay and with it your keys. "
        "Set peer_uid: enforce to refuse others, or off if that is intended."
    )


def _not_allowed() -> Refusal:
    return Refusal(
        403,
        "peer-not-allowed",
        "Keyrelay serves programs of its own user only.",
        "Run the program as that user, or see peer_uid in the routes file.",
    )
