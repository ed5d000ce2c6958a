"""Which user of this machine connects. Asked once for a connection, never for a request.

A unix socket knows its peer. For TCP the kernel is asked about the client's end of the connection
(``sock_diag``): one question about one socket, some 15 microseconds. ``/proc/net/tcp`` says the
same but lists every socket of the machine, which takes the kernel ten milliseconds and more where
its table is large, with the event loop standing still. Linux only.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from proxy.errors import KeyrelayError, Refusal

_ROOT = 0
# Who cannot connect as more users than this is no less warned of; the rest goes unmentioned.
_MOST_WARNINGS = 64

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
_ANSWER_OWNER = struct.Struct("=II")
_OWNER_OFFSET = _NETLINK.size + 64
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1


class Peers:
    """What is done about other users of this machine who connect.

    enforce   refuse them, and whoever cannot be told; else only ``warn``
    warn      gets one line for each of them, once
    welcome   the users to whom nothing is said: by default this process's, and root, who may do
              everything anyway

    Raises KeyrelayError if they are to be refused where none can be told from another.
    """

    def __init__(
        self,
        *,
        enforce: bool,
        warn: Callable[[str], object],
        welcome: frozenset[int] | None = None,
    ) -> None:
        if enforce and not can_tell():
            raise KeyrelayError(
                "peer_uid: enforce needs Linux with sock_diag, to see which user connects; "
                "set peer_uid: warn, or listen on a unix socket alone with peer_uid: off"
            )
        self._enforce = enforce
        self._warn = warn
        self._welcome = frozenset({os.geteuid(), _ROOT}) if welcome is None else welcome
        self._mentioned: set[int] = set()

    def refusal(self, transport: asyncio.BaseTransport) -> Refusal | None:
        """Why this connection cannot stay, None if it can."""
        uid = find_uid(transport)
        if uid in self._welcome:
            return None
        if uid is not None and uid not in self._mentioned and len(self._mentioned) < _MOST_WARNINGS:
            self._mentioned.add(uid)
            self._warn(_warning(uid, refused=self._enforce))
        return _not_allowed() if self._enforce else None


def find_uid(transport: asyncio.BaseTransport) -> int | None:
    """The user at the other end; None for whoever is not on this machine, or cannot be told.

    A client that has closed its socket cannot be told: the kernel then calls it root's.
    """
    sock = transport.get_extra_info("socket")
    try:
        if sock.family == socket.AF_UNIX:
            return _unix_uid(sock)
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        return None if peer is None or own is None else _tcp_uid(sock.family, peer, own)
    except OSError:
        return None  # the answer to the question asked: nobody can tell


def can_tell() -> bool:
    """Whether this system says who is at the other end of a loopback connection."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as client,
        ):
            # Asked about the client's own end, which is there as long as the client is.
            return _tcp_uid(socket.AF_INET, client.getsockname(), server.getsockname()) is not None
    except OSError:
        return False  # the answer to the question asked


def _unix_uid(sock: Any) -> int:
    """Who had connected, as unix(7) keeps it. Raises OSError."""
    value = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(value)[1]
    return uid


def _tcp_uid(family: int, peer: tuple[Any, ...], own: tuple[Any, ...]) -> int | None:
    """Who owns the socket that is bound to ``peer`` and connected to ``own``. Raises OSError.

    Found also if the client speaks IPv4 through an IPv6 socket.
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
        answer = kernel.recv(4096)  # it is there when sendto returns
    if len(answer) < _OWNER_OFFSET + _ANSWER_OWNER.size:
        return None
    if _NETLINK.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        return None
    uid, inode = _ANSWER_OWNER.unpack_from(answer, _OWNER_OFFSET)
    return uid if inode else None


def _warning(uid: int, *, refused: bool) -> str:
    try:
        name = f" ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        name = ""
    if refused:
        return f"Another user of this machine, uid {uid}{name}, was refused (peer_uid: enforce)."
    return (
        f"Another user of this machine, uid {uid}{name}, uses keyrelay and with it your keys. "
        "Set peer_uid: enforce to refuse others, or off if that is meant."
    )


def _not_allowed() -> Refusal:
    return Refusal(
        403,
        "peer-not-allowed",
        "Keyrelay serves programs of its own user only.",
        "Run the program as that user, or see peer_uid in the routes file.",
    )
