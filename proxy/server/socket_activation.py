"""Sockets that a service manager has opened and passed on: sd_listen_fds(3).

It listens while keyrelay is restarted, so that no client is refused meanwhile. A socket serves the
address under ``listen`` that it is bound to, and no other: what a routes file may say is checked,
what a unit file says is not.
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
    """What this process was passed, by the addresses they are bound to. Empty almost always.

    They stay open as long as the process, because the manager keeps them open too: an address that
    is listened at no more, and later again, could not be bound anew. Raises KeyrelayError for what
    cannot be used, with what to write.
    """
    # Whoever inherited the variables from the process that they were for has no such sockets.
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count = os.environ.get("LISTEN_FDS", "")
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[ListenAddress, int] = {}
    for position in range(int(count) if count.isdecimal() else 0):
        descriptor = _FIRST + position
        shown = f"the passed socket {names[position] if position < len(names) else descriptor}"
        try:
            # Commands that keyrelay runs shall not have it.
            os.set_inheritable(descriptor, False)
            with socket.socket(fileno=os.dup(descriptor)) as one:
                address = _address(one, shown)
        except OSError as error:
            raise KeyrelayError(f"{shown}: {os.strerror(error.errno or 0)}") from None
        found[address] = descriptor
    return found


def passed_socket(address: ListenAddress) -> socket.socket | None:
    """A listening socket at that very address, for the caller to close; None if none was passed.

    Raises KeyrelayError as ``passed_descriptors`` does.
    """
    descriptor = passed_descriptors().get(address)
    return None if descriptor is None else socket.socket(fileno=os.dup(descriptor))


def check_all_served(addresses: Iterable[ListenAddress]) -> None:
    """Raise KeyrelayError if a socket was passed for none of these: its clients would wait."""
    unused = passed_descriptors().keys() - set(addresses)
    if unused:
        raise KeyrelayError(
            f"a socket was passed at {', '.join(sorted(map(str, unused)))}, where the routes file "
            "does not listen; write the same address under listen: and as ListenStream="
        )


def _address(one: socket.socket, shown: str) -> ListenAddress:
    """Where clients find it. Raises KeyrelayError if it is none for them, or for too many."""
    families = {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6}
    listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if one.family not in families or one.type != socket.SOCK_STREAM or not listens:
        raise KeyrelayError(f"{shown} takes no connections; write ListenStream= and Accept=no")
    name = one.getsockname()
    if one.family == socket.AF_UNIX:
        if not isinstance(name, str) or not name.startswith("/"):
            raise KeyrelayError(f"{shown} has no path; write ListenStream=/run/…")
        # 0666 unless the unit says otherwise, and who can connect spends the keys.
        if Path(name).stat().st_mode & stat.S_IWOTH:
            raise KeyrelayError(f"every user may connect to {name}; write SocketMode=0660 or 0600")
        return ListenAddress(None, 0, name)
    address = ListenAddress(name[0], name[1], None)
    if one.family == socket.AF_INET6 and address.wildcard:
        alone = one.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        if not alone:
            raise KeyrelayError(f"{shown} takes IPv4 as well; write BindIPv6Only=ipv6-only")
    return address
