"""Listening sockets passed by a service manager: sd_listen_fds(3).

The service manager listens during a restart of keyrelay, so that no client is refused meanwhile. A
socket is used for the address under ``listen`` that it is bound to, and for no other: addresses in
a routes file are checked, those in a unit file are not.
"""

from __future__ import annotations

import functools
import os
import socket
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from proxy.errors import KeyrelayError
from proxy.http.address import ListenAddress

_FIRST = 3  # descriptors 0 to 2 are input, output and errors


@functools.cache
def passed_descriptors() -> Mapping[ListenAddress, int]:
    """The passed descriptors by the address that they are bound to. Empty without a manager.

    They stay open for the life of the process, because the manager keeps them open too: an address
    that leaves the configuration and returns could not be bound again. Raises KeyrelayError for an
    unusable socket, with the correction.
    """
    # A child that inherited the variables of the process that they were set for has no sockets.
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = os.environ.get("LISTEN_FDS", "")
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[ListenAddress, int] = {}
    for position in range(int(count) if count.isdecimal() else 0):
        descriptor = _FIRST + position
        label = f"the passed socket {names[position] if position < len(names) else descriptor}"
        try:
            # Commands run by keyrelay must not inherit it.
            os.set_inheritable(descriptor, False)
            with socket.socket(fileno=os.dup(descriptor)) as one:
                address = _address(one, label)
        except OSError as error:
            raise KeyrelayError(f"{label}: {os.strerror(error.errno or 0)}") from None
        found[address] = descriptor
    return found


def passed_socket(address: ListenAddress) -> socket.socket | None:
    """A passed socket at exactly this address, to be closed by the caller; None if there is none.

    Raises KeyrelayError as ``passed_descriptors`` does.
    """
    descriptor = passed_descriptors().get(address)
    return None if descriptor is None else socket.socket(fileno=os.dup(descriptor))


def check_all_served(addresses: Iterable[ListenAddress]) -> None:
    """Raise KeyrelayError for a passed socket at another address: its clients would wait."""
    unused = passed_descriptors().keys() - set(addresses)
    if unused:
        raise KeyrelayError(
            f"a socket was passed at {', '.join(sorted(map(str, unused)))}, where the routes file "
            "does not listen; write the same address under listen: and as ListenStream="
        )


def _address(one: socket.socket, label: str) -> ListenAddress:
    """The address of a passed socket. Raises KeyrelayError if it is unusable or too open."""
    families = {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6}
    listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if one.family not in families or one.type != socket.SOCK_STREAM or not listens:
        raise KeyrelayError(f"{label} accepts no connections; write ListenStream= and Accept=no")
    name = one.getsockname()
    if one.family == socket.AF_UNIX:
        if not isinstance(name, str) or not name.startswith("/"):
            raise KeyrelayError(f"{label} has no path; write ListenStream=/run/…")
        # systemd's default is 0666, and every user that can connect uses the keys.
        if Path(name).stat().st_mode & stat.S_IWOTH:
            raise KeyrelayError(f"every user may connect to {name}; write SocketMode=0660 or 0600")
        return ListenAddress(None, 0, name)
    address = ListenAddress(name[0], name[1], None)
    if one.family == socket.AF_INET6 and address.wildcard:
        alone = one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        if not alone:
            raise KeyrelayError(f"{label} accepts IPv4 as well; write BindIPv6Only=ipv6-only")
    return address
